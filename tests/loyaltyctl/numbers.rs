//! Card numbers for printing, the audit, and counters after a restored backup.

use std::{
    collections::{HashMap, HashSet},
    fs,
    process::{Command, Output, Stdio},
    sync::mpsc,
};

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::{NaiveDate, TimeDelta, Utc};
use loyalty_codes::{
    model::{org::OrgId, till::Permission},
    store::keys,
};
use serde_json::{Value, json};

use super::{
    Operator,
    common::{
        self, TestService, TestTable,
        faults::{Fault, Faults, with_fault_proxy},
        served::{HANG_TIMEOUT, loyaltyctl},
    },
    finish, with_demo_org, write,
};

impl Operator {
    /// A command that reaches the table through a fault proxy.
    pub fn through(&self, faults: &Faults, arguments: &[&str]) -> Command {
        let mut command = loyaltyctl(&["--endpoint", &faults.endpoint(), "--table", self.table.name()]);
        command.args(arguments);
        command
    }

    /// The next number that the org gives.
    fn next(&self) -> Value {
        self.json(&["numbers", "preview", "--org", "966"])["next"][0].clone()
    }

    /// What the audit says of acts of that command, newest first.
    pub fn acts(&self, what: &str) -> Vec<Value> {
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
    let create = ["till", "create", "shop.1", "--org", "966", "--allow", "card_number:generate"];
    let password = operator.json(&create)["password"].as_str().unwrap().to_owned();
    let till = operator.table.service("shop.1").as_till("shop.1", &password);
    for value in 1_000_000_510..1_000_000_520 {
        assert_eq!(till.get("/v2/cardNumber").await.json["entity"], value.to_string());
    }
    assert_eq!(operator.next(), "1000000520");

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
    let standard_output = ["numbers", "take", "--org", "966", "--count", "1", "--to", "-"];
    let (code, message) = operator.refusal(&standard_output);
    assert!(code == 2 && message.contains("- is no file"), "{message}");
    assert_eq!(operator.acts("numbers take").len(), 1, "nothing was taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_numbers_of_an_org_that_is_not_there_yet_are_previewed_unless_they_depend_on_its_key() {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = write(&folder, common::DEMO_ORG);
    let preview = ["numbers", "preview", "--org", "966", "--file", &file];
    let before = operator.json(&preview);
    assert_eq!((&before["next"][0], &before["left"]), (&json!("1000000010"), &json!(8_999_999_990_u64)));
    assert_eq!(operator.json(&["org", "list"]), json!([]), "nothing was written");
    operator.json(&["org", "apply", &file]);
    assert_eq!(operator.json(&preview)["next"], before["next"], "as it was said");

    let random = "CONF_CARD_NUMBER_LENGTH = 10\nCONF_CARD_CHECKSUM_DIGIT_ALGO = \"RANDOM\"";
    let other = common::DEMO_ORG.replace("id = 966", "id = 77");
    write(&folder, &other.replace("CONF_CARD_NUMBER_LENGTH = 10", random));
    let (code, message) = operator.refusal(&["numbers", "preview", "--org", "77", "--file", &file]);
    assert!(code == 4 && message.contains("their order is that of a secret key"), "{code} {message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_a_customer_brought_before_its_turn_is_not_said_to_be_generated() {
    let operator = with_demo_org().await;
    let service = operator.table.service("shop.1");
    service.create_till("shop.1", 966, Permission::ALL).await;
    let identifiers =
        json!([{"type": "mobile", "value": common::MOBILE}, {"type": "externalId", "value": "1000000012"}]);
    let body = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
    let user = service.post("/v2/customers", &body).await.json["createdId"].as_u64().unwrap();
    let check = |number: &str| {
        let text = String::from_utf8(operator.run(&["numbers", "check", number, "--org", "966"]).stdout);
        (operator.json(&["numbers", "check", number, "--org", "966"]), text.unwrap())
    };
    let (found, text) = check("1000000012");
    assert_eq!((&found["customer"], &found["given"]), (&json!(user), &json!(false)));
    assert!(text.contains("was assigned manually") && text.contains("will still give it"), "{text}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cards.csv");
    operator.json(&["numbers", "take", "--org", "966", "--count", "5", "--to", file.to_str().unwrap()]);
    assert!(fs::read_to_string(&file).unwrap().contains("1000000012"), "the take cannot know");
    // As it is printed, in groups.
    for number in ["1000000012", "10000 00012", " 1000 000 012 "] {
        let (found, text) = check(number);
        assert_eq!((&found["customer"], &found["given"]), (&json!(user), &json!(true)), "{found}");
        assert!(!text.contains("generated") && text.contains("brought it by hand"), "{text}");
    }
    assert_eq!(check("10000 00011").0["number"], "1000000011");
    assert_eq!(check("no such number").0["number"], "no such number");
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
    let found = |number: &str, customer: Value, plan: Value, given: bool, digit: &str| json!({"number": number, "customer": customer, "erased": null, "reserved": false, "plan": plan, "given": given, "check_digit": digit});
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
    operator.json(&["customer", "erase", &user, "--org", "966", "--yes", "--settle", "0"]);
    assert_eq!(check(&next)["erased"].to_string(), user, "nobody gets it again");
    assert_eq!(check(&next)["reserved"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_customers_number_that_is_still_to_come_is_said_to_be_reserved() {
    let operator = with_demo_org().await;
    let service = operator.table.service("shop.1");
    service.create_till("shop.1", 966, Permission::ALL).await;
    let register = |mobile: &str| {
        let mobile = json!({"type": "mobile", "value": mobile});
        let by_hand = json!({"type": "externalId", "value": "1000000012"});
        json!({"profiles": [{"source": "INSTORE", "identifiers": [mobile, by_hand]}]})
    };
    let user = service.post("/v2/customers", &register(common::MOBILE)).await.json["createdId"].to_string();
    operator.json(&["customer", "erase", &user, "--org", "966", "--yes", "--settle", "0"]);
    let check = ["numbers", "check", "1000000012", "--org", "966"];
    let found = operator.json(&check);
    assert_eq!((&found["reserved"], &found["given"]), (&json!(true), &json!(false)), "{found}");
    let text = String::from_utf8(operator.run(&check).stdout).unwrap();
    assert!(text.contains("is reserved: it will still be given and cannot be registered"), "{text}");
    for _ in 0..2 {
        service.get("/v2/cardNumber").await;
    }
    assert_eq!(service.get("/v2/cardNumber").await.json["entity"], "1000000012", "as it was said");
    assert_eq!(service.post("/v2/customers", &register("9010000022")).await.status, 409);
    let found = operator.json(&check);
    assert_eq!((&found["reserved"], &found["given"]), (&json!(false), &json!(true)), "{found}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_numbers_are_taken_for_a_name_that_is_a_link_to_nothing() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("cards.csv");
    std::os::unix::fs::symlink(folder.path().join("nothing"), &link).unwrap();
    let take = ["numbers", "take", "--org", "966", "--count", "5", "--to", link.to_str().unwrap()];
    let (code, message) = operator.refusal(&take);
    assert!(code == 3 && message.contains("is there already"), "{message}");
    assert_eq!((operator.acts("numbers take"), operator.next()), (Vec::new(), json!("1000000010")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_that_is_killed_says_later_how_many_numbers_may_be_skipped() {
    let operator = with_demo_org().await;
    let (_, faults) = with_fault_proxy(&operator.table, "shop.1").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cards.csv");
    let file = file.to_str().unwrap();
    // Before the numbers are taken, and before they are recorded. The first item is the intent.
    for (operation, before, next) in [("UpdateItem", 0, "1000000010"), ("PutItem", 1, "1000000015")] {
        let (reach, reached) = mpsc::channel();
        let mut calls = 0;
        faults.inject(move |called, _| {
            calls += usize::from(called == operation);
            (called == operation && calls > before).then(|| {
                reach.send(()).unwrap();
                Fault::Dropped
            })
        });
        let take = ["numbers", "take", "--org", "966", "--count", "5", "--to", file];
        let mut process = operator.through(&faults, &take).stdout(Stdio::null()).spawn().unwrap();
        let reached = reached.recv_timeout(HANG_TIMEOUT);
        process.kill().unwrap();
        process.wait().unwrap();
        reached.unwrap();
        let act = &operator.acts("numbers take")[0];
        assert_eq!(act["outcome"], "begun", "{operation}: {act}");
        let id = act["id"].as_str().unwrap();
        let (code, message) = operator.refusal(&["numbers", "taken", id, "--org", "966", "--to", file]);
        assert!(code == 3 && message.contains("up to 5 numbers were skipped"), "{operation}: {message}");
        assert!(!fs::exists(file).unwrap());
        assert_eq!(operator.next(), next, "{operation}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_whose_answer_is_lost_is_not_repeated_and_says_how_many_numbers_may_be_skipped() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    // A repetition would find too few numbers.
    let small = common::DEMO_ORG.replace("= 1000000010", "= 9999999985");
    operator.json(&["org", "apply", &write(&folder, &small)]);
    let (_, faults) = with_fault_proxy(&operator.table, "shop.1").await;
    let mut updates = 0;
    faults.inject(move |called, _| {
        updates += usize::from(called == "UpdateItem");
        (called == "UpdateItem" && updates == 1).then_some(Fault::ResetWithinAnswer)
    });
    let file = folder.path().join("cards.csv");
    let file = file.to_str().unwrap();
    let take = ["numbers", "take", "--org", "966", "--count", "10", "--to", file];
    let ended = finish(&mut operator.through(&faults, &take));
    let message = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "a failure and no refusal: {message}");
    let act = &operator.acts("numbers take")[0];
    let id = act["id"].as_str().unwrap();
    assert!(message.contains("up to 10 numbers may be skipped") && message.contains(id), "{message}");
    assert_eq!((&act["outcome"], &act["detail"]["uncertain"]), (&json!("failed"), &json!(true)));
    assert_eq!(operator.next(), "9999999995", "they were taken once");
    let taken = |id: &str| operator.refusal(&["numbers", "taken", id, "--org", "966", "--to", file]);
    let (code, message) = taken(id);
    assert!(code == 3 && message.contains("up to 10 numbers were skipped"), "{message}");

    assert_eq!(operator.refusal(&take).0, 3, "five are left");
    let refused = operator.acts("numbers take")[0]["id"].as_str().unwrap().to_owned();
    let (code, message) = taken(&refused);
    assert!(code == 3 && message.contains("took no numbers"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn taken_numbers_that_cannot_be_recorded_at_once_are_found_by_the_id_that_is_told() {
    let operator = with_demo_org().await;
    let (_, faults) = with_fault_proxy(&operator.table, "shop.1").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cards.csv");
    let file = file.to_str().unwrap();
    let mut puts = 0;
    faults.inject(move |called, _| {
        puts += usize::from(called == "PutItem");
        (called == "PutItem" && puts == 2).then(|| Fault::error("AccessDeniedException"))
    });
    let take = ["numbers", "take", "--org", "966", "--count", "5", "--to", file];
    let ended = finish(&mut operator.through(&faults, &take));
    let message = String::from_utf8(ended.stderr).unwrap();
    let id = operator.acts("numbers take")[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(ended.status.code(), Some(1), "{message}");
    assert!(message.contains(&format!("numbers taken {id}")), "{message}");
    operator.json(&["numbers", "taken", &id, "--org", "966", "--to", file]);
    assert_eq!(fs::read_to_string(file).unwrap().lines().nth(5), Some("1000000014"));
}

/// How many requests are sent at once.
const CALLERS: usize = 16;

/// Numbers and user ids that were given.
#[derive(Default)]
struct Given {
    numbers: HashSet<String>,
    users: HashSet<u64>,
}

impl Given {
    /// Asks for that many numbers, and registers that many customers, who get numbers, too. None of
    /// them may be given already.
    async fn more(&mut self, table: &TestTable, service: &TestService, numbers: usize, customers: usize) {
        let held = numbers_of_customers(table).await;
        let mut callers = tokio::task::JoinSet::new();
        let first_mobile = self.users.len();
        for caller in 0..CALLERS {
            let service = service.clone();
            callers.spawn(async move {
                let (mut asked, mut users) = (Vec::new(), Vec::new());
                for _ in (caller..numbers).step_by(CALLERS) {
                    let answer = service.get("/v2/cardNumber").await;
                    asked.push(answer.json["entity"].as_str().unwrap().to_owned());
                }
                for at in (caller..customers).step_by(CALLERS) {
                    let mobile = format!("90{:08}", first_mobile + at);
                    let identifiers = json!([{"type": "mobile", "value": mobile}]);
                    let body = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
                    let answer = service.post("/v2/customers", &body).await;
                    users.push(answer.json["createdId"].as_u64().unwrap_or_else(|| panic!("{answer:?}")));
                }
                (asked, users)
            });
        }
        let (asked, users): (Vec<_>, Vec<_>) = callers.join_all().await.into_iter().unzip();
        let (asked, users) = (asked.concat(), users.concat());
        assert_eq!((asked.len(), users.len()), (numbers, customers));
        let registered: Vec<_> = numbers_of_customers(table).await.difference(&held).cloned().collect();
        assert_eq!(registered.len(), customers);
        for number in asked.into_iter().chain(registered) {
            assert!(self.numbers.insert(number.clone()), "the number {number} was given before");
        }
        for user in users {
            assert!(self.users.insert(user), "the user id {user} was given before");
        }
    }
}

/// The numbers that customers of the demo org have.
async fn numbers_of_customers(table: &TestTable) -> HashSet<String> {
    let prefix = keys::numbers(OrgId(966));
    let items = table.items("ID").await;
    let number = |item: &HashMap<String, AttributeValue>| {
        item[keys::PK].as_s().unwrap().strip_prefix(&prefix).map(str::to_owned)
    };
    items.iter().filter_map(number).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_restored_table_no_number_and_no_user_id_comes_twice() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    let service = operator.table.service("shop.1");
    service.create_till("shop.1", 966, Permission::ALL).await;
    let mut given = Given::default();
    given.more(&operator.table, &service, 20, 20).await;
    let backup = operator.table.items("").await;

    // After the backup, 1,000 numbers are given, and the plan changes in between.
    given.more(&operator.table, &service, 550, 50).await;
    let longer = common::DEMO_ORG.replace("CONF_CARD_NUMBER_LENGTH = 10", "CONF_CARD_NUMBER_LENGTH = 12");
    operator.json(&["org", "apply", &write(&folder, &longer)]);
    service.clock.advance(TimeDelta::minutes(2));
    given.more(&operator.table, &service, 350, 50).await;

    let restored = Operator::new().await;
    let client = restored.table.client();
    for item in backup {
        client.put_item().table_name(restored.table.name()).set_item(Some(item)).send().await.unwrap();
    }
    assert_eq!(restored.next(), "1000000050", "the restored table would give them again");
    // The steps of the README.
    let raised = restored.json(&["table", "restored", "--margin", "2000", "--yes"]);
    assert_eq!(raised["orgs"], json!([{"org": 966, "card_numbers": 1_000_002_050, "user_ids": 2021}]));
    let service = restored.table.service("shop.1");
    given.more(&restored.table, &service, 300, 30).await;
    // The second plan has given 400 numbers from its offset on.
    let beyond = longer.replace("= 1000000010", "= 1000000410");
    restored.json(&["org", "apply", &write(&folder, &beyond)]);
    service.clock.advance(TimeDelta::minutes(2));
    given.more(&restored.table, &service, 300, 30).await;
    assert!(given.numbers.contains("001000000410"), "the plan goes on where it had ended");

    let (code, message) = restored.refusal(&["table", "restored"]);
    assert!(code == 3 && message.contains("--yes"), "{message}");
    let acts = restored.acts("table restored");
    let detail = json!({"margin": 2000, "card_numbers": 1_000_002_050, "user_ids": 2021});
    assert_eq!((acts.len(), &acts[0]["detail"]), (1, &detail), "it has the raised values");
}

/// The file of an org 967 with 500 numbers.
fn small_org() -> String {
    common::DEMO_ORG
        .replace("id = 966", "id = 967")
        .replace("CONF_CARD_NUMBER_LENGTH = 10", "CONF_CARD_NUMBER_LENGTH = 3")
        .replace("CONF_CARD_NUMBER_OFFSET = 1000000010", "CONF_CARD_NUMBER_OFFSET = 500")
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_whose_numbers_run_out_meanwhile_are_not_said_to_be_raised() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    operator.json(&["org", "apply", &write(&folder, &small_org())]);
    let (_, faults) = with_fault_proxy(&operator.table, "shop.1").await;
    let (reach, reached) = mpsc::channel();
    let taken = std::sync::Arc::new(tokio::sync::SetOnce::new());
    let (held, mut updates) = (std::sync::Arc::clone(&taken), 0);
    faults.inject(move |called, _| {
        updates += usize::from(called == "UpdateItem");
        // Both counters of org 966, and then the card numbers of org 967.
        (called == "UpdateItem" && updates == 3).then(|| {
            reach.send(()).unwrap();
            Fault::Held(std::sync::Arc::clone(&held))
        })
    });
    let restored = ["table", "restored", "--margin", "400", "--yes"];
    let mut command = operator.through(&faults, &restored);
    let process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    reached.recv_timeout(HANG_TIMEOUT).unwrap();
    let file = folder.path().join("cards.csv");
    operator.json(&["numbers", "take", "--org", "967", "--count", "200", "--to", file.to_str().unwrap()]);
    taken.set(None).unwrap();
    let Output { status, stderr, .. } = super::output::wait(process);
    let message = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(3), "{message}");
    for said in
        ["are left in org 967 by now; no counter of it was raised", "Orgs whose counters were raised: 966"]
    {
        assert!(message.contains(said), "{message}");
    }
    let outcome = |org| {
        let acts = operator.json(&["audit", "list", "--org", org]);
        acts.as_array().unwrap().iter().find(|act| act["what"] == "table restored").unwrap()["outcome"]
            .clone()
    };
    assert_eq!((outcome("966"), outcome("967")), (json!("done"), json!("failed")));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_act_of_an_operator_is_in_the_audit_with_who_did_it() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    write(&folder, &common::DEMO_ORG.replace("[config]", "[config]\nCONF_OTP_LENGTH = 6"));
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    operator.json(&["org", "apply", &path("org.toml")]);
    let created = operator.json(&["till", "create", "shop.1", "--org", "966", "--allow", "otp:fetch"]);
    operator.json(&["till", "rotate", "shop.1"]);
    operator.json(&["till", "revoke", "--yes", "shop.1", "--old"]);
    let (_, message) =
        operator.refusal(&["till", "create", "shop.1", "--org", "966", "--allow", "otp:fetch"]);
    assert!(message.contains("already"), "{message}");
    let secret = operator.json(&["org", "webhook-secret", "966"])["secret"].as_str().unwrap().to_owned();
    let to = "8799361139";
    let (_, message) = operator.refusal(&["org", "test-delivery", "966", "--channel", "SMS", "--to", to]);
    assert!(message.contains("was not sent"), "the org names no provider: {message}");
    fs::write(path("customers.csv"), format!("mobile,email\n{to},tom@example.com\n")).unwrap();
    operator.json(&["customer", "import", &path("customers.csv"), "--org", "966"]);
    operator.json(&["table", "upgrade"]);
    operator.json(&["numbers", "take", "--org", "966", "--count", "5", "--to", &path("cards.csv")]);
    operator.json(&["table", "restored", "--margin", "100", "--yes"]);

    let entries = operator.json(&["audit", "list", "--org", "966"]);
    let entries: Vec<_> = entries.as_array().unwrap().iter().rev().collect();
    let acts: Vec<_> = entries.iter().map(|entry| entry["what"].as_str().unwrap()).collect();
    assert_eq!(
        acts,
        [
            "org apply", "org apply", "till create", "till rotate", "till revoke", "org webhook-secret",
            "org test-delivery", "customer import", "table upgrade", "numbers take", "table restored",
        ]
    );
    for entry in &entries {
        assert!(entry["who"].as_str().unwrap().contains("uid "), "{entry}");
        assert_eq!(entry["outcome"], "done");
    }
    assert_eq!(entries[1]["detail"]["changed"], json!(["CONF_OTP_LENGTH"]));
    assert_eq!(entries[6]["detail"], json!({"channel": "SMS", "scope": "GENERIC", "outcome": "failed"}));
    assert_eq!(entries[7]["detail"], json!({"registered": 1, "joined": 0, "failed": 0}));
    assert_eq!(entries[9]["detail"]["first"], 1_000_000_011, "the imported customer has the first one");
    let text = json!(entries).to_string();
    for confidential in [created["password"].as_str().unwrap(), &secret, to, "tom@example.com"] {
        assert!(!text.contains(confidential), "{confidential}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_reports_what_it_did_and_why_it_failed_whatever_the_audit_says() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    operator.json(&["org", "apply", &write(&folder, &common::DEMO_ORG.replace("id = 966", "id = 967"))]);
    let (_, faults) = with_fault_proxy(&operator.table, "shop.1").await;
    // The two entries, and then those entries completed.
    let denied_from = |operation: &'static str, from: usize| {
        let mut puts = 0;
        faults.inject(move |called, _| {
            puts += usize::from(called == "PutItem");
            let denied = called == operation || (called == "PutItem" && puts >= from);
            denied.then(|| Fault::error("AccessDeniedException"))
        });
        let ended = finish(&mut operator.through(&faults, &["--json", "table", "upgrade"]));
        assert_eq!(ended.status.code(), Some(1));
        (ended.stdout, String::from_utf8(ended.stderr).unwrap())
    };
    let upgrades = |org: &str| -> Vec<Value> {
        let acts = operator.json(&["audit", "list", "--org", org]);
        acts.as_array().unwrap().iter().filter(|act| act["what"] == "table upgrade").cloned().collect()
    };
    let id = |org: &str| upgrades(org)[0]["id"].as_str().unwrap().to_owned();
    let (stdout, message) = denied_from("none", 3);
    let report: Value = serde_json::from_slice(&stdout).unwrap();
    assert_eq!(report["undecided"], json!([]), "{report}");
    assert!(message.contains(&id("966")) && message.contains(&id("967")), "{message}");
    assert!(message.contains("It was done"), "{message}");

    let (stdout, message) = denied_from("Scan", 3);
    assert!(stdout.is_empty() && message.contains("DynamoDB refused the operation"), "{message}");
    assert!(message.contains("It failed") && message.contains(&id("967")), "{message}");

    // The second entry cannot be written, so nothing is done, and the first one says so.
    let mut puts = 0;
    faults.inject(move |called, _| {
        puts += usize::from(called == "PutItem");
        assert_ne!(called, "Scan");
        (called == "PutItem" && puts == 2).then(|| Fault::error("AccessDeniedException"))
    });
    assert!(!finish(&mut operator.through(&faults, &["table", "upgrade"])).status.success());
    assert_eq!((&upgrades("966")[0]["outcome"], upgrades("967").len()), (&json!("failed"), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_of_all_orgs_are_raised_or_of_none() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    operator.json(&["org", "apply", &write(&folder, &small_org())]);
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
