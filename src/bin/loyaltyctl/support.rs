//! What support and privacy ask about customers, as data: the commands print it, and the console
//! shows it. Every function that changes something, or shows personal data, records it in the
//! audit, without personal data.

use std::{collections::BTreeSet, fmt, time::Duration};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::Args;
use loyalty_codes::{
    model::{
        customer::{Account, Identifier, IdentifierName, UserId},
        delivery_state::{ChannelState, Outcome},
        masking::{masked, masked_name},
        message::Channel,
        org::Org,
        otp::{CreatedId, FailedAttempts, Scope},
        profile::{Attribution, Customer, Profile, StoredIdentifier},
    },
    store::{
        AddressQuotas, AuditEntry, CustomerHistory, CustomerState, ErasureStart, HistoryOwner, Merge,
        MergeError, MergeRefusal, MergedUsers, OtpEnd, OtpRecord, OwnerHistory, QuotaCount, Store,
    },
};
use serde_json::{Value, json};

use crate::{audit, failure::Failure};

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
    org.identifier(kind, value).map_err(|_| Failure::usage(format!("that is no {kind}")))
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
        let mut done = Ok(());
        for history in &histories {
            if done.is_ok() {
                done = store.revoke_otps(org.id(), history, scope, Utc::now(), &mut revoked).await;
            }
        }
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
        let mut done = Ok(());
        for history in &histories {
            if done.is_ok() {
                done = store.forget_attempts(org.id(), history, scope, &mut unlocked).await;
            }
        }
        // Also those before a failure.
        entry.detail["unlocked"] = json!(unlocked);
        done?;
        Ok(unlocked)
    };
    audit::record(store, org.id(), who, "otp unlock", with_scope(subject, scope), act).await
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
                return Err(Failure::refused(format!(
                    "customer {user} was merged into {into}, who has all that there is to erase"
                )));
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
            MergeError::Store(error) => error.into(),
            MergeError::Refused(unknown @ MergeRefusal::Unknown(_)) => {
                Failure::not_found(format!("org {}: {unknown}", org.id()))
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

/// What can be said of an OTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtpStatus {
    Open,
    Validated(DateTime<Utc>),
    Expired,
    Revoked(DateTime<Utc>),
    /// It expired and is not stored any more; it may have been validated before.
    Deleted,
}

impl OtpStatus {
    pub fn of(otp: &OtpRecord, now: DateTime<Utc>) -> Self {
        match otp.end {
            OtpEnd::Validated(at) => Self::Validated(at),
            OtpEnd::Revoked(at) => Self::Revoked(at),
            OtpEnd::Deleted => Self::Deleted,
            OtpEnd::None if otp.is_open(now) => Self::Open,
            OtpEnd::None => Self::Expired,
        }
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Validated(_) => "validated",
            Self::Expired => "expired",
            Self::Revoked(_) => "revoked",
            Self::Deleted => "deleted",
        }
    }

    /// When it was validated or revoked.
    pub const fn at(self) -> Option<DateTime<Utc>> {
        match self {
            Self::Validated(at) | Self::Revoked(at) => Some(at),
            Self::Open | Self::Expired | Self::Deleted => None,
        }
    }
}

/// What became of a message on one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It waits to be sent.
    Queued,
    /// It was not sent, because its OTP cannot be used any more.
    NotSent,
    /// A provider may or may not have taken it.
    Sending,
    Ended(Outcome),
}

impl Fate {
    fn of(otp: &OtpRecord, state: Option<&ChannelState>, now: DateTime<Utc>) -> Self {
        match state {
            None if otp.is_open(now) => Self::Queued,
            None => Self::NotSent,
            Some(ChannelState::Sending(_)) => Self::Sending,
            Some(ChannelState::Done(outcome)) => Self::Ended(outcome.clone()),
        }
    }

    pub const fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::NotSent => "not_sent",
            Self::Sending => "sending",
            Self::Ended(outcome) => outcome.name(),
        }
    }

    /// Why it failed, or what the provider calls it.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Ended(Outcome::Failed(reason)) => Some(reason.to_string()),
            Self::Ended(Outcome::Sent { provider_id }) => Some(provider_id.clone()),
            _ => None,
        }
    }
}

