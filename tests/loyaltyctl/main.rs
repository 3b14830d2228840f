//! Runs `loyaltyctl` as its users do.
#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]

#[path = "../common/mod.rs"]
mod common;

mod console;
mod customers;
mod delivery;
mod doctor;
mod hostile;
mod http;
mod import;
mod interrupted;
mod numbers;
mod org_files;
mod output;
mod passwords;
mod questions;
mod settings;

use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::AttributeValue;
use common::{
    TestTable,
    served::{Served, loyaltyctl},
};
use serde_json::{Value, json};

/// Runs a command until it ends.
fn finish(command: &mut Command) -> Output {
    output::finish_into(command, Stdio::piped())
}

/// Pastes lines into a shell and returns the JSON values that they print.
fn paste(lines: &str) -> Vec<Value> {
    let mut shell = Command::new("sh").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    shell.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = String::from_utf8(shell.wait_with_output().unwrap().stdout).unwrap();
    output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {output}")))
        .collect()
}

/// Runs commands on a table of its own.
struct Operator {
    table: TestTable,
}

impl Operator {
    async fn new() -> Self {
        Self { table: TestTable::new().await }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let endpoint = self.table.endpoint();
        finish(loyaltyctl(&["--endpoint", &endpoint, "--table", self.table.name()]).args(arguments))
    }

