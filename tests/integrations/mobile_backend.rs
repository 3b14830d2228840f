//! The back end of a mobile app: it looks a customer up with everything that it may want to show,
//! ignores what does not come, and changes identifiers. Only 200 counts.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::{Value, json};

use crate::{
    Running,
    common::PASSWORD,
    http_client::{HttpClient, Reply},
};

struct Backend<'a> {
    http: HttpClient,
    service: &'a Running,
}

impl<'a> Backend<'a> {
    fn new(service: &'a Running) -> Self {
        Self { http: HttpClient::new(), service }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Reply {
        let credentials = format!("Basic {}", STANDARD.encode(format!("store.server:{PASSWORD}")));
        let headers = [("Authorization", credentials.as_str()), ("Content-Type", "application/json")];
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.http.send(method, &format!("{}{path}", self.service.base), &headers, body).await
    }

    /// The user id and the values of all identifiers of a customer.
    async fn customer(&self, mobile: &str) -> Option<(u64, Vec<String>)> {
        let query = format!(
            "source=INSTORE&identifierName=mobile&identifierValue={mobile}&embed=points,CUSTOMERSTATUS&include_id=true&format=json"
        );
        let path = format!("/v2/customers/lookup/customerDetails?{query}");
        let reply = self.call(Method::GET, &path, None).await;
        if reply.status != 200 {
            return None;
        }
        let body = reply.json();
        let all = body["profiles"][0]["identifiersAll"].as_array().unwrap().iter();
        Some((body["id"].as_u64()?, all.map(|found| found["value"].as_str().unwrap().to_owned()).collect()))
    }

    async fn change(&self, user: u64, change: &Value) -> Reply {
        let path = format!("/v2/customers/{user}/changeIdentifier?source=INSTORE&accountId=");
        self.call(Method::POST, &path, Some(change.clone())).await
    }
}

#[tokio::test]
async fn a_back_end_looks_customers_up_and_changes_their_identifiers() {
    let service = Running::start().await;
    let backend = Backend::new(&service);
    assert_eq!(backend.customer("8799361139").await, None);
    let profile = json!({"source": "INSTORE", "accountId": "", "identifiers": [
        {"type": "mobile", "value": "8799361139"}, {"type": "email", "value": "old@example.com"},
    ]});
    assert_eq!(service.service.post("/v2/customers", &json!({"profiles": [profile]})).await.status, 200);
    let (user, identifiers) = backend.customer("8799361139").await.unwrap();
    assert!(identifiers.contains(&"old@example.com".to_owned()), "{identifiers:?}");

    let change = json!({
        "add": [{"type": "email", "value": "new@example.com"}, {"type": "mobile", "value": "9010000022"}],
        "remove": [{"type": "email", "value": "old@example.com"}, {"type": "mobile", "value": "8799361139"}],
    });
    for attempt in ["first", "repeated, because its answer was lost"] {
        let reply = backend.change(user, &change).await;
        assert_eq!((reply.status, &reply.json()["createdId"]), (200, &json!(user)), "{attempt}: {reply:?}");
    }
    assert_eq!(backend.customer("8799361139").await, None, "the number may be another person's now");
    let (found, identifiers) = backend.customer("9010000022").await.unwrap();
    assert_eq!(found, user);
    assert!(identifiers.contains(&"new@example.com".to_owned()), "{identifiers:?}");
    assert!(!identifiers.contains(&"old@example.com".to_owned()), "{identifiers:?}");
}

#[tokio::test]
async fn a_back_end_cannot_give_a_customer_what_another_has() {
    let service = Running::start().await;
    let backend = Backend::new(&service);
    for mobile in ["8799361139", "9010000022"] {
        let profile = json!({"source": "INSTORE", "accountId": "", "identifiers": [{"type": "mobile", "value": mobile}]});
        assert_eq!(service.service.post("/v2/customers", &json!({"profiles": [profile]})).await.status, 200);
    }
    let (first, before) = backend.customer("8799361139").await.unwrap();
    let reply = backend.change(first, &json!({"add": [{"type": "mobile", "value": "9010000022"}]})).await;
    assert_eq!((reply.status, &reply.json()["errors"][0]["code"]), (409, &json!(8008)), "{reply:?}");
    assert_eq!(backend.customer("8799361139").await, Some((first, before)));
}
