//! `loyaltyctl table restored`.

use clap::Args;
use loyalty_codes::{
    model::org::OrgId,
    store::{AuditEntry, NumberingError, Store},
};
use serde_json::{Value, json};

use crate::{
    Target, audit,
    failure::Failure,
    output::{Output, ask},
};

#[derive(Args)]
pub struct Options {
    /// By how much each counter is raised: more than the numbers that any org gave since the
    /// backup was made
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    margin: u64,

    /// Do it without asking
    #[arg(long)]
    yes: bool,
}

pub async fn run(options: &Options, target: &Target, output: &Output) -> Result<(), Failure> {
    let store = target.store().await?;
    let orgs = output.with_spinner("reading", store.orgs()).await?;
    let margin = options.margin;
    if orgs.is_empty() {
        return Err(Failure::not_found("the table has no org"));
    }
    let question = format!(
        "Raise the counters of card numbers and user ids of {} orgs in table {} by {margin}?\nWhat lies between is \
         skipped for ever.",
        orgs.len(),
        store.table()
    );
    if !options.yes {
        ask(&question)?;
    }
    let who = target.operator().await?;
    let mut raised = Vec::new();
    for (org, _) in orgs {
        raised.push(raise(&store, &who, org, margin).await?);
    }
    let rows: Vec<_> = raised
        .iter()
        .map(|org| ["org", "card_numbers", "user_ids"].map(|key| text(&org[key])).to_vec())
        .collect();
    output.print(
        &json!({"margin": margin, "orgs": raised}),
        &output.table(&["org", "card numbers from", "user ids from"], &rows),
    )?;
    let full = raised.iter().filter(|org| org["card_numbers"] == "range too small").count();
    if full > 0 {
        return Err(Failure::refused(format!(
            "{full} orgs have fewer than {margin} card numbers left: their counters were not raised. Give them another \
             plan, or a smaller --margin, before traffic returns."
        )));
    }
    Ok(())
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Raises both counters of an org. The result names the first values that will be given.
async fn raise(store: &Store, who: &str, org: OrgId, margin: u64) -> Result<Value, Failure> {
    let act = async |_: &mut AuditEntry| {
        let users = store.take_user_ids(org, margin).await?;
        let numbers = match store.issued_card_numbers(org).await? {
            None => json!("no plan"),
            Some(current) => match store.take_values(org, &current.plan, margin).await {
                Ok(Some(first)) => json!(first + margin),
                Ok(None) => json!("range too small"),
                Err(NumberingError::Store(error)) => return Err(error.into()),
                Err(error) => return Err(Failure::refused(format!("org {org}: {error}"))),
            },
        };
        Ok(json!({"org": org, "card_numbers": numbers, "user_ids": users.0 + margin}))
    };
    audit::record(store, org, who, "table restored", json!({"margin": margin}), act).await
}
