//! Golden items: items that earlier versions wrote. Live tables contain such items, so every later
//! version must read them.
//!
//! Each folder below `tests/golden/` is a set of items. Its name is the first version that wrote
//! them in this format. Each file has the items of one kind, as DynamoDB's JSON. One test runs the
//! service on every set. Another test compares the items that the present code writes with the
//! newest set, by attribute names and types. It fails if the format changes.
//!
//! To add a set after a deliberate change of the format:
//!
//! 1. Check that the code still reads the older sets. Never edit them.
//! 2. `GOLDEN_SET=0.2.0 cargo test --all-features --test api golden::record -- --ignored` writes
//!    the present items into `tests/golden/0.2.0/`.
//! 3. Extend [`works_on`] by checks of the new format.
//!
//! A kind whose name begins with `legacy-` is no longer written by the version of its set, but its
//! tables may still contain it. It replaces an item of the set that has the same key.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use aws_sdk_dynamodb::{primitives::Blob, types::AttributeValue};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::TimeDelta;
use loyalty_codes::{
    model::{access_token::TokenDigest, customer::UserId, org::OrgId, till::TillName},
    store::{Act, ActOutcome, ErasureStart, Merge, UpgradeOptions},
};
use serde_json::{Map, Value, json};

use crate::{
    common::{MOBILE, TestService, TestTable, USER},
    erasure,
    guard::sending,
    idempotency,
    joining::{self, INSTORE},
    merging,
};

type Item = HashMap<String, AttributeValue>;
/// The items of each kind.
type Set = BTreeMap<String, Vec<Item>>;

const KEY: &str = "golden";
const LEGACY: &str = "legacy-";
/// Failed attempts that the items of a set have used.
const WRONG: usize = 1;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// All sets, oldest first.
fn sets() -> Vec<(String, Set)> {
    let mut versions: Vec<String> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    versions.sort_by_key(|version| -> Vec<u32> {
        version.split('.').map(|part| part.parse().unwrap()).collect()
    });
    versions.into_iter().map(|version| (version.clone(), read(&folder().join(version)))).collect()
}

fn read(folder: &Path) -> Set {
    let mut set = Set::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let items: Vec<Value> = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let kind = path.file_stem().unwrap().to_str().unwrap().to_owned();
        set.insert(kind, items.iter().map(item_from_json).collect());
    }
    set
}

fn item_from_json(item: &Value) -> Item {
    let attributes = item.as_object().unwrap().iter();
    attributes.map(|(name, value)| (name.clone(), value_from_json(value))).collect()
}

fn value_from_json(value: &Value) -> AttributeValue {
    let (kind, value) = value.as_object().unwrap().iter().next().unwrap();
    let text = || value.as_str().unwrap().to_owned();
    match kind.as_str() {
        "S" => AttributeValue::S(text()),
        "N" => AttributeValue::N(text()),
        "B" => AttributeValue::B(Blob::new(STANDARD.decode(text()).unwrap())),
        "L" => AttributeValue::L(value.as_array().unwrap().iter().map(value_from_json).collect()),
        "M" => AttributeValue::M(item_from_json(value)),
        "SS" => {
            let texts = value.as_array().unwrap().iter();
            AttributeValue::Ss(texts.map(|text| text.as_str().unwrap().to_owned()).collect())
        }
        _ => panic!("this test does not support the type {kind} yet"),
    }
}

fn item_to_json(item: &Item) -> Value {
    let sorted: BTreeMap<_, _> = item.iter().collect();
    Value::Object(
        sorted.into_iter().map(|(name, value)| (name.clone(), value_to_json(value))).collect::<Map<_, _>>(),
    )
}

fn value_to_json(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::S(text) => json!({"S": text}),
        AttributeValue::N(number) => json!({"N": number}),
        AttributeValue::B(bytes) => json!({"B": STANDARD.encode(bytes)}),
        AttributeValue::L(values) => json!({"L": values.iter().map(value_to_json).collect::<Vec<_>>()}),
        AttributeValue::M(item) => json!({"M": item_to_json(item)}),
        AttributeValue::Ss(texts) => json!({"SS": texts}),
        _ => panic!("this test does not support the type of {value:?} yet"),
    }
}

