//! Typed and pasted text: different spellings of one value are one value.

use bytes::Bytes;
use http::Method;
use loyalty_codes::model::org::Definition;
use serde_json::{Value, json};

use crate::common::{Answer, MOBILE, TestService, TestTable, demo, demo_org, demo_org_with, demo_with};

/// Whether a mobile, an e-mail address or an id in a body finds the demo customer.
async fn finds_the_customer(service: &TestService, entity_type: &str, value: Value) -> bool {
    let body = json!({"entityType": entity_type, "entityValue": value, "action": "POINTS"});
    let issued = service.issued_otps().await;
    let answer = service.post("/v2/otp/generate", &body).await;
    assert_eq!(answer.status, 200, "{value}: {answer:?}");
    service.issued_otps().await == issued + 1
}

async fn register(service: &TestService, identifiers: Value) -> Answer {
    let body = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
    service.post("/v2/customers", &body).await
}

async fn generous() -> (TestTable, TestService) {
    demo_with("CONF_OTP_DAILY_LIMIT = 1000").await
}

#[tokio::test]
async fn a_mobile_with_invisible_characters_is_the_same_mobile() {
    let (_table, service) = generous().await;
    for mobile in [
        "\u{202a}+91\u{a0}87993\u{2011}61139\u{202c}", "\u{feff}8799361139\u{200b}", "٨٧٩٩٣٦١١٣٩",
        "८७९९३६११३९", "＋９１　８７９９３　６１１３９", "tel:+91-87993-61139", "+91 (0) 87993/61139",
    ] {
        assert!(finds_the_customer(&service, "MOBILE", json!(mobile)).await, "{mobile:?}");
    }
}

#[tokio::test]
async fn an_email_address_with_invisible_characters_is_the_same_address() {
    let (_table, service) = generous().await;
    for email in ["to\u{200b}m@example.com", "\u{2060}TOM@exam\u{ad}ple.com\u{a0}"] {
        assert!(finds_the_customer(&service, "EMAIL", json!(email)).await, "{email:?}");
        let again = register(&service, json!([{"type": "email", "value": email}])).await;
        assert_eq!(again.refusal(), (409, vec![8006]), "{email:?}");
    }
    assert_eq!(register(&service, json!([{"type": "email", "value": "a@bücher.example"}])).await.status, 200);
    let again = register(&service, json!([{"type": "email", "value": "A@xn--bcher-kva.example"}])).await;
    assert_eq!(again.refusal(), (409, vec![8006]));
}

#[tokio::test]
async fn an_invalid_email_address_is_refused() {
    let (_table, service) = demo().await;
    for email in [
        "a@example.com,", "mailto:a@example.com", "\u{2800}\u{2800}@example.com", "a\u{2800}@example.com",
        "a b@example.com", "\"a b\"@example.com", "a@-example.com",
    ] {
        let answer = register(&service, json!([{"type": "email", "value": email}])).await;
        assert_eq!(answer.refusal(), (400, vec![8057]), "{email:?}");
    }
}

#[tokio::test]
async fn ids_that_look_the_same_are_the_same() {
    let (_table, service) = generous().await;
    for id in ["CARD\u{2011}1", "\u{200b}CARD-1\u{202c}", " CARD\u{2010}1\r\n"] {
        assert!(finds_the_customer(&service, "EXTERNAL_ID", json!(id)).await, "{id:?}");
    }
    assert_eq!(register(&service, json!([{"type": "wechat", "value": "Cafe\u{301}"}])).await.status, 200);
    let again = register(&service, json!([{"type": "wechat", "value": "Café"}])).await;
    assert_eq!(again.refusal(), (409, vec![8006]), "both are NFC");
}

