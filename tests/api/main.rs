//! Tests of the service through its router, each on a fresh embedded DynamoDB.

#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]

#[path = "../common/mod.rs"]
mod common;

mod access;
mod blocks;
mod callers;
mod card_numbers;
mod change_identifier;
mod costs;
mod customer_lookup;
mod customers;
mod erasure;
mod error_page;
mod events;
mod fault_matrix;
mod faults;
mod fetch;
mod generate;
mod golden;
mod guard;
mod guard_races;
mod http_rules;
mod idempotency;
mod import;
mod joining;
mod log;
mod merging;
mod metrics;
mod oauth;
mod orgs;
mod races;
mod revocation;
mod support_costs;
mod typed_text;
mod unregistered;
mod upgrade;
mod validate;
