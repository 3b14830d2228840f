//! `loyaltyctl serve`.

use std::{
    env,
    future::Future,
    io,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    process,
    sync::Arc,
};

use clap::Args;
use loyalty_codes::{
    api::App,
    clock::Clock,
    embedded::Storage,
    entrypoints::http::{self, Drained, Limits},
    logging::{self, Format},
    store::{Store, Stream, connect_embedded},
};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};

use crate::{
    Target, audit,
    console::{self, Activity, Console, Erasures},
    delivery::{self, Deliveries, Delivery, Needs},
    demo,
    engine::Engine,
    failure::Failure,
    output::{Output, line, printable},
    reference,
    support::Settle,
};

#[derive(Args)]
pub struct Options {
    /// Where to listen for callers
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "ADDRESS")]
    listen: SocketAddr,

    /// The file that the embedded DynamoDB keeps its tables in; survives a restart and a kill
    /// [default: .local/dynamodb.db]
    #[arg(long, value_name = "PATH", conflicts_with = "in_memory")]
    db: Option<PathBuf>,

    /// Keep the tables in memory; they are lost when the process ends
    #[arg(long)]
    in_memory: bool,

    /// Where the embedded DynamoDB listens for other tools [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    dynamodb_listen: Option<SocketAddr>,

    /// Prepare the org of the documentation with a till and a customer, and print requests to paste
    #[arg(long)]
    demo: bool,

    /// Deliver OTP messages [default with --demo: console; otherwise they are stored and not
    /// delivered]
    #[arg(long, value_name = "HOW")]
    deliver: Option<Delivery>,

    #[command(flatten)]
    settle: Settle,
}

const DEFAULT_DB: &str = ".local/dynamodb.db";

impl Options {
    /// Refuses `--endpoint` with options that are only for an embedded DynamoDB. The demo's
    /// customer and password do not belong in a real one.
    fn check(&self, target: &Target) -> Result<(), Failure> {
        let embedded_only = [
            ("--db", self.db.is_some()),
            ("--in-memory", self.in_memory),
            ("--dynamodb-listen", self.dynamodb_listen.is_some()),
            ("--demo", self.demo),
        ];
        match embedded_only.iter().find(|(_, given)| *given && target.endpoint.is_some()) {
            Some((option, _)) => Err(Failure::usage(format!("{option} cannot be used with --endpoint"))),
            None => Ok(()),
        }
    }

    fn storage(&self) -> Storage {
        if self.in_memory {
            Storage::Memory
        } else {
            Storage::File(self.db.clone().unwrap_or_else(|| PathBuf::from(DEFAULT_DB)))
        }
    }
}

