//! The Lambda function: settings, store, service, events.

use lambda_http::{Error, LambdaEvent, service_fn};
use loyalty_codes::{
    api::{App, error::Problem, refuse},
    aws,
    clock::Clock,
    entrypoints::api_gateway::{self, FunctionResponse},
    logging::{self, Format, Metrics},
    settings::Settings,
    store::{self, Store, error_chain},
};
use serde_json::value::RawValue;

// Lambda sends one event at a time to an environment, so one thread is enough.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    logging::init(Format::Json(Metrics::from_env()?))?;
    let settings = Settings::from_env()?;
    let (config, connections) = aws::on_lambda(&settings).await?;
    let client = store::connect_on_lambda(&config, &connections, &settings).await;
    let store = Store::new(client, settings.table);

    let app = App::new(store, Clock::system()).with_base_path(settings.base_path);
    let handle = async |LambdaEvent { payload, context }: LambdaEvent<Box<RawValue>>| {
        let request_id = &context.request_id;
        Ok::<_, Error>(match api_gateway::request(payload.get(), &context) {
            Ok(Some(request)) => app.handle(request).await.into(),
            Ok(None) => {
                tracing::info!(request_id, "ignored an event that is not of API Gateway");
                FunctionResponse::Ignored {}
            }
            Err(error) => {
                tracing::warn!(
                    request_id,
                    cause = error_chain(&error),
                    "cannot read an event of API Gateway"
                );
                refuse(Problem::RequestUnreadable, request_id).into()
            }
        })
    };
    lambda_runtime::run(service_fn(handle)).await
}
