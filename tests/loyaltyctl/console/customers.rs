//! The Customers page.

use std::{
    collections::HashMap,
    io::Read,
    net::SocketAddr,
    process::{Command, Stdio},
    time::Instant,
};

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};

use super::{
    super::{
        Operator,
        common::served::{HANG_TIMEOUT, Served, loyaltyctl},
        customers::with_customer,
        finish, paste,
    },
    Answer, Browser, Console, changed,
};

const CUSTOMERS: &str = "/console/orgs/966/customers";
const TOM: &str = "/console/orgs/966/customers/313302314";

/// The demo, with its console open.
struct Demo {
    served: Served,
    browser: Browser,
}

impl Demo {
    fn start() -> Self {
        Self::with(&["--in-memory", "--demo"])
    }

    fn with(options: &[&str]) -> Self {
        let served = Served::start(options);
        let url = served.after("The console is at ").to_owned();
        let address: SocketAddr = served.base().strip_prefix("http://").unwrap().parse().unwrap();
        let browser = Browser::open(address, &url[url.find("/console/").unwrap()..]);
        Self { served, browser }
    }

    fn call(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.served.base());
        let (till, body) = (self.served.till(), body.to_string());
        let arguments = ["-sS", "-u", &till, "-H", "Content-Type: application/json", &url, "-d", &body];
        serde_json::from_slice(&finish(Command::new("curl").args(arguments)).stdout).unwrap()
    }

    fn issue(&self, mobile: &str, action: &str) -> Value {
        let channels = json!([{"type": "SMS", "value": mobile}]);
        let body = json!({
            "entityType": "MOBILE", "entityValue": mobile, "action": action, "source": "INSTORE", "channels": channels,
        });
        self.call("/v2/otp/generate", &body)["createdId"].clone()
    }

    fn guess(&self, mobile: &str, action: &str) -> Value {
        let body =
            json!({"entityType": "MOBILE", "entityValue": mobile, "action": action, "code": "WRONG00"});
        self.call("/v2/otp/validate", &body)
    }

    /// Sends the form of a page with an action.
    fn act(&self, page: &str, fields: &[(&str, &str)]) -> Answer {
        self.browser.submit(page, page, fields)
    }
}

const MOBILE: &str = "8799361139";

#[test]
fn support_sees_what_happened_and_unlocks_and_revokes() {
    let demo = Demo::start();
    let code = paste(&demo.served.requests())[1]["code"].as_str().unwrap().to_owned();
    let issued = demo.issue(MOBILE, "COUPON").to_string();
    let found =
        demo.browser.submit(CUSTOMERS, CUSTOMERS, &[("kind", "mobile"), ("value", "+91 87993-61139")]);
    assert_eq!((found.status, found.location()), (303, TOM), "the address has the id alone");
    let page = demo.browser.follow(&found);
    let row = |what: &str| format!(">{what}</td>");
    for expected in [
        row("registered"),
        row("issued"),
        row("validated"),
        row(&issued),
        "SMS to ".to_owned(),
        "writes nothing".to_owned(),
    ] {
        let expected = expected.as_str();
        assert!(page.body.contains(expected), "{expected}: {}", page.body);
    }
    assert!(!page.body.contains(MOBILE) && !page.body.contains("DEMO-1"), "masked: {}", page.body);
    let revealed = demo.act(TOM, &[("action", "reveal")]);
    assert!(revealed.body.contains("918799361139") && revealed.body.contains("DEMO-1"), "{}", revealed.body);
    assert!(demo.browser.get("/console/orgs/966/activity").body.contains("customer show"), "it is recorded");

    for _ in 0..5 {
        assert_eq!(demo.guess(MOBILE, "COUPON")["entity"], false);
    }
    assert_eq!(demo.guess(MOBILE, "COUPON")["errors"][0]["code"], 429);
    let page = demo.browser.get(TOM);
    assert!(page.body.contains(&row("refused")) && page.body.contains(&row("locked")), "{}", page.body);
    let page = demo.browser.follow(&demo.act(TOM, &[("action", "unlock")]));
    assert!(page.body.contains("Wrong codes were forgotten for COUPON."), "{}", page.body);
    assert_eq!(demo.guess(MOBILE, "COUPON")["entity"], false, "codes are checked again");

    let asked = demo.act(TOM, &[("action", "revoke")]);
    assert!(asked.body.contains("<h1>Revoke every open OTP?</h1>"), "{}", asked.body);
    let revoked = demo.browser.post(TOM, &changed(asked.fields(), &[("action", "revoke")]));
    let page = demo.browser.follow(&revoked);
    assert!(page.body.contains(&row("revoked")), "{}", page.body);
    for page in [page, revealed, demo.browser.get("/console/orgs/966/activity")] {
        assert!(!page.body.contains(&code), "{}", page.body);
    }
}

