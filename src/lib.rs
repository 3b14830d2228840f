//! One-time passwords and external IDs of a loyalty programme, in the v2 dialect of Capillary's
//! loyalty API.
//!
//! Dependencies point one way:
//!
//! ```text
//! main, deliver, loyaltyctl  →  entrypoints  →  api, delivery  →  store  →  model
//! ```
//!
//! [`entrypoints`] converts API Gateway events and HTTP requests to the requests of [`api`]. The
//! handlers of [`api`] read and write through [`store`], the only module that uses DynamoDB. They
//! decide by the rules of [`model`], which depends on none of the other layers. `delivery` sends
//! the messages that [`api`] has stored; the table's stream starts it.

pub mod api;
pub mod aws;
#[cfg(feature = "deliver")]
pub mod aws_call;
mod cache;
pub mod clock;
#[cfg(feature = "deliver")]
pub mod delivery;
#[cfg(feature = "cli")]
pub mod embedded;
pub mod entrypoints;
pub mod logging;
pub mod model;
pub mod secret;
pub mod settings;
pub mod store;
mod wire;
