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
    let other = import.path("other.csv");
    let (_, result, _) = import.run(&file, &["--errors", other.to_str().unwrap()]);
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
    let rows = [
        // A known customer of another account, also with another external ID than the generated
        // one.
        "WECHAT,WECHAT-API1,,,8799361139,,", "WECHAT,WECHAT-API2,,,8799361139,,X2", "INSTORE,,,,8799361139,,",
        // A new person in several accounts, who has a card number after the first row.
        "INSTORE,,,,9010000022,,", "WECHAT,WECHAT-API1,,,9010000022,,",
        "WECHAT,WECHAT-API2,,,9010000022,new@example.com,X3",
        "WECHAT,WECHAT-API2,,,9010000022,new@example.com,", "MARTJACK,SHOP,,,,new@example.com,",
        "INSTORE,,,,9010000022,,",
        // One external ID of two persons, and one person with the external IDs of two.
        "INSTORE,,,,9010000033,,X1", "INSTORE,,,,9010000044,,X1", "WECHAT,WECHAT-API1,,,9010000033,,X1",
        // Where no number is generated, the external ID may come later.
        "WECHAT,WECHAT-API2,,,9010000055,,", "INSTORE,,,,9010000055,,X5",
        // Two customers become no one.
        "WECHAT,WECHAT-API2,,,9010000033,,", "MARTJACK,SHOP,,,9010000033,new@example.com,", "X,,,,9,,",
    ];
    let file = import.file("customers.csv", &format!("{HEADING}{}\n", rows.join("\n")));
    let path = import.path("rehearsed.csv");
    let (code, rehearsed, message) = import.run(&file, &["--dry-run", "--errors", path.to_str().unwrap()]);
    let rehearsed_errors = fs::read_to_string(&path).unwrap();
    assert_eq!((code, counts(&rehearsed)), (3, [17, 3, 7, 2, 5]), "{message}");
    assert_eq!(import.owner("INSTORE", "mobile", "9010000022").await, None);
    assert_eq!(import.owner("WECHAT/WECHAT-API1", "mobile", "8799361139").await, None);
    let (_, result, message) = import.run(&file, &[]);
    assert_eq!(counts(&result), counts(&rehearsed), "{message}");
    let sorted = |text: &str| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        // A rehearsal does not know the ids of customers whom it would register.
        for line in &mut lines {
            line.truncate(line.find(" with id ").unwrap_or(line.len()));
        }
        lines.sort_unstable();
        lines
    };
    assert!(rehearsed_errors.contains("with id of an earlier row"), "{rehearsed_errors}");
    let errors = fs::read_to_string(import.path("customers.errors.csv")).unwrap();
    assert_eq!(sorted(&errors), sorted(&rehearsed_errors));
    // Everything again: a rehearsal of what is there.
    let (_, result, message) = import.run(&file, &["--dry-run"]);
    assert_eq!(counts(&result), [17, 0, 0, 12, 5], "{message}");
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

