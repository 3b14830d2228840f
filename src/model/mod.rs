//! The nouns of a loyalty programme and the rules for them. No I/O, no HTTP, no SDK: nothing here knows
//! the store, the API or an entry point.

pub mod card_number;
pub mod customer;
pub mod message;
pub mod org;
mod org_check;
pub mod otp;
pub mod phone_number;
pub mod till;
pub mod timezone;
pub mod typed_text;
