//! How customers and their OTPs are shown: masked or not, as JSON for scripts, as rows for people.

use chrono::{DateTime, SecondsFormat, Utc};
use loyalty_codes::{
    model::{
        customer::IdentifierName,
        delivery_state::ChannelState,
        masking::{masked, masked_name},
        message::Channel,
        org::Org,
        otp::FailedAttempts,
        profile::{Attribution, Customer, Profile, StoredIdentifier},
    },
    store::{CustomerHistory, CustomerState, HistoryOwner, OtpRecord, OwnerHistory, QuotaCount},
};
use serde_json::{Value, json};

use super::timeline::{Event, MessageStatus, OtpStatus};

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
pub(super) fn locked_until(
    org: &Org,
    attempts: &FailedAttempts,
    now: DateTime<Utc>,
) -> Option<DateTime<Utc>> {
    attempts.locked_until(org.attempt_limit(), now)
}

fn otp_json(org: &Org, otp: &OtpRecord, reveal: Reveal, now: DateTime<Utc>) -> Value {
    let status = OtpStatus::of(otp, now);
    let channel = |(channel, state): &(Channel, Option<ChannelState>)| {
        let status = MessageStatus::of(otp, state.as_ref(), now);
        json!({
            "channel": channel.channel_type, "to": reveal.channel(channel), "state": status.name(),
            "detail": status.detail(),
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

fn quotas_json(quotas: &[QuotaCount]) -> Value {
    quotas.iter().map(|quota| json!({"period": quota.period, "issued": quota.issued})).collect()
}

fn identifier_json(StoredIdentifier(account, name, value): &StoredIdentifier, reveal: Reveal) -> Value {
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

/// What became of a customer who is gone, as the end of a sentence about the customer. `None` for
/// one who is registered.
pub fn gone(org: &Org, found: &CustomerHistory) -> Option<String> {
    let CustomerState::Gone(tombstone) = &found.state else { return None };
    let at = time(org, tombstone.gone_at);
    Some(match (tombstone.merged_into, &tombstone.pending) {
        (Some(into), _) => format!("was merged into {into} at {at}"),
        (None, None) => format!("was erased at {at}"),
        (None, Some(_)) => format!(
            "is being erased since {at}; if that takes longer than a minute, erase the customer again: it continues where \
             it stopped"
        ),
    })
}

/// The account, the names, the time and the till of each profile.
pub fn profile_rows(org: &Org, customer: &Customer, reveal: Reveal) -> Vec<Vec<String>> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let name = |name: &Option<String>| or_dash(name.as_deref().map(|name| reveal.name(name)));
    let row = |profile: &Profile| {
        let created = profile.attribution.as_ref();
        vec![
            profile.account.to_string(),
            name(&profile.first_name),
            name(&profile.last_name),
            or_dash(created.map(|created| time(org, created.created_at()))),
            or_dash(created.map(|created| created.till().to_owned())),
        ]
    };
    customer.profiles.iter().map(row).collect()
}

/// Kind, value and account of an identifier.
pub fn identifier_row(
    StoredIdentifier(account, kind, value): &StoredIdentifier,
    reveal: Reveal,
) -> Vec<String> {
    let account = account.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    vec![kind.to_string(), reveal.identifier(*kind, value), account]
}
