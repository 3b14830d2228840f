//! Sends messages to an org's gateway, in the form of Standard Webhooks.

use std::{
    error::Error,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{
    Request, StatusCode,
    header::{CONTENT_TYPE, USER_AGENT},
    uri::{Scheme, Uri},
};
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tower_service::Service;

use super::{address::is_public, attempts::AttemptError};
use crate::{
    aws::read_ca_bundle,
    model::delivery_state::FailureReason,
    settings::{InvalidSetting, ProviderSettings, Settings},
};

/// The time for a connection to one address of a host.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);

/// The headers of a request.
pub(super) struct Headers<'a> {
    pub id: &'a str,
    /// Seconds since 1970.
    pub timestamp: i64,
    pub signatures: &'a str,
}

/// An HTTP client that connects only to public addresses, unless it may connect to any. Each
/// request has a connection of its own: a gateway may have closed an older one while the function
/// was frozen, and to use one again, the whole answer would have to be read. Cheap to clone.
#[derive(Debug, Clone)]
pub struct WebhookClient {
    client: Client<HttpsConnector<CheckedConnector>, Full<Bytes>>,
    allow_private: bool,
}

impl WebhookClient {
    /// A client that trusts public certificate authorities, or those in `AWS_CA_BUNDLE`.
    ///
    /// # Errors
    /// [`InvalidSetting`] when `AWS_CA_BUNDLE` cannot be read.
    pub fn new(settings: &Settings, providers: &ProviderSettings) -> Result<Self, InvalidSetting> {
        let roots = match &settings.ca_bundle {
            Some(path) => read_ca_bundle(path)?.1,
            None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
        };
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| InvalidSetting { variable: "AWS_CA_BUNDLE", reason: error.to_string() })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let allow_private = providers.allow_private_webhooks;
        let connector = HttpsConnector::from((CheckedConnector { allow_private }, tls));
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { client, allow_private })
    }

    /// Posts `body` to `url`, once. Follows no redirect. Returns as soon as the status of the
    /// answer is there, and reads no more of it.
    pub(super) async fn post(
        &self,
        url: &str,
        headers: &Headers<'_>,
        body: &str,
    ) -> Result<(), AttemptError> {
        let not_configured = || AttemptError::last(FailureReason::NotConfigured, "url");
        let url: Uri = url.parse().map_err(|_| not_configured())?;
        if url.scheme() != Some(&Scheme::HTTPS) && !self.allow_private {
            return Err(AttemptError::last(FailureReason::PrivateAddress, "http"));
        }
        let request = Request::post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(USER_AGENT, concat!("loyalty-codes/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", headers.id)
            .header("webhook-timestamp", headers.timestamp)
            .header("webhook-signature", headers.signatures)
            .body(Full::from(body.to_owned()))
            .map_err(|_| not_configured())?;
        let answer = self.client.request(request).await.map_err(|error| classify(&error))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let is_transient = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        let reason = FailureReason::Gateway(status.as_u16());
        Err(if is_transient { AttemptError::transient(reason, "") } else { AttemptError::last(reason, "") })
    }
}

/// Classifies an error without an answer. An error in a certificate may pass, like the others.
fn classify(error: &hyper_util::client::legacy::Error) -> AttemptError {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.downcast_ref::<PrivateAddress>().is_some() {
            return AttemptError::last(FailureReason::PrivateAddress, "");
        }
        if error.downcast_ref::<rustls::Error>().is_some() {
            return AttemptError::transient(FailureReason::Unreachable, "tls");
        }
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    AttemptError::transient(FailureReason::Unreachable, if error.is_connect() { "connect" } else { "lost" })
}

/// A host has no public address.
#[derive(Debug, thiserror::Error)]
#[error("the host has no public address")]
struct PrivateAddress;

/// Resolves hosts, and connects to their public addresses alone. What is checked is the address
/// that is connected to, so no answer of a name server can lead elsewhere.
#[derive(Debug, Clone)]
struct CheckedConnector {
    allow_private: bool,
}

type ConnectError = Box<dyn Error + Send + Sync>;

impl Service<Uri> for CheckedConnector {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        Box::pin(connect(url, self.allow_private))
    }
}

/// The addresses of a URL's host.
pub(super) async fn addresses(url: &Uri) -> io::Result<impl Iterator<Item = SocketAddr>> {
    // An IPv6 address is written in brackets.
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let default_port = if url.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
    lookup_host((host, url.port_u16().unwrap_or(default_port))).await
}

async fn connect(url: Uri, allow_private: bool) -> Result<TokioIo<TcpStream>, ConnectError> {
    let mut last_error: ConnectError = Box::new(io::Error::from(io::ErrorKind::AddrNotAvailable));
    for address in allowed(addresses(&url).await?.collect(), allow_private)? {
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(TokioIo::new(stream));
            }
            Ok(Err(error)) => last_error = Box::new(error),
            Err(elapsed) => last_error = Box::new(elapsed),
        }
    }
    Err(last_error)
}

/// The addresses of a host that may be connected to. It is refused only if none of them is public:
/// a public one that does not answer now may do so later.
fn allowed(mut addresses: Vec<SocketAddr>, allow_private: bool) -> Result<Vec<SocketAddr>, PrivateAddress> {
    let found_any = !addresses.is_empty();
    addresses.retain(|address| allow_private || is_public(address.ip()));
    if found_any && addresses.is_empty() { Err(PrivateAddress) } else { Ok(addresses) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_refused_only_if_none_of_its_addresses_is_public() {
        let check = |addresses: &[&str], allow_private| {
            let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
            allowed(addresses, allow_private).ok().map(|allowed| allowed.len())
        };
        let (public, private) = ("1.1.1.1:443", "10.0.0.1:443");
        assert_eq!(check(&[public, private], false), Some(1));
        assert_eq!(check(&[private, public], false), Some(1));
        assert_eq!(check(&[private, "[::1]:443"], false), None);
        assert_eq!(check(&[private, public], true), Some(2));
        // Nothing was found, which may be different at the next attempt.
        assert_eq!(check(&[], false), Some(0));
    }
}
