//! Moves the identifiers of registered customers to the normal form that this version writes.
//!
//! The normal form of an identifier depends on the rules of `typed_text` and on the org's phone
//! number plan. When either changes, an identifier that is stored in the old form is no longer
//! found. An upgrade reads every customer and moves each identifier to its current normal form. One
//! transaction writes the new identity, deletes the old one and changes the customer's list, on the
//! condition that none of them has changed meanwhile. So an upgrade may run beside the service, be
//! interrupted, and run again. Identifiers that are already in normal form are left alone.
//!
//! OTPs of contacts are keyed by the identifier, too. They are not moved, because they expire
//! within a day.

use std::collections::{HashMap, hash_map::Entry};

use aws_sdk_dynamodb::types::{Delete, TransactWriteItem, Update};
use serde::{Deserialize, Serialize};

use super::{
    Attributes, Item, Store, StoreError,
    card_numbers::NEXT,
    customers::{IDENTIFIERS, USER_ID},
    error_chain,
    item::{NewItem, json, n, s},
    keys,
    transaction::Outcome,
};
use crate::model::{
    customer::{Account, Identifier, IdentifierName, Identity, Malformed, UserId},
    org::{Org, OrgId},
};

/// An identifier that an upgrade leaves as it is. It contains personal data, so it is shown to the
/// operator and never logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Undecided {
    pub org: OrgId,
    pub user: UserId,
    /// `None` for an external ID.
    pub account: Option<Account>,
    pub name: IdentifierName,
    pub value: String,
    #[serde(flatten)]
    pub reason: Reason,
}

/// Why an identifier is left as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// Another customer has the normal form.
    Taken { normal_form: String, by: UserId },
    /// It is not a valid identifier under the current rules, so no request can contain it any more.
    Malformed,
    /// A mobile number without the org's country code that also has a national length. It stays
    /// international, but may have been entered as a national number under an earlier phone number
    /// plan.
    MaybeNational { normal_form: String },
    /// Its identity item points at another customer. No version of the service writes that.
    PointsElsewhere,
}

/// What an upgrade has done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UpgradeReport {
    /// Customers that were checked.
    pub customers: u64,
    /// Identifiers that were moved to their normal form, or would be in a dry run.
    pub changed: u64,
    pub undecided: Vec<Undecided>,
    /// Customers that were left as they are because their item or that of their org is corrupt.
    pub unreadable: Vec<Unreadable>,
}

/// A customer whose items this version cannot read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// The partition of the customer's item.
    pub partition: String,
    pub reason: String,
}

/// Options of an upgrade.
#[derive(Debug, Clone, Copy, Default)]
pub struct UpgradeOptions {
    /// Only the customers of this org.
    pub org: Option<OrgId>,
    /// Report what would change, and write nothing.
    pub dry_run: bool,
}

/// An identifier in the list on a customer's item: account, name and value.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Listed(Option<Account>, IdentifierName, String);

/// A customer's item: the owner and the listed identifiers.
struct Customer {
    org: OrgId,
    user: UserId,
    /// The list as stored, for the condition that it is unchanged.
    json: String,
    identifiers: Vec<Listed>,
}

/// What to do with one identifier.
enum Decision {
    Keep,
    Move(Identifier),
    Leave(Reason),
}

impl Store {
    /// Moves the identifiers of all customers, or of those of one org, to their normal form. Calls
    /// `progress` after each customer.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt. Changes that were made before
    /// remain, and another upgrade continues.
    pub async fn upgrade(
        &self,
        options: UpgradeOptions,
        mut progress: impl FnMut(&UpgradeReport),
    ) -> Result<UpgradeReport, StoreError> {
        let mut report = UpgradeReport::default();
        let mut orgs = HashMap::new();
        let mut start = None;
        loop {
            let prefix = options.org.map_or_else(|| "ORG#".to_owned(), |org| format!("ORG#{org}#"));
            let page = self
                .client
                .scan()
                .table_name(&self.table)
                .filter_expression("#sk = :profile AND begins_with(#pk, :prefix)")
                .expression_attribute_names("#pk", keys::PK)
                .expression_attribute_names("#sk", keys::SK)
                .expression_attribute_values(":profile", s(keys::PROFILE))
                .expression_attribute_values(":prefix", s(prefix))
                .consistent_read(true)
                .set_exclusive_start_key(start)
                .send()
                .await
                .map_err(StoreError::from_sdk)?;
            for attributes in page.items.unwrap_or_default() {
                match self.upgrade_item(&attributes, &mut orgs, options.dry_run, &mut report).await {
                    Err(error) if !error.is_unavailable() => report.unreadable.push(Unreadable {
                        partition: Item(&attributes).s(keys::PK)?.to_owned(),
                        reason: error_chain(&error),
                    }),
                    upgraded => upgraded?,
                }
                report.customers += 1;
                progress(&report);
            }
            start = page.last_evaluated_key;
            if start.is_none() {
                return Ok(report);
            }
        }
    }

