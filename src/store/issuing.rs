//! Issuing OTPs, sending them again, and counting both against the quotas.
//!
//! One transaction writes the OTP, its message, the response, and the count of each quota, each on
//! the condition that it is not used up. In orgs with a cooldown or with `CONF_OTP_REISSUE =
//! "SAME"`, the transaction also replaces the item of the series' last OTP on the condition that it
//! is the one that was read. So the requests for a series take effect one after the other, and each
//! is decided by what the one before has written. Other orgs neither read nor write that item.

use std::collections::BTreeMap;

use aws_sdk_dynamodb::types::{ReturnValuesOnConditionCheckFailure, TransactWriteItem};
use chrono::{DateTime, TimeDelta, Utc};

use super::{
    IdempotentRequest, Item, ResponseToStore, Store, StoreError, StoredResponse,
    item::{Attributes, NewItem, millis, n, s, ttl},
    keys::{self, EXPIRES_AT, Key, PK},
    messages::NewMessage,
    otps::{CODE, CONSUMED_AT, CREATED_ID, SENDS, VALID_UNTIL, VERSION, read_otp},
    transaction::Outcome,
};
use crate::{
    model::{
        issuing::{Counted, Decision, Period, Quota},
        message::Draft,
        org::{MAX_OTP_VALIDITY, Org},
        otp::{Code, CreatedId, Otp, OtpSeries},
    },
    secret::os_rng,
};

pub(super) const ISSUED: &str = "issued";

pub(super) const SENT_AT: &str = "sent_at";

/// An OTP to be issued. The store generates its [`CreatedId`].
#[derive(Debug)]
pub struct NewOtp<'a> {
    pub series: &'a OtpSeries,
    pub code: Code,
    /// Whether the code is the fixed one of a test identifier.
    pub is_test: bool,
    pub issued_at: DateTime<Utc>,
    pub quotas: Vec<Quota>,
    /// The message that carries it, if any. It is stored if the org sends messages.
    pub draft: Option<Draft>,
}

/// The result of a request for an OTP. Nothing is written unless it is `Issued`.
pub enum Issue<A> {
    /// An OTP was issued or sent again, with this response. Its message, if there is one, was
    /// stored under this key.
    Issued(A, Option<Key>),
    /// A response is stored under the request's key.
    Replay(StoredResponse),
    /// The customer was erased or merged into another one since it was looked up.
    OwnerGone,
    /// A quota is used up. If several are, this is the period of the one that ends last.
    LimitReached(Period),
    /// The cooldown ends after this time.
    TooSoon(TimeDelta),
    /// Every generated number belongs to another OTP of the series, or every race against other
    /// requests for the series was lost.
    NotIssued,
}

/// How many numbers are tried. Each millisecond has a thousand numbers, and a customer gets ten
/// OTPs a day by default.
const DRAWS: usize = 16;

/// How long the last OTP of a series is kept: the longest cooldown.
const LAST_OTP_LIFETIME: TimeDelta = TimeDelta::days(1);

/// What decides about the next OTP of a series.
#[derive(Default)]
struct Before {
    /// The OTPs that may be valid.
    otps: Vec<Otp>,
    /// When the last one was issued or sent again, as far as that is stored.
    last_sent: Option<DateTime<Utc>>,
    /// The version of the stored last OTP; 0 if there is none.
    version: u64,
}

/// The position of a write in the transaction means one of these.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Otp,
    Quota(Period),
    LastOtp,
    Message,
    Response,
}

