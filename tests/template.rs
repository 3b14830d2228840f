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

/// The data of a metric in each period. An empty period has none.
type Series = Vec<Vec<f64>>;

/// An alarm of the template.
struct Alarm<'a>(Vec<&'a str>);

impl Alarm<'_> {
    fn value(&self, property: &str) -> Option<&str> {
        self.0.iter().find_map(|line| line.trim().strip_prefix(property)?.strip_prefix(": "))
    }

    fn number(&self, property: &str) -> Option<usize> {
        self.value(property).map(|value| value.parse().unwrap())
    }

    fn is_breaching(&self, data: &[f64]) -> bool {
        let value = match self.value("Statistic").or(self.value("ExtendedStatistic")).unwrap() {
            "Sum" => data.iter().sum(),
            "Maximum" => data.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            "p99" => {
                let mut sorted = data.to_vec();
                sorted.sort_by(f64::total_cmp);
                sorted[(sorted.len() * 99).div_ceil(100) - 1]
            }
            other => panic!("unknown statistic {other}"),
        };
        let threshold: f64 = self.value("Threshold").unwrap().parse().unwrap();
        match self.value("ComparisonOperator").unwrap() {
            "GreaterThanOrEqualToThreshold" => value >= threshold,
            "GreaterThanThreshold" => value > threshold,
            other => panic!("unknown operator {other}"),
        }
    }

    /// Whether the alarm is on after each period, as CloudWatch evaluates it.
    /// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html>
    fn states(&self, series: &Series) -> Vec<bool> {
        let evaluated = self.number("EvaluationPeriods").unwrap();
        let needed = self.number("DatapointsToAlarm").unwrap_or(evaluated);
        let breaching: Vec<Option<bool>> =
            series.iter().map(|data| (!data.is_empty()).then(|| self.is_breaching(data))).collect();
        let mut is_on = false;
        (0..series.len())
            .map(|now| {
                let window = &breaching[(now + 1).saturating_sub(evaluated)..=now];
                let count = |wanted| window.iter().filter(|period| **period == Some(wanted)).count();
                let keeps_state = match self.value("TreatMissingData").unwrap() {
                    "notBreaching" => false,
                    "ignore" => count(false) == 0,
                    other => panic!("unknown treatment {other}"),
                };
                is_on = count(true) >= needed || keeps_state && is_on;
                is_on
            })
            .collect()
    }
}

#[test]
fn alarms_go_on_and_off_when_they_should() {
    let template = read("template.yaml");
    let errors = |minutes: &[usize]| -> Series { minutes.iter().map(|count| vec![1.0; *count]).collect() };
    // Of the requests in these minutes, this many in a hundred are slow.
    let slow = |percent: usize, minutes: &[usize]| -> Series {
        let slow_at = |minute| if minutes.contains(&minute) { percent } else { 0 };
        (0..12)
            .map(|minute| [vec![1001.0; slow_at(minute)], vec![1000.0; 100 - slow_at(minute)]].concat())
            .collect()
    };
    let hours = |weeks: usize, used: &dyn Fn(usize) -> Vec<f64>| (0..weeks * 168).map(used).collect();
    let one_in = |now: usize, others: Vec<f64>| if now == 1 { [others, vec![85.0]].concat() } else { others };
    // Each case is a series, and the periods at whose end the alarm is on.
    let at_once: Vec<(Series, Vec<usize>)> =
        vec![(errors(&[0, 3, 0, 0]), vec![1]), (errors(&[0; 5]), vec![])];
    let cases: [(&str, Vec<(Series, Vec<usize>)>); 7] = [
        (
            "ServerErrorAlarm",
            vec![(errors(&[0, 9, 0, 0, 0, 0, 1]), vec![]), (errors(&[0, 1, 0, 0, 0, 1, 0, 0]), vec![5])],
        ),
        ("FunctionErrorAlarm", at_once.clone()),
        ("FunctionThrottleAlarm", at_once),
        // DynamoDB writes no zeros.
        ("TableReadThrottleAlarm", vec![(errors(&[0, 3, 0, 0]), vec![1, 2, 3])]),
        ("TableWriteThrottleAlarm", vec![(errors(&[0, 3, 0, 0]), vec![1, 2, 3])]),
        (
            "LatencyAlarm",
            vec![
                (slow(2, &[1, 3, 5]), vec![5]),
                (slow(1, &[1, 2, 3, 4, 5]), vec![]),
                (slow(100, &[1, 2, 8, 9]), vec![]),
            ],
        ),
        (
            "NumberRangeAlarm",
            vec![
                // One number at 85 % of an org's range. Other orgs take numbers at 10 %.
                (hours(2, &|now| one_in(now, vec![10.0])), (1..169).collect()),
                // Other orgs take numbers once a day.
                (hours(2, &|now| one_in(now, vec![10.0; usize::from(now % 24 == 0)])), (1..169).collect()),
                // Nobody takes another number.
                (hours(2, &|now| one_in(now, Vec::new())), (1..336).collect()),
                (hours(1, &|_| vec![79.9]), vec![]),
            ],
        ),
    ];
    let alarms = template.matches("Type: AWS::CloudWatch::Alarm").count();
    assert_eq!(alarms, cases.len(), "add the new alarm here");
    for (name, cases) in cases {
        let alarm = Alarm(block(&template, &format!("{name}:")));
        // CloudWatch evaluates at most a day, or a week if the period is at least an hour.
        let period = alarm.number("Period").unwrap();
        // CloudWatch uses no other treatment for these metrics.
        let is_dynamodbs = alarm.value("Namespace") == Some("AWS/DynamoDB");
        assert!(!is_dynamodbs || alarm.value("TreatMissingData") == Some("ignore"), "{name}");
        let longest = if period >= 3600 { 7 * 86_400 } else { 86_400 };
        assert!(period * alarm.number("EvaluationPeriods").unwrap() <= longest, "{name}");
        for (series, expected) in cases {
            let states = alarm.states(&series);
            let on: Vec<usize> = (0..states.len()).filter(|period| states[*period]).collect();
            assert_eq!(on, expected, "{name}");
        }
    }
    let range = block(&template, "NumberRangeAlarm:").join(" ");
    assert!(range.contains("Period: 3600"), "the cases count hours");
    assert!(range.contains("stats max(CardNumberRangeUsed) as percent by org"), "{range}");
}
