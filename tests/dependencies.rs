//! What the Lambda binary is made of.
#![allow(clippy::unwrap_used, reason = "what fails in a test should fail loudly")]

use std::{collections::BTreeSet, process::Command};

/// The crates that `cargo build --release --bin loyalty-codes` compiles into the binary.
fn lambda_crates() -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{lib}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    String::from_utf8(tree.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn the_lambda_pulls_in_nothing_of_the_tool() {
    let crates = lambda_crates();
    assert!(crates.contains("aws_sdk_dynamodb") && crates.contains("lambda_http"), "{crates:?}");
    for unwanted in
        ["clap", "dynoxide", "rusqlite", "libsqlite3_sys", "axum", "indicatif", "swagger_ui_dist", "toml"]
    {
        assert!(!crates.contains(unwanted), "{unwanted}");
    }
}

#[test]
fn the_lambda_has_one_tls_stack_and_one_http_stack() {
    let crates = lambda_crates();
    assert!(crates.contains("rustls") && crates.contains("ring") && crates.contains("hyper"));
    for unwanted in
        ["aws_lc_rs", "aws_lc_sys", "openssl", "native_tls", "s2n_tls", "reqwest", "regex", "aws_sdk_sso"]
    {
        assert!(!crates.contains(unwanted), "{unwanted}");
    }
}
