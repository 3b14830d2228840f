//! API Gateway events as requests. `lambda_http` has parsed them; what is left is to undo what a
//! stage and the payload versions do to the path, and to choose the request id.

use std::{
    collections::HashMap,
    future::{Future, ready},
    pin::Pin,
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose};
use bytes::Bytes;
use http::header;
use lambda_http::{
    Body, IntoResponse, RequestExt,
    aws_lambda_events::query_map::QueryMap,
    request::{LambdaRequest, RequestContext},
};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use crate::api::{Request, Response, TIME_LIMIT};

/// The request that an event of an HTTP API (payload 2.0) or a REST API (payload 1.0) carries.
#[must_use]
pub fn request(event: lambda_http::Request) -> Request {
    // Only an HTTP API puts the name of a stage before the path.
    let (stage, gateway_id) = match event.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => (context.stage.clone(), context.request_id.clone()),
        Some(RequestContext::ApiGatewayV1(context)) => (None, context.request_id.clone()),
        _ => (None, None),
    };
    let context = event.lambda_context_ref();
    let lambda_id = context.map(|context| context.request_id.clone());
    // Lambda sends nothing after its deadline. One in the past is no deadline: `cargo lambda watch` sends such.
    let time_left = context.and_then(|context| context.deadline().duration_since(SystemTime::now()).ok());
    let path = without_stage(event.raw_http_path(), stage.as_deref()).to_owned();
    let query = event.uri().query().unwrap_or_default().to_owned();
    let (parts, body) = event.into_parts();
    Request {
        method: parts.method,
        path,
        query,
        headers: parts.headers,
        body: match body {
            Body::Text(text) => Bytes::from(text),
            Body::Binary(bytes) => Bytes::from(bytes),
            _ => Bytes::new(),
        },
        request_id: gateway_id.or(lambda_id).unwrap_or_default(),
        time_limit: time_left.map_or(TIME_LIMIT, |left| left.saturating_sub(TIME_TO_ANSWER)),
    }
}

/// An answer on its way to Lambda. It is text for sure, so nothing of `lambda_http` that would find that out, with the
/// character sets of the world, is in the binary.
#[derive(Debug)]
pub struct TextResponse(pub Response);

impl IntoResponse for TextResponse {
    fn into_response(self) -> Pin<Box<dyn Future<Output = http::Response<Body>> + Send>> {
        Box::pin(ready(self.0.map(Body::Text)))
    }
}

/// What remains of the function's time when it stops waiting for DynamoDB: enough to answer and log.
const TIME_TO_ANSWER: Duration = Duration::from_millis(500);

/// Makes an event fit for `lambda_http`, which panics on what no URI can hold, on a body that is not the Base64 that it is said
/// to be, and on a parameter without a value. The first callers do send in a query, and API Gateway hands the query on as
/// it came; the rest API Gateway does not do. The host is of no interest here.
pub fn sanitize_event(event: &mut LambdaRequest) {
    match event {
        LambdaRequest::ApiGatewayV2(event) => {
            let parts = [&event.raw_path, &event.raw_query_string, &event.request_context.stage];
            if parts.into_iter().flatten().map(String::len).sum::<usize>() > MAX_TARGET_LENGTH {
                event.raw_path = None;
                event.raw_query_string = None;
                event.request_context.stage = None;
            }
            event.is_base64_encoded = event.is_base64_encoded && is_base64(event.body.as_deref());
            event.headers.remove(header::HOST);
            event.request_context.domain_name = None;
            event.raw_path = event.raw_path.take().map(|path| absolute(&path));
            if let Some(query) = &mut event.raw_query_string {
                *query = utf8_percent_encode(query, NOT_IN_QUERY).to_string();
            }
        }
        LambdaRequest::ApiGatewayV1(event) => {
            let parts = [&event.path, &event.request_context.stage];
            let length: usize = parts.into_iter().flatten().map(String::len).sum();
            for query in [&mut event.query_string_parameters, &mut event.multi_value_query_string_parameters]
            {
                *query = with_values(query);
            }
            let queries = [&event.query_string_parameters, &event.multi_value_query_string_parameters];
            let pairs = queries.into_iter().flat_map(QueryMap::iter);
            if length + pairs.map(|(name, value)| name.len() + value.len() + 2).sum::<usize>()
                > MAX_TARGET_LENGTH
            {
                event.path = None;
                event.query_string_parameters = QueryMap::default();
                event.multi_value_query_string_parameters = QueryMap::default();
                event.request_context.stage = None;
            }
            event.is_base64_encoded = event.is_base64_encoded && is_base64(event.body.as_deref());
            event.headers.remove(header::HOST);
            event.multi_value_headers.remove(header::HOST);
            event.request_context.domain_name = None;
            event.path = event.path.take().map(|path| absolute(&path));
        }
        _ => {}
    }
}

/// The longest path with its query, in bytes; a longer one leads nowhere. API Gateway takes 10,240 bytes with the headers,
/// and a URI holds 64 KiB of what may become three bytes each.
const MAX_TARGET_LENGTH: usize = 16 * 1024;

/// The parameters that have a value. Whoever iterates over one without any panics.
fn with_values(query: &QueryMap) -> QueryMap {
    let pairs = serde_json::to_value(query).and_then(serde_json::from_value::<HashMap<String, Vec<String>>>);
    let mut pairs = pairs.unwrap_or_default();
    pairs.retain(|_, values| !values.is_empty());
    pairs.into()
}

fn is_base64(body: Option<&str>) -> bool {
    body.is_none_or(|body| general_purpose::STANDARD.decode(body).is_ok())
}

/// What `http::Uri` refuses in a query, and `#`, which would end it. Everything else stays as it is.
const NOT_IN_QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');

/// A path without a slash before it would be read as part of the host.
fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn without_stage<'a>(path: &'a str, stage: Option<&str>) -> &'a str {
    stage
        .and_then(|stage| path.strip_prefix('/')?.strip_prefix(stage))
        .filter(|rest| rest.starts_with('/'))
        .unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::without_stage;

    #[test]
    fn the_stage_is_no_part_of_the_path() {
        assert_eq!(without_stage("/prod/v2/otp", Some("prod")), "/v2/otp");
        assert_eq!(without_stage("/v2/otp", Some("prod")), "/v2/otp");
        assert_eq!(without_stage("/production/v2", Some("prod")), "/production/v2");
        assert_eq!(without_stage("/v2/otp", Some("$default")), "/v2/otp");
        assert_eq!(without_stage("/v2/otp", None), "/v2/otp");
    }
}
