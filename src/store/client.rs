//! The DynamoDB client: TLS and timeouts. The retry policy is in [`retries`](super::retries).

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use aws_config::{
    BehaviorVersion, Region, SdkConfig,
    environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider},
    meta::region::ProvideRegion,
};
use aws_sdk_dynamodb::{
    Client,
    config::{SharedCredentialsProvider, SharedHttpClient, timeout::TimeoutConfig},
};
use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
use aws_smithy_http_client::{
    Connector,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::http::{SharedHttpConnector, http_client_fn};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

use super::{
    meter::Meter,
    retries::{Contention, retry_config, retry_partition},
};
#[cfg(feature = "cli")]
use crate::settings::variable;
use crate::settings::{InvalidSetting, Settings, check_region};

/// The root certificates of AWS endpoints: Amazon Root CA 1 to 4 and Starfield Services Root CA -
/// G2, from <https://www.amazontrust.com/repository/>.
const AMAZON_ROOTS: &[u8] = include_bytes!("amazon-roots.pem");

/// How long one operation may take, with all its attempts. A request makes several operations;
/// [`crate::api::Request::time_limit`] limits their total.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(6);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The timeout for a local engine. It shares the processor with its callers, so it is slow under
/// load, and there is no other node to retry on.
#[cfg(feature = "cli")]
const LOCAL_TIMEOUT: Duration = Duration::from_secs(30);

fn timeouts() -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(OPERATION_TIMEOUT)
        .build()
}

/// The function's client. Lambda passes region and credentials in environment variables. The other
/// sources that [`connect`] searches (profiles, SSO, instance metadata) are left out: they would
/// slow down every cold start and make the binary a tenth larger.
///
/// # Errors
/// [`InvalidSetting`] when `AWS_CA_BUNDLE` cannot be read or `AWS_REGION` names no region.
pub async fn connect_on_lambda(settings: &Settings) -> Result<Client, InvalidSetting> {
    let region = EnvironmentVariableRegionProvider::new().region().await;
    let region = Region::new(check_region(region.as_ref().map(Region::as_ref))?.to_owned());
    let credentials = SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new());
    let config = sdk_config(settings, region, credentials, settings.endpoint.clone())?;
    Ok(from_sdk_config(&config, timeouts()))
}

/// A client for the DynamoDB of the SDK's own configuration, or for `endpoint`.
///
/// # Errors
/// [`InvalidSetting`] when `AWS_CA_BUNDLE` cannot be read, or neither `AWS_REGION` nor the profile
/// names a region.
#[cfg(feature = "cli")]
pub async fn connect(settings: &Settings, endpoint: Option<&str>) -> Result<Client, InvalidSetting> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client(settings)?);
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    let config = loader.load().await;
    check_region(config.region().map(Region::as_ref))?;
    Ok(from_sdk_config(&config, timeouts()))
}

/// A client for a DynamoDB that does not check credentials: the embedded one or DynamoDB Local.
///
/// # Errors
/// [`InvalidSetting`] when `AWS_CA_BUNDLE` cannot be read or `AWS_REGION` names no region.
#[cfg(feature = "cli")]
pub fn connect_local(settings: &Settings, endpoint: &str) -> Result<Client, InvalidSetting> {
    // DynamoDB Local keeps the tables of each region apart.
    let region = variable("AWS_REGION")?.filter(|region| !region.is_empty());
    let region = Region::new(check_region(region.as_deref().or(Some("us-east-1")))?.to_owned());
    let credentials = SharedCredentialsProvider::new(aws_sdk_dynamodb::config::Credentials::for_tests());
    let config = sdk_config(settings, region, credentials, Some(endpoint.to_owned()))?;
    let timeouts =
        TimeoutConfig::builder().connect_timeout(LOCAL_TIMEOUT).operation_timeout(LOCAL_TIMEOUT).build();
    Ok(from_sdk_config(&config, timeouts))
}

/// A client for the DynamoDB that this process embeds. Both end together, so no response between
/// them is lost, and a transaction needs no client token to detect its own repetition.
///
/// # Errors
/// [`InvalidSetting`] when `AWS_CA_BUNDLE` cannot be read.
#[cfg(feature = "cli")]
pub fn connect_embedded(settings: &Settings, endpoint: &str) -> Result<Client, InvalidSetting> {
    let config = connect_local(settings, endpoint)?.config().to_builder();
    Ok(Client::from_conf(config.interceptor(super::tokens::StripClientRequestToken).build()))
}

fn sdk_config(
    settings: &Settings,
    region: Region,
    credentials: SharedCredentialsProvider,
    endpoint: Option<String>,
) -> Result<SdkConfig, InvalidSetting> {
    let mut config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http_client(settings)?)
        .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
        .region(region)
        .credentials_provider(credentials);
    config.set_endpoint_url(endpoint);
    Ok(config.build())
}

fn from_sdk_config(config: &SdkConfig, timeouts: TimeoutConfig) -> Client {
    let config = aws_sdk_dynamodb::config::Builder::from(config)
        .retry_config(retry_config())
        .retry_partition(retry_partition())
        .retry_classifier(Contention)
        .timeout_config(timeouts)
        .interceptor(Meter)
        .build();
    Client::from_conf(config)
}

fn http_client(settings: &Settings) -> Result<SharedHttpClient, InvalidSetting> {
    let invalid = |reason: String| InvalidSetting { variable: "AWS_CA_BUNDLE", reason };
    let roots = match &settings.ca_bundle {
        Some(path) => {
            let named = |reason: String| invalid(format!("{}: {reason}", path.display()));
            let pem = std::fs::read(path).map_err(|error| named(error.to_string()))?;
            check_roots(&pem).map_err(named)?;
            pem
        }
        None => AMAZON_ROOTS.to_vec(),
    };
    let context = TlsContext::builder()
        .with_trust_store(TrustStore::empty().with_pem_certificate(roots))
        .build()
        .map_err(|error| invalid(error.to_string()))?;
    // One connector for each pair of timeouts. `aws_smithy_http_client::Builder` is not used,
    // because it creates a second connector for validation. Each connector parses the root
    // certificates, which takes a tenth of the work of a cold start.
    let connectors = Mutex::new(HashMap::new());
    Ok(http_client_fn(move |timeouts, components| {
        let mut connectors = connectors.lock().unwrap_or_else(PoisonError::into_inner);
        let connector = connectors.entry((timeouts.connect_timeout(), timeouts.read_timeout()));
        let connector = connector.or_insert_with(|| {
            let mut builder = Connector::builder();
            builder.set_connector_settings(Some(timeouts.clone())).set_sleep_impl(components.sleep_impl());
            let builder = builder.tls_provider(Provider::Rustls(CryptoMode::Ring));
            SharedHttpConnector::new(builder.tls_context(context.clone()).build())
        });
        connector.clone()
    }))
}

/// Checks the certificates before the SDK gets them: it panics on unreadable ones, and trusts no
/// server if there are none.
fn check_roots(pem: &[u8]) -> Result<(), String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("there is no certificate in it".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amazons_roots_are_readable() {
        assert_eq!(check_roots(AMAZON_ROOTS), Ok(()));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let no_der = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
        for pem in ["", "garbage", no_der, cut] {
            assert!(check_roots(pem.as_bytes()).is_err(), "{pem}");
        }
    }
}
