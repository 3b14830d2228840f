//! The sources of requests: each converts its requests to [`crate::api::Request`]. The stream of
//! the table is the source of the messages to be delivered.

pub mod api_gateway;
#[cfg(feature = "cli")]
pub mod http;
#[cfg(feature = "deliver")]
pub mod stream;
