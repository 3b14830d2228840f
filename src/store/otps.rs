//! OTPs with their quota and the wrong guesses at them, all in the partition of whom they belong to.

use aws_sdk_dynamodb::types::{AttributeValue, ConditionCheck, TransactWriteItem, Update};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};

use super::{
    Attributes, Item, ResponseToStore, Store, StoreError,
    item::{NewItem, json, millis, n, s, ttl},
    keys,
    transaction::Outcome,
};
use crate::model::{
    message::Message,
    org::MAX_OTP_VALIDITY,
    otp::{Code, CreatedId, FailedAttempts, Otp, OtpSeries},
};

const CODE: &str = "code";
const CREATED_ID: &str = "created_id";
const VALID_UNTIL: &str = "valid_until";
const CONSUMED_AT: &str = "consumed_at";
const ISSUED: &str = "issued";
const TIMES: &str = "times";
/// Raised by each wrong guess: a verdict holds only for the guesses it was made on.
const VERSION: &str = "version";

/// How many OTPs a day allows.
#[derive(Debug, Clone, Copy)]
pub struct Quota {
    pub date: NaiveDate,
    pub limit: i64,
}

/// How issuing an OTP ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Issue {
    Issued,
    /// Another OTP of that scope has the number: draw another.
    IdTaken,
    /// The same request was answered before.
    AnsweredBefore,
    /// The day's quota is used up.
    LimitReached,
}

/// What a code is judged by: the OTPs that may still be valid, and the wrong guesses so far.
#[derive(Debug)]
pub struct OtpsAndAttempts {
    pub otps: Vec<Otp>,
    pub failed_attempts: FailedAttempts,
    version: u64,
}

/// What became of a typed code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValidationOutcome {
    /// It is the code of this OTP, which is consumed by it.
    Right(CreatedId),
    /// It is no valid code; these are the wrong guesses with it.
    Wrong(FailedAttempts),
}

