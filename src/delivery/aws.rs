//! Sends messages by AWS: text messages and calls by End User Messaging, e-mails by SES.

use std::{collections::HashMap, time::Duration};

use aws_config::SdkConfig;
use aws_sdk_pinpointsmsvoicev2::{
    Client as SmsClient,
    operation::{send_text_message::SendTextMessageError, send_voice_message::SendVoiceMessageError},
    types::{
        DestinationCountryParameterKey, MessageType, ValidationExceptionField, VoiceMessageBodyTextType,
    },
};
use aws_sdk_sesv2::{
    Client as EmailClient,
    error::{ProvideErrorMetadata, SdkError},
    operation::send_email::SendEmailError,
    types::{Body, Content, Destination, EmailContent, Message as EmailMessage},
};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_types::{retry::RetryConfig, timeout::TimeoutConfig};

use super::attempts::AttemptError;
use crate::{
    aws_call::{CREDENTIALS, DENIED},
    model::{
        content::{EmailParts, mailbox},
        delivery::AwsSettings,
        delivery_state::FailureReason::{
            self, BlockedCountry, BlockedNumber, InvalidNumber, NotConfigured, NotPermitted, NotVerified,
            OptedOut, QuotaExceeded, Rejected, Throttled, TimedOut, TooExpensive, TooLong, Unavailable,
            Unreachable,
        },
    },
    settings::ProviderSettings,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The range of `TimeToLive`, in seconds.
/// <https://docs.aws.amazon.com/pinpoint/latest/apireference_smsvoicev2/API_SendTextMessage.html>
const TIME_TO_LIVE: (i64, i64) = (5, 259_200);

/// The calling code of India, whose operators check the ids of its DLT.
const INDIA: &str = "91";

const UTF_8: &str = "UTF-8";

/// The clients of the services that send messages. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AwsClients {
    pub(super) sms: SmsClient,
    pub(super) email: EmailClient,
}

/// A text message or a call.
pub(super) struct Sms<'a> {
    pub settings: &'a AwsSettings,
    /// Digits, with the country code.
    pub to: &'a str,
    /// The text, or the SSML of a call.
    pub body: &'a str,
    /// The id of the text with India's DLT, or empty.
    pub template_id: &'a str,
    /// How long the message is of use.
    pub validity: Duration,
}

impl AwsClients {
    /// Clients that share `config` with the other clients of the process. They make one attempt.
    pub fn new(config: &SdkConfig, providers: &ProviderSettings) -> Self {
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).build();
        let mut sms = aws_sdk_pinpointsmsvoicev2::config::Builder::from(config)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts.clone());
        if let Some(endpoint) = &providers.sms_endpoint {
            sms = sms.endpoint_url(endpoint);
        }
        let mut email = aws_sdk_sesv2::config::Builder::from(config)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(endpoint) = &providers.email_endpoint {
            email = email.endpoint_url(endpoint);
        }
        Self { sms: SmsClient::from_conf(sms.build()), email: EmailClient::from_conf(email.build()) }
    }

    /// Sends a text message. Returns its id.
    pub(super) async fn send_text(&self, sms: &Sms<'_>) -> Result<String, AttemptError> {
        let Sms { settings, to, body, template_id, validity } = sms;
        let ids = [
            (DestinationCountryParameterKey::InEntityId, settings.sms_entity_id.as_str()),
            (DestinationCountryParameterKey::InTemplateId, template_id),
        ];
        let ids: HashMap<_, _> = ids
            .into_iter()
            .filter(|(_, id)| to.starts_with(INDIA) && !id.is_empty())
            .map(|(key, id)| (key, id.to_owned()))
            .collect();
        let sent = self
            .sms
            .send_text_message()
            .destination_phone_number(format!("+{to}"))
            .set_origination_identity(set(&settings.sms_origination))
            .message_body(*body)
            .message_type(MessageType::Transactional)
            .time_to_live(time_to_live(*validity))
            .set_configuration_set_name(set(&settings.sms_configuration_set))
            .set_protect_configuration_id(set(&settings.sms_protect_configuration))
            .set_max_price(set(&settings.sms_max_price).map(with_point))
            .set_destination_country_parameters((!ids.is_empty()).then_some(ids))
            .send()
            .await;
        match sent {
            Ok(sent) => Ok(sent.message_id.unwrap_or_default()),
            Err(error) => Err(classify(&error, text_reason)),
        }
    }

    /// Calls a number and says the SSML. Returns the message's id.
    pub(super) async fn call(&self, sms: &Sms<'_>) -> Result<String, AttemptError> {
        let Sms { settings, to, body, template_id: _, validity } = sms;
        let sent = self
            .sms
            .send_voice_message()
            .destination_phone_number(format!("+{to}"))
            .origination_identity(&settings.voice_origination)
            .message_body(*body)
            .message_body_text_type(VoiceMessageBodyTextType::Ssml)
            .time_to_live(time_to_live(*validity))
            .set_configuration_set_name(set(&settings.sms_configuration_set))
            .set_protect_configuration_id(set(&settings.sms_protect_configuration))
            .send()
            .await;
        match sent {
            Ok(sent) => Ok(sent.message_id.unwrap_or_default()),
            Err(error) => Err(classify(&error, voice_reason)),
        }
    }

    /// Sends an e-mail. Returns its id.
    pub(super) async fn send_email(
        &self,
        settings: &AwsSettings,
        to: &str,
        subject: &str,
        parts: EmailParts,
    ) -> Result<String, AttemptError> {
        let incomplete = |_| AttemptError::last(Rejected, "incomplete");
        let content = |text: String| Content::builder().data(text).charset(UTF_8).build().map_err(incomplete);
        let body = Body::builder().text(content(parts.text)?).html(content(parts.html)?).build();
        let message = EmailMessage::builder().subject(content(subject.to_owned())?).body(body).build();
        let sent = self
            .email
            .send_email()
            .from_email_address(mailbox(&settings.email_from))
            .destination(Destination::builder().to_addresses(to).build())
            .content(EmailContent::builder().simple(message).build())
            .send()
            .await;
        match sent {
            Ok(sent) => Ok(sent.message_id.unwrap_or_default()),
            Err(error) => Err(classify(&error, email_reason)),
        }
    }
}

