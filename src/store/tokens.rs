//! Transactions without their tokens.

use aws_sdk_dynamodb::{
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextMut},
    error::BoxError,
};
use serde_json::{Map, Value};

/// Leaves out the `ClientRequestToken` that the SDK puts into every transaction. The embedded engine (dynoxide 3.2.0)
/// keeps each for ten minutes and looks through all of them at each transaction: after two minutes of load, that was
/// half of its work.
#[derive(Debug)]
pub(super) struct StripClientRequestToken;

impl Intercept for StripClientRequestToken {
    fn name(&self) -> &'static str {
        "LeaveOut"
    }

    fn modify_before_retry_loop(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let request = context.request_mut();
        let transaction = request
            .headers()
            .get("x-amz-target")
            .is_some_and(|target| target.ends_with(".TransactWriteItems"));
        if let Some(body) = request.body().bytes().filter(|_| transaction) {
            let mut body: Map<String, Value> = serde_json::from_slice(body)?;
            body.remove("ClientRequestToken");
            let body = serde_json::to_vec(&body)?;
            request.headers_mut().insert("content-length", body.len().to_string());
            *request.body_mut() = body.into();
        }
        Ok(())
    }
}
