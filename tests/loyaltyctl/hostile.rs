//! Names and identifiers that would control a page or a terminal are shown as the text that they
//! are.

use aws_sdk_dynamodb::types::AttributeValue;
use loyalty_codes::{
    model::{
        delivery_state::{ChannelState, Outcome},
        otp::CreatedId,
    },
    store::{StateChange, keys},
};
use serde_json::Value;

use super::{
    Operator,
    common::{self, MOBILE, TestService, USER},
    console::{Browser, Console, changed, unescape},
    customers::{generate, with_customer},
    output::on_terminal,
};

fn hostile() -> Vec<String> {
    [
        "<script>alert(1)</script>", "\" onmouseover=\"alert(1)\" x=\"", "'><img src=x onerror=alert(1)>",
        "{{7*7}}{% include \"x\" %}", "&lt;b&gt;&#60;b&#62;", "Tom\u{202e}moT\u{2066}x",
        "\u{1b}[2J\u{1b}]0;title\u{7}\u{9b}31mTom\r\n\tAnn",
    ]
    .map(str::to_owned)
    .into_iter()
    .chain(["x".repeat(10_240)])
    .collect()
}

/// Stores a value as the demo customer's names and as an identifier, as an earlier version or a
/// user of the AWS console could have.
async fn store(operator: &Operator, service: &TestService, value: &str) {
    let key = [("PK", format!("ORG#966#USER#{USER}")), ("SK", "PROFILE".to_owned())]
        .map(|(name, value)| (name.to_owned(), AttributeValue::S(value)));
    let read = service.client.get_item().table_name(operator.table.name()).set_key(Some(key.into()));
    let mut item = read.send().await.unwrap().item.unwrap();
    for (attribute, field) in [("profiles", "first_name"), ("identifiers", "openid")] {
        let AttributeValue::S(text) = &item[attribute] else { panic!("{item:?}") };
        let mut json: Value = serde_json::from_str(text).unwrap();
        for entry in json.as_array_mut().unwrap() {
            if field == "first_name" {
                entry["first_name"] = value.into();
                entry["last_name"] = value.into();
            } else if entry[1] == "wechat" {
                entry[2] = value.into();
            }
        }
        item.insert(attribute.to_owned(), AttributeValue::S(json.to_string()));
    }
    let put = service.client.put_item().table_name(operator.table.name());
    put.set_item(Some(item)).send().await.unwrap();
}

/// Issues an OTP whose message a provider has taken under this id.
async fn send(service: &TestService, provider_id: &str) {
    let otp = generate(service, MOBILE, "POINTS").await;
    let key = keys::message(&common::demo_series(), CreatedId(otp), 1);
    let to = ChannelState::Done(Outcome::Sent { provider_id: provider_id.to_owned() });
    assert!(service.store.change_states(&key, &[StateChange { position: 0, from: None, to }]).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_shows_them_as_text() {
    const CUSTOMERS: &str = "/console/orgs/966/customers";
    let (operator, service) = with_customer().await;
    let console = Console::of(&operator);
    let browser: Browser = console.browser();
    let page = format!("{CUSTOMERS}/{USER}");
    for value in hostile() {
        store(&operator, &service, &value).await;
        send(&service, &value).await;
        let masked = browser.get(&page);
        let once = masked.fields();
        let revealed = browser.post(&page, &changed(once, &[("action", "reveal")]));
        assert_eq!((masked.status, revealed.status), (200, 200), "{value}");
        assert_eq!(masked.body.matches(&value).count(), plain(&masked.body, &value), "{value}");
        // The names and the identifier are cells of their own, as the text that they are.
        let cells = revealed.body.split("<td").skip(1);
        let cells = cells.map(|it| it.split_once('>').unwrap().1.split("</td>").next().unwrap());
        let cells: Vec<_> = cells.collect();
        let shown = cells.iter().filter(|cell| unescape(cell) == value).count();
        assert!(shown >= 3, "{value}: {shown} in {}", revealed.body);
        assert!(cells.iter().any(|cell| unescape(cell).ends_with(&format!("sent: {value}"))), "{value}");
        assert!(cells.iter().all(|cell| !cell.contains('<') && !cell.contains('"')), "{cells:?}");

        let typed = [("kind", "cuid"), ("value", value.as_str())];
        let nobody = browser.submit(CUSTOMERS, CUSTOMERS, &typed);
        assert!([404, 422].contains(&nobody.status), "{nobody:?}");
        assert_eq!(nobody.field("value"), value, "as it was typed");
    }
}

/// How often a value may be in a page as it is: everywhere, if it has nothing to escape.
fn plain(body: &str, value: &str) -> usize {
    if value.contains(['<', '>', '"', '\'', '&']) { 0 } else { body.matches(value).count() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_not_controlled_by_them() {
    let (operator, service) = with_customer().await;
    let (endpoint, user) = (operator.table.endpoint(), USER.to_string());
    let target = ["--endpoint", &endpoint, "--table", operator.table.name()];
    for value in hostile() {
        store(&operator, &service, &value).await;
        send(&service, &value).await;
        for command in [
            &["customer", "show", "--reveal", "--org", "966", &user][..],
            &["customer", "show", "--org", "966", &user],
            &["customer", "timeline", "--org", "966", &user],
            &["customer", "export", "--org", "966", &user],
            &["otp", "list", "--org", "966", &user],
            &["--json", "customer", "show", "--reveal", "--org", "966", &user],
            &["--json", "customer", "timeline", "--org", "966", &user],
        ] {
            let terminal = on_terminal(&[&target, command].concat(), &[("NO_COLOR", "1")]);
            let piped = String::from_utf8(operator.run(command).stdout).unwrap();
            for shown in [&terminal, &piped] {
                let controls = |c: char| {
                    (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
                        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
                };
                assert!(!shown.contains(controls), "{command:?}: {shown:?}");
                assert!(shown.len() > 20, "{command:?}: {shown:?}");
            }
            let lines = |text: &str| text.lines().filter(|line| line.contains("alert(1)")).count();
            assert_eq!(lines(&terminal), lines(&piped), "{command:?}: no line more than elsewhere");
        }
        let exported = operator.json(&["customer", "export", "--org", "966", &user]);
        assert_eq!(exported["profiles"][0]["first_name"], value.as_str(), "JSON has the value with escapes");
    }
}
