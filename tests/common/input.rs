//! Builds requests from arbitrary bytes. The fuzz targets use it, and the tests that replay their
//! corpora.

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use lambda_http::Context;
use loyalty_codes::{
    api::{Path, Request, Response, TIME_LIMIT},
    entrypoints::api_gateway,
};
use serde_json::Value;

/// Name and password of the till that sends the requests.
pub const TILL: (&str, &str) = ("store.server", "server123");

/// Builds requests from bytes.
pub type InputReader = fn(&[u8]) -> Vec<Request>;

/// All input readers, by the name of their fuzz target and corpus.
pub const INPUT_READERS: [(&str, InputReader); 5] =
    [("params", params), ("body", body), ("credentials", credentials), ("path", path), ("event", event)];

fn request(method: Method, path: &str, query: &str) -> Request {
    let (till, password) = TILL;
    let authorization = format!("Basic {}", STANDARD.encode(format!("{till}:{password}")));
    Request {
        method,
        path: Path::Encoded(path.to_owned()),
        query: query.to_owned(),
        query_was_decoded: false,
        headers: header_map([(header::AUTHORIZATION, authorization.as_bytes())]),
        body: Bytes::new(),
        time_limit: TIME_LIMIT,
        request_id: "input".to_owned(),
    }
}

/// Builds a header map. It leaves out values that no header can have.
fn header_map<'a>(headers: impl IntoIterator<Item = (HeaderName, &'a [u8])>) -> HeaderMap {
    let valid = |(name, value)| Some((name, HeaderValue::from_bytes(value).ok()?));
    headers.into_iter().filter_map(valid).collect()
}

/// Reads the first line as a query, and the rest as parameters in the path.
pub fn params(input: &[u8]) -> Vec<Request> {
    let text = String::from_utf8_lossy(input);
    let (query, tail) = text.split_once('\n').unwrap_or((&text, ""));
    vec![
        request(Method::GET, "/v2/otp", query),
        request(Method::GET, &format!("/v2/otp/{tail}"), query),
        decoded(request(Method::GET, &format!("/v2/otp/{tail}"), query)),
        request(Method::GET, "/v2/cardNumber", query),
        request(Method::GET, "/v2/customers/lookup", query),
        request(Method::GET, "/v2/customers/lookup/customerDetails", query),
        request(Method::GET, &format!("/v2/customers/{tail}"), query),
    ]
}

/// The same request, with a path that the gateway has decoded.
fn decoded(request: Request) -> Request {
    let (Path::Encoded(path) | Path::Decoded(path)) = request.path;
    Request { path: Path::Decoded(path), ..request }
}

/// Builds a request with these idempotency keys. At most one key is valid.
pub fn keys(keys: &[Vec<u8>]) -> Vec<Request> {
    let mut keyed = request(Method::POST, "/v2/cardNumber", "");
    for value in keys.iter().filter_map(|key| HeaderValue::from_bytes(key).ok()) {
        keyed.headers.append("idempotency-key", value);
    }
    vec![keyed]
}

/// Builds a request with this body for each route that reads one.
pub fn body(input: &[u8]) -> Vec<Request> {
    let body = Bytes::copy_from_slice(input);
    [
        "/v2/otp/generate", "/v2/otp/validate", "/v2/customers", "/v2/customers/5/changeIdentifier",
        "/v3/oauth/token/generate",
    ]
    .map(|path| Request { body: body.clone(), ..request(Method::POST, path, "source=INSTORE") })
    .into()
}

/// Builds requests with this `Authorization` header, as it is and Base64-encoded, and with this
/// access token.
pub fn credentials(input: &[u8]) -> Vec<Request> {
    let encoded = format!("Basic {}", STANDARD.encode(input));
    let token = HeaderName::from_static("x-cap-api-oauth-token");
    [(header::AUTHORIZATION, input), (header::AUTHORIZATION, encoded.as_bytes()), (token, input)]
        .map(|header| Request { headers: header_map([header]), ..request(Method::GET, "/v2/cardNumber", "") })
        .into()
}

/// Reads a method, a space and a path.
pub fn path(input: &[u8]) -> Vec<Request> {
    let text = String::from_utf8_lossy(input);
    let (method, path) = text.split_once(' ').unwrap_or(("GET", &text));
    let method = Method::try_from(method).into_iter();
    method
        .flat_map(|method| [request(method.clone(), path, ""), decoded(request(method, path, ""))])
        .collect()
}

/// Parses an event as `main` does. An event that is not from API Gateway, or that cannot be read,
/// has no request.
pub fn event(input: &[u8]) -> Vec<Request> {
    let request = |event| api_gateway::request(event, &Context::default()).ok().flatten();
    str::from_utf8(input).ok().and_then(request).into_iter().collect()
}

/// Panics unless an answer is a valid success or error envelope without a server error.
pub fn check(answer: &Response) {
    let status = answer.status();
    // An answer to HEAD has a length, but no body.
    if answer.headers().contains_key(header::CONTENT_LENGTH) {
        assert!(answer.body().is_empty() && !status.is_server_error(), "{answer:?}");
        return;
    }
    let body = serde_json::from_str::<Value>(answer.body());
    let body = body.unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    assert!(!status.is_server_error(), "{answer:?}");
    // Only an access token comes without warnings.
    let has_token = body["data"]["accessToken"].is_string();
    assert_eq!(body["warnings"].is_array(), !has_token, "{answer:?}");
    let errors = body["errors"].as_array();
    assert_eq!(errors.is_none(), status.is_success(), "{answer:?}");
    for error in errors.into_iter().flatten() {
        assert!(
            error["status"] == false && error["code"].is_u64() && error["message"].is_string(),
            "{answer:?}"
        );
    }
}
