//! What destroys asks first, and does nothing unless the answer is yes.

use serde_json::json;

use super::{
    Operator,
    common::{MOBILE, USER},
    customers::{generate, with_customer},
    output::answered,
};

impl Operator {
    /// Runs a command on a terminal on which `typed` is typed.
    fn answered(&self, arguments: &[&str], variables: &[(&str, &str)], typed: &str) -> (i32, String) {
        let (endpoint, table) = (self.table.endpoint(), self.table.name());
        answered(&[&["--endpoint", &endpoint, "--table", table], arguments].concat(), variables, typed)
    }

    fn recorded(&self) -> usize {
        self.json(&["audit", "list", "--org", "966"]).as_array().unwrap().len()
    }
}

/// Every other answer than yes, and the end of the input.
const REFUSALS: [&str; 5] = ["n\n", "\n", "", "no, not y\n", "ye\n"];

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_destroyed_unless_the_answer_is_yes() {
    let (operator, service) = with_customer().await;
    generate(&service, MOBILE, "POINTS").await;
    let identifiers = json!([{"type": "mobile", "value": "9010000022"}]);
    let body = json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]});
    let other = service.post("/v2/customers", &body).await.json["createdId"].as_u64().unwrap().to_string();
    let user = USER.to_string();
    operator.json(&["till", "create", "shop.1", "--org", "966", "--allow", "otp:fetch"]);
    for (command, question, yes) in [
        (&["till", "revoke", "shop.1"][..], "Revoke of till shop.1? [y/N]", "y\n"),
        (&["otp", "revoke", "--org", "966", &user], "Revoke the open OTPs of customer 313302314", "Y\n"),
        (
            &["otp", "revoke", "--org", "966", "--contact", "mobile", MOBILE],
            "Revoke the open OTPs of the mobile that you typed",
            "y\n",
        ),
        (
            &["customer", "merge", "--org", "966", &user, &other, "--as-card-number"],
            "customer 313302314: T** ",
            "yes\n",
        ),
        (
            &["customer", "erase", "--org", "966", &user, "--settle", "0"],
            "Backups keep their copy for 35 days.",
            " YES \n",
        ),
    ] {
        let acts = operator.recorded();
        for typed in REFUSALS {
            let (code, shown) = operator.answered(command, &[], typed);
            assert!(shown.contains(question), "{command:?}: {shown}");
            assert!(code == 3 && shown.contains("nothing was changed"), "{command:?} {typed:?}: {shown}");
        }
        let (code, message) = operator.refusal(command);
        assert!(code == 3 && message.contains("--yes"), "{command:?}: {message}");
        assert_eq!(operator.recorded(), acts, "{command:?} was not even begun");
        let (code, shown) = operator.answered(command, &[], yes);
        assert_eq!(code, 0, "{command:?}: {shown}");
        assert_eq!(operator.recorded(), acts + 1, "{command:?}");
    }
    assert_eq!(operator.json(&["till", "list"])[1]["state"], "active", "the service's own");
    assert_eq!(operator.json(&["till", "list"])[0]["state"], "revoked");
    // What is not there is not asked about.
    assert_eq!(operator.answered(&["till", "revoke", "nobody"], &[], "y\n").0, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_org_is_applied_if_the_answer_is_yes() {
    let (operator, _service) = with_customer().await;
    let name = || operator.json(&["org", "show", "966"])["definition"]["name"].clone();
    let editor = [("VISUAL", "sed -i s/Demo/Other/")];
    let acts = operator.recorded();
    for typed in REFUSALS {
        let (code, shown) = operator.answered(&["org", "edit", "966"], &editor, typed);
        assert!(shown.contains("Other Stores") && shown.contains("Apply this? [y/N]"), "{shown}");
        assert!(code == 3 && shown.contains("nothing was changed"), "{typed:?}: {shown}");
        let kept = shown.split("The edited file is ").nth(1).unwrap().lines().next().unwrap().trim();
        assert!(std::fs::read_to_string(kept).unwrap().contains("Other Stores"), "what was typed is kept");
        std::fs::remove_file(kept).unwrap();
    }
    assert_eq!((name(), operator.recorded()), (json!("Demo Stores"), acts));
    let (code, shown) = operator.answered(&["org", "edit", "966"], &editor, "y\n");
    assert_eq!(code, 0, "{shown}");
    assert_eq!(shown.matches("Other Stores").count(), 1, "the changes are shown once: {shown}");
    assert!(shown.contains("org 966") && shown.contains("updated"), "{shown}");
    assert_eq!((name(), operator.recorded()), (json!("Other Stores"), acts + 1));
    let (code, shown) = operator.answered(&["org", "edit", "966"], &[("VISUAL", "true")], "");
    assert!(code == 0 && shown.contains("unchanged"), "{shown}");
    let (code, shown) = operator.answered(&["org", "edit", "966"], &[("VISUAL", "false")], "y\n");
    assert!(code == 3 && shown.contains("the editor failed"), "{shown}");
}
