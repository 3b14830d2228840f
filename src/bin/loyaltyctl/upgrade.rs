//! `loyaltyctl table upgrade`.

use std::time::Duration;

use chrono::Utc;
use clap::Args;
use loyalty_codes::{
    model::org::{Definition, OrgId},
    store::{Act, Reason, Undecided, UpgradeOptions, UpgradeReport},
};
use serde_json::json;

use crate::{Target, audit, failure::Failure, output::Output, support::Reveal};

#[derive(Args)]
pub struct Options {
    /// Only the customers of this org
    #[arg(long, value_name = "ID")]
    org: Option<u32>,
    /// Say what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Show the identifiers that it cannot decide in full, which the audit records
    #[arg(long)]
    reveal: bool,
}

pub async fn run(options: &Options, target: &Target, output: &Output) -> Result<(), Failure> {
    let store = &target.store().await?;
    let org = options.org.map(OrgId);
    if let Some(id) = org
        && store.org(id).await?.is_none()
    {
        return Err(Failure::not_found(format!("there is no org {id}")));
    }
    let mut acts = Vec::new();
    if !options.dry_run || options.reveal {
        let mut detail = json!({});
        if options.reveal {
            detail = json!({"reveal": true, "dry_run": options.dry_run});
        }
        let who = target.operator().await?;
        let orgs = match org {
            Some(id) => vec![id],
            None => store.orgs().await?.into_iter().map(|(id, _)| id).collect(),
        };
        for org in orgs {
            let (who, what) = (who.clone(), "table upgrade");
            match store.begin_act(&Act { org, who, what, detail: detail.clone(), at: Utc::now() }).await {
                Ok(act) => acts.push(act),
                Err(error) => {
                    return Err(with_unrecorded(
                        error.into(),
                        audit::complete(store, &mut acts, false).await,
                    ));
                }
            }
        }
    }
    let progress = output.spinner();
    progress.enable_steady_tick(Duration::from_millis(80));
    let reveal = if options.reveal { Reveal::All } else { Reveal::Masked };
    let options = UpgradeOptions { org, dry_run: options.dry_run };
    let report = store
        .upgrade(options, |report| progress.set_message(format!("{} customers", report.customers)))
        .await;
    progress.finish_and_clear();
    let recorded = audit::complete(store, &mut acts, report.is_ok()).await;
    match report {
        Err(error) => Err(with_unrecorded(error.into(), recorded)),
        // The report is printed whatever the audit says: it lists what is left to decide.
        Ok(report) => match print(output, options, &shown(report, reveal)) {
            Ok(()) => recorded,
            Err(failure) => Err(with_unrecorded(failure, recorded)),
        },
    }
}

/// A failure with that of the audit beside it.
fn with_unrecorded(failure: Failure, recorded: Result<(), Failure>) -> Failure {
    match recorded {
        Ok(()) => failure,
        Err(unrecorded) => failure.with_detail(&unrecorded.to_string()),
    }
}

/// A report with its identifiers as they are shown.
fn shown(mut report: UpgradeReport, reveal: Reveal) -> UpgradeReport {
    for undecided in &mut report.undecided {
        let name = undecided.name;
        let show = |value: &mut String| *value = reveal.identifier(name, value);
        show(&mut undecided.value);
        match &mut undecided.reason {
            Reason::Taken { normal_form, .. }
            | Reason::MaybeNational { normal_form }
            | Reason::Erased { normal_form } => show(normal_form),
            Reason::Malformed | Reason::PointsElsewhere | Reason::OtherJoins { .. } => {}
        }
    }
    report
}

fn print(output: &Output, options: UpgradeOptions, report: &UpgradeReport) -> Result<(), Failure> {
    let verb = if options.dry_run { "would be moved" } else { "moved" };
    let (written, join) =
        if options.dry_run { ("would be written", "would join") } else { ("written", "join from now on") };
    let mut text = format!(
        "{} customers: {} identifiers {verb} to their normal form, {} org-wide identities {written}, {} left as they \
         are",
        report.customers,
        report.changed,
        report.org_wide,
        report.undecided.len()
    );
    for org in &report.joining {
        text = format!("{text}\norg {org}: customers {join} across sources");
    }
    if !report.undecided.is_empty() {
        let rows: Vec<_> = report.undecided.iter().map(row).collect();
        text = format!(
            "{text}\n{}",
            output.table(&["org", "user", "account", "identifier", "value", "why"], &rows)
        );
    }
    for unreadable in &report.unreadable {
        text = format!("{text}\n{}: left as it is: {}", unreadable.partition, unreadable.reason);
    }
    let mut json = json!(report);
    json["dry_run"] = options.dry_run.into();
    let printed = output.print(&json, &text);
    match report.unreadable.len() {
        0 => printed,
        unreadable => Err(Failure::failed(format!(
            "{unreadable} customers cannot be read; the customers of their orgs do not join before they are repaired"
        ))),
    }
}

fn row(undecided: &Undecided) -> Vec<String> {
    let why = match &undecided.reason {
        Reason::Taken { normal_form, by } => format!("customer {by} has `{normal_form}`"),
        Reason::Malformed => "it is not valid any more".to_owned(),
        Reason::MaybeNational { normal_form } => {
            format!("kept as international; as national it is {normal_form}")
        }
        Reason::OtherJoins { by } => format!(
            "customer {by} has it, too, and is the one whom others join; run `table upgrade` again when that customer \
             gives it up"
        ),
        Reason::Erased { normal_form } => format!("an erased customer had `{normal_form}`"),
        Reason::PointsElsewhere => "its item points at another customer".to_owned(),
    };
    vec![
        undecided.org.to_string(),
        undecided.user.to_string(),
        undecided.account.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
        undecided.name.to_string(),
        // A stored value may contain control sequences of a terminal.
        undecided.value.escape_debug().to_string(),
        why,
    ]
}

/// The advice after a change of the phone number plan of an org that has customers.
pub fn advice(before: &Definition, after: &Definition) -> Option<String> {
    (before.phone_number_plan() != after.phone_number_plan()).then(|| {
        format!(
            "The phone number plan has changed, and with it the normal form of stored mobiles. In a minute, when every \
             process has the new one, run `loyaltyctl table upgrade --org {}`.",
            after.id
        )
    })
}
