//! `loyaltyctl customer`.

use std::time::Duration;

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use loyalty_codes::{
    model::{
        customer::{IdentifierName, UserId},
        org::{Org, OrgId},
    },
    store::{CustomerHistory, CustomerState, Merge, MergedUsers, OwnerHistory, Store},
};
use serde_json::json;

use crate::{
    Target,
    failure::Failure,
    import, limits, org,
    org_words::counted,
    output::{Output, ask, escape, json_escape, printable},
    support::{self, Erased, OtpStatus, Reveal, Settle},
};

#[derive(Subcommand)]
pub enum Command {
    /// Register the customers of a CSV file, by the rules of `POST /v2/customers`
    ///
    /// Each row is a profile of a customer. The heading names the columns: source (INSTORE if there
    /// is no such column), accountId, firstName, lastName, and the kinds of identifiers, such as
    /// mobile, email and externalId. Rows with the same mobile or e-mail address in different
    /// sources become one customer.
    ///
    /// It may be interrupted. Running it again skips the customers who are there already. Rows that
    /// cannot be imported are in the error file with the reason, once the command is done; that
    /// file can be corrected and imported. Before anything is imported, the whole file is checked:
    /// one with a row that has too few or too many fields or an open quote is refused, and so is
    /// one with card numbers that the org's plan could give again.
    Import(import::Options),
    /// Find who has an identifier, in every source and account
    ///
    /// The value may be in any spelling that the API accepts. If nobody has the identifier, but it
    /// was sent an OTP in the last days, it is a contact only. Otherwise the exit code is 4.
    Find {
        /// Such as mobile, email, externalId or wechat
        #[arg(value_parser = kind(), ignore_case = true)]
        kind: String,
        /// The identifier, in any spelling
        value: String,
        /// The org
        #[arg(long, value_name = "ORG")]
        org: u32,
    },
    /// Show a customer: profiles, identifiers, and the OTPs in short
    Show {
        #[command(flatten)]
        whose: Whose,
        /// Show names and identifiers as they are. It is recorded in the audit
        #[arg(long)]
        reveal: bool,
    },
    /// Show what happened to a customer in the last days, newest first
    ///
    /// Registrations, OTPs, what became of each message, validations, wrong guesses. That a till
    /// has fetched an OTP is not known, because a fetch writes nothing.
    Timeline(Whose),
    /// Print everything that is stored about a customer, as JSON
    ///
    /// That is profiles, identifiers, times of OTPs without their codes, what became of messages,
    /// wrong guesses and quotas. It is recorded in the audit.
    Export(Whose),
    /// Erase a customer for ever
    ///
    /// From the first write on, the customer is unknown to every request. What requests that were
    /// under way have written is deleted half a minute later. The user id is never given again, nor
    /// are numbers that a numbering plan of the org could make; identifiers that were assigned by
    /// hand can be registered again. An erasure that was interrupted continues when it is run
    /// again.
    Erase {
        #[command(flatten)]
        whose: Whose,
        /// Do it without asking
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        settle: Settle,
    },
    /// Merge customers who are one person
    ///
    /// The profiles, identifiers and card numbers of the second customer go to the first one, at
    /// once or not at all. The user id of the second one is never given again.
    Merge {
        /// The customer who stays
        id: u64,
        /// The customer who is merged into the other one
        merged: u64,
        /// The org
        #[arg(long, value_name = "ORG")]
        org: u32,
        /// If both have an external ID, make that of the merged one a card number
        #[arg(long)]
        as_card_number: bool,
        /// Do it without asking
        #[arg(long)]
        yes: bool,
    },
}

/// A customer of an org.
#[derive(Args)]
pub struct Whose {
    /// The customer's user id, as `customer find` says it
    id: u64,
    /// The org
    #[arg(long, value_name = "ORG")]
    org: u32,
}

fn kind() -> PossibleValuesParser {
    PossibleValuesParser::new(IdentifierName::NAMES)
}

