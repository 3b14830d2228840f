//! What support and privacy ask: finding, showing, exporting, erasing and merging customers, and
//! their OTPs.

use std::{
    collections::HashMap,
    process::Stdio,
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::Utc;
use loyalty_codes::{
    model::{
        delivery_state::{ChannelState, FailureReason, Outcome},
        org::OrgId,
        otp::CreatedId,
        till::Permission,
    },
    store::{StateChange, keys},
};
use serde_json::{Value, json};

use super::{
    Operator,
    common::{
        self, MOBILE, TestService, USER,
        faults::{Fault, Faults, with_fault_proxy},
        served::{HANG_TIMEOUT, loyaltyctl},
    },
    finish,
    output::wait,
    write,
};

const DELIVERY: &str = "\n[delivery]\nSMS = \"aws\"\nEMAIL = \"aws\"\n[delivery.aws]\nsms_origination = \"LOYALTY\"\n\
                        email_from = \"otp@example.com\"\n";

/// An operator with the demo org, whose messages are stored, the demo customer, and a service whose
/// clock shows the time.
pub async fn with_customer() -> (Operator, TestService) {
    let operator = Operator::new().await;
    let table = &operator.table;
    table.clock.advance(Utc::now() - table.clock.now());
    let folder = tempfile::tempdir().unwrap();
    operator.json(&["org", "apply", &write(&folder, &format!("{}{DELIVERY}", common::DEMO_ORG))]);
    let service = table.service("store.server");
    service.create_till("store.server", 966, Permission::ALL).await;
    let counter = keys::user_id_counter(OrgId(966)).attributes();
    let set = service.client.update_item().table_name(table.name()).set_key(Some(counter));
    let first = AttributeValue::N(USER.to_string());
    let set = set.update_expression("SET #n = :first").expression_attribute_names("#n", "next");
    set.expression_attribute_values(":first", first).send().await.unwrap();
    service.register_demo_customer().await;
    (operator, service)
}

pub async fn generate(service: &TestService, mobile: &str, scope: &str) -> u64 {
    let body = json!({
        "entityType": "MOBILE", "entityValue": mobile, "action": scope,
        "channels": [{"type": "SMS", "value": mobile}],
    });
    let answer = service.post("/v2/otp/generate", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json["createdId"].as_u64().unwrap()
}

fn text(operator: &Operator, arguments: &[&str]) -> String {
    let output = operator.run(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The newest act in the audit.
fn last_act(operator: &Operator) -> Value {
    operator.json(&["audit", "list", "--org", "966"])[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_found_by_any_identifier_in_any_spelling() {
    let (operator, service) = with_customer().await;
    let find = |kind: &str, value: &str| operator.json(&["customer", "find", "--org", "966", kind, value]);
    for (kind, value) in [
        ("mobile", "+91 87993-61139"),
        ("MOBILE", "８７９９３６１１３９"),
        ("email", " Tom@Example.COM "),
        ("externalId", "CARD\u{2011}1"),
        ("external_id", "CARD-1"),
        ("cardnumber", "CARD-1"),
        ("wechat", "openid-1"),
    ] {
        let found = find(kind, value);
        assert_eq!(found["customers"][0]["id"], USER, "{kind} {value}: {found}");
        assert_eq!(found["contact"], false);
    }
    let accounts = ["INSTORE:", "MARTJACK:SHOP", "WECHAT:WECHAT-API1"];
    let mut found = find("mobile", MOBILE)["customers"][0]["accounts"].clone();
    found.as_array_mut().unwrap().sort_by_key(ToString::to_string);
    assert_eq!(found, json!(accounts));
    let line = text(&operator, &["customer", "find", "--org", "966", "mobile", MOBILE]);
    assert!(line.starts_with("313302314\t"), "{line}");

    generate(&service, "9010000022", "REGISTRATION").await;
    let found = find("mobile", "9010000022");
    assert_eq!(found, json!({"customers": [], "contact": true, "otps": 1}));
    let refusal = |arguments: &[&str]| operator.refusal(arguments);
    let (code, message) = refusal(&["customer", "find", "--org", "966", "mobile", "9010000033"]);
    assert!(code == 4 && message.contains("nobody has it"), "{message}");
    assert_eq!(refusal(&["customer", "find", "--org", "77", "mobile", MOBILE]).0, 4);
    let (code, message) = refusal(&["customer", "find", "--org", "966", "mobile", "08799361139"]);
    assert!(code == 2 && message.contains("that is no mobile: 10 digits, or + and"), "{message}");
    assert!(message.contains("org 966 has no trunk_prefix"), "{message}");
    assert_eq!(refusal(&["customer", "find", "--org", "966", "fax", "12"]).0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_otps_of_a_customer_are_listed_without_codes_and_addresses() {
    let (operator, service) = with_customer().await;
    let open = generate(&service, MOBILE, "POINTS").await;
    let code = service.code().await;
    let contact = generate(&service, MOBILE, "REGISTRATION").await;
    let validated = generate(&service, MOBILE, "COUPON").await;
    let coupon = format!("/v2/otp?source=INSTORE&mobile={MOBILE}&scope=COUPON");
    let right = service.get(&coupon).await.json["code"].as_str().unwrap().to_owned();
    let body = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "COUPON", "code": right});
    assert_eq!(service.post("/v2/otp/validate", &body).await.json["entity"], true);
    for _ in 0..5 {
        assert!(!service.is_right("WRONG").await);
    }
    // As the delivery function would have stored it.
    let key = keys::message(&common::demo_series(), CreatedId(open), 1);
    let to = ChannelState::Done(Outcome::Failed(FailureReason::OptedOut));
    assert!(service.store.change_states(&key, &[StateChange { position: 0, from: None, to }]).await.unwrap());

    let user = USER.to_string();
    let listed = operator.json(&["otp", "list", "--org", "966", &user]);
    let own = &listed["owners"][0];
    assert_eq!(own["owner"], json!({"customer": USER}));
    let find = |owner: &Value, id: u64| {
        let otps = owner["otps"].as_array().unwrap().iter();
        otps.clone().find(|otp| otp["created_id"] == id).unwrap_or_else(|| panic!("{owner}")).clone()
    };
    let otp = find(own, open);
    assert_eq!((&otp["scope"], &otp["state"]), (&json!("POINTS"), &json!("open")));
    let message = json!({"channel": "SMS", "to": "********1139", "state": "failed", "detail": "opted_out"});
    assert_eq!(otp["messages"][0]["channels"], json!([message]));
    assert_eq!(find(own, validated)["state"], "validated");
    assert_eq!(own["guesses"][0]["scope"], "POINTS");
    assert_eq!(own["guesses"][0]["wrong"].as_array().unwrap().len(), 5);
    assert!(own["guesses"][0]["locked_until"].is_string());
    assert_eq!(own["quotas"][0]["issued"], 2);
    assert_eq!(find(&listed["owners"][1], contact)["messages"][0]["channels"][0]["state"], "queued");

    let shown = text(&operator, &["otp", "list", "--org", "966", &user]);
    for expected in [
        "failed: opted_out",
        "queued",
        "validated",
        "POINTS, customer: too many wrong guesses (5): no code is checked until ",
        "failed: opted_out: The customer has asked the provider for no more messages. ",
        "customer: 2 of 10 OTPs of ",
        "mobile ********1139, unregistered: 1 of 10 OTPs of ",
    ] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    for secret in [code.as_str(), right.as_str(), "8799361139"] {
        assert!(!shown.contains(secret) && !listed.to_string().contains(secret), "{shown}");
    }
    let of_contact = operator.json(&["otp", "list", "--org", "966", "--contact", "mobile", MOBILE]);
    assert_eq!(of_contact["customers"], json!([USER]));
    assert_eq!(of_contact["owners"][0]["otps"].as_array().unwrap().len(), 1);
    assert_eq!(operator.refusal(&["otp", "list", "--org", "966", "5"]).0, 4);
    let (code, message) = operator.refusal(&["otp", "list", "--org", "966"]);
    assert!(code == 2 && message.contains("--contact mobile"), "{message}");
    let (code, message) = operator.refusal(&["audit", "list", "--org", "999"]);
    assert!(code == 4 && message.contains("999"), "{message}");
    let acts = text(&operator, &["audit", "list", "--org", "966"]);
    assert!(!acts.contains('{') && acts.contains("result: ") && acts.contains("+05:30\t"), "{acts}");
    assert_eq!(operator.refusal(&["otp", "list", "--org", "966", "5", "--contact", "mobile", MOBILE]).0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_was_refused_for_a_limit_can_be_explained() {
    let (operator, service) = with_customer().await;
    let shown = |arguments: &[&str]| text(&operator, &[&["otp", "list", "--org", "966"], arguments].concat());
    let user = USER.to_string();
    assert!(shown(&[&user]).starts_with("no OTPs of the last days: "), "{}", shown(&[&user]));
    let folder = tempfile::tempdir().unwrap();
    let limits = "[config]\nCONF_OTP_DAILY_LIMIT = 2\nCONF_OTP_COOLDOWN_SECONDS = 3600";
    let org = common::DEMO_ORG.replacen("[config]", limits, 1);
    operator.json(&["org", "apply", &write(&folder, &format!("{org}{DELIVERY}"))]);
    let service = service.another_process();
    generate(&service, MOBILE, "POINTS").await;
    generate(&service, "9010000022", "REGISTRATION").await;
    let contact = ["--contact", "mobile", "9010000022"];
    for line in [shown(&[&user]), shown(&contact)] {
        assert!(line.contains(": an OTP was sent ") && line.contains(": the next one in "), "{line}");
    }
    generate(&service, MOBILE, "COUPON").await;
    let line = shown(&[&user]);
    assert!(line.contains("customer: 2 of 2 OTPs of ") && line.contains(": the next one at "), "{line}");
    let limits = operator.json(&["customer", "show", "--org", "966", &user])["limits"].clone();
    let of_day = limits.as_array().unwrap().iter().find(|limit| limit["what"] == "otps_of_day").unwrap();
    assert!(of_day["count"] == 2 && of_day["limit"] == 2 && of_day["free_at"].is_string(), "{limits}");
}

#[tokio::test(flavor = "multi_thread")]
async fn revoked_otps_are_not_validated_and_not_fetched() {
    let (operator, service) = with_customer().await;
    let points = generate(&service, MOBILE, "POINTS").await;
    let coupon = generate(&service, MOBILE, "COUPON").await;
    let contact = generate(&service, MOBILE, "REGISTRATION").await;
    let code = service.code().await;
    let user = USER.to_string();
    let revoked = operator.json(&["otp", "revoke", "--yes", "--org", "966", &user, "--scope", "POINTS"]);
    assert_eq!(revoked, json!({"revoked": [points]}));
    assert_eq!(service.fetch().await.refusal(), (404, vec![9001]));
    assert!(!service.is_right(&code).await);
    let act = last_act(&operator);
    assert_eq!((&act["what"], &act["outcome"]), (&json!("otp revoke"), &json!("done")));
    assert_eq!(act["detail"], json!({"customer": USER, "scope": "POINTS", "revoked": [points]}));

    let mut revoked = operator.json(&["otp", "revoke", "--yes", "--org", "966", &user])["revoked"].clone();
    revoked.as_array_mut().unwrap().sort_by_key(Value::as_u64);
    assert_eq!(revoked, json!([coupon.min(contact), coupon.max(contact)]));
    assert_eq!(operator.json(&["otp", "revoke", "--yes", "--org", "966", &user]), json!({"revoked": []}));
    let listed = operator.json(&["otp", "list", "--org", "966", &user]).to_string();
    assert!(
        listed.contains("revoked") && listed.contains("not_sent") && !listed.contains("\"open\""),
        "{listed}"
    );

    let other = generate(&service, "9010000022", "REGISTRATION").await;
    let of_contact = ["otp", "revoke", "--yes", "--org", "966", "--contact", "mobile", "+91 90100 00022"];
    assert_eq!(operator.json(&of_contact), json!({"revoked": [other]}));
    let act = last_act(&operator);
    assert_eq!(act["detail"], json!({"contact": "mobile", "revoked": [other]}));
    assert!(!operator.json(&["audit", "list", "--org", "966"]).to_string().contains("9010000022"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unlocked_customer_can_validate_again() {
    let (operator, service) = with_customer().await;
    generate(&service, MOBILE, "POINTS").await;
    for _ in 0..5 {
        assert!(!service.is_right("WRONG").await);
    }
    let code = service.code().await;
    assert_eq!(service.validate(&code).await.status, 429);
    let user = USER.to_string();
    let events = operator.json(&["customer", "timeline", "--org", "966", &user]);
    let at = |what: &str| events.as_array().unwrap().iter().position(|event| event["what"] == what).unwrap();
    assert!(
        at("locked") < at("refused") && at("message") < at("issued"),
        "newest first, effects too: {events}"
    );
    let unlock = |scope: &str| operator.json(&["otp", "unlock", "--org", "966", &user, "--scope", scope]);
    assert_eq!(unlock("COUPON"), json!({"unlocked": []}));
    assert_eq!(service.validate(&code).await.status, 429);
    assert_eq!(unlock("POINTS"), json!({"unlocked": ["POINTS"]}));
    for _ in 0..4 {
        assert!(!service.is_right("WRONG").await, "the guesses before do not count");
    }
    assert!(service.is_right(&code).await);
    assert_eq!(
        last_act(&operator)["detail"],
        json!({"customer": USER, "scope": "POINTS", "unlocked": ["POINTS"]})
    );
    let events = operator.json(&["customer", "timeline", "--org", "966", &user]);
    let unlocked = events.as_array().unwrap().iter().find(|event| event["what"] == "unlocked").unwrap();
    assert_eq!(unlocked["detail"], "POINTS", "what the unlock has deleted: {events}");
    let issued = events.as_array().unwrap().iter().find(|event| event["what"] == "issued").unwrap();
    assert!(issued["detail"].as_str().unwrap().starts_with("valid until "), "{events}");
    let line = text(&operator, &["otp", "unlock", "--org", "966", "--contact", "mobile", "9010000022"]);
    assert_eq!(line.trim(), "there were no wrong guesses");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_shown_masked_until_it_is_asked_for() {
    let (operator, service) = with_customer().await;
    generate(&service, MOBILE, "POINTS").await;
    let user = USER.to_string();
    let shown = text(&operator, &["customer", "show", "--org", "966", &user]);
    for expected in ["customer 313302314", "********1139", "t**@example.com", "T**", "OTPs: 1 open"] {
        assert!(shown.contains(expected), "{expected}: {shown}");
    }
    let personal = ["8799361139", "tom@example.com", "openid-1", "CARD-1", "Tom"];
    let json = operator.json(&["customer", "show", "--org", "966", &user]);
    for value in personal {
        assert!(!shown.contains(value) && !json.to_string().contains(value), "{value}: {shown}");
    }
    let timeline = operator.json(&["customer", "timeline", "--org", "966", &user]);
    let happened: Vec<_> = timeline.as_array().unwrap().iter().map(|event| event["what"].clone()).collect();
    assert_eq!(happened.len(), 3, "{timeline}");
    for what in ["registered", "issued", "message"] {
        assert!(happened.contains(&json!(what)), "{timeline}");
    }
    assert!(timeline.to_string().contains("SMS to ********1139 queued"), "{timeline}");
    assert_eq!(last_act(&operator)["what"], "org apply", "nothing was revealed");
    let revealed = text(&operator, &["customer", "show", "--org", "966", &user, "--reveal"]);
    let exported = operator.json(&["customer", "export", "--org", "966", &user]);
    for value in personal {
        assert!(revealed.contains(value) && exported.to_string().contains(value), "{value}: {revealed}");
    }
    let acts = operator.json(&["audit", "list", "--org", "966"]);
    assert_eq!((&acts[0]["what"], &acts[1]["what"]), (&json!("customer export"), &json!("customer show")));
    assert_eq!(acts[0]["detail"], json!({"customer": USER}));
    let code = service.code().await;
    assert!(!exported.to_string().contains(&code) && !exported.to_string().contains("validation is"));
    assert_eq!(exported["otps"][0]["otps"][0]["messages"][0]["channels"][0]["to"], "918799361139");
    assert_eq!(exported["otps"][0]["quotas"][0]["issued"], 1);
    let pretty = text(&operator, &["customer", "export", "--org", "966", &user]);
    assert_eq!(serde_json::from_str::<Value>(&pretty).unwrap()["identifiers"], exported["identifiers"]);
    for command in ["show", "export"] {
        assert_eq!(operator.refusal(&["customer", command, "--org", "966", "5"]).0, 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_customer_is_gone_and_the_command_can_be_repeated() {
    let (operator, service) = with_customer().await;
    generate(&service, MOBILE, "POINTS").await;
    let user = USER.to_string();
    let (code, message) = operator.refusal(&["customer", "erase", "--org", "966", &user]);
    assert!(code == 3 && message.contains("--yes"), "{message}");
    let erase = ["customer", "erase", "--org", "966", &user, "--yes", "--settle", "0"];
    let erased = operator.json(&erase);
    assert_eq!((&erased["result"], &erased["numbers_kept"]), (&json!("erased"), &json!(0)));
    assert!(erased["deleted"].as_u64().unwrap() >= 2, "{erased}");
    assert_eq!(service.fetch().await.refusal(), (404, vec![8015]));
    assert_eq!(operator.json(&erase)["result"], "unchanged");
    assert_eq!(operator.refusal(&["customer", "find", "--org", "966", "mobile", MOBILE]).0, 4);
    let shown = text(&operator, &["customer", "show", "--org", "966", &user]);
    assert!(shown.starts_with("customer 313302314 was erased at "), "{shown}");
    let acts = operator.json(&["audit", "list", "--org", "966"]);
    let act = &acts[1];
    assert_eq!((&act["what"], &act["outcome"]), (&json!("customer erase"), &json!("done")));
    assert_eq!(act["detail"], json!({"customer": USER, "deleted": erased["deleted"], "numbers_kept": 0}));
    let (code, _) = operator.refusal(&["customer", "erase", "--org", "966", "5", "--yes"]);
    assert_eq!(code, 4);
}

/// Runs a command that reaches the operator's table through a proxy. Returns the exit code and the
/// message.
fn through(faults: &Faults, operator: &Operator, arguments: &[&str]) -> (i32, String) {
    let mut command = loyaltyctl(&["--endpoint", &faults.endpoint(), "--table", operator.table.name()]);
    let output = finish(command.args(arguments));
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_late_requests_have_written_is_deleted_half_a_minute_later() {
    let (operator, service) = with_customer().await;
    let (user, began) = (USER.to_string(), Instant::now());
    let (endpoint, settle) = (operator.table.endpoint(), Duration::from_secs(2));
    let target = ["--endpoint", &endpoint, "--table", operator.table.name()];
    let arguments = ["customer", "erase", "--org", "966", &user, "--yes", "--settle", "2"];
    let erasing = loyaltyctl(&target).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    while service.fetch().await.refusal() != (404, vec![8015]) {
        assert!(began.elapsed() < HANG_TIMEOUT, "it is not erased");
    }
    let key = |sk: &str| {
        let pk = format!("ORG#966#USER#{USER}");
        [("PK", pk), ("SK", sk.to_owned())].map(|(name, value)| (name.to_owned(), AttributeValue::S(value)))
    };
    let late = HashMap::from(key("OTP#LATE"));
    let put = service.client.put_item().table_name(operator.table.name());
    put.set_item(Some(late.clone())).send().await.unwrap();
    let shown = text(&operator, &["customer", "show", "--org", "966", &user]);
    assert!(shown.starts_with("customer 313302314 is being erased since "), "{shown}");
    assert!(wait(erasing).status.success());
    assert!(began.elapsed() >= settle, "{:?}", began.elapsed());
    let get = service.client.get_item().table_name(operator.table.name()).set_key(Some(late));
    assert_eq!(get.send().await.unwrap().item, None);
    let shown = text(&operator, &["customer", "show", "--org", "966", &user]);
    assert!(shown.starts_with("customer 313302314 was erased at "), "{shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_says_what_was_done_before_a_failure() {
    let (operator, service) = with_customer().await;
    let (_service, faults) = with_fault_proxy(&operator.table, "store.server").await;
    let user = USER.to_string();
    let ids = [generate(&service, MOBILE, "POINTS").await, generate(&service, MOBILE, "COUPON").await];
    for scope in ["POINTS", "COUPON"] {
        let guess =
            json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": scope, "code": "WRONG00"});
        assert_eq!(service.post("/v2/otp/validate", &guess).await.json["entity"], false);
    }
    // The first update is done, and the second one is refused.
    let one_update = || {
        let mut updates = 0;
        faults.inject(move |operation, _| {
            updates += usize::from(operation == "UpdateItem");
            (operation == "UpdateItem" && updates > 1).then(|| Fault::error("AccessDeniedException"))
        });
    };
    for command in ["revoke", "unlock"] {
        one_update();
        let arguments: &[&str] = if command == "revoke" { &["--yes"] } else { &[] };
        let (code, message) =
            through(&faults, &operator, &[&["otp", command, "--org", "966", &user][..], arguments].concat());
        assert!(code == 1 && message.contains("AccessDenied"), "{message}");
        let act = last_act(&operator);
        assert_eq!(act["outcome"], "failed", "{act}");
        let done = if command == "revoke" { &act["detail"]["revoked"] } else { &act["detail"]["unlocked"] };
        assert_eq!(done.as_array().unwrap().len(), 1, "{act}");
        assert!(command == "unlock" || ids.contains(&done[0].as_u64().unwrap()), "{act}");
    }
    faults.inject(|operation, _| (operation == "UpdateItem").then(|| Fault::error("AccessDeniedException")));
    let erase = ["customer", "erase", "--org", "966", &user, "--yes", "--settle", "0"];
    let (code, message) = through(&faults, &operator, &erase);
    assert!(code == 1 && message.contains("Run the command again"), "{message}");
    let act = last_act(&operator);
    assert_eq!(act["outcome"], "failed", "{act}");
    assert!(act["detail"]["deleted"].as_u64().unwrap() > 2 && act["detail"]["numbers_kept"] == 0, "{act}");
    assert_eq!(service.fetch().await.refusal(), (404, vec![8015]));
    assert_eq!(operator.json(&erase)["result"], "erased");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_deletes_what_an_interrupted_merge_has_left() {
    let (operator, service) = with_customer().await;
    let (_service, faults) = with_fault_proxy(&operator.table, "store.server").await;
    let mut kept = Vec::new();
    for mobile in ["9010000022", "9010000033"] {
        let identifiers = json!([{"type": "mobile", "value": mobile}]);
        let body = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
        kept.push(service.post("/v2/customers", &body).await.json["createdId"].as_u64().unwrap().to_string());
    }
    generate(&service, MOBILE, "POINTS").await;
    faults.inject(|operation, _| (operation == "DeleteItem").then(|| Fault::error("AccessDeniedException")));
    let merge =
        ["customer", "merge", "--org", "966", &kept[0], &USER.to_string(), "--yes", "--as-card-number"];
    assert_eq!(through(&faults, &operator, &merge).0, 1);
    assert_eq!(operator.table.items("MESSAGE#").await.len(), 1, "the merge has left a message");
    operator.json(&["customer", "merge", "--org", "966", &kept[1], &kept[0], "--yes", "--as-card-number"]);
    operator.json(&["customer", "erase", "--org", "966", &kept[1], "--yes", "--settle", "0"]);
    assert_eq!(operator.table.items("MESSAGE#").await.len(), 0);
    assert!(!operator.table.items("").await.iter().any(|item| item.contains_key("code")));
}

#[tokio::test(flavor = "multi_thread")]
async fn merged_customers_are_one() {
    let (operator, service) = with_customer().await;
    let register = async |mobile: &str| {
        let identifiers = json!([{"type": "mobile", "value": mobile}]);
        let body = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
        service.post("/v2/customers", &body).await.json["createdId"].as_u64().unwrap()
    };
    let (a, b) = (USER.to_string(), register("9010000022").await.to_string());
    let merge = ["customer", "merge", "--org", "966", &a, &b, "--yes"];
    let (code, message) = operator.refusal(&merge);
    assert!(
        code == 3 && message.contains("external ID") && message.contains("--as-card-number"),
        "{message}"
    );
    let act = last_act(&operator);
    assert_eq!((&act["outcome"], &act["detail"]["reason"]), (&json!("failed"), &json!("refused")));
    let done = operator.json(&[&merge[..], &["--as-card-number"]].concat());
    assert_eq!((&done["result"], &done["identifiers"]), (&json!("merged"), &json!(2)));
    assert_eq!(operator.json(&merge)["result"], "unchanged");
    let events = operator.json(&["customer", "timeline", "--org", "966", &a]);
    let merges: Vec<_> =
        events.as_array().unwrap().iter().filter(|event| event["what"] == "merged_with").collect();
    assert!(merges[0]["detail"].as_str().unwrap().contains(&b), "{events}");
    let found = operator.json(&["customer", "find", "--org", "966", "mobile", "9010000022"]);
    assert_eq!(found["customers"][0]["id"], USER);
    let shown = text(&operator, &["customer", "show", "--org", "966", &b]);
    assert!(shown.starts_with(&format!("customer {b} was merged into {USER} at ")), "{shown}");
    let (code, message) = operator.refusal(&["customer", "erase", "--org", "966", &b, "--yes"]);
    assert!(code == 3 && message.contains(&a), "{message}");
    assert_eq!(operator.refusal(&["customer", "merge", "--org", "966", &a, "5", "--yes"]).0, 4);
    let (code, message) = operator.refusal(&["customer", "merge", "--org", "966", &a, &b]);
    assert!(code == 3 && message.contains("--yes"), "{message}");
    operator.json(&["customer", "erase", "--org", "966", &a, "--yes", "--settle", "0"]);
    let (code, message) = operator.refusal(&["customer", "erase", "--org", "966", &b, "--yes"]);
    let gone = format!("customer {b} was merged into {a}, who was erased at ");
    assert!(code == 3 && message.contains(&gone), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merge_whose_answer_is_lost_is_said_to_be_uncertain_and_can_be_repeated() {
    let (operator, service) = with_customer().await;
    let (_service, faults) = with_fault_proxy(&operator.table, "store.server").await;
    let identifiers = json!([{"type": "mobile", "value": "9010000022"}]);
    let body = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
    let other = service.post("/v2/customers", &body).await.json["createdId"].as_u64().unwrap().to_string();
    // DynamoDB is lost with the answer of the transaction.
    let mut is_lost = false;
    faults.inject(move |operation, _| {
        let was_lost = is_lost;
        is_lost |= operation == "TransactWriteItems";
        match (was_lost, is_lost) {
            (false, true) => Some(Fault::ResetBeforeAnswer),
            (true, _) if operation != "PutItem" => Some(Fault::Reset),
            _ => None,
        }
    });
    let merge = ["customer", "merge", "--org", "966", &USER.to_string(), &other, "--yes", "--as-card-number"];
    let (code, message) = through(&faults, &operator, &merge);
    assert!(code == 1 && message.contains("may be merged all the same"), "{message}");
    let act = last_act(&operator);
    assert_eq!((&act["outcome"], &act["detail"]["uncertain"]), (&json!("failed"), &json!(true)));
    assert_eq!(operator.json(&merge)["result"], "unchanged", "it was done");
}
