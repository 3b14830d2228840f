//! Reading and validating OTPs, and counting failed attempts. All items of an owner are in one
//! partition. `issuing` writes new OTPs.

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};
use chrono::{DateTime, TimeDelta, Utc};

use super::{
    Attributes, IdempotentRequest, Item, ResponseToStore, Store, StoreError, StoredResponse,
    item::{GONE_AT, millis, n, ttl},
    keys::{self, EXPIRES_AT, PK},
    transaction::Outcome,
};
use crate::{
    clock::Clock,
    model::{
        customer::Identity,
        org::{MAX_OTP_VALIDITY, Org, OrgId},
        otp::{
            AttemptLimit, Code, CreatedId, FailedAttempts, Otp, OtpHistory, OtpOwner, OtpSeries, Scope,
            ScopeOwner, TypedCode, ValidationOutcome, evaluate,
        },
    },
};

pub(super) const CODE: &str = "code";
pub(super) const CREATED_ID: &str = "created_id";
pub(super) const VALID_UNTIL: &str = "valid_until";
pub(super) const CONSUMED_AT: &str = "consumed_at";
/// How often an OTP was issued or sent again. Absent until it is sent again.
pub(super) const SENDS: &str = "sends";
pub(super) const TIMES: &str = "times";
/// On the failed attempts and on the last OTP of a series: incremented by each change. What was
/// decided by the item is written only if it has not changed meanwhile.
pub(super) const VERSION: &str = "version";

/// The data that a code is validated against: the OTPs that may still be valid, and the failed
/// attempts so far.
#[derive(Debug)]
pub struct OtpsAndAttempts {
    pub otps: Vec<Otp>,
    pub failed_attempts: FailedAttempts,
    version: u64,
}