/// Kind of an item, by its key.
fn kind(item: &Item) -> &'static str {
    let key = |name: &str| item[name].as_s().unwrap().as_str();
    match (key("PK"), key("SK")) {
        (_, "TILL") => "till",
        (_, "TOKEN") => "access-token",
        (_, "ORG") => "org",
        ("ORGS", _) => "org-listing",
        (_, sk) if sk.starts_with("TILL#") => "till-listing",
        (_, "PROFILE") if item.contains_key("gone_at") => "tombstone",
        (_, "ID") if item.contains_key("gone_at") => "number-tombstone",
        (_, sk) if item.contains_key("gone_at") && sk.starts_with("QUOTA#") => "quota-mark",
        (_, sk) if item.contains_key("gone_at") && sk.ends_with("#GUESSES") => "failed-attempts-mark",
        (_, "ID") if item.contains_key("accounts") => "org-wide-identity",
        (_, "ID") => "identity",
        (_, "PROFILE") => "customer",
        (_, sk) if sk.starts_with("OTP#") && sk.ends_with("#GUESSES") => "failed-attempts",
        (_, sk) if sk.starts_with("OTP#") && sk.ends_with("#LAST") => "last-otp",
        (_, sk) if sk.starts_with("OTP#") => "otp",
        (_, sk) if sk.starts_with("MESSAGE#") => "message",
        (_, sk) if sk.starts_with("QUOTA#") => "quota",
        (pk, "COUNTER") if pk.ends_with("#CARD_NUMBER") => "card-number-counter",
        (pk, "COUNTER") if pk.ends_with("#USER_ID") => "user-id-counter",
        (_, "ANSWER") => "stored-response",
        (pk, _) if pk.contains("#AUDIT#") => "audit-entry",
        (pk, _) if pk.ends_with("#READINGS") => "reading",
        key => panic!("unknown kind of item: add it here, and record a new set: {key:?}"),
    }
}

/// Reads all items of a table after the service has written each kind of item.
async fn everything() -> Set {
    let config = "CONF_OTP_REISSUE = \"SAME\"\nCONF_OTP_RATE_LIMIT_ONE_HOUR = 1000";
    let (table, service) = sending(config).await;
    service.issue().await;
    assert!(!service.is_right("WRONG").await);
    let code = service.code().await;
    assert!(service.is_right(&code).await);
    assert_eq!(idempotency::send(&service, "/v2/otp/generate", KEY, &with_message()).await.status, 200);
    assert_eq!(service.post("/v2/otp/generate", &with_message()).await.status, 200, "it is sent again");
    assert_eq!(service.post("/v2/otp/generate", &for_a_contact()).await.status, 200);
    service.card_number().await;
    service.token().await;
    gone_customers(&service).await;
    let (store, now) = (&service.store, service.clock.now());
    let detail = json!({"count": 5});
    let act = Act { org: OrgId(966), who: "ann".to_owned(), what: "numbers take", detail, at: now };
    let mut entry = store.begin_act(&act).await.unwrap();
    entry.outcome = ActOutcome::Done;
    store.write_entry(&entry).await.unwrap();
    let counter = store.issued_card_numbers(OrgId(966)).await.unwrap().unwrap();
    store.write_reading(OrgId(966), &counter, now).await.unwrap();

    let scanned = table.client().scan().table_name(table.name()).send().await.unwrap();
    assert!(scanned.last_evaluated_key.is_none());
    let mut set = Set::new();
    for item in scanned.items.unwrap() {
        set.entry(kind(&item).to_owned()).or_default().push(item);
    }
    for items in set.values_mut() {
        items.sort_by_key(|item| (item["PK"].as_s().unwrap().clone(), item["SK"].as_s().unwrap().clone()));
    }
    set
}

