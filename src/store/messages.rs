//! Messages that carry OTPs, and what became of them on each channel.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::{
    AttributeValue, KeysAndAttributes, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};
use chrono::{DateTime, TimeDelta, Utc};

#[cfg(feature = "cli")]
use super::MessageRecord;
use super::{
    Store, StoreError, StoredOrg,
    error::unmet_condition,
    item::{Attributes, Item, NewItem, json, millis, n, s, ttl},
    keys::{self, EXPIRES_AT, Key, PK},
    orgs::stored_org,
    otps::{CODE, CONSUMED_AT},
    retries::is_partial,
};
#[cfg(feature = "cli")]
use crate::model::message::Channel;
use crate::{
    model::{
        delivery_state::{ChannelState, Claim, FailureReason, Outcome},
        message::Message,
        org::OrgId,
        otp::{Code, CreatedId, OtpSeries, Scope},
    },
    secret::Secret,
};

/// On a message's item: what became of each channel, by its position in the list of channels. A
/// channel is absent until it is sent. Messages of version 0.1.0 have no such attribute, because a
/// pipe delivered them.
pub(super) const DELIVERIES: &str = "deliveries";
/// In the entry of a channel.
const STATE: &str = "state";
const CLAIM: &str = "claim";
const REASON: &str = "reason";
const PROVIDER_ID: &str = "provider_id";
/// The [`STATE`] of a channel whose delivery has begun.
const SENDING: &str = "sending";

const CREATED_ID: &str = "created_id";
/// Not read, because the key contains it, too. It is for whoever looks at the item.
const ORG: &str = "org";
const SCOPE: &str = "scope";
const CHANNELS: &str = "channels";
const TEXT: &str = "text";
const EMAIL_SUBJECT: &str = "email_subject";
const EMAIL_BODY: &str = "email_body";
const SMS_TEMPLATE_ID: &str = "sms_template_id";
const VALID_UNTIL: &str = "valid_until";
/// When the message was asked for, if that is not when its OTP was issued.
const REQUESTED_AT: &str = "requested_at";
/// In the count of an hour: how many messages were counted, and by whom the last ones were.
const SENT: &str = "sent";
const COUNTED_BY: &str = "counted_by";

/// How long a message is kept after its OTP has expired, so that an operator sees what became of
/// it.
const KEPT: TimeDelta = TimeDelta::hours(24);

/// Which message of which OTP.
pub(super) struct NewMessage<'a> {
    pub series: &'a OtpSeries,
    pub otp: CreatedId,
    /// 1 for the first message of the OTP, and one more for each time it is sent again.
    pub send: u32,
    pub valid_until: DateTime<Utc>,
    pub requested_at: DateTime<Utc>,
}

/// A message as it is stored, with its org and the state of its OTP.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// `None` if there is no such org any more.
    pub org: Option<StoredOrg>,
    pub created_id: CreatedId,
    pub scope: Scope,
    pub message: Message,
    /// The state of each channel, by its position in `message.channels`.
    pub states: Vec<Option<ChannelState>>,
    pub requested_at: DateTime<Utc>,
    pub valid_until: DateTime<Utc>,
    pub otp: MessageOtp,
}

/// The OTP that a message carries.
#[derive(Debug, Clone)]
pub enum MessageOtp {
    Unused(Code),
    Consumed,
    /// There is no such OTP any more.
    Gone,
}

/// A change of the state of one channel.
#[derive(Debug, Clone)]
pub struct StateChange {
    /// The position of the channel.
    pub position: usize,
    /// The claim in the state that is changed. `None` if the channel has no state.
    pub from: Option<Claim>,
    pub to: ChannelState,
}