/// A setting, unless it is empty.
fn set(setting: &str) -> Option<String> {
    (!setting.is_empty()).then(|| setting.to_owned())
}

/// A price with a decimal point, as the API requires it.
fn with_point(price: String) -> String {
    if price.contains('.') { price } else { price + ".0" }
}

fn time_to_live(validity: Duration) -> i32 {
    let (least, most) = TIME_TO_LIVE;
    let seconds = i64::try_from(validity.as_secs()).unwrap_or(most).clamp(least, most);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

/// The reason for a service's error, and whether another attempt may succeed. The string is the
/// detail that the service's code has, or empty.
type Classified = (FailureReason, bool, String);

fn classify<E: ProvideErrorMetadata>(
    error: &SdkError<E, HttpResponse>,
    of_service: impl Fn(&E) -> Option<Classified>,
) -> AttemptError {
    match error {
        SdkError::TimeoutError(_) => AttemptError::transient(TimedOut, ""),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => AttemptError::transient(TimedOut, ""),
        // Credentials are missing, for example.
        SdkError::DispatchFailure(failure) if failure.is_user() => AttemptError::last(NotPermitted, ""),
        SdkError::DispatchFailure(_) | SdkError::ResponseError(_) => AttemptError::transient(Unreachable, ""),
        SdkError::ServiceError(service) => {
            let code = service.err().code().unwrap_or_default();
            let (reason, is_transient, detail) = of_service(service.err())
                .unwrap_or_else(|| other_error(code, service.raw().status().as_u16()));
            let provider_code = if detail.is_empty() { code.to_owned() } else { format!("{code}/{detail}") };
            AttemptError { reason, provider_code, is_transient }
        }
        // The request could not be built.
        _ => AttemptError::last(Rejected, ""),
    }
}

/// Errors that every service of AWS has.
/// <https://docs.aws.amazon.com/pinpoint/latest/apireference_smsvoicev2/CommonErrors.html>
fn other_error(code: &str, status: u16) -> Classified {
    let (reason, is_transient) = match code {
        "ThrottlingException" | "Throttling" | "TooManyRequestsException" | "RequestLimitExceeded" => {
            (Throttled, true)
        }
        _ if DENIED.contains(&code) || CREDENTIALS.contains(&code) => (NotPermitted, false),
        _ if status == 429 => (Throttled, true),
        _ if status >= 500 => (Unavailable, true),
        _ => (Rejected, false),
    };
    (reason, is_transient, String::new())
}

/// Defines the classification of an operation's error. The operations have the same errors in types
/// of their own.
macro_rules! sms_reason {
    ($name:ident, $error:ident) => {
        fn $name(error: &$error) -> Option<Classified> {
            Some(match error {
                $error::ConflictException(error) => conflict(error.reason()?.as_str()),
                $error::ValidationException(error) => invalid(error.reason()?.as_str(), error.fields()),
                $error::AccessDeniedException(error) => {
                    last(NotPermitted, error.reason().map(|reason| reason.as_str()))
                }
                $error::ServiceQuotaExceededException(error) => {
                    last(QuotaExceeded, error.reason().map(|reason| reason.as_str()))
                }
                $error::ResourceNotFoundException(error) => {
                    last(NotConfigured, error.resource_type().map(|kind| kind.as_str()))
                }
                $error::ThrottlingException(_) => (Throttled, true, String::new()),
                $error::InternalServerException(_) => (Unavailable, true, String::new()),
                _ => return None,
            })
        }
    };
}
sms_reason!(text_reason, SendTextMessageError);
sms_reason!(voice_reason, SendVoiceMessageError);

fn last(reason: FailureReason, detail: Option<&str>) -> Classified {
    (reason, false, detail.unwrap_or_default().to_owned())
}

/// The reasons of `ConflictException`.
/// <https://docs.aws.amazon.com/pinpoint/latest/apireference_smsvoicev2/API_SendTextMessage.html>
fn conflict(detail: &str) -> Classified {
    let reason = match detail {
        "DESTINATION_PHONE_NUMBER_NOT_VERIFIED" => NotVerified,
        "DESTINATION_PHONE_NUMBER_OPTED_OUT" => OptedOut,
        "DESTINATION_COUNTRY_BLOCKED_BY_PROTECT_CONFIGURATION" => BlockedCountry,
        "DESTINATION_PHONE_NUMBER_BLOCKED_BY_PROTECT_NUMBER_OVERRIDE" => BlockedNumber,
        "MESSAGE_TYPE_MISMATCH"
        | "NO_ORIGINATION_IDENTITIES_FOUND"
        | "NUMBER_CAPABILITIES_MISMATCH"
        | "PHONE_NUMBER_NOT_IN_REGISTRATION_REGION"
        | "REGISTRATION_NOT_COMPLETE"
        | "RESOURCE_NOT_ACTIVE" => NotConfigured,
        _ => Rejected,
    };
    (reason, false, detail.to_owned())
}

/// The reasons of `ValidationException`.
fn invalid(detail: &str, fields: &[ValidationExceptionField]) -> Classified {
    let reason = match detail {
        "COUNTRY_NOT_ENABLED" | "DESTINATION_COUNTRY_BLOCKED" | "INTERNATIONAL_SENDING_NOT_SUPPORTED" => {
            BlockedCountry
        }
        "PRICE_OVER_THRESHOLD" => TooExpensive,
        "MAXIMUM_SIZE_EXCEEDED" => TooLong,
        "CHANNEL_NOT_ENABLED"
        | "COUNTRY_CODE_MISMATCH"
        | "INVALID_ARN"
        | "INVALID_IDENTITY_FOR_DESTINATION_COUNTRY"
        | "INVALID_REGISTRATION_ASSOCIATION"
        | "RESOURCE_NOT_ACCESSIBLE"
        | "SENDER_ID_NOT_REGISTERED"
        | "SENDER_ID_NOT_SUPPORTED"
        | "SENDER_ID_REQUIRES_REGISTRATION"
        | "VOICE_CAPABILITY_NOT_AVAILABLE" => NotConfigured,
        "CANNOT_PARSE" | "FIELD_VALIDATION_FAILED" | "INVALID_PARAMETER" => field_reason(fields),
        _ => Rejected,
    };
    (reason, false, detail.to_owned())
}

/// Whose fault a wrong field is.
fn field_reason(fields: &[ValidationExceptionField]) -> FailureReason {
    let is_one_of = |names: &[&str]| {
        fields.iter().any(|field| names.iter().any(|name| field.name().eq_ignore_ascii_case(name)))
    };
    if is_one_of(&["DestinationPhoneNumber"]) {
        InvalidNumber
    } else if is_one_of(&[
        "OriginationIdentity", "ConfigurationSetName", "ProtectConfigurationId", "MaxPrice",
    ]) {
        NotConfigured
    } else {
        Rejected
    }
}

/// What the message of a `MessageRejected` for an unverified identity begins with. SES has no code
/// for it.
/// <https://docs.aws.amazon.com/ses/latest/dg/troubleshoot-error-messages.html>
const NOT_VERIFIED: &str = "Email address is not verified";

fn email_reason(error: &SendEmailError) -> Option<Classified> {
    use SendEmailError as E;
    let reason = match error {
        E::MessageRejected(error) if error.message().is_some_and(|text| text.starts_with(NOT_VERIFIED)) => {
            NotVerified
        }
        E::MailFromDomainNotVerifiedException(_) => NotVerified,
        E::MessageRejected(_) | E::BadRequestException(_) => Rejected,
        E::AccountSuspendedException(_) | E::SendingPausedException(_) => NotPermitted,
        E::LimitExceededException(_) => QuotaExceeded,
        E::NotFoundException(_) => NotConfigured,
        E::TooManyRequestsException(_) => return Some((Throttled, true, String::new())),
        _ => return None,
    };
    Some(last(reason, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_to_live_is_within_the_range_of_the_api() {
        for (seconds, expected) in [(0, 5), (4, 5), (5, 5), (299, 299), (86_400, 86_400), (u64::MAX, 259_200)]
        {
            assert_eq!(time_to_live(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn a_price_has_a_decimal_point() {
        assert_eq!(["1", "0.10"].map(|price| with_point(price.to_owned())), ["1.0", "0.10"]);
    }
}
