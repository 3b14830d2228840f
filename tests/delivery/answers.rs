//! What becomes of a message at each answer of a provider.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    providers::{Called, Reply},
    world::{BY_AWS, BY_WEBHOOK, EMAIL, MOBILE, SHORT, World, shown},
};

fn on(channel: &str) -> Value {
    json!([{"type": channel, "value": if channel == "EMAIL" { EMAIL } else { MOBILE }}])
}

/// Delivers a message whose provider always gives the same reply. Returns its state and how often
/// the provider was called.
async fn outcome(channels: &str, channel: &str, reply: Reply) -> (String, usize) {
    let world = World::new(channels).await;
    world.providers.reply(move |_, _| reply.clone());
    let key = world.put(&on(channel)).await;
    let started = Instant::now();
    let outcomes = shown(&world.deliver(&key).await);
    assert!(started.elapsed() < SHORT.total + Duration::from_millis(400), "{:?}", started.elapsed());
    assert_eq!(world.states(&key).await, outcomes, "the item says what is returned");
    (outcomes[0].clone(), world.providers.received().len())
}

/// The errors of `SendTextMessage` and `SendVoiceMessage` that no other attempt changes.
const FINAL_SMS_ERRORS: &[(&str, &str, &str)] = &[
    ("ConflictException", "DESTINATION_PHONE_NUMBER_NOT_VERIFIED", "not_verified"),
    ("ConflictException", "DESTINATION_PHONE_NUMBER_OPTED_OUT", "opted_out"),
    ("ConflictException", "DESTINATION_COUNTRY_BLOCKED_BY_PROTECT_CONFIGURATION", "blocked_country"),
    ("ConflictException", "DESTINATION_PHONE_NUMBER_BLOCKED_BY_PROTECT_NUMBER_OVERRIDE", "blocked_number"),
    ("ConflictException", "NO_ORIGINATION_IDENTITIES_FOUND", "not_configured"),
    ("ConflictException", "MESSAGE_TYPE_MISMATCH", "not_configured"),
    ("ConflictException", "SOMETHING_NEW", "rejected"),
    ("ConflictException", "", "rejected"),
    ("ValidationException", "DESTINATION_COUNTRY_BLOCKED", "blocked_country"),
    ("ValidationException", "COUNTRY_NOT_ENABLED", "blocked_country"),
    ("ValidationException", "PRICE_OVER_THRESHOLD", "too_expensive"),
    ("ValidationException", "MAXIMUM_SIZE_EXCEEDED", "too_long"),
    ("ValidationException", "INVALID_IDENTITY_FOR_DESTINATION_COUNTRY", "not_configured"),
    ("ValidationException", "SENDER_ID_REQUIRES_REGISTRATION", "not_configured"),
    ("ValidationException", "VOICE_CAPABILITY_NOT_AVAILABLE", "not_configured"),
    ("ValidationException", "INVALID_PARAMETER", "rejected"),
    ("ValidationException", "", "rejected"),
    ("AccessDeniedException", "", "not_permitted"),
    ("AccessDeniedException", "INSUFFICIENT_ACCOUNT_REPUTATION", "not_permitted"),
    ("AccessDeniedException", "ACCOUNT_DISABLED", "not_permitted"),
    ("ResourceNotFoundException", "", "not_configured"),
    ("ServiceQuotaExceededException", "MONTHLY_SPEND_LIMIT_REACHED_FOR_TEXT", "quota_exceeded"),
    ("ServiceQuotaExceededException", "DAILY_DESTINATION_CALL_LIMIT", "quota_exceeded"),
    ("UnrecognizedClientException", "", "not_permitted"),
    ("ExpiredTokenException", "", "not_permitted"),
    ("SomethingNew", "", "rejected"),
];

#[tokio::test]
async fn each_error_of_end_user_messaging_has_its_reason() {
    for channel in ["SMS", "PHONE"] {
        for (code, detail, reason) in FINAL_SMS_ERRORS {
            let found = outcome(BY_AWS, channel, Reply::error(code, detail)).await;
            assert_eq!(found, (format!("failed: {reason}"), 1), "{channel}: {code} {detail}");
        }
        for (code, reason) in
            [("ThrottlingException", "throttled"), ("InternalServerException", "unavailable")]
        {
            let (state, calls) = outcome(BY_AWS, channel, Reply::error(code, "")).await;
            assert_eq!(state, format!("failed: {reason}"), "{channel}: {code}");
            assert!(calls > 2, "{channel}: {code} was tried {calls} times");
        }
    }
}

#[tokio::test]
async fn a_wrong_field_is_the_customers_or_the_orgs() {
    for (field, reason) in [
        ("DestinationPhoneNumber", "invalid_number"),
        ("OriginationIdentity", "not_configured"),
        ("MessageBody", "rejected"),
    ] {
        let fields = json!([{"Name": field, "Message": "about +918799361139"}]);
        let body = json!({"Message": "x", "Reason": "FIELD_VALIDATION_FAILED", "Fields": fields});
        let found = outcome(BY_AWS, "SMS", Reply::Refused(400, "ValidationException", body)).await;
        assert_eq!(found, (format!("failed: {reason}"), 1), "{field}");
    }
}