/// The state with its detail, such as `failed: opted_out`.
impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.detail() {
            Some(detail) => write!(f, "{}: {detail}", self.name()),
            None => f.write_str(self.name()),
        }
    }
}

/// Something that happened to a customer or a contact.
#[derive(Clone)]
pub struct Event {
    pub at: DateTime<Utc>,
    /// The scope of the OTP. `None` for what concerns no OTP.
    pub scope: Option<Scope>,
    /// The identifier, if it happened to a contact and not to a customer.
    pub contact: Option<StoredIdentifier>,
    pub what: Happening,
}

/// What happened.
#[derive(Clone)]
pub enum Happening {
    Registered,
    /// A profile was made in an account.
    Joined(Account),
    Issued(CreatedId),
    /// A message of an OTP was asked for, and this became of it.
    Message(CreatedId, Channel, Fate),
    Validated(CreatedId),
    Revoked(CreatedId),
    Expired(CreatedId),
    /// A wrong code was typed.
    Refused,
    /// No code is checked until this time.
    Locked(DateTime<Utc>),
    Erased,
    MergedInto(UserId),
}

/// Everything that is known to have happened to a customer in the last days, newest first. That a
/// till has fetched an OTP is not among it, because a fetch writes nothing.
pub fn timeline(org: &Org, customer: &CustomerHistory, now: DateTime<Utc>) -> Vec<Event> {
    let mut events = Vec::new();
    let mut of_customer = |at, what| events.push(Event { at, scope: None, contact: None, what });
    match &customer.state {
        CustomerState::Registered { at, customer } => {
            if let Some(at) = *at {
                of_customer(at, Happening::Registered);
            }
            for profile in &customer.profiles {
                let created = profile.attribution.as_ref().map(Attribution::created_at);
                if let Some(created) = created.filter(|created| Some(*created) != *at) {
                    of_customer(created, Happening::Joined(profile.account.clone()));
                }
            }
        }
        CustomerState::Gone(tombstone) => {
            let what = tombstone.merged_into.map_or(Happening::Erased, Happening::MergedInto);
            of_customer(tombstone.gone_at, what);
        }
    }
    events.extend(otp_events(org, customer.all(), now));
    newest_first(events)
}

/// The same for contacts or customers of whom only the OTPs are known.
pub fn otp_timeline(org: &Org, histories: &[OwnerHistory], now: DateTime<Utc>) -> Vec<Event> {
    newest_first(otp_events(org, histories.iter(), now))
}

/// Of events with one time, the later ones were added later.
fn newest_first(mut events: Vec<Event>) -> Vec<Event> {
    events.reverse();
    events.sort_by_key(|event| std::cmp::Reverse(event.at));
    events
}

fn otp_events<'a>(
    org: &Org,
    histories: impl Iterator<Item = &'a OwnerHistory>,
    now: DateTime<Utc>,
) -> Vec<Event> {
    let mut events = Vec::new();
    for history in histories {
        let contact = match &history.owner {
            HistoryOwner::Customer(_) => None,
            HistoryOwner::Contact(address) => Some(address.clone()),
        };
        let mut push =
            |at, scope, what| events.push(Event { at, scope: Some(scope), contact: contact.clone(), what });
        for otp in &history.otps {
            let (id, scope) = (otp.created_id, otp.scope);
            push(id.issued_at(), scope, Happening::Issued(id));
            for (requested_at, channel, fate) in otp_channels(otp, now) {
                push(requested_at, scope, Happening::Message(id, channel.clone(), fate));
            }
            match OtpStatus::of(otp, now) {
                OtpStatus::Validated(at) => push(at, scope, Happening::Validated(id)),
                OtpStatus::Revoked(at) => push(at, scope, Happening::Revoked(id)),
                OtpStatus::Expired => push(otp.valid_until, scope, Happening::Expired(id)),
                OtpStatus::Open | OtpStatus::Deleted => {}
            }
        }
        for (scope, attempts) in &history.failed_attempts {
            for at in attempts.times() {
                push(*at, *scope, Happening::Refused);
            }
            if let (Some(until), Some(last)) =
                (attempts.locked_until(org.attempt_limit(), now), attempts.times().last())
            {
                push(*last, *scope, Happening::Locked(until));
            }
        }
    }
    events
}

