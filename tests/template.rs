//! Compares the deployment template with the code that it deploys.
#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]

mod common;

use std::{collections::BTreeSet, fs, path::Path};

use common::template;
use loyalty_codes::{
    api::ROUTES,
    model::message::ChannelType,
    store::{Store, Stream},
};

/// The SDK calls that need permissions: a piece of code, and the action that it needs. Parts of
/// transactions are builders. Actions that create the table are left out, because operators do
/// that.
const CALLS: [(&str, &str); 16] = [
    (".get_item()", "dynamodb:GetItem"),
    (".batch_get_item()", "dynamodb:BatchGetItem"),
    (".query()", "dynamodb:Query"),
    (".scan()", "dynamodb:Scan"),
    (".put_item()", "dynamodb:PutItem"),
    (".update_item()", "dynamodb:UpdateItem"),
    (".delete_item()", "dynamodb:DeleteItem"),
    (".batch_write_item()", "dynamodb:BatchWriteItem"),
    (" Put::builder()", "dynamodb:PutItem"),
    (" Update::builder()", "dynamodb:UpdateItem"),
    (" Delete::builder()", "dynamodb:DeleteItem"),
    (" ConditionCheck::builder()", "dynamodb:ConditionCheckItem"),
    (".transact_get_items()", "dynamodb:GetItem"),
    (".send_text_message()", "sms-voice:SendTextMessage"),
    (".send_voice_message()", "sms-voice:SendVoiceMessage"),
    (".send_email()", "ses:SendEmail"),
];

fn actions_in(source: &str) -> BTreeSet<String> {
    CALLS.iter().filter(|(call, _)| source.contains(call)).map(|(_, action)| (*action).to_owned()).collect()
}

/// The texts of the Rust files of a folder, or of one file.
fn sources(path: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if path.is_file() {
        return vec![fs::read_to_string(path).unwrap()];
    }
    let mut files: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    // What only `loyaltyctl` does is not for the functions' roles.
    files.retain(|path| {
        let is_operators = ["diagnosis.rs", "held_numbers.rs", "readings.rs", "table.rs", "upgrade.rs"]
            .iter()
            .any(|file| path.ends_with(file));
        path.extension().is_some_and(|e| e == "rs") && !is_operators
    });
    files.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// The functions of some sources: their names and bodies. Several can have one name.
fn functions(sources: &[String]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for source in sources {
        let (source, _) = source.split_once("#[cfg(test)]\nmod tests").unwrap_or((source, ""));
        let lines: Vec<&str> = source.lines().collect();
        for (i, line) in lines.iter().enumerate() {
            let Some((before, after)) = line.split_once("fn ") else { continue };
            let is_definition = before.split_whitespace().all(|word| {
                word.starts_with("pub")
                    || word.starts_with("in")
                    || ["async", "const", "super)"].contains(&word)
            });
            if !is_definition {
                continue;
            }
            let name: String = after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            // rustfmt closes a function at the indentation where it begins.
            let close = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let end = lines[i..].iter().position(|line| *line == close).unwrap_or(0);
            found.push((name, lines[i..=i + end].join("\n")));
        }
    }
    found
}

/// The names that some code calls, or passes on by their paths.
fn called(code: &str) -> BTreeSet<&str> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut names = BTreeSet::new();
    for name in code.split(|c| !is_name(c)).filter(|name| !name.is_empty()) {
        // The part of the code is a slice of it, so its position is known.
        let start = name.as_ptr() as usize - code.as_ptr() as usize;
        if code[..start].ends_with("::")
            || ["(", "::<"].iter().any(|after| code[start + name.len()..].starts_with(after))
        {
            names.insert(name);
        }
    }
    names
}

