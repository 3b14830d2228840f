//! The one DynamoDB client: TLS, timeouts and retries.

use std::time::Duration;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::{
    Client,
    config::{Credentials, retry::RetryConfig, timeout::TimeoutConfig},
};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};

use super::meter::Meter;
use crate::settings::{InvalidSetting, Settings};

/// The roots that AWS endpoints chain to: Amazon Root CA 1 to 4 and Starfield Services Root CA - G2,
/// as <https://www.amazontrust.com/repository/> publishes them.
const AMAZON_ROOTS: &[u8] = include_bytes!("amazon-roots.pem");

/// Well under the ten seconds that the function has, so that a caller gets a 503 and not a cut line.
const OPERATION_TIMEOUT: Duration = Duration::from_secs(6);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const ATTEMPTS: u32 = 3;

/// A client for the DynamoDB that the SDK's own variables and files point at, or for `endpoint`.
///
/// # Errors
/// [`InvalidSetting`] when `AWS_CA_BUNDLE` cannot be read.
pub async fn connect(settings: &Settings, endpoint: Option<&str>) -> Result<Client, InvalidSetting> {
    let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http_client(settings)?);
    if let Some(endpoint) = endpoint {
        loader = loader.endpoint_url(endpoint);
    }
    Ok(from_sdk_config(&loader.load().await))
}

/// A client for a DynamoDB that asks for no real credentials: the embedded one, `DynamoDB` Local.
///
/// # Errors
/// [`InvalidSetting`] when `AWS_CA_BUNDLE` cannot be read.
pub fn connect_local(settings: &Settings, endpoint: &str) -> Result<Client, InvalidSetting> {
    let config = SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .http_client(http_client(settings)?)
        .sleep_impl(aws_smithy_async::rt::sleep::SharedAsyncSleep::new(
            aws_smithy_async::rt::sleep::TokioSleep::new(),
        ))
        .region(Region::from_static("us-east-1"))
        .credentials_provider(aws_sdk_dynamodb::config::SharedCredentialsProvider::new(
            Credentials::for_tests(),
        ))
        .endpoint_url(endpoint)
        .build();
    Ok(from_sdk_config(&config))
}

fn from_sdk_config(config: &SdkConfig) -> Client {
    let config = aws_sdk_dynamodb::config::Builder::from(config)
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        .timeout_config(
            TimeoutConfig::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .operation_attempt_timeout(ATTEMPT_TIMEOUT)
                .operation_timeout(OPERATION_TIMEOUT)
                .build(),
        )
        .interceptor(Meter)
        .build();
    Client::from_conf(config)
}

fn http_client(settings: &Settings) -> Result<aws_sdk_dynamodb::config::SharedHttpClient, InvalidSetting> {
    let invalid = |reason: String| InvalidSetting { variable: "AWS_CA_BUNDLE", reason };
    let roots = match &settings.ca_bundle {
        Some(path) => std::fs::read(path).map_err(|error| invalid(format!("{}: {error}", path.display())))?,
        None => AMAZON_ROOTS.to_vec(),
    };
    let context = TlsContext::builder()
        .with_trust_store(TrustStore::empty().with_pem_certificate(roots))
        .build()
        .map_err(|error| invalid(error.to_string()))?;
    Ok(Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).tls_context(context).build_https())
}