/// Leaves the tombstones of a customer who was erased, of one whose erasure has not ended, and of
/// one who was merged.
async fn gone_customers(service: &TestService) {
    let new = async |mobile: &str| joining::new_customer(service, INSTORE, &[("mobile", mobile)]).await;
    erasure::erase(service, new("9010000044").await).await;
    let begun = erasure::begin(&service.store, service, new("9010000055").await).await;
    assert!(matches!(begun, ErasureStart::Begun(_)), "{begun:?}");
    let (kept, merged) = (new("9010000066").await, new("9010000077").await);
    let merge = merging::merge(service, kept, merged, true).await;
    assert!(matches!(merge, Ok(Merge::Done { .. })), "{merge:?}");
}

/// Checks that customers who are gone stay so, and that an erasure goes on.
async fn gone_customers_stay_so(service: &TestService, version: &str, set: &Set) {
    let items = |kind: &str| set.get(kind).cloned().unwrap_or_default();
    let number = |item: &Item, name: &str| item[name].as_n().unwrap().parse::<u64>().unwrap();
    for item in items("tombstone") {
        let user = number(&item, "user_id");
        let found = service.get(&format!("/v2/customers/{user}")).await;
        assert_eq!(found.status, 404, "{version}: {found:?}");
        match erasure::begin(&service.store, service, user).await {
            ErasureStart::Merged(into) => assert_eq!(into.0, number(&item, "merged_into"), "{version}"),
            ErasureStart::Begun(_) => assert!(item.contains_key("pending"), "{version}: {item:?}"),
            other => assert!(matches!(other, ErasureStart::Erased(_)), "{version}: {other:?}"),
        }
    }
    for item in items("number-tombstone") {
        let number = item["PK"].as_s().unwrap().rsplit('#').next().unwrap().to_owned();
        let again = joining::register(service, INSTORE, &[("externalId", &number)]).await;
        assert_eq!(again.status, 409, "{version}: {again:?}");
    }
}

fn with_message() -> Value {
    json!({
        "entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS",
        "channels": [{"type": "SMS", "value": MOBILE}, {"type": "EMAIL", "value": "tom@example.com"}],
    })
}

fn for_a_contact() -> Value {
    json!({"entityType": "MOBILE", "entityValue": "9010000033", "action": "REGISTRATION"})
}

