//! Checks of what all orgs share: the connection, the operator's identity and clock, the table, the
//! permissions, and the delivery function.

use std::time::Duration;

use chrono::TimeDelta;
use loyalty_codes::{
    aws,
    aws_call::CallError,
    model::org::Org,
    store::{Store, TABLE_KEYS, TableFacts, TriedAction, error_chain, keys},
};
use tokio::time::Instant;

use super::{CREDENTIALS_REMEDY, Check};
use crate::Target;

/// AWS refuses signatures whose time differs more than this from its own.
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html>
const MAX_CLOCK_DIFFERENCE: TimeDelta = TimeDelta::minutes(5);
/// The times of answers are exact to about a second.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(3);

const LOCAL: &str = "this DynamoDB is a local one";

/// Checks the configuration of this command, and who it is for AWS. `None` if no store can be
/// reached with it.
pub async fn connection(target: &Target, checks: &mut Vec<Check>) -> Option<Store> {
    let store = match target.store().await {
        Ok(store) => store,
        Err(failure) => {
            let remedy =
                "Set AWS_REGION, or AWS_PROFILE to a profile that has a region, to that of the stack.";
            checks.push(Check::failed("configuration", failure.to_string(), remedy));
            return None;
        }
    };
    let region = store.region().unwrap_or_default();
    checks.push(Check::ok("region", format!("{region}; DynamoDB is {}", target.place())));
    checks.push(credentials(target).await);
    Some(store)
}

async fn credentials(target: &Target) -> Check {
    const NAME: &str = "credentials";
    if target.is_local() {
        return Check::not_checked(NAME, format!("{LOCAL}, which takes any"));
    }
    let config = match target.settings() {
        Ok(settings) => aws::of_operator(&settings, None).await.map_err(|error| error.to_string()),
        Err(failure) => Err(failure.to_string()),
    };
    match config {
        Err(error) => Check::failed(NAME, error, CREDENTIALS_REMEDY),
        Ok(config) => match aws::identify(&config).await {
            Ok(arn) => Check::ok(NAME, arn),
            Err(error) => Check::unanswered(NAME, "sts:GetCallerIdentity", &error),
        },
    }
}

/// Checks the table and what the operator may do with it. Returns whether the table can be read.
pub async fn table(target: &Target, store: &Store, checks: &mut Vec<Check>) -> bool {
    let (facts, ahead) = store.describe().await;
    checks.push(clock(ahead));
    let facts = match facts {
        Ok(facts) => Some(facts),
        Err(CallError::NotFound) => {
            checks.push(Check::failed(
                "table",
                format!("there is no table {} in {}", store.table(), target.place()),
                "Name the stack's own by TABLE_NAME (the output TableName), look into the right region (AWS_REGION), or \
                 make one with `loyaltyctl table create`.",
            ));
            return false;
        }
        Err(error) => {
            let check = Check::unanswered("table", "dynamodb:DescribeTable", &error);
            checks.push(check);
            // Without this permission, the table may be usable all the same.
            if !matches!(error, CallError::Denied(_)) {
                return false;
            }
            None
        }
    };
    let local = target.is_local();
    if let Some(facts) = &facts {
        checks.extend(definition(facts, store.table(), local));
    }
    checks.push(ttl(store).await);
    checks.push(point_in_time_recovery(store, local).await);
    let tried = store.try_actions().await;
    let readable = tried.iter().all(|tried| tried.result.is_ok() || !is_needed_to_read(tried.action));
    checks.extend(permissions(&tried, facts.as_ref().map_or("", |facts| facts.arn.as_str())));
    readable
}

fn is_needed_to_read(action: &str) -> bool {
    ["dynamodb:GetItem", "dynamodb:Query"].contains(&action)
}

fn clock(ahead: Option<TimeDelta>) -> Check {
    const NAME: &str = "clock";
    let remedy = "Set this machine's clock (NTP): AWS refuses signatures that are five minutes off.";
    let Some(ahead) = ahead else {
        return Check::not_checked(NAME, "no answer named the time");
    };
    let direction = if ahead > TimeDelta::zero() { "ahead of" } else { "behind" };
    let seconds = ahead.num_seconds().abs();
    let finding = format!("{seconds} s {direction} DynamoDB's");
    match ahead.abs() {
        difference if difference > MAX_CLOCK_DIFFERENCE => Check::failed(NAME, finding, remedy),
        difference if difference > CLOCK_TOLERANCE => Check::warning(
            NAME,
            format!("{finding}; what this machine writes, and judges by time, is off by that"),
            remedy,
        ),
        _ => Check::ok(NAME, "that of DynamoDB, to a second or two"),
    }
}

