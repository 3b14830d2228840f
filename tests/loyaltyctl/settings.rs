//! An invalid setting fails the start with its name. No error message contains a request.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    process::Command,
};

use super::{
    common::served::{Served, loyaltyctl},
    finish,
};

/// The command without the AWS settings of the test's environment.
fn bare(arguments: &[&str]) -> Command {
    let mut command = loyaltyctl(arguments);
    for variable in ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_DYNAMODB"] {
        command.env_remove(variable);
    }
    command
        .env("AWS_CONFIG_FILE", "/dev/null")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .env("RUST_LOG", "info");
    command
}

/// Returns the exit code and the message of a command that fails. The message must not contain any
/// part of a request.
fn failure(command: &mut Command) -> (i32, String) {
    let output = finish(command);
    let message = String::from_utf8(output.stderr).unwrap();
    for request in ["Request {", "SdkBody", "KeyCondition", "ExpressionAttribute", "panicked"] {
        assert!(!message.contains(request), "{message}");
    }
    (output.status.code().unwrap(), message)
}

#[test]
fn an_invalid_setting_fails_the_start_with_its_name() {
    let list: &[&str] = &["org", "list"];
    let serve: &[&str] = &["serve", "--in-memory", "--listen", "127.0.0.1:0"];
    for (variable, value, commands) in [
        ("AWS_ENDPOINT_URL_DYNAMODB", "http://", &[list, serve][..]),
        ("AWS_ENDPOINT_URL_DYNAMODB", "http://a b", &[list, serve]),
        ("AWS_ENDPOINT_URL_DYNAMODB", "127.0.0.1:8000", &[list, serve]),
        ("AWS_ENDPOINT_URL", "foo", &[list, serve]),
        ("AWS_REGION", "us east", &[list, serve]),
        ("AWS_REGION", "eu_west_1", &[list, serve]),
        ("TABLE_NAME", "a b", &[list, serve]),
        ("AWS_CA_BUNDLE", "/nowhere/ca.pem", &[list, serve]),
        ("RUST_LOG", "infoo", &[serve]),
        ("RUST_LOG", "loyaltyctl=loud", &[serve]),
    ] {
        for command in commands {
            let (code, message) = failure(bare(command).env(variable, value));
            assert_eq!(code, 2, "{variable} {command:?}: {message}");
            assert!(message.contains(variable), "{variable} {command:?}: {message}");
        }
    }
    let (code, message) = failure(&mut bare(list));
    assert!(code == 2 && message.contains("AWS_REGION: not set"), "{message}");
}

#[test]
fn an_invalid_endpoint_is_a_command_line_error() {
    for endpoint in ["127.0.0.1:8000", "http://", "http://a b", "http://a:b", "ftp://a"] {
        let (code, message) = failure(&mut bare(&["--endpoint", endpoint, "org", "list"]));
        assert_eq!(code, 2, "{message}");
        assert!(message.contains("--endpoint") && message.contains("http://HOST:PORT"), "{message}");
    }
}

/// The head of the answer of a DynamoDB to a request with this line in its head.
fn list_tables(address: &str, method: &str, line: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "{method} / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nConnection: close\r\n\
         X-Amz-Target: DynamoDB_20120810.ListTables\r\nContent-Type: application/x-amz-json-1.0\r\n\
         Authorization: AWS4-HMAC-SHA256 Credential=A/20261126/us-east-1/dynamodb/aws4_request, \
         SignedHeaders=host;x-amz-date, Signature=0\r\nX-Amz-Date: 20261126T000000Z\r\n{line}\r\n{{}}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn no_web_page_reaches_the_embedded_dynamodb_nor_another_user_its_file() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("dynamodb.db");
    let served = Served::start(&["--db", db.to_str().unwrap()]);
    let address = served.dynamodb().strip_prefix("http://").unwrap();
    let listed = list_tables(address, "POST", "");
    assert!(listed.starts_with("HTTP/1.1 200") && listed.contains("TableNames"), "{listed}");
    for (method, line) in [
        ("POST", "Origin: http://attacker.example\r\n"),
        ("POST", "Origin: null\r\n"),
        ("OPTIONS", "Origin: http://attacker.example\r\nAccess-Control-Request-Method: POST\r\n"),
    ] {
        let refused = list_tables(address, method, line);
        assert!(refused.starts_with("HTTP/1.1 403"), "{method} {line}: {refused}");
        assert!(
            !refused.to_lowercase().contains("access-control") && !refused.contains("TableNames"),
            "{refused}"
        );
    }
    for file in fs::read_dir(folder.path()).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", file.path());
    }
}

#[test]
fn an_unreachable_dynamodb_is_an_error_that_names_the_setting() {
    let served = Served::start(&["--in-memory"]);
    // An address where nothing listens, and the API itself, which is not DynamoDB.
    for endpoint in ["http://127.0.0.1:9", served.base()] {
        let (code, message) = failure(&mut bare(&["--endpoint", endpoint, "org", "list"]));
        assert_eq!(code, 1, "{message}");
        assert!(message.contains(&format!("{endpoint} (--endpoint)")), "{message}");
    }
    let credentials =
        [("AWS_ACCESS_KEY_ID", "x"), ("AWS_SECRET_ACCESS_KEY", "y"), ("AWS_REGION", "us-east-1")];
    let (code, message) = failure(
        bare(&["org", "list"]).envs(credentials).env("AWS_ENDPOINT_URL_DYNAMODB", "http://127.0.0.1:9"),
    );
    assert_eq!(code, 1, "{message}");
    assert!(message.contains("http://127.0.0.1:9 (AWS_ENDPOINT_URL_DYNAMODB)"), "{message}");
}
