//! `loyaltyctl table restored`.

use std::fmt;

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

/// The command of the audit entries.
pub const RESTORED: &str = "table restored";

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
        .map(|raised| {
            vec![raised.org.to_string(), raised.card_numbers.to_string(), raised.user_ids.to_string()]
        })
        .collect();
    let orgs: Vec<_> = raised.iter().map(Raised::to_json).collect();
    output.print(
        &json!({"margin": margin, "orgs": orgs}),
        &output.table(&["org", "card numbers from", "user ids from"], &rows),
    )?;
    let full = raised.iter().filter(|raised| raised.card_numbers == CardNumbers::RangeTooSmall).count();
    if full > 0 {
        return Err(Failure::refused(format!(
            "{full} orgs have fewer than {margin} card numbers left: their counters were not raised. Give them another \
             plan, or a smaller --margin, before traffic returns."
        )));
    }
    Ok(())
}

/// The counters of an org, with the first values that will be given.
struct Raised {
    org: OrgId,
    card_numbers: CardNumbers,
    user_ids: u64,
}

impl Raised {
    fn to_json(&self) -> Value {
        let card_numbers = match self.card_numbers {
            CardNumbers::From(first) => json!(first),
            CardNumbers::NoPlan | CardNumbers::RangeTooSmall => json!(self.card_numbers.to_string()),
        };
        json!({"org": self.org, "card_numbers": card_numbers, "user_ids": self.user_ids})
    }
}

/// The counter of an org's card numbers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CardNumbers {
    From(u64),
    NoPlan,
    /// The counter was not raised.
    RangeTooSmall,
}

impl fmt::Display for CardNumbers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::From(first) => first.fmt(f),
            Self::NoPlan => f.write_str("no plan"),
            Self::RangeTooSmall => f.write_str("range too small"),
        }
    }
}

/// Raises both counters of an org.
async fn raise(store: &Store, who: &str, org: OrgId, margin: u64) -> Result<Raised, Failure> {
    let act = async |_: &mut AuditEntry| {
        let users = store.take_user_ids(org, margin).await?;
        let card_numbers = match store.issued_card_numbers(org).await? {
            None => CardNumbers::NoPlan,
            Some(current) => match store.take_values(org, &current.plan, margin).await {
                Ok(Some(first)) => CardNumbers::From(first + margin),
                Ok(None) => CardNumbers::RangeTooSmall,
                Err(NumberingError::Store(error)) => return Err(error.into()),
                Err(error) => return Err(Failure::refused(format!("org {org}: {error}"))),
            },
        };
        Ok(Raised { org, card_numbers, user_ids: users.0 + margin })
    };
    audit::record(store, org, who, RESTORED, json!({"margin": margin}), act).await
}
