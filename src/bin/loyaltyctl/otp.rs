//! `loyaltyctl otp`.

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use loyalty_codes::{
    model::{
        customer::{IdentifierName, UserId},
        org::{Org, OrgId},
        otp::Scope,
    },
    store::{OwnerHistory, Store},
};
use serde_json::json;

use crate::{
    Target,
    failure::Failure,
    limits, message_words, org,
    output::{Output, ask},
    support::{self, OtpStatus, Reveal, Subject},
};

#[derive(Subcommand)]
pub enum Command {
    /// List the OTPs of the last days, newest first, with what became of their messages
    ///
    /// It shows no code, and no whole address. That an OTP was fetched is not known.
    List(Whose),
    /// Revoke open OTPs: they can no longer be validated, and messages that wait are not sent
    Revoke {
        #[command(flatten)]
        whose: Whose,
        /// Only the OTPs of this scope
        #[arg(long, value_parser = scope())]
        scope: Option<String>,
        /// Do it without asking
        #[arg(long)]
        yes: bool,
    },
    /// Forget wrong guesses, so that codes are checked again
    Unlock {
        #[command(flatten)]
        whose: Whose,
        /// Only the guesses of this scope
        #[arg(long, value_parser = scope())]
        scope: Option<String>,
    },
}

/// Whose OTPs.
#[derive(Args)]
pub struct Whose {
    /// The customer's user id, as `customer find` says it
    #[arg(conflicts_with = "contact")]
    id: Option<u64>,
    /// The org
    #[arg(long, value_name = "ORG")]
    org: u32,
    /// The OTPs for an address that need not be registered, such as `mobile 8799361139`
    #[arg(long, num_args = 2, value_names = ["KIND", "VALUE"])]
    contact: Option<Vec<String>>,
}

fn scope() -> PossibleValuesParser {
    PossibleValuesParser::new(Scope::ALL.iter().map(|scope| scope.as_str()))
}

fn read_scope(scope: Option<&str>) -> Option<Scope> {
    scope.and_then(Scope::parse)
}

impl Whose {
    async fn find(&self, store: &Store, output: &Output) -> Result<(Org, Subject), Failure> {
        let org = org::find(store, output, OrgId(self.org)).await?;
        let subject = match (self.id, self.contact.as_deref()) {
            (Some(id), _) => Subject::Customer(UserId(id)),
            (None, Some([kind, value])) => {
                let kind =
                    IdentifierName::parse(kind).filter(|kind| kind.receives_otps()).ok_or_else(|| {
                        Failure::usage("OTPs are for a mobile, an email, an external_id or a wechat id")
                    })?;
                Subject::Contact(support::identifier(&org, kind, value)?)
            }
            (None, _) => {
                return Err(Failure::usage(
                    "whose OTPs? Name the user id that `customer find` says, or an address, such as `--contact mobile \
                 8799361139`",
                ));
            }
        };
        Ok((org, subject))
    }
}

pub async fn run(command: Command, target: &Target, output: &Output) -> Result<(), Failure> {
    let store = target.store().await?;
    match command {
        Command::List(whose) => list(&store, output, &whose).await,
        Command::Revoke { whose, scope, yes } => {
            let (org, subject) = whose.find(&store, output).await?;
            if !yes {
                let (of, org) = (subject.in_words(), org.id());
                ask(&format!("Revoke the open OTPs of {of} in org {org}?\nThis cannot be undone."))?;
            }
            let who = target.operator().await?;
            let revoked = support::revoke(&store, &who, &org, &subject, read_scope(scope.as_deref())).await?;
            let ids: Vec<_> = revoked.iter().map(|id| id.0).collect();
            output.print(
                &json!({"revoked": ids}),
                &match ids.len() {
                    0 => "no OTP was open".to_owned(),
                    1 => "1 OTP was revoked".to_owned(),
                    count => format!("{count} OTPs were revoked"),
                },
            )
        }
        Command::Unlock { whose, scope } => {
            let (org, subject) = whose.find(&store, output).await?;
            let who = target.operator().await?;
            let unlocked =
                support::unlock(&store, &who, &org, &subject, read_scope(scope.as_deref())).await?;
            let names: Vec<_> = unlocked.iter().map(|scope| scope.as_str()).collect();
            let mut text = if names.is_empty() {
                "there were no wrong guesses".to_owned()
            } else {
                format!("wrong guesses were forgotten for {}", names.join(", "))
            };
            for user in registered_as(&store, &org, &subject).await? {
                let org = org.id();
                text = format!(
                    "{text}\nregistered: `loyaltyctl otp unlock --org {org} {user}` forgets the customer's, too"
                );
            }
            output.print(&json!({"unlocked": names}), &text)
        }
    }
}