#[tokio::test]
async fn each_error_of_ses_has_its_reason() {
    let not_verified =
        json!({"message": "Email address is not verified. The following identities failed: x"});
    let error = |code| Reply::error(code, "");
    for (reply, reason) in [
        (Reply::Refused(400, "MessageRejected", not_verified), "not_verified"),
        (error("MessageRejected"), "rejected"),
        (error("MailFromDomainNotVerifiedException"), "not_verified"),
        (error("BadRequestException"), "rejected"),
        (error("AccountSuspendedException"), "not_permitted"),
        (error("SendingPausedException"), "not_permitted"),
        (error("AccessDeniedException"), "not_permitted"),
        (error("LimitExceededException"), "quota_exceeded"),
        (error("NotFoundException"), "not_configured"),
    ] {
        let found = outcome(BY_AWS, "EMAIL", reply.clone()).await;
        assert_eq!(found, (format!("failed: {reason}"), 1), "{reply:?}");
    }
    for (status, code, reason) in
        [(429, "TooManyRequestsException", "throttled"), (500, "InternalServiceError", "unavailable")]
    {
        let (state, calls) = outcome(BY_AWS, "EMAIL", Reply::Refused(status, code, json!({}))).await;
        assert_eq!(state, format!("failed: {reason}"), "{code}");
        assert!(calls > 2, "{code} was tried {calls} times");
    }
}

#[tokio::test]
async fn a_gateways_status_decides_whether_it_is_tried_again() {
    for status in [400, 401, 403, 404, 405, 409, 410, 413, 422, 300, 301, 302, 303, 304, 307, 308] {
        let found = outcome(BY_WEBHOOK, "SMS", Reply::status(status)).await;
        assert_eq!(found, (format!("failed: gateway_{status}"), 1));
    }
    for status in [408, 429, 500, 502, 503, 504] {
        let (state, calls) = outcome(BY_WEBHOOK, "SMS", Reply::status(status)).await;
        assert_eq!(state, format!("failed: gateway_{status}"));
        assert!(calls > 2, "{status} was tried {calls} times");
    }
    for status in [200, 201, 202, 204] {
        let (state, calls) = outcome(BY_WEBHOOK, "SMS", Reply::status(status)).await;
        assert!(state.starts_with("sent: msg_") && calls == 1, "{status}: {state}, {calls}");
    }
}

/// A provider and a channel that it sends.
const PROVIDERS: [(&str, &str, Called); 4] = [
    (BY_AWS, "SMS", Called::Text),
    (BY_AWS, "PHONE", Called::Voice),
    (BY_AWS, "EMAIL", Called::Email),
    (BY_WEBHOOK, "SMS", Called::Webhook),
];

#[tokio::test]
async fn a_provider_that_does_not_answer_or_breaks_the_connection_is_given_up() {
    for (channels, channel, _) in PROVIDERS {
        let (state, _) = outcome(channels, channel, Reply::Silent).await;
        assert_eq!(state, "failed: timed_out", "{channel}");
        let (state, calls) = outcome(channels, channel, Reply::Reset).await;
        assert_eq!(state, "failed: unreachable", "{channel}");
        assert!(calls > 2, "{channel} was tried {calls} times");
    }
}

#[tokio::test]
async fn a_transient_failure_delays_a_message_and_does_not_lose_it() {
    for (channels, channel, called) in PROVIDERS {
        let failures = match called {
            Called::Webhook => vec![Reply::status(503), Reply::Reset],
            Called::Email => vec![Reply::error("TooManyRequestsException", ""), Reply::Reset],
            _ => vec![
                Reply::error("ThrottlingException", ""),
                Reply::Reset,
                Reply::error("InternalServerException", ""),
            ],
        };
        for failure in failures {
            let world = World::new(channels).await;
            let reply = failure.clone();
            world.providers.reply(move |_, before| if before == 0 { reply.clone() } else { Reply::Taken });
            let key = world.put(&on(channel)).await;
            assert!(shown(&world.deliver(&key).await)[0].starts_with("sent"), "{channel}: {failure:?}");
            assert_eq!(world.providers.taken().len(), 1, "{channel}: {failure:?}");
        }
    }
}

#[tokio::test]
async fn a_lost_answer_sends_a_message_twice_and_a_gateway_can_tell() {
    for (channels, channel, called) in PROVIDERS {
        let world = World::new(channels).await;
        let lost = |_: &_, before| if before == 0 { Reply::TakenAndReset } else { Reply::Taken };
        world.providers.reply(lost);
        let key = world.put(&on(channel)).await;
        assert!(shown(&world.deliver(&key).await)[0].starts_with("sent"), "{channel}");
        let taken = world.providers.taken();
        assert_eq!(taken.len(), 2, "{channel}");
        if called == Called::Webhook {
            assert_eq!(taken[0].header("webhook-id"), taken[1].header("webhook-id"));
            assert_eq!(taken[0].text, taken[1].text);
        }
    }
}

#[tokio::test]
async fn one_channels_failure_does_not_delay_the_others() {
    let world = World::new(BY_AWS).await;
    world
        .providers
        .reply(|received, _| if received.called == Called::Text { Reply::Silent } else { Reply::Taken });
    let key = world.put(&json!([{"type": "SMS", "value": MOBILE}, {"type": "EMAIL", "value": EMAIL}])).await;
    let delivery = tokio::spawn({
        let (deliverer, key) = (world.deliverer.clone(), key.clone());
        async move { deliverer.deliver(&key).await.unwrap() }
    });
    let started = Instant::now();
    while world.states(&key).await != ["sending", "sent: id-1"] {
        assert!(started.elapsed() < SHORT.total, "the e-mail's outcome must not wait for the text message");
        tokio::task::yield_now().await;
    }
    assert_eq!(shown(&delivery.await.unwrap()), ["failed: timed_out", "sent: id-1"]);
}
