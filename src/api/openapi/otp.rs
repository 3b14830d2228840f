//! Fetching, issuing and validating OTPs.

use http::Method;
use serde_json::{Value, json};

use super::{
    Operation, account_parameters, by_kind, character_class, identifier_names, operation_id, optional,
    parameter, reference,
};
use crate::{
    api::otp::MAX_CHANNELS,
    model::{
        customer::IdentifierName,
        delivery::MAX_TEMPLATE_LENGTH,
        message::{ChannelType, PLACEHOLDERS, is_placeholder_space},
        otp::Scope,
        recipients::BOTH,
        typed_text,
    },
};

const TAG: &str = "OTPs";

pub fn fetch() -> Operation {
    let [source, account] = account_parameters(true);
    let name = json!({"type": "string", "enum": identifier_names(IdentifierName::receives_otps)});
    let value = json!({"type": "string", "minLength": 1});
    let seconds = json!({"type": "integer", "format": "int64", "minimum": 0, "maximum": i64::MAX});
    let value_description = "A mobile, an e-mail address, an external ID or a WeChat open id";
    let threshold = "The least remaining validity, in seconds. In an org with \
                     `CONF_OTP_THRESHOLD_MODE=MAX_AGE`: the greatest age, in seconds.";
    Operation {
        tag: TAG,
        summary: "Fetch the most recent OTP",
        description: "The most recently issued OTP of that customer and scope that is valid, not consumed, and \
                      admitted by the threshold.\n\nThe parameters may also stand in the path, \
                      `/v2/otp/source=WECHAT&…&scope=POINTS`, where `+` is a plus; ids with `&`, `%` or `?` belong \
                      in the query. `mobile=8799361139` (or `email=`, `external_id=`, `wechat=`) may stand for the \
                      pair of `identifierName` and `identifierValue`. `HEAD` is answered, too.",
        parameters: vec![
            source,
            account,
            parameter("identifierName", true, "What the value is", &name, &json!("mobile")),
            parameter("identifierValue", true, value_description, &value, &json!("8799361139")),
            parameter(
                "scope",
                true,
                "What the OTP is for",
                &json!({"type": "string", "enum": Scope::NAMES}),
                &json!("POINTS"),
            ),
            parameter("threshold", false, threshold, &seconds, &json!(60)),
        ],
        body: None,
        response: json!({
            "orgId": {"type": "integer"},
            "userId": {"type": ["integer", "null"], "description": "`null` if the OTP belongs to a contact who is not registered"},
            "code": {"type": "string"},
            "validUpto": {
                "type": "string",
                "format": "date-time",
                "pattern": "[+-][0-9]{2}:[0-9]{2}$",
                "description": "In the org's time zone, with a numeric offset",
            },
        }),
        example: json!({
            "orgId": 966, "userId": 313_302_314, "code": "538AD87", "validUpto": "2017-08-07T21:44:20+05:30",
            "warnings": [],
        }),
        links: json!({"validate": {
            "operationId": operation_id(&Method::POST, "/v2/otp/validate"),
            "requestBody": {
                "entityType": "$request.query.identifierName",
                "entityValue": "$request.query.identifierValue",
                "action": "$request.query.scope",
                "source": "$request.query.source",
                "code": "$response.body#/code",
            },
        }}),
        problems: problems! {
            PathAmbiguous ParameterRepeated SourceMissing SourceUnknown AccountMissing AccountNotConfigured IdentifierNameMissing
            IdentifierNameUnknown IdentifierValueMissing IdentifierValueMalformed IdentifiersDiffer MobileMalformed
            EmailMalformed ScopeInvalid ThresholdInvalid CustomerNotFound OtpNotFound
        },
    }
}

