//! The sources of requests. Each converts its requests to [`crate::api::Request`].

pub mod api_gateway;
#[cfg(feature = "cli")]
pub mod http;
