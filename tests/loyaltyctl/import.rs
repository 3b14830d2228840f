//! Importing customers from a CSV file.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use serde_json::{Value, json};

use super::{
    Operator,
    common::{
        self,
        faults::{Fault, with_fault_proxy},
        served::loyaltyctl,
    },
    finish,
};

const HEADING: &str = "source,accountId,firstName,lastName,mobile,email,externalId\n";

/// An org of the documentation, and a folder with files.
struct Import {
    operator: Operator,
    folder: tempfile::TempDir,
}

impl Import {
    async fn new() -> Self {
        let operator = Operator::new().await;
        let folder = tempfile::tempdir().unwrap();
        let import = Self { operator, folder };
        import.operator.json(&["org", "apply", &import.file("org.toml", common::DEMO_ORG)]);
        let allow = "customer:read,otp:issue,card_number:generate";
        let till = ["till", "create", "shop.1", "--org", "966", "--allow", allow];
        import.operator.json(&till);
        import
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name).to_str().unwrap().to_owned()
    }

    fn run(&self, file: &str, options: &[&str]) -> (i32, Value, String) {
        let arguments = [&["--json", "customer", "import", file, "--org", "966"], options].concat();
        let output = self.operator.run(&arguments);
        let result = serde_json::from_slice(&output.stdout).unwrap_or_default();
        (output.status.code().unwrap(), result, String::from_utf8(output.stderr).unwrap())
    }

    async fn owner(&self, source: &str, name: &str, value: &str) -> Option<u64> {
        use loyalty_codes::model::{
            customer::{Account, AccountId, IdentifierName, Source},
            org::OrgId,
        };
        let store = self.operator.table.store();
        let org = store.org(OrgId(966)).await.unwrap().unwrap();
        let account = match source.split_once('/') {
            Some((source, id)) => {
                Account { source: Source::parse(source).unwrap(), id: AccountId(id.to_owned()) }
            }
            None => Account::instore(),
        };
        let identifier = org.identifier(IdentifierName::parse(name).unwrap(), value).unwrap();
        let identity = loyalty_codes::model::customer::Identity::new(account, identifier);
        store.find_customer(OrgId(966), &identity).await.unwrap().map(|user| user.0)
    }
}