#[tokio::test]
async fn a_right_code_with_invisible_characters_is_true_and_no_failed_attempt() {
    let (_table, service) = demo().await;
    for spell in [
        |code: &str| format!("\u{200b}{code}\u{feff}"),
        |code: &str| format!("{}-{}", &code[..3], &code[3..]),
        |code: &str| code.to_lowercase().chars().flat_map(|c| [c, '\u{a0}']).collect(),
        |code: &str| code.chars().map(|c| char::from_u32(u32::from(c) + 0xfee0).unwrap()).collect(),
    ] {
        service.issue().await;
        let code = spell(&service.code().await);
        assert!(service.is_right(&code).await, "{code:?}");
    }
}

#[tokio::test]
async fn a_code_with_an_impossible_character_is_false_and_no_failed_attempt() {
    let (_table, service) = demo().await;
    service.issue().await;
    let code = service.code().await;
    for _ in 0..6 {
        for wrong in [
            format!("{code}!"),
            "ı".to_owned(),
            "ſ".to_owned(),
            "\u{2800}".to_owned(),
            code.replace(|_| true, "é"),
        ] {
            assert!(!service.is_right(&wrong).await, "{wrong:?}");
        }
    }
    for _ in 0..4 {
        assert!(!service.is_right("WRONG").await);
    }
    assert!(service.is_right(&code).await, "four failed attempts leave one");

    assert!(!service.is_right("WRONG").await);
    assert_eq!(
        service.validate("WRONG!").await.refusal(),
        (429, vec![429]),
        "a locked-out customer gets no result"
    );
}

#[tokio::test]
async fn digits_of_every_script_are_accepted_in_a_code() {
    let (_table, service) = demo_with("CONF_OTP_TYPE = \"NUMERIC\"").await;
    for zero in ['٠', '۰', '०', '๐', '０'] {
        service.issue().await;
        let code = service.code().await;
        let typed: String = code
            .chars()
            .map(|c| char::from_u32(u32::from(zero) + c.to_digit(10).unwrap()).unwrap())
            .collect();
        assert!(service.is_right(&typed).await, "{typed}");
    }
}

#[tokio::test]
async fn an_unambiguous_code_is_read_with_o_as_0_and_i_and_l_as_1() {
    let config = "CONF_OTP_TYPE = \"UNAMBIGUOUS\"\nCONF_OTP_LENGTH = 50\nCONF_OTP_DAILY_LIMIT = 1000";
    let (_table, service) = demo_with(config).await;
    for (zero, one) in [('O', 'I'), ('o', 'l'), ('0', 'L')] {
        service.issue().await;
        let code = service.code().await;
        assert!(!code.contains(['I', 'L', 'O', 'U']), "{code}");
        let typed: String = code
            .chars()
            .map(|c| match c {
                '0' => zero,
                '1' => one,
                c => c,
            })
            .collect();
        assert!(service.is_right(&typed).await, "{code} typed as {typed}");
    }
}

#[tokio::test]
async fn a_code_stays_valid_after_a_change_of_the_orgs_alphabet() {
    let (_table, service) = demo_with("CONF_OTP_LENGTH = 50").await;
    service.issue().await;
    let code = service.code().await;
    service.apply(&demo_org_with("CONF_OTP_TYPE = \"UNAMBIGUOUS\"")).await.unwrap();
    assert!(service.another_process().is_right(&code.to_lowercase()).await, "{code}");
}

#[tokio::test]
async fn an_unencoded_plus_in_a_query_is_a_plus_where_no_space_is_allowed() {
    let (_table, service) = demo().await;
    for email in ["tom+shop@example.com", "+lead@example.com"] {
        assert_eq!(register(&service, json!([{"type": "email", "value": email}])).await.status, 200);
    }
    let fetch = async |identifier: &str| {
        let answer = service.get(&format!("/v2/otp?source=INSTORE&scope=POINTS&{identifier}")).await;
        answer.refusal()
    };
    let known = (404, vec![9001]);
    for identifier in [
        "email=tom+shop@example.com",
        "email=tom%2Bshop@example.com",
        "email=+tom+shop@example.com+",
        "email=%2Blead@example.com",
        "identifierName=email&identifierValue=tom+shop%40example.com",
        "mobile=+918799361139",
        "mobile=+91+87993+61139",
        "mobile=%20+918799361139",
        "mobile=tel:+918799361139",
        "mobile=%E2%80%AA+918799361139",
        "mobile=%208799361139",
    ] {
        assert_eq!(fetch(identifier).await, known, "{identifier}");
    }
    assert_eq!(fetch("email=tom%20shop@example.com").await, (400, vec![8057]), "a space is not a plus");
    assert_eq!(fetch("mobile=+8799361139").await, (404, vec![8015]), "the number belongs to another country");
    assert_eq!(fetch("mobile=8799361139&mobile=+8799361139").await, (400, vec![400]));
}

