//! OTPs with their quota and the wrong guesses at them, all in the partition of whom they belong to.

use aws_sdk_dynamodb::types::{AttributeValue, ConditionCheck, TransactWriteItem, Update};
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};

use super::{
    Attributes, IdempotentRequest, Item, ResponseToStore, Store, StoreError, StoredResponse,
    item::{NewItem, json, millis, n, s, ttl},
    keys,
    transaction::Outcome,
};
use crate::{
    clock::Clock,
    model::{
        customer::Identity,
        message::Message,
        org::{MAX_OTP_VALIDITY, Org, OrgId},
        otp::{
            AttemptLimit, Code, CreatedId, FailedAttempts, Otp, OtpHistory, OtpOwner, OtpSeries, Scope,
            ScopeOwner, TypedCode, ValidationOutcome, judge,
        },
    },
    secret::os_rng,
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

/// An OTP to be issued; the store draws its [`CreatedId`].
#[derive(Debug)]
pub struct NewOtp<'a> {
    pub series: &'a OtpSeries,
    pub code: Code,
    pub issued_at: DateTime<Utc>,
    pub validity: TimeDelta,
    pub quota: Quota,
    /// What is to be delivered, if anything is.
    pub message: Option<&'a Message>,
}

/// How issuing an OTP ended. Unless it is `Issued`, nothing was written.
pub enum Issue<A> {
    /// With the response that tells of it.
    Issued(A),
    /// The key of the request has a response.
    AnsweredBefore(StoredResponse),
    /// The day's quota is used up.
    LimitReached,
    /// Every number that was drawn belongs to another OTP of the series.
    IdsTaken,
}

/// How many numbers are drawn before giving up. A thousand OTPs fit into a millisecond, and a customer gets ten a day.
const DRAWS: usize = 16;

/// What a code is judged by: the OTPs that may still be valid, and the wrong guesses so far.
#[derive(Debug)]
pub struct OtpsAndAttempts {
    pub otps: Vec<Otp>,
    pub failed_attempts: FailedAttempts,
    version: u64,
}

/// How a validation ended.
pub enum Validation<A> {
    /// The code was judged, with the response that says so.
    Judged { right: bool, response: A },
    /// It was not judged, and nothing was written: it may be tried again after this time.
    Locked(TimeDelta),
    /// The key of the request has a response.
    AnsweredBefore(StoredResponse),
    /// The OTPs of the scope belong to customers, and the identifier is not registered.
    CustomerNotFound,
}

/// A code that somebody typed, with what it is for.
#[derive(Debug, Clone, Copy)]
pub struct TypedOtp<'a> {
    pub identity: &'a Identity,
    pub scope: Scope,
    pub code: &'a TypedCode,
}

impl Store {
    /// Puts a new OTP, counts it against the quota, leaves its message for delivery and stores the response that
    /// `respond` makes for it, all or nothing.
    ///
    /// # Errors
    /// What `respond` fails with, and [`StoreError`] when DynamoDB fails.
    pub async fn issue_otp<A: AsRef<str>, E: From<StoreError>>(
        &self,
        new: &NewOtp<'_>,
        request: Option<&IdempotentRequest>,
        respond: impl Fn(CreatedId) -> Result<A, E>,
    ) -> Result<Issue<A>, E> {
        for _ in 0..DRAWS {
            let id = CreatedId::draw(new.issued_at, &mut os_rng());
            let response = respond(id)?;
            let mut writes = vec![self.put_otp(new, id)?, self.count_otp(new)?];
            if let Some(message) = new.message {
                writes.push(self.put_new(message_item(new, id, message)?)?);
            }
            let response_at = writes.len();
            if let Some(request) = request {
                writes.push(self.put_response(&ResponseToStore { request, answer: response.as_ref() })?);
            }
            let refused = match self.transact(writes).await? {
                Outcome::Done => return Ok(Issue::Issued(response)),
                Outcome::Refused(refused) => refused,
            };
            if let Some(earlier) = self.earlier_response(request, response_at, &refused).await? {
                return Ok(Issue::AnsweredBefore(earlier));
            }
            // The quota decides: where it is used up, another number would not help.
            if refused.contains_key(&1) {
                return Ok(Issue::LimitReached);
            }
        }
        Ok(Issue::IdsTaken)
    }

    fn put_otp(&self, new: &NewOtp<'_>, id: CreatedId) -> Result<TransactWriteItem, StoreError> {
        let valid_until = new.issued_at + new.validity;
        self.put_new(
            NewItem::new(&keys::otp(new.series, id))
                .with(CREATED_ID, n(id))
                .with(CODE, s(new.code.expose()))
                .with(VALID_UNTIL, millis(valid_until))
                .with(keys::EXPIRES_AT, ttl(valid_until)),
        )
    }

