//! Property tests for arbitrary input. Every answer must be a valid envelope: no panic, no 5xx.
//! `make fuzz` searches further.
#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]

mod common;

use std::{fs, path::Path, sync::LazyLock};

use common::{
    MOBILE, TestService, TestTable,
    events::{EVENTS, VERSIONS, read},
    input::{self, INPUT_READERS, check},
};
use loyalty_codes::api::{ROUTES, Request};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value};
use tokio::runtime::Runtime;

/// Sends requests to one shared service and checks the answers.
fn answer(requests: Vec<Request>) {
    static SERVICE: LazyLock<(Runtime, TestTable, TestService)> = LazyLock::new(|| {
        let runtime = Runtime::new().unwrap();
        let (table, service) = runtime.block_on(common::demo());
        (runtime, table, service)
    });
    let (runtime, _table, service) = &*SERVICE;
    for request in requests {
        check(&runtime.block_on(service.app.handle(request)));
    }
}

const WORDS: &[&str] = &[
    "source", "accountId", "identifierName", "identifierValue", "scope", "threshold", "mobile", "email",
    "external_id", "externalId", "wechat", "entityType", "entityValue", "action", "code", "template",
    "emailTemplate", "subject", "body", "channels", "type", "value", "profiles", "identifiers", "firstName",
    "lastName", "INSTORE", "WECHAT", "WECHAT-API1", "MARTJACK", "POINTS", "REGISTRATION", "MOBILE", "SMS",
    "EMAIL", "{{ validation_code }}", "tom@example.com", MOBILE, "60", "-1", "+91 87993 61139", "00",
    "18446744073709551616", "",
];

/// A word that the service knows, or any text.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![4 => select(WORDS).prop_map(str::to_owned), 1 => any::<String>()]
}

/// Parameters as HTML forms encode them, or any text.
fn query() -> impl Strategy<Value = String> {
    let pairs = vec((word(), word()), 0..8)
        .prop_map(|pairs| form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish());
    prop_oneof![pairs, vec(word(), 0..12).prop_map(|words| words.join("=")), any::<String>()]
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => word().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<f64>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((word(), inner), 0..8).prop_map(|members| Value::from(Map::from_iter(members))),
        ]
    })
}

/// A request body from the documentation.
fn documented() -> impl Strategy<Value = Value> {
    let bodies = ["otp-generate", "otp-validate", "customer-register", "token-generate"].map(|name| {
        let event: Value = serde_json::from_str(&read(name, "v2")).unwrap();
        serde_json::from_str(event["body"].as_str().unwrap()).unwrap()
    });
    select(bodies.to_vec())
}

/// JSON pointers to all values within a JSON value.
fn pointers(value: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| (name.replace('~', "~0").replace('/', "~1"), member))
            .collect(),
        Value::Array(items) => items.iter().enumerate().map(|(i, item)| (i.to_string(), item)).collect(),
        _ => Vec::new(),
    };
    let below = |(name, child): (String, &Value)| {
        pointers(child).into_iter().map(move |place| format!("/{name}{place}")).collect::<Vec<_>>()
    };
    std::iter::once(String::new()).chain(children.into_iter().flat_map(below)).collect()
}

/// A JSON value in which some values are replaced by others.
fn mutated(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let changes = vec((any::<prop::sample::Index>(), json()), 0..4);
    (value, changes).prop_map(|(mut value, changes)| {
        for (index, other) in changes {
            let place = index.get(&pointers(&value)).clone();
            *value.pointer_mut(&place).unwrap() = other;
        }
        value
    })
}

fn path() -> impl Strategy<Value = String> {
    let known = ROUTES
        .iter()
        .map(|route| route.path)
        .chain(["/v2/otp/", "/v2", "", "/", "%2F", "//", "source=WECHAT"]);
    let piece = prop_oneof![select(known.collect::<Vec<_>>()).prop_map(str::to_owned), query()];
    prop_oneof![4 => vec(piece, 0..4).prop_map(|pieces| pieces.concat()), 1 => any::<String>()]
}

fn method() -> impl Strategy<Value = String> {
    prop_oneof![4 => select(&["GET", "POST", "DELETE", "HEAD"][..]).prop_map(str::to_owned), 1 => "[A-Za-z]{1,9}"]
}

fn api_gateway_event() -> impl Strategy<Value = Value> {
    let files = EVENTS.iter().flat_map(|(name, ..)| VERSIONS.map(|version| read(name, version)));
    select(files.map(|text| serde_json::from_str::<Value>(&text).unwrap()).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn any_parameters_are_answered(query in query(), tail in option::of(path())) {
        answer(input::params(format!("{query}\n{}", tail.unwrap_or_default()).as_bytes()));
    }

    #[test]
    fn any_json_body_is_answered(body in prop_oneof![json(), mutated(documented())]) {
        answer(input::body(body.to_string().as_bytes()));
    }

    #[test]
    fn any_bytes_as_a_body_are_answered(body in any::<Vec<u8>>()) {
        answer(input::body(&body));
    }

    #[test]
    fn any_credentials_are_answered(
        header in prop_oneof![any::<Vec<u8>>(), "(Basic|basic|Bearer)? *[A-Za-z0-9+/=:. ]{0,40}".prop_map(String::into_bytes)],
    ) {
        answer(input::credentials(&header));
    }

    #[test]
    fn any_idempotency_keys_are_answered(keys in vec(prop_oneof![any::<Vec<u8>>(), "[!-~]{0,300}".prop_map(String::into_bytes)], 0..3)) {
        answer(input::keys(&keys));
    }

    #[test]
    fn any_method_and_path_are_answered(method in method(), path in path()) {
        answer(input::path(format!("{method} {path}").as_bytes()));
    }

    #[test]
    fn any_event_is_answered_or_ignored(event in mutated(api_gateway_event())) {
        answer(input::event(event.to_string().as_bytes()));
    }

    #[test]
    fn any_text_in_an_event_is_answered(event in api_gateway_event(), text in any::<String>(), long in 0..2_usize) {
        // Fields that API Gateway copies from the request, with any text, longer than API Gateway
        // allows.
        let text = text + &"é".repeat(long * 20_000);
        let pointers = [
            "/path", "/rawPath", "/rawQueryString", "/body", "/requestContext/stage", "/requestContext/domainName",
            "/headers/authorization", "/multiValueHeaders/Authorization/0", "/headers/x-cap-api-oauth-token",
            "/multiValueHeaders/X-CAP-API-OAUTH-TOKEN/0",
        ];
        for place in pointers {
            let mut event = event.clone();
            if let Some(value) = event.pointer_mut(place) {
                *value = text.as_str().into();
            }
            let requests = input::event(event.to_string().as_bytes());
            prop_assert_eq!(requests.len(), 1, "it must stay an event of API Gateway");
            answer(requests);
        }
    }
}

#[test]
fn the_corpora_of_the_fuzz_targets_are_answered() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, reading) in INPUT_READERS {
        let mut requests = 0;
        for entry in fs::read_dir(corpora.join(name)).unwrap() {
            let input = reading(&fs::read(entry.unwrap().path()).unwrap());
            requests += input.len();
            answer(input);
        }
        assert!(requests > 0, "{name}");
    }
}
