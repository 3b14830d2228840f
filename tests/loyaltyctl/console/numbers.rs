//! The Numbers page.

use std::collections::HashSet;

use loyalty_codes::model::till::Permission;

use super::{
    super::{common, with_demo_org, write},
    Console, NUMBERS, TAKE,
};

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_were_taken_are_downloaded_and_given_to_nobody_else() {
    let operator = with_demo_org().await;
    let console = Console::of(&operator);
    let browser = console.browser();
    let page = browser.get(NUMBERS);
    assert!(page.body.contains("0 of 8999999990 numbers are given: 0 %"), "{}", page.body);
    assert!(page.body.contains("<meter"), "{}", page.body);
    for count in ["", "0", "-1", "many", "10000001"] {
        let refused = browser.submit(NUMBERS, TAKE, &[("count", count)]);
        assert_eq!(refused.status, 422, "{count}");
        assert!(refused.body.contains("href=\"#count\"") && refused.body.contains("id=\"count-error\""));
    }
    let asked = browser.submit(NUMBERS, TAKE, &[("count", "500")]);
    assert!(asked.body.contains("<h1>Take 500 numbers?</h1>"), "{}", asked.body);
    assert_eq!(operator.json(&["numbers", "preview", "--org", "966"])["next"][0], "1000000010", "only asked");

    // Tills go on taking numbers one by one.
    let service = operator.table.service("shop.1");
    service.create_till("shop.1", 966, Permission::ALL).await;
    let given = tokio::spawn(async move {
        let mut given = HashSet::new();
        for _ in 0..60 {
            let body = service.get("/v2/cardNumber").await.json;
            given.insert(body["entity"].as_str().unwrap().to_owned());
        }
        given
    });
    let confirmed = asked.fields();
    let taken = tokio::task::block_in_place(|| browser.post(TAKE, &confirmed));
    let page = tokio::task::block_in_place(|| browser.follow(&taken));
    let given = given.await.unwrap();
    assert!(page.body.contains("500 numbers were taken"), "{}", page.body);
    assert_eq!(browser.post(TAKE, &confirmed).status, 409, "sent twice");

    let file = browser.get(&format!("{}/cards.csv", taken.location()));
    assert!(
        file.header("content-disposition").unwrap().starts_with("attachment; filename=\"org-966-numbers-")
    );
    let (heading, numbers) = file.body.split_once('\n').unwrap();
    let numbers: HashSet<String> = numbers.lines().map(str::to_owned).collect();
    assert_eq!((heading, numbers.len(), given.len()), ("number", 500, 60));
    assert!(numbers.is_disjoint(&given));
    assert_eq!(browser.get(&format!("{}/cards.csv", taken.location())).body, file.body, "again");

    let acts = operator.json(&["audit", "list", "--org", "966"]);
    assert_eq!(
        (acts[0]["what"].as_str(), acts[0]["detail"]["count"].as_u64()),
        (Some("numbers take"), Some(500))
    );
    assert_eq!(acts.as_array().unwrap().iter().filter(|act| act["what"] == "numbers take").count(), 1);
    let id = acts[0]["id"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let same = folder.path().join("cards.csv");
    operator.json(&["numbers", "taken", id, "--org", "966", "--to", same.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(same).unwrap(), file.body, "as the command writes it");
    let page = browser.get(NUMBERS);
    assert!(page.body.contains("560 of 8999999990") && page.body.contains(id), "{}", page.body);
    assert!(page.body.contains("+05:30</th>"), "in the org's time: {}", page.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_numbers_than_are_left_are_refused() {
    let operator = with_demo_org().await;
    let folder = tempfile::tempdir().unwrap();
    let small = common::DEMO_ORG.replace("= 1000000010", "= 9999999990");
    operator.json(&["org", "apply", &write(&folder, &small)]);
    let console = Console::of(&operator);
    let browser = console.browser();
    let refused = browser.submit(NUMBERS, TAKE, &[("count", "11")]);
    assert!(
        refused.status == 409 && refused.body.contains("Only 10 numbers of the plan are left"),
        "{refused:?}"
    );
    let asked = browser.submit(NUMBERS, TAKE, &[("count", "10")]);
    let file = folder.path().join("cards.csv");
    operator.json(&["numbers", "take", "--org", "966", "--count", "1", "--to", file.to_str().unwrap()]);
    let refused = browser.post(TAKE, &asked.fields());
    assert!(refused.status == 409 && refused.body.contains("fewer than 10 numbers"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_taken_of_the_plan_that_the_page_showed_or_not_at_all() {
    let operator = with_demo_org().await;
    let console = Console::of(&operator);
    let browser = console.browser();
    let asked = browser.submit(NUMBERS, TAKE, &[("count", "50")]);
    let folder = tempfile::tempdir().unwrap();
    let other = common::DEMO_ORG.replace("= 1000000010", "= 2000000010");
    operator.json(&["org", "apply", &write(&folder, &other)]);
    let refused = browser.post(TAKE, &asked.fields());
    assert!(refused.status == 409 && refused.body.contains("another numbering plan"), "{}", refused.body);
    assert_eq!(operator.json(&["numbers", "preview", "--org", "966"])["next"][0], "2000000010");
    let asked = browser.submit(NUMBERS, TAKE, &[("count", "50")]);
    assert_eq!(browser.post(TAKE, &asked.fields()).status, 303);
}
