//! Card numbers for printing, the audit, and counters after a restored backup.

use std::{collections::HashSet, fs};

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{NaiveDate, TimeDelta, Utc};
use loyalty_codes::model::{org::OrgId, till::Permission};
use serde_json::{Value, json};

use super::{Operator, common, with_demo_org, write};

impl Operator {
    /// What the audit says of acts of that command, newest first.
    fn acts(&self, what: &str) -> Vec<Value> {
        let entries = self.json(&["audit", "list", "--org", "966"]);
        let entries = entries.as_array().unwrap().iter();
        entries.filter(|entry| entry["what"] == what).cloned().collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn taken_numbers_are_in_the_file_and_are_given_to_nobody_else() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cards.csv");
    let file = file.to_str().unwrap();
    let preview = operator.json(&["numbers", "preview", "--org", "966"]);
    assert_eq!(preview["next"][0], "1000000010");
    assert_eq!(preview["next"].as_array().unwrap().len(), 10);
    assert_eq!((&preview["last"], &preview["left"]), (&json!("9999999999"), &json!(8_999_999_990_u64)));

    let taken = operator.json(&["numbers", "take", "--org", "966", "--count", "500", "--to", file]);
    assert_eq!((&taken["first"], &taken["last"]), (&json!("1000000010"), &json!("1000000509")));
    let text = fs::read_to_string(file).unwrap();
    let (heading, numbers) = text.split_once('\n').unwrap();
    assert_eq!(heading, "number");
    assert_eq!(numbers.lines().collect::<HashSet<_>>().len(), 500);
    operator.json(&["till", "create", "shop.1", "--org", "966", "--allow", "card_number:generate"]);
    assert_eq!(operator.json(&["numbers", "preview", "--org", "966"])["next"][0], "1000000510");

    let act = &operator.acts("numbers take")[0];
    assert_eq!((&act["outcome"], &act["detail"]["first"]), (&json!("done"), &json!(1_000_000_010)));
    assert_eq!(act["id"], taken["id"]);
    let id = taken["id"].as_str().unwrap();
    let again = folder.path().join("again.csv");
    operator.json(&["numbers", "taken", id, "--org", "966", "--to", again.to_str().unwrap()]);
    assert_eq!(fs::read_to_string(again).unwrap(), text, "the same file once more");

    let (code, message) =
        operator.refusal(&["numbers", "take", "--org", "966", "--count", "1", "--to", file]);
    assert!(code == 3 && message.contains("is there already"), "{message}");
    assert_eq!(operator.acts("numbers take").len(), 1, "nothing was taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_says_until_when_the_numbers_last_at_the_rate_of_the_last_month() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    let first = operator.json(&["numbers", "preview", "--org", "966"]);
    assert_eq!((&first["rate"], &first["until"]), (&Value::Null, &Value::Null), "nothing is made up");
    let store = operator.table.store();
    assert_eq!(store.readings(OrgId(966)).await.unwrap().len(), 1, "it is noted for later");

    let counter = store.issued_card_numbers(OrgId(966)).await.unwrap().unwrap();
    let now = Utc::now();
    store.write_reading(OrgId(966), &counter, now - TimeDelta::days(20)).await.unwrap();
    let file = folder.path().join("cards.csv");
    operator.json(&["numbers", "take", "--org", "966", "--count", "1000", "--to", file.to_str().unwrap()]);
    let preview = operator.json(&["numbers", "preview", "--org", "966"]);
    assert_eq!(preview["rate"]["numbers"], 1000);
    let per_day = preview["rate"]["per_day"].as_f64().unwrap();
    assert!((49.9..50.1).contains(&per_day), "{per_day}");
    assert_eq!(preview["until"], Value::Null, "in half a million years");

    // The next plan has a tenth of a million numbers.
    let plan = common::DEMO_ORG
        .replace("CONF_CARD_NUMBER_LENGTH = 10", "CONF_CARD_NUMBER_LENGTH = 5")
        .replace("CONF_CARD_NUMBER_OFFSET = 1000000010", "CONF_CARD_NUMBER_OFFSET = 0");
    let file = write(&folder, &plan);
    let planned = operator.json(&["numbers", "preview", "--org", "966", "--file", &file]);
    let until: NaiveDate = planned["until"].as_str().unwrap().parse().unwrap();
    let days = (until - now.date_naive()).num_days();
    assert!((1990..=2010).contains(&days), "{days} days for 100,000 numbers at 50 a day");
    let text = String::from_utf8(operator.run(&["numbers", "preview", "--org", "966"]).stdout).unwrap();
    assert!(text.contains("until\tmore than a hundred years, at the rate of 1000 since "), "{text}");

    operator.json(&["table", "restored", "--margin", "1000", "--yes"]);
    let preview = operator.json(&["numbers", "preview", "--org", "966"]);
    assert_eq!(preview["rate"], Value::Null, "what a restore skips was not given");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_numbers_are_taken_for_a_folder_that_cannot_be_written() {
    let operator = with_demo_org().await;
    let take = ["numbers", "take", "--org", "966", "--count", "5", "--to", "/nowhere/cards.csv"];
    let (code, message) = operator.refusal(&take);
    assert!(code == 1 && message.contains("/nowhere/cards.csv"), "{message}");
    assert_eq!(operator.acts("numbers take").len(), 0);
    assert_eq!(operator.json(&["numbers", "preview", "--org", "966"])["next"][0], "1000000010");
}

#[tokio::test(flavor = "multi_thread")]
async fn taken_numbers_are_written_again_to_another_file() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let taken =
        operator.json(&["numbers", "take", "--org", "966", "--count", "5", "--to", &path("cards.csv")]);
    fs::remove_file(path("cards.csv")).unwrap();
    let id = taken["id"].as_str().unwrap();
    operator.json(&["numbers", "taken", id, "--org", "966", "--to", &path("again.csv")]);
    assert_eq!(fs::read_to_string(path("again.csv")).unwrap().lines().count(), 6);
    assert_eq!(operator.refusal(&["numbers", "taken", "nothing", "--org", "966", "--to", "x"]).0, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_numbers_than_are_left_are_refused_and_nothing_is_taken() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    let small = common::DEMO_ORG.replace("= 1000000010", "= 9999999990");
    operator.json(&["org", "apply", &write(&folder, &small)]);
    let file = folder.path().join("cards.csv");
    let take = |count| {
        operator.refusal(&[
            "numbers",
            "take",
            "--org",
            "966",
            "--count",
            count,
            "--to",
            file.to_str().unwrap(),
        ])
    };
    let (code, message) = take("11");
    assert!(code == 3 && message.contains("fewer than 11"), "{message}");
    assert!(!file.exists());
    assert_eq!(take("10").0, 0, "as many as are left");
    assert_eq!(take("1").0, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_checked_against_every_plan_of_the_org() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cards.csv");
    operator.json(&["numbers", "take", "--org", "966", "--count", "3", "--to", file.to_str().unwrap()]);
    let luhn = common::DEMO_ORG.replace(
        "CONF_CARD_NUMBER_LENGTH = 10",
        "CONF_CARD_NUMBER_LENGTH = 12\nCONF_CARD_CHECKSUM_DIGIT_ALGO = \"LUHN_ALGO\"",
    );
    operator.json(&["org", "apply", &write(&folder, &luhn)]);
    let check = |number: &str| operator.json(&["numbers", "check", number, "--org", "966"]);
    let found = |number: &str, customer: Value, plan: Value, given: bool, digit: &str| json!({"number": number, "customer": customer, "erased": null, "plan": plan, "given": given, "check_digit": digit});
    assert_eq!(check("1000000011"), found("1000000011", Value::Null, json!("earlier"), true, "none"));
    assert_eq!(check("1000000013"), found("1000000013", Value::Null, json!("earlier"), false, "none"));
    let next = operator.json(&["numbers", "preview", "--org", "966"])["next"][0].as_str().unwrap().to_owned();
    assert_eq!(check(&next), found(&next, Value::Null, json!("current"), false, "right"));
    let (body, digit) = next.split_at(11);
    let wrong = format!("{body}{}", (digit.parse::<u8>().unwrap() + 1) % 10);
    assert_eq!(check(&wrong), found(&wrong, Value::Null, Value::Null, false, "wrong"));

    let service = operator.table.service("shop.1");
    service.create_till("shop.1", 966, Permission::ALL).await;
    let identifiers =
        json!([{"type": "mobile", "value": common::MOBILE}, {"type": "externalId", "value": "CARD-1"}]);
    let profile = json!({"source": "INSTORE", "identifiers": identifiers});
    let registered = service.post("/v2/customers", &json!({"profiles": [profile]})).await;
    assert_eq!(check("CARD-1")["customer"], registered.json["createdId"]);

    let body = json!({"profiles": [{"source": "INSTORE", "identifiers": [{"type": "mobile", "value": "9010000022"}]}]});
    let user = service.post("/v2/customers", &body).await.json["createdId"].to_string();
    let number = &operator.json(&["customer", "show", &user, "--org", "966", "--reveal"])["external_id"];
    let number = number.as_str().unwrap_or(&next).to_owned();
    operator.json(&["customer", "erase", &user, "--org", "966", "--yes", "--settle", "0"]);
    assert_eq!(check(&number)["erased"].to_string(), user, "nobody gets it again");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restored_backup_no_number_comes_twice() {
    let operator = with_demo_org().await;
    let service = operator.table.service("shop.1");
    service.create_till("shop.1", 966, Permission::ALL).await;
    let (client, table) = (operator.table.client(), operator.table.name());
    let mut backup = Vec::new();
    for pk in ["ORG#966#COUNTER#CARD_NUMBER", "ORG#966#COUNTER#USER_ID"] {
        let read = client.get_item().table_name(table).key("PK", AttributeValue::S(pk.to_owned()));
        let read = read.key("SK", AttributeValue::S("COUNTER".to_owned()));
        backup.push(read.send().await.unwrap().item.unwrap());
    }
    let mut given = HashSet::new();
    for _ in 0..50 {
        given.insert(service.get("/v2/cardNumber").await.json["entity"].as_str().unwrap().to_owned());
    }
    for item in backup {
        client.put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
    }
    let restored = operator.json(&["table", "restored", "--margin", "1000", "--yes"]);
    assert_eq!(restored["orgs"], json!([{"org": 966, "card_numbers": 1_000_001_010, "user_ids": 1001}]));
    let other = operator.table.service("shop.1");
    for _ in 0..50 {
        let number = other.get("/v2/cardNumber").await.json["entity"].as_str().unwrap().to_owned();
        assert!(given.insert(number.clone()), "{number} was given before");
    }
    let (code, message) = operator.refusal(&["table", "restored"]);
    assert!(code == 3 && message.contains("--yes"), "{message}");
    assert_eq!(operator.acts("table restored").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_act_of_an_operator_is_in_the_audit_with_who_did_it() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    write(&folder, &common::DEMO_ORG.replace("[config]", "[config]\nCONF_OTP_LENGTH = 6"));
    let file = folder.path().join("org.toml");
    operator.json(&["org", "apply", file.to_str().unwrap()]);
    let created = operator.json(&["till", "create", "shop.1", "--org", "966", "--allow", "otp:fetch"]);
    operator.json(&["till", "rotate", "shop.1"]);
    operator.json(&["till", "revoke", "--yes", "shop.1", "--old"]);
    let (_, message) =
        operator.refusal(&["till", "create", "shop.1", "--org", "966", "--allow", "otp:fetch"]);
    assert!(message.contains("already"), "{message}");
    let entries = operator.json(&["audit", "list", "--org", "966"]);
    let acts: Vec<_> =
        entries.as_array().unwrap().iter().rev().map(|e| e["what"].as_str().unwrap()).collect();
    assert_eq!(acts, ["org apply", "org apply", "till create", "till rotate", "till revoke"]);
    assert_eq!(entries[3]["detail"]["changed"], json!(["CONF_OTP_LENGTH"]));
    for entry in entries.as_array().unwrap() {
        assert!(entry["who"].as_str().unwrap().contains("uid "), "{entry}");
        assert_eq!(entry["outcome"], "done");
    }
    assert!(!entries.to_string().contains(created["password"].as_str().unwrap()));
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_of_all_orgs_are_raised_or_of_none() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    let small = common::DEMO_ORG
        .replace("id = 966", "id = 967")
        .replace("CONF_CARD_NUMBER_LENGTH = 10", "CONF_CARD_NUMBER_LENGTH = 3")
        .replace("CONF_CARD_NUMBER_OFFSET = 1000000010", "CONF_CARD_NUMBER_OFFSET = 500");
    operator.json(&["org", "apply", &write(&folder, &small)]);
    let next = |org: &str| operator.json(&["numbers", "preview", "--org", org])["next"][0].clone();
    for _ in 0..2 {
        let (code, message) = operator.refusal(&["table", "restored", "--margin", "1000", "--yes"]);
        assert!(
            code == 3 && message.contains("are left in org 967; no counter of any org was raised"),
            "{message}"
        );
        assert_eq!((next("966"), next("967")), (json!("1000000010"), json!("500")));
    }
    operator.json(&["table", "restored", "--margin", "100", "--org", "967", "--yes"]);
    operator.json(&["table", "restored", "--margin", "1000", "--org", "966", "--yes"]);
    assert_eq!((next("966"), next("967")), (json!("1000001010"), json!("600")));
    assert_eq!(operator.refusal(&["table", "restored", "--org", "9", "--yes"]).0, 4);

    // A plan that is used up gives no number twice.
    let file = folder.path().join("rest.csv");
    operator.json(&["numbers", "take", "--org", "967", "--count", "400", "--to", file.to_str().unwrap()]);
    let raised = operator.json(&["table", "restored", "--margin", "1000", "--yes"]);
    assert_eq!(raised["orgs"][1]["card_numbers"], 1000, "{raised}");
}
