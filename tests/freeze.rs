//! Freezes the Lambda binary between two events, as Lambda does, while its connections to DynamoDB
//! are lost.
#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]

mod common;

use std::{
    fs,
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    events::{function_environment, read},
    runtime_api::{HANG_TIMEOUT, Runtime, RuntimeCall},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::broadcast,
};

/// How connections are lost while the function is frozen.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// They are closed, as DynamoDB closes idle connections.
    Close,
    Reset,
    /// They stay open without answers, as behind a gateway that has dropped their state.
    Silence,
}

/// Forwards connections until they are cut. It forwards connections that are made after the cut.
struct Wire {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    cuts: broadcast::Sender<Cut>,
}

impl Wire {
    async fn to(endpoint: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, target) = (listener.local_addr().unwrap(), endpoint.replace("http://", ""));
        let (cuts, _) = broadcast::channel(4);
        let connections = cuts.clone();
        let accepted = Arc::<AtomicUsize>::default();
        let counter = Arc::clone(&accepted);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                counter.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(pass_on(near, target.clone(), connections.subscribe()));
            }
        });
        Self { address, accepted, cuts }
    }

    /// Cuts all open connections and returns their number.
    fn cut(&self, cut: Cut) -> usize {
        self.cuts.send(cut).unwrap_or_default()
    }
}

async fn pass_on(mut near: TcpStream, target: String, mut cuts: broadcast::Receiver<Cut>) {
    let mut far = TcpStream::connect(target).await.unwrap();
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        cut = cuts.recv() => match cut {
            Ok(Cut::Silence) => std::future::pending().await,
            Ok(Cut::Reset) => near.set_zero_linger().unwrap(),
            Ok(Cut::Close) | Err(_) => {}
        }
    }
}

/// Sends a signal to the function, and waits until it is stopped or running.
async fn signal(function: &Child, name: &str, stopped: bool) {
    let id = function.id().unwrap().to_string();
    assert!(Command::new("kill").args([name, &id]).status().await.unwrap().success());
    let sent = Instant::now();
    loop {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
        // The state follows the program's name in parentheses.
        if stat.rsplit(") ").next().unwrap().starts_with('T') == stopped {
            return;
        }
        assert!(sent.elapsed() < HANG_TIMEOUT, "{stat}");
        tokio::task::yield_now().await;
    }
}

/// Timeout of one attempt of a DynamoDB call.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Returns the time to the first answer after a freeze. The answer must be right.
async fn first_answer_after(cut: Cut) -> Duration {
    let (table, _service) = common::demo().await;
    let wire = Wire::to(&table.endpoint()).await;
    let mut runtime = Runtime::start().await;
    let dynamodb = format!("http://{}", wire.address);
    let mut command = runtime.function(env!("CARGO_BIN_EXE_loyalty-codes"));
    command.envs(function_environment(&dynamodb, table.name())).stdout(Stdio::null());
    let function = command.spawn().unwrap();
    assert_eq!(runtime.invoke(read("card-number-get", "v2")).await["statusCode"], 200);
    assert_eq!(runtime.next_call().await, RuntimeCall::Next);

    signal(&function, "-STOP", true).await;
    assert_eq!(wire.accepted.load(Ordering::Relaxed), 1, "the request uses the connection of init");
    assert_eq!(wire.cut(cut), 1, "the function keeps it open");
    // The freeze lasts longer than the attempt timeout, in real time. A timer that started before
    // it has expired afterwards.
    tokio::time::sleep(ATTEMPT_TIMEOUT + Duration::from_millis(500)).await;
    runtime.set_deadline(Duration::from_secs(10));
    runtime.send(read("card-number-get", "v2"));
    let thawed = Instant::now();
    signal(&function, "-CONT", false).await;
    let (answered, call) = runtime.next_call_at().await;
    let RuntimeCall::Response(answer) = call else { panic!("{cut:?}: {call:?}") };
    assert!(answer.contains(r#""statusCode":200"#), "{cut:?}: {answer}");
    assert_eq!(runtime.invoke(read("card-number-get", "v2")).await["statusCode"], 200, "{cut:?}");
    answered - thawed
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_closed_during_a_freeze_cost_no_timeout() {
    for cut in [Cut::Close, Cut::Reset] {
        let took = first_answer_after(cut).await;
        assert!(took < ATTEMPT_TIMEOUT, "{cut:?}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_dropped_silently_during_a_freeze_costs_one_attempt() {
    let took = first_answer_after(Cut::Silence).await;
    assert!(took < ATTEMPT_TIMEOUT * 2, "{took:?}");
}
