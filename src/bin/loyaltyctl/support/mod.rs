//! What support and privacy ask about customers, and do for them: the commands print it, and the
//! console shows it. Every function that changes something, or shows personal data, records it in
//! the audit, without personal data.

mod timeline;
mod view;

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use clap::Args;
use loyalty_codes::{
    model::{
        customer::{Identifier, IdentifierName, UserId},
        org::Org,
        otp::{CreatedId, Scope},
        profile::CombineRefusal,
    },
    store::{
        AddressQuotas, AuditEntry, CustomerHistory, CustomerState, ErasureStart, Merge, MergeError,
        MergeRefusal, MergedUsers, OwnerHistory, Store, StoreError, Tombstone,
    },
};
use serde_json::{Value, json};

use crate::{audit, failure::Failure, org_words};
pub use timeline::{Event, EventKind, MessageStatus, OtpStatus, otp_channels, otp_timeline, timeline};
pub use view::{Reveal, customer_json, gone, history_json, identifier_row, profile_rows, time};

/// Whose OTPs an operator asks for.
#[derive(Clone)]
pub enum Subject {
    /// A customer, with the contacts of the customer's identifiers.
    Customer(UserId),
    /// An identifier, whether or not it is registered.
    Contact(Identifier),
}

impl Subject {
    /// The subject in words.
    pub fn in_words(&self) -> String {
        match self {
            Self::Customer(user) => format!("customer {user}"),
            Self::Contact(identifier) => format!("the {} that you typed", identifier.name()),
        }
    }

    /// The subject for the audit, without personal data.
    fn detail(&self) -> Value {
        match self {
            Self::Customer(user) => json!({"customer": user}),
            Self::Contact(identifier) => json!({"contact": identifier.name()}),
        }
    }
}

/// Reads an identifier in any spelling that the API accepts.
///
/// # Errors
/// A usage error when it cannot be one of that kind.
pub fn identifier(org: &Org, kind: IdentifierName, value: &str) -> Result<Identifier, Failure> {
    let malformed = || format!("that is no {kind}: {}", org_words::spelling(org, kind));
    org.identifier(kind, value).map_err(|_| Failure::usage(malformed()))
}

/// The customer with a user id.
///
/// # Errors
/// Not found if the user id was never given.
pub async fn customer(store: &Store, org: &Org, user: UserId) -> Result<CustomerHistory, Failure> {
    let found = store.customer_history(org, user).await?;
    found.ok_or_else(|| Failure::not_found(format!("org {} has no customer {user}", org.id())))
}

/// The same, for a command that shows personal data: it is recorded as `what`.
///
/// # Errors
/// Not found if the user id was never given.
pub async fn customer_revealed(
    store: &Store,
    who: &str,
    org: &Org,
    user: UserId,
    what: &'static str,
) -> Result<CustomerHistory, Failure> {
    let act = async |_: &mut AuditEntry| customer(store, org, user).await;
    audit::record(store, org.id(), who, what, json!({"customer": user}), act).await
}

/// What is stored about the OTPs of a subject: of a customer the own ones first, then those of the
/// contacts.
///
/// # Errors
/// Not found if there is no such customer.
pub async fn histories(store: &Store, org: &Org, subject: &Subject) -> Result<Vec<OwnerHistory>, Failure> {
    Ok(stored(store, org, subject).await?.0)
}

/// The same, with the quotas of the addresses.
///
/// # Errors
/// Not found if there is no such customer.
pub async fn stored(
    store: &Store,
    org: &Org,
    subject: &Subject,
) -> Result<(Vec<OwnerHistory>, Vec<AddressQuotas>), Failure> {
    match subject {
        Subject::Customer(user) => {
            let CustomerHistory { own, contacts, addresses, .. } = customer(store, org, *user).await?;
            Ok(([own].into_iter().chain(contacts).collect(), addresses))
        }
        Subject::Contact(identifier) => {
            let histories = store.contact_history(org, identifier).await?;
            Ok((histories, store.quotas_of_address(org, identifier).await?))
        }
    }
}

