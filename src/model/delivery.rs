//! How an org's messages are delivered: the `[templates]`, `[delivery]` and `[test_identifiers]`
//! tables of its file.

use std::{collections::BTreeMap, fmt};

use http::{Uri, uri::Authority};
use serde::{Deserialize, Serialize};

use super::{
    content::is_mailbox,
    message::{ChannelType, PLACEHOLDERS, Templates, has_placeholder},
    org::Definition,
    otp::{CodeType, Scope},
    typed_text,
};
use crate::wire::wire_enum;

wire_enum! {
    /// Who sends the messages of a channel.
    pub enum Provider {
        /// AWS End User Messaging for text messages and calls, Amazon SES for e-mail.
        Aws = "aws",
        /// A gateway of the org, at `[delivery.webhook]`.
        Webhook = "webhook",
    }
}

/// The scope of a table of templates: `default` for all scopes, or the name of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TemplateScope(pub Option<Scope>);

impl TemplateScope {
    const DEFAULT: &str = "default";

    /// Every name of a table.
    pub fn names() -> impl Iterator<Item = &'static str> {
        std::iter::once(Self::DEFAULT).chain(Scope::ALL.iter().map(|scope| scope.as_str()))
    }
}

impl fmt::Display for TemplateScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.map_or(Self::DEFAULT, Scope::as_str))
    }
}

impl Serialize for TemplateScope {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TemplateScope {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name == Self::DEFAULT {
            return Ok(Self(None));
        }
        let scope = Scope::ALL.iter().find(|scope| scope.as_str() == name);
        let unknown = || serde::de::Error::custom(format!("`{name}` is neither `default` nor a scope"));
        scope.map(|scope| Self(Some(*scope))).ok_or_else(unknown)
    }
}

/// The texts of `[templates.default]` or `[templates.SCOPE]`. An absent one is taken from the
/// default table, or else is the built-in one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TemplateTexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// The id under which `text` is registered with India's DLT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sms_template_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email_body: Option<String>,
}

/// The keys of a table of templates.
pub const TEMPLATE_KEYS: &[&str] = &["text", "sms_template_id", "email_subject", "email_body"];

impl TemplateTexts {
    /// The keys of the texts that have no placeholder. A message without the code is useless. A
    /// subject need not have it.
    pub fn without_placeholder(&self) -> impl Iterator<Item = &'static str> {
        let texts = [("text", &self.text), ("email_body", &self.email_body)].into_iter();
        texts.filter(|(_, text)| text.as_ref().is_some_and(|text| !has_placeholder(text))).map(|(key, _)| key)
    }

    /// Whether a text has more than [`MAX_TEMPLATE_LENGTH`] characters.
    pub fn is_too_long(&self) -> bool {
        let all = [&self.text, &self.email_subject, &self.email_body, &self.sms_template_id];
        all.into_iter().flatten().any(|text| text.chars().count() > MAX_TEMPLATE_LENGTH)
    }

    /// Whether the subject has a control character. A line break would begin another header of the
    /// e-mail.
    pub fn has_control_in_subject(&self) -> bool {
        self.email_subject.as_deref().is_some_and(typed_text::has_control)
    }

    /// Replaces the texts of `templates` that are set here. A text and its DLT id belong together.
    pub fn replace_in(&self, templates: &mut Templates) {
        if let Some(text) = &self.text {
            templates.text.clone_from(text);
            templates.sms_template_id.clear();
        }
        for (own, target) in [
            (&self.sms_template_id, &mut templates.sms_template_id),
            (&self.email_subject, &mut templates.email_subject),
            (&self.email_body, &mut templates.email_body),
        ] {
            if let Some(own) = own {
                target.clone_from(own);
            }
        }
    }
}

/// The `[delivery]` table: the provider of each channel, and the settings of the providers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliverySettings {
    #[serde(flatten)]
    pub channels: BTreeMap<ChannelType, Provider>,
    #[serde(default, skip_serializing_if = "AwsSettings::is_empty")]
    pub aws: AwsSettings,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookSettings>,
}

impl DeliverySettings {
    /// Who sends the messages of a channel. `None` if nobody does.
    pub fn provider(&self, channel: ChannelType) -> Option<Provider> {
        self.channels.get(&channel).copied()
    }
}

/// The `[delivery.aws]` table. An empty value counts as absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AwsSettings {
    /// Sender id, number or pool that text messages come from.
    pub sms_origination: String,
    /// The sender of e-mails: an address, or a name with one in angle brackets.
    pub email_from: String,
    /// Number or pool that calls come from.
    pub voice_origination: String,
    pub sms_configuration_set: String,
    pub sms_protect_configuration: String,
    /// The maximum price of a text message in US dollars, such as `0.10`.
    pub sms_max_price: String,
    /// The id of the org with India's DLT.
    pub sms_entity_id: String,
}