#[tokio::test]
async fn json_numbers_are_accepted_as_text() {
    let (_table, service) = demo_with("CONF_OTP_TYPE = \"NUMERIC\"").await;
    assert!(finds_the_customer(&service, "MOBILE", json!(8_799_361_139_u64)).await);
    let code = service.code().await;
    // JSON numbers have no leading zeros.
    let number = if code.starts_with('0') { format!("\"{code}\"") } else { code };
    let validate =
        format!(r#"{{"entityType":"MOBILE","entityValue":8799361139,"action":"POINTS","code":{number}}}"#);
    assert_eq!(post(&service, "/v2/otp/validate", &validate).await.json["entity"], true);

    let long = "123456789012345678901234567890123456789012345678901234567890";
    let customer = |id: &str| {
        format!(
            r#"{{"profiles":[{{"source":"INSTORE","firstName":7,"identifiers":[{{"type":"externalId","value":{id}}}]}}]}}"#
        )
    };
    assert_eq!(post(&service, "/v2/customers", &customer(long)).await.status, 200);
    assert_eq!(
        post(&service, "/v2/customers", &customer(&format!("\"{long}\""))).await.refusal(),
        (409, vec![8006])
    );
    for other in ["1.5", "1e3", "-5", "true", "[1]", "{}", "\"\\ud800\""] {
        let answer = post(&service, "/v2/customers", &customer(other)).await;
        assert_eq!(answer.refusal(), (400, vec![8093]), "{other}");
        assert_eq!(answer.json["errors"][0]["message"], "Identifier value must be text", "{other}");
    }
}

async fn post(service: &TestService, path: &str, body: &str) -> Answer {
    let headers = [("content-type", "application/json")];
    service.send(Method::POST, path, &headers, Bytes::copy_from_slice(body.as_bytes())).await
}

#[tokio::test]
async fn a_subject_with_a_line_break_is_refused() {
    let (_table, service) = demo().await;
    for subject in ["Code\r\nBcc: eve@example.com", "Code\u{0}", "Code\u{2028}"] {
        let body = json!({
            "entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS",
            "emailTemplate": {"subject": subject, "body": "{{ validation_code }}"},
        });
        let answer = service.post("/v2/otp/generate", &body).await;
        assert_eq!(answer.refusal(), (400, vec![400]), "{subject:?}");
        let message = answer.json["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("subject") && message.contains("control characters"), "{message}");
    }
}

#[tokio::test]
async fn three_spellings_are_one_customer_of_an_org_with_a_trunk_prefix() {
    let (_table, service) = demo().await;
    let indonesia = Definition {
        country_code: "62".to_owned(),
        trunk_prefix: "0".to_owned(),
        national_mobile_length: [9, 10, 11, 12].into_iter().collect(),
        ..demo_org()
    };
    service.apply(&indonesia).await.unwrap();
    let service = service.another_process();
    let spellings = ["+62 (0)812-3456-7890", "0812 3456 7890", "62 812 34567890"];
    assert_eq!(register(&service, json!([{"type": "mobile", "value": spellings[0]}])).await.status, 200);
    for spelling in spellings {
        let again = register(&service, json!([{"type": "mobile", "value": spelling}])).await;
        assert_eq!(again.refusal(), (409, vec![8006]), "{spelling}");
        let encoded = percent_encoding::utf8_percent_encode(spelling, percent_encoding::NON_ALPHANUMERIC);
        let found = service.get(&format!("/v2/otp?source=INSTORE&scope=POINTS&mobile={encoded}")).await;
        assert_eq!(found.refusal(), (404, vec![9001]), "{spelling}");
    }
}

#[tokio::test]
async fn a_pasted_account_id_is_found() {
    let (_table, service) = demo().await;
    let body = json!({
        "entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS",
        "source": "WECHAT", "accountId": "\u{200b}WECHAT\u{2011}API1 ",
    });
    assert_eq!(service.post("/v2/otp/generate", &body).await.status, 200);
}

#[tokio::test]
async fn a_name_is_stored_sanitized() {
    let (table, service) = demo().await;
    let profile = json!({
        "source": "INSTORE", "firstName": "\u{202b}علی\u{200c}رضا\u{202c}\n", "lastName": " \u{0}\t",
        "identifiers": [{"type": "wechat", "value": "w"}],
    });
    assert_eq!(service.post("/v2/customers", &json!({"profiles": [profile]})).await.status, 200);
    let items = table.client().scan().table_name(table.name()).send().await.unwrap().items.unwrap();
    let profiles = items.iter().filter_map(|item| item.get("profiles")?.as_s().ok());
    let stored: Vec<Value> = profiles.map(|json| serde_json::from_str(json).unwrap()).collect();
    let stored = stored.iter().find(|profile| profile[0]["first_name"] != "Tom").unwrap();
    assert_eq!(stored[0]["first_name"], "علی\u{200c}رضا");
    assert_eq!(stored[0]["last_name"], Value::Null);
}

#[tokio::test]
async fn a_bare_plus_behind_any_decoration_leads_to_the_international_number() {
    let (_table, service) = demo().await;
    let register = async |mobile: &str| {
        let identifiers = json!([{"type": "mobile", "value": mobile}]);
        let body = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
        let answer = service.post("/v2/customers", &body).await;
        let otp = json!({"entityType": "MOBILE", "entityValue": mobile, "action": "POINTS"});
        assert_eq!(service.post("/v2/otp/generate", &otp).await.status, 200);
        answer.json["createdId"].clone()
    };
    let (abroad, national) = (register("+6598765432").await, register("6598765432").await);
    assert_ne!(abroad, national);
    let fetch = async |mobile: &str| {
        let url =
            format!("/v2/otp?source=INSTORE&scope=POINTS&identifierName=mobile&identifierValue={mobile}");
        service.get(&url).await.json["userId"].clone()
    };
    for mobile in [
        "+6598765432", "(+65)98765432", "-+6598765432", "/+65.98765432", "tel:(+65)98765432",
        "(0)+6598765432",
    ] {
        assert_eq!(fetch(mobile).await, abroad, "{mobile}");
    }
    assert_eq!(fetch("(65)98765432").await, national);
}

#[tokio::test]
async fn spaces_around_a_value_of_an_enumeration_do_not_count() {
    let (_table, service) = generous().await;
    let body = json!({"profiles": [{"source": " INSTORE", "accountId": " ", "identifiers": [
        {"type": " mobile\u{a0}", "value": "9010000022"},
    ]}]});
    assert_eq!(service.post("/v2/customers", &body).await.status, 200);
    let body = json!({"entityType": "\tMOBILE", "entityValue": "9010000022", "action": "POINTS ", "source": "INSTORE\n",
        "template": "  {{ otp_code }}  ", "channels": [{"type": " SMS ", "value": " 9010000022 "}]});
    assert_eq!(service.post("/v2/otp/generate", &body).await.status, 200);
    let fetch = "/v2/otp?source=INSTORE%20&scope=%20POINTS";
    let answer = service.get(&format!("{fetch}&identifierName=+mobile&identifierValue=9010000022")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer =
        service.get("/v2/customers/lookup?source=ALL%20&identifierName=email%20&identifierValue=a@b.c").await;
    assert_eq!(answer.refusal(), (404, vec![8015]));
}

#[tokio::test]
async fn a_blank_value_counts_as_absent() {
    let (_table, service) = demo().await;
    for blank in [" ", "\t\u{a0}", "\u{200b}"] {
        for (identifier, code) in [
            (json!({"type": "mobile", "value": blank}), 8093),
            (json!({"type": "externalId", "value": blank}), 8093),
            (json!({"type": blank, "value": "9010000022"}), 8092),
        ] {
            let answer = register(&service, json!([identifier])).await;
            assert_eq!(answer.refusal(), (400, vec![code]), "{identifier}");
            let absent = register(
                &service,
                json!([identifier
                    .as_object()
                    .unwrap()
                    .iter()
                    .filter(|(_, value)| **value != *blank)
                    .map(|(key, value)| (key.clone(), value.clone()))
                    .collect::<serde_json::Map<_, _>>()]),
            )
            .await;
            assert_eq!(answer.text, absent.text, "as if it were not there");
        }
        let body =
            json!({"profiles": [{"source": blank, "identifiers": [{"type": "mobile", "value": "9"}]}]});
        assert!(service.post("/v2/customers", &body).await.refusal().1.contains(&8016), "{blank:?}");
        let body = json!({"entityType": "MOBILE", "entityValue": MOBILE, "code": blank, "action": "POINTS"});
        assert_eq!(service.post("/v2/otp/validate", &body).await.refusal(), (400, vec![604]), "{blank:?}");
    }
    for (query, codes) in [
        ("source=%20&identifierName=mobile&identifierValue=8799361139&scope=POINTS", vec![8016]),
        ("source=INSTORE&identifierName=%20&identifierValue=%E2%80%8B&scope=POINTS", vec![8092, 8093]),
        ("source=INSTORE&mobile=%09&scope=POINTS", vec![8092, 8093]),
        ("source=INSTORE&mobile=8799361139&scope=+", vec![600]),
        ("source=WECHAT&accountId=%20&mobile=8799361139&scope=POINTS", vec![8091]),
    ] {
        assert_eq!(service.get(&format!("/v2/otp?{query}")).await.refusal(), (400, codes), "{query}");
    }
}

#[tokio::test]
async fn a_template_and_a_password_keep_their_spaces() {
    let (_table, service) = demo().await;
    let body = json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS", "template": " "});
    assert_eq!(service.post("/v2/otp/generate", &body).await.refusal(), (400, vec![400]));
    let answer = service.request_token("store.server", " server123").await;
    assert_eq!(answer.status, 401, "{answer:?}");
}

#[tokio::test]
async fn a_name_is_as_long_as_what_is_stored_of_it() {
    let (_table, service) = demo().await;
    let named = async |name: String, id: &str| {
        let profile =
            json!({"source": "INSTORE", "firstName": name, "identifiers": [{"type": "wechat", "value": id}]});
        service.post("/v2/customers", &json!({"profiles": [profile]})).await
    };
    assert_eq!(named(format!("{}x\u{0}\u{0}", " ".repeat(300)), "w1").await.status, 200);
    assert_eq!(named(format!(" {} ", "x".repeat(255)), "w2").await.status, 200);
    assert_eq!(named("x".repeat(256), "w3").await.refusal(), (400, vec![400]));
}

#[tokio::test]
async fn a_decimal_number_is_no_mobile() {
    let (_table, service) = demo().await;
    for value in
        [json!("9190100000.0"), json!("+919010000022.0"), json!("9010000022.00"), json!(9_010_000_022.0_f64)]
    {
        let answer = register(&service, json!([{"type": "mobile", "value": value}])).await;
        assert_eq!(answer.status, 400, "{value}: {answer:?}");
        if value.is_string() {
            assert_eq!(answer.refusal(), (400, vec![8056]), "{value}");
        }
    }
    let url = "/v2/customers/lookup?source=INSTORE&identifierName=mobile&identifierValue=";
    for value in ["9190100000.0", "%2B919010000022.0", "+919010000022.0"] {
        assert_eq!(service.get(&format!("{url}{value}")).await.refusal(), (400, vec![8056]), "{value}");
    }
}
