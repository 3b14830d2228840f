//! Tests of the delivery of messages, against fake providers on loopback.

#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]
#![allow(clippy::print_stdout, reason = "measured times are printed")]

#[path = "../common/mod.rs"]
mod common;
mod providers;
mod world;

mod answers;
mod budget;
mod channels;
mod costs;
mod function;
mod interrupted;
mod load;
mod log;
mod secrets;
mod webhooks;