/// The keys of `[delivery.aws]`.
pub const AWS_KEYS: &[&str] = &[
    "sms_origination", "email_from", "voice_origination", "sms_configuration_set",
    "sms_protect_configuration", "sms_max_price", "sms_entity_id",
];

impl AwsSettings {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The `[delivery.webhook]` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookSettings {
    /// Where messages are posted to.
    pub url: String,
}

/// The keys of `[delivery.webhook]`.
pub const WEBHOOK_KEYS: &[&str] = &["url"];

/// The most test identifiers of an org. Their codes never change, so there should be few.
const MAX_TEST_IDENTIFIERS: usize = 10;

/// The most digits of an entry of `CONF_OTP_ALLOWED_COUNTRY_CODES`. Countries that share a code,
/// such as those of +1 and +7, differ in the digits after it.
const MAX_COUNTRY_PREFIX: usize = 7;

/// The longest template, in characters. A message with its texts is stored in an item, and an SMS
/// of more than ten parts is refused by providers.
pub const MAX_TEMPLATE_LENGTH: usize = 10_000;

/// The problems of the tables, one sentence each.
pub(super) fn problems(definition: &Definition) -> Vec<String> {
    let mut problems = Vec::new();
    for (scope, texts) in &definition.templates {
        problems.extend(template_problems(*scope, texts));
    }
    if let Some(delivery) = &definition.delivery {
        problems.extend(delivery_problems(delivery));
        for channel in &definition.config.otp_channels {
            if delivery.provider(*channel).is_none() {
                problems.push(format!(
                    "CONF_OTP_COMMUNICATE_VIA names {channel}, which [delivery] does not; name who sends it"
                ));
            }
        }
    }
    problems.extend(test_identifier_problems(definition));
    for code in &definition.config.otp_country_codes {
        let lengths = 1..=MAX_COUNTRY_PREFIX;
        let well_formed = lengths.contains(&code.len()) && code.bytes().all(|b| b.is_ascii_digit());
        if !well_formed || code.starts_with('0') {
            problems.push(format!(
                "CONF_OTP_ALLOWED_COUNTRY_CODES: `{code}` is not 1 to {MAX_COUNTRY_PREFIX} digits without a leading 0"
            ));
        }
    }
    problems
}

/// Settings that work, but are probably a mistake.
pub(super) fn warnings(definition: &Definition) -> Vec<String> {
    let mut warnings = Vec::new();
    let config = &definition.config;
    let expects_messages = !config.otp_channels.is_empty() || !definition.templates.is_empty();
    if definition.delivery.is_none() && expects_messages {
        warnings.push(format!("{NOTHING_IS_SENT}, whatever its templates and CONF_OTP_COMMUNICATE_VIA say"));
    }
    let allowed = &config.otp_country_codes;
    if !allowed.is_empty() && !allowed.iter().any(|code| definition.country_code.starts_with(code)) {
        warnings.push(format!(
            "CONF_OTP_ALLOWED_COUNTRY_CODES does not contain the org's own country_code `{}`",
            definition.country_code
        ));
    }
    warnings.extend(test_identifiers_remark(definition));
    warnings
}

const NOTHING_IS_SENT: &str = "the org has no [delivery] table, so no message is sent";

fn test_identifiers_remark(definition: &Definition) -> Option<String> {
    let count = definition.test_identifiers.len();
    (count > 0).then(|| {
        format!(
            "TEST IDENTIFIERS: the OTPs of {count} always have the code of the org's file, and whoever knows it is \
             taken for that customer"
        )
    })
}

impl Definition {
    /// What an operator must know of the org's messages when looking at its configuration.
    pub fn remarks(&self) -> Vec<String> {
        let silent = self.delivery.is_none().then(|| NOTHING_IS_SENT.to_owned());
        silent.into_iter().chain(test_identifiers_remark(self)).collect()
    }
}

fn template_problems(scope: TemplateScope, texts: &TemplateTexts) -> Vec<String> {
    let mut problems = Vec::new();
    for key in texts.without_placeholder() {
        problems.push(format!(
            "templates.{scope}: {key} has no placeholder; write {{{{ {} }}}} where the code belongs",
            PLACEHOLDERS[0]
        ));
    }
    if texts.is_too_long() {
        problems.push(format!("templates.{scope}: a text is longer than {MAX_TEMPLATE_LENGTH} characters"));
    }
    if texts.has_control_in_subject() {
        problems
            .push(format!("templates.{scope}: email_subject has a control character or a line break in it"));
    }
    problems
}

fn delivery_problems(delivery: &DeliverySettings) -> Vec<String> {
    let mut problems = Vec::new();
    let aws = &delivery.aws;
    for (channel, provider) in &delivery.channels {
        let required = match (provider, channel) {
            (Provider::Webhook, _) => {
                if delivery.webhook.is_none() {
                    problems.push(format!(
                        "delivery: {channel} = \"webhook\" needs [delivery.webhook] with its url"
                    ));
                }
                continue;
            }
            (Provider::Aws, ChannelType::Sms) => ("sms_origination", &aws.sms_origination),
            (Provider::Aws, ChannelType::Email) => ("email_from", &aws.email_from),
            (Provider::Aws, ChannelType::Phone) => ("voice_origination", &aws.voice_origination),
            (Provider::Aws, ChannelType::Whatsapp | ChannelType::Wechat | ChannelType::Zalo) => {
                problems.push(format!("delivery: {channel} cannot be sent by \"aws\"; write \"webhook\""));
                continue;
            }
        };
        let (key, value) = required;
        if value.is_empty() {
            problems.push(format!("delivery: {channel} = \"aws\" needs {key} in [delivery.aws]"));
        }
    }
    if !aws.email_from.is_empty() && !is_mailbox(&aws.email_from) {
        problems.push(format!(
            "delivery.aws: email_from `{}` is not an address, or a name with an address in angle brackets",
            aws.email_from
        ));
    }
    let settings = [
        ("sms_origination", &aws.sms_origination),
        ("email_from", &aws.email_from),
        ("voice_origination", &aws.voice_origination),
        ("sms_configuration_set", &aws.sms_configuration_set),
        ("sms_protect_configuration", &aws.sms_protect_configuration),
        ("sms_max_price", &aws.sms_max_price),
        ("sms_entity_id", &aws.sms_entity_id),
    ];
    for (key, value) in settings {
        if value.trim() != value || typed_text::has_control(value) {
            problems.push(format!("delivery.aws: {key} has spaces around it, or control characters in it"));
        }
    }
    // The API takes at most two digits before the point and five after it.
    let price_is_valid = |price: &str| {
        let digits =
            |text: &str, most| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let (whole, part) = price.split_once('.').unwrap_or((price, "0"));
        digits(whole, 2) && digits(part, 5)
    };
    if !aws.sms_max_price.is_empty() && !price_is_valid(&aws.sms_max_price) {
        problems.push(format!(
            "delivery.aws: sms_max_price `{}` is not a price in dollars, such as \"0.10\"",
            aws.sms_max_price
        ));
    }
    if let Some(WebhookSettings { url }) = &delivery.webhook
        && !is_webhook_url(url)
    {
        problems.push(
            "delivery.webhook: url is not of the form https://HOST/PATH, without user name and fragment"
                .to_owned(),
        );
    }
    problems
}

/// Whether messages can be posted to that URL. That its host has a public address is checked when
/// it is connected to. Plain HTTP is for gateways on the same machine.
fn is_webhook_url(url: &str) -> bool {
    url.parse::<Uri>().is_ok_and(|uri| {
        let host = uri.host().unwrap_or_default();
        let is_local = matches!(host, "localhost" | "127.0.0.1" | "[::1]");
        let scheme = uri.scheme_str().unwrap_or_default();
        let authority = uri.authority().map_or("", Authority::as_str);
        // A port that is none would be taken for no port.
        let port = authority.rsplit_once(':').map(|(_, port)| port).filter(|port| !port.ends_with(']'));
        let is_valid_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        !host.is_empty()
            && !authority.contains('@')
            && is_valid_port
            && !url.contains('#')
            && (scheme == "https" || (scheme == "http" && is_local))
    })
}

fn test_identifier_problems(definition: &Definition) -> Vec<String> {
    let mut problems = Vec::new();
    let tests = &definition.test_identifiers;
    if tests.len() > MAX_TEST_IDENTIFIERS {
        problems.push(format!("[test_identifiers] has more than {MAX_TEST_IDENTIFIERS} entries"));
    }
    let plan = definition.phone_number_plan();
    let mut seen = Vec::new();
    for (raw, code) in tests {
        let name = super::org::test_identifier_name(raw);
        match super::customer::Identifier::new(name, raw, &plan) {
            Err(_) => {
                problems.push(format!("test_identifiers: `{raw}` is neither a mobile nor an e-mail address"));
            }
            Ok(identifier) if seen.contains(&identifier) => {
                problems.push(format!("test_identifiers: `{raw}` is named twice, in two spellings"));
            }
            Ok(identifier) => seen.push(identifier),
        }
        let is_code = |b: u8| CodeType::Alphanumeric.alphabet().contains(&b);
        if !(4..=50).contains(&code.len()) || !code.bytes().all(is_code) {
            problems.push(format!(
                "test_identifiers: the code of `{raw}` is not 4 to 50 digits and upper-case letters"
            ));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::fixtures::{definition, problems};

    #[test]
    fn tables_that_cannot_work_are_refused_with_the_reason() {
        for (tables, expected) in [
            (json!({"templates": {"default": {"text": "Hello"}}}), "text has no placeholder"),
            (json!({"templates": {"POINTS": {"email_body": "Hello"}}}), "templates.POINTS: email_body"),
            (json!({"templates": {"POINTS": {"email_subject": "a\r\nBcc: b"}}}), "control character"),
            (json!({"delivery": {"SMS": "aws"}}), "needs sms_origination"),
            (json!({"delivery": {"EMAIL": "aws"}}), "needs email_from"),
            (json!({"delivery": {"EMAIL": "aws", "aws": {"email_from": "@"}}}), "email_from `@`"),
            (
                json!({"delivery": {"EMAIL": "aws", "aws": {"email_from": "a@b.example, c@d.example"}}}),
                "email_from",
            ),
            (json!({"delivery": {"EMAIL": "aws", "aws": {"email_from": "Demo <otp>"}}}), "email_from"),
            (json!({"delivery": {"WECHAT": "aws"}}), "cannot be sent by \"aws\""),
            (json!({"delivery": {"SMS": "webhook"}}), "needs [delivery.webhook]"),
            (json!({"delivery": {"SMS": "webhook", "webhook": {"url": "ftp://a/b"}}}), "url is not"),
            (json!({"delivery": {"SMS": "webhook", "webhook": {"url": "http://a.example/b"}}}), "url is not"),
            (
                json!({"delivery": {"SMS": "webhook", "webhook": {"url": "https://u:p@a.example/"}}}),
                "url is not",
            ),
            (
                json!({"delivery": {"SMS": "webhook", "webhook": {"url": "https://a.example:70000/"}}}),
                "url is not",
            ),
            (json!({"delivery": {"SMS": "webhook", "webhook": {"url": "https://[::1]:/"}}}), "url is not"),
            (json!({"delivery": {"SMS": "aws", "aws": {"sms_origination": "  "}}}), "sms_origination"),
            (json!({"delivery": {"aws": {"sms_entity_id": "1\n2"}}}), "sms_entity_id"),
            (json!({"delivery": {"aws": {"sms_max_price": "ten"}}}), "sms_max_price"),
            (
                json!({"delivery": {}, "config": {"CONF_OTP_COMMUNICATE_VIA": ["SMS"]}}),
                "COMMUNICATE_VIA names SMS",
            ),
            (json!({"config": {"CONF_OTP_ALLOWED_COUNTRY_CODES": ["+91"]}}), "ALLOWED_COUNTRY_CODES: `+91`"),
            (json!({"test_identifiers": {"12": "1234567"}}), "neither a mobile"),
            (
                json!({"test_identifiers": {"9199999 00001": "1234567", "919999900001": "1234567"}}),
                "named twice",
            ),
            (json!({"test_identifiers": {"919999900001": "12-4567"}}), "upper-case letters"),
        ] {
            let problems = problems(&definition(&tables));
            assert!(problems.len() == 1 && problems[0].contains(expected), "{expected}: {problems:?}");
        }
    }

    #[test]
    fn a_text_of_the_scope_counts_before_the_default_one_and_that_before_the_built_in_one() {
        let texts = |text: &str, id: Option<&str>| TemplateTexts {
            text: Some(text.to_owned()),
            sms_template_id: id.map(str::to_owned),
            ..TemplateTexts::default()
        };
        let mut templates = Templates::default();
        texts("default", Some("D")).replace_in(&mut templates);
        assert_eq!((templates.text.as_str(), templates.sms_template_id.as_str()), ("default", "D"));
        texts("own", None).replace_in(&mut templates);
        assert_eq!((templates.text.as_str(), templates.sms_template_id.as_str()), ("own", ""));
        assert_eq!(templates.email_subject, Templates::default().email_subject);
    }

    #[test]
    fn the_tables_survive_being_stored() {
        let tables = json!({
            "templates": {"default": {"text": "{{ otp_code }}"}, "POINTS": {"email_subject": "Points"}},
            "delivery": {
                "SMS": "aws", "EMAIL": "webhook", "aws": {"sms_origination": "LOYALTY"},
                "webhook": {"url": "https://gateway.example.com/otp"},
            },
            "test_identifiers": {"919999900001": "1234567"},
        });
        let definition = definition(&tables);
        assert_eq!(definition.check(), Ok(()));
        let stored = serde_json::to_string(&definition).unwrap();
        assert_eq!(serde_json::from_str::<Definition>(&stored).unwrap(), definition);
    }
}