/// The functions of the store that some code reaches, by their names.
fn reached<'a>(code: &[String], store: &'a [(String, String)]) -> Vec<&'a str> {
    let mut reached: Vec<&str> = Vec::new();
    let mut names: Vec<&str> = code.iter().flat_map(|source| called(source)).collect();
    let mut seen = BTreeSet::new();
    while let Some(name) = names.pop() {
        // `new` and `from` construct values and call nothing.
        if !seen.insert(name) || ["new", "from"].contains(&name) {
            continue;
        }
        for (_, body) in store.iter().filter(|(function, _)| function == name) {
            reached.push(body);
            names.extend(called(body));
        }
    }
    reached
}

/// The actions on the table and of providers that the statements of a role allow.
fn allowed(statements: &[&str]) -> BTreeSet<String> {
    let mut actions = BTreeSet::new();
    for statement in statements {
        for line in template::block(&format!("- Sid: {statement}")) {
            let line = line.trim();
            let action =
                line.strip_prefix("Action: ").or_else(|| line.strip_prefix("- ")).unwrap_or_default();
            if ["dynamodb:", "sms-voice:", "ses:"].iter().any(|service| action.starts_with(service)) {
                actions.insert(action.to_owned());
            }
        }
    }
    actions
}

#[test]
fn the_role_of_the_api_allows_exactly_the_actions_of_the_store() {
    assert_eq!(allowed(&["Table"]), actions_in(&sources("src/store").join("\n")));
    let statement = template::block("- Sid: Table");
    assert!(
        statement.iter().any(|line| line.trim() == "Resource: !GetAtt Table.Arn"),
        "the statement must be limited to the table"
    );
}

#[test]
fn the_role_of_delivery_allows_exactly_the_actions_that_delivery_reaches() {
    let delivery = [sources("src/delivery"), sources("src/bin/deliver.rs")].concat();
    let store = functions(&sources("src/store"));
    let mut used = actions_in(&delivery.join("\n"));
    used.extend(actions_in(&reached(&delivery, &store).join("\n")));
    assert_eq!(allowed(&["Messages", "TextMessages", "Calls", "Mails"]), used);
}

#[test]
fn the_template_lists_every_route() {
    let function = template::block("Function:").join("\n");
    for route in ROUTES {
        // In a flow mapping of YAML, braces need quotes.
        let quote = if route.path.contains('{') { "\"" } else { "" };
        let line = format!("Method: {}, Path: {quote}{}{quote},", route.method, route.path);
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

    let defined = template::block("Table:");
    for line in &expected {
        assert!(defined.iter().any(|found| found.trim() == line), "{line}");
    }
    assert_eq!(defined.iter().filter(|line| line.contains("AttributeType")).count(), 2);
    assert!(created.global_secondary_indexes().is_empty());
}

#[test]
fn access_logs_hold_neither_path_nor_query() {
    let api = template::block("Api:").join("\n");
    assert!(api.contains("$context.routeKey"));
    for secret in
        ["$context.path", "querystring", "$context.requestOverride", "authorizer", "$context.domain"]
    {
        assert!(!api.contains(secret), "{secret}");
    }
}

#[test]
fn the_table_outlives_its_stack() {
    let table = template::block("Table:");
    for line in ["DeletionPolicy: Retain", "UpdateReplacePolicy: Retain"] {
        assert!(table.iter().any(|found| found.trim() == line), "{line}");
    }
}

#[test]
fn delivery_starts_for_new_messages_only_and_holds_up_no_others() {
    let delivery = template::block("DeliveryFunction:").join("\n");
    for line in [
        r#"- Pattern: '{"eventName":["INSERT"],"dynamodb":{"Keys":{"SK":{"S":[{"prefix":"MESSAGE#"}]}}}}'"#,
        "StartingPosition: TRIM_HORIZON",
        "BisectBatchOnFunctionError: true",
        "FunctionResponseTypes: [ReportBatchItemFailures]",
        "MaximumRecordAgeInSeconds: 86400",
        "Destination: !GetAtt DeliveryDeadLetters.Arn",
    ] {
        assert!(delivery.contains(line), "{line}");
    }
    assert!(!delivery.contains("WEBHOOK_ALLOW_PRIVATE"), "private addresses are for tests");
}

#[test]
fn every_channel_has_an_alarm_for_its_failures() {
    for channel in ChannelType::ALL {
        let (first, rest) = channel.as_str().split_at(1);
        let alarm = template::block(&format!("Failed{first}{}Alarm:", rest.to_lowercase())).join("\n");
        let dimension = format!("Dimensions: [{{ Name: channel, Value: {channel} }}]");
        assert!(alarm.contains("MetricName: MessagesFailed") && alarm.contains(&dimension), "{alarm}");
    }
}

#[test]
fn an_alarm_compares_the_messages_and_validations_of_an_hour() {
    let alarm = template::block("LowValidationAlarm:").join("\n");
    // Fewer than a fifth of more than 200.
    assert!(alarm.contains("IF(sent > 200 AND FILL(validated, 0) * 5 < sent, 1, 0)"), "{alarm}");
    for (id, metric) in [("sent", "MessagesSent"), ("validated", "OtpsValidated")] {
        let (_, part) = alarm.split_once(&format!("- Id: {id}\n")).unwrap();
        let part = part.split("- Id: ").next().unwrap();
        assert!(part.contains(&format!("MetricName: {metric}\n")) && part.contains("Stat: Sum"), "{part}");
        assert!(part.contains("Period: 3600") && part.contains("ReturnData: false"), "{part}");
    }
}

/// The data of a metric in each period. An empty period has none.
type Series = Vec<Vec<f64>>;

/// A series, and the periods at whose end the alarm is on.
type Case = (Series, Vec<usize>);

/// The default of a parameter.
fn default_of(parameter: &str) -> &'static str {
    let lines = template::block(&format!("{parameter}:"));
    lines.iter().find_map(|line| line.trim().strip_prefix("Default: ")).unwrap()
}