    /// The JSON value that a successful command prints.
    fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[&["--json"], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The exit code and the message of a command that fails.
    fn refusal(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

/// An operator whose table has the org of the documentation.
async fn with_demo_org() -> Operator {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    operator.json(&["org", "apply", &write(&folder, common::DEMO_ORG)]);
    operator
}

fn write(folder: &tempfile::TempDir, text: &str) -> String {
    let path = folder.path().join("org.toml");
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn the_printed_requests_work_when_pasted_in_their_order() {
    let mut served = Served::start(&["--in-memory", "--demo"]);
    let answers = paste(&served.requests());
    assert!(answers[0]["createdId"].is_u64(), "{answers:?}");
    assert_eq!((&answers[1]["orgId"], &answers[1]["userId"]), (&json!(966), &json!(313_302_314)));
    assert_eq!(answers[1], answers[2], "both spellings must have the same answer");
    assert_eq!(answers[3], json!({"entity": true, "warnings": []}));
    assert_eq!(answers[4], json!({"entity": "1000000010", "warnings": []}));
    assert_eq!(answers[5]["createdId"], 313_302_315);
    assert_eq!(answers.len(), 6);

    let code = answers[1]["code"].as_str().unwrap();
    served.wait_for("delivered by SMS to 918799361139: ");
    assert_eq!(
        served.printed.last().unwrap(),
        &format!("delivered by SMS to 918799361139: Hi user.Your otp for validation is {code}.")
    );
}

#[test]
fn all_data_survives_a_kill_and_the_password_still_works() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("deep/dynamodb.db");
    let arguments = ["--demo", "--db", db.to_str().unwrap()];
    let card_number = |served: &Served| {
        let requests = served.requests();
        let line = requests.lines().find(|line| line.ends_with("/v2/cardNumber")).unwrap().to_owned();
        paste(&line)[0]["entity"].as_str().unwrap().to_owned()
    };
    let served = Served::start(&arguments);
    assert_eq!(card_number(&served), "1000000010");
    let before = served.till();
    served.kill();
    let served = Served::start(&arguments);
    assert_eq!(served.till(), before);
    assert_eq!(card_number(&served), "1000000011");
}

#[test]
fn it_is_ready_in_under_a_second() {
    // The best of five: other tests keep the machine busy.
    let start = || {
        let started = Instant::now();
        let _served = Served::start(&["--in-memory", "--demo"]);
        started.elapsed()
    };
    let best = (0..5).map(|_| start()).min().unwrap();
    assert!(best < Duration::from_secs(1), "{best:?}");
}

/// Fetches a URL with `curl`, and returns the head and the body of the response.
fn get(url: &str) -> (String, String) {
    curl(&[url])
}

/// The head in lower case, and the body of an answer.
fn curl(arguments: &[&str]) -> (String, String) {
    let output = finish(Command::new("curl").arg("-sSi").args(arguments));
    let text = String::from_utf8(output.stdout).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

#[test]
fn the_reference_page_is_served_with_all_its_resources() {
    let served = Served::start(&["--in-memory"]);
    let base = served.base().to_owned();
    let page = served.after("The reference, to read and to try out, is at ").to_owned();
    let (head, html) = get(&page);
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/html"), "{head}");
    // Whatever Swagger UI would load from elsewhere, the browser does not.
    assert!(head.contains("content-security-policy: default-src 'self';"), "{head}");
    assert!(head.contains("frame-ancestors 'none'"), "no page of another origin shows it: {head}");
    let quoted = html.split('"').skip(1).step_by(2);
    let loaded: Vec<&str> = quoted.filter(|text| text.contains(".js") || text.contains(".css")).collect();
    assert_eq!(loaded.len(), 3, "{html}");
    assert!(!html.contains("//"), "{html}");
    for asset in loaded {
        let (head, body) = get(&format!("{page}{asset}"));
        assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/"), "{asset}: {head}");
        assert!(body.len() > 100, "{asset}");
    }
    let (head, document) = get(&format!("{base}/openapi.json"));
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(serde_json::from_str::<Value>(&document).unwrap()["servers"], json!([{"url": "/"}]));
    assert!(get(page.trim_end_matches('/')).0.contains("location: /docs/"));
    let (head, _) = get(&format!("{base}/"));
    assert!(head.starts_with("http/1.1 307") && head.contains("location: /docs/"), "{head}");
    for unknown in ["/v2", "/docs/other"] {
        let (head, body) = get(&format!("{base}{unknown}"));
        assert!(head.starts_with("http/1.1 404") && body.contains("No such resource"), "{unknown}: {head}");
    }
    for path in ["/", "/docs", "/docs/", "/docs/reference.js", "/openapi.json"] {
        let (head, body) = curl(&["-X", "DELETE", &format!("{base}{path}")]);
        assert!(head.starts_with("http/1.1 405") && head.contains("allow: get,head"), "{path}: {head}");
        assert!(head.contains("content-type: application/json") && head.contains("x-request-id: "), "{head}");
        let error = json!({"status": false, "code": 405, "message": "Method not allowed"});
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), json!({"errors": [error], "warnings": []}));
    }
}

#[test]
fn the_openapi_document_is_the_one_that_is_checked_in() {
    let written = finish(&mut loyaltyctl(&["openapi"]));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let current = std::fs::read(file).unwrap() == written.stdout;
    assert!(current, "openapi.json is out of date: run `make openapi`");
}

#[test]
fn the_embedded_dynamodb_serves_other_tools() {
    let served = Served::start(&["--in-memory", "--demo"]);
    let list = finish(&mut loyaltyctl(&["--endpoint", served.dynamodb(), "--json", "org", "list"]));
    assert_eq!(
        serde_json::from_slice::<Value>(&list.stdout).unwrap(),
        json!([{"id": 966, "name": "Demo Stores"}])
    );
}

#[test]
fn serving_another_endpoint_needs_its_table() {
    let owner = Served::start(&["--in-memory", "--demo"]);
    let endpoint = owner.dynamodb().to_owned();
    let output = finish(&mut loyaltyctl(&[
        "--endpoint", &endpoint, "--table", "missing", "serve", "--listen", "127.0.0.1:0",
    ]));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("ResourceNotFoundException"));
    let demo = finish(&mut loyaltyctl(&["--endpoint", &endpoint, "serve", "--demo"]));
    assert_eq!(demo.status.code(), Some(2), "a demo needs an embedded DynamoDB");
}

#[test]
fn an_address_in_use_is_an_error_that_names_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = finish(&mut loyaltyctl(&["serve", "--in-memory", "--listen", &address]));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&address));
}

