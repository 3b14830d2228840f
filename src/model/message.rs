//! The message that carries an OTP to its customer: its channels, and the text with the code filled
//! in.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    model::{customer::IdentifierName, otp::Code},
    secret::Secret,
    wire::wire_enum,
};

wire_enum! {
    /// The channel of a message.
    pub enum ChannelType {
        /// A text message. Some callers write MOBILE.
        Sms = "SMS" | "MOBILE",
        Email = "EMAIL",
        /// A call that reads the code out.
        Phone = "PHONE",
        Whatsapp = "WHATSAPP",
        Wechat = "WECHAT",
        Zalo = "ZALO",
    }
}

impl ChannelType {
    /// The kind of identifier that an address on this channel is.
    pub const fn identifier(self) -> IdentifierName {
        match self {
            Self::Sms | Self::Phone | Self::Whatsapp => IdentifierName::Mobile,
            Self::Email => IdentifierName::Email,
            // Both identify a customer by an opaque id.
            Self::Wechat | Self::Zalo => IdentifierName::Wechat,
        }
    }
}

/// Where a message goes: a channel and the customer's address on it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    #[serde(rename = "type")]
    pub channel_type: ChannelType,
    pub value: String,
}

/// Shows the kind and hides the address.
impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Channel({}, [hidden])", self.channel_type)
    }
}

/// Message texts with the placeholder `{{ validation_code }}` or `{{ otp_code }}`. The spaces in it
/// are optional.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Templates {
    /// For every channel but e-mail.
    pub text: String,
    pub email_subject: String,
    pub email_body: String,
    /// The id under which the text is registered with India's DLT, or empty.
    pub sms_template_id: String,
}

/// The default texts in the public API documentation of generate-otp.
impl Default for Templates {
    fn default() -> Self {
        Self {
            text: "Hi user.Your otp for validation is {{ validation_code }}.".to_owned(),
            email_subject: "Validation Code".to_owned(),
            email_body: "Dear Customer, The validation code for your request is: {{ validation_code }}. \
                         You will also receive the validation code by SMS on your registered mobile number \
                         shortly."
                .to_owned(),
            sms_template_id: String::new(),
        }
    }
}

/// A message with the code filled in, ready to be delivered.
#[derive(Debug, Clone)]
pub struct Message {
    pub channels: Vec<Channel>,
    pub text: Secret<String>,
    pub email_subject: Secret<String>,
    pub email_body: Secret<String>,
    /// The id under which the text is registered with India's DLT, or empty.
    pub sms_template_id: String,
}

/// A message whose code is not known yet.
#[derive(Debug, Clone)]
pub struct Draft {
    pub channels: Vec<Channel>,
    pub templates: Templates,
}

impl Draft {
    /// The message with `code` filled in.
    pub fn with_code(&self, code: &Code) -> Message {
        Message::new(self.channels.clone(), &self.templates, code)
    }
}

/// Whether a template has a placeholder for the code.
pub fn has_placeholder(template: &str) -> bool {
    fill(template, "") != template
}

impl Message {
    /// Fills `code` into `templates`, for delivery by `channels`.
    pub fn new(channels: Vec<Channel>, templates: &Templates, code: &Code) -> Self {
        let fill = |template: &str| Secret::new(fill(template, code.expose()));
        Self {
            channels,
            text: fill(&templates.text),
            email_subject: fill(&templates.email_subject),
            email_body: fill(&templates.email_body),
            sms_template_id: templates.sms_template_id.clone(),
        }
    }
}

/// The names that stand for the code in a template.
pub const PLACEHOLDERS: [&str; 2] = ["validation_code", "otp_code"];

/// Whether a character may surround the name in a placeholder: white space of any kind.
pub const fn is_placeholder_space(c: char) -> bool {
    c.is_whitespace()
}

/// The rest of a text after a placeholder at its beginning. `None` if it begins with none.
fn after_placeholder(text: &str) -> Option<&str> {
    let name = text.strip_prefix("{{")?.trim_start_matches(is_placeholder_space);
    let after_name = PLACEHOLDERS.iter().find_map(|placeholder| name.strip_prefix(placeholder))?;
    after_name.trim_start_matches(is_placeholder_space).strip_prefix("}}")
}

fn fill(template: &str, code: &str) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some(at) = rest.find("{{") {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = after_placeholder(rest) {
            filled.push_str(code);
            rest = after;
        } else {
            filled.push('{');
            rest = &rest[1..];
        }
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_filled_in_wherever_the_placeholder_stands() {
        assert_eq!(fill("OTP {{ validation_code }}!", "538AD87"), "OTP 538AD87!");
        assert_eq!(fill("{{validation_code}}/{{  validation_code}}", "A"), "A/A");
        assert_eq!(fill("{{ name }} {{ {{ validation_code }}", "A"), "{{ name }} {{ A");
        assert_eq!(fill("{{{validation_code}}}", "A"), "{A}");
        assert_eq!(fill("{{\u{a0}validation_code\n}}", "A"), "A");
        assert_eq!(fill("{{ otp_code }}{{otp_code}}", "A"), "AA");
        assert_eq!(fill("{{ validation code }}{{", "A"), "{{ validation code }}{{");
        assert_eq!(fill("plain }} {{", "A"), "plain }} {{");
        assert_eq!(fill("", "A"), "");
    }

    #[test]
    fn a_request_without_templates_gets_the_documented_texts() {
        let message = Message::new(Vec::new(), &Templates::default(), &Code::stored("538AD87"));
        assert_eq!(message.text.expose(), "Hi user.Your otp for validation is 538AD87.");
        assert_eq!(message.email_subject.expose(), "Validation Code");
        assert!(message.email_body.expose().contains("request is: 538AD87. You"));
    }

    #[test]
    fn debug_shows_neither_code_nor_address() {
        let channel = Channel { channel_type: ChannelType::Sms, value: "918799361139".into() };
        let shown =
            format!("{:?}", Message::new(vec![channel], &Templates::default(), &Code::stored("538AD87")));
        assert!(!shown.contains("538AD87") && !shown.contains("918799361139"), "{shown}");
    }
}
