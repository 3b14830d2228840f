//! The types and rules of a loyalty programme. This module does no I/O and depends on neither the
//! store, the API nor an entry point.

pub mod access_token;
pub mod card_number;
pub mod config_keys;
pub mod content;
pub mod customer;
pub mod delivery;
pub mod delivery_state;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod issuing;
#[cfg(feature = "cli")]
pub mod masking;
pub mod message;
pub mod org;
mod org_check;
pub mod otp;
pub mod phone_number;
pub mod profile;
pub mod recipients;
pub mod till;
pub mod timezone;
pub mod typed_text;
pub mod webhook;