/// The result of a validation.
pub enum Validation<A> {
    /// The code was checked, with this response.
    Checked { right: bool, response: A },
    /// The rate limit is reached. The code was not checked, and nothing was written. The next
    /// attempt is allowed after this time.
    Locked(TimeDelta),
    /// The key of the request has a response.
    Replay(StoredResponse),
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
    /// Reads the OTPs that may be valid at `now` and the failed attempts, in one query.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn otps_and_attempts(
        &self,
        series: &OtpSeries,
        now: DateTime<Utc>,
    ) -> Result<OtpsAndAttempts, StoreError> {
        // OTPs that were issued before the maximum validity have expired.
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
                found.otps.push(read_otp(&item)?);
            }
        }
        Ok(found)
    }

    /// Where the OTPs of an identifier for `scope` are. `None` if they belong to a customer and the
    /// identifier is not registered.
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

    /// Validates a typed code. Consumes its OTP or counts a failed attempt, and stores the response
    /// that `respond` makes for the outcome, in one transaction. After a lost race with another
    /// validation or a registration, the code is validated again, with the stored state and the
    /// time of that moment.
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
        // Each lost race was won by one of the failed attempts that the limit allows or by one of
        // the day's OTPs, both of the customer or of the contact, or by the registration.
        let otps = usize::try_from(org.config().otp_daily_limit).unwrap_or_default();
        for _ in 0..=2 * (limit.count + otps) + 1 {
            let Some(history) = self.otp_history(org.id(), typed.identity, typed.scope).await? else {
                return Ok(Validation::CustomerNotFound);
            };
            let snapshot = self.read_history(&history, clock.now()).await?;
            let now = clock.now();
            let (owners, otps): (Vec<&OtpSeries>, Vec<Otp>) = history
                .series()
                .zip(&snapshot)
                .flat_map(|(series, snapshot)| snapshot.otps.iter().map(move |otp| (series, otp.clone())))
                .unzip();
            let attempts = snapshot
                .iter()
                .fold(FailedAttempts::default(), |all, snapshot| all.merged_with(&snapshot.failed_attempts));
            let (right, mut writes) = match evaluate(typed.code, &otps, &attempts, limit, now) {
                ValidationOutcome::Locked(time) => return Ok(Validation::Locked(time)),
                ValidationOutcome::Impossible => (false, Vec::new()),
                ValidationOutcome::Right(positions) => {
                    let consumed = positions
                        .into_iter()
                        .map(|position| self.consume(owners[position], otps[position].created_id, now));
                    // The code is right only if no failed attempt was counted meanwhile.
                    let checks = history
                        .series()
                        .zip(&snapshot)
                        .map(|(series, snapshot)| self.check_attempts(series, snapshot));
                    (true, consumed.chain(checks).collect::<Result<_, _>>()?)
                }
                ValidationOutcome::Wrong => {
                    let counted = history
                        .series()
                        .zip(&snapshot)
                        .map(|(series, snapshot)| self.count_attempt(series, snapshot, limit, now));
                    (false, counted.collect::<Result<_, _>>()?)
                }
            };
            let may_register = typed.scope.owner() == ScopeOwner::CustomerOrContact;
            if may_register && matches!(history.current.owner, OtpOwner::Contact(_)) && !writes.is_empty() {
                writes.push(self.check_unregistered(org.id(), typed.identity)?);
            }
            let response = respond(right)?;
            let response_at = writes.len();
            if let Some(request) = request {
                writes.push(self.put_response(&ResponseToStore { request, body: response.as_ref() })?);
            }
            if writes.is_empty() {
                return Ok(Validation::Checked { right, response });
            }
            let refused = match self.transact(writes).await? {
                Outcome::Done => return Ok(Validation::Checked { right, response }),
                Outcome::Refused(refused) => refused,
            };
            if let Some(earlier) = self.earlier_response(request, response_at, &refused).await? {
                return Ok(Validation::Replay(earlier));
            }
        }
        Err(StoreError::gave_up("too many lost races with other validations").into())
    }

    /// The write that consumes an OTP, on the condition that it is not consumed yet.
    fn consume(
        &self,
        series: &OtpSeries,
        id: CreatedId,
        now: DateTime<Utc>,
    ) -> Result<TransactWriteItem, StoreError> {
        self.update(&keys::otp(series, id), |update| {
            update
                .update_expression(format!("SET {CONSUMED_AT} = :now"))
                .condition_expression(format!(
                    "attribute_exists({PK}) AND attribute_not_exists({CONSUMED_AT})"
                ))
                .expression_attribute_values(":now", millis(now))
        })
    }

    /// The check that an identifier is not registered. The number of an erased customer is not.
    fn check_unregistered(&self, org: OrgId, identity: &Identity) -> Result<TransactWriteItem, StoreError> {
        self.condition_check(&keys::identity(org, identity), |check| {
            check.condition_expression(format!("attribute_not_exists({PK}) OR attribute_exists({GONE_AT})"))
        })
    }

    /// The check that no failed attempt was counted in a series since `snapshot` was read.
    fn check_attempts(
        &self,
        series: &OtpSeries,
        snapshot: &OtpsAndAttempts,
    ) -> Result<TransactWriteItem, StoreError> {
        let (condition, version) = unchanged_since(snapshot);
        self.condition_check(&keys::failed_attempts(series), |check| {
            check.condition_expression(condition).set_expression_attribute_values(version)
        })
    }

    /// The write that counts a failed attempt, on the condition that none was since `snapshot` was
    /// read.
    fn count_attempt(
        &self,
        series: &OtpSeries,
        snapshot: &OtpsAndAttempts,
        limit: AttemptLimit,
        now: DateTime<Utc>,
    ) -> Result<TransactWriteItem, StoreError> {
        let attempts = snapshot.failed_attempts.with_attempt_at(now, limit);
        let times = attempts.times().iter().copied().map(millis).collect();
        let (condition, version) = unchanged_since(snapshot);
        self.update(&keys::failed_attempts(series), |update| {
            update
                .update_expression(format!(
                    "SET {TIMES} = :times, {EXPIRES_AT} = :expires ADD {VERSION} :one"
                ))
                .condition_expression(condition)
                .set_expression_attribute_values(version)
                .expression_attribute_values(":times", AttributeValue::L(times))
                .expression_attribute_values(":expires", ttl(now + limit.window))
                .expression_attribute_values(":one", n(1))
        })
    }
}

/// The OTP of an item.
pub(super) fn read_otp(item: &Item<'_>) -> Result<Otp, StoreError> {
    Ok(Otp {
        created_id: CreatedId(item.n(CREATED_ID)?),
        code: Code::stored(item.s(CODE)?),
        valid_until: item.millis(VALID_UNTIL)?,
        consumed: item.has(CONSUMED_AT),
        sends: if item.has(SENDS) { item.n(SENDS)? } else { 1 },
    })
}

/// The condition that no failed attempt was counted since `snapshot` was read, and that the
/// customer has not been erased or merged: then the item has [`GONE_AT`].
fn unchanged_since(snapshot: &OtpsAndAttempts) -> (String, Option<Attributes>) {
    match snapshot.version {
        0 => (format!("attribute_not_exists({VERSION}) AND attribute_not_exists({GONE_AT})"), None),
        version => (
            format!("{VERSION} = :version AND attribute_not_exists({GONE_AT})"),
            Some(Attributes::from([(":version".to_owned(), n(version))])),
        ),
    }
}
