//! What happened to customers and contacts in the last days.

use std::fmt;

use chrono::{DateTime, Utc};
use loyalty_codes::{
    model::{
        customer::{Account, UserId},
        delivery_state::{ChannelState, Outcome},
        message::Channel,
        org::Org,
        otp::{CreatedId, Scope},
        profile::{Attribution, StoredIdentifier},
    },
    store::{
        ActOutcome, AuditEntry, CustomerHistory, CustomerState, HistoryOwner, OtpEnd, OtpRecord,
        OwnerHistory, distinct_attempts,
    },
};
use serde_json::json;

use super::{
    MERGE, UNLOCK,
    view::{Reveal, locked_until, time},
};

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
pub enum MessageStatus {
    /// It waits to be sent.
    Queued,
    /// It was not sent, because its OTP cannot be used any more.
    NotSent,
    /// A provider may or may not have taken it.
    Sending,
    Ended(Outcome),
}

impl MessageStatus {
    pub fn of(otp: &OtpRecord, state: Option<&ChannelState>, now: DateTime<Utc>) -> Self {
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
impl fmt::Display for MessageStatus {
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
    pub what: EventKind,
}

/// What happened.
#[derive(Clone)]
pub enum EventKind {
    Registered,
    /// A profile was made in an account.
    Joined(Account),
    /// An OTP that expires at this time.
    Issued(CreatedId, DateTime<Utc>),
    /// A message of an OTP was asked for, and this became of it.
    Message(CreatedId, Channel, MessageStatus),
    Validated(CreatedId),
    Revoked(CreatedId),
    Expired(CreatedId),
    /// A wrong code was typed.
    Refused,
    /// No code is checked until this time.
    Locked(DateTime<Utc>),
    /// An operator had the wrong codes of these scopes forgotten.
    Unlocked(Vec<Scope>),
    Erased,
    MergedInto(UserId),
    /// This customer was merged into the one whose timeline it is.
    Received(UserId),
}

/// Everything that is known to have happened to a customer in the last days, newest first. That a
/// till has fetched an OTP is not among it, because a fetch writes nothing.
///
/// `acts` are entries of the audit, newest first: what unlocking and merging delete is known from
/// them alone.
pub fn timeline(
    org: &Org,
    customer: &CustomerHistory,
    acts: &[AuditEntry],
    now: DateTime<Utc>,
) -> Vec<Event> {
    let mut events = Vec::new();
    let mut of_customer = |at, what| events.push(Event { at, scope: None, contact: None, what });
    match &customer.state {
        CustomerState::Registered { at, customer } => {
            if let Some(at) = *at {
                of_customer(at, EventKind::Registered);
            }
            for profile in &customer.profiles {
                let created = profile.attribution.as_ref().map(Attribution::created_at);
                if let Some(created) = created.filter(|created| Some(*created) != *at) {
                    of_customer(created, EventKind::Joined(profile.account.clone()));
                }
            }
        }
        CustomerState::Gone(tombstone) => {
            let what = tombstone.merged_into.map_or(EventKind::Erased, EventKind::MergedInto);
            of_customer(tombstone.gone_at, what);
        }
    }
    events.extend(otp_events(org, customer.all(), now));
    events.extend(acts.iter().rev().filter_map(|act| event_of_act(act, customer.user)));
    newest_first(events)
}

/// What an act did to a customer that nothing else shows.
fn event_of_act(act: &AuditEntry, user: UserId) -> Option<Event> {
    let detail = &act.detail;
    if detail["customer"] != json!(user) {
        return None;
    }
    let what = match act.what.as_str() {
        UNLOCK => {
            let scopes = detail["unlocked"].as_array()?.iter();
            let scopes: Vec<_> = scopes.filter_map(|scope| Scope::parse(scope.as_str()?)).collect();
            (!scopes.is_empty()).then_some(EventKind::Unlocked(scopes))?
        }
        MERGE if act.outcome == ActOutcome::Done => EventKind::Received(UserId(detail["merged"].as_u64()?)),
        _ => return None,
    };
    Some(Event { at: act.at, scope: None, contact: None, what })
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
    histories: impl Iterator<Item = &'a OwnerHistory> + Clone,
    now: DateTime<Utc>,
) -> Vec<Event> {
    let mut events = Vec::new();
    let mut push = |history: &OwnerHistory, at, scope, what| {
        let contact = match &history.owner {
            HistoryOwner::Customer(_) => None,
            HistoryOwner::Contact(address) => Some(address.clone()),
        };
        events.push(Event { at, scope: Some(scope), contact, what });
    };
    for history in histories.clone() {
        let mut push = |at, scope, what| push(history, at, scope, what);
        for otp in &history.otps {
            let (id, scope) = (otp.created_id, otp.scope);
            push(id.issued_at(), scope, EventKind::Issued(id, otp.valid_until));
            for (requested_at, channel, status) in otp_channels(otp, now) {
                push(requested_at, scope, EventKind::Message(id, channel.clone(), status));
            }
            match OtpStatus::of(otp, now) {
                OtpStatus::Validated(at) => push(at, scope, EventKind::Validated(id)),
                OtpStatus::Revoked(at) => push(at, scope, EventKind::Revoked(id)),
                OtpStatus::Expired => push(otp.valid_until, scope, EventKind::Expired(id)),
                OtpStatus::Open | OtpStatus::Deleted => {}
            }
        }
    }
    for (history, scope, attempts) in distinct_attempts(histories) {
        for at in attempts.times() {
            push(history, *at, scope, EventKind::Refused);
        }
        if let (Some(until), Some(last)) = (locked_until(org, &attempts, now), attempts.times().last()) {
            push(history, *last, scope, EventKind::Locked(until));
        }
    }
    events
}

impl EventKind {
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Joined(_) => "joined",
            Self::Issued(..) => "issued",
            Self::Message(..) => "message",
            Self::Validated(_) => "validated",
            Self::Revoked(_) => "revoked",
            Self::Expired(_) => "expired",
            Self::Refused => "refused",
            Self::Locked(_) => "locked",
            Self::Erased => "erased",
            Self::Unlocked(_) => "unlocked",
            Self::MergedInto(_) => "merged",
            Self::Received(_) => "merged_with",
        }
    }

    /// The OTP that it happened to.
    pub const fn otp(&self) -> Option<CreatedId> {
        match self {
            Self::Issued(id, _)
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
            Self::Message(_, channel, status) => {
                format!("{} to {} {status}", channel.channel_type, Reveal::Masked.channel(channel))
            }
            Self::Locked(until) => format!("until {}", time(org, *until)),
            Self::Unlocked(scopes) => {
                scopes.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", ")
            }
            Self::MergedInto(user) => format!("into {user}"),
            Self::Received(user) => format!("customer {user}, whose identifiers this one has"),
            Self::Issued(_, valid_until) => format!("valid until {}", time(org, *valid_until)),
            Self::Registered
            | Self::Validated(_)
            | Self::Revoked(_)
            | Self::Expired(_)
            | Self::Refused
            | Self::Erased => String::new(),
        }
    }
}

/// The channels of an OTP's messages: when each was asked for, and what became of it.
pub fn otp_channels(otp: &OtpRecord, now: DateTime<Utc>) -> Vec<(DateTime<Utc>, &Channel, MessageStatus)> {
    let messages = otp.messages.iter();
    let channels = messages.flat_map(|message| {
        let channels = message.channels.iter();
        channels.map(|(channel, state)| {
            (message.requested_at, channel, MessageStatus::of(otp, state.as_ref(), now))
        })
    });
    channels.collect()
}