impl Store {
    /// Puts a new OTP, counts it against the quota, leaves its message for delivery and keeps the answer, all or nothing.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn issue_otp(
        &self,
        series: &OtpSeries,
        otp: &Otp,
        quota: Quota,
        message: Option<&Message>,
        record: Option<ResponseToStore<'_>>,
    ) -> Result<Issue, StoreError> {
        let item = NewItem::new(&keys::otp(series, otp.created_id))
            .with(CREATED_ID, n(otp.created_id))
            .with(CODE, s(otp.code.expose()))
            .with(VALID_UNTIL, millis(otp.valid_until))
            .with(keys::EXPIRES_AT, ttl(otp.valid_until));
        let put = self.put_new(item)?;
        let count = Update::builder()
            .table_name(&self.table)
            .set_key(Some(keys::daily_quota(series, quota.date).attributes()))
            .update_expression("ADD #issued :one SET #expires = :expires")
            .condition_expression("attribute_not_exists(#issued) OR #issued < :limit")
            .expression_attribute_names("#issued", ISSUED)
            .expression_attribute_names("#expires", keys::EXPIRES_AT)
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":limit", n(quota.limit))
            // A day of any time zone is over two days after the OTP was issued.
            .expression_attribute_values(":expires", ttl(otp.created_id.issued_at() + TimeDelta::days(2)))
            .build()
            .map_err(StoreError::from_build)?;
        let mut writes = vec![put, TransactWriteItem::builder().update(count).build()];
        if let Some(message) = message {
            writes.push(self.put_new(message_item(series, otp, message)?)?);
        }
        let recorded_at = writes.len();
        if let Some(record) = &record {
            writes.push(self.put_answer(record)?);
        }
        Ok(match self.transact(writes).await? {
            Outcome::Done => Issue::Issued,
            Outcome::Refused(at) if at.contains(&recorded_at) => Issue::AnsweredBefore,
            // The quota decides: where it is used up, another number would not help.
            Outcome::Refused(at) if at.contains(&1) => Issue::LimitReached,
            Outcome::Refused(_) => Issue::IdTaken,
        })
    }

    /// The OTPs that may be valid at `now`, with the wrong guesses, in one read.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn otps_and_attempts(
        &self,
        series: &OtpSeries,
        now: DateTime<Utc>,
    ) -> Result<OtpsAndAttempts, StoreError> {
        // An OTP issued earlier than the longest validity ago has expired.
        let from = keys::otp(series, CreatedId::earliest(now - MAX_OTP_VALIDITY));
        let attempts_key = keys::failed_attempts(series);
        let mut found =
            OtpsAndAttempts { otps: Vec::new(), failed_attempts: FailedAttempts::default(), version: 0 };
        for attributes in self.query(&from.pk, &from.sk, &attempts_key.sk).await? {
            let item = Item(&attributes);
            if item.s(keys::SK)? == attempts_key.sk {
                found.failed_attempts = FailedAttempts::new(item.all_millis(TIMES)?);
                found.version = item.n(VERSION)?;
            } else {
                found.otps.push(Otp {
                    created_id: CreatedId(item.n(CREATED_ID)?),
                    code: Code::typed(item.s(CODE)?),
                    valid_until: item.millis(VALID_UNTIL)?,
                    consumed: item.has(CONSUMED_AT),
                });
            }
        }
        Ok(found)
    }

    /// Writes down a verdict, unless what it was made on has changed meanwhile: then nothing is written
    /// and the answer is `false`, and the code must be judged anew.
    ///
    /// Right and wrong cost the same kind of write, so that the time it takes tells neither from the other.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn commit_validation(
        &self,
        series: &OtpSeries,
        judged: &OtpsAndAttempts,
        verdict: &ValidationOutcome,
        now: DateTime<Utc>,
        window: TimeDelta,
    ) -> Result<bool, StoreError> {
        let guesses = keys::failed_attempts(series);
        let writes = match verdict {
            ValidationOutcome::Right(id) => {
                let consume = Update::builder()
                    .table_name(&self.table)
                    .set_key(Some(keys::otp(series, *id).attributes()))
                    .update_expression("SET #consumed = :now")
                    .condition_expression("attribute_exists(#pk) AND attribute_not_exists(#consumed)")
                    .expression_attribute_names("#pk", keys::PK)
                    .expression_attribute_names("#consumed", CONSUMED_AT)
                    .expression_attribute_values(":now", millis(now))
                    .build()
                    .map_err(StoreError::from_build)?;
                let (condition, version) = unchanged_since(judged);
                let check = ConditionCheck::builder()
                    .table_name(&self.table)
                    .set_key(Some(guesses.attributes()))
                    .condition_expression(condition)
                    .expression_attribute_names("#version", VERSION)
                    .set_expression_attribute_values(version)
                    .build()
                    .map_err(StoreError::from_build)?;
                vec![
                    TransactWriteItem::builder().update(consume).build(),
                    TransactWriteItem::builder().condition_check(check).build(),
                ]
            }
            ValidationOutcome::Wrong(with_this_one) => {
                let times = with_this_one.times().iter().copied().map(millis).collect();
                let (condition, version) = unchanged_since(judged);
                let count = Update::builder()
                    .table_name(&self.table)
                    .set_key(Some(guesses.attributes()))
                    .update_expression("SET #times = :times, #expires = :expires ADD #version :one")
                    .condition_expression(condition)
                    .expression_attribute_names("#times", TIMES)
                    .expression_attribute_names("#expires", keys::EXPIRES_AT)
                    .expression_attribute_names("#version", VERSION)
                    .set_expression_attribute_values(version)
                    .expression_attribute_values(":times", AttributeValue::L(times))
                    .expression_attribute_values(":expires", ttl(now + window))
                    .expression_attribute_values(":one", n(1))
                    .build()
                    .map_err(StoreError::from_build)?;
                vec![TransactWriteItem::builder().update(count).build()]
            }
        };
        Ok(self.transact(writes).await? == Outcome::Done)
    }
}

/// The condition that no wrong guess came between the read of `judged` and now.
fn unchanged_since(judged: &OtpsAndAttempts) -> (&'static str, Option<Attributes>) {
    match judged.version {
        0 => ("attribute_not_exists(#version)", None),
        version => ("#version = :version", Some(Attributes::from([(":version".to_owned(), n(version))]))),
    }
}

fn message_item(series: &OtpSeries, otp: &Otp, message: &Message) -> Result<NewItem, StoreError> {
    Ok(NewItem::new(&keys::message(series, otp.created_id))
        .with(CREATED_ID, n(otp.created_id))
        .with("org", n(series.org))
        .with("scope", s(series.scope.as_str()))
        .with("channels", json(&message.channels)?)
        .with("text", s(message.text.expose()))
        .with("email_subject", s(message.email_subject.expose()))
        .with("email_body", s(message.email_body.expose()))
        .with(keys::EXPIRES_AT, ttl(otp.valid_until)))
}
