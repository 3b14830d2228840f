//! A kiosk in C#: it sends its first request without credentials and waits for the challenge, then
//! uses HTTP Basic with the lower-case md5 of its password. Every `GET` has the content type of
//! XML. It gives up after 20 seconds.

use std::time::Instant;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::Method;
use md5::{Digest, Md5};
use serde_json::{Value, json};

use crate::{
    Running,
    common::{PASSWORD, faults::Fault},
    http_client::{HttpClient, PATIENCE, Reply},
};

struct Kiosk<'a> {
    http: HttpClient,
    service: &'a Running,
    password: &'static str,
    /// How many challenges it has answered.
    challenges: usize,
}

impl<'a> Kiosk<'a> {
    fn new(service: &'a Running, password: &'static str) -> Self {
        Self { http: HttpClient::new(), service, password, challenges: 0 }
    }

    async fn call(&mut self, method: Method, path: &str, body: Option<Value>) -> Reply {
        let url = format!("{}{path}", self.service.base);
        let content_type = if method == Method::GET { "text/xml" } else { "application/json" };
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        let headers = [("Content-Type", content_type)];
        let reply = self.http.send(method.clone(), &url, &headers, body.clone()).await;
        if reply.status != 401 {
            return reply;
        }
        let Some(("Basic", _realm)) =
            reply.headers.get("www-authenticate").and_then(|challenge| challenge.split_once(' '))
        else {
            return reply;
        };
        self.challenges += 1;
        let digest =
            Md5::digest(self.password).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        let credentials = format!("Basic {}", STANDARD.encode(format!("store.server:{digest}")));
        let headers = [("Content-Type", content_type), ("Authorization", &credentials)];
        self.http.send(method, &url, &headers, body).await
    }
}

#[tokio::test]
async fn a_kiosk_answers_the_challenge_and_asks_with_the_content_type_of_xml() {
    let service = Running::start().await;
    let mut kiosk = Kiosk::new(&service, PASSWORD);
    let number = kiosk.call(Method::GET, "/v2/cardNumber", None).await;
    assert_eq!((number.status, &number.json()["entity"]), (200, &json!("1000000010")));

    let mobile = json!({"type": "mobile", "value": "8799361139"});
    let customer = json!({"profiles": [{"source": "INSTORE", "accountId": "", "identifiers": [mobile]}]});
    assert_eq!(kiosk.call(Method::POST, "/v2/customers", Some(customer)).await.status, 200);
    let entity = json!({"entityType": "MOBILE", "entityValue": "8799361139", "action": "POINTS"});
    assert_eq!(kiosk.call(Method::POST, "/v2/otp/generate", Some(entity.clone())).await.status, 200);
    let fetch = "/v2/otp?source=INSTORE&identifierName=mobile&identifierValue=8799361139&scope=POINTS";
    let otp = kiosk.call(Method::GET, fetch, None).await;
    assert_eq!(otp.status, 200, "{otp:?}");
    let in_path = kiosk.call(Method::GET, &fetch.replace('?', "/"), None).await;
    assert_eq!(in_path.body, otp.body);
    let mut validate = entity;
    validate["code"] = otp.json()["code"].clone();
    let validated = kiosk.call(Method::POST, "/v2/otp/validate", Some(validate)).await;
    assert_eq!(validated.json()["entity"], true);
    assert_eq!(kiosk.challenges, 6, "each request was challenged once");
}

#[tokio::test]
async fn a_kiosk_with_a_wrong_password_is_refused_after_one_challenge() {
    let service = Running::start().await;
    let mut kiosk = Kiosk::new(&service, "wrong");
    let refused = kiosk.call(Method::GET, "/v2/cardNumber", None).await;
    assert_eq!((refused.status, kiosk.challenges), (401, 1));
    assert_eq!(refused.headers["www-authenticate"], "Basic realm=\"loyalty\"");
}

#[tokio::test]
async fn an_answer_comes_before_a_kiosk_gives_up() {
    let (service, faults) = Running::start_with_faults().await;
    let mut kiosk = Kiosk::new(&service, PASSWORD);
    assert_eq!(kiosk.call(Method::GET, "/v2/cardNumber", None).await.status, 200);
    // From now on, DynamoDB neither answers nor refuses a connection.
    faults.inject(|_, _| Some(Fault::Dropped));
    let asked = Instant::now();
    let answer = kiosk.call(Method::GET, "/v2/cardNumber", None).await;
    assert_eq!((answer.status, &answer.json()["errors"][0]["code"]), (503, &json!(503)));
    assert!(answer.headers.contains_key("retry-after"));
    assert!(asked.elapsed() < PATIENCE, "{:?}", asked.elapsed());
    faults.clear();
    assert_eq!(kiosk.call(Method::GET, "/v2/cardNumber", None).await.status, 200);
}
