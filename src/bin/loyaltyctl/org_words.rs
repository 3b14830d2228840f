//! An org's configuration as sentences: what its customers and tills experience.

use std::fmt::Display;

use loyalty_codes::model::{
    card_number::Algorithm,
    customer::{IdentifierName, Source},
    delivery::{DeliverySettings, Provider},
    message::ChannelType,
    org::Org,
    otp::{CodeType, Reissue, ThresholdMode},
};

/// The sentences, each about one subject.
pub fn sentences(org: &Org) -> Vec<String> {
    let mut sentences = Vec::new();
    if !org.config().v2_enabled {
        sentences.push("THE API IS OFF: every call of the org's tills is refused.".to_owned());
    }
    sentences.extend([code(org), guesses(org), limits(org)]);
    sentences.extend(repeated(org));
    sentences.push(threshold(org));
    sentences.push(messages(org));
    sentences.extend(countries(org));
    sentences.push(mobiles(org));
    sentences.push(card_numbers(org));
    sentences.push(joining(org));
    sentences.extend(test_identifiers(org));
    sentences
}

fn code(org: &Org) -> String {
    let characters = match org.config().otp_type {
        CodeType::Alphanumeric => "capital letters and digits",
        CodeType::Numeric => "digits",
        CodeType::Unambiguous => "capital letters and digits that are not mistaken for each other",
    };
    format!(
        "A code has {} {characters}, is valid for {}, and works once.",
        org.otp_length(),
        duration(org.config().otp_validity_seconds)
    )
}

fn guesses(org: &Org) -> String {
    let config = org.config();
    format!(
        "After {} within {}, no code of that customer and scope is accepted, not even the right one, until the window has \
         moved on; `loyaltyctl otp unlock` ends that at once.",
        counted(config.attempt_count, "wrong guess", "wrong guesses"),
        duration(config.attempt_minutes * 60)
    )
}

fn limits(org: &Org) -> String {
    let config = org.config();
    let daily = format!(
        "A customer, or the address of somebody who is not registered, gets at most {} a day of {}",
        counted(config.otp_daily_limit, "code", "codes"),
        org.definition.timezone
    );
    let hourly = config.otp_hourly_limit.map(|limit| format!(", and an address at most {limit} an hour"));
    let messages = config
        .otp_hourly_messages
        .map(|limit| format!("; the org sends at most {} an hour", counted(limit, "message", "messages")));
    format!("{daily}{}{}.", hourly.unwrap_or_default(), messages.unwrap_or_default())
}

/// What happens to a customer who asks again.
fn repeated(org: &Org) -> Option<String> {
    let config = org.config();
    let wait = (config.otp_cooldown_seconds > 0)
        .then(|| format!("has to wait for {}", duration(config.otp_cooldown_seconds)));
    let again = match config.otp_reissue {
        Reissue::Same => Some("gets the same code while it is valid".to_owned()),
        Reissue::New => {
            wait.is_some().then(|| "then gets a new code; the earlier one stays valid".to_owned())
        }
    };
    let parts: Vec<_> = wait.into_iter().chain(again).collect();
    (!parts.is_empty()).then(|| format!("A customer who asks again {}.", parts.join(", and ")))
}

fn threshold(org: &Org) -> String {
    match org.config().otp_threshold_mode {
        ThresholdMode::MinRemaining => {
            "A till that fetches with a threshold gets a code that is valid for at least that many more seconds.".to_owned()
        }
        ThresholdMode::MaxAge => {
            "A till that fetches with a threshold gets a code that was issued within that many seconds.".to_owned()
        }
    }
}

fn messages(org: &Org) -> String {
    let Some(delivery) = &org.definition.delivery else {
        return "NO MESSAGE IS SENT: there is no [delivery] table, so tills fetch the codes and tell them."
            .to_owned();
    };
    let senders: Vec<_> =
        delivery.channels.iter().map(|(channel, provider)| sender(delivery, *channel, *provider)).collect();
    let without = match org.config().otp_channels.as_slice() {
        [] => "A request that names no channel sends nothing.".to_owned(),
        channels => {
            let named: Vec<_> = channels.iter().map(|channel| channel_name(*channel)).collect();
            format!("A request that names no channel sends by {}.", and(&named))
        }
    };
    if senders.is_empty() {
        return format!("Nobody sends any channel, so a request that names one is refused. {without}");
    }
    format!("Messages go out {}; other channels are refused. {without}", and(&senders))
}

fn sender(delivery: &DeliverySettings, channel: ChannelType, provider: Provider) -> String {
    let name = channel_name(channel);
    let aws = &delivery.aws;
    let from = match (provider, channel) {
        (Provider::Webhook, _) => {
            let url = delivery.webhook.as_ref().map_or("", |webhook| webhook.url.as_str());
            return format!("by {name} through the gateway at {url}");
        }
        (Provider::Aws, ChannelType::Email) => &aws.email_from,
        (Provider::Aws, ChannelType::Phone) => &aws.voice_origination,
        (Provider::Aws, _) => &aws.sms_origination,
    };
    format!("by {name} through AWS, from {from}")
}

