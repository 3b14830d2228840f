//! Recording what operators do, and `loyaltyctl audit`.

use std::os::unix::fs::MetadataExt;

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::Subcommand;
use loyalty_codes::{
    model::org::OrgId,
    store::{Act, ActOutcome, AuditEntry, Store},
};
use serde_json::{Value, json};

use crate::{failure::Failure, org, output::Output, support};

#[derive(Subcommand)]
pub enum Command {
    /// List what operators did for an org, newest first
    List {
        /// The org
        #[arg(long, value_name = "ID")]
        org: u32,
        /// How many days to go back
        #[arg(long, value_name = "N", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=3660))]
        days: u32,
    },
}

pub async fn run(command: Command, store: &Store, output: &Output) -> Result<(), Failure> {
    let Command::List { org, days } = command;
    let org = OrgId(org);
    let now = Utc::now();
    let entries = store.audit_entries(org, now - TimeDelta::days(days.into()), now);
    let entries = output.with_spinner("reading", entries).await?;
    if entries.is_empty() {
        // An act on an org that was never made is listed, too.
        org::find(store, output, org).await?;
        return output.print(&json!([]), &format!("nothing was done in the last {days} days"));
    }
    // JSON is for programs and has UTC.
    let found = store.org(org).await?;
    let time = |at: DateTime<Utc>| match &found {
        Some(org) => support::time(org, at),
        None => at.to_rfc3339_opts(SecondsFormat::Secs, true),
    };
    let rows: Vec<_> = entries
        .iter()
        .map(|entry| {
            vec![
                time(entry.at),
                entry.who.clone(),
                entry.what.clone(),
                entry.outcome.to_string(),
                detail_in_words(&entry.detail),
                entry.id.clone(),
            ]
        })
        .collect();
    let json: Vec<_> = entries.iter().map(as_json).collect();
    output.print(&json!(json), &output.table(&["time", "who", "what", "outcome", "detail", "id"], &rows))
}

/// The detail of an act as `customer: 313302314, scope: POINTS`. Of long lists, the beginning.
pub fn detail_in_words(detail: &Value) -> String {
    const SHOWN: usize = 3;
    match detail {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(values) => {
            let shown = values.iter().take(SHOWN).map(detail_in_words).collect::<Vec<_>>().join(" ");
            match values.len() {
                0 => "none".to_owned(),
                count if count > SHOWN => format!("{shown} and {} more", count - SHOWN),
                _ => shown,
            }
        }
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields =
                fields.map(|(name, value)| format!("{}: {}", name.replace('_', " "), detail_in_words(value)));
            fields.collect::<Vec<_>>().join(", ")
        }
        Value::Bool(_) | Value::Number(_) => detail.to_string(),
    }
}

fn as_json(entry: &AuditEntry) -> Value {
    json!({
        "id": entry.id,
        "at": entry.at.to_rfc3339_opts(SecondsFormat::Millis, true),
        "who": entry.who,
        "what": entry.what,
        "outcome": entry.outcome,
        "detail": entry.detail,
    })
}

/// Does `act` between two writes of its audit entry. It is not done if it cannot be recorded. It
/// may change the entry's detail.
pub async fn record<T>(
    store: &Store,
    org: OrgId,
    who: &str,
    what: &'static str,
    detail: Value,
    act: impl AsyncFnOnce(&mut AuditEntry) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut entry = store.begin_act(&Act { org, who: who.to_owned(), what, detail, at: Utc::now() }).await?;
    let done = act(&mut entry).await;
    if let Err(failure) = &done {
        entry.detail["reason"] = failure.kind().into();
    }
    let recorded = complete(store, &mut [entry], done.is_ok()).await;
    let done = done?;
    recorded?;
    Ok(done)
}

/// Writes how the acts of these entries ended. Tries all of them.
pub async fn complete(store: &Store, entries: &mut [AuditEntry], done: bool) -> Result<(), Failure> {
    let mut unwritten = Vec::new();
    let mut failure = None;
    for entry in entries {
        entry.outcome = if done { ActOutcome::Done } else { ActOutcome::Failed };
        if let Err(error) = store.write_entry(entry).await {
            unwritten.push(entry.id.as_str());
            failure = Some(Failure::from(error));
        }
    }
    let how = if done { "It was done" } else { "It failed" };
    failure.map_or(Ok(()), |failure| {
        Err(failure.with_detail(&format!("{how}, but audit entry {} does not say so.", unwritten.join(", "))))
    })
}

/// The user of the operating system, for a DynamoDB that does not check credentials.
pub fn local_user() -> String {
    let name = ["USER", "LOGNAME"].iter().find_map(|variable| std::env::var(variable).ok());
    let uid = std::fs::metadata("/proc/self").map(|process| process.uid());
    match (name, uid) {
        (Some(name), Ok(uid)) => format!("{name} (uid {uid})"),
        (None, Ok(uid)) => format!("uid {uid}"),
        (Some(name), Err(_)) => name,
        (None, Err(_)) => "unknown".to_owned(),
    }
}
