//! Webhooks in the form of Standard Webhooks: their secrets, signatures and bodies.
//! <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use hmac::{Hmac, KeyInit, Mac};
use rand::{Rng, RngExt};
use serde::Serialize;
use sha2::Sha256;

use super::{
    card_number::permutation::PermutationKey,
    message::{Channel, ChannelType, Message},
    org::{Org, OrgId},
    otp::{CreatedId, Scope},
};
use crate::{model::content, secret::Secret, wire::hex};

/// How long a secret that was replaced signs beside the new one.
pub const SECRET_OVERLAP: TimeDelta = TimeDelta::days(1);

/// The most replaced secrets that sign, too. Each is a signature in every request.
const MAX_PREVIOUS: usize = 4;

/// The key that an org's webhooks are signed with. `{:?}` does not show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSecret(Secret<[u8; 32]>);

impl WebhookSecret {
    /// Draws a key.
    pub fn generate(rng: &mut impl Rng) -> Self {
        Self(Secret::new(rng.random()))
    }

    /// A key that was drawn before, as it was stored.
    pub const fn stored(bytes: [u8; 32]) -> Self {
        Self(Secret::new(bytes))
    }

    /// The bytes, for storage.
    pub const fn expose(&self) -> &[u8; 32] {
        self.0.expose()
    }

    /// The key as receivers configure it: `whsec_` and Base64.
    pub fn to_text(&self) -> String {
        format!("whsec_{}", STANDARD.encode(self.expose()))
    }
}

/// The secrets of an org.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSecrets {
    pub current: WebhookSecret,
    /// Those before, the latest first, and the times until which they still sign.
    pub previous: Vec<(WebhookSecret, DateTime<Utc>)>,
}

impl WebhookSecrets {
    /// The secrets after the current one of `secrets` was replaced by `new` at `now`.
    pub fn replaced(secrets: Option<Self>, new: WebhookSecret, now: DateTime<Utc>) -> Self {
        let Some(Self { current, previous }) = secrets else {
            return Self { current: new, previous: Vec::new() };
        };
        let still_used = previous.into_iter().filter(|(_, until)| now < *until);
        let previous = [(current, now + SECRET_OVERLAP)].into_iter().chain(still_used).take(MAX_PREVIOUS);
        Self { current: new, previous: previous.collect() }
    }

    /// The value of `webhook-signature` for a request with that id and body at `now`: a signature
    /// by each secret that is in use.
    pub fn signatures(&self, id: &str, body: &str, now: DateTime<Utc>) -> String {
        let previous = self.previous.iter().filter(|(_, until)| now < *until).map(|(secret, _)| secret);
        let sign = |secret: &WebhookSecret| signature(secret.expose(), id, now.timestamp(), body);
        [&self.current].into_iter().chain(previous).map(sign).collect::<Vec<_>>().join(" ")
    }
}

/// The signature of a request by one key. `timestamp` is in seconds since 1970.
fn signature(key: &[u8], id: &str, timestamp: i64, body: &str) -> String {
    format!("v1,{}", STANDARD.encode(hmac(key, &format!("{id}.{timestamp}.{body}"))))
}

/// The id of a message on one channel, by the key of its item and the channel's position: the same
/// whenever it is computed, and different for every message and channel. The keys of items contain
/// addresses, so it depends on a secret of the org that never changes: nobody can tell the address
/// by trying all of them.
pub fn webhook_id(secret: &PermutationKey, pk: &str, sk: &str, position: usize) -> String {
    let digest = hmac(secret.expose(), &format!("webhook-id\n{pk}\n{sk}\n{position}"));
    format!("msg_{}", hex(&digest[..16]))
}

fn hmac(key: &[u8], text: &str) -> [u8; 32] {
    // A key of any length is accepted.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return [0; 32];
    };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

/// A message to be sent on one channel.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    pub org: &'a Org,
    pub created_id: CreatedId,
    pub scope: Scope,
    pub channel: &'a Channel,
    pub message: &'a Message,
    /// When the message was asked for.
    pub requested_at: DateTime<Utc>,
    pub valid_until: DateTime<Utc>,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "type")]
    event: &'static str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Data<'a> {
    org_id: OrgId,
    created_id: u64,
    scope: Scope,
    channel: ChannelType,
    to: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    html: Option<String>,
    valid_upto: String,
}

