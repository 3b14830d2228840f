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

    /// Only the counters of this org; may be repeated
    #[arg(long, value_name = "ID")]
    org: Vec<u32>,

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
    let mut orgs: Vec<OrgId> = orgs.into_iter().map(|(id, _)| id).collect();
    if let Some(missing) = options.org.iter().find(|id| !orgs.contains(&OrgId(**id))) {
        return Err(Failure::not_found(format!("there is no org {missing}")));
    }
    orgs.retain(|id| options.org.is_empty() || options.org.contains(&id.0));
    if orgs.is_empty() {
        return Err(Failure::not_found("the table has no org"));
    }
    let too_small = output.with_spinner("checking", too_small(&store, &orgs, margin)).await?;
    if !too_small.is_empty() {
        return Err(Failure::refused(format!(
            "fewer than {margin} card numbers are left in org {}; no counter of any org was raised. Give it a smaller \
             --margin with --org, or another plan, and then each of the others by --org",
            listed(&too_small)
        )));
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
    for org in &orgs {
        match raise(&store, &who, *org, margin).await {
            Ok(done) => raised.push(done),
            Err(failure) => {
                let done: Vec<OrgId> = raised.iter().map(|raised| raised.org).collect();
                let done = if done.is_empty() { "none".to_owned() } else { listed(&done) };
                return Err(failure.with_detail(&format!(
                    "Orgs whose counters were raised: {done}. Raise those of org {org} and of the others by --org ID."
                )));
            }
        }
    }
    let rows: Vec<_> = raised
        .iter()
        .map(|raised| {
            vec![raised.org.to_string(), raised.card_numbers.to_string(), raised.user_ids.to_string()]
        })
        .collect();
    let orgs: Vec<_> = raised.iter().map(Raised::to_json).collect();
    let printed = output.print(
        &json!({"margin": margin, "orgs": orgs}),
        &output.table(&["org", "card numbers from", "user ids from"], &rows),
    );
    let full = raised.iter().filter(|raised| raised.card_numbers == CardNumbers::RangeTooSmall);
    let full: Vec<OrgId> = full.map(|raised| raised.org).collect();
    if !full.is_empty() {
        return Err(Failure::refused(format!(
            "the counter of card numbers of org {} was not raised: it has fewer than {margin} left by now. The counters of \
             user ids were raised. Give it another plan, or a smaller --margin with --org, before traffic returns.",
            listed(&full)
        )));
    }
    printed
}

/// The orgs whose plan has fewer than `margin` card numbers left.
async fn too_small(store: &Store, orgs: &[OrgId], margin: u64) -> Result<Vec<OrgId>, Failure> {
    let mut too_small = Vec::new();
    for org in orgs {
        let current = store.issued_card_numbers(*org).await?;
        let left = current.map(|current| current.plan.end().saturating_sub(current.next));
        // A plan that is used up gives none twice.
        if left.is_some_and(|left| (1..margin).contains(&left)) {
            too_small.push(*org);
        }
    }
    Ok(too_small)
}

fn listed(orgs: &[OrgId]) -> String {
    orgs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
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
        let failed = |counter: &str, failure: Failure| {
            failure.with_detail(&format!("The counter of {counter} of org {org} was not raised for certain."))
        };
        let users = store.take_user_ids(org, margin).await;
        let users = users.map_err(|error| failed("user ids", error.into()))?;
        let card_numbers = match store.issued_card_numbers(org).await? {
            None => CardNumbers::NoPlan,
            Some(current) if current.next >= current.plan.end() => CardNumbers::From(current.next),
            Some(current) => match store.take_values(org, &current.plan, margin).await {
                Ok(Some(first)) => CardNumbers::From(first + margin),
                Ok(None) => CardNumbers::RangeTooSmall,
                Err(NumberingError::Store(error)) => return Err(failed("card numbers", error.into())),
                Err(error) => {
                    return Err(failed("card numbers", Failure::refused(format!("org {org}: {error}"))));
                }
            },
        };
        Ok(Raised { org, card_numbers, user_ids: users.0 + margin })
    };
    audit::record(store, org, who, RESTORED, json!({"margin": margin}), act).await
}
