//! Looking up customers.

use http::Method;
use serde_json::{Value, json};

use super::{Operation, account_parameters, identifier_names, operation_id, parameter, path_id, reference};
use crate::{
    api::{error::Problem, params::ALL_SOURCES},
    model::customer::Source,
};

const TAG: &str = "Customers";

pub fn lookup() -> Operation {
    Operation {
        tag: TAG,
        summary: "Look up the id of a customer",
        description: "By an identifier in a source and account, or in all of them. 8065 where somebody has the identifier \
                      in another source or account only.",
        parameters: lookup_parameters(),
        body: None,
        response: json!({"entity": {"type": "integer", "description": "The user id"}}),
        example: json!({"entity": 313_302_314, "warnings": []}),
        links: json!({"details": {
            "operationId": operation_id(&Method::GET, "/v2/customers/{id}"),
            "parameters": {"id": "$response.body#/entity"},
        }}),
        problems: lookup_problems(),
    }
}

pub fn details() -> Operation {
    let (response, example) = details_body();
    let mut problems = lookup_problems();
    problems.push(Problem::CustomerUnknown);
    Operation {
        tag: TAG,
        summary: "Look up the profiles of a customer",
        description: "The parameters are those of the lookup of the id; others, such as `embed`, are ignored. The answer \
                      has all profiles of the customer.",
        parameters: lookup_parameters(),
        body: None,
        response,
        example,
        links: json!({}),
        problems,
    }
}

pub fn by_id() -> Operation {
    let [_, account] = account_parameters(false);
    let (response, example) = details_body();
    Operation {
        tag: TAG,
        summary: "Get the profiles of a customer",
        description: "All profiles of the customer with that user id, whatever the source.",
        parameters: vec![path_id(), source(false), account],
        body: None,
        response,
        example,
        links: json!({}),
        problems: problems! { ParameterRepeated SourceUnknown AccountMissing AccountNotConfigured CustomerUnknown },
    }
}

/// `source`, which may be `ALL`.
fn source(required: bool) -> Value {
    let sources = json!({"anyOf": [reference("Source"), {"const": ALL_SOURCES}]});
    let mut source =
        parameter("source", required, "`ALL` is every source and account", &sources, &json!("WECHAT"));
    if !required {
        source["description"] = json!("INSTORE if left out");
    }
    source
}

fn lookup_parameters() -> Vec<Value> {
    let [_, account] = account_parameters(true);
    let name = json!({"type": "string", "enum": identifier_names(|_| true)});
    let value = json!({"type": "string", "minLength": 1});
    let value_description = "A mobile, an e-mail address or an id";
    vec![
        source(true),
        account,
        parameter("identifierName", true, "What the value is", &name, &json!("mobile")),
        parameter("identifierValue", true, value_description, &value, &json!("8799361139")),
    ]
}

fn lookup_problems() -> Vec<Problem> {
    problems! {
        ParameterRepeated SourceMissing SourceUnknown AccountMissing AccountNotConfigured IdentifierNameMissing
        IdentifierNameUnknown IdentifierValueMissing IdentifierValueMalformed MobileMalformed EmailMalformed
        CustomerNotFound CustomerElsewhere SeveralCustomers
    }
}

/// The schemas of the fields of a customer, and an example.
fn details_body() -> (Value, Value) {
    let text = json!({"type": "string"});
    let empty = json!({"type": "object", "description": "Always empty"});
    let identifiers = json!({
        "type": "array",
        "items": {"type": "object", "required": ["type", "value"], "properties": {"type": text, "value": text}},
    });
    let attribution = json!({
        "type": ["object", "null"],
        "description": "`null` for a profile that was written before this was stored",
        "required": ["createDate", "createdBy"],
        "properties": {
            "createDate": {"type": "string", "format": "date-time", "description": "In the org's time zone"},
            "createdBy": {
                "type": "object",
                "required": ["code", "name", "type"],
                "properties": {"code": text, "name": text, "type": {"const": "TILL"}},
            },
        },
    });
    let profile = json!({
        "firstName": text, "lastName": text, "attribution": attribution, "fields": empty,
        "identifiers": identifiers, "commChannels": {"type": "array", "description": "Always empty"},
        "source": {"type": "string", "enum": Source::NAMES}, "accountId": text, "userId": {"type": "integer"},
        "identifiersAll": identifiers,
    });
    let required: Vec<&String> = profile.as_object().into_iter().flat_map(serde_json::Map::keys).collect();
    let schema = json!({
        "id": {"type": "integer", "description": "The user id"},
        "profiles": {
            "type": "array", "items": {"type": "object", "required": required, "properties": profile},
        },
        "loyaltyInfo": {"type": "object", "properties": {"loyaltyType": text}},
        "extendedFields": empty,
    });
    let identifiers = json!([{"type": "mobile", "value": "919010000022"}]);
    let example = json!({
        "id": 313_302_314,
        "profiles": [{
            "firstName": "Tom", "lastName": "",
            "attribution": {
                "createDate": "2026-11-21T10:00:00+05:30",
                "createdBy": {"code": "store.server", "name": "store.server", "type": "TILL"},
            },
            "fields": {}, "identifiers": identifiers, "commChannels": [], "source": "INSTORE", "accountId": "",
            "userId": 313_302_314, "identifiersAll": identifiers,
        }],
        "loyaltyInfo": {"loyaltyType": "loyalty"},
        "extendedFields": {},
        "warnings": [],
    });
    (schema, example)
}
