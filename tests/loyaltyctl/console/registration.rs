//! The Registration Configuration page.

use loyalty_codes::model::{config_keys::CONFIG, till::Permission};
use serde_json::json;

use super::{
    super::{common, with_demo_org, write},
    Console, REGISTRATION, changed, unescape,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_registration_configuration_has_every_key_and_applies_what_was_reviewed() {
    let operator = with_demo_org().await;
    let console = Console::of(&operator);
    let browser = console.browser();
    let page = browser.get(REGISTRATION);
    for key in CONFIG {
        let name = key.name;
        assert!(page.body.contains(&format!("name=\"{name}\"")), "{name}");
        assert!(page.body.contains(&format!("id=\"{name}-help\"")), "{name}");
    }
    assert!(page.body.contains("<code>1000000010</code>"), "the next number");
    assert!(page.body.contains("CONF_OTP_LENGTH = 7"), "the file beside it");
    let unchanged = browser.submit(REGISTRATION, REGISTRATION, &[("action", "review")]);
    assert!(unchanged.body.contains("Nothing differs"), "{}", unchanged.body);

    let changes = [
        ("CONF_OTP_LENGTH", " 6 "),
        ("CONF_OTP_COMMUNICATE_VIA", "SMS"),
        ("CONF_CARD_NUMBER_OFFSET", "2000000000"),
    ];
    let preview = browser.submit(REGISTRATION, "/console/orgs/966/registration/preview", &changes);
    assert_eq!(preview.status, 200);
    for expected in
        ["<code>2000000000</code>", "<code>CONF_OTP_LENGTH</code>", "<del>7</del>", "<ins>6</ins>"]
    {
        assert!(preview.body.contains(expected), "{expected}: {}", preview.body);
    }
    assert!(!preview.body.contains("<html"), "only a part of the page");
    let config = || operator.json(&["org", "show", "966"])["definition"]["config"].clone();
    assert_eq!(config()["CONF_OTP_LENGTH"], 7, "a preview changes nothing");

    let review =
        browser.submit(REGISTRATION, REGISTRATION, &[&changes[..], &[("action", "review")]].concat());
    assert!(review.status == 200 && review.body.contains("<h1>Review the changes</h1>"), "{review:?}");
    assert_eq!(config()["CONF_OTP_LENGTH"], 7, "nor does a review");
    let edited = browser.post(REGISTRATION, &changed(review.fields(), &[("action", "edit")]));
    assert_eq!(edited.field("CONF_OTP_LENGTH"), " 6 ", "what was typed is kept");
    let applied = browser.post(REGISTRATION, &changed(review.fields(), &[("action", "apply")]));
    let page = browser.follow(&applied);
    assert!(page.body.contains("Org 966 was changed"), "{}", page.body);
    assert!(!browser.get(REGISTRATION).body.contains("was changed"), "it is said once");
    let config = config();
    assert_eq!(config["CONF_OTP_LENGTH"], 6);
    assert_eq!(config["CONF_OTP_COMMUNICATE_VIA"], json!(["SMS"]));
    assert_eq!(config["CONF_CARD_NUMBER_OFFSET"], 2_000_000_000);
    assert_eq!(
        config["SOURCE_ACCOUNTS_EXTERNALID_ENABLED"],
        json!(["INSTORE:", "WECHAT:WECHAT-API1", "MARTJACK:SHOP"]),
        "what was ticked stays"
    );
    let acts = operator.json(&["audit", "list", "--org", "966"]);
    assert_eq!((&acts[0]["what"], &acts[0]["outcome"]), (&json!("org apply"), &json!("done")));
    let keys = ["CONF_CARD_NUMBER_OFFSET", "CONF_OTP_COMMUNICATE_VIA", "CONF_OTP_LENGTH"];
    assert_eq!(acts[0]["detail"]["changed"], json!(keys));

    let file = browser.get("/console/orgs/966/org.toml");
    assert_eq!(file.header("content-disposition"), Some("attachment; filename=\"org-966.toml\""));
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(operator.json(&["org", "apply", &write(&folder, &file.body)])["result"], "unchanged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_is_unticked_and_a_field_that_is_emptied_are_applied() {
    let operator = with_demo_org().await;
    let console = Console::of(&operator);
    let browser = console.browser();
    let mut fields = browser.get(REGISTRATION).fields();
    fields.retain(|(name, value)| {
        name != "CONF_CLIENT_V2_API_ENABLED"
            && value != "MARTJACK:SHOP"
            && name != "CONF_OTP_VALIDITY_SECONDS"
    });
    let review = browser.post(REGISTRATION, &changed(fields, &[("action", "review")]));
    browser.follow(&browser.post(REGISTRATION, &changed(review.fields(), &[("action", "apply")])));
    let config = operator.json(&["org", "show", "966"])["definition"]["config"].clone();
    assert_eq!(config["CONF_CLIENT_V2_API_ENABLED"], false);
    assert_eq!(config["SOURCE_ACCOUNTS_EXTERNALID_ENABLED"], json!(["INSTORE:", "WECHAT:WECHAT-API1"]));
    assert_eq!(config["CONF_OTP_VALIDITY_SECONDS"], 300, "the default");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_beside_its_field_and_nothing_is_applied() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cards.csv");
    operator.json(&["numbers", "take", "--org", "966", "--count", "50", "--to", file.to_str().unwrap()]);
    let console = Console::of(&operator);
    let browser = console.browser();
    for (key, value, reason) in [
        ("CONF_OTP_LENGTH", "seven", "`seven`; it must be a whole number"),
        ("CONF_OTP_LENGTH", "3", "not within 4 to 50"),
        ("CONF_OTP_TYPE", "HEX", "which it cannot be"),
        ("CONF_OTP_DAILY_LIMIT", "99999999999999999999", "must be a whole number"),
        ("CONF_OTP_ALLOWED_COUNTRY_CODES", "91, +44", "`+44`"),
        ("CONF_CARD_NUMBER_LENGTH", "9", "does not fit"),
        ("CONF_CARD_NUMBER_PREFIX", "a-b", "letters A-Z"),
        ("CONF_CARD_NUMBER_OFFSET", "1000000011", "would hand out numbers again"),
        ("CONF_OTP_COMMUNICATE_VIA", "PIGEON", "which is no channel"),
        ("SOURCE_ACCOUNTS_EXTERNALID_ENABLED", "NOWHERE:x", "cannot be read"),
    ] {
        for action in ["review", "apply"] {
            let answer = browser.submit(REGISTRATION, REGISTRATION, &[(key, value), ("action", action)]);
            assert_eq!(answer.status, 422, "{key}: {}", answer.body);
            let body = unescape(&answer.body);
            assert!(body.contains(reason), "{key}: {body}");
            // An offset that does not fit is a problem of the offset.
            let named = if reason == "does not fit" { "CONF_CARD_NUMBER_OFFSET" } else { key };
            assert!(body.contains(&format!("id=\"{named}-error\"")), "{named}: {body}");
            assert!(body.contains(&format!("href=\"#{named}")), "{named}: {body}");
            assert!(body.contains(&format!("aria-describedby=\"{named}-error {named}-help\"")), "{named}");
        }
    }
    let wrong = [
        ("CONF_OTP_LENGTH", "3"),
        ("CONF_OTP_VALIDITY_SECONDS", "0"),
        ("CONF_CARD_NUMBER_LENGTH", "99"),
        ("CONF_CARD_NUMBER_OFFSET", "-1"),
        ("CONF_CARD_NUMBER_PREFIX", "a-b"),
        ("CONF_CARD_NUMBER_SUFFIX", "!"),
    ];
    let body =
        browser.submit(REGISTRATION, REGISTRATION, &[&wrong[..], &[("action", "review")]].concat()).body;
    for (key, _) in wrong {
        assert!(body.contains(&format!("id=\"{key}-error\"")), "all of them in one round: {key}: {body}");
    }
    let shown = operator.json(&["org", "show", "966"])["definition"]["config"].clone();
    assert_eq!((&shown["CONF_OTP_LENGTH"], &shown["CONF_CARD_NUMBER_LENGTH"]), (&json!(7), &json!(10)));
    let nothing = browser.submit(REGISTRATION, REGISTRATION, &[("action", "eat")]);
    assert_eq!(nothing.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_editors_do_not_overwrite_each_other() {
    let operator = with_demo_org().await;
    let console = Console::of(&operator);
    let browser = console.browser();
    let form = browser.get(REGISTRATION).fields();
    let folder = tempfile::tempdir().unwrap();
    let others = common::DEMO_ORG.replace("[config]", "[config]\nCONF_OTP_DAILY_LIMIT = 20");
    operator.json(&["org", "apply", &write(&folder, &others)]);
    for action in ["review", "apply"] {
        let late = changed(form.clone(), &[("CONF_OTP_LENGTH", "8"), ("action", action)]);
        let refused = browser.post(REGISTRATION, &late);
        assert_eq!(refused.status, 409, "{action}");
        assert!(refused.body.contains("Somebody changed the org"), "{}", refused.body);
        assert_eq!(refused.field("CONF_OTP_LENGTH"), "8", "what was typed is kept");
    }
    // Nor after a mistake was corrected.
    let mistyped =
        browser.post(REGISTRATION, &changed(form, &[("CONF_OTP_LENGTH", "x"), ("action", "review")]));
    assert_eq!(mistyped.status, 422);
    let corrected = changed(mistyped.fields(), &[("CONF_OTP_LENGTH", "8"), ("action", "review")]);
    assert_eq!(browser.post(REGISTRATION, &corrected).status, 409);
    let config = || operator.json(&["org", "show", "966"])["definition"]["config"].clone();
    assert_eq!((&config()["CONF_OTP_LENGTH"], &config()["CONF_OTP_DAILY_LIMIT"]), (&json!(7), &json!(20)));

    // At the same moment: one is applied, the others are told.
    let form = browser.get(REGISTRATION).fields();
    let editors: Vec<_> = (8..14)
        .map(|length: u32| {
            let length = length.to_string();
            let fields = changed(form.clone(), &[("CONF_OTP_LENGTH", &length), ("action", "apply")]);
            let browser = browser.clone();
            std::thread::spawn(move || (browser.post(REGISTRATION, &fields).status, length))
        })
        .collect();
    let ended: Vec<_> = editors.into_iter().map(|editor| editor.join().unwrap()).collect();
    let applied: Vec<_> = ended.iter().filter(|(status, _)| *status == 303).collect();
    assert_eq!(applied.len(), 1, "{ended:?}");
    assert!(ended.iter().all(|(status, _)| matches!(status, 303 | 409)), "{ended:?}");
    assert_eq!(config()["CONF_OTP_LENGTH"].to_string(), applied[0].1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_could_give_a_customers_own_number_is_refused_before_it_is_applied() {
    let operator = with_demo_org().await;
    let service = operator.table.service("shop.1");
    service.create_till("shop.1", 966, Permission::ALL).await;
    let identifiers = json!([{"type": "externalId", "value": "000000000007"}]);
    let profile = json!({"source": "INSTORE", "accountId": "", "identifiers": identifiers});
    assert_eq!(service.post("/v2/customers", &json!({"profiles": [profile]})).await.status, 200);
    let console = Console::of(&operator);
    let browser = console.browser();
    let plan = [("CONF_CARD_NUMBER_LENGTH", "12"), ("CONF_CARD_NUMBER_OFFSET", "0")];
    for (action, status) in [("review", 422), ("apply", 409)] {
        let refused =
            browser.submit(REGISTRATION, REGISTRATION, &[&plan[..], &[("action", action)]].concat());
        assert_eq!(refused.status, status, "{action}: {}", refused.body);
        assert!(unescape(&refused.body).contains("1 of the customers' card numbers"), "{}", refused.body);
        assert!(refused.body.contains("id=\"CONF_CARD_NUMBER_OFFSET-error\""), "{}", refused.body);
    }
    let plan = [("CONF_CARD_NUMBER_LENGTH", "12"), ("CONF_CARD_NUMBER_OFFSET", "8"), ("action", "review")];
    let review = browser.submit(REGISTRATION, REGISTRATION, &plan);
    assert!(review.status == 200 && review.body.contains("<code>000000000008</code>"), "{}", review.body);
}