async fn list(store: &Store, output: &Output, whose: &Whose) -> Result<(), Failure> {
    let (org, subject) = whose.find(store, output).await?;
    let now = Utc::now();
    let reading = support::stored(store, &org, &subject);
    let (histories, addresses) = output.with_spinner("reading", reading).await?;
    let json: Vec<_> =
        histories.iter().map(|history| support::history_json(&org, history, Reveal::Masked, now)).collect();
    let limits = limits::limits(&org, &histories, &addresses, now);
    let rows = rows(&org, &histories, now);
    let mut lines = if rows.is_empty() {
        vec![
            "no OTPs of the last days: none was asked for, or each request was refused, as the till was told"
                .to_owned(),
        ]
    } else {
        vec![output.table(HEADING, &rows)]
    };
    let customers = registered_as(store, &org, &subject).await?;
    lines.extend(message_words::legend(&histories, now));
    lines.extend(limits.iter().map(|limit| limit.in_words(&org, now)));
    for user in &customers {
        lines.push(format!(
            "registered: `loyaltyctl otp list --org {} {user}` lists the customer's OTPs, too",
            org.id()
        ));
    }
    let limits: Vec<_> = limits.iter().map(|limit| limit.to_json(&org)).collect();
    output.print(
        &json!({"org": org.id(), "owners": json, "limits": limits, "customers": customers}),
        &lines.join("\n"),
    )
}

/// The customers who have an identifier that was named as a contact.
async fn registered_as(store: &Store, org: &Org, subject: &Subject) -> Result<Vec<UserId>, Failure> {
    Ok(match subject {
        Subject::Customer(_) => Vec::new(),
        Subject::Contact(identifier) => store.search(org, identifier).await?.customers.into_keys().collect(),
    })
}

pub const HEADING: &[&str] = &["issued", "scope", "for", "valid until", "otp", "channel", "to", "message"];

/// A row for each channel of each OTP, or one for an OTP without message.
pub fn rows(org: &Org, histories: &[OwnerHistory], now: DateTime<Utc>) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for history in histories {
        let owner = limits::owner(history);
        for otp in &history.otps {
            let status = OtpStatus::of(otp, now);
            let state = match status.at() {
                Some(at) => format!("{} {}", status.name(), support::time(org, at)),
                None => status.name().to_owned(),
            };
            let row = |issued: DateTime<Utc>, channel: [String; 3]| {
                let start = [
                    support::time(org, issued),
                    otp.scope.to_string(),
                    owner.clone(),
                    support::time(org, otp.valid_until),
                    state.clone(),
                ];
                (issued, start.into_iter().chain(channel).collect::<Vec<_>>())
            };
            let channels = support::otp_channels(otp, now);
            if channels.is_empty() {
                rows.push(row(otp.created_id.issued_at(), ["-", "-", "-"].map(str::to_owned)));
            }
            for (requested_at, channel, status) in channels {
                let to = Reveal::Masked.channel(channel);
                rows.push(row(requested_at, [channel.channel_type.to_string(), to, status.to_string()]));
            }
        }
    }
    rows.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    rows.into_iter().map(|(_, row)| row).collect()
}
