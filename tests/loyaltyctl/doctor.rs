//! `loyaltyctl doctor`: what it finds on an embedded engine, and at an AWS that answers as each
//! test says.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Instant,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::{Request, State},
    response::Response,
};
use chrono::Utc;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use loyalty_codes::{
    aws,
    clock::Clock,
    delivery::{AwsClients, Deliverer, WebhookClient},
    settings::{ProviderSettings, Settings},
    store::keys::{self, Key},
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::{
    Operator,
    common::{
        self, TestTable,
        faults::{Fault, with_fault_proxy},
        served::loyaltyctl,
    },
    finish, with_demo_org, write,
};

/// The checks of a report: their status, and what they say with the remedy.
struct Report {
    code: i32,
    checks: Vec<Value>,
}

impl Report {
    fn of(command: &mut std::process::Command) -> Self {
        let output = finish(command);
        let report: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let checks = report["checks"].as_array().unwrap().clone();
        let failed = checks.iter().filter(|check| check["status"] == "failed").count();
        assert_eq!(report["failed"], failed);
        let code = output.status.code().unwrap();
        assert_eq!(code, if failed > 0 { 3 } else { 0 }, "{checks:#?}");
        for check in &checks {
            let is_bad = ["warning", "failed"].contains(&check["status"].as_str().unwrap());
            assert!(!is_bad || check["remedy"].is_string(), "what is not right has a remedy: {check}");
        }
        Self { code, checks }
    }

    /// The checks of a name, each as its status and its text.
    fn named(&self, name: &str) -> Vec<(&str, String)> {
        let named = self.checks.iter().filter(|check| check["name"] == name);
        let text = |check: &Value| {
            let remedy = check["remedy"].as_str().unwrap_or_default();
            format!("{} {remedy}", check["finding"].as_str().unwrap())
        };
        named.map(|check| (check["status"].as_str().unwrap(), text(check))).collect()
    }

    /// Asserts that a check of that name has this status and text.
    fn expect(&self, name: &str, status: &str, text: &str) {
        let named = self.named(name);
        let found = named.iter().any(|(found, said)| *found == status && said.contains(text));
        assert!(found, "{name} is not {status} with `{text}`: {named:#?}");
    }

    fn not_ok(&self) -> Vec<&Value> {
        self.checks.iter().filter(|check| check["status"] != "ok").collect()
    }
}

impl Operator {
    fn doctor(&self, endpoint: &str, arguments: &[&str]) -> Report {
        let all =
            [&["--endpoint", endpoint, "--table", self.table.name(), "--json", "doctor"], arguments].concat();
        Report::of(&mut loyaltyctl(&all))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_engine_has_nothing_that_fails() {
    let operator = with_demo_org().await;
    // Tests on a shared engine switch TTL off, which is what doctor would find.
    if operator.table.is_shared() {
        return;
    }
    let report = operator.doctor(&operator.table.endpoint(), &[]);
    for name in ["region", "table", "keys", "billing", "clock", "card numbers"] {
        report.expect(name, "ok", "");
    }
    report.expect(
        "permissions",
        "ok",
        "PutItem, GetItem, BatchGetItem, Query, Scan, UpdateItem, ConditionCheckItem, DeleteItem",
    );
    report.expect("credentials", "not_checked", "local");
    report.expect("delivery function", "not_checked", "no org sends messages");
    report.expect("tills", "warning", "loyaltyctl till create NAME --org 966");
    report.expect("configuration", "warning", "no message is sent");
    assert!(operator.table.items("PROBE").await.is_empty(), "what it wrote is gone");

    let text = String::from_utf8(operator.run(&["doctor"]).stdout).unwrap();
    assert!(text.contains("\nwarning      org 966, tills: none has a password"), "{text}");
    assert!(text.contains("\n             → Make one: `loyaltyctl till create"), "{text}");
    assert!(text.lines().last().unwrap().contains(" 0 failed, "), "{text}");
    assert_eq!(operator.refusal(&["doctor", "--org", "967"]).0, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_org_that_cannot_work_is_told_with_what_to_do() {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    let report = operator.doctor(&operator.table.endpoint(), &[]);
    report.expect("orgs", "warning", "org apply");

    let nearly = common::DEMO_ORG.replace("= 1000000010", "= 9999999989");
    let delivery = "[delivery]\nSMS = \"webhook\"\nEMAIL = \"aws\"\n[delivery.aws]\nemail_from = \"otp@example.com\"\n\
                    [delivery.webhook]\nurl = \"https://gateway.invalid/otp\"\n[test_identifiers]\n\"919999900001\" = \"1234567\"\n";
    operator.json(&["org", "apply", &write(&folder, &format!("{nearly}\n{delivery}"))]);
    let cards = folder.path().join("cards.csv");
    let take = |count: &str, file: &std::path::Path| {
        operator.json(&["numbers", "take", "--org", "966", "--count", count, "--to", file.to_str().unwrap()]);
    };
    take("9", &cards);
    let update = operator.table.client().update_item().table_name(operator.table.name());
    let key = |text: &str| aws_sdk_dynamodb::types::AttributeValue::S(text.to_owned());
    update
        .key("PK", key("ORG#966"))
        .key("SK", key("ORG"))
        .update_expression("REMOVE customers_join")
        .send()
        .await
        .unwrap();
    let report = operator.doctor(&operator.table.endpoint(), &["--org", "966"]);
    assert_eq!(report.code, 3);
    report.expect("configuration", "warning", "TEST IDENTIFIERS");
    report.expect("card numbers", "warning", "81.81 % of the range is used, 2 numbers are left");
    report.expect("upgrade", "warning", "loyaltyctl table upgrade --org 966");
    report.expect("webhook", "failed", "loyaltyctl org webhook-secret 966");
    report.expect("webhook", "failed", "the host of https://gateway.invalid/otp has no address");
    report.expect("EMAIL", "not_checked", "local");
    report.expect("delivery function", "not_checked", "local");

    take("2", &folder.path().join("rest.csv"));
    operator.json(&["org", "webhook-secret", "966"]);
    let report = operator.doctor(&operator.table.endpoint(), &[]);
    report.expect("card numbers", "failed", "CONF_CARD_NUMBER_PREFIX");
    report.expect("webhook", "ok", "a secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_of_another_plan_is_repaired_by_the_orgs_own_file_or_that_says_what_to_change() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    let endpoint = operator.table.endpoint();
    let (client, table) = (operator.table.client(), operator.table.name());
    let key = loyalty_codes::store::keys::card_number_counter(loyalty_codes::model::org::OrgId(966));
    let text = |text: &str| aws_sdk_dynamodb::types::AttributeValue::S(text.to_owned());
    let number = |value: u64| aws_sdk_dynamodb::types::AttributeValue::N(value.to_string());
    let read = client.get_item().table_name(table).set_key(Some(key.attributes())).send().await.unwrap();
    let whole = read.item.unwrap();
    let put = async |changes: &[(&str, aws_sdk_dynamodb::types::AttributeValue)]| {
        let mut item = whole.clone();
        item.extend(changes.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        client.put_item().table_name(table).set_item(Some(item)).send().await.unwrap();
    };
    let plan = whole["plan"].as_s().unwrap().clone();
    let apply = |file: &str| operator.run(&["org", "apply", file]);
    let exported = || {
        let text = String::from_utf8(operator.run(&["org", "export", "966"]).stdout).unwrap();
        write(&folder, &text)
    };
    let broken = || {
        let report = operator.doctor(&endpoint, &["--org", "966"]);
        report.expect("card numbers", "failed", "org apply FILE");
    };

    // It has counted from 3 to 7, and the org's plan begins later.
    let earlier = plan.replace("1000000010", "3");
    put(&[("plan", text(&earlier)), ("first", number(3)), ("next", number(7))]).await;
    broken();
    let file = exported();
    let difference = operator.json(&["org", "diff", &file]);
    assert_eq!((&difference["result"], &difference["changes"]), (&json!("updated"), &json!([])));
    let applied = String::from_utf8(apply(&file).stdout).unwrap();
    assert_eq!(applied, "org 966 updated: the counter of its card numbers has another plan\n");
    operator.doctor(&endpoint, &["--org", "966"]).expect("card numbers", "ok", "");
    assert_eq!(String::from_utf8(apply(&file).stdout).unwrap(), "org 966 unchanged\n");
    let preview = operator.json(&["numbers", "preview", "--org", "966"]);
    assert_eq!(preview["next"][0], "1000000010");

    // What the org's plan has given is not known any more, so it must not begin again.
    let longer = plan.replace("\"width\":10", "\"width\":12");
    assert_ne!(plan, longer);
    let format = text(&whole["shape"].as_s().unwrap().replace("/10/", "/12/"));
    put(&[("plan", text(&longer)), ("shape", format)]).await;
    broken();
    let refused = apply(&file);
    let message = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(3) && message.contains("not known which numbers"), "{message}");
    client.delete_item().table_name(table).set_key(Some(key.attributes())).send().await.unwrap();
    broken();
    assert_eq!(apply(&file).status.code(), Some(3));
    let beyond = common::DEMO_ORG.replace("= 1000000010", "= 1000005000");
    assert!(apply(&write(&folder, &beyond)).status.success());
    operator.doctor(&endpoint, &["--org", "966"]).expect("card numbers", "ok", "");

    put(&[("shape", text("AUTO_INC/9///NONE"))]).await;
    let report = operator.doctor(&endpoint, &["--org", "966"]);
    report.expect("card numbers", "failed", "`shape` and `plan` of the card number counter differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn card_numbers_are_checked_although_the_counter_cannot_be_noted() {
    let operator = with_demo_org().await;
    let (_, faults) = with_fault_proxy(&operator.table, "store.server").await;
    faults.inject(|called, _| (called == "PutItem").then(|| Fault::error("AccessDeniedException")));
    let report = operator.doctor(&faults.endpoint(), &["--org", "966"]);
    report.expect("card numbers", "ok", "0 % of the range is used, 8999999990 numbers are left");
    report.expect("rate of card numbers", "warning", "dynamodb:PutItem");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_table_or_engine_the_first_failure_says_what_to_do() {
    let operator = Operator::new().await;
    let endpoint = operator.table.endpoint();
    let of =
        |arguments: &[&str]| Report::of(&mut loyaltyctl(&[&["--json"], arguments, &["doctor"]].concat()));
    let report = of(&["--endpoint", &endpoint, "--table", "missing"]);
    report.expect("table", "failed", "loyaltyctl table create");
    let report = of(&["--endpoint", "http://127.0.0.1:9"]);
    report.expect("table", "failed", "AWS_REGION");
    let mut nowhere = loyaltyctl(&["--json", "doctor"]);
    for variable in ["AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE"] {
        nowhere.env_remove(variable);
    }
    nowhere.envs([
        ("AWS_CONFIG_FILE", "/nowhere"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/nowhere"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]);
    Report::of(&mut nowhere).expect("configuration", "failed", "Set AWS_REGION");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_denied_action_is_told_apart() {
    let operator = with_demo_org().await;
    let (_, faults) = with_fault_proxy(&operator.table, "store.server").await;
    for (operation, action) in [
        ("PutItem", "dynamodb:PutItem"),
        ("GetItem", "dynamodb:GetItem"),
        ("BatchGetItem", "dynamodb:BatchGetItem"),
        ("Query", "dynamodb:Query"),
        ("Scan", "dynamodb:Scan"),
        ("UpdateItem", "dynamodb:UpdateItem"),
        ("TransactWriteItems", "dynamodb:ConditionCheckItem"),
        ("DeleteItem", "dynamodb:DeleteItem"),
    ] {
        faults.inject(move |called, _| (called == operation).then(|| Fault::error("AccessDeniedException")));
        let report = operator.doctor(&faults.endpoint(), &[]);
        report.expect("permissions", "failed", &format!("{action} is denied"));
        report.expect("permissions", "failed", &format!("Allow {action} on arn:"));
        assert_eq!(report.named("permissions").len(), 2, "the others are allowed");
    }
    for (operation, name) in [("DescribeTable", "table"), ("DescribeTimeToLive", "TTL")] {
        faults.inject(move |called, _| (called == operation).then(|| Fault::error("AccessDeniedException")));
        let report = operator.doctor(&faults.endpoint(), &[]);
        report.expect(name, "not_checked", &format!("Allow dynamodb:{operation}"));
        report.expect("permissions", "ok", "PutItem");
    }
    faults.inject(|called, _| (called == "Scan").then_some(Fault::Dropped));
    let started = Instant::now();
    let report = operator.doctor(&faults.endpoint(), &[]);
    report.expect("permissions", "failed", "no answer within 5 s");
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

/// A status, a body, and the `Date` header if it is not the time.
#[derive(Clone)]
struct Answer(u16, Value, Option<String>);

fn ok(body: Value) -> Answer {
    Answer(200, body, None)
}

fn error(code: &str) -> Answer {
    Answer(400, json!({"__type": code, "message": "injected"}), None)
}

/// An AWS on one port. It answers as its map says, and passes to the embedded engine what the map
/// does not mention.
struct Aws {
    endpoint: String,
    state: Arc<AwsState>,
}

struct AwsState {
    answers: Mutex<HashMap<String, Answer>>,
    engine: String,
    client: Client<HttpConnector, Body>,
    /// What the table's stream would start. `None` if it starts nothing.
    deliverer: Mutex<Option<Arc<Deliverer>>>,
}

const DELIVERY: &str = r#"
    [delivery]
    SMS = "aws"
    EMAIL = "aws"
    PHONE = "aws"
    [delivery.aws]
    sms_origination = "LOYALTY"
    email_from = "My Stores <otp@mail.example.com>"
    voice_origination = "+15550100"
    sms_configuration_set = "otp"
    sms_protect_configuration = "protect-1"
"#;

impl Aws {
    /// An AWS where everything is right.
    async fn start(table: &TestTable) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let providers = ProviderSettings {
            sms_endpoint: Some(endpoint.clone()),
            email_endpoint: Some(endpoint.clone()),
            allow_private_webhooks: true,
        };
        let settings = Settings::default();
        let clients = AwsClients::new(&aws::for_local(&settings).unwrap(), &providers);
        let webhooks = WebhookClient::new(&settings, &providers).unwrap();
        let deliverer = Arc::new(Deliverer::new(table.store(), Clock::system(), clients, webhooks));
        let state = Arc::new(AwsState {
            answers: Mutex::new(healthy(table.name())),
            engine: table.endpoint(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            deliverer: Mutex::new(Some(deliverer)),
        });
        let router = Router::new().fallback(answer).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { endpoint, state }
    }

    fn doctor(&self, table: &TestTable, arguments: &[&str]) -> Report {
        let mut command = loyaltyctl(&[&["--table", table.name(), "--json", "doctor"], arguments].concat());
        command.envs([
            ("AWS_ENDPOINT_URL", self.endpoint.as_str()),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]);
        Report::of(&mut command)
    }

    /// The report of an AWS that gives this answer to one operation, and that answer no more.
    fn doctor_with(&self, table: &TestTable, operation: &str, answer: Answer) -> Report {
        let before = self.state.answers.lock().unwrap().insert(operation.to_owned(), answer);
        let report = self.doctor(table, &["--wait", "0"]);
        let mut answers = self.state.answers.lock().unwrap();
        match before {
            Some(before) => answers.insert(operation.to_owned(), before),
            None => answers.remove(operation),
        };
        report
    }
}

async fn answer(State(state): State<Arc<AwsState>>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let target = parts.headers.get("x-amz-target").map(|target| target.to_str().unwrap().to_owned());
    let operation = match (&target, parts.uri.path()) {
        (Some(target), _) => target.split('.').nth(1).unwrap().to_owned(),
        (None, "/v2/email/account") => "GetAccount".to_owned(),
        (None, path) if path.starts_with("/v2/email/identities/") => {
            format!("GetEmailIdentity {}", path.rsplit('/').next().unwrap().replace("%40", "@"))
        }
        _ => "GetCallerIdentity".to_owned(),
    };
    let found = state.answers.lock().unwrap().get(&operation).cloned();
    if let Some(Answer(status, body, date)) = found {
        let mut response = Response::builder().status(status);
        if let Some(date) = date {
            response = response.header("date", date);
        }
        let mut text = body.as_str().map_or_else(|| body.to_string(), str::to_owned);
        if let Some(code) = body["__type"].as_str() {
            response = response.header("x-amzn-errortype", code);
            if operation == "GetCallerIdentity" {
                text = format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>");
            }
        }
        return response.body(Body::from(text)).unwrap();
    }
    assert!(target.is_some_and(|target| target.starts_with("DynamoDB")), "{operation} was not expected");
    parts.uri = state.engine.parse().unwrap();
    let sent: Value = serde_json::from_slice(&body).unwrap();
    let response = state.client.request(Request::from_parts(parts, Body::from(body))).await.unwrap();
    let put = &sent["TransactItems"][0]["Put"]["Item"];
    let deliverer = state.deliverer.lock().unwrap().clone();
    if let (Some(pk), Some(sk), Some(deliverer)) =
        (put["PK"]["S"].as_str(), put["SK"]["S"].as_str(), deliverer)
        && sk.starts_with("MESSAGE#")
    {
        let key = Key { pk: pk.to_owned(), sk: sk.to_owned() };
        tokio::spawn(async move { deliverer.deliver(&key).await.unwrap() });
    }
    response.map(Body::new)
}

fn healthy(table: &str) -> HashMap<String, Answer> {
    let attribute = |name: &str| json!({"AttributeName": name, "AttributeType": "S"});
    let key = |name: &str, kind: &str| json!({"AttributeName": name, "KeyType": kind});
    let limit =
        |name: &str| json!({"Name": name, "EnforcedLimit": 100, "MaxLimit": 1000, "Overridden": true});
    let identity = "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult>\
                    <Arn>arn:aws:iam::123456789012:user/ann</Arn><UserId>A</UserId><Account>123456789012</Account>\
                    </GetCallerIdentityResult></GetCallerIdentityResponse>";
    [
        ("GetCallerIdentity", json!(identity)),
        (
            "DescribeTable",
            json!({"Table": {
                "TableName": table, "TableStatus": "ACTIVE",
                "TableArn": format!("arn:aws:dynamodb:us-east-1:123456789012:table/{table}"),
                "AttributeDefinitions": [attribute("PK"), attribute("SK")],
                "KeySchema": [key("PK", "HASH"), key("SK", "RANGE")],
                "BillingModeSummary": {"BillingMode": "PAY_PER_REQUEST"},
                "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "NEW_IMAGE"},
                "DeletionProtectionEnabled": true,
            }}),
        ),
        (
            "DescribeContinuousBackups",
            json!({"ContinuousBackupsDescription": {
                "ContinuousBackupsStatus": "ENABLED",
                "PointInTimeRecoveryDescription": {"PointInTimeRecoveryStatus": "ENABLED"},
            }}),
        ),
        ("GetAccount", email_account(true, true, "HEALTHY", 50_000, 100)),
        ("GetEmailIdentity otp@mail.example.com", json!({"__type": "NotFoundException"})),
        ("GetEmailIdentity mail.example.com", json!({"__type": "NotFoundException"})),
        ("GetEmailIdentity example.com", email_identity(true, true)),
        ("DescribeAccountAttributes", sms_account("PRODUCTION")),
        (
            "DescribeSpendLimits",
            json!({"SpendLimits": [
                limit("TEXT_MESSAGE_MONTHLY_SPEND_LIMIT"), limit("VOICE_MESSAGE_MONTHLY_SPEND_LIMIT"),
            ]}),
        ),
        ("DescribeSenderIds", sender_ids("LOYALTY", "TRANSACTIONAL")),
        ("DescribePhoneNumbers", phone_numbers("ACTIVE", "TRANSACTIONAL", &["SMS", "VOICE"])),
        ("DescribeProtectConfigurations", json!({"ProtectConfigurations": []})),
        ("DescribeConfigurationSets", json!({"ConfigurationSets": []})),
    ]
    .map(|(operation, body)| {
        let status = if body["__type"].is_string() { 404 } else { 200 };
        (operation.to_owned(), Answer(status, body, None))
    })
    .into()
}

fn email_account(production: bool, sending: bool, standing: &str, quota: u32, sent: u32) -> Value {
    json!({
        "ProductionAccessEnabled": production, "SendingEnabled": sending, "EnforcementStatus": standing,
        "SendQuota": {"Max24HourSend": quota, "MaxSendRate": 14, "SentLast24Hours": sent},
    })
}

fn email_identity(verified: bool, dkim: bool) -> Value {
    json!({"VerifiedForSendingStatus": verified, "DkimAttributes": {"SigningEnabled": dkim}})
}

fn sms_account(tier: &str) -> Value {
    json!({"AccountAttributes": [{"Name": "ACCOUNT_TIER", "Value": tier}]})
}

fn sender_ids(id: &str, message_type: &str) -> Value {
    json!({"SenderIds": [{
        "SenderIdArn": "arn:aws:sms-voice:us-east-1:123456789012:sender-id/X/IN", "SenderId": id, "IsoCountryCode": "IN",
        "MessageTypes": [message_type], "MonthlyLeasingPrice": "0.00", "DeletionProtectionEnabled": false,
        "Registered": true,
    }]})
}

fn phone_numbers(status: &str, message_type: &str, capabilities: &[&str]) -> Value {
    json!({"PhoneNumbers": [{
        "PhoneNumberArn": "arn:aws:sms-voice:us-east-1:123456789012:phone-number/phone-1", "PhoneNumberId": "phone-1",
        "PhoneNumber": "+15550100", "Status": status, "IsoCountryCode": "US", "MessageType": message_type,
        "NumberCapabilities": capabilities, "NumberType": "TOLL_FREE", "MonthlyLeasingPrice": "2.00",
        "TwoWayEnabled": false, "SelfManagedOptOutsEnabled": false, "OptOutListName": "Default",
        "InternationalSendingEnabled": false, "DeletionProtectionEnabled": false, "CreatedTimestamp": 1_700_000_000,
    }]})
}

/// A table with an org that sends by AWS, and a till.
async fn with_delivery() -> (Operator, Aws) {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    operator.json(&["org", "apply", &write(&folder, &format!("{}\n{DELIVERY}", common::DEMO_ORG))]);
    operator.json(&["till", "create", "shop.1", "--org", "966", "--allow", "otp:fetch"]);
    let aws = Aws::start(&operator.table).await;
    (operator, aws)
}

#[tokio::test(flavor = "multi_thread")]
async fn where_everything_is_right_every_check_is_ok() {
    let (operator, aws) = with_delivery().await;
    // Tests on a shared engine switch TTL off, which is what doctor would find.
    if operator.table.is_shared() {
        return;
    }
    let report = aws.doctor(&operator.table, &[]);
    assert_eq!(report.not_ok(), Vec::<&Value>::new());
    report.expect("credentials", "ok", "arn:aws:iam::123456789012:user/ann");
    report.expect("delivery function", "ok", "took a message to nobody");
    report.expect("EMAIL", "ok", "example.com is verified, with DKIM");
    report.expect("SMS", "ok", "sender ID LOYALTY (IN)");
    report.expect("PHONE", "ok", "number +15550100");
    for left in ["PROBE", "MESSAGE"] {
        assert!(operator.table.items(left).await.is_empty(), "what it wrote is gone");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_function_that_is_not_started_is_found() {
    let (operator, aws) = with_delivery().await;
    // Tests on a shared engine switch TTL off, which is what doctor would find.
    if operator.table.is_shared() {
        return;
    }
    *aws.state.deliverer.lock().unwrap() = None;
    let report = aws.doctor(&operator.table, &["--wait", "1"]);
    report.expect("delivery function", "failed", "as an enabled trigger");
    assert_eq!(report.not_ok().len(), 1);
    assert!(operator.table.items("MESSAGE").await.is_empty(), "what it wrote is gone");
}

/// An operation, its answer, and the check that it fails: name, status, and a part of its text.
type Row = (&'static str, Answer, &'static str, &'static str, &'static str);

/// Runs `doctor` once for each row.
async fn expect_each(rows: impl FnOnce(&Aws) -> Vec<Row>) {
    let (operator, aws) = with_delivery().await;
    for (operation, answer, name, status, text) in rows(&aws) {
        aws.doctor_with(&operator.table, operation, answer).expect(name, status, text);
    }
}

impl Aws {
    /// The description of the table with one value changed.
    fn table_with(&self, key: &str, value: Value) -> Answer {
        let mut body = self.state.answers.lock().unwrap()["DescribeTable"].1.clone();
        body["Table"][key] = value;
        ok(body)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_definition_of_the_table_that_is_not_right_has_its_remedy() {
    expect_each(|aws| {
        let row = |key, value, name, status, text| {
            ("DescribeTable", aws.table_with(key, value), name, status, text)
        };
        let on_demand = json!({"MaxReadRequestUnits": 10, "MaxWriteRequestUnits": 7});
        let stream = json!({"StreamEnabled": true, "StreamViewType": "KEYS_ONLY"});
        let key = json!({"Status": "ENABLED", "InaccessibleEncryptionDateTime": 1_700_000_000});
        let mut provisioned = aws.table_with("BillingModeSummary", json!({"BillingMode": "PROVISIONED"}));
        provisioned.1["Table"]["ProvisionedThroughput"] =
            json!({"ReadCapacityUnits": 5, "WriteCapacityUnits": 3});
        vec![
            row("TableStatus", json!("ARCHIVED"), "table", "failed", "After a restore"),
            row("TableStatus", json!("CREATING"), "table", "failed", "Wait for a minute"),
            row("SSEDescription", key, "table", "failed", "Enable the key again"),
            row("KeySchema", json!([]), "keys", "failed", "another service's table"),
            row("StreamSpecification", Value::Null, "stream", "failed", "make deploy"),
            row("StreamSpecification", stream, "stream", "warning", "KEYS_ONLY"),
            row("DeletionProtectionEnabled", json!(false), "deletion protection", "warning", "update-table"),
            row(
                "OnDemandThroughput", on_demand, "billing", "warning", "limited to 10 read and 7 write units",
            ),
            ("DescribeTable", provisioned, "billing", "warning", "5 read and 3 write units"),
        ]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_credentials_backups_and_ttl_that_are_not_right_have_their_remedies() {
    expect_each(|aws| {
        let server_is = |minutes, answer: Answer| {
            let time = chrono::Utc::now() + chrono::TimeDelta::minutes(minutes);
            Answer(answer.0, answer.1, Some(time.format("%a, %d %b %Y %H:%M:%S GMT").to_string()))
        };
        let table = || aws.table_with("TableStatus", json!("ACTIVE"));
        let ttl = |name: &str, status: &str| {
            ok(json!({"TimeToLiveDescription": {"AttributeName": name, "TimeToLiveStatus": status}}))
        };
        let backups = ok(json!({"ContinuousBackupsDescription": {"ContinuousBackupsStatus": "ENABLED"}}));
        let no_backups = error("UnknownOperationException");
        let signature = error("InvalidSignatureException");
        let recovery = "point-in-time recovery";
        vec![
            ("GetCallerIdentity", error("ExpiredToken"), "credentials", "failed", "aws sso login"),
            ("DescribeTable", server_is(-10, table()), "clock", "failed", "ahead of"),
            ("DescribeTable", server_is(1, table()), "clock", "warning", "behind"),
            ("DescribeTable", server_is(10, signature), "clock", "failed", "Set this machine's clock"),
            ("DescribeTable", error("ResourceNotFoundException"), "table", "failed", "TABLE_NAME"),
            ("DescribeTimeToLive", ttl("expires_at", "DISABLED"), "TTL", "failed", "loyaltyctl table create"),
            ("DescribeTimeToLive", ttl("ttl", "ENABLED"), "TTL", "failed", "AttributeName=ttl"),
            ("DescribeContinuousBackups", backups, recovery, "warning", "update-continuous-backups"),
            ("DescribeContinuousBackups", no_backups, recovery, "not_checked", "DescribeContinuousBackups"),
        ]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_of_ses_that_is_not_right_has_its_remedy() {
    expect_each(|_| {
        let account = |production, sending, standing, sent| {
            ("GetAccount", ok(email_account(production, sending, standing, 200, sent)))
        };
        let identity = |verified, dkim| ("GetEmailIdentity example.com", ok(email_identity(verified, dkim)));
        let unknown = ("GetEmailIdentity example.com", error("NotFoundException"));
        let denied = ("GetAccount", error("AccessDeniedException"));
        [
            (account(false, true, "HEALTHY", 3), "SES account", "warning", "production access"),
            (account(true, false, "SHUTDOWN", 3), "SES account", "failed", "paused"),
            (account(true, true, "HEALTHY", 199), "SES account", "warning", "Service Quotas"),
            (account(true, true, "PROBATION", 3), "SES account", "warning", "bounces"),
            (denied, "SES account", "not_checked", "Allow ses:GetAccount"),
            (identity(false, true), "EMAIL", "failed", "DNS records"),
            (identity(true, false), "EMAIL", "warning", "DKIM"),
            (unknown, "EMAIL", "failed", "Verify the domain"),
        ]
        .map(|((operation, answer), name, status, text)| (operation, answer, name, status, text))
        .into()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_answer_of_end_user_messaging_that_is_not_right_has_its_remedy() {
    expect_each(|_| {
        let spend = |dollars: i64| {
            let name = "TEXT_MESSAGE_MONTHLY_SPEND_LIMIT";
            let limit = json!({"Name": name, "EnforcedLimit": dollars, "MaxLimit": 1, "Overridden": false});
            ok(json!({"SpendLimits": [limit]}))
        };
        let sender = |id, kind| ok(sender_ids(id, kind));
        let number = |status, can: &[&str]| ok(phone_numbers(status, "TRANSACTIONAL", can));
        let missing = || error("ResourceNotFoundException");
        let sandbox = ok(sms_account("SANDBOX"));
        let throttled = error("ThrottlingException");
        vec![
            ("DescribeAccountAttributes", sandbox, "SMS account", "warning", "verified-destination-number"),
            ("DescribeSpendLimits", spend(1), "SMS spending limit", "warning", "1 dollars a month"),
            ("DescribeSpendLimits", spend(0), "SMS spending limit", "failed", "Raise it"),
            ("DescribeSpendLimits", spend(1), "call spending limit", "not_checked", "none"),
            (
                "DescribeSenderIds",
                sender("OTHER", "TRANSACTIONAL"),
                "SMS",
                "failed",
                "or sender ID `LOYALTY`",
            ),
            ("DescribeSenderIds", sender("LOYALTY", "PROMOTIONAL"), "SMS", "failed", "transactional"),
            ("DescribePhoneNumbers", number("PENDING", &["VOICE"]), "PHONE", "failed", "is not complete"),
            ("DescribePhoneNumbers", number("ACTIVE", &["SMS"]), "PHONE", "failed", "be used for calls"),
            ("DescribePhoneNumbers", throttled, "PHONE", "failed", "ThrottlingException"),
            (
                "DescribeProtectConfigurations",
                missing(),
                "SMS",
                "failed",
                "protect configuration `protect-1`",
            ),
            ("DescribeConfigurationSets", missing(), "SMS", "failed", "no configuration set `otp`"),
        ]
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn text_messages_without_protection_and_to_india_from_elsewhere_are_warned_of() {
    let (operator, aws) = with_delivery().await;
    let folder = tempfile::tempdir().unwrap();
    let changed = DELIVERY
        .replace("sms_protect_configuration = \"protect-1\"", "sms_entity_id = \"1101\"")
        .replace("\"LOYALTY\"", "\"pool-1\"");
    operator.json(&["org", "apply", &write(&folder, &format!("{}\n{changed}", common::DEMO_ORG))]);
    let pool = json!({"Pools": [{
        "PoolArn": "arn:aws:sms-voice:us-east-1:123456789012:pool/pool-1", "PoolId": "pool-1", "Status": "ACTIVE",
        "MessageType": "TRANSACTIONAL", "TwoWayEnabled": false, "SelfManagedOptOutsEnabled": false,
        "OptOutListName": "Default", "SharedRoutesEnabled": false, "DeletionProtectionEnabled": false,
        "CreatedTimestamp": 1_700_000_000,
    }]});
    let report = aws.doctor_with(&operator.table, "DescribePools", ok(pool));
    report.expect("SMS", "ok", "pool pool-1");
    report.expect("SMS", "warning", "sms_protect_configuration");
    report.expect("SMS", "warning", "ap-south-1 or ap-south-2");
    let report = aws.doctor_with(&operator.table, "DescribePools", error("ResourceNotFoundException"));
    report.expect("SMS", "failed", "`pool-1`");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_doctor_cannot_remove_expires() {
    let operator = with_demo_org().await;
    let (_, faults) = with_fault_proxy(&operator.table, "shop.1").await;
    faults.inject(|called, _| (called == "DeleteItem").then(|| Fault::error("AccessDeniedException")));
    finish(&mut operator.through(&faults, &["doctor"]));
    let items = operator.table.items("PROBE").await;
    assert!(!items.is_empty());
    for item in items {
        let expires: i64 = item[keys::EXPIRES_AT].as_n().unwrap().parse().unwrap();
        let left = expires - Utc::now().timestamp();
        assert!((3500..=3601).contains(&left), "{left} seconds");
    }
}