impl Store {
    /// The write that puts a new message, whose insertion starts its delivery.
    pub(super) fn put_message(
        &self,
        new: &NewMessage<'_>,
        message: &Message,
    ) -> Result<TransactWriteItem, StoreError> {
        let item = NewItem::new(&keys::message(new.series, new.otp, new.send))
            .with(CREATED_ID, n(new.otp))
            .with(ORG, n(new.series.org))
            .with(SCOPE, s(new.series.scope.as_str()))
            .with(CHANNELS, json(&message.channels)?)
            .with(TEXT, s(message.text.expose()))
            .with(EMAIL_SUBJECT, s(message.email_subject.expose()))
            .with(EMAIL_BODY, s(message.email_body.expose()))
            .with(SMS_TEMPLATE_ID, s(&message.sms_template_id))
            .with(VALID_UNTIL, millis(new.valid_until))
            .with(DELIVERIES, AttributeValue::M(Attributes::new()))
            .with(EXPIRES_AT, ttl(new.valid_until + KEPT));
        let is_first = new.send == 1;
        self.put_new(if is_first { item } else { item.with(REQUESTED_AT, millis(new.requested_at)) })
    }

    /// Reads a message, its OTP and its org in one call, strongly consistently. `None` if there is
    /// no such message, or it is of version 0.1.0.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt. It is
    /// [corrupt](StoreError::is_corrupt) only if the message or its OTP is, and not if the org is,
    /// which other messages need, too.
    pub async fn message(&self, key: &Key) -> Result<Option<StoredMessage>, StoreError> {
        let (Some(otp), Some(org)) = (keys::otp_of_message(&key.sk), keys::org_of(&key.pk)) else {
            return Ok(None);
        };
        let otp = Key { pk: key.pk.clone(), sk: otp };
        let org = keys::org(org);
        let lookup = KeysAndAttributes::builder()
            .set_keys(Some(vec![key.attributes(), otp.attributes(), org.attributes()]))
            .consistent_read(true)
            .build()
            .map_err(StoreError::from_build)?;
        let batch = self.client.batch_get_item().request_items(&self.table, lookup).send().await;
        let batch = batch.map_err(StoreError::from_sdk)?;
        if is_partial(&batch) {
            return Err(StoreError::gave_up("DynamoDB keeps leaving keys unprocessed"));
        }
        let items = batch.responses.unwrap_or_default().remove(&self.table).unwrap_or_default();
        let with_sort_key = |sk: &str| {
            let is_it = |item: &&Attributes| Item(item).s(keys::SK).is_ok_and(|found| found == sk);
            items.iter().find(is_it)
        };
        let Some(message) = with_sort_key(&key.sk).map(Item).filter(|item| item.has(DELIVERIES)) else {
            return Ok(None);
        };
        let otp = match with_sort_key(&otp.sk).map(Item) {
            None => MessageOtp::Gone,
            Some(otp) if otp.has(CONSUMED_AT) => MessageOtp::Consumed,
            Some(otp) => MessageOtp::Unused(Code::stored(otp.s(CODE)?)),
        };
        let mut message = read(&message, otp)?;
        let org = with_sort_key(&org.sk).map(stored_org).transpose();
        message.org = org.map_err(StoreError::until_repaired)?;
        Ok(Some(message))
    }