/// Revokes the open OTPs of a subject, all of them or those of one scope. They can no longer be
/// validated, and messages that wait for them are not sent. Returns which ones were revoked.
///
/// # Errors
/// Not found if there is no such customer.
pub async fn revoke(
    store: &Store,
    who: &str,
    org: &Org,
    subject: &Subject,
    scope: Option<Scope>,
) -> Result<Vec<CreatedId>, Failure> {
    let histories = histories(store, org, subject).await?;
    let act = async |entry: &mut AuditEntry| {
        let mut revoked = Vec::new();
        let done = async {
            for history in &histories {
                store.revoke_otps(org.id(), history, scope, Utc::now(), &mut revoked).await?;
            }
            Ok::<_, StoreError>(())
        }
        .await;
        // Also those before a failure.
        entry.detail["revoked"] = json!(revoked.iter().map(|id| id.0).collect::<Vec<_>>());
        done?;
        Ok(revoked)
    };
    audit::record(store, org.id(), who, "otp revoke", with_scope(subject, scope), act).await
}

/// Forgets the wrong guesses of a subject, of all scopes or of one. Returns the scopes that had
/// some.
///
/// # Errors
/// Not found if there is no such customer.
pub async fn unlock(
    store: &Store,
    who: &str,
    org: &Org,
    subject: &Subject,
    scope: Option<Scope>,
) -> Result<BTreeSet<Scope>, Failure> {
    let histories = histories(store, org, subject).await?;
    let act = async |entry: &mut AuditEntry| {
        let mut unlocked = BTreeSet::new();
        let done = async {
            for history in &histories {
                store.forget_attempts(org.id(), history, scope, &mut unlocked).await?;
            }
            Ok::<_, StoreError>(())
        }
        .await;
        // Also those before a failure.
        entry.detail["unlocked"] = json!(unlocked);
        done?;
        Ok(unlocked)
    };
    audit::record(store, org.id(), who, UNLOCK, with_scope(subject, scope), act).await
}

/// What unlocking is called in the audit.
const UNLOCK: &str = "otp unlock";

/// How far back a timeline looks for acts of operators.
const ACTS: TimeDelta = TimeDelta::days(31);

/// What operators did for an org in the last days, newest first.
pub async fn recent_acts(store: &Store, org: &Org, now: DateTime<Utc>) -> Result<Vec<AuditEntry>, Failure> {
    Ok(store.audit_entries(org.id(), now - ACTS, now).await?)
}

fn with_scope(subject: &Subject, scope: Option<Scope>) -> Value {
    let mut detail = subject.detail();
    if let Some(scope) = scope {
        detail["scope"] = json!(scope);
    }
    detail
}

/// How long an erasure waits before it deletes what requests that were under way have written.
#[derive(Debug, Clone, Copy, Args)]
pub struct Settle {
    /// How long requests that are under way may take
    #[arg(long, value_name = "SECONDS", default_value_t = SETTLE_SECONDS, hide = true)]
    settle: u64,
}

/// The time that the longest request takes, in seconds.
const SETTLE_SECONDS: u64 = 30;

impl Settle {
    pub const fn time(self) -> Duration {
        Duration::from_secs(self.settle)
    }
}

/// How an erasure ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erased {
    Now {
        /// Items that were deleted, apart from the customer's own and the identities.
        deleted: usize,
        /// Numbers that stay as tombstones.
        numbers_kept: usize,
    },
    /// It was erased before, at this time.
    Before(DateTime<Utc>),
}

/// How far back an erasure looks for customers who were merged into the erased one. What an
/// interrupted merge has left of them expires within two days, and TTL deletes late.
const MERGES: TimeDelta = TimeDelta::days(31);

