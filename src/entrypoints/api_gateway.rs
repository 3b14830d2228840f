//! Converts API Gateway events to requests, and responses to the form that API Gateway expects.
//!
//! HTTP APIs send payload version 2.0 or 1.0; REST APIs send 1.0. Only the fields that are used are
//! deserialized. The conversion of `lambda_http` is not used, because it panics on values that are
//! not valid in a URI.
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use lambda_http::{
    Context,
    aws_lambda_events::{apigw::ApiGatewayProxyResponse, encodings::Body},
};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::Value;

use crate::api::{Path, Request, Response, TIME_LIMIT};

/// Time that is reserved before the function's deadline for sending the response and writing the
/// log line.
const TIME_TO_RESPOND: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    /// `2.0` or `1.0` for an HTTP API; REST APIs send none.
    version: Option<String>,
    raw_path: Option<String>,
    raw_query_string: Option<String>,
    path: Option<String>,
    http_method: Option<String>,
    headers: Option<Single>,
    multi_value_headers: Option<Multiple>,
    query_string_parameters: Option<Single>,
    multi_value_query_string_parameters: Option<Multiple>,
    body: Option<String>,
    is_base64_encoded: Option<bool>,
    request_context: RequestContext,
}

type Single = BTreeMap<String, Option<String>>;
type Multiple = BTreeMap<String, Option<Vec<String>>>;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestContext {
    stage: Option<String>,
    request_id: Option<String>,
    domain_name: Option<String>,
    http: Option<Http>,
    /// Present in events of a load balancer, which encodes queries in another way. Such events are
    /// ignored.
    elb: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Http {
    method: String,
}

/// An event of an HTTP API or a REST API that is not a request in the form of API Gateway. The
/// message contains no value of the event, because values may be personal data.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("the value that ends at byte {column} of line {line} has the wrong type")]
    Type { line: usize, column: usize },
    #[error("the method is not one of HTTP")]
    Method,
}

/// The request in an event. `None` if the event is not from an HTTP API or a REST API, such as a
/// scheduled event or a warm-up call.
///
/// # Errors
/// [`Unreadable`] when the event is from such an API, but cannot be read.
pub fn request(event: &str, context: &Context) -> Result<Option<Request>, Unreadable> {
    let event: Event = match serde_json::from_str(event) {
        Ok(event) => event,
        Err(error) if is_from_api(event) => {
            return Err(Unreadable::Type { line: error.line(), column: error.column() });
        }
        Err(_) => return Ok(None),
    };
    if event.request_context.elb.is_some() {
        return Ok(None);
    }
    let http = event.request_context.http.as_ref();
    let Some(method) = event.http_method.as_ref().or(http.map(|http| &http.method)) else {
        return Ok(None);
    };
    // Lambda sends no response after the deadline. A deadline in the past is ignored: `cargo lambda
    // watch` sends such events.
    let time_left = context.deadline().duration_since(SystemTime::now()).ok();
    Ok(Some(Request {
        method: Method::from_bytes(method.as_bytes()).map_err(|_| Unreadable::Method)?,
        path: event.path(),
        query_was_decoded: event.sent_query().is_none(),
        query: event.query(),
        headers: event.header_map(),
        time_limit: time_left.map_or(TIME_LIMIT, |left| left.saturating_sub(TIME_TO_RESPOND)),
        body: decode_body(event.body.unwrap_or_default(), event.is_base64_encoded.unwrap_or_default()),
        request_id: event.request_context.request_id.unwrap_or_else(|| context.request_id.clone()),
    }))
}

/// Whether an event that cannot be read is from an HTTP API or a REST API: it has a request context
/// and a method. Those of a load balancer are recognized by their context.
fn is_from_api(event: &str) -> bool {
    let event: Value = serde_json::from_str(event).unwrap_or_default();
    let context = &event["requestContext"];
    let has_method = !event["httpMethod"].is_null() || !context["http"].is_null();
    has_method && !context.is_null() && context["elb"].is_null()
}

impl Event {
    fn is_version_2(&self) -> bool {
        self.version.as_deref() == Some("2.0")
    }

