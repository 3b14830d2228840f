//! Removes the client token from transactions to the embedded engine.

use aws_sdk_dynamodb::{
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextMut},
    error::BoxError,
};
use serde_json::{Map, Value};

/// Removes the `ClientRequestToken` that the SDK puts into every transaction. The embedded engine
/// (dynoxide 3.2.0) keeps each token for ten minutes and scans all of them in each transaction.
/// After two minutes of load, the scan was half of the engine's work.
#[derive(Debug)]
pub(super) struct StripClientRequestToken;

impl Intercept for StripClientRequestToken {
    fn name(&self) -> &'static str {
        "StripClientRequestToken"
    }

    fn modify_before_retry_loop(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let target = context.request().headers().get("x-amz-target");
        if target.is_some_and(|target| target.ends_with(".TransactWriteItems")) {
            edit_body(context, |body| {
                body.remove("ClientRequestToken");
            })?;
        }
        Ok(())
    }
}

/// Changes the JSON body of a request that is about to be signed.
///
/// # Errors
/// When the body is not a JSON object.
pub fn edit_body(
    context: &mut BeforeTransmitInterceptorContextMut<'_>,
    edit: impl FnOnce(&mut Map<String, Value>),
) -> Result<(), BoxError> {
    let request = context.request_mut();
    let mut body = serde_json::from_slice(request.body().bytes().unwrap_or_default())?;
    edit(&mut body);
    let body = serde_json::to_vec(&body)?;
    request.headers_mut().insert("content-length", body.len().to_string());
    *request.body_mut() = body.into();
    Ok(())
}
