//! The Lambda function: settings, store, service, events.

use std::sync::Arc;

use lambda_http::{Error, LambdaEvent, service_fn, tower::ServiceExt};
use loyalty_codes::{
    api::App,
    clock::Clock,
    entrypoints::api_gateway::{self, TextResponse},
    logging::{self, Format, Metrics},
    settings::Settings,
    store::{self, Store, error_chain},
};

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

    let app = Arc::new(App::new(store, Clock::system()));
    let service = service_fn(move |event| {
        let app = Arc::clone(&app);
        async move { Ok::<_, Error>(TextResponse(app.handle(api_gateway::request(event)).await)) }
    });
    // What `lambda_http::run` does, with one step before it.
    let adapter = lambda_http::Adapter::from(service).map_request(|mut event: LambdaEvent<_>| {
        api_gateway::sanitize_event(&mut event.payload);
        event
    });
    lambda_runtime::run(adapter).await
}
