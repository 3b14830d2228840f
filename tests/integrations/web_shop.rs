//! A web shop in PHP that confirms an address before it opens an account: HTTP Basic, a template of
//! its own, and it reads the body whatever the status is. A failure is a body with the key
//! `errors`.

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::TimeDelta;
use http::Method;
use serde_json::{Value, json};

use crate::{Running, common::PASSWORD, http_client::HttpClient};

struct WebShop<'a> {
    http: HttpClient,
    service: &'a Running,
}

impl<'a> WebShop<'a> {
    fn new(service: &'a Running) -> Self {
        Self { http: HttpClient::new(), service }
    }

    /// The decoded body, or the message of the first error.
    async fn call(&self, path: &str, fields: &Value) -> Result<Value, String> {
        let credentials = format!("Basic {}", STANDARD.encode(format!("store.server:{PASSWORD}")));
        let headers = [
            ("Authorization", credentials.as_str()),
            ("Content-Type", "application/json"),
            ("Accept", "application/json"),
        ];
        let url = format!("{}{path}", self.service.base);
        let reply = self.http.send(Method::POST, &url, &headers, fields.to_string()).await.json();
        match reply.get("errors") {
            Some(errors) => Err(errors[0]["message"].as_str().unwrap().to_owned()),
            None => Ok(reply),
        }
    }

    async fn send_code(&self, kind: &str, address: &str) -> Result<(), String> {
        let text = "Welcome! {{ validation_code }} opens your account.";
        let fields = json!({
            "entityType": kind, "entityValue": address, "action": "REGISTRATION",
            "channels": [{"type": kind, "value": address}],
            "template": text, "emailTemplate": {"subject": "Your account", "body": text},
        });
        self.call("/v2/otp/generate", &fields).await.map(|_| ())
    }

    async fn confirm(&self, kind: &str, address: &str, code: &str) -> Result<bool, String> {
        let fields =
            json!({"entityType": kind, "entityValue": address, "action": "REGISTRATION", "code": code});
        let body = self.call("/v2/otp/validate", &fields).await?;
        Ok(body["entity"] == true)
    }
}

#[tokio::test]
async fn a_web_shop_confirms_addresses_before_it_opens_accounts() {
    let service = Running::start().await;
    let shop = WebShop::new(&service);
    for (kind, address, delivered_to) in [
        ("email", "Ann.Lee@example.com", "ann.lee@example.com"),
        ("MOBILE", "8799361139", "918799361139"),
        ("MOBILE", "+91 90100 00022", "919010000022"),
    ] {
        shop.send_code(kind, address).await.unwrap();
        let message = service.message_to(delivered_to).await;
        let code =
            message.strip_prefix("Welcome! ").and_then(|rest| rest.strip_suffix(" opens your account."));
        let code = code.unwrap_or_else(|| panic!("{message}"));
        assert_eq!(shop.confirm(kind, address, "WRONG42").await, Ok(false));
        assert_eq!(shop.confirm(kind, address, &format!(" {} ", code.to_lowercase())).await, Ok(true));
        assert_eq!(shop.confirm(kind, address, code).await, Ok(false), "a code opens one account");
    }
}

#[tokio::test]
async fn a_web_shop_shows_the_message_of_what_failed() {
    let service = Running::start().await;
    let shop = WebShop::new(&service);
    assert_eq!(shop.send_code("MOBILE", "12").await, Err("Invalid mobile number".to_owned()));
    assert_eq!(shop.send_code("email", "ann.lee").await, Err("Invalid email address".to_owned()));
    assert_eq!(shop.confirm("MOBILE", "8799361139", "").await, Err("No OTP passed".to_owned()));
    for _ in 0..10 {
        shop.send_code("MOBILE", "8799361139").await.unwrap();
    }
    let refused = shop.send_code("MOBILE", "8799361139").await.unwrap_err();
    assert!(refused.contains("OTPs of the day"), "{refused}");
    service.service.clock.advance(TimeDelta::days(1));
    shop.send_code("MOBILE", "8799361139").await.unwrap();
}