/// Checks that the service continues correctly on the items of a set.
async fn works_on(version: &str, set: &Set) {
    let table = TestTable::new().await;
    let client = table.client();
    // Legacy items come after the items that they replace.
    let (legacy, current): (Vec<_>, Vec<_>) = set.iter().partition(|(kind, _)| kind.starts_with(LEGACY));
    for item in current.into_iter().chain(legacy).flat_map(|(_, items)| items) {
        client.put_item().table_name(table.name()).set_item(Some(item.clone())).send().await.unwrap();
    }
    let service = table.service("store.server");
    let text = |item: &Item, name: &str| item[name].as_s().unwrap().clone();

    // Till and org admit the caller; the identities find the customer.
    let customers_otp =
        |item: &&Item| text(item, "SK").starts_with("OTP#POINTS#") && !item.contains_key("consumed_at");
    let otp = set["otp"].iter().find(customers_otp).unwrap();
    for identifier in [&format!("mobile={MOBILE}"), "email=tom@example.com", "external_id=CARD-1"] {
        let found = service.get(&format!("/v2/otp?source=INSTORE&{identifier}&scope=POINTS")).await;
        assert_eq!(found.status, 200, "{version}: {identifier}: {found:?}");
        assert_eq!(found.json["code"], text(otp, "code"), "{version}");
        assert_eq!(found.json["userId"], USER, "{version}");
    }
    let contact = "/v2/otp?source=INSTORE&mobile=9010000033&scope=REGISTRATION";
    assert_eq!(service.get(contact).await.status, 200, "{version}: an OTP of a contact");

    // The key returns its stored response, and has no other effect.
    let stored = &set["stored-response"][0];
    let again = idempotency::send(&service, "/v2/otp/generate", KEY, &with_message()).await;
    assert_eq!((again.status, again.text), (200, text(stored, "answer")), "{version}");
    let other = idempotency::send(&service, "/v2/otp/generate", KEY, &for_a_contact()).await;
    assert_eq!(other.status, 422, "{version}: the key is used");

    // The org sends a valid OTP again, if that is how it is configured.
    let customers_quota = |item: &&Item| text(item, "PK") == format!("ORG#966#USER#{USER}");
    let quota = set["quota"].iter().find(customers_quota).unwrap();
    let mut issued: usize = quota["issued"].as_n().unwrap().parse().unwrap();
    if set.contains_key("last-otp") {
        assert_eq!(service.issue().await.to_string(), *otp["created_id"].as_n().unwrap(), "{version}");
        issued += 1;
    }

    // The first version issued no access tokens.
    for item in set.get("access-token").into_iter().flatten() {
        let digest = text(item, "PK").split_once('#').unwrap().1.to_owned();
        let digest = std::array::from_fn(|at| u8::from_str_radix(&digest[2 * at..][..2], 16).unwrap());
        let grant = service.store.access_token(&TokenDigest(digest)).await.unwrap().unwrap();
        let till = service.store.till(&grant.till).await.unwrap().unwrap();
        assert!(till.has_credential(grant.credential) && grant.is_valid_at(table.clock.now()), "{version}");
    }

    // A valid OTP is accepted once. A consumed OTP is not accepted. Failed attempts continue to
    // count.
    assert!(service.is_right(&text(otp, "code")).await, "{version}");
    let consumed = set["otp"].iter().find(|item| item.contains_key("consumed_at")).unwrap();
    assert!(!service.is_right(&text(consumed, "code")).await, "{version}: the OTP was consumed before");
    for _ in WRONG + 1..5 {
        assert!(!service.is_right("WRONG").await, "{version}");
    }
    assert_eq!(service.validate("WRONG").await.status, 429, "{version}: five failed attempts in all");

    // The daily limit continues to count.
    for _ in issued..10 {
        service.issue().await;
    }
    let body = idempotency::body("/v2/otp/generate");
    assert_eq!(service.post("/v2/otp/generate", &body).await.status, 429, "{version}: ten OTPs in all");

    // The sequences continue.
    let next = |kind: &str| set[kind][0]["next"].as_n().unwrap().parse::<u64>().unwrap();
    let number = next("card-number-counter");
    assert_eq!(service.card_number().await, number.to_string(), "{version}");
    let taken =
        json!({"profiles": [{"source": "INSTORE", "identifiers": [{"type": "mobile", "value": MOBILE}]}]});
    assert_eq!(
        service.post("/v2/customers", &taken).await.status,
        409,
        "{version}: an identity has one owner"
    );
    let new = service.post("/v2/customers", &idempotency::body("/v2/customers")).await;
    assert_eq!(new.json["createdId"], next("user-id-counter"), "{version}");
    let given = service.store.issued_card_numbers(OrgId(966)).await.unwrap().unwrap();
    assert_eq!(given.next, number + 2, "{version}");

    // After an upgrade, every customer is joined by registrations in other accounts.
    let upgraded = service.store.upgrade(UpgradeOptions::default(), |_| ()).await.unwrap();
    assert_eq!((upgraded.undecided, upgraded.unreadable), (Vec::new(), Vec::new()), "{version}");
    let process = service.another_process();
    let joined = joining::register(&process, "WECHAT:WECHAT-API2", &[("email", "tom@example.com")]).await;
    assert_eq!((&joined.json["createdId"], joined.status), (&json!(USER), 200), "{version}: {joined:?}");
    let customer = service.store.customer(OrgId(966), UserId(USER)).await.unwrap().unwrap();
    let accounts: Vec<String> = customer.profiles.iter().map(|profile| profile.account.to_string()).collect();
    assert_eq!(accounts.last().unwrap(), "WECHAT:WECHAT-API2", "{version}: {accounts:?}");

    gone_customers_stay_so(&process, version, set).await;

    // Operators can list and change the existing items.
    assert_eq!(service.store.orgs().await.unwrap(), [(OrgId(966), "Demo Stores".to_owned())], "{version}");
    let tills = service.store.tills(OrgId(966)).await.unwrap();
    assert_eq!(
        tills.iter().map(|till| &till.name).collect::<Vec<_>>(),
        [&TillName::parse("store.server").unwrap()]
    );
    assert!(service.store.replace_credentials(&tills[0], &[]).await.unwrap(), "{version}");
    let entries = set.get("audit-entry").into_iter().flatten();
    let first = table.clock.now() - TimeDelta::days(400);
    let acts = service.store.audit_entries(OrgId(966), first, table.clock.now()).await.unwrap();
    assert_eq!(acts.len(), entries.count(), "{version}");
    let readings = service.store.readings(OrgId(966)).await.unwrap();
    assert_eq!(readings.len(), set.get("reading").map_or(0, Vec::len), "{version}");
    renumber(&service, version).await;
}