    /// Whether the org has allocated a user id. `first_user` is the first one that it allocates.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn has_customers(&self, org: OrgId, first_user: UserId) -> Result<bool, StoreError> {
        let counter = self.get(&keys::user_id_counter(org)).await?;
        Ok(counter
            .map(|attributes| Item(&attributes).n::<u64>(NEXT))
            .transpose()?
            .is_some_and(|next| next > first_user.0))
    }

    /// Upgrades the customer of one item. `orgs` holds the orgs that were read already.
    async fn upgrade_item(
        &self,
        attributes: &Attributes,
        orgs: &mut HashMap<OrgId, Org>,
        dry_run: bool,
        report: &mut UpgradeReport,
    ) -> Result<(), StoreError> {
        let customer = Customer::read(attributes)?;
        let org = match orgs.entry(customer.org) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let org = self.org(customer.org).await?;
                unknown.insert(org.ok_or_else(|| StoreError::corrupt("the org of a customer is missing"))?)
            }
        };
        self.upgrade_customer(org, customer, dry_run, report).await
    }

    async fn upgrade_customer(
        &self,
        org: &Org,
        mut customer: Customer,
        dry_run: bool,
        report: &mut UpgradeReport,
    ) -> Result<(), StoreError> {
        let (mut at, mut lost_races) = (0, 0);
        while let Some(listed) = customer.identifiers.get(at).cloned() {
            let decision = match decide(org, &listed) {
                // Whether the move succeeds is known only after trying. A dry run looks it up
                // instead.
                Decision::Move(identifier) if dry_run => self.preview(&customer, &listed, identifier).await?,
                Decision::Move(identifier) => {
                    if let Some(decision) = self.move_identity(&mut customer, at, identifier).await? {
                        decision
                    } else {
                        // A lost race: the customer was changed at the same time.
                        lost_races += 1;
                        if lost_races > MAX_LOST_RACES {
                            return Err(StoreError::gave_up("a customer keeps changing"));
                        }
                        match self.get(&keys::profile(customer.org, customer.user)).await? {
                            Some(attributes) => (customer, at) = (Customer::read(&attributes)?, 0),
                            None => return Ok(()),
                        }
                        continue;
                    }
                }
                decision => decision,
            };
            match decision {
                Decision::Keep => at += 1,
                // After a move, the entry at `at` has its new form, or is gone if the list had that
                // form already. So the loop looks at the same position again.
                Decision::Move(_) => {
                    report.changed += 1;
                    at += usize::from(dry_run);
                }
                Decision::Leave(reason) => {
                    let Listed(account, name, value) = listed;
                    let (org, user) = (customer.org, customer.user);
                    let undecided = Undecided { org, user, account, name, value, reason };
                    // The same entry can occur twice, because the list is read again after a lost
                    // race.
                    if !report.undecided.contains(&undecided) {
                        report.undecided.push(undecided);
                    }
                    at += 1;
                }
            }
        }
        Ok(())
    }

    /// What [`Self::move_identity`] would do.
    async fn preview(
        &self,
        customer: &Customer,
        listed: &Listed,
        identifier: Identifier,
    ) -> Result<Decision, StoreError> {
        let normal_form = identifier.value().to_owned();
        let identity = listed.with(identifier.clone());
        let owner = self.find_customer(customer.org, &identity).await?;
        Ok(match owner.filter(|owner| *owner != customer.user) {
            Some(by) => Decision::Leave(Reason::Taken { normal_form, by }),
            None => Decision::Move(identifier),
        })
    }

    /// Moves the identifier at position `at` of the customer's list to the normal form
    /// `identifier`. Returns `None`, and writes nothing, if the customer was changed since it was
    /// read.
    async fn move_identity(
        &self,
        customer: &mut Customer,
        at: usize,
        identifier: Identifier,
    ) -> Result<Option<Decision>, StoreError> {
        let (org, user) = (customer.org, customer.user);
        let old = customer.identifiers[at].clone();
        let new = Listed(old.0.clone(), old.1, identifier.value().to_owned());
        let mut identifiers = customer.identifiers.clone();
        if identifiers.contains(&new) {
            identifiers.remove(at);
        } else {
            identifiers[at] = new;
        }
        let list = json(&identifiers)?;
        let identity = old.with(identifier.clone());
        let put = NewItem::new(&keys::identity(org, &identity)).with(USER_ID, n(user));
        let put = self.put_if(put, |put| {
            put.condition_expression(FREE_OR_OWN)
                .expression_attribute_names("#user", USER_ID)
                .expression_attribute_values(":user", n(user))
        })?;
        let delete = Delete::builder()
            .table_name(&self.table)
            .set_key(Some(keys::stored_identity(org, old.0.as_ref(), old.1, &old.2).attributes()))
            .condition_expression(FREE_OR_OWN)
            .expression_attribute_names("#user", USER_ID)
            .expression_attribute_values(":user", n(user))
            .build()
            .map_err(StoreError::from_build)?;
        let profile = Update::builder()
            .table_name(&self.table)
            .set_key(Some(keys::profile(org, user).attributes()))
            .update_expression("SET #identifiers = :new")
            .condition_expression("#identifiers = :old")
            .expression_attribute_names("#identifiers", IDENTIFIERS)
            .expression_attribute_values(":new", list.clone())
            .expression_attribute_values(":old", s(&customer.json))
            .build()
            .map_err(StoreError::from_build)?;
        let writes = vec![
            TransactWriteItem::builder().update(profile).build(),
            put,
            TransactWriteItem::builder().delete(delete).build(),
        ];
        Ok(match self.transact(writes).await? {
            Outcome::Done => {
                customer.identifiers = identifiers;
                list.as_s()
                    .map_err(|_| StoreError::corrupt("a list is not text"))?
                    .clone_into(&mut customer.json);
                Some(Decision::Move(identifier))
            }
            Outcome::Refused(at) if at.contains_key(&0) => None,
            Outcome::Refused(at) if at.contains_key(&1) => match self.find_customer(org, &identity).await? {
                Some(by) if by != user => {
                    let normal_form = identifier.value().to_owned();
                    Some(Decision::Leave(Reason::Taken { normal_form, by }))
                }
                // The other customer no longer has it.
                _ => None,
            },
            Outcome::Refused(_) => Some(Decision::Leave(Reason::PointsElsewhere)),
        })
    }
}