/// Checks what `DescribeTable` says.
fn definition(facts: &TableFacts, table: &str, local: bool) -> Vec<Check> {
    let keys = facts.keys.join(", ");
    vec![
        status(facts, table),
        if facts.keys == TABLE_KEYS {
            Check::ok("keys", keys)
        } else {
            Check::failed(
                "keys",
                format!("{keys} instead of {}", TABLE_KEYS.join(", ")),
                "This is another service's table, or was made by hand: name the right one, or make one with `loyaltyctl \
                 table create`.",
            )
        },
        stream(facts, local),
        billing(facts),
        match facts.deletion_protection {
            Some(true) => Check::ok("deletion protection", "on"),
            _ if local => Check::not_checked("deletion protection", LOCAL),
            _ => Check::warning(
                "deletion protection",
                "off",
                format!(
                    "Deploy with DeletionProtection=true, or: aws dynamodb update-table --table-name {table} \
                     --deletion-protection-enabled"
                ),
            ),
        },
    ]
}

fn status(facts: &TableFacts, table: &str) -> Check {
    const NAME: &str = "table";
    let TableFacts { status, arn, .. } = facts;
    let name = if arn.is_empty() { table } else { arn };
    if let Some(since) = &facts.key_inaccessible_since {
        return Check::failed(
            NAME,
            format!("{name} cannot use its KMS key since {since}"),
            "Enable the key again, and its grant for DynamoDB; after seven days DynamoDB archives the table.",
        );
    }
    match status.as_str() {
        "ACTIVE" | "UPDATING" => Check::ok(NAME, format!("{status}, {name}")),
        "CREATING" => {
            Check::failed(NAME, format!("{status}, {name}"), "Wait for a minute, and run it again.")
        }
        _ => Check::failed(
            NAME,
            format!("{status}, {name}"),
            "It cannot be used. If it was deleted, restore it from its backups, and go on with README.md, \"After a \
             restore\".",
        ),
    }
}

fn stream(facts: &TableFacts, local: bool) -> Check {
    const NAME: &str = "stream";
    match facts.stream.as_deref() {
        Some("NEW_IMAGE") => Check::ok(NAME, "NEW_IMAGE"),
        Some(view) => Check::warning(
            NAME,
            format!("{view}, and the template has NEW_IMAGE"),
            "Messages are delivered all the same; the next deployment of the template replaces the stream.",
        ),
        None if local => {
            Check::not_checked(NAME, format!("{LOCAL}, which `serve` delivers from without one"))
        }
        None => Check::failed(
            NAME,
            "there is none, so nothing starts the delivery function",
            "Deploy the template again (`make deploy`), which gives the table its stream.",
        ),
    }
}

fn billing(facts: &TableFacts) -> Check {
    const NAME: &str = "billing";
    let units = |(read, write): (i64, i64)| format!("{read} read and {write} write units a second");
    match (facts.provisioned, facts.on_demand_limit) {
        (Some(provisioned), _) => Check::warning(
            NAME,
            format!("provisioned with {}; beyond them, tills get 503", units(provisioned)),
            "The template has PAY_PER_REQUEST. Keep provisioned capacity only with auto scaling, and an eye on the alarms \
             for throttled requests.",
        ),
        (None, Some(limit)) => Check::warning(
            NAME,
            format!("on demand, but limited to {}; beyond them, tills get 503", units(limit)),
            "Remove the limit, or set it well above the busiest hour.",
        ),
        (None, None) => Check::ok(NAME, "on demand"),
    }
}

async fn ttl(store: &Store) -> Check {
    const NAME: &str = "TTL";
    match store.ttl_attribute().await {
        Ok(Some(attribute)) if attribute == keys::EXPIRES_AT => Check::ok(NAME, attribute),
        Ok(Some(other)) => Check::failed(
            NAME,
            format!("on `{other}` instead of `{}`, so OTPs and messages are never deleted", keys::EXPIRES_AT),
            format!(
                "Disable it (aws dynamodb update-time-to-live --table-name {} --time-to-live-specification \
                 Enabled=false,AttributeName={other}); after an hour, run `loyaltyctl table create`.",
                store.table()
            ),
        ),
        Ok(None) => Check::failed(
            NAME,
            "off, so OTPs and messages are never deleted",
            "Run `loyaltyctl table create`: it enables TTL of a table that is there.",
        ),
        Err(error) => Check::unanswered(NAME, "dynamodb:DescribeTimeToLive", &error),
    }
}

