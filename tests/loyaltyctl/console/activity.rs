//! The console of `serve --demo`, and its Activity page.

use std::{net::SocketAddr, process::Command};

use super::{
    super::{common::served::Served, finish},
    Browser,
};

#[test]
fn the_demo_has_a_console_that_shows_its_requests() {
    let served = Served::start(&["--in-memory", "--demo"]);
    let url = served.after("The console is at ").to_owned();
    let address: SocketAddr = served.base().strip_prefix("http://").unwrap().parse().unwrap();
    let browser = Browser::open(address, &url[url.find("/console/").unwrap()..]);
    let before = browser.get("/console/activity");
    assert!(before.body.contains("/v2/customers"), "the demo's own request: {}", before.body);
    let call = |path: &str, credentials: &str| {
        let url = format!("{}{path}", served.base());
        let agent = "<b>pos/1.0</b>";
        finish(Command::new("curl").args(["-sS", "-A", agent, "-u", credentials, &url]));
    };
    call("/v2/cardNumber", &served.till());
    call(
        "/v2/otp?identifierName=mobile&identifierValue=8799361139&source=INSTORE&scope=POINTS",
        &served.till(),
    );
    call("/v2/cardNumber", "store.server:wrong");
    call("/v2/nothing", "store.server:wrong");
    for path in ["/console/activity", "/console/orgs/966/activity"] {
        let page = browser.get(path).body;
        // Newest first: the refused one is before the one that was answered.
        let row = page.split("<tr>").filter(|row| row.contains("GET /v2/cardNumber")).last().unwrap();
        for cell in [">200</td>", ">&#60;b&#62;pos/1.0&#60;/b&#62;</td>", ">store.server</td>"] {
            assert!(row.contains(cell), "{cell}: {row}");
        }
        assert!(page.contains(">404</td>"), "{page}");
        assert!(!page.contains("8799361139") && !page.contains("identifierValue"), "{page}");
    }
    let refused = browser.get("/console/activity").body;
    assert!(refused.contains(">401</td>"), "{refused}");
    assert!(!browser.get("/console/orgs/966/activity").body.contains(">401</td>"), "it is of no org");
    let api = finish(Command::new("curl").args(["-sS", &format!("{}/v2/nothing", served.base())]));
    assert!(
        String::from_utf8(api.stdout).unwrap().contains("No such resource"),
        "the API beside it is as before"
    );
}
