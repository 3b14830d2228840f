//! The delivery function: settings, store, providers, events of the table's stream.

use lambda_runtime::{Error, LambdaEvent, service_fn};
use loyalty_codes::{
    aws,
    clock::Clock,
    delivery::{AwsClients, Deliverer, WebhookClient},
    entrypoints::stream,
    logging::{self, Format, Metrics},
    settings::{ProviderSettings, Settings},
    store::{self, Store},
};
use serde_json::value::RawValue;

// One event at a time, whose messages wait for providers: one thread is enough.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    logging::init(Format::Json(Metrics::from_env()?))?;
    let settings = Settings::from_env()?;
    let providers = ProviderSettings::from_env()?;
    let (config, connections) = aws::on_lambda(&settings).await?;
    let client = store::connect_on_lambda(&config, &connections, &settings).await;
    let store = Store::new(client, settings.table.clone());
    let webhooks = WebhookClient::new(&settings, &providers)?;

    let clients = AwsClients::new(&config, &providers);
    let deliverer = Deliverer::new(store, Clock::system(), clients, webhooks);
    let handle = async |event: LambdaEvent<Box<RawValue>>| {
        Ok::<_, Error>(stream::handle(&deliverer, event.payload.get(), event.context.deadline()).await)
    };
    lambda_runtime::run(service_fn(handle)).await
}
