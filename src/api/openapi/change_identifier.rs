//! Changing the identifiers of customers.

use serde_json::json;

use super::{Operation, account_parameters, identifier_array, optional, path_id};
use crate::api::customer::MAX_IDENTIFIERS_PER_REQUEST;

pub fn change() -> Operation {
    let identifiers = identifier_array(MAX_IDENTIFIERS_PER_REQUEST);
    let some =
        |list: &str| json!({"required": [list], "properties": {list: {"type": "array", "minItems": 1}}});
    let body = json!({
        "type": "object",
        "properties": {"add": optional(&identifiers), "remove": optional(&identifiers)},
        "anyOf": [some("add"), some("remove")],
    });
    let example = json!({
        "add": [{"type": "cuid", "value": "C-1"}], "remove": [{"type": "wechat", "value": "openid-1"}],
    });
    let [source, account] = account_parameters(true);
    Operation {
        tag: "Customers",
        summary: "Change the identifiers of a customer",
        description: "Adds and removes identifiers of a customer in one account: all of them or none. What is added or \
                      removed already is a warning, 8007, so that a request may be sent again. A customer has one \
                      external ID at most, and keeps at least one identifier. At most 40 identifiers in both lists.",
        parameters: vec![path_id(), source, account],
        body: Some((body, example)),
        response: json!({"createdId": {"type": "integer", "description": "The user id"}}),
        example: json!({"createdId": 313_302_314, "warnings": []}),
        links: json!({}),
        problems: problems! {
            ContentTypeUnsupported BodyMalformed ParameterRepeated ChangeInvalid ExternalIdsDiffer NoIdentifierLeft
            SourceMissing SourceUnknown AccountMissing AccountNotConfigured IdentifierNameMissing
            IdentifierNameUnknown IdentifierNameNotText IdentifierValueMissing IdentifierValueMalformed
            IdentifierValueNotText MobileMalformed EmailMalformed RemovedIdentifierOfAnother CustomerUnknown
            IdentifierTaken TooManyIdentifiers CustomerTooLarge
        },
    }
}