impl Store {
    /// Writes a new OTP, or sends an earlier one again if the org wants that, counts it against the
    /// quotas, stores its message for delivery, and stores the response that `respond` makes for
    /// it: all or nothing. After a lost race with another request for the series, it is decided
    /// again.
    ///
    /// # Errors
    /// The error of `respond`, and [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn issue_otp<A: AsRef<str>, E: From<StoreError>>(
        &self,
        org: &Org,
        new: &NewOtp<'_>,
        request: Option<&IdempotentRequest>,
        respond: impl Fn(CreatedId) -> Result<A, E>,
    ) -> Result<Issue<A>, E> {
        let rules = org.issue_rules();
        let may_repeat = |code: &Code| {
            if new.is_test {
                code.expose() == new.code.expose()
            } else {
                // Nobody but a test identifier gets a code that is generally known.
                !org.is_test_code(code)
            }
        };
        // Each lost race was won by one of the day's OTPs, or by a validation that consumed one.
        let otps = usize::try_from(org.config().otp_daily_limit).unwrap_or_default();
        for _ in 0..DRAWS + 2 * otps {
            let before = if rules.look_back() { self.before(new).await? } else { Before::default() };
            let decision = rules.decide(&before.otps, before.last_sent, new.issued_at, may_repeat);
            let otp = match decision {
                Decision::Wait(time) => return Ok(Issue::TooSoon(time)),
                Decision::SendAgain(otp) => Otp { sends: otp.sends + 1, ..otp.clone() },
                Decision::Issue => new_otp(org, new),
            };
            let response = respond(otp.created_id)?;
            let put = match decision {
                Decision::SendAgain(_) => self.count_send(new.series, &otp)?,
                _ => self.put_otp(new.series, &otp)?,
            };
            let mut writes = vec![(Part::Otp, put)];
            for quota in &new.quotas {
                writes.push((Part::Quota(quota.period()), self.count(new, quota)?));
            }
            if rules.look_back() {
                writes.push((Part::LastOtp, self.put_last_otp(new, &otp, before.version)?));
            }
            let draft = new.draft.as_ref().filter(|_| org.sends_messages());
            if let Some(draft) = draft {
                let message = draft.with_code(&otp.code);
                writes.push((Part::Message, self.put_message(&sending(new, &otp), &message)?));
            }
            if let Some(request) = request {
                let response = ResponseToStore { request, body: response.as_ref() };
                writes.push((Part::Response, self.put_response(&response)?));
            }
            let (parts, writes): (Vec<Part>, Vec<TransactWriteItem>) = writes.into_iter().unzip();
            let refused = match self.transact(writes).await? {
                Outcome::Done => {
                    let message = draft.map(|_| keys::message(new.series, otp.created_id, otp.sends));
                    return Ok(Issue::Issued(response, message));
                }
                Outcome::Refused(refused) => refused,
            };
            let response_at = parts.iter().position(|part| *part == Part::Response).unwrap_or(parts.len());
            if let Some(earlier) = self.earlier_response(request, response_at, &refused).await? {
                return Ok(Issue::Replay(earlier));
            }
            if refused.values().flatten().any(|old| Item(old).is_gone()) {
                return Ok(Issue::OwnerGone);
            }
            // If a quota is used up, neither another number nor another decision helps.
            if let Some(period) = used_up(&parts, &refused) {
                return Ok(Issue::LimitReached(period));
            }
        }
        Ok(Issue::NotIssued)
    }

    /// Reads, in one query, the OTPs of a series that may be valid and its last OTP.
    async fn before(&self, new: &NewOtp<'_>) -> Result<Before, StoreError> {
        let from = keys::otp(new.series, CreatedId::earliest(new.issued_at - MAX_OTP_VALIDITY));
        let failed_attempts = keys::failed_attempts(new.series);
        let last = keys::last_otp(new.series);
        let mut before = Before::default();
        for attributes in self.query(&from.pk, &from.sk, &last.sk).await? {
            let item = Item(&attributes);
            let sk = item.s(keys::SK)?;
            if sk == last.sk {
                before.last_sent = Some(item.millis(SENT_AT)?);
                before.version = item.n(VERSION)?;
            } else if sk != failed_attempts.sk {
                before.otps.push(read_otp(&item)?);
            }
        }
        Ok(before)
    }

    fn put_otp(&self, series: &OtpSeries, otp: &Otp) -> Result<TransactWriteItem, StoreError> {
        self.put_new(
            NewItem::new(&keys::otp(series, otp.created_id))
                .with(CREATED_ID, n(otp.created_id))
                .with(CODE, s(otp.code.expose()))
                .with(VALID_UNTIL, millis(otp.valid_until))
                .with(EXPIRES_AT, ttl(otp.valid_until)),
        )
    }

    /// The write that counts that an OTP is sent again, for the `otp.sends`th time, on the
    /// condition that it is not consumed and was not sent again meanwhile.
    fn count_send(&self, series: &OtpSeries, otp: &Otp) -> Result<TransactWriteItem, StoreError> {
        self.update(&keys::otp(series, otp.created_id), |update| {
            update
                .update_expression(format!("SET {SENDS} = :sends"))
                .condition_expression(format!(
                    "attribute_exists({PK}) AND attribute_not_exists({CONSUMED_AT}) \
                     AND (attribute_not_exists({SENDS}) OR {SENDS} < :sends)"
                ))
                .expression_attribute_values(":sends", n(otp.sends))
        })
    }

    /// The write that counts an OTP in a quota, on the condition that it is not used up.
    fn count(&self, new: &NewOtp<'_>, quota: &Quota) -> Result<TransactWriteItem, StoreError> {
        let expires = match quota.period() {
            // Two days after the OTP was issued, the day is over in every time zone.
            Period::Day(_) => new.issued_at + TimeDelta::days(2),
            Period::Hour(hour) => hour.ends_at + TimeDelta::hours(1),
        };
        self.update(&quota_key(new.series, quota), |update| {
            update
                .update_expression(format!("ADD {ISSUED} :one SET {EXPIRES_AT} = :expires"))
                .condition_expression(format!("attribute_not_exists({ISSUED}) OR {ISSUED} < :limit"))
                .expression_attribute_values(":one", n(1))
                .expression_attribute_values(":limit", n(quota.limit))
                .expression_attribute_values(":expires", ttl(expires))
                // The quota of a customer who is gone is marked.
                .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
        })
    }

    /// The write that replaces the last OTP of a series, on the condition that its version is
    /// `version`, or that there is none if that is 0.
    fn put_last_otp(
        &self,
        new: &NewOtp<'_>,
        otp: &Otp,
        version: u64,
    ) -> Result<TransactWriteItem, StoreError> {
        let item = NewItem::new(&keys::last_otp(new.series))
            .with(CREATED_ID, n(otp.created_id))
            .with(SENT_AT, millis(new.issued_at))
            .with(VERSION, n(version + 1))
            .with(EXPIRES_AT, ttl(new.issued_at + LAST_OTP_LIFETIME));
        self.put_if(item, |put| match version {
            0 => put.condition_expression(format!("attribute_not_exists({VERSION})")),
            version => put
                .condition_expression(format!("{VERSION} = :version"))
                .expression_attribute_values(":version", n(version)),
        })
    }
}

