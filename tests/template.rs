//! Compares the deployment template with the code that it deploys.
#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]

mod common;

use std::{collections::BTreeSet, fs, path::Path};

use loyalty_codes::{
    api::ROUTES,
    store::{Store, Stream},
};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Returns the lines of a resource or a statement: from its first line up to the next line with the
/// same or less indentation.
fn block<'a>(text: &'a str, first: &str) -> Vec<&'a str> {
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.iter().position(|line| line.trim() == first).unwrap_or_else(|| panic!("{first}"));
    let indent = |line: &str| line.len() - line.trim_start().len();
    let depth = indent(lines[start]);
    let end = lines[start + 1..].iter().position(|line| !line.is_empty() && indent(line) <= depth);
    lines[start..end.map_or(lines.len(), |end| start + 1 + end)].to_vec()
}

/// The DynamoDB actions that the SDK calls in `src/store` need. Actions that create the table are
/// left out, because operators do that.
fn actions_used_by_the_store() -> BTreeSet<&'static str> {
    const CALLS: [(&str, &str); 13] = [
        (".get_item()", "GetItem"),
        (".batch_get_item()", "BatchGetItem"),
        (".query()", "Query"),
        (".scan()", "Scan"),
        (".put_item()", "PutItem"),
        (".update_item()", "UpdateItem"),
        (".delete_item()", "DeleteItem"),
        (".batch_write_item()", "BatchWriteItem"),
        // Parts of transactions.
        (" Put::builder()", "PutItem"),
        (" Update::builder()", "UpdateItem"),
        (" Delete::builder()", "DeleteItem"),
        (" ConditionCheck::builder()", "ConditionCheckItem"),
        (".transact_get_items()", "GetItem"),
    ];
    let mut actions = BTreeSet::new();
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store")).unwrap() {
        let path = entry.unwrap().path();
        // What only `loyaltyctl` does is not for the function's role.
        let is_operators = ["table.rs", "upgrade.rs"].iter().any(|file| path.ends_with(file));
        if path.extension().is_some_and(|e| e == "rs") && !is_operators {
            let source = fs::read_to_string(&path).unwrap();
            actions.extend(CALLS.iter().filter(|(call, _)| source.contains(call)).map(|(_, action)| *action));
        }
    }
    actions
}

#[test]
fn the_function_role_allows_exactly_the_actions_of_the_store() {
    let template = read("template.yaml");
    let statement = block(&template, "- Sid: Table");
    let allowed: BTreeSet<&str> =
        statement.iter().filter_map(|line| line.trim().strip_prefix("- dynamodb:")).collect();
    assert_eq!(allowed, actions_used_by_the_store());
    assert!(
        statement.iter().any(|line| line.trim() == "Resource: !GetAtt Table.Arn"),
        "the statement must be limited to the table"
    );
}