async fn point_in_time_recovery(store: &Store, local: bool) -> Check {
    const NAME: &str = "point-in-time recovery";
    match store.has_point_in_time_recovery().await {
        Ok(true) => Check::ok(NAME, "on"),
        _ if local => Check::not_checked(NAME, LOCAL),
        Ok(false) => Check::warning(
            NAME,
            "off: what is overwritten or deleted is lost",
            format!(
                "Deploy the template again, or: aws dynamodb update-continuous-backups --table-name {} \
                 --point-in-time-recovery-specification PointInTimeRecoveryEnabled=true",
                store.table()
            ),
        ),
        Err(error) => Check::unanswered(NAME, "dynamodb:DescribeContinuousBackups", &error),
    }
}

/// One check if every action is allowed, otherwise one for each that is not.
fn permissions(tried: &[TriedAction], arn: &str) -> Vec<Check> {
    const NAME: &str = "permissions";
    let names = |allowed: bool| {
        let tried = tried.iter().filter(move |tried| tried.result.is_ok() == allowed);
        tried.map(|tried| tried.action.trim_start_matches("dynamodb:")).collect::<Vec<_>>().join(", ")
    };
    let mut checks = Vec::new();
    if tried.iter().any(|tried| tried.result.is_ok()) {
        checks.push(Check::ok(NAME, format!("your identity may {}", names(true))));
    }
    for TriedAction { action, result } in tried {
        checks.push(match result {
            Ok(()) => continue,
            Err(CallError::Denied(text)) => Check::failed(
                NAME,
                format!("{action} is denied: {text}"),
                format!(
                    "Allow {action} on {} to your identity.",
                    if arn.is_empty() { "the table" } else { arn }
                ),
            ),
            Err(error) => Check::unanswered(NAME, action, error),
        });
    }
    checks
}

/// Checks that a new message starts the delivery function, which marks it. The message is for
/// nobody and has expired, so that nothing is sent.
pub async fn delivery(target: &Target, store: &Store, orgs: &[Org], wait: Duration, checks: &mut Vec<Check>) {
    const NAME: &str = "delivery function";
    let channel = |org: &Org| {
        let delivery = org.definition.delivery.as_ref()?;
        delivery.channels.keys().next().map(|channel| (org.id(), *channel))
    };
    checks.push(match orgs.iter().find_map(channel) {
        None => Check::not_checked(NAME, "no org sends messages"),
        Some(_) if target.is_local() => Check::not_checked(NAME, format!("{LOCAL}, which `serve` delivers from")),
        Some(_) if wait.is_zero() => Check::not_checked(NAME, "left out by --wait 0"),
        Some((org, channel)) => {
            let started = Instant::now();
            let found = async {
                let key = store.put_probe_message(org, channel).await?;
                let mut delivered = store.was_delivered(&key).await;
                while matches!(delivered, Ok(false)) && started.elapsed() < wait {
                    tokio::time::sleep(POLL_EVERY).await;
                    delivered = store.was_delivered(&key).await;
                }
                // If it cannot be removed, TTL removes it.
                let _ = store.remove_probe_message(&key).await;
                delivered
            };
            match found.await {
                Ok(true) => Check::ok(
                    NAME,
                    format!("took a message to nobody within {:.1} s", started.elapsed().as_secs_f32()),
                ),
                Ok(false) => Check::failed(
                    NAME,
                    format!("did not take a message to nobody within {} s: OTPs are not sent", wait.as_secs()),
                    "In Lambda's console, the function `<stack>-delivery` (output DeliveryFunctionName) must have the \
                     table's stream as an enabled trigger; its log group, the alarms DeliveryErrorAlarm and \
                     DeadLetterAlarm say why it fails. `make deploy` makes it anew. If an org got its first [delivery] \
                     within the last minute, run this again.",
                ),
                Err(error) => Check::failed(
                    NAME,
                    error_chain(&error),
                    "A message could not be written or read: see the permissions above.",
                ),
            }
        }
    });
}

/// How often the message to nobody is looked at.
const POLL_EVERY: Duration = Duration::from_millis(500);