/// An org without a plan of card numbers, or with this one.
fn org_with_plan(plan: &str) -> String {
    let (before, _plan) = common::DEMO_ORG.split_once("CONF_CARD_NUMBER_GENERATION_ENABLED").unwrap();
    format!("{before}{plan}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_plan_that_could_give_imported_numbers_again_is_refused() {
    let import = Import::new().await;
    let other = org_with_plan("").replace("966", "967");
    import.operator.json(&["org", "apply", &import.file("org.toml", &other)]);
    let file =
        import.file("cards.csv", "externalId,cardnumber\n1000000500,\n,1000000700\nX-1,\n9999999999,\n");
    let arguments = ["--json", "customer", "import", &file, "--org", "967"];
    assert!(import.operator.run(&arguments).status.success());

    let plan = |more: &str| {
        let plan =
            format!("CONF_CARD_NUMBER_GENERATION_ENABLED = true\nCONF_CARD_NUMBER_LENGTH = 10\n{more}");
        import.file("org.toml", &org_with_plan(&plan).replace("966", "967"))
    };
    let prefix = "CONF_CARD_NUMBER_PREFIX = \"1\"";
    for (more, remedy) in [
        ("CONF_CARD_NUMBER_OFFSET = 1000000701", "1 of the customers' card numbers"),
        ("CONF_CARD_NUMBER_OFFSET = 1000000701", "change CONF_CARD_NUMBER_PREFIX or CONF_CARD_NUMBER_LENGTH"),
        (prefix, "2 of the customers' card numbers"),
        (prefix, "set CONF_CARD_NUMBER_OFFSET in the org's file to 701 or higher"),
        ("CONF_CARD_CHECKSUM_DIGIT_ALGO = \"RANDOM\"", "3 of the customers' card numbers"),
    ] {
        for command in ["apply", "diff"] {
            let (code, message) = import.operator.refusal(&["org", command, &plan(more)]);
            assert!(code == 3 && message.contains(remedy), "{command}: {message}");
        }
    }
    // A higher offset of the same plan gives nothing that the plan would not have given.
    for offset in [701, 800] {
        let more = format!("{prefix}\nCONF_CARD_NUMBER_OFFSET = {offset}");
        import.operator.json(&["org", "apply", &plan(&more)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_whose_customer_is_corrupt_fails_alone() {
    let import = Import::new().await;
    let known = import.file("known.csv", "mobile\n8799361139\n");
    assert_eq!(import.run(&known, &[]).0, 0);
    let user = import.owner("INSTORE", "mobile", "8799361139").await.unwrap();
    let table = &import.operator.table;
    let update = table.client().update_item().table_name(table.name());
    let key = loyalty_codes::store::keys::profile(
        loyalty_codes::model::org::OrgId(966),
        loyalty_codes::model::customer::UserId(user),
    );
    let broken = aws_sdk_dynamodb::types::AttributeValue::S("broken".to_owned());
    let update = update.set_key(Some(key.attributes())).update_expression("SET identifiers = :broken");
    update.expression_attribute_values(":broken", broken).send().await.unwrap();
    let rows = "WECHAT,WECHAT-API1,,,8799361139,,\nINSTORE,,,,9010000022,,\n";
    let file = import.file("customers.csv", &format!("{HEADING}{rows}"));
    let path = import.path("rehearsed.csv");
    let rehearsed = path.to_str().unwrap();
    for (options, errors) in
        [(&["--dry-run", "--errors", rehearsed][..], "rehearsed.csv"), (&[][..], "customers.errors.csv")]
    {
        let (code, result, message) = import.run(&file, options);
        assert_eq!((code, counts(&result)), (3, [2, 1, 0, 0, 1]), "{message}");
        let errors = fs::read_to_string(import.path(errors)).unwrap();
        assert!(errors.contains("WECHAT-API1") && errors.contains("an item is corrupt"), "{errors}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_file_replaces_no_file() {
    let import = Import::new().await;
    let text = "mobile\n9010000022\n12\n";
    let file = import.file("customers.csv", text);
    let folder = import.folder.path();
    std::os::unix::fs::symlink(&file, folder.join("link.csv")).unwrap();
    std::os::unix::fs::symlink(folder.join("nothing"), folder.join("dangling.csv")).unwrap();
    fs::hard_link(&file, folder.join("hard.csv")).unwrap();
    fs::create_dir(folder.join("folder")).unwrap();
    let there = [
        "customers.csv", "./customers.csv", "folder/../customers.csv", "link.csv", "dangling.csv",
        "hard.csv", "folder",
    ];
    for errors in there.map(|name| folder.join(name)) {
        let (code, _, message) = import.run(&file, &["--errors", errors.to_str().unwrap()]);
        assert!(code == 3 && message.contains("is there already"), "{errors:?}: {message}");
    }
    let (code, _, message) = import.run(&file, &["--errors", "/nowhere/errors.csv"]);
    assert!(code == 1 && message.contains("/nowhere/errors.csv"), "{message}");
    assert_eq!(import.owner("INSTORE", "mobile", "9010000022").await, None, "nothing was imported");

    let errors = import.path("customers.errors.csv");
    let (code, result, message) = import.run(&file, &["--dry-run"]);
    assert_eq!((code, &result["errors"], errors.exists()), (3, &Value::Null, false), "{result}");
    assert!(message.contains("line 3: 8056 Invalid mobile number"), "{message}");
    fs::write(&errors, "mobile,error\n9010000033,corrected\n").unwrap();
    assert_eq!(import.run(&file, &["--dry-run"]).0, 3);
    let (code, _, message) = import.run(&file, &[]);
    assert!(code == 3 && message.contains("is there already"), "{message}");
    assert!(fs::read_to_string(&errors).unwrap().contains("corrected"));
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    let names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_str().unwrap().starts_with(".tmp")), "{names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_with_an_open_quote_or_a_row_that_is_cut_off_is_refused_as_a_whole() {
    let import = Import::new().await;
    for (rows, problem) in [
        // The quote swallows the next row, up to its own quote.
        (
            "9010000022,\"Tom,a@example.com\n9010000033,\"Ann\",b@example.com\n",
            "line 2: a field has a line break",
        ),
        (
            "9010000022,Tom,a@example.com\n9010000033,\"Ann,b@example.com\n9010000044,Bob,c@example.com\n",
            "line 3: a field",
        ),
        ("9010000022,Tom,a@example.com\n9010000033,Ann,\"b@example.com", "line 3: a field has a line break"),
        ("9010000022,\"Tom\rSawyer\",a@example.com\n", "line 2: a field has a line break"),
        ("9010000022,Tom,a@example.com\n9010000033,Ann\n", "line 3: the row has 2 fields, and the heading 3"),
        ("9010000022,Tom,a@example.com,x\n", "line 2: the row has 4 fields, and the heading 3"),
    ] {
        let file = import.file("customers.csv", &format!("mobile,firstName,email\n{rows}"));
        for options in [&[][..], &["--dry-run"]] {
            let (code, _, message) = import.run(&file, options);
            assert!(code == 3 && message.contains(problem), "{rows}: {message}");
            assert!(message.contains("nothing was imported"), "{message}");
        }
    }
    assert_eq!(import.owner("INSTORE", "mobile", "9010000022").await, None);
    let file =
        import.file("customers.csv", "mobile,firstName\r\n9010000022,\"Tom, jr.\"\r\n\r\n9010000033,Ann");
    let (code, result, message) = import.run(&file, &[]);
    assert_eq!((code, counts(&result)), (0, [2, 2, 0, 0, 0]), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_in_another_encoding_is_kept_as_it_is() {
    let import = Import::new().await;
    let bytes = b"mobile,firstName\n9010000022,J\xf6rg\n9010000033,J\xef\xbf\xbdrg\n";
    fs::write(import.path("customers.csv"), bytes).unwrap();
    let (code, result, message) = import.run(import.path("customers.csv").to_str().unwrap(), &[]);
    assert_eq!((code, counts(&result)), (3, [2, 0, 0, 0, 2]), "{message}");
    let errors = fs::read(import.path("customers.errors.csv")).unwrap();
    assert!(errors.windows(10).any(|part| part == b"22,J\xf6rg,th"), "{errors:?}");
    assert!(String::from_utf8_lossy(&errors).contains("firstName has a U+FFFD"), "{errors:?}");
    // Imported without a correction, it is refused again.
    let (code, result, message) = import.run(import.path("customers.errors.csv").to_str().unwrap(), &[]);
    assert_eq!((code, counts(&result)), (3, [2, 0, 0, 0, 2]), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_heading_names_each_field_once_and_may_name_an_identifier_twice() {
    let import = Import::new().await;
    for field in ["firstName", "source", "accountId", "error"] {
        let file = import.file("customers.csv", &format!("mobile,{field}, {field}\n9010000022,,\n"));
        let (code, _, message) = import.run(&file, &[]);
        assert!(code == 3 && message.contains(&format!("the column {field} is there twice")), "{message}");
    }
    let file = import.file("customers.csv", "mobile,mobile,source\n9010000022,9010000033, INSTORE\n");
    let (code, _, message) = import.run(&file, &[]);
    assert_eq!(code, 0, "{message}");
    let owner = import.owner("INSTORE", "mobile", "9010000022").await;
    assert!(owner.is_some());
    assert_eq!(import.owner("INSTORE", "mobile", "9010000033").await, owner);
}

#[tokio::test(flavor = "multi_thread")]
async fn customers_are_not_imported_before_they_join_across_sources() {
    let import = Import::new().await;
    let table = &import.operator.table;
    let update = table.client().update_item().table_name(table.name());
    let key = loyalty_codes::store::keys::org(loyalty_codes::model::org::OrgId(966));
    let update = update.set_key(Some(key.attributes())).update_expression("REMOVE customers_join");
    update.send().await.unwrap();
    let file = import.file("customers.csv", "mobile\n9010000022\n");
    for options in [&[][..], &["--dry-run"]] {
        let (code, _, message) = import.run(&file, options);
        assert!(code == 3 && message.contains("`loyaltyctl table upgrade --org 966` first"), "{message}");
    }
    assert_eq!(import.owner("INSTORE", "mobile", "9010000022").await, None);
    import.operator.json(&["table", "upgrade", "--org", "966"]);
    assert_eq!(import.run(&file, &[]).0, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipe_is_refused_because_the_file_is_read_twice() {
    let import = Import::new().await;
    let pipe = import.path("pipe.csv");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [pipe.to_str().unwrap(), import.folder.path().to_str().unwrap()] {
        let (code, _, message) = import.run(path, &[]);
        assert!(code == 3 && message.contains("the file is read twice; it cannot be a pipe"), "{message}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_import_that_was_stopped_is_run_again_and_skips_who_is_there() {
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
    let missing = import.path("missing.csv");
    assert_eq!(import.run(missing.to_str().unwrap(), &[]).0, 3);
    fs::write(import.path("latin1.csv"), b"firstName,mobile\nJ\xfcrgen,8799361139\n").unwrap();
    let (code, result, _) = import.run(import.path("latin1.csv").to_str().unwrap(), &[]);
    assert_eq!((code, &result["failed"]), (3, &json!(1)));
}
