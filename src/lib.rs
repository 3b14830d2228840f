//! One-time passwords and external IDs of a loyalty programme, in the v2 dialect of Capillary's loyalty API.
//!
//! Arrows run one way:
//!
//! ```text
//! main, loyaltyctl  →  entrypoints  →  api  →  store  →  model
//! ```
//!
//! [`entrypoints`] turn events and HTTP requests into the requests that [`api`] answers. Its handlers read
//! and write through [`store`], which alone knows DynamoDB, and decide by the rules of [`model`], which
//! knows none of the others.

pub mod api;
pub mod clock;
#[cfg(feature = "cli")]
pub mod embedded;
pub mod entrypoints;
pub mod logging;
pub mod model;
pub mod secret;
pub mod settings;
pub mod store;
mod wire;