    /// Whether the path in the event is percent-encoded. REST APIs and function URLs pass it on as
    /// it was sent. HTTP APIs decode it, in both payload versions.
    /// <https://github.com/hotsock/voker/pull/8> has captured events of each kind.
    /// <https://github.com/honojs/hono/issues/2156> shows what happens when a path is decoded
    /// twice.
    fn path_is_encoded(&self) -> bool {
        let domain = self.request_context.domain_name.as_deref().unwrap_or_default();
        self.version.is_none() || domain.contains(".lambda-url.")
    }

    fn path(&self) -> Path {
        let path = if self.is_version_2() { &self.raw_path } else { &self.path };
        let path = path.as_deref().unwrap_or_default();
        // In payload version 2.0, the path begins with the name of the stage.
        let stage = self.request_context.stage.as_deref().filter(|_| self.is_version_2());
        let path = without_stage(path, stage).to_owned();
        if self.path_is_encoded() { Path::Encoded(path) } else { Path::Decoded(path) }
    }

    /// The query string as it was sent. Version 2.0 contains it.
    fn sent_query(&self) -> Option<&String> {
        self.raw_query_string.as_ref().filter(|_| self.is_version_2())
    }

    /// The query string in form encoding. The maps of single parameters are decoded, in both
    /// versions, and are encoded again here.
    fn query(&self) -> String {
        if let Some(query) = self.sent_query() {
            return query.clone();
        }
        let pairs =
            merge(self.query_string_parameters.as_ref(), self.multi_value_query_string_parameters.as_ref());
        form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    }

    /// The headers. A value that is not valid in a header becomes empty, which is refused where the
    /// header is read. So an unreadable idempotency key does not count as a missing one.
    fn header_map(&self) -> HeaderMap {
        let pairs = merge(self.headers.as_ref(), self.multi_value_headers.as_ref());
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                let value = HeaderValue::from_bytes(value.as_bytes());
                // Fails beyond 32,768 headers. API Gateway allows 10,240 bytes of headers.
                let _ = headers.try_append(name, value.unwrap_or(HeaderValue::from_static("")));
            }
        }
        headers
    }
}

/// The values of `multiple`, and those of `single` whose names are not in `multiple`.
fn merge<'a>(
    single: Option<&'a Single>,
    multiple: Option<&'a Multiple>,
) -> impl Iterator<Item = (&'a str, &'a str)> {
    let is_multiple = move |name: &String| multiple.is_some_and(|multiple| multiple.contains_key(name));
    let several = multiple
        .into_iter()
        .flatten()
        .flat_map(|(name, values)| values.iter().flatten().map(|value| (name.as_str(), value.as_str())));
    let one = single.into_iter().flatten().filter(move |(name, _)| !is_multiple(name));
    several.chain(one.filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?))))
}

/// The bytes of a body. Invalid Base64 becomes an empty body. Every route that reads a body refuses
/// that with 400.
fn decode_body(body: String, is_base64: bool) -> Bytes {
    if is_base64 { general_purpose::STANDARD.decode(body).unwrap_or_default().into() } else { body.into() }
}

fn without_stage<'a>(path: &'a str, stage: Option<&str>) -> &'a str {
    stage
        .and_then(|stage| path.strip_prefix('/')?.strip_prefix(stage))
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(path)
}

/// The function's response to an event.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum FunctionResponse {
    Response(Box<ApiGatewayProxyResponse>),
    /// `{}`, for an event that is not from API Gateway. A function error would raise an alarm.
    Ignored {},
}

impl From<Response> for FunctionResponse {
    /// Uses one form for both payload versions, which is possible because each header has one
    /// value.
    fn from(response: Response) -> Self {
        let (mut parts, body) = response.into_parts();
        // API Gateway sets this header itself, and a response to HEAD need not have it (RFC 9110,
        // section 8.6).
        parts.headers.remove(header::CONTENT_LENGTH);
        let mut gateway_response = ApiGatewayProxyResponse::default();
        gateway_response.status_code = parts.status.as_u16().into();
        gateway_response.headers = parts.headers;
        gateway_response.body = Some(Body::Text(body));
        Self::Response(Box::new(gateway_response))
    }
}
