//! API Gateway events as requests. `lambda_http` has parsed them; what is left is to undo what a
//! stage and the payload versions do to the path, and to choose the request id.

use bytes::Bytes;
use lambda_http::{Body, RequestExt, request::RequestContext};

use crate::api::Request;

/// The request that an event of an HTTP API (payload 2.0) or a REST API (payload 1.0) carries.
#[must_use]
pub fn request(event: lambda_http::Request) -> Request {
    let (stage, gateway_id) = match event.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => (context.stage.clone(), context.request_id.clone()),
        Some(RequestContext::ApiGatewayV1(context)) => (context.stage.clone(), context.request_id.clone()),
        _ => (None, None),
    };
    let lambda_id = event.lambda_context_ref().map(|context| context.request_id.clone());
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
    }
}

/// An HTTP API puts the name of a stage before the path; a REST API does not.
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
