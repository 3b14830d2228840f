//! Brings the items of registered customers to what this version writes: moves identifiers to their
//! normal form, and writes org-wide identities.
//!
//! The normal form of an identifier depends on the rules of `typed_text` and on the org's phone
//! number plan. When either changes, an identifier that is stored in the old form is no longer
//! found. An upgrade reads every customer and moves each identifier to its current normal form. One
//! transaction writes the new identity, deletes the old one and changes the customer's list, on the
//! condition that none of them has changed meanwhile. So an upgrade may run beside the service, be
//! interrupted, and run again. Identifiers that are already in normal form are left alone.
//!
//! Version 0.1.0 wrote no org-wide identities. An upgrade writes those that are missing, on
//! the condition that the customer's list has not changed. If several customers have one mobile or
//! e-mail address, the one with the lowest user id gets it, and the others are listed. When all
//! customers are done, the org is marked, and its customers join from then on. Customers who are
//! registered meanwhile are not missed; the module `registration` explains why.
//!
//! OTPs of contacts are keyed by the identifier, too. They are not moved, because they expire
//! within a day.

use std::collections::{BTreeSet, HashMap, HashSet, hash_map::Entry};

use aws_sdk_dynamodb::types::TransactWriteItem;
use serde::Serialize;

use super::{
    Attributes, Item, Store, StoreError,
    card_numbers::NEXT,
    customer_writes::{
        ACCOUNTS, Before, CustomerWrites, IDENTIFIERS, Part, StoredCustomer, USER_ID, Written,
        org_wide_identity,
    },
    error_chain,
    item::{n, s},
    keys,
    retries::LostRaces,
    transaction::Outcome,
};
use crate::model::{
    customer::{Account, Identifier, IdentifierName, Malformed, UserId},
    org::{Org, OrgId},
    profile::StoredIdentifier,
};

/// An identifier that an upgrade leaves as it is. It contains personal data, so it is shown to the
/// operator and never logged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Undecided {
    pub org: OrgId,
    pub user: UserId,
    /// `None` for an external ID and a card number.
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
    /// Another customer has it in another account, and stays the one whom registrations join.
    OtherJoins { by: UserId },
    /// An erased customer had the normal form, which nobody can have again.
    Erased { normal_form: String },
}

/// What an upgrade has done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UpgradeReport {
    /// Customers that were checked.
    pub customers: u64,
    /// Identifiers that were moved to their normal form, or would be in a dry run.
    pub changed: u64,
    /// Org-wide identities that were written, or would be in a dry run.
    pub org_wide: u64,
    /// Orgs whose customers join from now on, or would after a run that is not dry.
    pub joining: Vec<OrgId>,
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

/// What to do with one identifier.
enum Decision {
    Keep,
    Move(Identifier),
    Leave(Reason),
}

/// The state of a run.
struct Run {
    options: UpgradeOptions,
    report: UpgradeReport,
    /// The orgs that were read already.
    orgs: HashMap<OrgId, Org>,
    /// Orgs with a customer whose items cannot be read.
    with_unreadable: HashSet<String>,
}

