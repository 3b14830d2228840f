//! What all clients of AWS share: region, credentials, trusted roots and connections.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aws_config::{
    BehaviorVersion, Region, SdkConfig,
    environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider},
    meta::region::ProvideRegion,
};
use aws_sdk_dynamodb::config::SharedCredentialsProvider;
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_http_client::{
    Connector,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        http::{HttpClient, HttpConnector, HttpConnectorSettings, SharedHttpConnector},
        orchestrator::HttpRequest,
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::byte_stream::ByteStream;
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::time::timeout;

use crate::settings::{InvalidSetting, Settings, check_region};
#[cfg(feature = "cli")]
use crate::{
    aws_call::{CallError, call},
    settings::variable,
};

/// The root certificates of AWS endpoints: Amazon Root CA 1 to 4 and Starfield Services Root CA -
/// G2, from <https://www.amazontrust.com/repository/>.
const AMAZON_ROOTS: &[u8] = include_bytes!("amazon-roots.pem");

/// The configuration of a function, and its connections. Lambda passes region and credentials in
/// environment variables. The other sources that [`of_operator`] searches (profiles, SSO, instance
/// metadata) are left out: they would slow down every cold start and make the binary a tenth
/// larger.
///
/// # Errors
/// [`InvalidSetting`] when `AWS_CA_BUNDLE` cannot be read or `AWS_REGION` names no region.
pub async fn on_lambda(settings: &Settings) -> Result<(SdkConfig, Connections), InvalidSetting> {
    let region = EnvironmentVariableRegionProvider::new().region().await;
    let region = Region::new(check_region(region.as_ref().map(Region::as_ref))?.to_owned());
    let credentials = SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new());
    let connections = Connections::new(settings)?;
    Ok((sdk_config(connections.clone(), region, credentials), connections))
}

/// The SDK's own configuration, with `endpoint` instead of those of the region.
///
/// # Errors
/// [`InvalidSetting`] when `AWS_CA_BUNDLE` cannot be read, or neither `AWS_REGION` nor the profile
/// names a region.
#[cfg(feature = "cli")]
pub async fn of_operator(settings: &Settings, endpoint: Option<&str>) -> Result<SdkConfig, InvalidSetting> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(Connections::new(settings)?);
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let config = loader.load().await;
    check_region(config.region().map(Region::as_ref))?;
    Ok(config)
}

/// The configuration for services that do not check credentials, such as DynamoDB Local.
///
/// # Errors
/// [`InvalidSetting`] when `AWS_CA_BUNDLE` cannot be read or `AWS_REGION` names no region.
#[cfg(feature = "cli")]
pub fn for_local(settings: &Settings) -> Result<SdkConfig, InvalidSetting> {
    // DynamoDB Local keeps the tables of each region apart.
    let region = variable("AWS_REGION")?.filter(|region| !region.is_empty());
    let region = Region::new(check_region(region.as_deref().or(Some("us-east-1")))?.to_owned());
    let credentials = SharedCredentialsProvider::new(aws_sdk_dynamodb::config::Credentials::for_tests());
    Ok(sdk_config(Connections::new(settings)?, region, credentials))
}

/// The ARN of the AWS identity that the SDK's own configuration gives. `None` if AWS does not say.
#[cfg(feature = "cli")]
pub async fn caller_identity(settings: &Settings) -> Option<String> {
    let config = of_operator(settings, None).await.ok()?;
    aws_sdk_sts::Client::new(&config).get_caller_identity().send().await.ok()?.arn
}

/// The same, with the reason if AWS does not say. Anybody may ask for their own identity.
///
/// # Errors
/// [`CallError`] when there are no credentials, or AWS does not accept them or does not answer.
#[cfg(feature = "cli")]
pub async fn identify(config: &SdkConfig) -> Result<String, CallError> {
    let identity = call(aws_sdk_sts::Client::new(config).get_caller_identity().send()).await?;
    Ok(identity.arn.unwrap_or_default())
}

