//! An org's file is checked as a whole when it is applied, and can be exported.

use std::{
    io::Write,
    process::{Output, Stdio},
};

use loyalty_codes::model::till::Permission;
use serde_json::json;

use super::{
    Operator,
    common::{self, served::loyaltyctl},
    finish,
    output::wait,
    write,
};

impl Operator {
    /// Runs a command that reads `text` from its standard input.
    fn run_with_input(&self, arguments: &[&str], text: &[u8]) -> Output {
        let endpoint = self.table.endpoint();
        let mut command = loyaltyctl(&["--endpoint", &endpoint, "--table", self.table.name(), "--json"]);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().unwrap();
        process.stdin.take().unwrap().write_all(text).unwrap();
        wait(process)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exported_org_applies_unchanged_from_standard_input() {
    let operator = Operator::new().await;
    for config in [
        "",
        "CONF_CARD_NUMBER_PREFIX = \"12\"\nCONF_CARD_NUMBER_SUFFIX = \"AB\"\nCONF_OTP_TYPE = \"numeric\"\n\
         CONF_CARD_NUMBER_LENGTH = 14\nCONF_CLIENT_V2_API_ENABLED = 0",
    ] {
        let text = common::DEMO_ORG.replace("CONF_CARD_NUMBER_LENGTH = 10", config);
        let text = if config.is_empty() { common::DEMO_ORG.to_owned() } else { text };
        let applied = operator.run_with_input(&["org", "apply", "-"], text.as_bytes());
        assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
        let exported = operator.run(&["org", "export", "966"]);
        assert!(exported.status.success());
        let again = operator.run_with_input(&["org", "apply", "-"], &exported.stdout);
        let again: serde_json::Value = serde_json::from_slice(&again.stdout).unwrap();
        let exported = String::from_utf8(exported.stdout).unwrap();
        assert_eq!(
            again,
            json!({"id": 966, "result": "unchanged", "changes": [], "warnings": []}),
            "{exported}"
        );
        assert!(exported.starts_with("id = 966\nname = \"Demo Stores\"\n"), "{exported}");
        assert_eq!(exported.contains("CONF_CLIENT_V2_API_ENABLED = false"), !config.is_empty(), "{exported}");
    }
    let definition = operator.json(&["org", "export", "966"]);
    assert_eq!(definition, operator.json(&["org", "show", "966"])["definition"]);
    assert_eq!(operator.refusal(&["org", "export", "77"]).0, 4);
    for unreadable in [&b"\xff"[..], b"id = "] {
        let refused = operator.run_with_input(&["org", "apply", "-"], unreadable);
        let error: serde_json::Value = serde_json::from_slice(&refused.stderr).unwrap();
        assert!(error["error"].as_str().unwrap().starts_with("standard input: "), "{error}");
        assert!([Some(2), Some(3)].contains(&refused.status.code()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_definition_is_refused_and_writes_nothing() {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    let text = common::DEMO_ORG
        .replace("Demo Stores", "Demo\\u001b[2J Stores")
        .replace("national_mobile_length = 10", "national_mobile_length = 14")
        .replace("\"WECHAT-API2\"", "\"wechat-api1\", \" WECHAT-API3\"")
        .replace("[config]", "[config]\nCONF_OTP_LENGTH = 3");
    let (code, message) = operator.refusal(&["org", "apply", &write(&folder, &text)]);
    assert_eq!(code, 3);
    for expected in ["U+001B", "16 digits", "look alike", "write `WECHAT-API3`", "CONF_OTP_LENGTH is 3"] {
        assert!(message.contains(expected), "{expected}: {message}");
    }
    assert!(!message.contains('\u{1b}'), "{message:?}");
    let text = common::DEMO_ORG
        .replace("id = 966", "id = \"966\"")
        .replace("timezone =", "time_zone =")
        .replace("CONF_CARD_NUMBER_LENGTH = 10", "CONF_CARD_NUMBER_LENGTH = \"10\"");
    let (code, message) = operator.refusal(&["org", "apply", &write(&folder, &text)]);
    assert_eq!(code, 3);
    for expected in ["id is \"966\"", "did you mean `timezone`", "CONF_CARD_NUMBER_LENGTH is \"10\""] {
        assert!(message.contains(expected), "{expected}: {message}");
    }
    assert_eq!(operator.json(&["org", "list"]), json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_like_that_of_payment_cards_is_applied_with_a_warning() {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    let plan = "CONF_CARD_NUMBER_LENGTH = 16\nCONF_CARD_NUMBER_PREFIX = \"45\"\n\
                CONF_CARD_CHECKSUM_DIGIT_ALGO = \"LUHN_ALGO\"\nCONF_VALUES_TO_INCLUDE_FOR_CHECKSUM_DIGIT = \"PREFIX\"";
    let file = write(&folder, &common::DEMO_ORG.replace("CONF_CARD_NUMBER_LENGTH = 10", plan));
    let applied = operator.json(&["org", "apply", &file]);
    assert_eq!(applied["result"], "created");
    assert!(applied["warnings"][0].as_str().unwrap().contains("payment cards"), "{applied}");
    let again = operator.run(&["org", "apply", &file]);
    assert!(again.status.success());
    assert_eq!(String::from_utf8(again.stdout).unwrap(), "org 966 unchanged\n");
    let warning = String::from_utf8(again.stderr).unwrap();
    assert!(warning.starts_with("warning: ") && warning.contains("payment cards"), "{warning}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_difference_is_shown_and_applied_from_an_editor() {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, common::DEMO_ORG);
    assert_eq!(operator.json(&["org", "diff", &file])["result"], "created");
    assert_eq!(operator.json(&["org", "list"]), json!([]), "nothing was changed");
    operator.json(&["org", "apply", &file]);
    write(&folder, &common::DEMO_ORG.replace("[config]", "[config]\nCONF_OTP_LENGTH = 6"));
    let difference = operator.json(&["org", "diff", &file]);
    assert_eq!(difference["changes"], json!([{"key": "CONF_OTP_LENGTH", "before": 7, "after": 6}]));
    assert_eq!(operator.json(&["org", "show", "966"])["definition"]["config"]["CONF_OTP_LENGTH"], 7);

    let edit = |editor: &str| {
        let endpoint = operator.table.endpoint();
        let mut command = loyaltyctl(&["--endpoint", &endpoint, "--table", operator.table.name()]);
        finish(command.args(["org", "edit", "966", "--yes"]).env("EDITOR", editor).env_remove("VISUAL"))
    };
    let edited = edit("sed -i s/^CONF_OTP_LENGTH.*/CONF_OTP_LENGTH=8/");
    assert!(edited.status.success(), "{}", String::from_utf8_lossy(&edited.stderr));
    assert_eq!(operator.json(&["org", "show", "966"])["definition"]["config"]["CONF_OTP_LENGTH"], 8);
    let invalid = edit("sed -i s/^CONF_OTP_LENGTH.*/CONF_OTP_LENGTH=99/");
    let message = String::from_utf8(invalid.stderr).unwrap();
    assert!(invalid.status.code() == Some(3) && message.contains("The edited file is "), "{message}");
    let kept = message.rsplit("The edited file is ").next().unwrap().lines().next().unwrap();
    let way_on = format!("`loyaltyctl org apply {kept}`");
    assert!(message.contains(&way_on), "{message}");
    assert!(std::fs::read_to_string(kept).unwrap().contains("CONF_OTP_LENGTH=99"), "what was typed is kept");
    std::fs::remove_file(kept).unwrap();
    assert_eq!(edit("false").status.code(), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_concerns_stored_customers_is_applied_with_a_warning() {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    let full = write(&folder, common::DEMO_ORG);
    let without_wechat = common::DEMO_ORG
        .replace("WECHAT = [\"WECHAT-API1\", \"WECHAT-API2\"]", "")
        .replace("\"WECHAT:WECHAT-API1\", ", "")
        .replace("[sources]", "trunk_prefix = \"0\"\n[sources]");
    let apply = |text: &str| {
        std::fs::write(&full, text).unwrap();
        operator.json(&["org", "apply", &full])
    };
    assert_eq!(apply(common::DEMO_ORG)["result"], "created");
    let empty = apply(&without_wechat);
    assert_eq!((&empty["result"], &empty["warnings"]), (&json!("updated"), &json!([])), "no customer yet");

    assert_eq!(apply(common::DEMO_ORG)["warnings"], json!([]));
    let service = operator.table.service("store.server");
    service.create_till("store.server", 966, Permission::ALL).await;
    let identifiers = json!([{"type": "mobile", "value": common::MOBILE}]);
    let body =
        json!({"profiles": [{"source": "WECHAT", "accountId": "WECHAT-API2", "identifiers": identifiers}]});
    assert_eq!(service.post("/v2/customers", &body).await.status, 200);
    std::fs::write(&full, &without_wechat).unwrap();
    let announced = operator.json(&["org", "diff", &full])["warnings"].clone();
    let warnings = apply(&without_wechat)["warnings"].clone();
    assert_eq!(announced, warnings, "a diff says what apply will say");
    assert_eq!(warnings.as_array().unwrap().len(), 2, "{warnings}");
    assert!(warnings[0].as_str().unwrap().contains("loyaltyctl table upgrade --org 966"), "{warnings}");
    let unreachable = warnings[1].as_str().unwrap();
    assert!(
        unreachable.contains("does not have WECHAT:WECHAT-API1, WECHAT:WECHAT-API2 any more"),
        "{warnings}"
    );
    assert_eq!(apply(&without_wechat)["warnings"], json!([]), "nothing has changed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_too_large_is_reported_with_its_key_and_its_range() {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    for (line, expected) in [
        (
            "CONF_CARD_NUMBER_LENGTH = 50\nCONF_CARD_NUMBER_OFFSET = 9223372036854775807",
            "CONF_CARD_NUMBER_OFFSET is 9223372036854775807, which must be below 9223372036854775807, however",
        ),
        (
            "CONF_CARD_NUMBER_LENGTH = 5\nCONF_CARD_NUMBER_OFFSET = 100000",
            "CONF_CARD_NUMBER_OFFSET is 100000, which does not fit into the 5 digits",
        ),
        ("CONF_CARD_NUMBER_OFFSET = 9223372036854775808", "CONF_CARD_NUMBER_OFFSET"),
        ("CONF_OTP_LENGTH = 99999999999999999999999999", "CONF_OTP_LENGTH"),
    ] {
        let text = common::DEMO_ORG
            .replace("CONF_CARD_NUMBER_LENGTH = 10\n", "")
            .replace("CONF_CARD_NUMBER_OFFSET = 1000000010", line);
        let (code, message) = operator.refusal(&["org", "apply", &write(&folder, &text)]);
        assert_eq!(code, 3, "{message}");
        assert!(message.contains(expected), "{expected}: {message}");
    }
    for (id, problem) in [("4294967296", "0 to 4294967295"), ("-1", "0 to 4294967295")] {
        let text = common::DEMO_ORG.replace("id = 966", &format!("id = {id}"));
        let (code, message) = operator.refusal(&["org", "apply", &write(&folder, &text)]);
        assert_eq!(code, 3, "{message}");
        assert!(message.contains(&format!("id is {id}; it must be a whole number")), "{message}");
        assert!(message.contains(problem), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_does_not_revert_what_was_changed_meanwhile() {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, common::DEMO_ORG);
    operator.json(&["org", "apply", &file]);
    write(&folder, &common::DEMO_ORG.replace("[config]", "[config]\nCONF_OTP_DAILY_LIMIT = 7"));
    // While the editor is open, somebody else applies another file.
    let program = env!("CARGO_BIN_EXE_loyaltyctl");
    let endpoint = operator.table.endpoint();
    let target = format!("--endpoint {endpoint} --table {}", operator.table.name());
    let script = folder.path().join("editor.sh");
    let other = format!("{program} {target} org apply {file}");
    let text = format!("#!/bin/sh\n{other} && sed -i s/^CONF_OTP_LENGTH.*/CONF_OTP_LENGTH=8/ \"$1\"\n");
    std::fs::write(&script, text).unwrap();
    let editor = format!("sh {}", script.display());
    let mut command = loyaltyctl(&["--endpoint", &endpoint, "--table", operator.table.name()]);
    let command = command.args(["org", "edit", "966", "--yes"]).env("EDITOR", editor).env_remove("VISUAL");
    let edited = finish(command);
    let message = String::from_utf8(edited.stderr).unwrap();
    assert_eq!(edited.status.code(), Some(3), "{message}");
    assert!(message.contains("the org was changed since it was read"), "{message}");
    let kept = message.rsplit("The edited file is ").next().unwrap().lines().next().unwrap();
    let way_on = format!("`loyaltyctl org apply {kept}`");
    assert!(message.contains(&way_on), "{message}");
    assert!(std::fs::read_to_string(kept).unwrap().contains("CONF_OTP_LENGTH=8"), "{message}");
    std::fs::remove_file(kept).unwrap();
    let config = operator.json(&["org", "show", "966"])["definition"]["config"].clone();
    assert_eq!((&config["CONF_OTP_DAILY_LIMIT"], &config["CONF_OTP_LENGTH"]), (&json!(7), &json!(7)));
}