    fn count_otp(&self, new: &NewOtp<'_>) -> Result<TransactWriteItem, StoreError> {
        let count = Update::builder()
            .table_name(&self.table)
            .set_key(Some(keys::daily_quota(new.series, new.quota.date).attributes()))
            .update_expression("ADD #issued :one SET #expires = :expires")
            .condition_expression("attribute_not_exists(#issued) OR #issued < :limit")
            .expression_attribute_names("#issued", ISSUED)
            .expression_attribute_names("#expires", keys::EXPIRES_AT)
            .expression_attribute_values(":one", n(1))
            .expression_attribute_values(":limit", n(new.quota.limit))
            // A day of any time zone is over two days after the OTP was issued.
            .expression_attribute_values(":expires", ttl(new.issued_at + TimeDelta::days(2)))
            .build()
            .map_err(StoreError::from_build)?;
        Ok(TransactWriteItem::builder().update(count).build())
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
                    code: Code::stored(item.s(CODE)?),
                    valid_until: item.millis(VALID_UNTIL)?,
                    consumed: item.has(CONSUMED_AT),
                });
            }
        }
        Ok(found)
    }

    /// Where the OTPs of an identifier for `scope` are. `None` if they belong to a customer and the identifier
    /// is not registered.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn otp_history(
        &self,
        org: OrgId,
        identity: &Identity,
        scope: Scope,
    ) -> Result<Option<OtpHistory>, StoreError> {
        let series = |owner| OtpSeries { org, owner, scope };
        let contact = || series(OtpOwner::Contact(identity.clone()));
        let user = match scope.owner() {
            ScopeOwner::Contact => None,
            ScopeOwner::Customer | ScopeOwner::CustomerOrContact => self.find_customer(org, identity).await?,
        };
        let is_contacts = scope.owner() != ScopeOwner::Customer;
        Ok(match user {
            Some(user) => Some(OtpHistory {
                current: series(OtpOwner::Customer(user)),
                before_registration: is_contacts.then(contact),
            }),
            None => is_contacts.then(|| OtpHistory { current: contact(), before_registration: None }),
        })
    }

    /// The OTPs that may be valid at `now` in each series of `history`, read at the same time.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn read_history(
        &self,
        history: &OtpHistory,
        now: DateTime<Utc>,
    ) -> Result<Vec<OtpsAndAttempts>, StoreError> {
        let current = self.otps_and_attempts(&history.current, now);
        let Some(before) = &history.before_registration else {
            return Ok(vec![current.await?]);
        };
        let (current, before) = tokio::try_join!(current, self.otps_and_attempts(before, now))?;
        Ok(vec![current, before])
    }

    /// Judges a typed code, and consumes its OTP or counts a failed attempt, together with the response that
    /// `respond` makes of the outcome. After a lost race against another validation or a registration, the code
    /// is judged again, by what is stored then and at the time of then.
    ///
    /// # Errors
    /// What `respond` fails with, and [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn validate_otp<A: AsRef<str>, E: From<StoreError>>(
        &self,
        org: &Org,
        typed: &TypedOtp<'_>,
        clock: &Clock,
        request: Option<&IdempotentRequest>,
        respond: impl Fn(bool) -> Result<A, E>,
    ) -> Result<Validation<A>, E> {
        let limit = org.attempt_limit();
        // Each lost race was won by one of the failed attempts that the limit allows, by one of the day's OTPs of
        // the customer or of the contact, or by the registration.
        let otps = usize::try_from(org.config().otp_daily_limit).unwrap_or_default();
        for _ in 0..=limit.count + 2 * otps + 1 {
            let Some(history) = self.otp_history(org.id(), typed.identity, typed.scope).await? else {
                return Ok(Validation::CustomerNotFound);
            };
            let judged = self.read_history(&history, clock.now()).await?;
            let now = clock.now();
            let (owners, otps): (Vec<&OtpSeries>, Vec<Otp>) = history
                .series()
                .zip(&judged)
                .flat_map(|(series, judged)| judged.otps.iter().map(move |otp| (series, otp.clone())))
                .unzip();
            let attempts =
                judged.iter().fold(FailedAttempts::default(), |all, judged| all.and(&judged.failed_attempts));
            let (right, mut writes, unchecked) = match judge(typed.code, &otps, &attempts, limit, now) {
                ValidationOutcome::Locked(time) => return Ok(Validation::Locked(time)),
                ValidationOutcome::Impossible => (false, Vec::new(), &[][..]),
                ValidationOutcome::Right(position) => {
                    let consume = self.consume(owners[position], otps[position].created_id, now)?;
                    (true, vec![consume], &judged[..])
                }
                ValidationOutcome::Wrong => {
                    (false, vec![self.count_attempt(&history.current, &judged[0], limit, now)?], &judged[1..])
                }
            };
            // The verdict holds as long as no other failed attempt came between.
            let series = history.series().skip(judged.len() - unchecked.len());
            for (series, judged) in series.zip(unchecked) {
                writes.push(self.check_attempts(series, judged)?);
            }
            let may_register = typed.scope.owner() == ScopeOwner::CustomerOrContact;
            if may_register && matches!(history.current.owner, OtpOwner::Contact(_)) && !writes.is_empty() {
                writes.push(self.check_unregistered(org.id(), typed.identity)?);
            }
            let response = respond(right)?;
            let response_at = writes.len();
            if let Some(request) = request {
                writes.push(self.put_response(&ResponseToStore { request, answer: response.as_ref() })?);
            }
            if writes.is_empty() {
                return Ok(Validation::Judged { right, response });
            }
            let refused = match self.transact(writes).await? {
                Outcome::Done => return Ok(Validation::Judged { right, response }),
                Outcome::Refused(refused) => refused,
            };
            if let Some(earlier) = self.earlier_response(request, response_at, &refused).await? {
                return Ok(Validation::AnsweredBefore(earlier));
            }
        }
        Err(StoreError::gave_up("other validations kept being faster").into())
    }

    /// The write that consumes an OTP, on the condition that nobody did.
    fn consume(
        &self,
        series: &OtpSeries,
        id: CreatedId,
        now: DateTime<Utc>,
    ) -> Result<TransactWriteItem, StoreError> {
        let consume = Update::builder()
            .table_name(&self.table)
            .set_key(Some(keys::otp(series, id).attributes()))
            .update_expression("SET #consumed = :now")
            .condition_expression("attribute_exists(#pk) AND attribute_not_exists(#consumed)")
            .expression_attribute_names("#pk", keys::PK)
            .expression_attribute_names("#consumed", CONSUMED_AT)
            .expression_attribute_values(":now", millis(now))
            .build()
            .map_err(StoreError::from_build)?;
        Ok(TransactWriteItem::builder().update(consume).build())
    }

    /// The check that an identifier is not registered.
    fn check_unregistered(&self, org: OrgId, identity: &Identity) -> Result<TransactWriteItem, StoreError> {
        let check = ConditionCheck::builder()
            .table_name(&self.table)
            .set_key(Some(keys::identity(org, identity).attributes()))
            .condition_expression("attribute_not_exists(#pk)")
            .expression_attribute_names("#pk", keys::PK)
            .build()
            .map_err(StoreError::from_build)?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }

    /// The check that no failed attempt was counted in a series since `judged` was read.
    fn check_attempts(
        &self,
        series: &OtpSeries,
        judged: &OtpsAndAttempts,
    ) -> Result<TransactWriteItem, StoreError> {
        let (condition, version) = unchanged_since(judged);
        let check = ConditionCheck::builder()
            .table_name(&self.table)
            .set_key(Some(keys::failed_attempts(series).attributes()))
            .condition_expression(condition)
            .expression_attribute_names("#version", VERSION)
            .set_expression_attribute_values(version)
            .build()
            .map_err(StoreError::from_build)?;
        Ok(TransactWriteItem::builder().condition_check(check).build())
    }

    /// The write that counts a failed attempt, on the condition that none was since `judged` was read.
    fn count_attempt(
        &self,
        series: &OtpSeries,
        judged: &OtpsAndAttempts,
        limit: AttemptLimit,
        now: DateTime<Utc>,
    ) -> Result<TransactWriteItem, StoreError> {
        let attempts = judged.failed_attempts.with_attempt_at(now, limit);
        let times = attempts.times().iter().copied().map(millis).collect();
        let (condition, version) = unchanged_since(judged);
        let count = Update::builder()
            .table_name(&self.table)
            .set_key(Some(keys::failed_attempts(series).attributes()))
            .update_expression("SET #times = :times, #expires = :expires ADD #version :one")
            .condition_expression(condition)
            .expression_attribute_names("#times", TIMES)
            .expression_attribute_names("#expires", keys::EXPIRES_AT)
            .expression_attribute_names("#version", VERSION)
            .set_expression_attribute_values(version)
            .expression_attribute_values(":times", AttributeValue::L(times))
            .expression_attribute_values(":expires", ttl(now + limit.window))
            .expression_attribute_values(":one", n(1))
            .build()
            .map_err(StoreError::from_build)?;
        Ok(TransactWriteItem::builder().update(count).build())
    }
}

/// The condition that no wrong guess came between the read of `judged` and now.
fn unchanged_since(judged: &OtpsAndAttempts) -> (&'static str, Option<Attributes>) {
    match judged.version {
        0 => ("attribute_not_exists(#version)", None),
        version => ("#version = :version", Some(Attributes::from([(":version".to_owned(), n(version))]))),
    }
}

fn message_item(new: &NewOtp<'_>, id: CreatedId, message: &Message) -> Result<NewItem, StoreError> {
    Ok(NewItem::new(&keys::message(new.series, id))
        .with(CREATED_ID, n(id))
        .with("org", n(new.series.org))
        .with("scope", s(new.series.scope.as_str()))
        .with("channels", json(&message.channels)?)
        .with("text", s(message.text.expose()))
        .with("email_subject", s(message.email_subject.expose()))
        .with("email_body", s(message.email_body.expose()))
        .with(keys::EXPIRES_AT, ttl(new.issued_at + new.validity)))
}
