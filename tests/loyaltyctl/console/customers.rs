//! The Customers page.

use std::{net::SocketAddr, process::Command};

use serde_json::{Value, json};

use super::{
    super::{common::served::Served, finish, paste},
    Answer, Browser, changed,
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
        let served = Served::start(&["--in-memory", "--demo"]);
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
    assert!(demo.browser.follow(&revoked).body.contains("1 OTPs were revoked."));
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
    let page = demo.browser.follow(&demo.act(TOM, &[("action", "erase"), ("typed", " 313302314 ")]));
    assert!(page.body.contains("is unknown to every request"), "{}", page.body);
    assert!(page.body.contains("being erased since"), "{}", page.body);
    assert_eq!(lookup()["errors"][0]["code"], 8015);
    let acts = demo.browser.get("/console/orgs/966/activity").body;
    assert!(acts.contains("customer erase") && !acts.contains(MOBILE), "{acts}");
    assert_eq!(demo.browser.get("/console/orgs/966/customers/1").status, 404);
}
