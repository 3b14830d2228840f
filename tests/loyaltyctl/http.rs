//! `serve` with callers that are slow, disconnect or keep connections open.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    time::{Duration, Instant},
};

use axum::Router;
use loyalty_codes::entrypoints::http::{self, Drained, Limits};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream as Connection},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

use super::common::{
    self, PASSWORD, TestService, TestTable,
    served::{HANG_TIMEOUT, Served},
};

const SHORT: Duration = Duration::from_millis(300);

/// The demo's service over HTTP.
struct Server {
    address: std::net::SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Drained>,
    service: TestService,
    _table: TestTable,
}

impl Server {
    /// Starts a server with limits that no test reaches. `limits` can shorten some of them.
    async fn start(limits: impl FnOnce(&mut Limits)) -> Self {
        let (table, service) = common::demo().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut all = Limits { head: HANG_TIMEOUT, body: HANG_TIMEOUT, drain: HANG_TIMEOUT, connections: 64 };
        limits(&mut all);
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { stopped.await.unwrap() };
        let serving = tokio::spawn(http::serve(service.app.clone(), Router::new(), listener, all, shutdown));
        Self { address, stop: Some(stop), serving, service, _table: table }
    }

    async fn connect(&self) -> Connection {
        Connection::connect(self.address).await.unwrap()
    }

    /// Sends the head of a request for a card number. The server waits for the body of two bytes.
    async fn begin_request(&self) -> Connection {
        let mut connection = self.connect().await;
        let head = head(2).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
        connection.write_all(head.as_bytes()).await.unwrap();
        let mut bytes = [0; CONTINUE.len()];
        timeout(HANG_TIMEOUT, connection.read_exact(&mut bytes)).await.unwrap().unwrap();
        assert_eq!(bytes, CONTINUE);
        connection
    }

