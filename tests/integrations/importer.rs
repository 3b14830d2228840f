//! An import in Python: mobile numbers are numbers in JSON, the same person comes once for each
//! source, and a batch is repeated as a whole after a time-out.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::Method;
use serde_json::{Value, json};

use crate::{Running, common::PASSWORD, http_client::HttpClient};

/// A row of the file: a profile of a person.
#[derive(Clone, Copy)]
struct Row {
    mobile: u64,
    name: &'static str,
    source: &'static str,
    account: &'static str,
}

const fn row(mobile: u64, name: &'static str, source: &'static str, account: &'static str) -> Row {
    Row { mobile, name, source, account }
}

const FILE: [Row; 6] = [
    row(919_111_111_111, "Ann", "INSTORE", ""),
    row(919_111_111_111, "Ann Lee", "ECOMMERCE", "web-shop"),
    row(919_111_111_112, "Bob", "INSTORE", "site-1"),
    row(919_111_111_112, "Bob", "MOBILE_APP", "app"),
    row(919_111_111_112, "Bob", "ECOMMERCE", "web-shop"),
    row(919_111_111_113, "Cleo", "ECOMMERCE", "web-shop"),
];

struct Importer<'a> {
    http: HttpClient,
    service: &'a Running,
    /// The user id of each mobile.
    users: BTreeMap<u64, u64>,
}

impl<'a> Importer<'a> {
    fn new(service: &'a Running) -> Self {
        Self { http: HttpClient::new(), service, users: BTreeMap::new() }
    }

    async fn send(&self, row: &Row) -> (u16, Value) {
        let credentials = format!("Basic {}", STANDARD.encode(format!("store.server:{PASSWORD}")));
        let headers = [("Authorization", credentials.as_str()), ("Content-Type", "application/json")];
        let profile = json!({
            "firstName": row.name, "source": row.source, "accountId": row.account,
            "identifiers": [{"type": "mobile", "value": row.mobile}],
        });
        let body = json!({"profiles": [profile]}).to_string();
        let reply = self
            .http
            .send(Method::POST, &format!("{}/v2/customers", self.service.base), &headers, body)
            .await;
        (reply.status, reply.json())
    }

    /// Sends the rows of a batch one after another. A row whose customer exists already is done:
    /// the message has the id.
    async fn batch(&mut self, rows: &[Row]) {
        for row in rows {
            let (status, body) = self.send(row).await;
            let user = if status == 200 {
                body["createdId"].as_u64()
            } else {
                assert_eq!((status, &body["errors"][0]["code"]), (409, &json!(8006)), "{body}");
                let message = body["errors"][0]["message"].as_str().unwrap();
                message.split_whitespace().find_map(|word| word.parse().ok())
            };
            let user = user.unwrap_or_else(|| panic!("{body}"));
            let known = *self.users.entry(row.mobile).or_insert(user);
            assert_eq!(known, user, "{} has one user id", row.mobile);
        }
    }
}

#[tokio::test]
async fn an_import_makes_one_customer_of_each_person_however_often_it_is_repeated() {
    let service = Running::start().await;
    let mut importer = Importer::new(&service);
    // The answer to the fourth row does not arrive in time. The batch is repeated, twice.
    importer.batch(&FILE[..3]).await;
    importer.send(&FILE[3]).await;
    importer.batch(&FILE).await;
    importer.batch(&FILE).await;
    assert_eq!(importer.users.len(), 3);
    let users: std::collections::BTreeSet<u64> = importer.users.values().copied().collect();
    assert_eq!(users.len(), 3, "three persons");

    // Each person is found in every source, and has one card.
    for Row { mobile, source, account, .. } in FILE {
        let query =
            format!("source={source}&accountId={account}&identifierName=mobile&identifierValue={mobile}");
        let found = service.service.get(&format!("/v2/customers/lookup?{query}")).await;
        assert_eq!(found.json["entity"], importer.users[&mobile], "{query}");
        let details = service.service.get(&format!("/v2/customers/{}", importer.users[&mobile])).await;
        let identifiers = details.json["profiles"][0]["identifiersAll"].as_array().unwrap();
        let cards = identifiers.iter().filter(|identifier| identifier["type"] == "externalId").count();
        assert_eq!(cards, 1, "{details:?}");
    }
    assert_eq!(service.service.card_number().await, "1000000013", "three numbers were taken");
}
