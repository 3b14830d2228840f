//! The OpenAPI document. It is generated from the tables that the service itself uses: routes,
//! problems and enums with names. Only `loyaltyctl` contains it.
//!
//! A function with the name of the handler describes each route, in a file with the name of the
//! handler's file.

macro_rules! problems {
    ($($problem:ident)+) => { vec![$( crate::api::error::Problem::$problem ),+] };
}

pub mod card_number;
pub mod change_identifier;
pub mod customer;
pub mod customer_lookup;
pub mod oauth;
pub mod otp;

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Map, Value, json};

use super::{ROUTES, Route, error::Problem, idempotency::MAX_KEY_LENGTH};
use crate::model::{
    customer::{EMAIL_MAX_BYTES, IdentifierName, OPAQUE_MAX_BYTES, Source},
    phone_number::MOBILE_DIGITS,
    till::Permission,
    typed_text,
};

/// The description of a route.
pub struct Operation {
    pub tag: &'static str,
    pub summary: &'static str,
    pub description: &'static str,
    pub parameters: Vec<Value>,
    /// The schema of the body, and an example.
    pub body: Option<(Value, Value)>,
    /// The schemas of the fields of a success body. `warnings` is added to them, unless `errors` is
    /// one of them.
    pub response: Value,
    pub example: Value,
    /// Links to operations that may follow a success.
    pub links: Value,
    /// The problems that this operation can return, besides those of every operation.
    pub problems: Vec<Problem>,
}

/// The problems that every route can return.
fn common_problems() -> Vec<Problem> {
    problems! { MethodNotAllowed BodyTooLarge Unauthorized NotPermitted V2NotEnabled Unavailable Internal }
}

const INTRODUCTION: &str = "\
Issues, fetches and validates one-time passwords, generates external IDs and registers customers, in the v2 \
dialect of Capillary's loyalty API.

- An error is `{\"errors\":[{\"status\":false,\"code\":…,\"message\":…}],\"warnings\":[]}`, with several entries \
when several parameters are wrong. A path that is not described here is 404 with code 404.
- Enumerated values may be in any case; the usual spellings are listed.
- An empty value counts as absent, and so does `null` in a body. A parameter passed twice with different values is a \
400. Unknown parameters, members and headers are ignored.
- Typed text is cleaned: white space becomes a space and is trimmed; invisible characters are removed from \
identifiers and codes, and every dash in them becomes `-`; decimal digits of any script are read as digits.
- A whole number is read as its digits where text is meant.
- A trailing slash changes nothing.";