/// Changes the org's numbering plan, which is checked against the issued numbers.
async fn renumber(service: &TestService, version: &str) {
    use crate::common::demo_org_with;
    let same_range = demo_org_with("CONF_CARD_NUMBER_PREFIX = \"\"\nCONF_CARD_NUMBER_OFFSET = 1000000010");
    service.apply(&same_range).await.unwrap_or_else(|error| panic!("{version}: {error}"));
    let behind = demo_org_with("CONF_CARD_NUMBER_OFFSET = 1000000011");
    let refused = service.apply(&behind).await;
    assert!(refused.is_err(), "{version}: the plan could repeat numbers");
    let longer = demo_org_with("CONF_CARD_NUMBER_LENGTH = 11");
    service.apply(&longer).await.unwrap_or_else(|error| panic!("{version}: {error}"));
}

#[tokio::test]
async fn the_items_of_every_earlier_version_work() {
    let sets = sets();
    assert!(!sets.is_empty());
    for (version, set) in &sets {
        works_on(version, set).await;
    }
}

/// Names and types of a value. A list has the types of all its elements. Of text that is JSON, only
/// that fact counts.
fn form(value: &AttributeValue) -> String {
    let all = |forms: Vec<String>| {
        let mut forms = forms;
        forms.sort();
        forms.dedup();
        forms.join(" ")
    };
    match value {
        AttributeValue::S(text) if serde_json::from_str::<Map<String, Value>>(text).is_ok() => {
            "S, a JSON object".to_owned()
        }
        AttributeValue::S(text) if serde_json::from_str::<Vec<Value>>(text).is_ok() => {
            "S, a JSON array".to_owned()
        }
        AttributeValue::L(values) => format!("L of ({})", all(values.iter().map(form).collect())),
        AttributeValue::M(item) => {
            format!(
                "M of ({})",
                all(item.iter().map(|(name, value)| format!("{name}: {}", form(value))).collect())
            )
        }
        other => value_to_json(other).as_object().unwrap().keys().next().unwrap().clone(),
    }
}

/// The attributes of each kind, without legacy kinds.
fn forms(set: &Set) -> BTreeMap<&str, BTreeMap<&str, String>> {
    let kinds = set.iter().filter(|(kind, _)| !kind.starts_with(LEGACY));
    kinds
        .map(|(kind, items)| {
            let attributes = items.iter().flatten().map(|(name, value)| (name.as_str(), form(value)));
            (kind.as_str(), attributes.collect())
        })
        .collect()
}

#[tokio::test]
async fn written_items_have_the_format_of_the_newest_golden_items() {
    let (version, newest) = sets().pop().unwrap();
    let written = everything().await;
    let hint =
        format!("the form of an item is not that of {version} any more; tests/api/golden.rs says what to do");
    assert_eq!(forms(&written), forms(&newest), "{hint}");
}

#[tokio::test]
#[ignore = "writes the set that GOLDEN_SET names"]
async fn record() {
    let folder = folder().join(std::env::var("GOLDEN_SET").expect("GOLDEN_SET, such as 0.2.0"));
    fs::create_dir(&folder).expect("an existing set must not be changed");
    for (kind, items) in everything().await {
        let items: Vec<Value> = items.iter().map(item_to_json).collect();
        let text = serde_json::to_string_pretty(&items).unwrap() + "\n";
        fs::write(folder.join(kind).with_extension("json"), text).unwrap();
    }
}