fn counts(result: &Value) -> [u64; 5] {
    ["rows", "registered", "joined", "existed", "failed"].map(|name| result[name].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_registers_joins_and_skips_and_explains_what_it_cannot_import() {
    let import = Import::new().await;
    let good = "INSTORE,,Ann,Lee,8799361139,ann@example.com,CARD-1\n\
                WECHAT,WECHAT-API1,Ann,,+91 87993 61139,,\n\
                INSTORE,,\"Bob, jr.\",,9010000022,,\n";
    let bad = "INSTORE,,Cleo,,12,,\n\
               NOWHERE,,Dora,,9010000033,,\n\
               INSTORE,,Emil,,,,\n\
               INSTORE,,Fred,,9010000044,,CARD-1\n";
    let file = import.file("customers.csv", &format!("{HEADING}{good}{bad}"));
    let (code, result, message) = import.run(&file, &[]);
    assert_eq!(code, 3, "{message}");
    // A row of Ann may be registered first or join.
    assert_eq!(counts(&result), [7, 2, 1, 0, 4], "{result}");
    let errors = import.path("customers.errors.csv");
    assert_eq!(result["errors"], errors.to_str().unwrap());
    let text = fs::read_to_string(&errors).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.remove(0), format!("{},error", HEADING.trim()));
    lines.sort_unstable();
    assert_eq!(lines[0], "INSTORE,,Cleo,,12,,,8056 Invalid mobile number");
    assert!(lines[1].starts_with("INSTORE,,Emil,,,,,8092 "), "{text}");
    assert!(lines[2].starts_with("INSTORE,,Fred,,9010000044,,CARD-1,"), "{text}");
    assert_eq!(lines[3], "NOWHERE,,Dora,,9010000033,,,8012 Unknown source");
    assert_eq!(fs::metadata(&errors).unwrap().permissions().mode() & 0o777, 0o600);

    let ann = import.owner("INSTORE", "mobile", "8799361139").await;
    assert!(ann.is_some());
    assert_eq!(import.owner("WECHAT/WECHAT-API1", "mobile", "8799361139").await, ann);
    assert_eq!(import.owner("INSTORE", "externalId", "CARD-1").await, ann);

    let audit = import.operator.json(&["audit", "list", "--org", "966"]);
    let entry = audit.as_array().unwrap().iter().find(|entry| entry["what"] == "customer import").unwrap();
    assert_eq!((&entry["outcome"], &entry["detail"]["registered"]), (&json!("done"), &json!(2)), "{audit}");

    // The whole file again, and the corrected rows with their old reasons.
    let (_, result, _) = import.run(&file, &[]);
    assert_eq!(counts(&result), [7, 0, 0, 3, 4], "{result}");
    let corrected = text.replace(",12,", ",9010000055,").replace("NOWHERE", "INSTORE");
    let corrected = import.file("corrected.csv", &corrected);
    let (code, result, _) = import.run(&corrected, &[]);
    assert_eq!((code, counts(&result)), (3, [4, 2, 0, 0, 2]), "{result}");
    let text = fs::read_to_string(import.path("corrected.errors.csv")).unwrap();
    assert_eq!(text.matches("error").count(), 1, "the column is not added again: {text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_says_the_same_and_writes_nothing() {
    let import = Import::new().await;
    let known = import.file("known.csv", "mobile\n8799361139\n");
    let (code, result, message) = import.run(&known, &[]);
    assert_eq!((code, counts(&result)), (0, [1, 1, 0, 0, 0]), "{message}");
    let file = import.file(
        "customers.csv",
        &format!("{HEADING}WECHAT,WECHAT-API1,,,8799361139,,\nINSTORE,,,,8799361139,,\nINSTORE,,,,9010000022,,\nX,,,,9,,\n"),
    );
    let (code, result, message) = import.run(&file, &["--dry-run"]);
    assert_eq!((code, counts(&result)), (3, [4, 1, 1, 1, 1]), "{message}");
    assert_eq!(import.owner("INSTORE", "mobile", "9010000022").await, None);
    assert_eq!(import.owner("WECHAT/WECHAT-API1", "mobile", "8799361139").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn card_numbers_that_the_plan_could_give_again_are_refused() {
    let import = Import::new().await;
    let file = import.file("cards.csv", "externalId\n1000000009\n1000000500\nX-1\n1000000700\n");
    let (code, _, message) = import.run(&file, &[]);
    assert_eq!(code, 3);
    assert!(message.contains("2 of the card numbers") && message.contains("line 3"), "{message}");
    assert!(
        message.contains("CONF_CARD_NUMBER_OFFSET in the org's file to 1000000701 or higher"),
        "{message}"
    );
    assert_eq!(import.owner("INSTORE", "externalId", "X-1").await, None, "nothing was imported");

    let higher = common::DEMO_ORG.replace("1000000010", "1000000701");
    import.operator.json(&["org", "apply", &import.file("org.toml", &higher)]);
    let (code, result, message) = import.run(&file, &[]);
    assert_eq!((code, counts(&result)), (0, [4, 4, 0, 0, 0]), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_was_stopped_goes_on_where_it_was() {
    let import = Import::new().await;
    let rows = (0..200).map(|n| format!("INSTORE,,,,90100{n:05},,\n")).collect::<Vec<_>>().concat();
    let file = import.file("customers.csv", &format!("{HEADING}{rows}"));
    let (_service, faults) = with_fault_proxy(&import.operator.table, "shop.1").await;
    faults.inject(|operation, call| {
        (call > 150 && operation.starts_with("Transact")).then(|| Fault::error("AccessDeniedException"))
    });
    let endpoint = faults.endpoint();
    let through = ["--endpoint", &endpoint, "--table", import.operator.table.name()];
    let output = finish(loyaltyctl(&through).args(["customer", "import", &file, "--org", "966"]));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("Run the command again"), "{stderr}");

    let (code, result, message) = import.run(&file, &[]);
    let [rows, registered, joined, existed, failed] = counts(&result);
    assert_eq!((code, rows, joined, failed), (0, 200, 0, 0), "{message}");
    assert!(registered > 0 && existed > 0 && registered + existed == 200, "{result}");
    let (_, result, _) = import.run(&file, &[]);
    assert_eq!(counts(&result), [200, 0, 0, 200, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_be_imported_are_refused_with_the_reason() {
    let import = Import::new().await;
    for (text, reason) in [
        ("mobile,points\n8799361139,5\n", "\"points\" is not known"),
        ("firstName,source\nAnn,INSTORE\n", "no column is an identifier"),
        ("", "no column is an identifier"),
    ] {
        let (code, _, message) = import.run(&import.file("x.csv", text), &[]);
        assert_eq!(code, 3, "{text}: {message}");
        assert!(
            serde_json::from_str::<Value>(&message).unwrap()["error"].as_str().unwrap().contains(reason),
            "{message}"
        );
    }
    let file = import.file("x.csv", "mobile\n8799361139,1,2\n");
    let (code, result, _) = import.run(&file, &[]);
    assert_eq!((code, &result["failed"]), (3, &json!(1)));
    assert_eq!(import.run(&file, &["--errors", &file]).0, 2);
    let missing = import.path("missing.csv");
    assert_eq!(import.run(missing.to_str().unwrap(), &[]).0, 3);
    fs::write(import.path("latin1.csv"), b"firstName,mobile\nJ\xfcrgen,8799361139\n").unwrap();
    let (code, result, _) = import.run(import.path("latin1.csv").to_str().unwrap(), &[]);
    assert_eq!((code, &result["failed"]), (3, &json!(1)));
}
