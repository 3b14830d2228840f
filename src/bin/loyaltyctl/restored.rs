//! `loyaltyctl table restored`.

use clap::Args;
use loyalty_codes::{
    model::org::OrgId,
    store::{AuditEntry, NumberingError, Store, TakeError, error_chain},
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
            let card_numbers =
                raised.card_numbers.map_or_else(|| NO_PLAN.to_owned(), |first| first.to_string());
            vec![raised.org.to_string(), card_numbers, raised.user_ids.to_string()]
        })
        .collect();
    let orgs: Vec<_> = raised.iter().map(Raised::to_json).collect();
    output.print(
        &json!({"margin": margin, "orgs": orgs}),
        &output.table(&["org", "card numbers from", "user ids from"], &rows),
    )
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
    /// `None` for an org without a plan.
    card_numbers: Option<u64>,
    user_ids: u64,
}

const NO_PLAN: &str = "no plan";

impl Raised {
    fn to_json(&self) -> Value {
        let card_numbers = self.card_numbers.map_or_else(|| json!(NO_PLAN), |first| json!(first));
        json!({"org": self.org, "card_numbers": card_numbers, "user_ids": self.user_ids})
    }
}

/// Raises both counters of an org.
async fn raise(store: &Store, who: &str, org: OrgId, margin: u64) -> Result<Raised, Failure> {
    let act = async |entry: &mut AuditEntry| {
        let card_numbers = raise_card_numbers(store, org, margin).await?;
        entry.detail["card_numbers"] = json!(card_numbers);
        // After a lost answer, this may be done again, which only raises the counter more.
        let users = store.take_user_ids(org, margin).await;
        let users = users.map_err(|error| {
            Failure::from(error).with_detail(&format!(
                "The counter of user ids of org {org} was not raised for certain; that of card numbers was."
            ))
        })?;
        let user_ids = users.0 + margin;
        entry.detail["user_ids"] = json!(user_ids);
        Ok(Raised { org, card_numbers, user_ids })
    };
    audit::record(store, org, who, RESTORED, json!({"margin": margin}), act).await
}

/// Raises the counter of an org's card numbers, and returns its value. `None` if there is none.
async fn raise_card_numbers(store: &Store, org: OrgId, margin: u64) -> Result<Option<u64>, Failure> {
    let Some(current) = store.issued_card_numbers(org).await? else {
        return Ok(None);
    };
    // A plan that is used up gives none twice.
    if current.next >= current.plan.end() {
        return Ok(Some(current.next));
    }
    match store.take_values(org, &current.plan, margin).await {
        Ok(Some(first)) => Ok(Some(first + margin)),
        Ok(None) => Err(Failure::refused(format!(
            "fewer than {margin} card numbers are left in org {org} by now; no counter of it was raised. Give it another \
             plan, or a smaller --margin, before traffic returns"
        ))),
        Err(TakeError::Uncertain(error)) => Err(Failure::failed(error_chain(&error)).with_detail(&format!(
            "DynamoDB did not answer whether it raised the counter of card numbers of org {org}; that of user ids was not \
             raised."
        ))),
        Err(TakeError::NotTaken(NumberingError::Store(error))) => Err(error.into()),
        Err(TakeError::NotTaken(error)) => Err(Failure::refused(format!("org {org}: {error}"))),
    }
}