#[test]
fn the_template_lists_every_route() {
    let template = read("template.yaml");
    let function = block(&template, "Function:").join("\n");
    for route in ROUTES {
        let line = format!("Method: {}, Path: {},", route.method, route.path);
        assert!(function.contains(&line), "{line}");
    }
    assert!(function.contains(r#"Method: GET, Path: "/v2/otp/{parameters+}","#));
    assert_eq!(function.matches(", Method: ").count(), ROUTES.len() + 1, "the template has other routes");
}

#[tokio::test]
async fn the_table_is_the_one_that_loyaltyctl_creates() {
    let table = common::TestTable::new().await;
    let client = table.client();
    let name = format!("{}-as-deployed", table.name());
    // `loyaltyctl table create` makes the same call.
    Store::new(client.clone(), name.clone()).create_table(Stream::NewImages).await.unwrap();
    let created = client.describe_table().table_name(&name).send().await.unwrap().table.unwrap();
    let ttl = client.describe_time_to_live().table_name(&name).send().await.unwrap();
    let ttl = ttl.time_to_live_description.unwrap();
    client.delete_table().table_name(&name).send().await.unwrap();

    let mut expected: Vec<String> = Vec::new();
    for attribute in created.attribute_definitions() {
        let (name, kind) = (attribute.attribute_name(), attribute.attribute_type().as_str());
        expected.push(format!("- {{ AttributeName: {name}, AttributeType: {kind} }}"));
    }
    for key in created.key_schema() {
        let (name, kind) = (key.attribute_name(), key.key_type().as_str());
        expected.push(format!("- {{ AttributeName: {name}, KeyType: {kind} }}"));
    }
    let billing = created.billing_mode_summary().unwrap().billing_mode().unwrap();
    expected.push(format!("BillingMode: {}", billing.as_str()));
    let ttl = ttl.attribute_name().unwrap();
    expected.push(format!("TimeToLiveSpecification: {{ AttributeName: {ttl}, Enabled: true }}"));
    let stream = created.stream_specification().unwrap();
    let view = stream.stream_view_type().unwrap();
    expected.push(format!("StreamSpecification: {{ StreamViewType: {} }}", view.as_str()));

    let template = read("template.yaml");
    let defined = block(&template, "Table:");
    for line in &expected {
        assert!(defined.iter().any(|found| found.trim() == line), "{line}");
    }
    assert_eq!(defined.iter().filter(|line| line.contains("AttributeType")).count(), 2);
    assert!(created.global_secondary_indexes().is_empty());
}

#[test]
fn access_logs_hold_neither_path_nor_query() {
    let template = read("template.yaml");
    let api = block(&template, "Api:").join("\n");
    assert!(api.contains("$context.routeKey"));
    for secret in
        ["$context.path", "querystring", "$context.requestOverride", "authorizer", "$context.domain"]
    {
        assert!(!api.contains(secret), "{secret}");
    }
}

#[test]
fn the_table_outlives_its_stack() {
    let template = read("template.yaml");
    let table = block(&template, "Table:");
    for line in ["DeletionPolicy: Retain", "UpdateReplacePolicy: Retain"] {
        assert!(table.iter().any(|found| found.trim() == line), "{line}");
    }
}

#[test]
fn delivery_receives_only_message_items() {
    let template = read("template.yaml");
    let delivery = block(&template, "Delivery:").join("\n");
    assert!(
        delivery.contains(r#""eventName":["INSERT"]"#) && delivery.contains(r#"[{"prefix":"MESSAGE#"}]"#)
    );
}

#[test]
fn the_alarm_for_a_used_up_range_outlasts_other_orgs_numbers_and_idle_periods() {
    let template = read("template.yaml");
    let alarm = block(&template, "NumberRangeAlarm:");
    let value = |name: &str| {
        let found = alarm.iter().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
        found.unwrap_or_else(|| panic!("{name}")).to_owned()
    };
    let number = |name: &str| value(name).parse::<usize>().unwrap();
    // CloudWatch evaluates at most a day, or a week if the period is at least an hour.
    assert!(number("Period") >= 3600 && number("Period") * number("EvaluationPeriods") <= 7 * 86_400);
    assert_eq!((value("Statistic"), value("TreatMissingData")), ("Maximum".to_owned(), "ignore".to_owned()));

    // One org takes one number at 85 % of its range. Another org takes numbers at 10 % in all other
    // periods.
    let used = |period: usize| if period == 0 { 85 } else { 10 };
    let in_alarm = |now: usize| {
        let evaluated = now.saturating_sub(number("EvaluationPeriods") - 1)..=now;
        evaluated.filter(|period| used(*period) >= number("Threshold")).count() >= number("DatapointsToAlarm")
    };
    let days = |days: usize| days * 86_400 / number("Period");
    assert!((0..days(6)).all(in_alarm), "the alarm must hold for days");
    assert!(!in_alarm(days(8)), "the alarm must end after the range is enlarged");
    let description = alarm.join(" ");
    assert!(description.contains("stats max(CardNumberRangeUsed) as percent by org"), "{description}");
}
