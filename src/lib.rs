//! One-time passwords and external IDs of a loyalty programme, in the v2 dialect of Capillary's loyalty API.
//!
//! [`lambda`] and `loyaltyctl serve` hand requests to [`api`], which knows the use cases. They read and
//! write through [`store`], which alone knows DynamoDB, and decide by the model: [`otp`], [`message`],
//! [`card_number`], [`customer`], [`org`], [`till`] and [`timezone`], which know nothing of the others.
//!
//! ```text
//! main, loyaltyctl  →  api  →  store  →  otp, message, card_number, customer, org, till
//! ```

pub mod api;
pub mod card_number;
pub mod clock;
pub mod customer;
#[cfg(feature = "cli")]
pub mod embedded;
pub mod lambda;
pub mod logging;
pub mod message;
pub mod org;
pub mod otp;
pub mod secret;
pub mod settings;
pub mod store;
pub mod till;
pub mod timezone;
mod wire;