/// The OpenAPI 3.1 document.
pub fn document() -> Value {
    let (mut paths, mut tags) = (Map::new(), Vec::new());
    for route in ROUTES {
        let tag = json!({"name": (route.describe)().tag});
        if !tags.contains(&tag) {
            tags.push(tag);
        }
        paths.entry(route.path).or_insert_with(|| json!({}))[route.method.as_str().to_lowercase()] =
            operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "loyalty-codes",
            "version": env!("CARGO_PKG_VERSION"),
            "description": INTRODUCTION,
            "license": {"name": env!("CARGO_PKG_LICENSE")},
        },
        "servers": [{"url": "/"}],
        "tags": tags,
        "paths": paths,
        "components": {
            "securitySchemes": {
                "till": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The till's name and its password, or `md5hex` of it in 32 lower-case digits.",
                },
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-CAP-API-OAUTH-TOKEN",
                    "description": "An access token. It counts before other credentials.",
                },
                "bearer": {"type": "http", "scheme": "bearer", "description": "An access token."},
            },
            "headers": {
                "X-Request-Id": header("Names the request in the log", &json!({"type": "string"})),
                "Cache-Control": header("Codes belong in no cache", &json!({"const": "no-store"})),
                "Retry-After": header("Seconds to wait", &json!({"type": "integer", "minimum": 1})),
                "Allow": header("The methods of the path", &json!({"type": "string"})),
                "WWW-Authenticate": header("The scheme", &json!({"const": "Basic realm=\"loyalty\""})),
            },
            "responses": failures(common_problems().iter()),
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let described = (route.describe)();
    let mut fields = described.response;
    if fields.get("errors").is_none() {
        fields["warnings"] = reference("Warnings");
    }
    let required: Vec<&String> = fields.as_object().into_iter().flat_map(Map::keys).collect();
    let body_schema = json!({"type": "object", "required": required, "properties": fields});
    let (mut parameters, mut problems) = (described.parameters, described.problems);
    if route.idempotent {
        parameters.push(idempotency_key());
        problems.extend(problems! { IdempotencyKeyInvalid IdempotencyKeyReused });
    }
    let mut responses = failures(common_problems().iter().chain(&problems));
    for (status, response) in &mut responses {
        if !problems.iter().any(|problem| problem.status().as_str() == status) {
            *response = json!({"$ref": format!("#/components/responses/{status}")});
        }
    }
    let mut success = response("Done", &[], &body_schema, &described.example);
    success["links"] = described.links;
    responses.insert("200".to_owned(), success);
    let (need, security) = match route.permission.map(Permission::as_str) {
        Some(permission) => (
            format!("The till needs the permission `{permission}`."),
            json!([{"till": [permission]}, {"token": [permission]}, {"bearer": [permission]}]),
        ),
        None => ("The till needs no permission.".to_owned(), json!([])),
    };
    let mut operation = json!({
        "operationId": operation_id(&route.method, route.path),
        "tags": [described.tag],
        "summary": described.summary,
        "description": format!("{}\n\n{need}", described.description),
        "security": security,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some((schema, example)) = described.body {
        let content = json!({"application/json": {"schema": schema, "example": example}});
        operation["requestBody"] = json!({"required": true, "content": content});
    }
    operation
}

fn operation_id(method: &Method, path: &str) -> String {
    format!("{}{}", method.as_str().to_lowercase(), path.replace('/', "-").replace(['{', '}'], ""))
}

/// The responses for `problems`, one for each status.
fn failures<'a>(problems: impl Iterator<Item = &'a Problem>) -> Map<String, Value> {
    let mut statuses = BTreeMap::<u16, Vec<Problem>>::new();
    for problem in problems {
        statuses.entry(problem.status().as_u16()).or_default().push(*problem);
    }
    statuses.into_iter().map(|(status, problems)| (status.to_string(), failure(status, &problems))).collect()
}

fn failure(status: u16, problems: &[Problem]) -> Value {
    let lines: Vec<String> = problems.iter().map(|p| format!("- `{}` {}", p.code(), p.message())).collect();
    let mut codes: Vec<u16> = problems.iter().map(|problem| problem.code()).collect();
    codes.sort_unstable();
    codes.dedup();
    let headers: &[&str] = match status {
        401 => &["WWW-Authenticate"],
        405 => &["Allow"],
        429 | 503 => &["Retry-After"],
        _ => &[],
    };
    let codes = json!({"properties": {"errors": {"items": {"properties": {"code": {"enum": codes}}}}}});
    let first = problems.iter().take(1);
    let errors: Vec<Value> =
        first.map(|p| json!({"status": false, "code": p.code(), "message": p.message()})).collect();
    let schema = json!({"allOf": [reference("Failure"), codes]});
    response(&lines.join("\n"), headers, &schema, &json!({"errors": errors, "warnings": []}))
}

fn response(description: &str, headers: &[&str], schema: &Value, example: &Value) -> Value {
    let headers = ["X-Request-Id", "Cache-Control"].iter().chain(headers);
    let headers: Map<String, Value> = headers
        .map(|name| ((*name).to_owned(), json!({"$ref": format!("#/components/headers/{name}")})))
        .collect();
    json!({
        "description": description,
        "headers": headers,
        "content": {"application/json": {"schema": schema, "example": example}},
    })
}

fn header(description: &str, schema: &Value) -> Value {
    json!({"description": description, "required": true, "schema": schema})
}