const fn channel_name(channel: ChannelType) -> &'static str {
    match channel {
        ChannelType::Sms => "text message",
        ChannelType::Email => "e-mail",
        ChannelType::Phone => "call",
        ChannelType::Whatsapp => "WhatsApp",
        ChannelType::Wechat => "WeChat",
        ChannelType::Zalo => "Zalo",
    }
}

fn countries(org: &Org) -> Option<String> {
    let codes: Vec<_> = org.config().otp_country_codes.iter().map(|code| format!("+{code}")).collect();
    (!codes.is_empty()).then(|| format!("Mobiles are sent to and called in {} only.", and(&codes)))
}

fn mobiles(org: &Org) -> String {
    let definition = &org.definition;
    let lengths: Vec<_> = definition.national_mobile_length.iter().map(|length| length.to_string()).collect();
    let trunk = match definition.trunk_prefix.as_str() {
        "" => String::new(),
        prefix => format!(", after a leading {prefix} if there is one,"),
    };
    format!(
        "A mobile number of {} digits{trunk} is one of +{}; others are international.",
        or(&lengths),
        definition.country_code
    )
}

/// How an identifier of that kind is written, for somebody who wrote it in another way.
pub fn spelling(org: &Org, kind: IdentifierName) -> String {
    let definition = &org.definition;
    match kind {
        IdentifierName::Mobile => {
            let lengths: Vec<_> =
                definition.national_mobile_length.iter().map(|length| length.to_string()).collect();
            let trunk = match definition.trunk_prefix.as_str() {
                "" => "no trunk_prefix, so no 0 before a number".to_owned(),
                prefix => format!("the trunk_prefix {prefix}, which may be before them"),
            };
            format!(
                "{} digits, or + and the country code before the number; org {} has {trunk}",
                or(&lengths),
                org.id()
            )
        }
        IdentifierName::Email => "an e-mail address has one @ and a domain with a dot".to_owned(),
        _ => "1 to 200 characters without control characters".to_owned(),
    }
}

fn card_numbers(org: &Org) -> String {
    let config = org.config();
    if !config.card_numbers_enabled {
        return "No card numbers are generated; external IDs are given by hand.".to_owned();
    }
    let plan = match org.numbering_plan() {
        Ok(plan) => plan,
        Err(error) => return format!("NO CARD NUMBER IS GENERATED, because the plan is wrong: {error}."),
    };
    let accounts: Vec<_> = config
        .card_number_accounts
        .iter()
        .map(|account| match (account.source, account.id.0.as_str()) {
            (Source::Instore, "") => "the shops".to_owned(),
            _ => account.to_string(),
        })
        .collect();
    if accounts.is_empty() {
        return "NO CARD NUMBER IS GENERATED, because SOURCE_ACCOUNTS_EXTERNALID_ENABLED names no account."
            .to_owned();
    }
    let order = if plan.is_random() { "in an order that nobody can guess" } else { "one after the other" };
    let digit = match config.card_numbers.algorithm.unwrap_or(Algorithm::AutoInc) {
        Algorithm::AutoInc | Algorithm::Random => "without check digit",
        Algorithm::Luhn | Algorithm::RandomLuhn => "with a Luhn check digit",
        Algorithm::Mod7 | Algorithm::RandomMod7 => "with a check digit modulo 7",
    };
    let first = plan.number(plan.offset(), &org.permutation_key);
    format!(
        "Customers of {} get card numbers of {} characters {digit}, {order}; the first of the plan is {first}.",
        and(&accounts),
        first.len()
    )
}

fn joining(org: &Org) -> String {
    if org.customers_join {
        "A customer who registers in another source with a known mobile or e-mail address is the same customer.".to_owned()
    } else {
        format!(
            "UPGRADE PENDING: a customer who registers in another source becomes another customer, until `loyaltyctl table \
             upgrade --org {}` was run.",
            org.id()
        )
    }
}

fn test_identifiers(org: &Org) -> Option<String> {
    let tests: Vec<_> = org.definition.test_identifiers.keys().cloned().collect();
    (!tests.is_empty()).then(|| {
        format!(
            "TEST IDENTIFIERS: {} always {} the code of the org's file and no message. Whoever knows it is taken for that \
             customer: remove them before customers come.",
            and(&tests),
            if tests.len() == 1 { "gets" } else { "get" }
        )
    })
}

/// Seconds in the largest unit that has no remainder.
fn duration(seconds: i64) -> String {
    for (unit, one, many) in [(86_400, "day", "days"), (3600, "hour", "hours"), (60, "minute", "minutes")] {
        if seconds >= unit && seconds % unit == 0 {
            return counted(seconds / unit, one, many);
        }
    }
    counted(seconds, "second", "seconds")
}