pub async fn run(command: Command, target: &Target, output: &Output) -> Result<(), Failure> {
    if let Command::Import(options) = command {
        return import::run(&options, target, output).await;
    }
    let store = target.store().await?;
    match command {
        Command::Import(_) => Ok(()),
        Command::Find { kind, value, org } => {
            let org = org::find(&store, output, OrgId(org)).await?;
            find(&store, output, &org, &kind, &value).await
        }
        Command::Show { whose, reveal } => {
            let (org, user) = whose.read(&store, output).await?;
            show(&store, target, output, &org, user, reveal).await
        }
        Command::Timeline(whose) => {
            let (org, user) = whose.read(&store, output).await?;
            let found = support::customer(&store, &org, user).await?;
            let now = Utc::now();
            let acts = support::recent_acts(&store, &org, now).await?;
            let events = support::timeline(&org, &found, &acts, now);
            let rows = events.iter().map(|event| {
                let of_contact = if event.contact.is_some() { "contact" } else { "" };
                vec![
                    support::time(&org, event.at),
                    event.what.name().to_owned(),
                    event.scope.map_or_else(String::new, |scope| scope.to_string()),
                    of_contact.to_owned(),
                    event.what.detail(&org),
                ]
            });
            let heading = ["time", "what", "scope", "of", "detail"];
            let json: Vec<_> = events.iter().map(|event| event.to_json(&org)).collect();
            output.print(&json!(json), &output.table(&heading, &rows.collect::<Vec<_>>()))
        }
        Command::Export(whose) => {
            let (org, user) = whose.read(&store, output).await?;
            let who = target.operator().await?;
            let found = support::customer_revealed(&store, &who, &org, user, "customer export").await?;
            let json = support::customer_json(&org, &found, Reveal::All, Utc::now());
            let pretty =
                serde_json::to_string_pretty(&json).map_err(|error| Failure::failed(error.to_string()))?;
            let pretty: Vec<_> = pretty.lines().map(|line| escape(line, json_escape)).collect();
            output.print(&json, &pretty.join("\n"))
        }
        Command::Erase { whose, yes, settle } => {
            let (org, user) = whose.read(&store, output).await?;
            erase(&store, target, output, &org, user, yes, settle.time()).await
        }
        Command::Merge { id, merged, org, as_card_number, yes } => {
            let org = org::find(&store, output, OrgId(org)).await?;
            let users = MergedUsers { kept: UserId(id), merged: UserId(merged) };
            if !yes {
                let kept = support::customer(&store, &org, users.kept).await?;
                let given = support::customer(&store, &org, users.merged).await?;
                let (kept, given) = (in_short(&org, &kept), in_short(&org, &given));
                ask(&format!(
                    "{kept}\n{given}\nGive all that customer {merged} of org {} has to customer {id}? Where both have \
                     names in one account, those of customer {merged} are lost, and so are its OTPs.\nThis cannot be \
                     undone.",
                    org.id()
                ))?;
            }
            let who = target.operator().await?;
            let done = support::merge(&store, &who, &org, users, as_card_number).await?;
            print_merged(output, &org, users, &done)
        }
    }
}

impl Whose {
    async fn read(&self, store: &Store, output: &Output) -> Result<(Org, UserId), Failure> {
        Ok((org::find(store, output, OrgId(self.org)).await?, UserId(self.id)))
    }
}

async fn find(store: &Store, output: &Output, org: &Org, kind: &str, value: &str) -> Result<(), Failure> {
    let kind = IdentifierName::parse(kind).ok_or_else(|| Failure::usage("no such kind of identifier"))?;
    let identifier = support::identifier(org, kind, value)?;
    let found = output.with_spinner("reading", store.search(org, &identifier)).await?;
    let otps: usize = found.contacts.iter().map(|contact| contact.otps.len()).sum();
    let customers: Vec<_> =
        found.customers.iter().map(|(user, accounts)| json!({"id": user, "accounts": accounts})).collect();
    let is_contact = !found.contacts.is_empty();
    if customers.is_empty() && !is_contact {
        return Err(Failure::not_found(match found.erased {
            Some(user) => format!("nobody has it; it was a number of customer {user}, who was erased"),
            None => "nobody has it, and no OTP was sent to it in the last days".to_owned(),
        }));
    }
    let text = if is_contact {
        format!(
            "a contact only, with {}; `loyaltyctl otp list --org {} --contact {kind} …` lists them",
            counted(otps as u64, "OTP", "OTPs"),
            org.id()
        )
    } else {
        let rows = found.customers.iter().map(|(user, accounts)| {
            let accounts: Vec<_> = accounts.iter().map(ToString::to_string).collect();
            vec![user.to_string(), accounts.join(" ")]
        });
        output.table(&["customer", "accounts"], &rows.collect::<Vec<_>>())
    };
    output.print(&json!({"customers": customers, "contact": is_contact, "otps": otps}), &text)
}

async fn show(
    store: &Store,
    target: &Target,
    output: &Output,
    org: &Org,
    user: UserId,
    reveal: bool,
) -> Result<(), Failure> {
    let (found, reveal) = if reveal {
        let who = target.operator().await?;
        (support::customer_revealed(store, &who, org, user, "customer show").await?, Reveal::All)
    } else {
        let reading = support::customer(store, org, user);
        (output.with_spinner("reading", reading).await?, Reveal::Masked)
    };
    let now = Utc::now();
    let mut json = support::customer_json(org, &found, reveal, now);
    let histories: Vec<OwnerHistory> = found.all().cloned().collect();
    let limits = limits::limits(org, &histories, &found.addresses, now);
    json["limits"] = limits.iter().map(|limit| limit.to_json(org)).collect();
    output.print(&json, &in_words(output, org, &found, reveal, now))
}

