//! Where requests come from, each turned into the [`crate::api::Request`] that the API takes.

pub mod api_gateway;
#[cfg(feature = "cli")]
pub mod http;
