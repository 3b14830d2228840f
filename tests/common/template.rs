//! Reads the deployment template.

use std::collections::BTreeSet;

use serde_json::Value;

pub const TEMPLATE: &str = include_str!("../../template.yaml");

/// Whether a metric is the delivery function's. All others are the API's.
pub fn is_of_delivery((name, _): &Metric) -> bool {
    name.starts_with("Messages") || name.starts_with("Delivery")
}

/// A metric and its dimensions.
pub type Metric = (String, Vec<String>);

/// Returns the lines of a resource or a statement: from its first line up to the next line with the
/// same or less indentation.
pub fn block(first: &str) -> Vec<&'static str> {
    let lines: Vec<&str> = TEMPLATE.lines().collect();
    let start = lines.iter().position(|line| line.trim() == first).unwrap_or_else(|| panic!("{first}"));
    let indent = |line: &str| line.len() - line.trim_start().len();
    let depth = indent(lines[start]);
    let end = lines[start + 1..].iter().position(|line| !line.is_empty() && indent(line) <= depth);
    lines[start..end.map_or(lines.len(), |end| start + 1 + end)].to_vec()
}

/// The metrics in a log line, once for each set of dimensions that they have.
pub fn metrics_in(line: &Value) -> BTreeSet<Metric> {
    let mut found = BTreeSet::new();
    for directive in line["_aws"]["CloudWatchMetrics"].as_array().into_iter().flatten() {
        let sets: Vec<Vec<String>> = serde_json::from_value(directive["Dimensions"].clone()).unwrap();
        for metric in directive["Metrics"].as_array().unwrap() {
            let name = metric["Name"].as_str().unwrap();
            found.extend(sets.iter().map(|set| (name.to_owned(), set.clone())));
        }
    }
    found
}

/// The metrics in the stack's namespace that alarms and the dashboard use.
pub fn metrics() -> BTreeSet<Metric> {
    let mut asked = metrics_of_alarms();
    asked.extend(metrics_of_the_dashboard());
    asked
}

fn metrics_of_alarms() -> BTreeSet<Metric> {
    let mut asked = BTreeSet::new();
    for alarm in TEMPLATE.split("Type: AWS::CloudWatch::Alarm").skip(1) {
        let alarm = alarm.split("\n\n").next().unwrap();
        // An alarm on several metrics names the namespace of each.
        for metric in alarm.split("Namespace: !Ref AWS::StackName").skip(1) {
            let name = metric.lines().find_map(|line| line.trim().strip_prefix("MetricName: ")).unwrap();
            let dimension = metric.lines().find_map(|line| line.split("Name: channel, Value: ").nth(1));
            let dimensions = dimension.map(|_| "channel".to_owned()).into_iter().collect();
            assert!(dimension.is_some() || !metric.contains("Dimensions:"), "another dimension: {metric}");
            asked.insert((name.to_owned(), dimensions));
        }
    }
    asked
}

fn metrics_of_the_dashboard() -> BTreeSet<Metric> {
    let mut asked = BTreeSet::new();
    let (_, body) = TEMPLATE.split_once("DashboardBody: !Sub\n        - |\n").unwrap();
    let (body, _) = body.split_once("\n        - NothingDeliveredAlarmArn:").unwrap();
    // Only the ARNs of alarms with a condition are outside of strings.
    let body = body.replace("${NothingDeliveredAlarmArn}${LowValidationAlarmArn}", "");
    let dashboard: Value = serde_json::from_str(&body).unwrap();
    for widget in dashboard["widgets"].as_array().unwrap() {
        let mut before: Vec<String> = Vec::new();
        for metric in widget["properties"]["metrics"].as_array().into_iter().flatten() {
            if let Some(expression) = metric[0]["expression"].as_str() {
                asked.extend(metric_of_search(expression));
                continue;
            }
            // A dot repeats the value of the metric before.
            let spelled = metric.as_array().unwrap().iter().filter_map(Value::as_str).enumerate();
            let spelled: Vec<String> = spelled
                .map(|(i, part)| if part == "." { before[i].clone() } else { part.to_owned() })
                .collect();
            if spelled[0] == "${AWS::StackName}" {
                asked.insert((spelled[1].clone(), spelled[2..].iter().step_by(2).cloned().collect()));
            }
            before = spelled;
        }
    }
    asked
}

/// The metric in `SEARCH('{"namespace",dimension,…} MetricName="name"', …)`. Other expressions
/// compute with the metrics of their widget.
fn metric_of_search(expression: &str) -> Option<Metric> {
    let expression = expression.replace("${AWS::StackName}", "STACK");
    let (_, search) = expression.split_once("SEARCH(")?;
    let schema = search.split(['{', '}']).nth(1).unwrap();
    let (namespace, dimensions) = schema.split_once(',').unwrap();
    assert_eq!(
        namespace, "\"STACK\"",
        "the namespace must be quoted, because a stack's name can have hyphens"
    );
    let name = search.split("MetricName=\"").nth(1).unwrap().split('"').next().unwrap();
    Some((name.to_owned(), dimensions.split(',').map(str::to_owned).collect()))
}