fn in_words(
    output: &Output,
    org: &Org,
    found: &CustomerHistory,
    reveal: Reveal,
    now: DateTime<Utc>,
) -> String {
    let name = format!("customer {}", found.user);
    let CustomerState::Registered { at, customer } = &found.state else {
        return format!("{name} {}", support::gone(org, found).unwrap_or_default());
    };
    let since = at.map_or_else(String::new, |at| format!(", registered {}", support::time(org, at)));
    let heading = ["account", "first name", "last name", "created", "by till"];
    let identifiers = customer.identifiers.iter().map(|listed| support::identifier_row(listed, reveal));
    let mut lines = vec![
        format!("{}{since}", output.strong(&name)),
        output.table(&heading, &support::profile_rows(org, customer, reveal)),
        output.table(&["identifier", "value", "account"], &identifiers.collect::<Vec<_>>()),
    ];
    let histories: Vec<OwnerHistory> = found.all().cloned().collect();
    lines.push(otps_in_short(&histories, now));
    let limits = limits::limits(org, &histories, &found.addresses, now);
    lines.extend(limits.iter().map(|limit| limit.in_words(org, now)));
    lines.join("\n")
}

/// A customer in a line, masked, for a question.
fn in_short(org: &Org, found: &CustomerHistory) -> String {
    let name = format!("customer {}", found.user);
    let CustomerState::Registered { at, customer } = &found.state else {
        return format!("{name} {}", support::gone(org, found).unwrap_or_default());
    };
    let names = customer.profiles.iter().map(|profile| {
        let names = [&profile.first_name, &profile.last_name].into_iter().flatten();
        let names: Vec<_> = names.map(|name| Reveal::Masked.name(name)).collect();
        let names = if names.is_empty() { "no name".to_owned() } else { names.join(" ") };
        format!("{names} in {}", profile.account)
    });
    let since = at.map_or_else(String::new, |at| format!(", registered {}", support::time(org, at)));
    let count = counted(customer.identifiers.len() as u64, "identifier", "identifiers");
    format!("{name}: {}; {count}{since}", names.collect::<Vec<_>>().join(", "))
}

/// How many OTPs there are in each state.
fn otps_in_short(histories: &[OwnerHistory], now: DateTime<Utc>) -> String {
    let otps: Vec<_> = histories.iter().flat_map(|history| &history.otps).collect();
    let states = ["open", "validated", "expired", "revoked", "deleted"];
    let counts = states.into_iter().filter_map(|state| {
        let count = otps.iter().filter(|otp| OtpStatus::of(otp, now).name() == state).count();
        (count > 0).then(|| format!("{count} {state}"))
    });
    let counts: Vec<_> = counts.collect();
    if counts.is_empty() { "no OTPs".to_owned() } else { format!("OTPs: {}", counts.join(", ")) }
}

async fn erase(
    store: &Store,
    target: &Target,
    output: &Output,
    org: &Org,
    user: UserId,
    yes: bool,
    settle: Duration,
) -> Result<(), Failure> {
    if !yes {
        let found = support::customer(store, org, user).await?;
        ask(&format!(
            "{}\nErase customer {user} of org {} for ever?\nThe user id stays reserved, and so do numbers that a \
             numbering plan could make. Backups keep their copy for 35 days.\nThis cannot be undone. If it is \
             interrupted, run it again: it continues.",
            in_short(org, &found),
            org.id()
        ))?;
    }
    let who = target.operator().await?;
    let spinner = output.spinner();
    let begun = || {
        spinner.set_message(
            "erased; waiting for requests that are under way. If you interrupt it, run it again",
        );
        spinner.enable_steady_tick(Duration::from_millis(80));
    };
    let erased = support::erase(store, &who, org, user, settle, begun).await;
    spinner.finish_and_clear();
    match erased? {
        Erased::Before(at) => output.print(
            &json!({"org": org.id(), "id": user, "result": "unchanged", "erased_at": support::time(org, at)}),
            &format!("customer {user} was erased at {} already", support::time(org, at)),
        ),
        Erased::Now { deleted, numbers_kept } => output.print(
            &json!({
                "org": org.id(), "id": user, "result": "erased", "deleted": deleted, "numbers_kept": numbers_kept,
            }),
            &format!(
                "customer {user} is erased, with {}; {} of the numbering plan stay reserved, so that nobody gets them \
                 again",
                match deleted {
                    0 => "nothing left of OTPs and messages".to_owned(),
                    _ => counted(deleted as u64, "item of OTPs and messages", "items of OTPs and messages"),
                },
                counted(numbers_kept as u64, "number", "numbers")
            ),
        ),
    }
}

fn print_merged(output: &Output, org: &Org, users: MergedUsers, done: &Merge) -> Result<(), Failure> {
    let MergedUsers { kept, merged } = users;
    match done {
        Merge::Done { identifiers, names_kept } => {
            let accounts: Vec<_> = names_kept.iter().map(ToString::to_string).collect();
            let names = if accounts.is_empty() {
                String::new()
            } else {
                format!("; in {} the names of customer {kept} were kept", printable(&accounts.join(", ")))
            };
            output.print(
                &json!({
                    "org": org.id(), "id": kept, "merged": merged, "result": "merged", "identifiers": identifiers,
                    "names_kept": names_kept,
                }),
                &format!("customer {kept} has the {identifiers} identifiers of customer {merged}{names}"),
            )
        }
        Merge::DoneBefore(at) => output.print(
            &json!({"org": org.id(), "id": kept, "merged": merged, "result": "unchanged"}),
            &format!("customer {merged} was merged into {kept} at {} already", support::time(org, *at)),
        ),
    }
}