#[test]
fn a_contact_without_registration_is_found_by_its_otps() {
    let demo = Demo::start();
    let find =
        |value: &str| demo.browser.submit(CUSTOMERS, CUSTOMERS, &[("kind", "mobile"), ("value", value)]);
    let nobody = find("9190000099");
    assert!(nobody.status == 404 && nobody.body.contains("Nobody has it"), "{nobody:?}");
    let wrong = find("12");
    assert!(wrong.status == 422 && wrong.body.contains("href=\"#value\""), "{wrong:?}");
    let issued = demo.issue("9190000099", "REGISTRATION").to_string();
    let contact = find("9190000099");
    assert!(contact.status == 200 && contact.body.contains(&issued), "{contact:?}");
    let to = "/console/orgs/966/contacts";
    let unlocked = demo.browser.post(to, &changed(contact.fields(), &[("action", "unlock")]));
    assert!(demo.browser.follow(&unlocked).body.contains("no wrong codes to forget"));
    let asked = demo.browser.post(to, &changed(find("9190000099").fields(), &[("action", "revoke")]));
    let revoked = demo.browser.post(to, &changed(asked.fields(), &[("action", "revoke")]));
    assert!(demo.browser.follow(&revoked).body.contains("1 OTP was revoked."));
}

#[test]
fn a_customer_is_erased_when_the_id_was_typed() {
    let demo = Demo::start();
    let wrong = demo.act(TOM, &[("action", "erase"), ("typed", "313302315")]);
    assert!(wrong.status == 422 && wrong.body.contains("id=\"typed-error\""), "{wrong:?}");
    let lookup = || {
        let url = format!(
            "{}/v2/customers/lookup?source=ALL&identifierName=mobile&identifierValue={MOBILE}",
            demo.served.base()
        );
        let output = finish(Command::new("curl").args(["-sS", "-u", &demo.served.till(), &url]));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    assert_eq!(lookup()["entity"], 313_302_314);
    let by_id = |id| demo.browser.submit(CUSTOMERS, CUSTOMERS, &[("kind", "userId"), ("value", id)]);
    assert_eq!(by_id(" 313302314 ").location(), TOM);
    for unknown in ["1", "", "x"] {
        assert_eq!(by_id(unknown).status, 404, "{unknown}");
    }
    let page = demo.browser.follow(&demo.act(TOM, &[("action", "erase"), ("typed", " 313302314 ")]));
    assert!(
        !page.body.contains("value=\"unlock\"") && page.body.contains("value=\"erase\""),
        "{}",
        page.body
    );
    assert!(page.body.contains("is unknown to every request"), "{}", page.body);
    assert!(page.body.contains("being erased since"), "{}", page.body);
    assert_eq!(lookup()["errors"][0]["code"], 8015);
    let acts = demo.browser.get("/console/orgs/966/activity").body;
    assert!(acts.contains("customer erase") && !acts.contains(MOBILE), "{acts}");
    assert_eq!(demo.browser.get("/console/orgs/966/customers/1").status, 404);
}

impl Console {
    /// Sends the process a signal.
    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits until the process has ended. Returns the exit code and the rest of its standard error.
    fn ended(&mut self) -> (i32, String) {
        let mut errors = String::new();
        self.process.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
        (self.process.wait().unwrap().code().unwrap(), errors)
    }

    fn erase(&self, browser: &Browser) {
        let began = browser.submit(TOM, TOM, &[("action", "erase"), ("typed", "313302314")]);
        assert!(browser.follow(&began).body.contains("being erased since"), "{began:?}");
        assert_eq!(self.address(), browser.address);
    }
}

/// What `customer show` says of the demo customer.
fn shown(operator: &Operator) -> Value {
    operator.json(&["customer", "show", "--org", "966", "313302314"])["state"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_ends_in_the_background() {
    let (operator, service) = with_customer().await;
    let console = Console::with(&operator, &["--settle", "2"], Stdio::inherit());
    let browser = console.browser();
    console.erase(&browser);
    // What a request that was under way still writes.
    let late = [("PK", "ORG#966#USER#313302314"), ("SK", "OTP#LATE")]
        .map(|(name, value)| (name.to_owned(), AttributeValue::S(value.to_owned())));
    let late = HashMap::from(late);
    let put = service.client.put_item().table_name(operator.table.name());
    put.set_item(Some(late.clone())).send().await.unwrap();
    assert_eq!(shown(&operator), "being erased");
    let began = Instant::now();
    while !browser.get(TOM).body.contains("The customer was erased at ") {
        assert!(began.elapsed() < HANG_TIMEOUT, "{}", browser.get(TOM).body);
    }
    let get = service.client.get_item().table_name(operator.table.name()).set_key(Some(late));
    assert_eq!(get.send().await.unwrap().item, None);
    let act = &operator.json(&["audit", "list", "--org", "966"])[0];
    assert_eq!((&act["what"], &act["outcome"]), (&json!("customer erase"), &json!("done")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_that_is_ended_finishes_its_erasures() {
    let (operator, _service) = with_customer().await;
    let mut console = Console::with(&operator, &["--settle", "2"], Stdio::piped());
    console.erase(&console.browser());
    console.signal("-INT");
    let (code, errors) = console.ended();
    assert!(code == 0 && errors.contains("waiting for 1 erasure,"), "{code}: {errors}");
    assert_eq!(shown(&operator), "erased");
    let mut idle = Console::with(&operator, &[], Stdio::piped());
    idle.signal("-INT");
    let (code, errors) = idle.ended();
    assert!(code == 0 && !errors.contains("erasures"), "{code}: {errors}");
}

#[test]
fn a_server_that_is_ended_finishes_the_erasures_of_its_console() {
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("dynamodb.db").to_str().unwrap().to_owned();
    let mut demo = Demo::with(&["--db", &db, "--demo", "--settle", "2"]);
    let began = demo.act(TOM, &[("action", "erase"), ("typed", "313302314")]);
    assert!(demo.browser.follow(&began).body.contains("being erased since"), "{began:?}");
    let id = demo.served.process.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(demo.served.process.wait().unwrap().success());
    let again = Served::start(&["--db", &db]);
    let arguments = ["--json", "customer", "show", "--org", "966", "313302314"];
    let shown = finish(loyaltyctl(&["--endpoint", again.dynamodb()]).args(arguments));
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["state"], "erased");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_that_is_ended_twice_prints_what_finishes_its_erasures() {
    let (operator, _service) = with_customer().await;
    let mut console = Console::with(&operator, &["--settle", "3600"], Stdio::piped());
    console.erase(&console.browser());
    console.signal("-INT");
    let mut errors = String::new();
    let mut stderr = console.process.stderr.take().unwrap();
    while !errors.contains("another signal ends the process at once\n") || !errors.contains("1 erasure,") {
        let mut byte = [0];
        stderr.read_exact(&mut byte).unwrap();
        errors.push(char::from(byte[0]));
    }
    console.process.stderr = Some(stderr);
    console.signal("-INT");
    let (code, errors) = console.ended();
    let command = format!("customer erase --org 966 {}", 313_302_314);
    assert!(code == 130 && errors.contains(&command), "{code}: {errors}");
    let table = format!("--endpoint {} --table {} ", operator.table.endpoint(), operator.table.name());
    assert!(errors.contains(&table), "{errors}");
    assert_eq!(shown(&operator), "being erased");
    let finished =
        operator.json(&[&command.split(' ').collect::<Vec<_>>()[..], &["--yes", "--settle", "0"]].concat());
    assert_eq!(finished["result"], "erased");
    assert_eq!(shown(&operator), "erased");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_of_a_merged_customer_leads_to_the_other_and_offers_nothing_else() {
    let (operator, service) = with_customer().await;
    let identifiers = json!([{"type": "mobile", "value": "9010000022"}]);
    let body = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
    let other = service.post("/v2/customers", &body).await.json["createdId"].as_u64().unwrap().to_string();
    operator.json(&["customer", "merge", "--org", "966", "313302314", &other, "--yes", "--as-card-number"]);
    let console = Console::of(&operator);
    let browser = console.browser();
    let page = browser.get(&format!("{CUSTOMERS}/{other}")).body;
    assert!(page.contains("href=\"/console/orgs/966/customers/313302314\""), "{page}");
    for action in ["unlock", "revoke", "erase", "reveal"] {
        assert!(!page.contains(&format!("value=\"{action}\"")), "{action}: {page}");
    }
    let page = browser.get(TOM).body;
    assert!(page.contains(">merged with</td>") && page.contains(&format!("customer {other}")), "{page}");
}
