//! Compares the deployment template with the code that it deploys.
#![allow(clippy::unwrap_used, reason = "a failure must fail the test")]

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use common::template;
use loyalty_codes::{
    api::ROUTES,
    delivery::Limits,
    model::message::ChannelType,
    store::{OPERATION_TIMEOUT, Store, Stream},
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
    // Without the folder below `src/store`: what only `loyaltyctl` does is not for the functions'
    // roles.
    files.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
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
        "Destination: !GetAtt DeliveryDeadLetters.Arn",
    ] {
        assert!(delivery.contains(line), "{line}");
    }
    assert!(!delivery.contains("WEBHOOK_ALLOW_PRIVATE"), "private addresses are for tests");
    let number = |name: &str| -> u64 {
        let value = delivery.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
        value.unwrap().parse().unwrap()
    };
    // A record that always fails becomes a dead letter while the stream still has it.
    assert!((10..=100).contains(&number("MaximumRetryAttempts")));
    assert!(number("MaximumRecordAgeInSeconds") < 86_400);
    // Before a message is sent, the table is read, the budget is counted, and the channels are
    // claimed.
    let Limits { total, store_outcome, .. } = Limits::default();
    let (before, after) = (OPERATION_TIMEOUT * 5, total + store_outcome + OPERATION_TIMEOUT);
    assert!(Duration::from_secs(number("Timeout")) >= before + after);
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
        let value = match self.value("Statistic").or(self.value("ExtendedStatistic")).unwrap_or("None") {
            // One value that was computed.
            "None" => data[0],
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
        ("DeliveryThrottleAlarm", vec![(errors(&[0, 3, 0, 0]), vec![1])]),
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
        ("UnreadableMessageAlarm", vec![(errors(&[0, 1, 0]), vec![1])]),
        ("OverBudgetAlarm", vec![(errors(&[0, 1, 0]), vec![1])]),
    ];
    let alarms = template::TEMPLATE.matches("Type: AWS::CloudWatch::Alarm").count();
    let computed = template::TEMPLATE.matches("          Expression: ").count();
    assert_eq!(alarms, cases.len() + computed, "add the new alarm here");
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

/// Computes a metric from others, as CloudWatch's metric math does, with the functions that the
/// template uses. A missing operand makes the result missing.
/// <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/using-metric-math.html>
struct MetricMath<'a> {
    tokens: Vec<String>,
    at: usize,
    values: &'a BTreeMap<&'a str, Option<f64>>,
}

impl<'a> MetricMath<'a> {
    fn compute(expression: &str, values: &'a BTreeMap<&'a str, Option<f64>>) -> Option<f64> {
        let spaced = ["(", ")", ",", "*", "+"]
            .iter()
            .fold(expression.to_owned(), |text, sign| text.replace(sign, &format!(" {sign} ")));
        let tokens = spaced.split_whitespace().map(str::to_owned).collect();
        let mut math = Self { tokens, at: 0, values };
        let result = math.all();
        assert_eq!(math.at, math.tokens.len(), "{expression}");
        result
    }

    fn next(&mut self) -> String {
        self.at += 1;
        self.tokens[self.at - 1].clone()
    }

    fn next_is(&mut self, token: &str) -> bool {
        let is_it = self.tokens.get(self.at).is_some_and(|next| next == token);
        self.at += usize::from(is_it);
        is_it
    }

    /// Conditions with AND between them.
    fn all(&mut self) -> Option<f64> {
        let mut result = self.comparison();
        while self.next_is("AND") {
            let other = self.comparison();
            result = result.zip(other).map(|(a, b)| f64::from(a != 0.0 && b != 0.0));
        }
        result
    }

    fn comparison(&mut self) -> Option<f64> {
        let left = self.sum();
        let compare: fn(&f64, &f64) -> bool = match self.tokens.get(self.at).map(String::as_str) {
            Some("<") => f64::lt,
            Some(">") => f64::gt,
            Some("==") => f64::eq,
            _ => return left,
        };
        self.at += 1;
        left.zip(self.sum()).map(|(a, b)| f64::from(compare(&a, &b)))
    }

    fn sum(&mut self) -> Option<f64> {
        let mut result = self.product();
        while self.next_is("+") {
            result = result.zip(self.product()).map(|(a, b)| a + b);
        }
        result
    }

    fn product(&mut self) -> Option<f64> {
        let mut result = self.operand();
        while self.next_is("*") {
            result = result.zip(self.operand()).map(|(a, b)| a * b);
        }
        result
    }