    /// Changes the states of channels of a message, all or none. Returns whether they were changed:
    /// they are not if one of them has another state meanwhile, or the message does not exist any
    /// more. A call that is repeated because its answer was lost finds the states that it has
    /// written, and returns `true`, too.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn change_states(&self, key: &Key, changes: &[StateChange]) -> Result<bool, StoreError> {
        let mut expressions = Expressions::default();
        let mut conditions = vec![format!("attribute_exists({PK})")];
        let mut assignments = Vec::new();
        for StateChange { position, from, to } in changes {
            let channel = format!("{DELIVERIES}.{}", expressions.name(&position.to_string()));
            let is_from = match from {
                None => format!("attribute_not_exists({channel})"),
                Some(Claim(claim)) => format!("{channel}.{CLAIM} = {}", expressions.value(s(claim))),
            };
            let is_to = format!("{channel} = {}", expressions.value(to_attribute(to)));
            conditions.push(format!("({is_from} OR {is_to})"));
            assignments.push(is_to);
        }
        let written = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(key.attributes()))
            .update_expression(format!("SET {}", assignments.join(", ")))
            .condition_expression(conditions.join(" AND "))
            .set_expression_attribute_names(Some(expressions.names))
            .set_expression_attribute_values(Some(expressions.values))
            .send()
            .await;
        match written {
            Ok(_) => Ok(true),
            Err(error) if unmet_condition(&error).is_some() => Ok(false),
            Err(error) => Err(StoreError::from_sdk(error)),
        }
    }

    /// Counts `messages` of an org, which `claim` delivers, in the UTC hour of `now`, if there is
    /// room for all of them within `limit`. Returns how many there is room for; if that is less,
    /// nothing was counted. A call that is repeated because its answer was lost counts once, unless
    /// another one was counted in between. A claim counts successfully once.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the count is not a number.
    pub async fn count_messages(
        &self,
        org: OrgId,
        Claim(claim): &Claim,
        messages: usize,
        limit: i64,
        now: DateTime<Utc>,
    ) -> Result<usize, StoreError> {
        let wanted = i64::try_from(messages).unwrap_or(i64::MAX);
        if limit < wanted {
            return Ok(usize::try_from(limit).unwrap_or_default());
        }
        let counted = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(keys::message_budget(org, now).attributes()))
            .update_expression(format!(
                "ADD {SENT} :messages SET {COUNTED_BY} = :by, {EXPIRES_AT} = :expires"
            ))
            .condition_expression(format!(
                "attribute_not_exists({SENT}) \
                 OR ({SENT} <= :most AND (attribute_not_exists({COUNTED_BY}) OR {COUNTED_BY} <> :by))"
            ))
            .expression_attribute_values(":messages", n(messages))
            .expression_attribute_values(":most", n(limit - wanted))
            .expression_attribute_values(":by", s(claim))
            .expression_attribute_values(":expires", ttl(now + TimeDelta::hours(2)))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .send()
            .await;
        let Err(error) = counted else {
            return Ok(messages);
        };
        let Some(refusal) = unmet_condition(&error) else {
            return Err(StoreError::from_sdk(error));
        };
        let empty = Attributes::new();
        let count = Item(refusal.item().unwrap_or(&empty));
        if count.s(COUNTED_BY).is_ok_and(|by| by == claim) {
            return Ok(messages);
        }
        let sent: i64 = count.n(SENT).map_err(StoreError::until_repaired)?;
        Ok(usize::try_from(limit - sent).unwrap_or_default())
    }
}

/// The placeholders of an expression.
#[derive(Default)]
struct Expressions {
    names: HashMap<String, String>,
    values: Attributes,
}

impl Expressions {
    /// The placeholder of a name that an expression cannot contain, because it begins with a digit.
    fn name(&mut self, name: &str) -> String {
        let placeholder = format!("#{name}");
        self.names.insert(placeholder.clone(), name.to_owned());
        placeholder
    }

    /// A new placeholder for a value.
    fn value(&mut self, value: AttributeValue) -> String {
        let placeholder = format!(":v{}", self.values.len());
        self.values.insert(placeholder.clone(), value);
        placeholder
    }
}

/// The state of each channel of a message. Those of version 0.1.0 have none.
fn states(item: &Item<'_>, channels: usize) -> Result<Vec<Option<ChannelState>>, StoreError> {
    if !item.has(DELIVERIES) {
        return Ok(vec![None; channels]);
    }
    let deliveries = item.map(DELIVERIES)?;
    let state = |position: usize| {
        let entry = deliveries.get(&position.to_string());
        entry.map(|entry| entry.as_m().map_err(|_| corrupt_state()).and_then(from_attribute)).transpose()
    };
    (0..channels).map(state).collect()
}