/// Erases a customer, or continues an erasure that was interrupted. `begun` is called when the
/// customer is unknown to every request; after `settle`, the rest is deleted.
///
/// # Errors
/// Not found if there is no such customer, and a refusal if the customer was merged into another
/// one.
pub async fn erase(
    store: &Store,
    who: &str,
    org: &Org,
    user: UserId,
    settle: Duration,
    begun: impl FnOnce(),
) -> Result<Erased, Failure> {
    let act = async |entry: &mut AuditEntry| {
        let erasure = match store.begin_erasure(org, user, Utc::now()).await? {
            ErasureStart::Begun(erasure) => erasure,
            ErasureStart::Erased(at) => return Ok(Erased::Before(at)),
            ErasureStart::Merged(into) => {
                return Err(Failure::refused(merged_away(store, org, user, into).await?));
            }
            ErasureStart::Unknown => {
                return Err(Failure::not_found(format!("org {} has no customer {user}", org.id())));
            }
        };
        begun();
        // An erasure that fails from here on has erased the customer all the same.
        let numbers_kept = erasure.numbers_kept;
        entry.detail["numbers_kept"] = json!(numbers_kept);
        entry.detail["deleted"] = json!(erasure.deleted);
        finish_merges(store, org, user).await?;
        // Always the whole time: an erasure that continues may have begun by another clock.
        tokio::time::sleep(settle).await;
        let deleted = store.finish_erasure(org, &erasure).await?;
        entry.detail["deleted"] = json!(deleted);
        Ok(Erased::Now { deleted, numbers_kept })
    };
    audit::record(store, org.id(), who, "customer erase", json!({"customer": user}), act).await.map_err(
        |failure| {
            if failure.is_answer() {
                return failure;
            }
            failure.with_detail("Run the command again: it continues where it stopped.")
        },
    )
}

/// Why a customer who was merged into `into` cannot be erased.
async fn merged_away(store: &Store, org: &Org, user: UserId, mut into: UserId) -> Result<String, Failure> {
    loop {
        let found = customer(store, org, into).await?;
        match &found.state {
            CustomerState::Registered { .. } => {
                return Ok(format!(
                    "customer {user} was merged into {into}, who has all that there is to erase"
                ));
            }
            CustomerState::Gone(Tombstone { merged_into: Some(next), .. }) => into = *next,
            CustomerState::Gone(_) => {
                let gone = gone(org, &found).unwrap_or_default();
                return Ok(format!("customer {user} was merged into {into}, who {gone}"));
            }
        }
    }
}

/// Deletes what interrupted merges have left of customers who were merged into this one.
async fn finish_merges(store: &Store, org: &Org, user: UserId) -> Result<(), Failure> {
    let now = Utc::now();
    let mut users = BTreeSet::from([user]);
    let user_of = |value: &Value| value.as_u64().map(UserId);
    // Newest first, so that a customer is known before those who were merged into that one.
    for act in store.audit_entries(org.id(), now - MERGES, now).await? {
        let (kept, merged) = (user_of(&act.detail["customer"]), user_of(&act.detail["merged"]));
        if act.what == MERGE
            && kept.is_some_and(|kept| users.contains(&kept))
            && let Some(merged) = merged
        {
            store.finish_merge(org, merged).await?;
            users.insert(merged);
        }
    }
    Ok(())
}

/// What a merge is called in the audit.
const MERGE: &str = "customer merge";

/// Merges a customer into another one; see [`Store::merge_customers`].
///
/// # Errors
/// Not found if there is no such customer, and a refusal with the conflict.
pub async fn merge(
    store: &Store,
    who: &str,
    org: &Org,
    users: MergedUsers,
    as_card_number: bool,
) -> Result<Merge, Failure> {
    let detail = json!({"customer": users.kept, "merged": users.merged});
    let act = async |entry: &mut AuditEntry| {
        let merged = store.merge_customers(org, users, as_card_number, Utc::now()).await;
        let merged = merged.map_err(|error| match error {
            MergeError::Store(error) => {
                entry.detail["uncertain"] = json!(true);
                Failure::from(error).with_detail(
                    "The customers may be merged all the same, which cannot be undone. Run the command again: it \
                     says so, or merges them.",
                )
            }
            MergeError::Refused(unknown @ MergeRefusal::Unknown(_)) => {
                Failure::not_found(format!("org {}: {unknown}", org.id()))
            }
            MergeError::Refused(refusal @ MergeRefusal::Combine(CombineRefusal::ExternalIds)) => {
                Failure::refused(format!("{refusal}: --as-card-number makes that of the merged one a card number"))
            }
            MergeError::Refused(refusal) => Failure::refused(refusal.to_string()),
        })?;
        if let Merge::Done { identifiers, .. } = &merged {
            entry.detail["identifiers"] = json!(identifiers);
        }
        Ok(merged)
    };
    audit::record(store, org.id(), who, MERGE, detail, act).await
}
