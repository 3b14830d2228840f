//! What usually causes each error and what to do about it. `docs/errors.md` is made from this table
//! and that of [`super::error`]. Only `loyaltyctl` and the tests contain it.

use std::collections::BTreeMap;

use super::error::{ApiMessage, Problem};
use crate::model::customer::UserId;

/// The explanation of an error, as sentences.
pub struct Help {
    /// What usually causes it.
    pub cause: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

const fn help(cause: &'static str, remedy: &'static str) -> Help {
    Help { cause, remedy }
}

/// The explanation of every problem. The compiler refuses a problem without one.
#[must_use]
#[expect(clippy::too_many_lines, reason = "it is a table")]
pub const fn of(problem: Problem) -> Help {
    match problem {
        Problem::RouteUnknown => help(
            "The path is misspelled, names another version of the API, or has a prefix that no `BASE_PATH` removes.",
            "Compare the path with docs/api.md. Routes that exist only in other services of this dialect (points, coupons, v1.1) are not here.",
        ),
        Problem::MethodNotAllowed => help(
            "The path exists, but not for this method: a `POST` was sent as a `GET`, or a proxy turned a redirect into a `GET`.",
            "Use one of the methods that the header `Allow` lists.",
        ),
        Problem::BodyTooLarge => help(
            "The body is longer than 65,536 bytes, mostly because a batch was sent as one request.",
            "Send one customer or OTP a request.",
        ),
        Problem::ContentTypeUnsupported => help(
            "A body was sent as a form, as text or as XML.",
            "Send JSON with `Content-Type: application/json`, or leave the header out. A `GET` may have any content type.",
        ),
        Problem::BodyMalformed => help(
            "The body is empty, is not JSON, or is an array or a text instead of an object.",
            "Send one JSON object. Escape quotes with a JSON library instead of joining texts.",
        ),
        Problem::PathAmbiguous => help(
            "A value in the path contains `&`, `%`, `?` or a slash, and the gateway decoded the path before the service read it.",
            "Send the parameters in the query: `/v2/otp?source=…`.",
        ),
        Problem::ParameterRepeated => help(
            "The same parameter stands twice in the query, or in the query and in the path, with different values.",
            "Send each parameter once.",
        ),
        Problem::IdempotencyKeyInvalid => help(
            "The key is empty, longer than 255 characters, contains spaces or other characters than visible ASCII, or there are several.",
            "Send one key, such as a UUID.",
        ),
        Problem::IdempotencyKeyReused => help(
            "The till sent another request with this key within the last 24 hours.",
            "Make a new key for each new request, and use it again only to repeat that request unchanged.",
        ),
        Problem::Unauthorized => help(
            "No credentials were sent, the till's name or password is wrong or was revoked, or the access token has expired or was got with a password that was revoked. A gateway that renames or removes `Authorization` has the same effect.",
            "Send the till's name and its password, or the lower-case md5 of that, by HTTP Basic. With a token: get a new one and repeat the request once. If that fails, ask the operator for the state of the till (`loyaltyctl till list`).",
        ),
        Problem::CredentialsNotText => help(
            "`key` or `secret` of a token request is an object, an array or a boolean.",
            "Send both as text.",
        ),
        Problem::RequestUnreadable => help(
            "The event of the gateway has another form than API Gateway's, mostly because it was written by hand or changed on the way.",
            "Compare the event with the files in events/. A real API Gateway causes this never; the log has a warning with the reason.",
        ),
        Problem::BodyIncomplete => help(
            "The connection ended before as many bytes came as `Content-Length` announces.",
            "Send the request again, with an `Idempotency-Key` if it has one.",
        ),
        Problem::BodyTooSlow => help(
            "The body took longer than the server waits, mostly because of a bad connection.",
            "Send the request again, with an `Idempotency-Key` if it has one.",
        ),
        Problem::ChannelNotOffered => help(
            "The `[delivery]` table of the org's file names nobody who sends the channel.",
            "Use a channel that the org offers, or ask the operator to add the channel to `[delivery]`.",
        ),
        Problem::CountryNotAllowed => help(
            "The mobile has a country code that is not among the org's `CONF_OTP_ALLOWED_COUNTRY_CODES`, or a national number was read with the wrong country.",
            "Check the number. If the org has customers in that country, ask the operator to add its code.",
        ),
        Problem::NoAddress => help(
            "The request names no channels, and the customer has no address for those of the org's `CONF_OTP_COMMUNICATE_VIA`.",
            "Name a channel with an address in the request, or register the customer's mobile or e-mail address.",
        ),
        Problem::AddressNotOwn => help(
            "A channel has an address that is neither `entityValue` nor an identifier of the customer, mostly a new mobile that is not registered yet.",
            "Add the address to the customer first (`changeIdentifier`). Only a till that may read codes anyway should get `otp:issue_to_any`.",
        ),
        Problem::OtpTooSoon => help(
            "The org has a cooldown (`CONF_OTP_COOLDOWN_SECONDS`), and the customer asked for another code within it.",
            "Wait as long as `Retry-After` says, and show the customer the remaining time.",
        ),
        Problem::HourlyOtpLimitReached => help(
            "As many OTPs as `CONF_OTP_RATE_LIMIT_ONE_HOUR` allows were sent to the address within this hour of UTC, whatever their source and scope.",
            "Wait as long as `Retry-After` says. If customers meet it in normal use, raise the limit.",
        ),
        Problem::TooManyIdentifiers => help(
            "Registrations and changes added more identifiers than a customer can have.",
            "Remove identifiers that are not used any more.",
        ),
        Problem::CustomerTooLarge => help(
            "Registrations added profiles with long names in very many accounts, or very many long identifiers, to one customer. Mostly many persons use one mobile or e-mail address, such as that of a shop.",
            "Nothing was written. Remove the identifiers that are not this customer's.",
        ),
        Problem::NotPermitted => help(
            "The credentials are right, but the till was created without the permission for this route.",
            "Use a till that has it. Permissions of a till do not change: the operator creates another one (`loyaltyctl till create --allow …`).",
        ),
        Problem::V2NotEnabled => help(
            "The org has `CONF_CLIENT_V2_API_ENABLED = false`.",
            "The operator sets it to `true` in the org's file and applies it. It takes effect within a minute.",
        ),
        Problem::SourceMissing => help(
            "`source` was left out or is empty.",
            "Name the source where the customer is registered, mostly `INSTORE`.",
        ),
        Problem::SourceUnknown => help(
            "The source is misspelled, or is a source that this dialect does not have.",
            "Use one of the sources in docs/api.md; `OTHERS` is for any other.",
        ),
        Problem::SourceNotText => {
            help("`source` is an object, an array or a boolean.", "Send the name of a source as text.")
        }
        Problem::AccountMissing => help(
            "The source has several accounts in this org, and the request names none.",
            "Send `accountId`. The operator knows the accounts (`loyaltyctl org export`).",
        ),
        Problem::AccountNotConfigured => help(
            "The account id is misspelled, belongs to another source, or is missing in the org's file.",
            "Send an account that the org has for this source, or have the operator add it to `[sources]` of the org's file.",
        ),
        Problem::AccountNotText => {
            help("`accountId` is an object, an array or a boolean.", "Send the account id as text.")
        }
        Problem::IdentifierNameMissing => help(
            "`identifierName` or the `type` of an identifier was left out, or no profile has an identifier.",
            "Say what the value is, such as `mobile`.",
        ),
        Problem::IdentifierNameUnknown => help(
            "The kind of identifier is misspelled, or is one that this route does not take.",
            "Use one of the names in docs/api.md: OTPs go by `mobile`, `email`, `external_id` or `wechat`.",
        ),
        Problem::IdentifierNameNotText => {
            help("The `type` of an identifier is an object, an array or a boolean.", "Send it as text.")
        }
        Problem::IdentifierValueMissing => help(
            "`identifierValue` or the `value` of an identifier was left out or is empty, mostly because a form was sent before it was filled in.",
            "Send the value.",
        ),
        Problem::IdentifierValueMalformed => help(
            "The id is empty after white space and invisible characters were removed, or longer than 200 bytes.",
            "Send the id as it was registered.",
        ),
        Problem::IdentifierValueNotText => help(
            "The `value` of an identifier is an object, an array, a boolean, or a number with a fraction.",
            "Send it as text. A whole number is read as its digits.",
        ),
        Problem::IdentifiersDiffer => help(
            "The request has `identifierName` and `identifierValue`, and `mobile=` or another short form, with different values.",
            "Send one of both forms.",
        ),
        Problem::MobileMalformed => help(
            "The number has letters, too few or too many digits, or a national number has another length than the org's numbers.",
            "Send the number with its country code (`+91 87993 61139`), or as people of the org's country write it. The operator sets the national lengths in the org's file.",
        ),
        Problem::EmailMalformed => help(
            "The address lacks the `@`, contains spaces, quotes or a comma, begins with `mailto:`, or its domain is not one.",
            "Send the address alone, such as `tom@example.com`.",
        ),
        Problem::CustomerNotFound => help(
            "Nobody has this identifier in this source and account: the customer is not registered, is registered in another source, or the number was typed wrong.",
            "Check source and account first. Register the customer, or use the scope REGISTRATION for somebody who is not registered yet.",
        ),
        Problem::ScopeInvalid => help(
            "`scope` (in a body: `action`) was left out or is misspelled.",
            "Use one of the scopes in docs/api.md, such as `POINTS`.",
        ),
        Problem::ScopeNotText => help("`action` is an object, an array or a boolean.", "Send it as text."),
        Problem::ThresholdInvalid => help(
            "`threshold` is negative, has a fraction or a unit.",
            "Send whole seconds, such as `60`, or leave it out.",
        ),
        Problem::EntityTypeInvalid => help(
            "`entityType` was left out, or is not a kind of identifier that an OTP can be issued to.",
            "Send MOBILE, EMAIL, EXTERNAL_ID or WECHAT.",
        ),
        Problem::EntityTypeNotText => {
            help("`entityType` is an object, an array or a boolean.", "Send it as text.")
        }
        Problem::EntityValueMissing => {
            help("`entityValue` was left out or is empty.", "Send the customer's identifier.")
        }
        Problem::EntityValueNotText => help(
            "`entityValue` is an object, an array, a boolean, or a number with a fraction.",
            "Send it as text. A whole number is read as its digits.",
        ),
        Problem::ChannelInvalid => help(
            "`channels` has more than ten entries, an unknown type, or an address that does not fit its type, such as an e-mail address for SMS.",
            "Correct the channel. The types are in docs/api.md.",
        ),
        Problem::TemplateInvalid => help(
            "The template has no `{{ validation_code }}`, so that the customer would get no code, or is not text, \
             or it has more than 10,000 characters.",
            "Put `{{ validation_code }}` into the text, shorten it, or leave the template out.",
        ),
        Problem::SubjectInvalid => help(
            "The e-mail's subject contains a line break or another control character.",
            "Send a subject of one line.",
        ),
        Problem::CodeMissing => {
            help("`code` was left out or is empty.", "Send the code that the customer typed.")
        }
        Problem::CodeNotText => help(
            "`code` is an object, an array, a boolean, or a number with a fraction.",
            "Send it as text: a number would lose its leading zeros.",
        ),
        Problem::OtpNotGenerated => help(
            "Several requests for the same customer collided again and again.",
            "Repeat the request after the seconds in `Retry-After`.",
        ),
        Problem::OtpNotFound => help(
            "The customer has no OTP of this scope that is valid, unused and within `threshold`: it was used, has expired, was issued for another scope, or none was issued.",
            "Issue an OTP. If one was issued just now, compare scope and threshold.",
        ),
        Problem::OtpLimitReached => help(
            "The customer got as many OTPs today as the org allows (`CONF_OTP_DAILY_LIMIT`, 10 by default), whatever their scopes.",
            "Wait for the seconds in `Retry-After`, that is, until midnight in the org's time zone; or use an OTP that is still valid.",
        ),
        Problem::AttemptLimitReached => help(
            "Too many wrong codes were sent for this customer and scope (5 in 15 minutes by default). Now a right code is refused, too.",
            "Wait for the seconds in `Retry-After`. A new OTP does not help. If nobody mistyped, somebody is guessing codes: see who in the log.",
        ),
        Problem::CardNumbersDisabled => help(
            "The org has `CONF_CARD_NUMBER_GENERATION_ENABLED = false`.",
            "The operator enables it in the org's file, or the caller brings its own external IDs.",
        ),
        Problem::CardNumbersNotForAccount => help(
            "The org generates card numbers, but not for this source and account.",
            "Name another one, or have the operator add it to `SOURCE_ACCOUNTS_EXTERNALID_ENABLED`.",
        ),
        Problem::CardNumberSettingsInvalid => help(
            "The stored configuration of the org's card numbers is not valid. A file that is applied is checked, so this was written by other means.",
            "The operator applies a valid org file.",
        ),
        Problem::CardNumberLengthInvalid => help(
            "The stored length has no room for prefix, suffix and check digit. A file that is applied is checked, so this was written by other means.",
            "The operator applies a valid org file.",
        ),
        Problem::CardNumbersExhausted => help(
            "Every number of the org's range was given.",
            "The operator enlarges `CONF_CARD_NUMBER_LENGTH` or changes the prefix. The alarm for used numbers comes long before.",
        ),
        Problem::ProfilesMissing => help(
            "`profiles` was left out, is not an array of objects, or has more than 20 entries.",
            "Send one profile for each source in which the customer is to be registered.",
        ),
        Problem::IdentifiersInvalid => help(
            "`identifiers` is not an array of objects, or there are too many.",
            "Send `[{\"type\":\"mobile\",\"value\":\"…\"}]`.",
        ),
        Problem::NameInvalid => help(
            "`firstName` or `lastName` is longer than 255 characters, or is not text.",
            "Shorten the name.",
        ),
        Problem::ExternalIdsDiffer => help(
            "The profiles of a request bring different external IDs.",
            "Send one external ID, or none: then the customer gets the next one, where the org generates them.",
        ),
        Problem::CustomerExists => help(
            "All identifiers of the request that are taken belong to the customer whom the message names, mostly because the registration was sent before.",
            "Nothing was written. Use the customer with the id in the message. To repeat a registration whose answer was lost, send it with an `Idempotency-Key`.",
        ),
        Problem::IdentifierTaken => help(
            "The customer has an external ID, and the request brings a different one. Or other customers have identifiers of the request: in a registration several of them, in a change one who has the id in this account, the external ID or card number, or the mobile or e-mail address in any account.",
            "Nothing was written. To replace an external ID, remove the old one in the same `changeIdentifier`. Otherwise look up who has each identifier, and ask which customer is meant.",
        ),
        Problem::SeveralCustomers => help(
            "The identifiers of one registration belong to different customers, at least one of them in another source or account, or a lookup in all sources finds two customers with this id.",
            "Nothing was written. Send only identifiers of one person, or name the source and account in a lookup.",
        ),
        Problem::CustomerElsewhere => help(
            "Somebody has this identifier, but in another source or account than the one that was asked for.",
            "Look up with `source=ALL`, or register the customer in this account, too: the new profile joins the customer.",
        ),
        Problem::CustomerUnknown => help(
            "The id in the path is not that of a customer of the org: it comes from another system, or from another org.",
            "Look the customer up by an identifier.",
        ),
        Problem::ChangeInvalid => help(
            "`add` and `remove` are both missing or empty, are not arrays of objects, or have too many entries together.",
            "Send `{\"add\":[{\"type\":\"email\",\"value\":\"…\"}],\"remove\":[…]}`; either may be left out.",
        ),
        Problem::RemovedIdentifierOfAnother => help(
            "An identifier in `remove` is another customer's in this account.",
            "Nothing was changed. Compare the id in the path with the identifier.",
        ),
        Problem::NoIdentifierLeft => help(
            "The change would remove the customer's last identifier. Nobody could find the customer any more.",
            "Add another identifier in the same change.",
        ),
        Problem::Unavailable => help(
            "DynamoDB is slow, throttles or cannot be reached, or the time of the request was over. The write may have been carried out.",
            "Repeat the request after the seconds in `Retry-After`, a `POST` with the same `Idempotency-Key`.",
        ),
        Problem::Internal => help(
            "A fault of the service or of its set-up, such as a missing right on the table.",
            "Give the operator the `X-Request-Id` of the answer. The log line with that id names the cause.",
        ),
    }
}

/// A success can contain these.
fn warnings() -> Vec<(ApiMessage, Help)> {
    vec![
        (
            ApiMessage::ACCOUNT_DEFAULTED,
            help(
                "The source has exactly one account in this org, and the request named none. That one was meant.",
                "Nothing has to be done. Send `accountId` all the same: the org may get a second account.",
            ),
        ),
        (
            ApiMessage::IDENTIFIER_UNCHANGED,
            help(
                "An identifier to add was there already, or one to remove was not there (any more), mostly because the change was sent before.",
                "Nothing has to be done.",
            ),
        ),
        (
            ApiMessage::joined(UserId(313_302_314)),
            help(
                "A mobile or e-mail address of the registration belongs to a customer in another source or account. The profile was added to that customer.",
                "Store the user id of the answer, which is that of the customer.",
            ),
        ),
    ]
}

const INTRODUCTION: &str = "\
# Errors, and what to do about them

<!-- Written by `make error-page` from src/api/error.rs and src/api/error_help.rs. -->

An error has an HTTP status and one or more codes. Decide by the code; the message is for people, and may change.

```json
{\"errors\":[{\"status\":false,\"code\":8015,\"message\":\"Customer not found for the given identifiers\"}],\"warnings\":[]}
```

- **Repeat** what was answered with 503, and with 429 after the seconds in `Retry-After`. Everything else fails again as
  long as the request is the same. An answer that did not arrive says nothing: the request may have been carried out.
  With an `Idempotency-Key`, a `POST` can be repeated safely.
- **A body without `errors` that is not a success** comes from something before the service: API Gateway answers
  `{\"message\":\"Too Many Requests\"}` with 429 when the stage's rate is exceeded, and `{\"message\":\"Service Unavailable\"}`
  with 503.
- `X-Request-Id` is in every answer. The operator finds the request by it in the log.
";

/// `docs/errors.md`: every code in the order of its number, with every message that it has.
#[must_use]
pub fn page() -> String {
    let mut codes = BTreeMap::<u16, Vec<String>>::new();
    for problem in Problem::ALL {
        let status = problem.status().as_u16();
        let entry = entry(problem.message(), &format!("HTTP {status}"), &of(*problem));
        codes.entry(problem.code()).or_default().push(entry);
    }
    for (warning, help) in warnings() {
        let entry = entry(warning.message(), "a warning in a success", &help);
        codes.entry(warning.code()).or_default().push(entry);
    }
    let sections = codes.iter().map(|(code, entries)| format!("\n## {code}\n\n{}", entries.join("\n")));
    INTRODUCTION.to_owned() + &sections.collect::<String>()
}

fn entry(message: &str, kind: &str, Help { cause, remedy }: &Help) -> String {
    wrap(&format!("**{message}** ({kind}). {cause} *What to do:* {remedy}"))
}

/// The text in lines of at most 120 characters.
fn wrap(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= 120 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n") + "\n"
}