#[tokio::test(flavor = "multi_thread")]
async fn table_create_is_idempotent() {
    let operator = Operator::new().await;
    let endpoint = operator.table.endpoint();
    let create = || {
        let output = finish(&mut loyaltyctl(&[
            "--endpoint", &endpoint, "--table", "another", "--json", "table", "create",
        ]));
        assert!(output.status.success());
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(create(), json!({"table": "another", "result": "created"}));
    assert_eq!(create(), json!({"table": "another", "result": "unchanged"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn org_apply_creates_updates_and_reports_changes() {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, common::DEMO_ORG);
    assert_eq!(
        operator.json(&["org", "apply", &file]),
        json!({"id": 966, "result": "created", "changes": [], "warnings": []})
    );
    assert_eq!(operator.json(&["org", "apply", &file])["result"], "unchanged");
    write(&folder, &common::DEMO_ORG.replace("[config]", "[config]\nCONF_OTP_LENGTH = 6"));
    assert_eq!(
        operator.json(&["org", "apply", &file]),
        json!({"id": 966, "result": "updated", "changes": [{"key": "CONF_OTP_LENGTH", "before": 7, "after": 6}], "warnings": []})
    );
    let shown = operator.json(&["org", "show", "966"]);
    assert_eq!(shown["definition"]["config"]["CONF_OTP_LENGTH"], 6);
    assert_eq!(shown["card_numbers"]["issued"], 0);
    let text = String::from_utf8(operator.run(&["org", "show", "966"]).stdout).unwrap();
    assert!(text.contains("CONF_OTP_LENGTH\t6\n"), "plain lines without a terminal: {text}");
    assert!(text.contains("\n\n- A code has 6 capital letters and digits, is valid for 5 minutes"), "{text}");
    let words = shown["in_words"].to_string();
    assert!(
        words.contains("card numbers of 10 characters") && words.contains("NO MESSAGE IS SENT"),
        "{words}"
    );
    assert_eq!(operator.json(&["org", "list"]), json!([{"id": 966, "name": "Demo Stores"}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_cannot_read_a_customer_fails() {
    let operator = with_demo_org().await;
    let put = operator.table.client().put_item().table_name(operator.table.name());
    let put = put.item("PK", AttributeValue::S("ORG#966#USER#9".to_owned()));
    put.item("SK", AttributeValue::S("PROFILE".to_owned())).send().await.unwrap();
    let output = operator.run(&["--json", "table", "upgrade"]);
    let (report, error): (Value, Value) =
        (serde_json::from_slice(&output.stdout).unwrap(), serde_json::from_slice(&output.stderr).unwrap());
    assert_eq!(report["unreadable"][0]["partition"], "ORG#966#USER#9");
    assert!(error["error"].as_str().unwrap().starts_with("1 customers cannot be read"), "{error}");
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_masks_the_identifiers_that_it_cannot_decide_unless_they_are_to_be_revealed() {
    let operator = with_demo_org().await;
    let value = "tom.of.example.com";
    let s = |text: &str| AttributeValue::S(text.to_owned());
    let put = || operator.table.client().put_item().table_name(operator.table.name());
    let identity = put().item("PK", s(&format!("ORG#966#ID#INSTORE##email#{value}")));
    let number = |number: &str| AttributeValue::N(number.to_owned());
    identity.item("SK", s("ID")).item("user_id", number("9")).send().await.unwrap();
    let customer =
        put().item("PK", s("ORG#966#USER#9")).item("SK", s("PROFILE")).item("user_id", number("9"));
    let customer = customer.item("profiles", s(r#"[{"account":"INSTORE:"}]"#));
    let customer = customer.item("identifiers", s(&format!(r#"[["INSTORE:","email","{value}"]]"#)));
    customer.item("registered_at", number("1795235400000")).send().await.unwrap();

    let upgrade = |options: &[&str]| {
        let output = operator.run(&[options, &["table", "upgrade", "--dry-run"]].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    let recorded = || operator.acts("table upgrade").len();
    for options in [&[][..], &["--json"]] {
        let shown = upgrade(options);
        assert!(shown.contains("email") && !shown.contains(value), "{shown}");
    }
    assert_eq!(recorded(), 0, "a dry run shows nothing that is to be recorded");
    let shown = operator.run(&["table", "upgrade", "--dry-run", "--reveal"]).stdout;
    assert!(String::from_utf8(shown).unwrap().contains(value));
    assert_eq!(recorded(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_customers_of_an_org_of_an_earlier_version_join_after_an_upgrade() {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    operator.json(&["org", "apply", &write(&folder, common::DEMO_ORG)]);
    assert_eq!(operator.json(&["org", "show", "966"])["customers_join"], true, "a new org");
    let table = &operator.table;
    let update = table.client().update_item().table_name(table.name());
    let update = update.key("PK", AttributeValue::S("ORG#966".to_owned()));
    let update = update.key("SK", AttributeValue::S("ORG".to_owned()));
    update.update_expression("REMOVE customers_join").send().await.unwrap();

    let text = |arguments: &[&str]| String::from_utf8(operator.run(arguments).stdout).unwrap();
    let shown = text(&["org", "show", "966"]);
    assert!(shown.contains("customers join\tnot before `loyaltyctl table upgrade --org 966`\n"), "{shown}");
    let dry = text(&["table", "upgrade", "--dry-run"]);
    assert!(dry.contains("org 966: customers would join across sources"), "{dry}");
    assert_eq!(operator.json(&["org", "show", "966"])["customers_join"], false);
    let report = operator.json(&["table", "upgrade", "--org", "966"]);
    assert_eq!((&report["joining"], &report["org_wide"]), (&json!([966]), &json!(0)));
    assert_eq!(operator.json(&["org", "show", "966"])["customers_join"], true);
    assert_eq!(operator.json(&["table", "upgrade"])["joining"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_file_is_refused_with_all_errors() {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    for (from, to, expected) in [
        (
            "CONF_CARD_NUMBER_LENGTH = 10", "CONF_CARD_NUMBER_LENGHT = 10",
            "did you mean `CONF_CARD_NUMBER_LENGTH`?",
        ),
        ("Asia/Kolkata", "Asia/Kolkatta", "Asia/Kolkatta"),
        ("CONF_CARD_NUMBER_LENGTH = 10", "CONF_CARD_NUMBER_LENGTH = 9", "does not fit"),
        ("id = 966", "id = ", "line"),
    ] {
        let file = write(&folder, &common::DEMO_ORG.replace(from, to));
        let (code, message) = operator.refusal(&["org", "apply", &file]);
        assert_eq!(code, 3, "{message}");
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(operator.refusal(&["org", "apply", "/nowhere.toml"]).0, 2);
    assert_eq!(operator.refusal(&["org", "show", "966"]).0, 4);
    assert_eq!(operator.json(&["org", "list"]), json!([]), "nothing was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn tills_are_created_listed_rotated_and_revoked() {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    operator.json(&["org", "apply", &write(&folder, common::DEMO_ORG)]);
    let create = ["till", "create", "shop.1", "--org", "966", "--allow", "otp:fetch,card_number:generate"];
    let created = operator.json(&create);
    let password = created["password"].as_str().unwrap().to_owned();
    assert_eq!(
        created,
        json!({
            "name": "shop.1", "org": 966, "password": password,
            "permissions": ["otp:fetch", "card_number:generate"], "token_ttl": 3600,
        })
    );
    let status = async |secret: &str| {
        let fresh_process = operator.table.service("shop.1").as_till("shop.1", secret);
        fresh_process.get("/v2/cardNumber").await.status
    };
    assert_eq!(status(&password).await, 200);

    let (code, message) = operator.refusal(&create);
    assert_eq!(code, 3);
    assert!(message.contains("till rotate shop.1"), "{message}");

    let rotated = operator.json(&["till", "rotate", "shop.1"])["password"].as_str().unwrap().to_owned();
    assert_eq!((status(&password).await, status(&rotated).await), (200, 200), "both passwords must work");
    let (code, message) = operator.refusal(&["till", "rotate", "shop.1"]);
    assert_eq!(code, 3, "a second rotation must not end a password in use");
    for advice in ["revoke shop.1 --old", "revoke shop.1 --new"] {
        assert!(message.contains(advice), "{message}");
    }
    let listed = operator.json(&["till", "list"]);
    assert_eq!((&listed[0]["name"], &listed[0]["state"]), (&json!("shop.1"), &json!("rotating")));
    assert!(!listed.to_string().contains(&password));

    operator.json(&["till", "revoke", "--yes", "shop.1", "--old"]);
    assert_eq!((status(&password).await, status(&rotated).await), (401, 200));
    operator.json(&["till", "revoke", "--yes", "shop.1"]);
    assert_eq!(status(&rotated).await, 401);
    assert_eq!(operator.json(&["till", "list", "--org", "966"])[0]["state"], "revoked");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_till_commands_have_their_exit_codes() {
    let operator = Operator::new().await;
    for (arguments, code) in [
        (&["till", "create", "a b", "--org", "1", "--allow", "otp:fetch"][..], 2),
        (&["till", "create", "a", "--org", "1", "--allow", "otp:eat"], 2),
        (&["till", "create", "a", "--org", "1"], 2),
        (&["till", "create", "a", "--org", "1", "--allow", "otp:fetch"], 4),
        (&["till", "rotate", "nobody"], 4),
        (&["till", "revoke", "nobody"], 4),
        (&["till", "list", "--org", "77"], 4),
        (&["table", "drop"], 2),
    ] {
        let (found, message) = operator.refusal(arguments);
        assert_eq!(found, code, "{arguments:?}: {message}");
    }
    let failed = finish(&mut loyaltyctl(&["--endpoint", "http://127.0.0.1:9", "--json", "org", "list"]));
    assert_eq!(failed.status.code(), Some(1));
    let error: Value = serde_json::from_slice(&failed.stderr).unwrap();
    assert!(error["error"].is_string());
}

#[test]
fn an_endpoint_without_a_scheme_and_a_missing_table_are_explained() {
    let output = finish(&mut loyaltyctl(&["--endpoint", "127.0.0.1:8000", "org", "list"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("http://"));
    let served = Served::start(&["--in-memory"]);
    let output =
        finish(&mut loyaltyctl(&["--endpoint", served.dynamodb(), "--table", "missing", "org", "list"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("loyaltyctl table create"));
}

#[test]
fn serve_refuses_to_print_its_result_as_json() {
    let output = finish(&mut loyaltyctl(&["serve", "--in-memory", "--json"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("prints no result"));
}

#[test]
fn help_has_examples_and_every_shell_has_completions() {
    let help = String::from_utf8(finish(&mut loyaltyctl(&["--help"])).stdout).unwrap();
    for expected in ["Exit codes:", "Examples:", "serve", "table", "org", "till", "completions"] {
        assert!(help.contains(expected), "{help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = finish(&mut loyaltyctl(&["completions", shell]));
        assert!(String::from_utf8(script.stdout).unwrap().contains("loyaltyctl"), "{shell}");
    }
    assert!(!Path::new("loyaltyctl").exists());
}

#[test]
fn the_commands_of_the_readme_exist_with_their_options() {
    let readme = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let mut checked = 0;
    let commands =
        readme.split("loyaltyctl ").skip(1).map(|text| text.split(['`', '\n', '#']).next().unwrap());
    for command in commands.filter(|command| command.starts_with(|c: char| c.is_ascii_lowercase())) {
        let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        let names: Vec<_> = command.split(' ').take_while(is_name).take(2).collect();
        // The words of a sentence are no command.
        let help = |names: &[&str]| finish(loyaltyctl(names).arg("--help"));
        let Some(text) = [&names[..], &names[..names.len().min(1)]].iter().find_map(|names| {
            let help = help(names);
            help.status.success().then(|| String::from_utf8(help.stdout).unwrap())
        }) else {
            assert!(!command.contains("--"), "there is no such command: loyaltyctl {command}");
            continue;
        };
        for option in command.split(' ').filter(|word| word.starts_with("--")) {
            assert!(text.contains(option), "loyaltyctl {command}: {option} is not in its help");
        }
        checked += 1;
    }
    assert!(checked > 20, "{checked} commands were found");
}

#[test]
fn every_command_has_a_man_page() {
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man/man1");
    let written = finish(&mut loyaltyctl(&["--json", "man", pages.to_str().unwrap()]));
    let listed: Value = serde_json::from_slice(&written.stdout).unwrap();
    for page in ["loyaltyctl.1", "loyaltyctl-doctor.1", "loyaltyctl-org.1", "loyaltyctl-org-apply.1"] {
        assert!(listed["pages"].as_array().unwrap().contains(&json!(page)), "{listed}");
        let text = std::fs::read_to_string(pages.join(page)).unwrap();
        assert!(text.contains(".TH ") && text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
    let root = std::fs::read_to_string(pages.join("loyaltyctl.1")).unwrap();
    assert!(root.contains("Exit codes:") && root.contains("loyaltyctl\\-doctor(1)"), "{root}");
    assert_eq!(finish(&mut loyaltyctl(&["man", "/proc/nowhere"])).status.code(), Some(1));
}