pub fn generate() -> Operation {
    let spaces = character_class(is_placeholder_space);
    let names = PLACEHOLDERS.join("|");
    let placeholder = format!(r"\{{\{{[{spaces}]*({names})[{spaces}]*\}}\}}");
    let text = json!({"type": "string", "maxLength": MAX_TEMPLATE_LENGTH, "pattern": placeholder});
    let control = character_class(|c| typed_text::has_control(c.encode_utf8(&mut [0; 4])));
    let subject = json!({
        "type": ["string", "integer", "null"], "minimum": 0, "maxLength": MAX_TEMPLATE_LENGTH,
        "pattern": format!("^[^{control}]*$"),
    });
    let email = json!({
        "type": "object",
        "properties": {"subject": subject, "body": optional(&text)},
    });
    let names: Vec<String> = ChannelType::NAMES.iter().map(|name| (*name).to_owned()).collect();
    let mut kinds =
        by_kind("type", "value", &names, |name| ChannelType::parse(name).map(ChannelType::identifier));
    let either = json!({"anyOf": [reference("Mobile"), reference("Email")]});
    kinds.push(json!({"properties": {"type": {"enum": [BOTH]}, "value": either}}));
    let channels = json!({
        "type": "array",
        "maxItems": MAX_CHANNELS,
        "description": "Where the OTP is sent. SMS and MOBILE are a text message, PHONE is a call, BOTH is a text message \
                        and an e-mail. An empty array counts as absent.",
        "items": {"type": "object", "required": ["type", "value"], "oneOf": kinds},
    });
    let members = json!({
        "template": optional(&text), "emailTemplate": optional(&email), "channels": optional(&channels),
    });
    let example = json!({
        "entityType": "MOBILE", "entityValue": "8799361139", "action": "POINTS", "source": "WECHAT",
        "accountId": "WECHAT-API1", "template": "Your OTP is {{ validation_code }}",
        "channels": [{"type": "SMS", "value": "8799361139"}],
    });
    let mut problems = problems! {
        ChannelInvalid ChannelNotOffered CountryNotAllowed NoAddress AddressNotOwn TemplateInvalid SubjectInvalid
        OtpTooSoon OtpLimitReached HourlyOtpLimitReached OtpNotGenerated
    };
    problems.extend(entity_problems());
    Operation {
        tag: TAG,
        summary: "Issue an OTP",
        description: "The code is never in the answer. It is sent by `channels`, or else by those of \
                      `CONF_OTP_COMMUNICATE_VIA`, with the org's texts where the request has none. The OTP of a customer \
                      is sent to the customer's own addresses only, unless the till has the permission \
                      `otp:issue_to_any`.\n\n429 after `CONF_OTP_DAILY_LIMIT` OTPs a day of the org's time zone for a \
                      customer, or for a contact and each address of its OTPs; after `CONF_OTP_RATE_LIMIT_ONE_HOUR` OTPs \
                      an hour to an address; and within `CONF_OTP_COOLDOWN_SECONDS` of the last one for that customer \
                      and scope. With `CONF_OTP_REISSUE=SAME`, an earlier OTP that is valid is sent again, and its \
                      `createdId` is the answer.",
        parameters: Vec::new(),
        body: Some((entity_body(&["entityType", "entityValue", "action"], members), example)),
        response: json!({"createdId": {
            "type": "integer",
            "format": "int64",
            "description": "The time of issue in milliseconds times 1,000, and three random digits",
        }}),
        example: json!({"createdId": 1_795_235_412_345_123_u64, "warnings": []}),
        links: json!({"fetch": {
            "operationId": operation_id(&Method::GET, "/v2/otp"),
            "parameters": {
                "identifierName": "$request.body#/entityType",
                "identifierValue": "$request.body#/entityValue",
                "scope": "$request.body#/action",
            },
        }}),
        problems,
    }
}

pub fn validate() -> Operation {
    let dropped =
        character_class(|c| c.is_whitespace() || typed_text::is_ignorable(c) || typed_text::is_dash(c));
    let description = "Letters in any case; spaces and hyphens do not count";
    let pattern = format!("[^{dropped}\\u30fc\\uff70]");
    let code = json!({"code": {"type": ["string", "integer"], "minimum": 0, "pattern": pattern, "description": description}});
    let example = json!({
        "entityType": "MOBILE", "entityValue": "8799361139", "action": "POINTS", "source": "WECHAT",
        "accountId": "WECHAT-API1", "code": "538AD87",
    });
    let mut problems = problems! { CodeMissing CodeNotText AttemptLimitReached };
    problems.extend(entity_problems());
    Operation {
        tag: TAG,
        summary: "Consume an OTP",
        description: "`true` exactly once for a right code, `false` for a wrong, expired or used one. After \
                      `CONF_OTP_VALIDATE_RATE_LIMIT_COUNT` wrong codes within `CONF_OTP_VALIDATE_RATE_LIMIT_MINUTE` \
                      minutes: 429, for a right code too. With an `Idempotency-Key`, a request that is sent again gets \
                      the same result.",
        parameters: Vec::new(),
        body: Some((entity_body(&["entityType", "entityValue", "action", "code"], code), example)),
        response: json!({"entity": {"type": "boolean"}}),
        example: json!({"entity": true, "warnings": []}),
        links: json!({}),
        problems,
    }
}

/// The schema of a request body about an entity, with further fields.
fn entity_body(required: &[&str], mut members: Value) -> Value {
    members["action"] = json!({"type": "string", "enum": Scope::NAMES});
    members["source"] = optional(&reference("Source"));
    members["accountId"] = optional(&reference("AccountId"));
    let kinds = by_kind(
        "entityType",
        "entityValue",
        &identifier_names(IdentifierName::receives_otps),
        IdentifierName::parse,
    );
    json!({"type": "object", "required": required, "properties": members, "oneOf": kinds})
}

fn entity_problems() -> Vec<super::Problem> {
    problems! {
        ContentTypeUnsupported BodyMalformed SourceUnknown SourceNotText AccountMissing AccountNotConfigured
        AccountNotText ScopeInvalid ScopeNotText EntityTypeInvalid EntityTypeNotText EntityValueMissing
        EntityValueNotText IdentifierValueMalformed MobileMalformed EmailMalformed CustomerNotFound
    }
}