/// A new OTP with a number that may belong to another one of the series.
fn new_otp(org: &Org, new: &NewOtp<'_>) -> Otp {
    Otp {
        created_id: CreatedId::draw(new.issued_at, &mut os_rng()),
        code: new.code.clone(),
        valid_until: new.issued_at + org.otp_validity(),
        consumed: false,
        sends: 1,
    }
}

fn sending<'a>(new: &NewOtp<'a>, otp: &Otp) -> NewMessage<'a> {
    NewMessage {
        series: new.series,
        otp: otp.created_id,
        send: otp.sends,
        valid_until: otp.valid_until,
        requested_at: new.issued_at,
    }
}

fn quota_key(series: &OtpSeries, quota: &Quota) -> Key {
    match &quota.counted {
        Counted::OfOwner(day) => keys::daily_quota(series, day.date),
        Counted::OfAddress(address, day) => keys::daily_recipient_quota(series.org, address, day.date),
        Counted::HourlyOfAddress(address, hour) => {
            keys::hourly_recipient_quota(series.org, address, hour.begins_at)
        }
    }
}

/// The period of the refused quota that ends last. `None` if no quota refused.
fn used_up(parts: &[Part], refused: &BTreeMap<usize, Option<Attributes>>) -> Option<Period> {
    let periods = refused.keys().filter_map(|at| match parts.get(*at)? {
        Part::Quota(period) => Some(*period),
        _ => None,
    });
    periods.max_by_key(|period| period.ends_at())
}
