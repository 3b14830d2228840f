//! Registering customers.

use serde_json::json;

use super::{Operation, by_kind, identifier_names, optional, reference};
use crate::{
    api::customer::{MAX_IDENTIFIERS, MAX_NAME_LENGTH, MAX_PROFILES},
    model::customer::IdentifierName,
};

pub fn register() -> Operation {
    let kinds = by_kind("type", "value", &identifier_names(), IdentifierName::parse);
    let identifiers = json!({
        "type": "array",
        "maxItems": MAX_IDENTIFIERS,
        "items": {"type": "object", "required": ["type", "value"], "oneOf": kinds},
    });
    let name = json!({"type": ["string", "integer", "null"], "minimum": 0, "maxLength": MAX_NAME_LENGTH});
    let profile = json!({
        "type": "object",
        "required": ["source"],
        "properties": {
            "firstName": name,
            "lastName": name,
            "source": reference("Source"),
            "accountId": optional(&reference("AccountId")),
            "identifiers": optional(&identifiers),
        },
    });
    let identified =
        json!({"required": ["identifiers"], "properties": {"identifiers": {"type": "array", "minItems": 1}}});
    let body = json!({
        "type": "object",
        "required": ["profiles"],
        "properties": {"profiles": {
            "type": "array",
            "minItems": 1,
            "maxItems": MAX_PROFILES,
            "items": profile,
            "contains": identified,
        }},
    });
    let example = json!({"profiles": [{
        "firstName": "Tom", "source": "INSTORE", "accountId": "",
        "identifiers": [{"type": "mobile", "value": "919010000022"}],
    }]});
    Operation {
        tag: "Customers",
        summary: "Register a customer",
        description: "All identifiers are written, or, if one of them is taken, none. One external ID at most; given \
                      none, and with generation enabled for the account of a profile, the customer gets the next one. \
                      At most 50 identifiers in all profiles.",
        parameters: Vec::new(),
        body: Some((body, example)),
        response: json!({"createdId": {"type": "integer", "description": "The user id"}}),
        example: json!({"createdId": 130_713_699, "warnings": []}),
        links: json!({}),
        problems: problems! {
            ContentTypeUnsupported BodyMalformed ProfilesMissing IdentifiersInvalid NameInvalid ExternalIdsDiffer
            SourceMissing SourceUnknown SourceNotText AccountMissing AccountNotConfigured AccountNotText
            IdentifierNameMissing IdentifierNameUnknown IdentifierNameNotText IdentifierValueMissing
            IdentifierValueMalformed IdentifierValueNotText MobileMalformed EmailMalformed
            CardNumbersDisabled CardNumbersNotForAccount CardNumberSettingsInvalid CardNumberLengthInvalid
            CardNumbersExhausted IdentifierTaken
        },
    }
}