impl Happening {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Joined(_) => "joined",
            Self::Issued(_) => "issued",
            Self::Message(..) => "message",
            Self::Validated(_) => "validated",
            Self::Revoked(_) => "revoked",
            Self::Expired(_) => "expired",
            Self::Refused => "refused",
            Self::Locked(_) => "locked",
            Self::Erased => "erased",
            Self::MergedInto(_) => "merged",
        }
    }

    /// The OTP that it happened to.
    pub const fn otp(&self) -> Option<CreatedId> {
        match self {
            Self::Issued(id)
            | Self::Message(id, ..)
            | Self::Validated(id)
            | Self::Revoked(id)
            | Self::Expired(id) => Some(*id),
            _ => None,
        }
    }

    /// What else there is to say, with addresses masked.
    pub fn detail(&self, org: &Org) -> String {
        match self {
            Self::Joined(account) => account.to_string(),
            Self::Message(_, channel, fate) => {
                format!("{} to {} {fate}", channel.channel_type, Reveal::Masked.channel(channel))
            }
            Self::Locked(until) => format!("until {}", time(org, *until)),
            Self::MergedInto(user) => format!("into {user}"),
            Self::Registered
            | Self::Issued(_)
            | Self::Validated(_)
            | Self::Revoked(_)
            | Self::Expired(_)
            | Self::Refused
            | Self::Erased => String::new(),
        }
    }
}

impl Event {
    pub fn to_json(&self, org: &Org) -> Value {
        json!({
            "at": time(org, self.at),
            "what": self.what.name(),
            "scope": self.scope,
            "created_id": self.what.otp().map(|id| id.0),
            "contact": self.contact.as_ref().map(|contact| identifier_json(contact, Reveal::Masked)),
            "detail": self.what.detail(org),
        })
    }
}

/// A time in the org's time zone, as the API writes it.
pub fn time(org: &Org, at: DateTime<Utc>) -> String {
    // `false` makes UTC `+00:00` instead of `Z`.
    org.timezone.local(at).to_rfc3339_opts(SecondsFormat::Secs, false)
}

/// Whether personal data are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reveal {
    Masked,
    All,
}

impl Reveal {
    pub fn identifier(self, name: IdentifierName, value: &str) -> String {
        match self {
            Self::Masked => masked(name, value),
            Self::All => value.to_owned(),
        }
    }

    pub fn name(self, name: &str) -> String {
        match self {
            Self::Masked => masked_name(name),
            Self::All => name.to_owned(),
        }
    }

    pub fn channel(self, channel: &Channel) -> String {
        self.identifier(channel.channel_type.identifier(), &channel.value)
    }
}

/// The OTPs of an owner as JSON.
pub fn history_json(org: &Org, history: &OwnerHistory, reveal: Reveal, now: DateTime<Utc>) -> Value {
    let owner = match &history.owner {
        HistoryOwner::Customer(user) => json!({"customer": user}),
        HistoryOwner::Contact(address) => json!({"contact": identifier_json(address, reveal)}),
    };
    let otps: Vec<_> = history.otps.iter().map(|otp| otp_json(org, otp, reveal, now)).collect();
    let attempts: Vec<_> = history
        .failed_attempts
        .iter()
        .map(|(scope, attempts)| {
            json!({
                "scope": scope,
                "wrong": attempts.times().iter().map(|at| time(org, *at)).collect::<Vec<_>>(),
                "locked_until": locked_until(org, attempts, now).map(|until| time(org, until)),
            })
        })
        .collect();
    json!({"owner": owner, "otps": otps, "guesses": attempts, "quotas": quotas_json(&history.quotas)})
}

/// The time until which no code of a scope is checked.
pub fn locked_until(org: &Org, attempts: &FailedAttempts, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    attempts.locked_until(org.attempt_limit(), now)
}