impl Outgoing<'_> {
    /// The body of a webhook's request. An e-mail has a subject and HTML, every other channel a
    /// text. The body is the same at every attempt.
    pub fn webhook_body(&self) -> String {
        let is_email = self.channel.channel_type == ChannelType::Email;
        let for_email = |text| is_email.then_some(text);
        let valid_until = self.org.timezone.local(self.valid_until);
        let body = Body {
            event: "otp.message",
            timestamp: self.requested_at.to_rfc3339_opts(SecondsFormat::Millis, true),
            data: Data {
                org_id: self.org.id(),
                created_id: self.created_id.0,
                scope: self.scope,
                channel: self.channel.channel_type,
                to: &self.channel.value,
                text: (!is_email).then_some(self.message.text.expose()),
                subject: for_email(self.message.email_subject.expose()).map(String::as_str),
                html: for_email(self.message.email_body.expose()).map(|body| content::email_html(body)),
                valid_upto: valid_until.to_rfc3339_opts(SecondsFormat::Secs, false),
            },
        };
        // Texts and numbers can always be written as JSON.
        serde_json::to_string(&body).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::secret::os_rng;

    /// The example of the specification's reference libraries.
    #[test]
    fn the_published_example_has_its_signature() {
        let key = STANDARD.decode("C2FVsBQIhrscChlQIMV+b5sSYspob7oD").unwrap();
        let body = r#"{"email":"test@example.com","username":"test_user"}"#;
        let signed = signature(&key, "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk", 1_649_367_553, body);
        assert_eq!(signed, "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw=");
    }

    #[test]
    fn each_message_and_channel_has_an_id_of_its_own_that_only_its_org_can_compute() {
        let [own, other] = [1, 2].map(|byte| Secret::new([byte; 32]));
        let sk = |send: u32| format!("MESSAGE#POINTS#1#{send:0>5}");
        let first = webhook_id(&own, "ORG#1#USER#1", &sk(1), 0);
        assert_eq!(first, webhook_id(&own, "ORG#1#USER#1", &sk(1), 0));
        let others = [
            webhook_id(&own, "ORG#1#USER#1", &sk(1), 1),
            webhook_id(&own, "ORG#1#USER#1", &sk(2), 0),
            webhook_id(&own, "ORG#1#USER#2", &sk(1), 0),
            webhook_id(&other, "ORG#1#USER#1", &sk(1), 0),
        ];
        assert!(!others.contains(&first), "{others:?}");
    }

    #[test]
    fn a_replaced_secret_signs_for_a_day_beside_the_new_one() {
        let now = DateTime::UNIX_EPOCH;
        let [first, second, third] = [1, 2, 3].map(|byte| WebhookSecret::stored([byte; 32]));
        let alone = WebhookSecrets::replaced(None, first.clone(), now);
        let both = WebhookSecrets::replaced(Some(alone.clone()), second.clone(), now);
        let count = |secrets: &WebhookSecrets, at| secrets.signatures("id", "{}", at).split(' ').count();
        assert_eq!(count(&alone, now), 1);
        assert_eq!(count(&both, now), 2);
        assert_eq!(count(&both, now + TimeDelta::seconds(86_399)), 2);
        assert_eq!(count(&both, now + TimeDelta::days(1)), 1);
        let again = WebhookSecrets::replaced(Some(both), third.clone(), now + TimeDelta::hours(1));
        let until = |hours| now + TimeDelta::hours(hours);
        assert_eq!(again.previous, [(second, until(25)), (first, until(24))], "its day is not cut short");
        let later = WebhookSecrets::replaced(Some(again.clone()), third, until(24));
        assert_eq!(later.previous.len(), 2, "those whose day is over are forgotten");
        let many = (0..9).fold(again, |secrets, byte| {
            WebhookSecrets::replaced(Some(secrets), WebhookSecret::stored([byte; 32]), now)
        });
        assert_eq!(count(&many, now), 1 + MAX_PREVIOUS);
    }

    #[test]
    fn a_secret_is_shown_only_by_its_text() {
        let secret = WebhookSecret::generate(&mut os_rng());
        let text = secret.to_text();
        assert_eq!(STANDARD.decode(text.strip_prefix("whsec_").unwrap()).unwrap(), secret.expose());
        let secrets = WebhookSecrets::replaced(None, secret, DateTime::UNIX_EPOCH);
        assert_eq!(
            format!("{secrets:?}"),
            "WebhookSecrets { current: WebhookSecret([secret]), previous: [] }"
        );
    }

    proptest! {
        #[test]
        fn receivers_of_standard_webhooks_accept_every_signature(
            key: [u8; 32], id in "[a-zA-Z0-9_]{1,40}", seconds in 0..4_000_000_000_i64, body in ".{0,200}"
        ) {
            let now = DateTime::from_timestamp(seconds, 0).unwrap();
            let secrets = WebhookSecrets::replaced(None, WebhookSecret::stored(key), now);
            let receiver = standardwebhooks::Webhook::new(&secrets.current.to_text()).unwrap();
            let expected = receiver.sign(&id, seconds, body.as_bytes()).unwrap();
            prop_assert_eq!(secrets.signatures(&id, &body, now), expected);
        }
    }
}
