//! Who gets in, and what every answer has.

use std::net::SocketAddr;

use super::{
    super::{
        Operator,
        common::{
            self,
            served::{Served, loyaltyctl},
        },
        finish, with_demo_org, write,
    },
    Browser, CREATE, Console, NUMBERS, REGISTRATION, TILLS, changed, encode, request, send,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_printed_address_works_once_and_leaves_no_secret_behind() {
    let operator = with_demo_org().await;
    let console = Console::of(&operator);
    let address = console.address();
    assert!(address.ip().is_loopback() && console.path().starts_with("/console/start?key="));
    let look = send(address, &request(address, "HEAD", console.path(), &[], ""));
    assert_eq!(look.status, 403, "a program that looks at links does not use it up");
    assert_eq!(send(address, &request(address, "GET", "/console/start?key=wrong", &[], "")).status, 403);
    let browser = console.browser();
    assert_eq!(browser.get("/console/").status, 200);
    let again = send(address, &request(address, "GET", console.path(), &[], ""));
    assert_eq!((again.status, again.header("set-cookie")), (403, None), "used up");
    assert_eq!(browser.get(console.path()).location(), "/console/", "who has the session goes on");
    assert_eq!(browser.get("/").location(), "/console/");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_from_elsewhere_are_refused() {
    let operator = with_demo_org().await;
    let console = Console::of(&operator);
    let (browser, address) = (console.browser(), console.address());
    let port = address.port();
    let own = ("Cookie", browser.cookie.as_str());
    let status =
        |headers: &[(&str, &str)]| send(address, &request(address, "GET", REGISTRATION, headers, "")).status;
    assert_eq!(status(&[own]), 200);
    assert_eq!(status(&[own, ("Host", &format!("localhost:{port}"))]), 200);
    assert_eq!(status(&[]), 401, "no cookie");
    for others in [format!("shop=José; {}", browser.cookie), format!("{}; a=b; shop=José", browser.cookie)]
    {
        assert_eq!(status(&[("Cookie", &others)]), 200, "other servers' cookies do not matter: {others}");
    }
    let name = browser.cookie.split('=').next().unwrap();
    assert_eq!(status(&[("Cookie", &format!("{name}=AAAA"))]), 401);
    for host in
        [format!("attacker.example:{port}"), "127.0.0.1".to_owned(), format!("127.0.0.1.nip.io:{port}")]
    {
        assert_eq!(status(&[own, ("Host", &host)]), 403, "{host}");
    }
    for foreign in [
        ("Origin", "http://attacker.example"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
    ] {
        assert_eq!(status(&[own, foreign]), 403, "{foreign:?}");
    }

    let fields = encode(&changed(browser.get(REGISTRATION).fields(), &[("action", "preview")]));
    let sent = |headers: &[(&str, &str)], body: &str| {
        let form_type = ("Content-Type", "application/x-www-form-urlencoded");
        send(address, &request(address, "POST", REGISTRATION, &[&[own, form_type], headers].concat(), body))
            .status
    };
    let origin = format!("http://{address}");
    assert_eq!(sent(&[("Origin", &origin)], &fields), 200);
    assert_eq!(sent(&[], &fields), 403, "a browser says where a form comes from");
    assert_eq!(sent(&[("Origin", "null")], &fields), 403);
    assert_eq!(sent(&[("Origin", &format!("http://127.0.0.1:{}", port ^ 1))], &fields), 403);
    for site in ["same-site", "same-origin"] {
        assert_eq!(sent(&[("Origin", "null"), ("Sec-Fetch-Site", site)], &fields), 403, "{site}");
    }
    assert_eq!(sent(&[("Origin", &origin)], "action=preview"), 403, "no token");
    assert_eq!(sent(&[("Origin", &origin)], "action=preview&csrf=AAAA"), 403, "a wrong token");
    let form_type = ("Content-Type", "application/x-www-form-urlencoded");
    let large = request(address, "POST", REGISTRATION, &[own, form_type, ("Origin", &origin)], "");
    let large = large.replace("Content-Length: 0", "Content-Length: 600000");
    assert_eq!(send(address, &large).status, 413);
    let text = [own, ("Content-Type", "text/plain"), ("Origin", origin.as_str())];
    assert_eq!(send(address, &request(address, "POST", REGISTRATION, &text, &fields)).status, 415);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_answer_has_the_headers() {
    // `send` checks them.
    let served = Served::start(&["--in-memory", "--demo"]);
    let console = Console::run(&mut loyaltyctl(&["--endpoint", served.dynamodb(), "--json", "console"]));
    let (browser, address) = (console.browser(), console.address());
    for (path, status) in [
        ("/console/", 200),
        ("/console/console.css", 200),
        ("/console/console.js", 200),
        ("/console/icon.svg", 200),
        ("/console/activity", 200),
        ("/console/orgs/966", 303),
        ("/console/orgs/966/numbers", 200),
        ("/console/orgs/966/tills", 200),
        ("/console/orgs/966/activity", 200),
        ("/console/orgs/966/org.toml", 200),
        ("/console/orgs/x/tills", 400),
        ("/console/orgs/77/tills", 404),
        ("/console/orgs/966/numbers/taken/nothing", 404),
        ("/console/nothing", 404),
        ("/nothing", 404),
    ] {
        assert_eq!(browser.get(path).status, status, "{path}");
    }
    let origin = format!("http://{address}");
    let own = [("Cookie", browser.cookie.as_str()), ("Origin", origin.as_str())];
    let delete = request(address, "DELETE", "/console/console.css", &own, "");
    let refused = send(address, &delete);
    assert_eq!((refused.status, refused.header("allow")), (405, Some("GET,HEAD")));
    let get = browser.get("/console/orgs/966/tills/create");
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    served.kill();
    let failed = browser.get("/console/");
    assert!(failed.status == 500 && failed.body.contains("<h1>Failed</h1>"), "{failed:?}");
}

#[test]
fn other_machines_are_let_in_only_where_the_operator_says_so() {
    let output =
        finish(&mut loyaltyctl(&["--endpoint", "http://127.0.0.1:9", "console", "--listen", "0.0.0.0:0"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--i-know"));
    let served = Served::start(&["--in-memory", "--demo"]);
    let open = ["--json", "console", "--listen", "0.0.0.0:0", "--i-know"];
    let console = Console::run(loyaltyctl(&["--endpoint", served.dynamodb()]).args(open));
    let address = SocketAddr::from(([127, 0, 0, 1], console.address().port()));
    assert_eq!(Browser::open(address, console.path()).get("/console/").status, 200);
    let rebound = format!("attacker.example:{}", address.port());
    assert_eq!(send(address, &request(address, "GET", "/console/", &[("Host", &rebound)], "")).status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_names_are_text() {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    let hostile = common::DEMO_ORG
        .replace("\"Demo Stores\"", "'''<script>alert(1)</script>\"'&'''")
        .replace("[\"SHOP\"]", "['''\"><img src=x onerror=alert(1)>''']")
        .replace(", \"MARTJACK:SHOP\"", "");
    operator.json(&["org", "apply", &write(&folder, &hostile)]);
    let console = Console::of(&operator);
    let browser = console.browser();
    for path in ["/console/", REGISTRATION, NUMBERS, TILLS, "/console/orgs/966/activity"] {
        let page = browser.get(path);
        assert_eq!(page.status, 200, "{path}");
        assert!(page.body.contains("&#60;script&#62;alert(1)"), "{path}: {}", page.body);
        assert!(!page.body.contains("<script>") && !page.body.contains("<img"), "{path}: {}", page.body);
    }
    let typed = [("CONF_CARD_NUMBER_PREFIX", "\"><b>x"), ("CONF_OTP_LENGTH", "<b>"), ("action", "preview")];
    let page = browser.submit(REGISTRATION, REGISTRATION, &typed);
    assert!(page.status == 422 && !page.body.contains("<b>"), "{}", page.body);
    assert_eq!(page.field("CONF_CARD_NUMBER_PREFIX"), "\"><b>x");
    let page = browser.submit(TILLS, CREATE, &[("name", "\"><b>x"), ("allow", "otp:fetch")]);
    assert!(page.status == 422 && !page.body.contains("<b>"), "{}", page.body);
    let page = browser.get("/console/orgs/966/numbers/taken/%3Cb%3E2026");
    assert!(page.status == 404 && !page.body.contains("<b>"), "{}", page.body);
}
