//! What operators do with the OTPs of a customer or a contact: revoke them, and forget wrong
//! guesses.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use aws_sdk_dynamodb::types::AttributeValue;

use super::{
    OwnerHistory, Store, StoreError,
    error::unmet_condition,
    item::{millis, n},
    keys::{self, Key},
    otps::{CONSUMED_AT, TIMES, VERSION},
};
use crate::model::{
    org::OrgId,
    otp::{CreatedId, Scope},
};

/// On an OTP that an operator has revoked. It is consumed at the same time, so that every part of
/// the service, of earlier versions too, takes it for one that cannot be used: it is not validated,
/// not fetched, not sent again, and messages that wait for it are not sent.
pub(super) const REVOKED_AT: &str = "revoked_at";

impl Store {
    /// Revokes the open OTPs of an owner, all of them or those of one scope, and adds those to
    /// `revoked`. One that is validated at the same time is not revoked.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails. Those in `revoked` are revoked all the same.
    pub async fn revoke_otps(
        &self,
        org: OrgId,
        history: &OwnerHistory,
        scope: Option<Scope>,
        now: DateTime<Utc>,
        revoked: &mut Vec<CreatedId>,
    ) -> Result<(), StoreError> {
        let partition = history.owner.partition(org);
        let wanted = |of: Scope| scope.is_none_or(|scope| scope == of);
        for otp in history.otps.iter().filter(|otp| otp.is_open(now) && wanted(otp.scope)) {
            let key = Key { pk: partition.clone(), sk: keys::otp_sort_key(otp.scope, otp.created_id) };
            let revocation = self
                .client
                .update_item()
                .table_name(&self.table)
                .set_key(Some(key.attributes()))
                .update_expression("SET #consumed = :now, #revoked = :now")
                // The SDK repeats a write whose answer was lost, which then finds itself.
                .condition_expression(
                    "attribute_exists(#pk) AND (attribute_not_exists(#consumed) OR #revoked = :now)",
                )
                .expression_attribute_names("#pk", keys::PK)
                .expression_attribute_names("#consumed", CONSUMED_AT)
                .expression_attribute_names("#revoked", REVOKED_AT)
                .expression_attribute_values(":now", millis(now));
            match revocation.send().await {
                Ok(_) => revoked.push(otp.created_id),
                Err(error) if unmet_condition(&error).is_some() => {}
                Err(error) => return Err(StoreError::from_sdk(error)),
            }
        }
        Ok(())
    }

    /// Forgets the wrong guesses of an owner, all of them or those of one scope, and adds the
    /// scopes that had some to `forgotten`. The item stays, with another version: a validation that
    /// has read it before judges again.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails. Those in `forgotten` are forgotten all the same.
    pub async fn forget_attempts(
        &self,
        org: OrgId,
        history: &OwnerHistory,
        scope: Option<Scope>,
        forgotten: &mut BTreeSet<Scope>,
    ) -> Result<(), StoreError> {
        let partition = history.owner.partition(org);
        let found = history.failed_attempts.iter().map(|(scope, _)| *scope);
        for of in found.filter(|of| scope.is_none_or(|scope| scope == *of)) {
            let key = Key { pk: partition.clone(), sk: keys::failed_attempts_sort_key(of) };
            let forget = self
                .client
                .update_item()
                .table_name(&self.table)
                .set_key(Some(key.attributes()))
                .update_expression("SET #times = :none ADD #version :one")
                .condition_expression("attribute_exists(#pk)")
                .expression_attribute_names("#pk", keys::PK)
                .expression_attribute_names("#times", TIMES)
                .expression_attribute_names("#version", VERSION)
                .expression_attribute_values(":none", AttributeValue::L(Vec::new()))
                .expression_attribute_values(":one", n(1));
            match forget.send().await {
                Ok(_) => {
                    forgotten.insert(of);
                }
                // DynamoDB has deleted it meanwhile, because it has expired.
                Err(error) if unmet_condition(&error).is_some() => {}
                Err(error) => return Err(StoreError::from_sdk(error)),
            }
        }
        Ok(())
    }
}
