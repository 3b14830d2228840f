//! Registering customers.

use serde_json::json;

use super::{Operation, identifier_array, optional, reference};
use crate::api::customer::{MAX_IDENTIFIERS_PER_REQUEST, MAX_NAME_LENGTH, MAX_PROFILES};

pub fn register() -> Operation {
    let identifiers = identifier_array(MAX_IDENTIFIERS_PER_REQUEST);
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
        description: "All identifiers are written, or, if one of them is taken, none. A mobile or e-mail address that a \
                      customer has in another source or account: the profiles are added to that customer, whose id is \
                      the answer, with the warning 8051. One external ID at most; given none, and with generation \
                      enabled for the account of a profile, a customer who has none gets the next one. At most 40 \
                      identifiers in all profiles. A name that the customer has stays.",
        parameters: Vec::new(),
        body: Some((body, example)),
        response: json!({
            "createdId": {"type": "integer", "description": "The user id"},
            "sideEffects": {"type": "array", "items": {}, "description": "Always empty"},
        }),
        example: json!({"createdId": 130_713_699, "warnings": [], "sideEffects": []}),
        links: json!({}),
        problems: problems! {
            ContentTypeUnsupported BodyMalformed ProfilesMissing IdentifiersInvalid NameInvalid ExternalIdsDiffer
            SourceMissing SourceUnknown SourceNotText AccountMissing AccountNotConfigured AccountNotText
            IdentifierNameMissing IdentifierNameUnknown IdentifierNameNotText IdentifierValueMissing
            IdentifierValueMalformed IdentifierValueNotText MobileMalformed EmailMalformed
            CardNumbersDisabled CardNumbersNotForAccount CardNumberSettingsInvalid CardNumberLengthInvalid
            CardNumbersExhausted CustomerExists IdentifierTaken SeveralCustomers
            TooManyIdentifiers CustomerTooLarge
        },
    }
}
