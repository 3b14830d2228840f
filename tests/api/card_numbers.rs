use http::Method;
use serde_json::json;

use crate::common::{demo, demo_org_with, demo_with};

#[tokio::test]
async fn the_documented_request_gets_the_documented_numbers() {
    let (_table, service) = demo().await;
    let answer = service.get("/v2/cardNumber").await;
    assert_eq!((answer.status, answer.text.as_str()), (200, r#"{"entity":"1000000010","warnings":[]}"#));
    let posted = service.send(Method::POST, "/v2/cardNumber?source=INSTORE&accountId=", &[], "".into()).await;
    assert_eq!(posted.text, r#"{"entity":"1000000011","warnings":[]}"#);
}

#[tokio::test]
async fn all_sources_share_one_sequence() {
    let (_table, service) = demo().await;
    let wechat = service.get("/v2/cardNumber?source=wechat&accountId=WECHAT-API1").await;
    assert_eq!(wechat.json, json!({"entity": "1000000010", "warnings": []}));
    let martjack = service.get("/v2/cardNumber?source=MARTJACK").await;
    assert_eq!(martjack.json["entity"], "1000000011");
    assert_eq!(martjack.json["warnings"][0]["code"], 8054);
}

#[tokio::test]
async fn refusals_have_their_error_codes() {
    let (_table, service) = demo().await;
    for (query, status, codes) in [
        ("source=TELEX", 400, vec![8012]),
        ("source=WECHAT", 400, vec![8091]),
        ("source=WECHAT&accountId=NONE", 403, vec![8127]),
        ("source=FACEBOOK", 403, vec![8127]),
        ("source=WECHAT&accountId=WECHAT-API2", 403, vec![8127]),
        ("source=INSTORE&source=WECHAT", 400, vec![400]),
    ] {
        let answer = service.get(&format!("/v2/cardNumber?{query}")).await;
        assert_eq!(answer.refusal(), (status, codes), "{query}");
    }
    assert_eq!(service.card_number().await, "1000000010", "a refusal costs no number");
}

#[tokio::test]
async fn an_org_without_generation_refuses() {
    let (_table, service) = demo_with("CONF_CARD_NUMBER_GENERATION_ENABLED = false").await;
    let answer = service.get("/v2/cardNumber").await;
    assert_eq!(answer.refusal(), (403, vec![703]));
    assert_eq!(answer.json["errors"][0]["message"], "Card number generation disabled");
}

#[tokio::test]
async fn an_exhausted_range_stays_exhausted() {
    let config = "CONF_CARD_NUMBER_LENGTH = 2\nCONF_CARD_NUMBER_OFFSET = 97";
    let (_table, service) = demo_with(config).await;
    for expected in ["97", "98", "99"] {
        assert_eq!(service.card_number().await, expected);
    }
    for _ in 0..3 {
        assert_eq!(service.get("/v2/cardNumber").await.refusal(), (409, vec![702]));
    }
}

#[tokio::test]
async fn a_random_range_is_used_completely_without_a_repeat() {
    let config = "CONF_CARD_CHECKSUM_DIGIT_ALGO = \"RANDOM\"\nCONF_CARD_NUMBER_LENGTH = 2\nCONF_CARD_NUMBER_OFFSET = 0";
    let (_table, service) = demo_with(config).await;
    let mut numbers = Vec::new();
    for _ in 0..100 {
        numbers.push(service.card_number().await);
    }
    assert!(!numbers.is_sorted());
    numbers.sort();
    numbers.dedup();
    assert_eq!(numbers.len(), 100);
    assert_eq!(service.get("/v2/cardNumber").await.refusal(), (409, vec![702]));
}

#[tokio::test]
async fn a_process_with_the_old_plan_in_its_cache_follows_the_new_plan() {
    let (table, service) = demo().await;
    assert_eq!(service.card_number().await, "1000000010");
    let operator = table.service("store.server");
    operator.apply(&demo_org_with("CONF_CARD_NUMBER_LENGTH = 12")).await.unwrap();
    assert_eq!(
        service.card_number().await,
        "001000000010",
        "the new plan counts at once, although the org is cached"
    );
}

#[tokio::test]
async fn a_process_with_a_cached_org_without_generation_refuses_for_at_most_a_minute() {
    let (table, service) = demo_with("CONF_CARD_NUMBER_GENERATION_ENABLED = false").await;
    assert_eq!(service.get("/v2/cardNumber").await.status, 403);
    table.service("store.server").apply(&demo_org_with("")).await.unwrap();
    service.clock.advance(chrono::TimeDelta::seconds(60));
    assert_eq!(service.card_number().await, "1000000010");
}
