//! The embedded DynamoDB behind a TLS endpoint, with the tests' org, till and customer.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use chrono::{DateTime, TimeDelta};
use loyalty_codes::settings::Settings;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    CONFIG,
    common::{self, TABLE, TestTable},
};

/// Trusted roots of Linux distributions: Debian's path, then Amazon Linux's.
const SYSTEM_ROOTS: [&str; 2] = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// A table with the tests' org, till and customer.
pub struct DynamoDb {
    pub table: TestTable,
    pub tls: TlsEndpoint,
}

/// A TLS endpoint before an embedded DynamoDB.
pub struct TlsEndpoint {
    pub url: String,
    /// Time of the first byte of each connection.
    connections: mpsc::UnboundedReceiver<Instant>,
    folder: TempDir,
}

impl DynamoDb {
    /// Starts the endpoint, with one OTP that is valid today.
    pub async fn start() -> Self {
        let (table, service) = common::demo_with(CONFIG).await;
        let today = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let today = DateTime::from_timestamp(today.as_secs().try_into().unwrap(), 0).unwrap();
        table.clock.advance(today - table.clock.now());
        service.issue().await;
        let tls = TlsEndpoint::start(&table.endpoint()).await;
        Self { table, tls }
    }

    pub fn settings(&self) -> Settings {
        Settings { table: TABLE.to_owned(), ca_bundle: Some(self.tls.amazon_roots()), ..Settings::default() }
    }

    /// Advances the clock by two days, so that earlier OTPs do not count in the next call.
    pub fn next_day(&self) {
        self.table.clock.advance(TimeDelta::days(2));
    }
}

impl TlsEndpoint {
    /// Starts an endpoint that passes everything on to the plain HTTP endpoint `dynamodb`.
    pub async fn start(dynamodb: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (config, root) = certificates();
        fs::write(folder.path().join("amazon-and-test.pem"), AMAZON_ROOTS.to_owned() + &root).unwrap();
        let system: String = SYSTEM_ROOTS.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap();
        fs::write(folder.path().join("system-and-test.pem"), system + &root).unwrap();

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let upstream = dynamodb.strip_prefix("http://").unwrap().to_owned();
        let (connected, connections) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            let acceptor = TlsAcceptor::from(Arc::new(config));
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(relay(stream, acceptor.clone(), upstream.clone(), connected.clone()));
            }
        });
        Self { url, connections, folder }
    }

    /// Path of a file with Amazon's roots and the root of this endpoint.
    pub fn amazon_roots(&self) -> PathBuf {
        self.folder.path().join("amazon-and-test.pem")
    }

    /// Path of a file with the operating system's roots and the root of this endpoint.
    pub fn system_roots(&self) -> PathBuf {
        self.folder.path().join("system-and-test.pem")
    }

    /// Time of the first byte of the first connection since the last call.
    pub fn first_byte(&mut self) -> Option<Instant> {
        let first = self.connections.try_recv().ok();
        while self.connections.try_recv().is_ok() {}
        first
    }
}

const AMAZON_ROOTS: &str = include_str!("../../src/amazon-roots.pem");

async fn relay(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    upstream: String,
    connected: mpsc::UnboundedSender<Instant>,
) {
    stream.set_nodelay(true).unwrap();
    let _ = stream.peek(&mut [0]).await;
    let _ = connected.send(Instant::now());
    // A killed function closes the connection at any point.
    let (Ok(mut caller), Ok(mut engine)) =
        (acceptor.accept(stream).await, TcpStream::connect(upstream).await)
    else {
        return;
    };
    engine.set_nodelay(true).unwrap();
    let _ = copy_bidirectional(&mut caller, &mut engine).await;
}

/// Creates a server certificate for `localhost` with an intermediate certificate, as DynamoDB has
/// one. Also returns the root as PEM.
fn certificates() -> (ServerConfig, String) {
    let authority = |name: &str| {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params, KeyPair::generate().unwrap())
    };
    let (root, root_key) = authority("root.test");
    let root_certificate = root.self_signed(&root_key).unwrap();
    let root = Issuer::new(root, root_key);
    let (intermediate, intermediate_key) = authority("intermediate.test");
    let intermediate_certificate = intermediate.signed_by(&intermediate_key, &root).unwrap();
    let intermediate = Issuer::new(intermediate, intermediate_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &intermediate).unwrap();

    let chain = vec![leaf.der().clone(), intermediate_certificate.der().clone()];
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    (config, root_certificate.pem())
}