pub async fn run(target: &Target, options: &Options, output: &Output) -> Result<(), Failure> {
    options.check(target)?;
    if output.json() {
        return Err(Failure::usage("--json cannot be used with serve, which prints no result"));
    }
    logging::init(Format::Text { ansi: output.colours() })?;
    // Binds first, so that nothing else happens if the address is taken.
    let listener = TcpListener::bind(options.listen)
        .await
        .map_err(|error| Failure::failed(format!("cannot listen on {}: {error}", options.listen)))?;
    let address = listener.local_addr().map_err(|error| Failure::failed(error.to_string()))?;
    let base = format!("http://{address}");

    let storage = options.storage();
    let (store, embedded) = if target.endpoint.is_some() {
        (target.store().await?, None)
    } else {
        let (store, embedded) = embed(target, options, &storage).await?;
        (store, Some(embedded))
    };
    let mut app = App::new(store.clone(), Clock::system()).with_base_path(target.settings()?.base_path);
    let how = options.deliver.or_else(|| options.demo.then_some(Delivery::Console));
    let deliveries = match how {
        Some(how) => {
            let needs = Needs { private_webhooks: true, aws: false };
            let deliveries = Deliveries::start(delivery::deliverer(target, store.clone(), how, needs).await?);
            app = app.with_message_listener(deliveries.listener());
            Some(deliveries)
        }
        None => None,
    };
    let console = if options.demo && address.ip().is_loopback() {
        let activity = Arc::new(Activity::default());
        let console = Console::of_serve(
            store.clone(),
            audit::local_user(),
            address,
            Arc::clone(&activity),
            options.settle.time(),
        );
        app = app.with_request_listener(move |request| activity.record(request));
        Some(Arc::new(console))
    } else {
        None
    };
    let app = Arc::new(app);
    let requests = if options.demo {
        let password_file = match &storage {
            Storage::File(db) => Some(db.with_extension("demo-password")),
            Storage::Memory => None,
        };
        let password = demo::prepare(&app, &store, password_file.as_deref()).await?;
        Some(demo::requests(&base, &password))
    } else {
        store.check_readable().await?;
        None
    };
    let erasures = console.as_ref().map(|console| console.erasures().clone());
    let at_second = move || erasures.iter().for_each(Erasures::print_unfinished);
    let shutdown = shutdown(at_second).map_err(|error| Failure::failed(error.to_string()))?;
    announce(&base, &store, embedded.as_ref(), &storage)?;
    if let Some(console) = &console {
        line(&format!("The console is at {}", console.url()))?;
    } else if options.demo {
        line(
            "There is no console, because other machines reach this address: `loyaltyctl console` serves it",
        )?;
    }
    if let Some(requests) = requests {
        line(&format!("\nTo paste into another terminal:\n\n{requests}"))?;
        if let (Some(embedded), Ok(program)) = (&embedded, env::current_exe()) {
            let (program, endpoint) = (program.display(), embedded.endpoint());
            line(&printable(&format!("alias loyaltyctl='\"{program}\" --endpoint {endpoint}'")))?;
        }
    }

    let mut pages = reference::routes();
    if let Some(console) = &console {
        pages = pages.nest_service(console::HOME.trim_end_matches('/'), console::nested(console));
    }
    let Drained { aborted, time_left } = http::serve(app, pages, listener, Limits::default(), shutdown).await;
    if aborted > 0 {
        tracing::warn!(
            connections = aborted,
            "connections were closed, because their requests did not end in time"
        );
    }
    if let Some(deliveries) = deliveries {
        deliveries.finish(time_left).await;
    }
    let erased = match &console {
        Some(console) => console.erasures().finish().await,
        None => Ok(()),
    };
    if let Some(embedded) = embedded {
        // Its own callers can delay it, too.
        embedded.stop(time_left).await?;
    }
    erased
}

/// An embedded DynamoDB with the table in it.
async fn embed(target: &Target, options: &Options, storage: &Storage) -> Result<(Store, Engine), Failure> {
    let address = options.dynamodb_listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into());
    let embedded = Engine::start(storage, address).await?;
    let settings = target.settings()?;
    let client = connect_embedded(&settings, &embedded.own_endpoint())?;
    let store = Store::new(client, settings.table);
    store.create_table(Stream::None).await?;
    Ok((store, embedded))
}

fn announce(base: &str, store: &Store, embedded: Option<&Engine>, storage: &Storage) -> Result<(), Failure> {
    line(&format!("loyalty-codes listens on {base}"))?;
    line(&format!("The reference, to read and to try out, is at {base}{}", reference::PAGE))?;
    if let Some(embedded) = embedded {
        let place = match storage {
            Storage::Memory => "memory".to_owned(),
            Storage::File(db) => db.display().to_string(),
        };
        line(&format!(
            "DynamoDB listens on {} (table {}, kept in {})",
            embedded.endpoint(),
            store.table(),
            printable(&place)
        ))?;
    }
    Ok(())
}

/// Installs signal handlers. The first signal resolves the returned future instead of ending the
/// process. A second signal calls `at_second` and ends the process at once, with the exit code that
/// shells have for the signal.
pub fn shutdown(at_second: impl FnOnce() + Send + 'static) -> io::Result<impl Future<Output = ()> + Send> {
    let mut signals = Signals::new()?;
    Ok(async move {
        signals.next().await;
        tracing::info!(
            "shutting down when the running requests are finished; another signal ends the process at once"
        );
        tokio::spawn(async move {
            let signal = signals.next().await;
            at_second();
            process::exit(128 + signal.as_raw_value())
        });
    })
}

/// The signals that end a process.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Installs handlers, so that the signals do not end the process by themselves any more.
    pub fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for a signal.
    pub async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        }
    }
}
