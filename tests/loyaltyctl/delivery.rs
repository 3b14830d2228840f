//! Messages that `serve` delivers, and the commands for an org's webhook.

use std::sync::Arc;

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tokio::{
    net::TcpListener,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};

use super::{
    Operator,
    common::{
        self,
        served::{HANG_TIMEOUT, Served, loyaltyctl},
    },
    write,
};

/// A gateway that passes on what it receives, and answers with one status.
struct Gateway {
    url: String,
    received: UnboundedReceiver<(HeaderMap, Bytes)>,
}

type Answers = Arc<(UnboundedSender<(HeaderMap, Bytes)>, StatusCode)>;

impl Gateway {
    async fn start(status: StatusCode) -> Self {
        let (send, received) = unbounded_channel();
        let answer = async |State(answers): State<Answers>, headers: HeaderMap, body: Bytes| {
            answers.0.send((headers, body)).unwrap();
            answers.1
        };
        let router = Router::new().route("/otp", post(answer)).with_state(Arc::new((send, status)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/otp", listener.local_addr().unwrap());
        tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { url, received }
    }

    async fn next(&mut self) -> (HeaderMap, Bytes) {
        timeout(HANG_TIMEOUT, self.received.recv()).await.unwrap().unwrap()
    }

    /// The org of the documentation, whose text messages go to this gateway and whose e-mails go
    /// to AWS.
    fn org(&self) -> String {
        format!(
            "{}\n[delivery]\nSMS = \"webhook\"\nEMAIL = \"aws\"\n[delivery.aws]\nemail_from = \"otp@example.com\"\n\
             [delivery.webhook]\nurl = \"{}\"\n",
            common::DEMO_ORG,
            self.url
        )
    }
}

fn verified(secret: &str, (headers, body): &(HeaderMap, Bytes)) -> Value {
    Webhook::new(secret).unwrap().verify(body, headers).unwrap();
    serde_json::from_slice(body).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn served_messages_reach_the_webhook_of_the_org_signed() {
    let mut gateway = Gateway::start(StatusCode::OK).await;
    let served = Served::start(&["--in-memory", "--deliver", "webhook"]);
    let endpoint = served.dynamodb().to_owned();
    let run = |arguments: &[&str]| {
        let output = super::finish(loyaltyctl(&["--endpoint", &endpoint, "--json"]).args(arguments));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    run(&["org", "apply", &write(&folder, &gateway.org())]);
    let secret = run(&["org", "webhook-secret", "966"])["secret"].as_str().unwrap().to_owned();
    let allow = "otp:issue,otp:fetch";
    let password = run(&["till", "create", "shop.1", "--org", "966", "--allow", allow])["password"].clone();
    let credentials = format!("shop.1:{}", password.as_str().unwrap());
    let body = json!({
        "entityType": "MOBILE", "entityValue": common::MOBILE, "action": "REGISTRATION",
        "channels": [
            {"type": "SMS", "value": common::MOBILE},
            {"type": "EMAIL", "value": "tom@example.com"},
        ],
    });
    let answer = std::process::Command::new("curl")
        .args(["-sSf", "-u", &credentials, "-H", "Content-Type: application/json", "-d", &body.to_string()])
        .arg(format!("{}/v2/otp/generate", served.base()))
        .output()
        .unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));

    let first = verified(&secret, &gateway.next().await);
    let second = verified(&secret, &gateway.next().await);
    let mut channels: Vec<_> =
        [&first, &second].iter().map(|message| message["data"]["channel"].as_str().unwrap()).collect();
    channels.sort_unstable();
    assert_eq!(channels, ["EMAIL", "SMS"], "what AWS would send comes to the webhook, too");
    for message in [&first, &second] {
        assert_eq!(message["type"], "otp.message");
        assert_eq!(message["data"]["orgId"], 966);
    }
    // Nothing of the message is in the log.
    for line in served.kill() {
        assert!(!line.contains("8799361139") && !line.contains("tom@example.com"), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_delivery_says_what_the_gateway_answered() {
    let mut gateway = Gateway::start(StatusCode::NO_CONTENT).await;
    let refusing = Gateway::start(StatusCode::FORBIDDEN).await;
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    operator.json(&["org", "apply", &write(&folder, &gateway.org())]);
    let command = ["org", "test-delivery", "966", "--channel", "SMS", "--to", common::MOBILE];
    let (code, message) = operator.refusal(&command);
    assert!(code == 3 && message.contains("webhook-secret"), "{message}");

    let secret = operator.json(&["org", "webhook-secret", "966"])["secret"].as_str().unwrap().to_owned();
    let sent = operator.json(&command);
    assert_eq!((&sent["channel"], &sent["outcome"]), (&json!("SMS"), &json!("sent")));
    let message = verified(&secret, &gateway.next().await);
    assert_eq!(message["data"]["to"], format!("91{}", common::MOBILE));

    let (code, message) =
        operator.refusal(&["org", "test-delivery", "966", "--channel", "ZALO", "--to", "x"]);
    assert!(code == 3 && message.contains("ZALO"), "{message}");
    operator.json(&["org", "apply", &write(&folder, &refusing.org())]);
    let (code, message) = operator.refusal(&command);
    assert!(code == 3 && message.contains("gateway_403"), "{message}");
    assert_eq!(operator.refusal(&["org", "test-delivery", "966", "--channel", "SMS", "--to", "12"]).0, 2);
    assert_eq!(operator.refusal(&["org", "test-delivery", "967", "--channel", "SMS", "--to", "12"]).0, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_secret_signs_beside_the_new_one() {
    let mut gateway = Gateway::start(StatusCode::OK).await;
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    operator.json(&["org", "apply", &write(&folder, &gateway.org())]);
    let replace = || {
        let secret = operator.json(&["org", "webhook-secret", "966"])["secret"].as_str().unwrap().to_owned();
        let bytes = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        assert_eq!(bytes.len(), 32);
        secret
    };
    let (old, new) = (replace(), replace());
    assert_ne!(old, new);
    operator.json(&["org", "apply", &write(&folder, &gateway.org().replace("Demo Stores", "Demo"))]);
    operator.json(&["org", "test-delivery", "966", "--channel", "SMS", "--to", common::MOBILE]);
    let delivered = gateway.next().await;
    assert_eq!(
        verified(&old, &delivered),
        verified(&new, &delivered),
        "a change of the org keeps the secrets"
    );
    assert_eq!(operator.refusal(&["org", "webhook-secret", "967"]).0, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_told_that_nothing_is_sent_and_that_codes_are_fixed() {
    let operator = Operator::new().await;
    let folder = tempfile::tempdir().unwrap();
    let remarks = |file: &str| {
        operator.json(&["org", "apply", &write(&folder, file)]);
        operator.json(&["org", "show", "966"])["remarks"].clone()
    };
    let silent = remarks(common::DEMO_ORG);
    assert!(silent[0].as_str().unwrap().contains("no message is sent"), "{silent}");
    let gateway = Gateway::start(StatusCode::OK).await;
    assert_eq!(remarks(&gateway.org()), json!([]));
    let with_tests = format!("{}\n[test_identifiers]\n\"919999900001\" = \"1234567\"\n", gateway.org());
    let loud = remarks(&with_tests);
    assert!(loud[0].as_str().unwrap().starts_with("TEST IDENTIFIERS"), "{loud}");
    let shown = operator.run(&["org", "show", "966"]);
    assert!(String::from_utf8(shown.stderr).unwrap().contains("TEST IDENTIFIERS"));
}
