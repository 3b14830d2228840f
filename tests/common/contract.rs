//! Compares answers with the OpenAPI document.

use std::sync::LazyLock;

use http::Method;
use loyalty_codes::api::openapi;
use serde_json::Value;

use super::Answer;

static DOCUMENT: LazyLock<Value> = LazyLock::new(openapi::document);

/// Panics if the document does not describe this answer. For a path without routes, the answer must
/// be 404 or 405.
pub fn check(method: &Method, path: &str, answer: &Answer) {
    let in_path = path.starts_with("/v2/otp/") && (path.contains('=') || path.contains("%3D"));
    let path = if in_path { "/v2/otp" } else { path.strip_suffix('/').unwrap_or(path) };
    let path = described(path);
    let operation = &DOCUMENT["paths"][&path][method.as_str().to_lowercase()];
    if operation.is_null() {
        assert!([404, 405].contains(&answer.status), "{method} {path}: {answer:?}");
        return;
    }
    let response = resolve(&operation["responses"][answer.status.to_string()]);
    assert!(response.is_object(), "the document has no such answer to {method} {path}: {answer:?}");
    for name in response["headers"].as_object().unwrap().keys() {
        assert!(answer.headers.contains_key(name), "{method} {path} has no header {name}: {answer:?}");
    }
    let schema = &response["content"]["application/json"]["schema"];
    let found = violation(schema, &answer.json);
    assert_eq!(found, None, "{method} {path}: {answer:?}");
}

/// The path as the document has it, with `{id}` for an id.
fn described(path: &str) -> String {
    let segments: Vec<&str> = path.split('/').collect();
    match segments[..] {
        ["", "v2", "customers", "lookup", ..] => path.to_owned(),
        ["", "v2", "customers", _] => "/v2/customers/{id}".to_owned(),
        ["", "v2", "customers", _, "changeIdentifier"] => "/v2/customers/{id}/changeIdentifier".to_owned(),
        _ => path.to_owned(),
    }
}

fn resolve(value: &'static Value) -> &'static Value {
    match value["$ref"].as_str() {
        Some(reference) => DOCUMENT.pointer(reference.trim_start_matches('#')).unwrap(),
        None => value,
    }
}

/// Validates `value` by the part of JSON Schema that the document's answers use, and describes the
/// first violation. Schemathesis checks the formats and patterns of texts.
fn violation(schema: &'static Value, value: &Value) -> Option<String> {
    let schema = resolve(schema);
    let wrong = || Some(format!("{value} is not {schema}"));
    for (keyword, operand) in schema.as_object().unwrap() {
        let list = operand.as_array().map(Vec::as_slice).unwrap_or_default();
        let found = match keyword.as_str() {
            "allOf" => list.iter().find_map(|schema| violation(schema, value)),
            "const" if operand != value => wrong(),
            "enum" if !list.contains(value) => wrong(),
            "type" if operand != type_of(value) && !list.iter().any(|name| name == type_of(value)) => wrong(),
            "required"
                if value.is_object()
                    && list.iter().any(|name| value.get(name.as_str().unwrap()).is_none()) =>
            {
                wrong()
            }
            "minItems" if value.as_array().is_some_and(Vec::is_empty) => wrong(),
            "items" => value.as_array().into_iter().flatten().find_map(|item| violation(operand, item)),
            "properties" => {
                let known = |(name, schema)| value.get(name).and_then(|member| violation(schema, member));
                operand
                    .as_object()
                    .unwrap()
                    .iter()
                    .map(|(name, schema)| (name.as_str(), schema))
                    .find_map(known)
            }
            "minimum" if value.as_f64() < operand.as_f64() => wrong(),
            "maximum" if value.as_f64() > operand.as_f64() => wrong(),
            "const" | "enum" | "type" | "required" | "minItems" | "minimum" | "maximum" | "description"
            | "format" | "pattern" => None,
            other => panic!("the keyword `{other}` is not supported here"),
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}