/// The schemas that several routes share.
fn schemas() -> Value {
    let (fewest, most) = (MOBILE_DIGITS.start() - 1, MOBILE_DIGITS.end() - 1);
    let blank = character_class(typed_text::is_blank);
    let spaces = character_class(char::is_whitespace);
    // The alphabets of RFC 5322's atoms and of domain labels.
    let (atom, inner) = ("[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]", "[A-Za-z0-9-]{0,61}[A-Za-z0-9]");
    json!({
        "Source": {"type": "string", "enum": Source::NAMES, "description": "Where the customer is registered"},
        "AccountId": {
            "type": "string",
            "description": "An account that the org has for the source. INSTORE has the one account `\"\"`; of a \
                            source with exactly one, leaving it out means that one.",
        },
        "Mobile": {
            "type": ["string", "integer"],
            "minimum": 10_u64.pow(u32::try_from(fewest).unwrap_or_default()),
            "exclusiveMaximum": 10_u64.pow(u32::try_from(most + 1).unwrap_or_default()),
            "pattern": format!(r"^(?![{spaces}]*\+?[0-9]+\.00?[{spaces}]*$)[{spaces}]*(\+|00)?[ ./-]*[1-9]([ ./-]*[0-9]){{{fewest},{most}}}[{spaces}./-]*$"),
            "description": "With country code, or as a national number of the org. Spaces, `-`, `.`, `/`, parentheses, a \
                            `(0)` and a leading `tel:` do not count. A decimal number, such as `919010000022.0`, is none.",
        },
        "Email": {
            "type": "string",
            "maxLength": EMAIL_MAX_BYTES,
            "description": "A dot-atom of at most 64 characters, `@`, and a domain, which may be an internationalized one",
            "pattern": format!(
                r"^[{spaces}]*{atom}{{1,32}}(\.{atom}{{1,15}}){{0,2}}@[A-Za-z0-9]({inner})?(\.[A-Za-z0-9]({inner})?)+[{spaces}]*$"
            ),
        },
        "OpaqueId": {
            "type": ["string", "integer"],
            "minimum": 0,
            "maxLength": OPAQUE_MAX_BYTES,
            "pattern": format!(r"^[^\ufffd]*[^\ufffd{blank}][^\ufffd]*$"),
            "description": format!("An external ID, a WeChat open id or another id: {OPAQUE_MAX_BYTES} bytes of UTF-8 at most"),
        },
        "Absent": {"enum": [null, ""], "description": "Counts as absent"},
        "Message": {
            "type": "object",
            "required": ["status", "code", "message"],
            "properties": {
                "status": {"const": false},
                "code": {"type": "integer"},
                "message": {"type": "string"},
            },
        },
        "Warnings": {"type": "array", "items": reference("Message")},
        "Failure": {
            "type": "object",
            "required": ["errors", "warnings"],
            "properties": {
                "errors": {"type": "array", "minItems": 1, "items": reference("Message")},
                "warnings": reference("Warnings"),
            },
        },
    })
}

/// The characters of the Basic Multilingual Plane that belong to a class, as the inside of a
/// bracket expression. Other characters are left out, because dialects of regular expressions write
/// them differently.
fn character_class(belongs: impl Fn(char) -> bool) -> String {
    let mut ranges = Vec::new();
    let mut characters = ('\0'..='\u{ffff}').filter(|c| belongs(*c)).map(u32::from).peekable();
    while let Some(first) = characters.next() {
        let mut last = first;
        while let Some(next) = characters.next_if_eq(&(last + 1)) {
            last = next;
        }
        ranges.push(if first < last {
            format!(r"\u{first:04x}-\u{last:04x}")
        } else {
            format!(r"\u{first:04x}")
        });
    }
    ranges.concat()
}

/// The shared schema of that name.
fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

/// The schema of a field that may be absent or empty.
fn optional(schema: &Value) -> Value {
    json!({"anyOf": [schema, reference("Absent")]})
}