/// When a message was asked for.
fn requested_at(item: &Item<'_>, otp: CreatedId) -> Result<DateTime<Utc>, StoreError> {
    if item.has(REQUESTED_AT) { item.millis(REQUESTED_AT) } else { Ok(otp.issued_at()) }
}

/// A message without its text.
#[cfg(feature = "cli")]
pub(super) fn read_record(item: &Item<'_>) -> Result<MessageRecord, StoreError> {
    let channels: Vec<Channel> = item.json(CHANNELS)?;
    let states = states(item, channels.len())?;
    Ok(MessageRecord {
        requested_at: requested_at(item, CreatedId(item.n(CREATED_ID)?))?,
        channels: channels.into_iter().zip(states).collect(),
    })
}

fn read(item: &Item<'_>, otp: MessageOtp) -> Result<StoredMessage, StoreError> {
    let created_id = CreatedId(item.n(CREATED_ID)?);
    let secret = |name| item.s(name).map(|text| Secret::new(text.to_owned()));
    let message = Message {
        channels: item.json(CHANNELS)?,
        text: secret(TEXT)?,
        email_subject: secret(EMAIL_SUBJECT)?,
        email_body: secret(EMAIL_BODY)?,
        sms_template_id: item.s(SMS_TEMPLATE_ID)?.to_owned(),
    };
    Ok(StoredMessage {
        org: None,
        created_id,
        scope: Scope::parse(item.s(SCOPE)?).ok_or_else(|| StoreError::corrupt("unknown scope"))?,
        states: states(item, message.channels.len())?,
        message,
        requested_at: requested_at(item, created_id)?,
        valid_until: item.millis(VALID_UNTIL)?,
        otp,
    })
}

fn corrupt_state() -> StoreError {
    StoreError::corrupt(format_args!("attribute `{DELIVERIES}` is malformed"))
}

fn from_attribute(entry: &Attributes) -> Result<ChannelState, StoreError> {
    let item = Item(entry);
    let outcome = match item.s(STATE)? {
        SENDING => return Ok(ChannelState::Sending(Claim(item.s(CLAIM)?.to_owned()))),
        "sent" => Outcome::Sent { provider_id: item.s(PROVIDER_ID)?.to_owned() },
        "failed" => Outcome::Failed(FailureReason::parse(item.s(REASON)?).ok_or_else(corrupt_state)?),
        "expired" => Outcome::Expired,
        "used" => Outcome::Used,
        "over_budget" => Outcome::OverBudget,
        _ => return Err(corrupt_state()),
    };
    Ok(ChannelState::Done(outcome))
}

fn to_attribute(state: &ChannelState) -> AttributeValue {
    let (name, detail) = match state {
        ChannelState::Sending(Claim(claim)) => (SENDING, Some((CLAIM, claim.clone()))),
        ChannelState::Done(outcome) => {
            let detail = match outcome {
                Outcome::Sent { provider_id } => Some((PROVIDER_ID, provider_id.clone())),
                Outcome::Failed(reason) => Some((REASON, reason.to_string())),
                Outcome::Expired | Outcome::Used | Outcome::OverBudget => None,
            };
            (outcome.name(), detail)
        }
    };
    let entries = [(STATE, name.to_owned())].into_iter().chain(detail);
    AttributeValue::M(entries.map(|(name, value)| (name.to_owned(), s(value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_is_read_back_as_it_was_written() {
        let reasons = FailureReason::NAMED.iter().copied().chain([FailureReason::Gateway(410)]);
        let outcomes = reasons.map(Outcome::Failed).chain([
            Outcome::Sent { provider_id: "abc".into() },
            Outcome::Expired,
            Outcome::Used,
            Outcome::OverBudget,
        ]);
        let states = outcomes.map(ChannelState::Done).chain([ChannelState::Sending(Claim("1".into()))]);
        for state in states {
            let written = to_attribute(&state);
            assert_eq!(from_attribute(written.as_m().unwrap()).unwrap(), state);
        }
    }
}
