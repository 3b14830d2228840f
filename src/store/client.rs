//! The DynamoDB client and its timeouts. The retry policy is in [`retries`](super::retries).

use std::time::Duration;

use aws_config::{Region, SdkConfig};
use aws_sdk_dynamodb::{Client, config::timeout::TimeoutConfig};

use super::{
    error_chain,
    meter::Meter,
    retries::{Contention, retry_config, retry_partition},
};
#[cfg(feature = "cli")]
use crate::{aws, settings::InvalidSetting};
use crate::{aws::Connections, settings::Settings};

/// How long one operation may take, with all its attempts. A request makes several operations;
/// [`crate::api::Request::time_limit`] limits their total. A delivery must know it, too.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(6);
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

/// The client of a function, with a connection open, so that the first request need not wait for
/// TLS. The client is built while the endpoint's name is looked up. After a failure, the first
/// request connects.
pub async fn connect_on_lambda(config: &SdkConfig, connections: &Connections, settings: &Settings) -> Client {
    let endpoint = settings.endpoint.as_deref();
    let url = endpoint.map_or_else(|| endpoint_of(config.region()), str::to_owned);
    let opening = connections.open(&url, CONNECT_TIMEOUT, ATTEMPT_TIMEOUT);
    let (opened, client) = tokio::join!(opening, async { from_sdk_config(config, endpoint, timeouts()) });
    if let Err(error) = opened {
        tracing::warn!(cause = error_chain(&*error), "DynamoDB cannot be reached yet");
    }
    client
}

/// The endpoint of a region. The isolated partitions of AWS have others: there, each start warns,
/// and the first request connects.
fn endpoint_of(region: Option<&Region>) -> String {
    let region = region.map_or("", Region::as_ref);
    let domain = match region.split('-').next() {
        Some("cn") => "amazonaws.com.cn",
        Some("eusc") => "amazonaws.eu",
        _ => "amazonaws.com",
    };
    format!("https://dynamodb.{region}.{domain}")
}

/// A client for the DynamoDB of the SDK's own configuration, or for `endpoint`.
///
/// # Errors
/// [`InvalidSetting`] when `AWS_CA_BUNDLE` cannot be read, or neither `AWS_REGION` nor the profile
/// names a region.
#[cfg(feature = "cli")]
pub async fn connect(settings: &Settings, endpoint: Option<&str>) -> Result<Client, InvalidSetting> {
    Ok(from_sdk_config(&aws::of_operator(settings, endpoint).await?, None, timeouts()))
}

/// A client for a DynamoDB that does not check credentials: the embedded one or DynamoDB Local.
///
/// # Errors
/// [`InvalidSetting`] when `AWS_CA_BUNDLE` cannot be read or `AWS_REGION` names no region.
#[cfg(feature = "cli")]
pub fn connect_local(settings: &Settings, endpoint: &str) -> Result<Client, InvalidSetting> {
    let config = aws::for_local(settings)?;
    let timeouts =
        TimeoutConfig::builder().connect_timeout(LOCAL_TIMEOUT).operation_timeout(LOCAL_TIMEOUT).build();
    Ok(from_sdk_config(&config, Some(endpoint), timeouts))
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

/// `endpoint` replaces that of the configuration, if there is one.
fn from_sdk_config(config: &SdkConfig, endpoint: Option<&str>, timeouts: TimeoutConfig) -> Client {
    let mut builder = aws_sdk_dynamodb::config::Builder::from(config);
    if let Some(endpoint) = endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    let config = builder
        .retry_config(retry_config())
        .retry_partition(retry_partition())
        .retry_classifier(Contention)
        .timeout_config(timeouts)
        .interceptor(Meter)
        .build();
    Client::from_conf(config)
}

#[cfg(test)]
mod tests {
    use aws_sdk_dynamodb::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};

    use super::*;

    #[tokio::test]
    async fn the_connection_of_init_is_to_the_endpoint_that_requests_use() {
        for region in ["eu-central-1", "us-gov-west-1", "cn-north-1", "eusc-de-east-1"] {
            let parameters = Params::builder().region(region).build().unwrap();
            let endpoint = DefaultResolver::new().resolve_endpoint(&parameters).await.unwrap();
            assert_eq!(endpoint_of(Some(&Region::new(region))), endpoint.url());
        }
    }
}
