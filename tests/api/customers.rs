use loyalty_codes::model::customer::IdentifierName;
use serde_json::{Value, json};

use crate::common::{Answer, TestService, USER, demo, demo_with};

fn profile(identifiers: &Value) -> Value {
    json!({"profiles": [{"firstName": "Tom", "source": "INSTORE", "accountId": "", "identifiers": identifiers}]})
}

async fn register(service: &TestService, identifiers: Value) -> Answer {
    service.post("/v2/customers", &profile(&identifiers)).await
}

/// The user id that owns the OTPs of this identifier.
async fn user_of(service: &TestService, parameter: &str) -> Option<u64> {
    let (name, value) = parameter.split_once('=').unwrap();
    let body = json!({"entityType": name, "entityValue": value, "action": "GENERIC"});
    if service.post("/v2/otp/generate", &body).await.status != 200 {
        return None;
    }
    let answer = service.get(&format!("/v2/otp?source=INSTORE&{parameter}&scope=GENERIC")).await;
    answer.json["userId"].as_u64()
}

#[tokio::test]
async fn a_customer_without_an_external_id_gets_the_next_card_number() {
    let (_table, service) = demo().await;
    let answer = register(&service, json!([{"type": "mobile", "value": "919010000022"}])).await;
    assert_eq!(
        (answer.status, answer.text),
        (200, format!(r#"{{"createdId":{},"sideEffects":[],"warnings":[]}}"#, USER + 1))
    );
    assert_eq!(user_of(&service, "mobile=9010000022").await, Some(USER + 1));
    assert_eq!(user_of(&service, "external_id=1000000010").await, Some(USER + 1));
    assert_eq!(service.card_number().await, "1000000011");
}

#[tokio::test]
async fn a_given_external_id_is_kept_and_no_number_is_taken() {
    let (_table, service) = demo().await;
    let identifiers =
        json!([{"type": "mobile", "value": "9010000022"}, {"type": "externalId", "value": "MINE-7"}]);
    assert_eq!(register(&service, identifiers).await.status, 200);
    assert_eq!(user_of(&service, "external_id=MINE-7").await, Some(USER + 1));
    assert_eq!(service.card_number().await, "1000000010");
}

#[tokio::test]
async fn a_generated_number_that_is_already_registered_is_skipped() {
    let (_table, service) = demo().await;
    for number in ["1000000010", "1000000011"] {
        let identifiers = json!([{"type": "externalId", "value": number}]);
        assert_eq!(register(&service, identifiers).await.status, 200);
    }
    assert_eq!(register(&service, json!([{"type": "mobile", "value": "9010000022"}])).await.status, 200);
    for identifier in ["external_id=1000000012", "mobile=9010000022"] {
        assert_eq!(user_of(&service, identifier).await, Some(USER + 3), "{identifier}");
    }
}

#[tokio::test]
async fn a_generated_number_that_is_the_customers_own_card_number_is_skipped() {
    let (table, service) = demo().await;
    let card = json!({"type": "cardnumber", "value": "1000000010"});
    assert_eq!(register(&service, json!([card])).await.status, 200);
    assert_eq!(user_of(&service, "external_id=1000000011").await, Some(USER + 1));
    // Also where it became the customer's before.
    let joined =
        json!([{"type": "mobile", "value": "9010000022"}, {"type": "cardnumber", "value": "1000000012"}]);
    let body = json!({"profiles": [{"source": "WECHAT", "accountId": "WECHAT-API2", "identifiers": joined}]});
    assert_eq!(service.post("/v2/customers", &body).await.status, 200);
    assert_eq!(register(&service, json!([{"type": "mobile", "value": "9010000022"}])).await.status, 200);
    assert_eq!(user_of(&service, "external_id=1000000013").await, Some(USER + 2));
    crate::joining::assert_consistent(&table).await;
}

#[tokio::test]
async fn many_registered_numbers_are_skipped_over_several_requests() {
    let (_table, service) = demo().await;
    for number in 1_000_000_010_u64..1_000_000_120 {
        let identifiers = json!([{"type": "externalId", "value": number.to_string()}]);
        assert_eq!(register(&service, identifiers).await.status, 200);
    }
    let mobile = json!([{"type": "mobile", "value": "9010000022"}]);
    let refused = register(&service, mobile.clone()).await;
    assert_eq!(refused.refusal(), (503, vec![503]));
    assert_eq!(refused.retry_after(), 1);
    assert_eq!(
        register(&service, mobile).await.status,
        200,
        "the second request continues where the first one stopped"
    );
    assert!(user_of(&service, "external_id=1000000120").await.is_some());
}

#[tokio::test]
async fn no_number_is_generated_where_the_org_does_not_generate() {
    let (_table, service) = demo().await;
    let body = json!({"profiles": [{
        "source": "WECHAT", "accountId": "WECHAT-API2", "identifiers": [{"type": "wechat", "value": "o-1"}],
    }]});
    assert_eq!(service.post("/v2/customers", &body).await.status, 200);
    assert_eq!(service.card_number().await, "1000000010");

    let (_table, service) = demo_with("CONF_CARD_NUMBER_GENERATION_ENABLED = false").await;
    assert_eq!(register(&service, json!([{"type": "mobile", "value": "9010000022"}])).await.status, 200);
    assert_eq!(user_of(&service, "external_id=1000000010").await, None);
}

#[tokio::test]
async fn a_taken_identifier_is_refused_and_nothing_is_written() {
    let (_table, service) = demo().await;
    for taken in [
        json!({"type": "mobile", "value": "+91 87993 61139"}),
        json!({"type": "email", "value": "TOM@example.com"}),
        json!({"type": "externalId", "value": "CARD-1"}),
    ] {
        let answer = register(&service, json!([{"type": "mobile", "value": "9010000022"}, taken])).await;
        assert_eq!(answer.refusal(), (409, vec![8006]), "{taken}");
        let message = &answer.json["errors"][0]["message"];
        assert_eq!(message, "Add failed, Customer already exists with id 313302314 for same source");
    }
    assert_eq!(user_of(&service, "mobile=9010000022").await, None);
    assert_eq!(service.card_number().await, "1000000010", "no number was spent");
    let next = register(&service, json!([{"type": "mobile", "value": "9010000022"}])).await;
    assert_eq!(next.json["createdId"], USER + 1, "no user id was spent");
}

#[tokio::test]
async fn external_ids_and_card_numbers_are_unique_in_the_whole_org() {
    let (_table, service) = demo().await;
    for name in ["externalId", "cardnumber"] {
        let body = json!({"profiles": [{
            "source": "WECHAT", "accountId": "WECHAT-API2", "identifiers": [{"type": name, "value": "CARD-1"}],
        }]});
        assert_eq!(service.post("/v2/customers", &body).await.refusal(), (409, vec![8006]), "{name}");
    }
}

#[tokio::test]
async fn every_kind_of_identifier_is_registered_and_unique_in_its_account() {
    let (_table, service) = demo().await;
    for name in IdentifierName::ALL.iter().filter(|name| !name.identifies_person()) {
        let body = |account: &str| {
            let identifiers =
                json!([{"type": name.as_str().to_ascii_uppercase(), "value": 919_111_111_111_u64}]);
            json!({"profiles": [{"source": "WECHAT", "accountId": account, "identifiers": identifiers}]})
        };
        let (first, second) = (body("WECHAT-API1"), body("WECHAT-API2"));
        let again = if name.is_org_wide() { 409 } else { 200 };
        // An external ID is a card number, too.
        let expected = if *name == IdentifierName::CardNumber { 409 } else { 200 };
        assert_eq!(service.post("/v2/customers", &first).await.status, expected, "{name}");
        assert_eq!(service.post("/v2/customers", &second).await.status, again, "{name}");
        assert_eq!(service.post("/v2/customers", &second).await.refusal(), (409, vec![8006]), "{name}");
    }
}

#[tokio::test]
async fn an_identifier_given_twice_counts_once() {
    let (_table, service) = demo().await;
    let identifiers = json!([
        {"type": "mobile", "value": "9010000022"}, {"type": "mobile", "value": "+919010000022"},
        {"type": "externalId", "value": "A"}, {"type": "external_id", "value": " A "},
    ]);
    assert_eq!(register(&service, identifiers).await.status, 200);
}

#[tokio::test]
async fn an_omitted_account_id_of_the_only_account_causes_a_warning() {
    let (_table, service) = demo().await;
    let body = json!({"profiles": [{"source": "MARTJACK", "identifiers": [{"type": "mobile", "value": "9010000022"}]}]});
    assert_eq!(service.post("/v2/customers", &body).await.json["warnings"][0]["code"], 8054);
}

#[tokio::test]
async fn each_invalid_field_has_its_error_code() {
    let (_table, service) = demo().await;
    let one = |identifier: Value| profile(&json!([identifier]));
    let many: Vec<Value> = (0..41).map(|i| json!({"type": "wechat", "value": format!("w{i}")})).collect();
    let mobile = json!([{"type": "mobile", "value": "9010000022"}]);
    let long = "x".repeat(256);
    for (body, status, codes) in [
        (json!({}), 400, vec![400]),
        (json!({"profiles": []}), 400, vec![400]),
        (json!({"profiles": "Tom"}), 400, vec![400]),
        (json!({"profiles": ["Tom"]}), 400, vec![400]),
        (json!({"profiles": vec![json!({}); 21]}), 400, vec![400]),
        (json!({"profiles": [{"identifiers": mobile}]}), 400, vec![8016]),
        (json!({"profiles": [{"source": "TELEX", "identifiers": mobile}]}), 400, vec![8012]),
        (json!({"profiles": [{"source": "WECHAT", "identifiers": mobile}]}), 400, vec![8091]),
        (
            json!({"profiles": [{"source": "WECHAT", "accountId": "X", "identifiers": mobile}]}),
            400,
            vec![8127],
        ),
        (json!({"profiles": [{"source": "INSTORE"}]}), 400, vec![8092]),
        (profile(&json!([])), 400, vec![8092]),
        (profile(&json!("mobile")), 400, vec![400]),
        (one(json!({"value": "9010000022"})), 400, vec![8092]),
        (one(json!({"type": "passport", "value": "1"})), 400, vec![8013]),
        (one(json!({"type": "mobile"})), 400, vec![8093]),
        (one(json!({"type": "mobile", "value": "12"})), 400, vec![8056]),
        (one(json!({"type": "email", "value": "tom"})), 400, vec![8057]),
        (one(json!({"type": "externalId", "value": [12]})), 400, vec![8093]),
        (one(json!({"type": ["externalId"], "value": "12"})), 400, vec![8013]),
        (
            profile(&json!([{"type": "mobile", "value": "1"}, {"type": "email", "value": "t"}])),
            400,
            vec![8056, 8057],
        ),
        (
            json!({"profiles": [{"source": "TELEX", "identifiers": [{"type": "mobile", "value": "1"}]}]}),
            400,
            vec![8012, 8056],
        ),
        (
            json!({"profiles": [{"source": "INSTORE", "firstName": true, "lastName": [], "identifiers": mobile}]}),
            400,
            vec![400, 400],
        ),
        (profile(&json!(many)), 400, vec![400]),
        (
            profile(&json!([{"type": "externalId", "value": "A"}, {"type": "externalId", "value": "B"}])),
            400,
            vec![400],
        ),
        (
            json!({"profiles": [{"source": "INSTORE", "firstName": {}, "identifiers": mobile}]}),
            400,
            vec![400],
        ),
        (
            json!({"profiles": [{"source": "INSTORE", "lastName": long, "identifiers": mobile}]}),
            400,
            vec![400],
        ),
    ] {
        assert_eq!(service.post("/v2/customers", &body).await.refusal(), (status, codes), "{body}");
    }
    assert_eq!(service.card_number().await, "1000000010", "no number was spent");
}

#[tokio::test]
async fn a_body_full_of_errors_has_a_short_answer() {
    let (_table, service) = demo().await;
    let empty = |count: usize| vec![json!({}); count];
    let whole_body = profile(&json!(empty(20_000)));
    assert!(whole_body.to_string().len() > 60_000);
    assert_eq!(service.post("/v2/customers", &whole_body).await.refusal(), (400, vec![400]));
    let change = format!("/v2/customers/{USER}/changeIdentifier?source=INSTORE");
    for list in ["add", "remove"] {
        let answer = service.post(&change, &json!({list: empty(20_000)})).await;
        assert_eq!(answer.refusal(), (400, vec![400]), "{list}");
    }
    let profiles = vec![json!({"source": "INSTORE", "identifiers": empty(40)}); 20];
    let answer = service.post("/v2/customers", &json!({"profiles": profiles})).await;
    assert_eq!(answer.refusal(), (400, vec![8092; 50]));
}

#[tokio::test]
async fn forty_identifiers_are_written_together() {
    let (_table, service) = demo().await;
    let identifiers: Vec<Value> = (0..40)
        .map(|i| json!({"type": "email", "value": format!("{}{i}@example.com", "x".repeat(60))}))
        .collect();
    let body = profile(&json!(identifiers));
    let answer = crate::idempotency::send(&service, "/v2/customers", "key", &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let last = format!("email={}39@example.com", "x".repeat(60));
    assert_eq!(user_of(&service, &last).await, Some(USER + 1));
    assert_eq!(user_of(&service, "external_id=1000000010").await, Some(USER + 1));
}