/// An alarm of the template.
struct Alarm(Vec<&'static str>);

impl Alarm {
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
        let threshold = self.value("Threshold").unwrap();
        let threshold = match threshold.strip_prefix("!Ref ") {
            Some(parameter) => default_of(parameter).parse::<f64>(),
            None => threshold.parse(),
        };
        let threshold = threshold.unwrap();
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
    let at_once: Vec<Case> = vec![(errors(&[0, 3, 0, 0]), vec![1]), (errors(&[0; 5]), vec![])];
    let failures: Vec<Case> = vec![(errors(&[4, 5, 0, 4, 4]), vec![1])];
    let levels = |levels: &[f64]| -> Series { levels.iter().map(|level| vec![*level]).collect() };
    let cases = [
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
        ("DeliveryErrorAlarm", vec![(errors(&[0, 3, 0, 0]), vec![1])]),
        (
            "DeliveryDelayAlarm",
            vec![
                (levels(&[0.0, 60_001.0, 0.0, 60_001.0, 60_001.0, 0.0, 0.0]), vec![4, 5]),
                (levels(&[60_000.0; 9]), vec![]),
            ],
        ),
        ("DeadLetterAlarm", vec![(levels(&[0.0, 1.0, 1.0, 0.0]), vec![1, 2])]),
        ("FailedSmsAlarm", failures.clone()),
        ("FailedPhoneAlarm", failures.clone()),
        ("FailedEmailAlarm", failures.clone()),
        ("FailedWhatsappAlarm", failures.clone()),
        ("FailedWechatAlarm", failures.clone()),
        ("FailedZaloAlarm", failures),
        ("OverBudgetAlarm", vec![(errors(&[0, 1, 0]), vec![1])]),
    ];
    // LowValidationAlarm computes with two metrics, and has a test of its own.
    let alarms = template::TEMPLATE.matches("Type: AWS::CloudWatch::Alarm").count();
    assert_eq!(alarms, cases.len() + 1, "add the new alarm here");
    for (name, cases) in cases {
        let alarm = Alarm(template::block(&format!("{name}:")));
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
    let range = template::block("NumberRangeAlarm:").join(" ");
    assert!(range.contains("Period: 3600"), "the cases count hours");
    assert!(range.contains("stats max(CardNumberRangeUsed) as percent by org"), "{range}");
}
