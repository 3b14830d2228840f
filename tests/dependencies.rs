//! Checks the dependencies of the Lambda binary.
#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]

use std::{collections::BTreeSet, fs, process::Command};

use serde_json::Value;

/// The functions: their binaries, and the features that each needs.
const FUNCTIONS: [(&str, &str); 2] = [("loyalty-codes", ""), ("deliver", "deliver")];

/// The crates that `cargo build --release --bin …` compiles for a function, each in this format.
fn crates_of(features: &str, format: &str, target: &str) -> BTreeSet<String> {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal", "--prefix", "none", "--features", features])
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

/// Calls `check` with the name and the crates of each function, for each target.
fn for_each_function(format: &str, check: impl Fn(&str, BTreeSet<String>)) {
    for target in TARGETS {
        for (function, features) in FUNCTIONS {
            check(function, crates_of(features, format, target));
        }
    }
}

/// Crates of the command line tool and its embedded DynamoDB.
const OF_THE_TOOL: [&str; 8] =
    ["clap", "dynoxide", "rusqlite", "libsqlite3_sys", "axum", "indicatif", "swagger_ui_dist", "toml"];

#[test]
fn the_functions_have_no_dependency_of_the_command_line_tool() {
    for_each_function("{lib}", |function, crates| {
        assert!(crates.contains("aws_sdk_dynamodb") && crates.contains("lambda_runtime"), "{crates:?}");
        for unwanted in OF_THE_TOOL {
            assert!(!crates.contains(unwanted), "{function}: {unwanted}");
        }
    });
}

#[test]
fn the_function_of_the_api_has_no_dependency_of_delivery() {
    for_each_function("{lib}", |function, crates| {
        for provider in ["aws_sdk_pinpointsmsvoicev2", "aws_sdk_sesv2", "webpki_roots"] {
            assert_eq!(crates.contains(provider), function == "deliver", "{function}: {provider}");
        }
    });
}

#[test]
fn the_functions_have_one_tls_stack_and_one_http_stack() {
    for_each_function("{lib}", |function, crates| {
        assert!(crates.contains("rustls") && crates.contains("ring") && crates.contains("hyper"));
        for unwanted in
            ["aws_lc_rs", "aws_lc_sys", "openssl", "native_tls", "s2n_tls", "reqwest", "regex", "aws_sdk_sso"]
        {
            assert!(!crates.contains(unwanted), "{function}: {unwanted}");
        }
    });
}

#[test]
fn tls_and_http_crates_have_one_version_each() {
    for_each_function("{p}", |function, crates| {
        for name in [
            "rustls", "rustls-webpki", "ring", "tokio-rustls", "hyper", "hyper-rustls", "hyper-util", "http",
            "http-body", "h2", "tower",
        ] {
            let versions: Vec<_> =
                crates.iter().filter(|line| line.split(' ').next() == Some(name)).collect();
            assert!(versions.len() <= 1, "{function}: {versions:?}");
        }
    });
}

/// The names and versions of the crates in the bill of materials of a binary.
fn listed_in_the_bill_of(binary: &str) -> BTreeSet<(String, String)> {
    let bill = format!("{}/target/{binary}.cdx.json", env!("CARGO_MANIFEST_DIR"));
    let bill: Value = serde_json::from_str(&fs::read_to_string(bill).unwrap()).unwrap();
    assert_eq!(bill["metadata"]["component"]["name"], binary);
    let text = |component: &Value, name: &str| component[name].as_str().unwrap().to_owned();
    let components = bill["components"].as_array().unwrap().iter();
    components.map(|component| (text(component, "name"), text(component, "version"))).collect()
}

#[test]
#[ignore = "`make sbom` runs it, on what it has written"]
fn the_bills_of_materials_list_the_crates_of_each_binary_and_those_of_the_tool_in_its_own_only() {
    let target = std::env::var("SBOM_TARGET").unwrap();
    for (binary, features) in FUNCTIONS.into_iter().chain([("loyaltyctl", "cli")]) {
        let listed = listed_in_the_bill_of(binary);
        for line in crates_of(features, "{p}", &target) {
            let mut words = line.split(' ');
            let (name, version) = (words.next().unwrap(), words.next().unwrap().trim_start_matches('v'));
            let is_listed = listed.contains(&(name.to_owned(), version.to_owned()));
            assert!(name == "loyalty-codes" || is_listed, "{binary}: {line}");
        }
        for of_the_tool in ["clap", "dynoxide-rs", "rusqlite", "axum", "indicatif", "swagger-ui-dist", "toml"]
        {
            let is_listed = listed.iter().any(|(name, _)| name == of_the_tool);
            assert_eq!(is_listed, binary == "loyaltyctl", "{binary}: {of_the_tool}");
        }
        assert!(!listed.iter().any(|(name, _)| name == "proptest"), "{binary}");
    }
}
