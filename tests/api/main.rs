//! The service through its router, each test on a fresh embedded DynamoDB.

#[path = "../common/mod.rs"]
mod common;

mod access;
mod card_numbers;
mod customers;
mod fetch;
mod generate;
mod http_rules;
mod log;
mod orgs;
mod races;
mod round_trips;
mod validate;