impl Store {
    /// Upgrades all customers, or those of one org, and then lets the customers of these orgs join.
    /// Calls `progress` after each customer.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails. Changes that were made before remain, and another
    /// upgrade continues. Customers with corrupt items are listed in the report.
    pub async fn upgrade(
        &self,
        options: UpgradeOptions,
        mut progress: impl FnMut(&UpgradeReport),
    ) -> Result<UpgradeReport, StoreError> {
        let mut run = Run {
            options,
            report: UpgradeReport::default(),
            orgs: HashMap::new(),
            with_unreadable: HashSet::new(),
        };
        let prefix = options.org.map_or_else(|| "ORG#".to_owned(), |org| format!("ORG#{org}#"));
        let scan = self
            .client
            .scan()
            .table_name(&self.table)
            .filter_expression("#sk = :profile AND begins_with(#pk, :prefix)")
            .expression_attribute_names("#pk", keys::PK)
            .expression_attribute_names("#sk", keys::SK)
            .expression_attribute_values(":profile", s(keys::PROFILE))
            .expression_attribute_values(":prefix", s(prefix))
            .consistent_read(true);
        let mut items = scan.into_paginator().items().send();
        while let Some(attributes) = items.try_next().await.map_err(StoreError::from_sdk)? {
            if Item(&attributes).is_gone() {
                continue;
            }
            match self.upgrade_item(&attributes, &mut run).await {
                Err(error) if error.is_corrupt() => {
                    let partition = Item(&attributes).s(keys::PK)?.to_owned();
                    run.with_unreadable.extend(partition.split('#').nth(1).map(str::to_owned));
                    let reason = error_chain(&error);
                    run.report.unreadable.push(Unreadable { partition, reason });
                }
                upgraded => upgraded?,
            }
            run.report.customers += 1;
            progress(&run.report);
        }
        self.let_orgs_join(&mut run).await?;
        Ok(run.report)
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

    /// Marks the orgs whose customers were all upgraded.
    async fn let_orgs_join(&self, run: &mut Run) -> Result<(), StoreError> {
        let orgs = match run.options.org {
            Some(org) => vec![org],
            None => self.orgs().await?.into_iter().map(|(id, _)| id).collect(),
        };
        for id in orgs.into_iter().filter(|id| !run.with_unreadable.contains(&id.to_string())) {
            let join = match self.org(id).await {
                // An org that cannot be read serves no requests.
                Err(error) if error.is_corrupt() => continue,
                org => org?.is_none_or(|org| org.customers_join),
            };
            if !join {
                if !run.options.dry_run {
                    self.let_customers_join(id).await?;
                }
                run.report.joining.push(id);
            }
        }
        Ok(())
    }

    /// Upgrades the customer of one item.
    async fn upgrade_item(&self, attributes: &Attributes, run: &mut Run) -> Result<(), StoreError> {
        let stored = StoredCustomer::read(attributes)?;
        let org = match run.orgs.entry(stored.org) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let org = self.org(stored.org).await?;
                unknown.insert(org.ok_or_else(|| StoreError::corrupt("the org of a customer is missing"))?)
            }
        };
        self.upgrade_customer(org, stored, run.options.dry_run, &mut run.report).await
    }

    async fn upgrade_customer(
        &self,
        org: &Org,
        mut stored: StoredCustomer,
        dry_run: bool,
        report: &mut UpgradeReport,
    ) -> Result<(), StoreError> {
        let mut lost_races = LostRaces::new();
        loop {
            let upgraded = self.move_identities(org, &mut stored, dry_run, report).await?
                && self.write_org_wide_identities(org, &stored, dry_run, report).await?;
            if upgraded {
                return Ok(());
            }
            match self.stored_customer(stored.org, stored.customer.user).await? {
                Some(current) => stored = current,
                None => return Ok(()),
            }
            lost_races.pause("a customer keeps changing").await?;
        }
    }

    /// Moves a customer's identifiers to their normal form. Returns `false` after a lost race: the
    /// customer was changed at the same time.
    async fn move_identities(
        &self,
        org: &Org,
        stored: &mut StoredCustomer,
        dry_run: bool,
        report: &mut UpgradeReport,
    ) -> Result<bool, StoreError> {
        let mut at = 0;
        while let Some(listed) = stored.customer.identifiers.get(at).cloned() {
            let decision = match decide(org, &listed) {
                Decision::Move(identifier) => {
                    match self.move_identity(stored, at, identifier, dry_run).await? {
                        Some(decision) => decision,
                        None => return Ok(false),
                    }
                }
                decision => decision,
            };
            match decision {
                Decision::Keep => at += 1,
                // After a move, the entry at `at` has its new form, or is gone if the list had that
                // form already. So the loop looks at the same position again.
                Decision::Move(_) => report.changed += 1,
                Decision::Leave(reason) => {
                    report.leave(org.id(), stored.customer.user, listed, reason);
                    at += 1;
                }
            }
        }
        Ok(true)
    }

    /// Moves the identifier at position `at` of the customer's list to the normal form
    /// `identifier`, unless another customer has that. A dry run changes only the list in memory.
    /// Returns `None`, and writes nothing, after a lost race.
    async fn move_identity(
        &self,
        stored: &mut StoredCustomer,
        at: usize,
        identifier: Identifier,
        dry_run: bool,
    ) -> Result<Option<Decision>, StoreError> {
        let (org, user) = (stored.org, stored.customer.user);
        let old = stored.customer.identifiers[at].clone();
        let new = StoredIdentifier(old.0.clone(), old.1, identifier.value().to_owned());
        let mut after = stored.customer.clone();
        if after.identifiers.contains(&new) {
            after.identifiers.remove(at);
        } else {
            after.identifiers[at] = new.clone();
        }
        let keys: Vec<_> = [Some(new.key()), new.person(), old.person()].into_iter().flatten().collect();
        let owners = self.owners(org, &keys).await?;
        if owners.is_retired(&new.key()) {
            let normal_form = identifier.value().to_owned();
            return Ok(Some(Decision::Leave(Reason::Erased { normal_form })));
        }
        if let Some(by) = owners.get(&new.key()).filter(|owner| *owner != user) {
            let normal_form = identifier.value().to_owned();
            return Ok(Some(Decision::Leave(Reason::Taken { normal_form, by })));
        }
        if !dry_run {
            let writes = CustomerWrites { before: Before::Stored(stored), after: &after, owners: &owners };
            match self.write_customer(org, &writes, None).await? {
                Written::Done => {}
                Written::Refused(parts)
                    if parts.contains(&Part::Removed) && !parts.contains(&Part::Customer) =>
                {
                    return Ok(Some(Decision::Leave(Reason::PointsElsewhere)));
                }
                Written::Refused(_) | Written::Replay(_) => return Ok(None),
            }
            let current = self.stored_customer(org, user).await?;
            match current.filter(|current| current.customer.identifiers == after.identifiers) {
                Some(current) => *stored = current,
                None => return Ok(None),
            }
        }
        stored.customer.identifiers = after.identifiers;
        Ok(Some(Decision::Move(identifier)))
    }

    /// Writes the org-wide identities of a customer that are missing or do not have the right
    /// accounts. Returns `false` after a lost race.
    async fn write_org_wide_identities(
        &self,
        org: &Org,
        stored: &StoredCustomer,
        dry_run: bool,
        report: &mut UpgradeReport,
    ) -> Result<bool, StoreError> {
        let customer = &stored.customer;
        let valid = |listed: &&StoredIdentifier| {
            matches!(decide(org, listed), Decision::Keep | Decision::Leave(Reason::MaybeNational { .. }))
        };
        let persons = customer.identifiers.iter().filter(valid).filter_map(StoredIdentifier::person);
        let persons: Vec<_> = persons.collect::<BTreeSet<_>>().into_iter().collect();
        let found = self.owner_items(org.id(), &persons).await?;
        let (mut writes, mut taken_over) = (Vec::new(), Vec::new());
        for person in &persons {
            let item = found.get(person).map(Item);
            let owner = item.as_ref().map(|item| item.n(USER_ID).map(UserId)).transpose()?;
            match (owner, item) {
                (Some(owner), Some(item)) if owner == customer.user => {
                    let accounts: BTreeSet<String> =
                        customer.accounts_of(person).into_iter().map(ToString::to_string).collect();
                    if item.texts(ACCOUNTS)?.iter().cloned().collect::<BTreeSet<_>>() == accounts {
                        continue;
                    }
                }
                (Some(owner), _) if owner < customer.user => {
                    for account in customer.accounts_of(person) {
                        let listed = StoredIdentifier(Some(account.clone()), person.1, person.2.clone());
                        report.leave(org.id(), customer.user, listed, Reason::OtherJoins { by: owner });
                    }
                    continue;
                }
                (Some(owner), Some(item)) => {
                    for account in item.texts(ACCOUNTS)? {
                        let listed = StoredIdentifier(Account::parse(account), person.1, person.2.clone());
                        taken_over.push((owner, listed));
                    }
                }
                _ => {}
            }
            writes.push(self.put_if(org_wide_identity(org.id(), customer, person), |put| {
                match owner {
                    None => put
                        .condition_expression("attribute_not_exists(#user)")
                        .expression_attribute_names("#user", USER_ID),
                    Some(owner) => put
                        .condition_expression("#user = :owner")
                        .expression_attribute_names("#user", USER_ID)
                        .expression_attribute_values(":owner", n(owner)),
                }
            })?);
        }
        let written = writes.len();
        if !dry_run && !self.write_while_unchanged(stored, writes).await? {
            return Ok(false);
        }
        report.org_wide += u64::try_from(written).unwrap_or_default();
        for (owner, listed) in taken_over {
            report.leave(org.id(), owner, listed, Reason::OtherJoins { by: customer.user });
        }
        Ok(true)
    }

    /// Writes org-wide identities of a customer on the condition that the customer's list is
    /// unchanged. Returns whether all were written.
    async fn write_while_unchanged(
        &self,
        stored: &StoredCustomer,
        writes: Vec<TransactWriteItem>,
    ) -> Result<bool, StoreError> {
        let profile = keys::profile(stored.org, stored.customer.user);
        let unchanged = self.condition_check(&profile, |check| {
            check
                .condition_expression(format!("{IDENTIFIERS} = :old"))
                .expression_attribute_values(":old", s(&stored.identifiers))
        })?;
        for chunk in writes.chunks(WRITES_AT_ONCE) {
            let mut writes = vec![unchanged.clone()];
            writes.extend_from_slice(chunk);
            if self.transact(writes).await? != Outcome::Done {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// How many org-wide identities one transaction writes.
const WRITES_AT_ONCE: usize = 50;

impl UpgradeReport {
    /// Lists an identifier that is left as it is. After a lost race, a customer is upgraded again,
    /// and may leave the same identifier.
    fn leave(&mut self, org: OrgId, user: UserId, listed: StoredIdentifier, reason: Reason) {
        let StoredIdentifier(account, name, value) = listed;
        let undecided = Undecided { org, user, account, name, value, reason };
        if !self.undecided.contains(&undecided) {
            self.undecided.push(undecided);
        }
    }
}

fn decide(org: &Org, StoredIdentifier(_, name, value): &StoredIdentifier) -> Decision {
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
