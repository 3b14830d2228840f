//! Checks the dependencies of the Lambda binary.
#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::Value;

/// The crates that `cargo build --release --bin loyalty-codes` compiles, each in this format.
fn lambda_crates(format: &str, target: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "none"])
        .args(["--format", format, "--target", target])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let lines = String::from_utf8(tree.stdout).unwrap();
    lines.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
}

/// The targets that can be deployed.
const TARGETS: [&str; 2] = ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"];

#[test]
fn the_lambda_has_no_dependency_of_the_command_line_tool() {
    for target in TARGETS {
        let crates = lambda_crates("{lib}", target);
        assert!(crates.contains("aws_sdk_dynamodb") && crates.contains("lambda_http"), "{crates:?}");
        for unwanted in
            ["clap", "dynoxide", "rusqlite", "libsqlite3_sys", "axum", "indicatif", "swagger_ui_dist", "toml"]
        {
            assert!(!crates.contains(unwanted), "{unwanted}");
        }
    }
}

#[test]
fn the_lambda_has_one_tls_stack_and_one_http_stack() {
    for target in TARGETS {
        let crates = lambda_crates("{lib}", target);
        assert!(crates.contains("rustls") && crates.contains("ring") && crates.contains("hyper"));
        for unwanted in
            ["aws_lc_rs", "aws_lc_sys", "openssl", "native_tls", "s2n_tls", "reqwest", "regex", "aws_sdk_sso"]
        {
            assert!(!crates.contains(unwanted), "{unwanted}");
        }
    }
}

#[test]
fn tls_and_http_crates_have_one_version_each() {
    for target in TARGETS {
        let crates = lambda_crates("{p}", target);
        for name in [
            "rustls",
            "rustls-webpki",
            "ring",
            "tokio-rustls",
            "hyper",
            "hyper-rustls",
            "hyper-util",
            "http",
            "http-body",
            "h2",
            "tower",
        ] {
            let versions: Vec<_> =
                crates.iter().filter(|line| line.split(' ').next() == Some(name)).collect();
            assert!(versions.len() <= 1, "{versions:?}");
        }
    }
}

#[test]
#[ignore = "`make sbom` runs it, on what it has written"]
fn the_bill_of_materials_lists_the_crates_of_the_lambda_and_none_of_the_tool() {
    let bill = concat!(env!("CARGO_MANIFEST_DIR"), "/target/loyalty-codes.cdx.json");
    let bill: Value = serde_json::from_str(&fs::read_to_string(bill).unwrap()).unwrap();
    assert_eq!(bill["metadata"]["component"]["name"], "loyalty-codes");
    let components = bill["components"].as_array().unwrap().iter();
    let listed: BTreeSet<String> = components
        .map(|component| {
            format!("{} v{}", component["name"].as_str().unwrap(), component["version"].as_str().unwrap())
        })
        .collect();
    let target = std::env::var("SBOM_TARGET").unwrap();
    for line in lambda_crates("{p}", &target) {
        let mut words = line.split(' ');
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        assert!(name == "loyalty-codes" || listed.contains(&format!("{name} {version}")), "{line}");
    }
    for unwanted in
        ["clap", "dynoxide-rs", "rusqlite", "axum", "indicatif", "swagger-ui-dist", "toml", "proptest"]
    {
        assert!(!listed.iter().any(|line| line.split(' ').next() == Some(unwanted)), "{unwanted}");
    }
}