fn sdk_config(connections: Connections, region: Region, credentials: SharedCredentialsProvider) -> SdkConfig {
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(connections)
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .region(region)
        .credentials_provider(credentials)
        .build()
}

/// The connections of a process to AWS, with one connector for each pair of timeouts. Clones share
/// them. `aws_smithy_http_client::Builder` is not used, because it creates a second connector for
/// validation. Each connector parses the root certificates, which takes a tenth of the work of a
/// cold start.
#[derive(Debug, Clone)]
pub struct Connections {
    context: TlsContext,
    connectors: Arc<Mutex<HashMap<Timeouts, SharedHttpConnector>>>,
}

/// The timeouts of connecting and of reading.
type Timeouts = (Option<Duration>, Option<Duration>);

impl Connections {
    fn new(settings: &Settings) -> Result<Self, InvalidSetting> {
        let roots = match &settings.ca_bundle {
            Some(path) => read_ca_bundle(path)?.0,
            None => AMAZON_ROOTS.to_vec(),
        };
        let context = TlsContext::builder()
            .with_trust_store(TrustStore::empty().with_pem_certificate(roots))
            .build()
            .map_err(|error| InvalidSetting { variable: "AWS_CA_BUNDLE", reason: error.to_string() })?;
        Ok(Self { context, connectors: Arc::default() })
    }

    fn connector(&self, settings: &HttpConnectorSettings) -> SharedHttpConnector {
        let mut connectors = self.connectors.lock().unwrap_or_else(PoisonError::into_inner);
        let connector = connectors.entry((settings.connect_timeout(), settings.read_timeout()));
        let connector = connector.or_insert_with(|| {
            let mut builder = Connector::builder();
            builder.set_connector_settings(Some(settings.clone()));
            let builder = builder.tls_provider(Provider::Rustls(CryptoMode::Ring));
            SharedHttpConnector::new(builder.tls_context(self.context.clone()).build())
        });
        connector.clone()
    }

    /// Opens a connection to `url` by a request without credentials, whatever its answer is. The
    /// next request of a client with this timeout for connecting uses it. DynamoDB answers such a
    /// request with `healthy`, and keeps the connection open.
    ///
    /// # Errors
    /// When there is no answer within `limit`.
    pub(crate) async fn open(
        &self,
        url: &str,
        connect_timeout: Duration,
        limit: Duration,
    ) -> Result<(), BoxError> {
        let settings = HttpConnectorSettings::builder().connect_timeout(connect_timeout).build();
        let request = HttpRequest::get(url)?;
        timeout(limit, async {
            let answer = self.connector(&settings).call(request).await?;
            // Only after its whole answer can a connection be used again.
            ByteStream::new(answer.into_body()).collect().await?;
            Ok(())
        })
        .await?
    }
}

impl HttpClient for Connections {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        self.connector(settings)
    }
}

/// Reads `AWS_CA_BUNDLE`: the file, and the certificates in it. They are checked before the SDK
/// gets them: it panics on unreadable ones, and trusts no server if there are none.
///
/// # Errors
/// [`InvalidSetting`] when the file cannot be read or contains no valid certificate.
pub(crate) fn read_ca_bundle(path: &Path) -> Result<(Vec<u8>, RootCertStore), InvalidSetting> {
    let invalid = |reason: String| InvalidSetting {
        variable: "AWS_CA_BUNDLE",
        reason: format!("{}: {reason}", path.display()),
    };
    let pem = std::fs::read(path).map_err(|error| invalid(error.to_string()))?;
    let roots = parse_roots(&pem).map_err(invalid)?;
    Ok((pem, roots))
}

fn parse_roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(roots) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amazons_roots_are_readable() {
        assert_eq!(parse_roots(AMAZON_ROOTS).map(|roots| roots.len()), Ok(5));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let no_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        for pem in ["", "garbage", no_der, cut] {
            assert!(parse_roots(pem.as_bytes()).is_err(), "{pem}");
        }
    }
}