fn parameter(name: &str, required: bool, description: &str, schema: &Value, example: &Value) -> Value {
    let mut parameter = json!({
        "name": name, "in": "query", "required": required, "description": description, "schema": schema,
        "example": example,
    });
    if !required {
        parameter["allowEmptyValue"] = json!(true);
    }
    parameter
}

/// The `Idempotency-Key` header.
fn idempotency_key() -> Value {
    let (longest, rest) = (MAX_KEY_LENGTH, MAX_KEY_LENGTH - 1);
    let bare = format!(r"[!#-+\--~][!-+\--~]{{0,{rest}}}");
    let quoted = format!(r#""([ !#-\[\]-~]|\\["\\]){{1,{longest}}}""#);
    let pattern = format!("^({bare}|{quoted})$");
    json!({
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Sent again under the same key by the same till within 24 hours, the request gets the first answer again, \
                        and nothing happens twice. A key in double quotes (RFC 8941) is the key inside.",
        "schema": {"type": "string", "pattern": pattern},
    })
}

/// The parameters `source` and `accountId`, with the values of the demo's customer as examples.
fn account_parameters(source_required: bool) -> [Value; 2] {
    let (source, account) = (reference("Source"), reference("AccountId"));
    let default = if source_required { "" } else { "INSTORE if left out" };
    [
        parameter("source", source_required, default, &source, &json!("WECHAT")),
        parameter("accountId", false, "", &account, &json!("WECHAT-API1")),
    ]
}

/// The parameter `{id}` in the path.
fn path_id() -> Value {
    json!({
        "name": "id", "in": "path", "required": true, "description": "The user id of the customer",
        "schema": {"type": "integer", "minimum": 0}, "example": 313_302_314,
    })
}

/// The spellings of identifier names that callers use, of the kinds that are `accepted`.
fn identifier_names(accepted: impl Fn(IdentifierName) -> bool) -> Vec<String> {
    let names =
        IdentifierName::NAMES.iter().filter(|name| IdentifierName::parse(name).is_some_and(&accepted));
    let mut names: Vec<String> =
        names.flat_map(|name| [(*name).to_owned(), name.to_ascii_uppercase()]).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// One schema for each form of identifiers. The field `of` has one of the names of the `kind`s of
/// that form, and the field `value` is such an identifier.
fn by_kind(
    of: &str,
    value: &str,
    names: &[String],
    kind: impl Fn(&str) -> Option<IdentifierName>,
) -> Vec<Value> {
    let form = |kind| match kind {
        IdentifierName::Mobile => "Mobile",
        IdentifierName::Email => "Email",
        _ => "OpaqueId",
    };
    let schemas = ["Mobile", "Email", "OpaqueId"].into_iter().map(|schema| {
        let names: Vec<&String> = names.iter().filter(|name| kind(name).map(form) == Some(schema)).collect();
        (names, schema)
    });
    let schemas = schemas.filter(|(names, _)| !names.is_empty());
    schemas
        .map(|(names, schema)| json!({"properties": {of: {"enum": names}, value: reference(schema)}}))
        .collect()
}

/// The schema of an array of identifiers of any kind.
fn identifier_array(most: usize) -> Value {
    let kinds = by_kind("type", "value", &identifier_names(|_| true), IdentifierName::parse);
    json!({
        "type": "array",
        "maxItems": most,
        "items": {"type": "object", "required": ["type", "value"], "oneOf": kinds},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_of_a_readable_request_for_a_route_is_a_response_of_some_route() {
        let document = document().to_string();
        let others = problems!(RouteUnknown RequestUnreadable BodyIncomplete BodyTooSlow);
        for problem in Problem::ALL.iter().filter(|problem| !others.contains(problem)) {
            assert!(document.contains(&format!("`{}` {}", problem.code(), problem.message())), "{problem:?}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        for reference in text.split(r##""$ref":"#"##).skip(1) {
            let pointer = reference.split('"').next().unwrap_or_default();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
    }
}