/// How many lost races the upgrade of one customer tolerates. Customers change rarely, so more in a
/// row indicate a fault.
const MAX_LOST_RACES: u32 = 16;

/// The condition that an identity is free or belongs to the customer.
const FREE_OR_OWN: &str = "attribute_not_exists(#user) OR #user = :user";

fn decide(org: &Org, Listed(_, name, value): &Listed) -> Decision {
    let is_mobile = *name == IdentifierName::Mobile;
    // A stored mobile number includes its country code.
    let typed = if is_mobile { format!("+{value}") } else { value.clone() };
    match org.identifier(*name, &typed) {
        Err(Malformed(_)) => Decision::Leave(Reason::Malformed),
        Ok(identifier) if identifier.value() != value => Decision::Move(identifier),
        Ok(identifier) => match org.identifier(*name, value) {
            Ok(national) if is_mobile && national != identifier => {
                Decision::Leave(Reason::MaybeNational { normal_form: national.value().to_owned() })
            }
            _ => Decision::Keep,
        },
    }
}

impl Listed {
    /// The same identity with another identifier.
    fn with(&self, identifier: Identifier) -> Identity {
        Identity::new(self.0.clone().unwrap_or_else(Account::instore), identifier)
    }
}

impl Customer {
    fn read(attributes: &Attributes) -> Result<Self, StoreError> {
        let item = Item(attributes);
        let (org, user) = keys::profile_owner(item.s(keys::PK)?)
            .ok_or_else(|| StoreError::corrupt("a customer's item has an invalid key"))?;
        Ok(Self { org, user, json: item.s(IDENTIFIERS)?.to_owned(), identifiers: item.json(IDENTIFIERS)? })
    }
}
