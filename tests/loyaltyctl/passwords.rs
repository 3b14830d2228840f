//! A till's password is printed before it is stored. A lost new password can be replaced while the
//! old one works.

use std::process::{Output, Stdio};

use serde_json::json;

use super::{
    Operator,
    common::{
        faults::{Fault, with_fault_proxy},
        served::loyaltyctl,
    },
    finish,
    output::{closed_pipe, finish_into, full_disk},
    with_demo_org,
};

const CREATE: [&str; 7] = ["till", "create", "shop.1", "--org", "966", "--allow", "card_number:generate"];
const ROTATE: [&str; 3] = ["till", "rotate", "shop.1"];

impl Operator {
    fn run_into(&self, arguments: &[&str], output: impl Into<Stdio>) -> Output {
        let endpoint = self.table.endpoint();
        let mut command = loyaltyctl(&["--endpoint", &endpoint, "--table", self.table.name()]);
        finish_into(command.args(arguments), output)
    }

    fn password(&self, arguments: &[&str]) -> String {
        self.json(arguments)["password"].as_str().unwrap().to_owned()
    }

    /// Returns the status that a caller with this password gets from a process with empty caches.
    async fn status(&self, password: &str) -> u16 {
        self.table.service("shop.1").as_till("shop.1", password).get("/v2/cardNumber").await.status
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_cannot_be_printed_changes_nothing() {
    let operator = with_demo_org().await;
    let fails = |arguments: &[&str]| {
        for (json, output) in [
            (&["--json"][..], Stdio::from(full_disk())),
            (&["--json"], Stdio::from(closed_pipe())),
            (&[], Stdio::from(full_disk())),
            (&[], Stdio::from(closed_pipe())),
        ] {
            let output = operator.run_into(&[json, arguments].concat(), output);
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(1), "{stderr}");
            assert!(stderr.contains("nothing was changed"), "{stderr}");
        }
    };
    fails(&CREATE);
    assert_eq!(operator.json(&["till", "list"]), json!([]));
    let password = operator.password(&CREATE);
    fails(&ROTATE);
    assert_eq!(operator.json(&["till", "list"])[0]["state"], "active");
    assert_eq!(operator.status(&password).await, 200);
    assert_eq!(
        operator.status(&operator.password(&ROTATE)).await,
        200,
        "the rotation must work when the password can be printed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_new_password_is_replaced_while_the_old_one_works() {
    let operator = with_demo_org().await;
    let used = operator.password(&CREATE);
    let lost = operator.password(&ROTATE);
    assert_eq!(
        operator.json(&["till", "revoke", "--yes", "shop.1", "--new"]),
        json!({"name": "shop.1", "revoked": 1, "left": 1})
    );
    assert_eq!((operator.status(&used).await, operator.status(&lost).await), (200, 401));
    let replaced = operator.password(&ROTATE);
    assert_eq!((operator.status(&used).await, operator.status(&replaced).await), (200, 200));

    operator.json(&["till", "revoke", "--yes", "shop.1", "--old"]);
    let (code, message) = operator.refusal(&["till", "revoke", "--yes", "shop.1", "--new"]);
    assert_eq!(code, 3, "{message}");
    assert_eq!(
        operator.status(&replaced).await,
        200,
        "the only password of a till does not count as a new one"
    );
    assert_eq!(operator.refusal(&["till", "revoke", "--yes", "shop.1", "--new", "--old"]).0, 2);
    operator.json(&["till", "revoke", "--yes", "shop.1"]);
    assert_eq!(operator.refusal(&["till", "revoke", "--yes", "shop.1", "--new"]).0, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lifetime_of_a_tills_access_tokens_is_set_when_it_is_created() {
    let operator = with_demo_org().await;
    let create = |name: &str, options: &[&str]| {
        let arguments = ["till", "create", name, "--org", "966", "--allow", "card_number:generate"];
        operator.json(&[&arguments, options].concat())
    };
    for (name, options, seconds) in [
        ("shop.1", &[][..], 3600),
        ("shop.2", &["--token-ttl", "60"], 60),
        ("shop.3", &["--token-ttl=86400"], 86_400),
    ] {
        let created = create(name, options);
        assert_eq!(created["token_ttl"], seconds);
        let service = operator.table.service(name);
        let token = service.request_token(name, created["password"].as_str().unwrap()).await;
        assert_eq!(token.json["data"]["ttlSeconds"], seconds);
        let listed = operator.json(&["till", "list"]);
        let till = listed.as_array().unwrap().iter().find(|till| till["name"] == name).unwrap();
        assert_eq!(till["token_ttl"], seconds, "{listed}");
    }
    for wrong in ["59", "86401", "0", "-1", "1h", ""] {
        let option = format!("--token-ttl={wrong}");
        let (code, message) = operator.refusal(&[&CREATE[..], &[option.as_str()]].concat());
        assert_eq!(code, 2, "{message}");
        assert!(message.contains("60 to 86400 seconds"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_is_printed_before_it_is_stored() {
    let operator = with_demo_org().await;
    let (_service, faults) = with_fault_proxy(&operator.table, "shop.1").await;
    let endpoint = faults.endpoint();
    let through = |arguments: &[&str]| {
        let mut command = loyaltyctl(&["--endpoint", &endpoint, "--table", operator.table.name(), "--json"]);
        finish(command.args(arguments))
    };
    let refuse_writes = || {
        faults.inject(|operation, _| {
            operation.starts_with("Transact").then(|| Fault::error("AccessDeniedException"))
        });
    };
    for (arguments, tills) in [(&CREATE[..], 0), (&ROTATE[..], 1)] {
        refuse_writes();
        let output = through(arguments);
        assert_eq!(output.status.code(), Some(1));
        let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(printed["password"].as_str().unwrap().len(), 26);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("password above works is not certain"), "{stderr}");
        let listed = operator.json(&["till", "list"]);
        assert_eq!(listed.as_array().unwrap().len(), tills, "{listed}");
        assert!(listed[0]["state"] != "rotating", "{listed}");

        // DynamoDB carries out the write, but its answer is lost. The printed password works.
        faults.inject(|operation, _| operation.starts_with("Transact").then_some(Fault::ResetBeforeAnswer));
        let output = through(arguments);
        let printed: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(operator.status(printed["password"].as_str().unwrap()).await, 200);
        faults.clear();
    }
}