fn otp_json(org: &Org, otp: &OtpRecord, reveal: Reveal, now: DateTime<Utc>) -> Value {
    let status = OtpStatus::of(otp, now);
    let channel = |(channel, state): &(Channel, Option<ChannelState>)| {
        let fate = Fate::of(otp, state.as_ref(), now);
        json!({
            "channel": channel.channel_type, "to": reveal.channel(channel), "state": fate.name(),
            "detail": fate.detail(),
        })
    };
    let messages: Vec<_> = otp
        .messages
        .iter()
        .map(|message| {
            let channels: Vec<_> = message.channels.iter().map(channel).collect();
            json!({"requested_at": time(org, message.requested_at), "channels": channels})
        })
        .collect();
    json!({
        "created_id": otp.created_id.0,
        "scope": otp.scope,
        "issued_at": time(org, otp.created_id.issued_at()),
        "valid_until": time(org, otp.valid_until),
        "state": status.name(),
        "ended_at": status.at().map(|at| time(org, at)),
        "sends": otp.sends,
        "messages": messages,
    })
}

/// The channels of an OTP's messages: when each was asked for, and what became of it.
pub fn otp_channels(otp: &OtpRecord, now: DateTime<Utc>) -> Vec<(DateTime<Utc>, &Channel, Fate)> {
    let messages = otp.messages.iter();
    let channels = messages.flat_map(|message| {
        let channels = message.channels.iter();
        channels.map(|(channel, state)| (message.requested_at, channel, Fate::of(otp, state.as_ref(), now)))
    });
    channels.collect()
}

fn quotas_json(quotas: &[QuotaCount]) -> Value {
    quotas.iter().map(|quota| json!({"period": quota.period, "issued": quota.issued})).collect()
}

pub fn identifier_json(StoredIdentifier(account, name, value): &StoredIdentifier, reveal: Reveal) -> Value {
    json!({
        "source": account.as_ref().map(|account| account.source),
        "account": account.as_ref().map(|account| &account.id.0),
        "type": name,
        "value": reveal.identifier(*name, value),
    })
}

fn profile_json(org: &Org, profile: &Profile, reveal: Reveal) -> Value {
    let name = |name: &Option<String>| name.as_deref().map(|name| reveal.name(name));
    json!({
        "source": profile.account.source,
        "account": profile.account.id.0,
        "first_name": name(&profile.first_name),
        "last_name": name(&profile.last_name),
        "created_at": profile.attribution.as_ref().map(|attribution| time(org, attribution.created_at())),
        "created_by": profile.attribution.as_ref().map(Attribution::till),
    })
}

/// Everything that is stored about a customer as JSON, without codes.
pub fn customer_json(org: &Org, found: &CustomerHistory, reveal: Reveal, now: DateTime<Utc>) -> Value {
    let mut json = json!({"org": org.id(), "id": found.user});
    match &found.state {
        CustomerState::Registered { at, customer: Customer { profiles, identifiers, .. } } => {
            json["state"] = "registered".into();
            json["registered_at"] = json!(at.map(|at| time(org, at)));
            json["profiles"] = profiles.iter().map(|profile| profile_json(org, profile, reveal)).collect();
            json["identifiers"] = identifiers.iter().map(|listed| identifier_json(listed, reveal)).collect();
        }
        CustomerState::Gone(tombstone) => {
            json["state"] = match (tombstone.merged_into, &tombstone.pending) {
                (Some(_), _) => "merged",
                (None, Some(_)) => "being erased",
                (None, None) => "erased",
            }
            .into();
            json["gone_at"] = time(org, tombstone.gone_at).into();
            json["merged_into"] = json!(tombstone.merged_into);
        }
    }
    json["otps"] = found.all().map(|history| history_json(org, history, reveal, now)).collect();
    json["addresses"] = found
        .addresses
        .iter()
        .map(|address| {
            json!({
                "type": address.name,
                "value": reveal.identifier(address.name, &address.value),
                "quotas": quotas_json(&address.quotas),
            })
        })
        .collect();
    json
}