    fn operand(&mut self) -> Option<f64> {
        let token = self.next();
        if !self.next_is("(") {
            return token.parse().ok().or_else(|| self.values[token.as_str()]);
        }
        let mut arguments = vec![self.all()];
        while self.next_is(",") {
            arguments.push(self.all());
        }
        assert!(self.next_is(")"), "{token}");
        match (token.as_str(), &arguments[..]) {
            ("FILL", [value, missing]) => value.or(*missing),
            ("IF", [condition, then, otherwise]) => {
                condition.and_then(|condition| if condition == 0.0 { *otherwise } else { *then })
            }
            other => panic!("unknown function {other:?}"),
        }
    }
}

/// The sums of metrics in each period, and the periods at whose end an alarm is on. A metric is
/// missing where it is `None`.
type ComputedCase<'a> = (&'a [(&'a str, &'a [Option<f64>])], &'a [usize]);

#[test]
fn alarms_on_several_metrics_go_on_and_off_when_they_should() {
    let (none, no_traffic) = ([None; 4], (&[] as &[usize]));
    let cases: [(&str, &[ComputedCase<'_>]); 2] = [
        // Fewer than a fifth of more than 200 in an hour.
        (
            "LowValidationAlarm",
            &[
                (
                    &[
                        ("MessagesSent", &[Some(200.0), Some(201.0), Some(201.0), Some(1000.0), None]),
                        ("OtpsValidated", &[None, None, Some(41.0), Some(199.0), Some(5.0)]),
                    ],
                    &[1, 3],
                ),
                (&[("MessagesSent", &none), ("OtpsValidated", &none)], no_traffic),
            ],
        ),
        // Twice within an hour: messages, none of which ended.
        (
            "NothingDeliveredAlarm",
            &[
                // The last message of the first period is sent in the second one.
                (
                    &[
                        ("OtpsToDeliver", &[Some(1.0), Some(3.0), None, Some(2.0)]),
                        ("MessagesSent", &[None, Some(4.0), None, None]),
                    ],
                    &[3],
                ),
                (
                    &[
                        ("OtpsToDeliver", &[Some(5.0), Some(5.0)]),
                        ("MessagesFailed", &[Some(5.0), Some(5.0)]),
                    ],
                    &[],
                ),
                (
                    &[
                        ("OtpsToDeliver", &[Some(5.0), Some(5.0)]),
                        ("MessagesExpired", &[Some(5.0), Some(5.0)]),
                    ],
                    &[],
                ),
                (
                    &[
                        ("OtpsToDeliver", &[Some(5.0), Some(5.0)]),
                        ("MessagesOverBudget", &[Some(1.0), Some(9.0)]),
                    ],
                    &[],
                ),
                (&[("OtpsToDeliver", &[Some(1.0), None, None, Some(1.0), None])], &[3, 4]),
                (&[("OtpsToDeliver", &none)], no_traffic),
            ],
        ),
    ];
    assert_eq!(cases.len(), template::TEMPLATE.matches("          Expression: ").count());
    for (name, cases) in cases {
        let alarm = Alarm(template::block(&format!("{name}:")));
        let expression = alarm.value("Expression").unwrap();
        let text = alarm.0.join("\n");
        let ids: BTreeMap<&str, &str> = text
            .split("- Id: ")
            .skip(2)
            .map(|metric| {
                assert!(metric.contains("Stat: Sum") && metric.contains("ReturnData: false"), "{metric}");
                let name = metric.lines().find_map(|line| line.trim().strip_prefix("MetricName: "));
                (metric.lines().next().unwrap(), name.unwrap())
            })
            .collect();
        for (metrics, expected) in cases {
            let data: BTreeMap<_, _> = metrics.iter().copied().collect();
            assert!(data.keys().all(|metric| ids.values().any(|of_alarm| of_alarm == metric)), "{name}");
            let periods = metrics[0].1.len();
            let series = (0..periods)
                .map(|period| {
                    let values =
                        ids.iter().map(|(id, metric)| (*id, data.get(metric).and_then(|sums| sums[period])));
                    MetricMath::compute(expression, &values.collect()).into_iter().collect()
                })
                .collect();
            let states = alarm.states(&series);
            let on: Vec<usize> = (0..periods).filter(|period| states[*period]).collect();
            assert_eq!(on, *expected, "{name}: {metrics:?}");
        }
    }
}
