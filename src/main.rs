//! The Lambda function: settings, store, service, events.

use lambda_http::{Error, LambdaEvent, service_fn};
use loyalty_codes::{
    api::App,
    clock::Clock,
    entrypoints::api_gateway::{self, Answer},
    logging::{self, Format, Metrics},
    settings::Settings,
    store::{self, Store, error_chain},
};
use serde_json::value::RawValue;

// One event at a time is all that a function's environment gets: one thread serves it.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    logging::init(Format::Json(Metrics::from_env()?))?;
    let settings = Settings::from_env()?;
    let store = Store::new(store::connect_on_lambda(&settings).await?, settings.table);

    // During init, so that the first caller does not wait for TLS. The first request tries again anyway.
    if let Err(error) = store.warm().await {
        tracing::warn!(cause = error_chain(&error), "DynamoDB cannot be reached yet");
    }

    let app = App::new(store, Clock::system()).with_base_path(settings.base_path);
    let answer = async |LambdaEvent { payload, context }: LambdaEvent<Box<RawValue>>| {
        let Some(request) = api_gateway::request(payload.get(), &context) else {
            tracing::info!(request_id = context.request_id, "ignored an event that is not of API Gateway");
            return Ok::<_, Error>(Answer::Nothing {});
        };
        Ok(app.handle(request).await.into())
    };
    lambda_runtime::run(service_fn(answer)).await
}