/// A count with its noun, such as `1 code` and `2 codes`.
pub fn counted<N: Copy + Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    format!("{count} {}", if count == N::from(1) { one } else { many })
}

fn and(parts: &[impl AsRef<str>]) -> String {
    listed(parts, "and")
}

fn or(parts: &[impl AsRef<str>]) -> String {
    listed(parts, "or")
}

fn listed(parts: &[impl AsRef<str>], word: &str) -> String {
    let parts: Vec<&str> = parts.iter().map(AsRef::as_ref).collect();
    match parts.as_slice() {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} {word} {last}", first.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use loyalty_codes::{model::org::Org, secret::Secret};

    use super::*;
    use crate::org_file::parse;

    fn words(file: &str) -> String {
        let mut org = Org::new(parse(file).unwrap(), Secret::new([7; 32])).unwrap();
        org.customers_join = true;
        sentences(&org).join("\n")
    }

    const START: &str = "id = 77\nname = \"Shop\"\ntimezone = \"Asia/Kolkata\"\ncountry_code = \"91\"\n\
                         national_mobile_length = 10\n";

    #[test]
    fn an_org_of_defaults_is_said_in_words() {
        assert_eq!(
            words(START),
            "A code has 7 capital letters and digits, is valid for 5 minutes, and works once.\n\
             After 5 wrong guesses within 15 minutes, no code of that customer and scope is accepted, not even the right \
             one, until the window has moved on; `loyaltyctl otp unlock` ends that at once.\n\
             A customer, or the address of somebody who is not registered, gets at most 10 codes a day of Asia/Kolkata.\n\
             A till that fetches with a threshold gets a code that is valid for at least that many more seconds.\n\
             NO MESSAGE IS SENT: there is no [delivery] table, so tills fetch the codes and tell them.\n\
             A mobile number of 10 digits is one of +91; others are international.\n\
             No card numbers are generated; external IDs are given by hand.\n\
             A customer who registers in another source with a known mobile or e-mail address is the same customer."
        );
    }

    #[test]
    fn every_setting_of_a_configured_org_is_said() {
        let file = START.replace("= 10", "= [9, 10]")
            + r#"
            trunk_prefix = "0"
            [sources]
            WECHAT = ["SHOP"]
            [config]
            CONF_CLIENT_V2_API_ENABLED = false
            CONF_OTP_TYPE = "NUMERIC"
            CONF_OTP_LENGTH = 6
            CONF_OTP_VALIDITY_SECONDS = 600
            CONF_OTP_VALIDATE_RATE_LIMIT_COUNT = 1
            CONF_OTP_VALIDATE_RATE_LIMIT_MINUTE = 60
            CONF_OTP_DAILY_LIMIT = 1
            CONF_OTP_RATE_LIMIT_ONE_HOUR = 3
            CONF_OTP_MESSAGES_PER_HOUR = 5000
            CONF_OTP_COOLDOWN_SECONDS = 90
            CONF_OTP_REISSUE = "SAME"
            CONF_OTP_THRESHOLD_MODE = "MAX_AGE"
            CONF_OTP_COMMUNICATE_VIA = ["SMS", "EMAIL"]
            CONF_OTP_ALLOWED_COUNTRY_CODES = ["91", "971"]
            CONF_CARD_NUMBER_GENERATION_ENABLED = true
            SOURCE_ACCOUNTS_EXTERNALID_ENABLED = ["INSTORE:", "WECHAT:SHOP"]
            CONF_CARD_NUMBER_LENGTH = 12
            CONF_CARD_CHECKSUM_DIGIT_ALGO = "LUHN_ALGO"
            [delivery]
            SMS = "aws"
            EMAIL = "webhook"
            [delivery.aws]
            sms_origination = "LOYALTY"
            [delivery.webhook]
            url = "https://gateway.example.com/otp"
            [test_identifiers]
            "919999900001" = "1234567"
            "#;
        let words = words(&file);
        for expected in [
            "THE API IS OFF",
            "A code has 6 digits, is valid for 10 minutes,",
            "After 1 wrong guess within 1 hour,",
            "at most 1 code a day of Asia/Kolkata, and an address at most 3 an hour; the org sends at most \
             5000 messages an hour.",
            "A customer who asks again has to wait for 90 seconds, and gets the same code while it is valid.",
            "that was issued within that many seconds.",
            "Messages go out by text message through AWS, from LOYALTY and by e-mail through the gateway at \
             https://gateway.example.com/otp; other channels are refused. A request that names no channel sends by text \
             message and e-mail.",
            "in +91 and +971 only.",
            "A mobile number of 9 or 10 digits, after a leading 0 if there is one, is one of +91;",
            "Customers of the shops and WECHAT:SHOP get card numbers of 12 characters with a Luhn check digit, one after \
             the other; the first of the plan is 000000000000.",
            "TEST IDENTIFIERS: 919999900001 always gets the code of the org's file",
        ] {
            assert!(words.contains(expected), "{expected}: {words}");
        }
    }
}