    /// Tells the server to end. Returns when it accepts no more connections.
    async fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        while Connection::connect(self.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    async fn drained(&mut self) -> Drained {
        timeout(HANG_TIMEOUT, &mut self.serving).await.unwrap().unwrap()
    }
}

/// The server's interim response when it reads the body of a request with `Expect: 100-continue`.
const CONTINUE: [u8; 25] = *b"HTTP/1.1 100 Continue\r\n\r\n";

/// The head of a request for a card number with a body of this many bytes.
fn head(length: usize) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let credentials = STANDARD.encode(format!("store.server:{PASSWORD}"));
    format!(
        "POST /v2/cardNumber HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {credentials}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
}

/// Reads until the server closes the connection.
async fn rest(connection: &mut Connection) -> String {
    let mut text = String::new();
    timeout(HANG_TIMEOUT, connection.read_to_string(&mut text)).await.unwrap().unwrap();
    text
}

/// Reads an answer on a connection that stays open.
async fn answer(connection: &mut Connection) -> String {
    let mut text = String::new();
    while !text.ends_with('}') {
        let mut bytes = [0; 1024];
        let count = timeout(HANG_TIMEOUT, connection.read(&mut bytes)).await.unwrap().unwrap();
        assert!(count > 0, "closed after {text}");
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_request_is_dropped_after_the_time_limit() {
    let server = Server::start(|limits| limits.head = SHORT).await;
    for half in ["", "GET /v2", "GET /v2/cardNumber HTTP/1.1\r\nHost: x\r\n"] {
        let started = Instant::now();
        let mut connection = server.connect().await;
        connection.write_all(half.as_bytes()).await.unwrap();
        assert_eq!(rest(&mut connection).await, "", "{half}");
        assert!(started.elapsed() >= SHORT, "{half}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slowly_sent_head_does_not_extend_the_time_limit() {
    let server = Server::start(|limits| limits.head = SHORT).await;
    let mut connection = server.connect().await;
    let (mut read, mut write) = connection.split();
    let trickle = async {
        write.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        while write.write_all(b"X-More: x\r\n").await.is_ok() {
            tokio::time::sleep(SHORT / 10).await;
        }
    };
    let mut byte = [0];
    let closed = async {
        tokio::select! {
            () = trickle => {}
            read = read.read(&mut byte) => assert!(!matches!(read, Ok(1..))),
        }
    };
    timeout(HANG_TIMEOUT, closed).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_slow_is_a_408_and_takes_no_number() {
    let server = Server::start(|limits| limits.body = SHORT).await;
    let mut connection = server.connect().await;
    connection.write_all(head(10).as_bytes()).await.unwrap();
    connection.write_all(b"{").await.unwrap();
    let text = rest(&mut connection).await;
    assert!(text.starts_with("HTTP/1.1 408 ") && text.contains("\"code\":408"), "{text}");
    assert!(text.contains("connection: close") && text.contains("x-request-id: "), "{text}");
    assert_eq!(server.service.card_number().await, "1000000010");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incomplete_body_is_refused_and_takes_no_number() {
    let server = Server::start(|_| {}).await;
    let mut connection = server.connect().await;
    connection.write_all(head(10).as_bytes()).await.unwrap();
    connection.shutdown().await.unwrap();
    let text = rest(&mut connection).await;
    assert!(text.is_empty() || text.starts_with("HTTP/1.1 400 "), "{text}");
    assert_eq!(server.service.card_number().await, "1000000010");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_running_is_answered_when_the_server_ends() {
    let mut server = Server::start(|_| {}).await;
    let mut connection = server.begin_request().await;
    let mut idle = server.connect().await;
    idle.write_all(format!("{}{{}}", head(2)).as_bytes()).await.unwrap();
    assert!(answer(&mut idle).await.starts_with("HTTP/1.1 200 "));
    server.stop().await;
    assert_eq!(rest(&mut idle).await, "", "an idle connection is closed at once");
    connection.write_all(b"{}").await.unwrap();
    let text = rest(&mut connection).await;
    assert!(text.starts_with("HTTP/1.1 200 ") && text.contains("\"entity\":\"100000001"), "{text}");
    let drained = server.drained().await;
    assert_eq!(drained.aborted, 0);
    assert!(!drained.time_left.is_zero());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_does_not_end_is_cut_after_the_drain_time() {
    let mut server = Server::start(|limits| limits.drain = SHORT).await;
    let mut connection = server.begin_request().await;
    server.stop().await;
    assert_eq!(server.drained().await, Drained { aborted: 1, time_left: Duration::ZERO });
    let mut byte = [0];
    assert!(!matches!(timeout(HANG_TIMEOUT, connection.read(&mut byte)).await.unwrap(), Ok(1..)));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_limit_wait() {
    let server = Server::start(|limits| limits.connections = 1).await;
    let mut first = server.connect().await;
    first.write_all(format!("{}{{}}", head(2)).as_bytes()).await.unwrap();
    answer(&mut first).await;
    let mut second = server.connect().await;
    second.write_all(format!("{}{{}}", head(2)).as_bytes()).await.unwrap();
    let mut byte = [0];
    assert!(timeout(SHORT, second.read(&mut byte)).await.is_err(), "the second connection must wait");
    drop(first);
    assert!(answer(&mut second).await.starts_with("HTTP/1.1 200 "));
}

fn signal(served: &Served, name: &str) {
    let id = served.process.id().to_string();
    assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
}

#[test]
fn a_terminated_server_exits_successfully() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["-TERM", "-INT"] {
        let mut served = Served::start(&["--db", folder.path().join("x.db").to_str().unwrap()]);
        signal(&served, name);
        assert!(served.process.wait().unwrap().success(), "{name}");
    }
}

#[test]
fn a_second_signal_ends_the_server_at_once() {
    for (name, code) in [("-TERM", 143), ("-INT", 130)] {
        let mut served = Served::start(&["--in-memory"]);
        let mut half = TcpStream::connect(served.base().strip_prefix("http://").unwrap()).unwrap();
        let head = head(2).replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
        half.write_all(head.as_bytes()).unwrap();
        half.read_exact(&mut [0; CONTINUE.len()]).unwrap();
        let started = Instant::now();
        signal(&served, "-TERM");
        served.wait_until(|line| line.contains("another signal ends the process at once"));
        assert!(served.process.try_wait().unwrap().is_none(), "the server must wait for the request");
        signal(&served, name);
        let status = served.process.wait().unwrap();
        assert_eq!(status.code(), Some(code));
        assert!(started.elapsed() < Limits::default().drain, "{:?}", started.elapsed());
    }
}
