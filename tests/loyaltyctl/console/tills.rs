//! The Tills page.

use super::{
    super::{common, with_demo_org, write},
    Answer, CREATE, Console, REVOKE, ROTATE, TILLS, changed, unescape,
};

/// The password on a page that shows one.
fn password(answer: &Answer) -> String {
    let shown = answer.body.split("id=\"password\">").nth(1).unwrap_or_else(|| panic!("{answer:?}"));
    shown.split('<').next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_till_is_created_rotated_and_revoked() {
    let operator = with_demo_org().await;
    let console = Console::of(&operator);
    let browser = console.browser();
    for (changes, field) in [
        (&[("name", "a b"), ("allow", "otp:fetch")][..], "name"),
        (&[("name", "shop.1")], "allow-0"),
        (&[("name", "shop.1"), ("allow", "otp:fetch"), ("token_ttl", "59")], "token_ttl"),
    ] {
        let refused = browser.submit(TILLS, CREATE, changes);
        assert_eq!(refused.status, 422, "{changes:?}");
        assert!(refused.body.contains(&format!("href=\"#{field}\"")), "{field}: {}", refused.body);
    }
    let page = browser.get(TILLS);
    assert!(page.body.contains("DANGEROUS: have a customer&#39;s OTP sent to any address"), "{}", page.body);
    let fields = page.fields();
    let fields =
        changed(fields, &[("name", "shop.1"), ("allow", "card_number:generate"), ("token_ttl", "60")]);
    let created = browser.post(CREATE, &fields);
    assert_eq!(created.status, 200, "{created:?}");
    let first = password(&created);
    let command = unescape(&created.body);
    let secret = format!("{{\"key\":\"shop.1\",\"secret\":\"{first}\"}}");
    assert!(command.contains("curl -sS https://api.example.com/v3/oauth/token/generate"), "{command}");
    assert!(command.contains(&secret), "{command}");
    let status = async |password: &str| {
        operator.table.service("shop.1").as_till("shop.1", password).get("/v2/cardNumber").await.status
    };
    assert_eq!(status(&first).await, 200);
    let reloaded = browser.post(CREATE, &fields);
    assert!(reloaded.status == 409 && !reloaded.body.contains(&first), "{reloaded:?}");
    let listed = browser.get(TILLS).body;
    assert!(!listed.contains(&first) && listed.contains("+05:30</dd>"), "in the org's time: {listed}");
    let taken = browser.submit(TILLS, CREATE, &[("name", "shop.1"), ("allow", "otp:fetch")]);
    assert!(taken.status == 409 && taken.body.contains("there is a till shop.1 already"), "{taken:?}");

    let form = changed(browser.get(TILLS).fields(), &[("name", "shop.1")]);
    let second = password(&browser.post(ROTATE, &form));
    assert_eq!((status(&first).await, status(&second).await), (200, 200));
    assert_eq!(browser.post(ROTATE, &form).status, 409, "loaded again");
    assert_eq!(browser.submit(TILLS, ROTATE, &[("name", "shop.1")]).status, 409, "a third password");

    let asked = browser.submit(TILLS, REVOKE, &[("name", "shop.1"), ("which", "old")]);
    assert!(asked.body.contains("<h1>Revoke of shop.1?</h1>"), "{}", asked.body);
    assert_eq!(status(&first).await, 200, "only asked");
    let late = browser.submit(TILLS, REVOKE, &[("name", "shop.1"), ("which", "all")]);
    let page = browser.follow(&browser.post(REVOKE, &asked.fields()));
    assert!(page.body.contains("Till shop.1: 1 password revoked, 1 left."), "{}", page.body);
    assert_eq!((status(&first).await, status(&second).await), (401, 200));
    assert_eq!(browser.post(REVOKE, &late.fields()).status, 409, "it was asked about two passwords");
    let asked = browser.submit(TILLS, REVOKE, &[("name", "shop.1"), ("which", "all")]);
    browser.follow(&browser.post(REVOKE, &asked.fields()));
    assert_eq!(status(&second).await, 401);
    let acts = operator.json(&["audit", "list", "--org", "966"]);
    let acts: Vec<_> = acts.as_array().unwrap().iter().map(|act| act["what"].as_str().unwrap()).collect();
    assert_eq!(acts[..4], ["till revoke", "till revoke", "till rotate", "till create"]);

    let folder = tempfile::tempdir().unwrap();
    operator.json(&["org", "apply", &write(&folder, &common::DEMO_ORG.replace("= 966", "= 967"))]);
    let other = "/console/orgs/967/tills";
    let foreign = browser.submit(other, &format!("{other}/rotate"), &[("name", "shop.1")]);
    assert_eq!(foreign.status, 404, "a till of another org");
    assert_eq!(browser.submit(TILLS, REVOKE, &[("name", "nobody"), ("which", "all")]).status, 404);
    assert_eq!(browser.submit(TILLS, REVOKE, &[("name", "shop.1"), ("which", "some")]).status, 400);
}
