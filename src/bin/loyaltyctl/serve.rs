//! `loyaltyctl serve`.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use clap::Args;
use console::Term;
use loyalty_codes::{
    api::App,
    clock::Clock,
    embedded::{Embedded, Storage},
    logging::{self, Format},
    store::{Store, connect_local},
};
use tokio::net::TcpListener;

use crate::{Target, demo, failure::Failure, http, output::line};

#[derive(Args)]
pub struct Options {
    /// Where to listen for callers
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// The file that the embedded DynamoDB keeps its tables in; survives a restart and a kill
    #[arg(long, default_value = ".local/dynamodb.db", value_name = "PATH", conflicts_with_all = ["in_memory", "endpoint"])]
    db: PathBuf,

    /// Keep the tables in memory: gone with the process
    #[arg(long, conflicts_with = "endpoint")]
    in_memory: bool,

    /// Where the embedded DynamoDB listens for other tools [default: a free port]
    #[arg(
        long,
        default_value = "127.0.0.1:0",
        hide_default_value = true,
        value_name = "ADDRESS",
        conflicts_with = "endpoint"
    )]
    dynamodb_listen: SocketAddr,

    /// Prepare the org of the documents with a till and a customer, and print requests to paste
    #[arg(long, conflicts_with = "endpoint")]
    demo: bool,
}

pub async fn run(target: &Target, options: &Options) -> Result<(), Failure> {
    logging::init(Format::Text { ansi: Term::stdout().is_term() })?;
    // First of all: an address that is taken should cost nothing else.
    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|error| Failure::failed(format!("cannot listen on {}: {error}", options.listen)))?;
    let base = listener.local_addr().map(|address| format!("http://{address}"));
    let base = base.map_err(|error| Failure::failed(error.to_string()))?;

    let (store, embedded) = if target.endpoint.is_some() {
        (target.store().await?, None)
    } else {
        let (store, embedded) = embed(target, options).await?;
        (store, Some(embedded))
    };
    let app = Arc::new(App::new(store.clone(), Clock::system()));
    let requests = if options.demo {
        let file = (!options.in_memory).then(|| options.db.with_extension("demo-password"));
        let password = demo::prepare(&app, &store, file.as_deref()).await?;
        Some(demo::requests(&base, &password))
    } else {
        store.warm().await?;
        None
    };
    announce(&base, &store, embedded.as_ref(), options);
    if let Some(requests) = requests {
        line(&format!("\nTo paste into another terminal:\n\n{requests}"));
    }

    let served = http::serve(app, listener, shutdown()).await;
    if let Some(embedded) = embedded {
        embedded.stop().await?;
    }
    served.map_err(|error| Failure::failed(error.to_string()))
}

/// An embedded DynamoDB with the table in it.
async fn embed(target: &Target, options: &Options) -> Result<(Store, Embedded), Failure> {
    let storage = if options.in_memory { Storage::Memory } else { Storage::File(options.db.clone()) };
    let embedded = Embedded::start(&storage, options.dynamodb_listen).await?;
    let settings = target.settings()?;
    let client = connect_local(&settings, &embedded.endpoint())?;
    let store = Store::new(client, settings.table);
    store.create_table().await?;
    Ok((store, embedded))
}

fn announce(base: &str, store: &Store, embedded: Option<&Embedded>, options: &Options) {
    line(&format!("loyalty-codes listens on {base}"));
    if let Some(embedded) = embedded {
        let place = if options.in_memory { "memory".to_owned() } else { options.db.display().to_string() };
        line(&format!(
            "DynamoDB listens on {} (table {}, kept in {place})",
            embedded.endpoint(),
            store.table()
        ));
    }
}

/// Resolves when the process is asked to end.
async fn shutdown() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        }
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be handled");
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
