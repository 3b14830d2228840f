//! Orgs: their definition, their permutation key, and the history of their numbering plans.

use aws_sdk_dynamodb::types::TransactWriteItem;

use super::{
    Item, Store, StoreError,
    card_numbers::{NEXT, SHAPE},
    item::{NewItem, b, json, n, s},
    keys,
    transaction::Outcome,
};
use crate::{
    model::{
        card_number::{
            NumberingPlan,
            history::{IssuedRange, PossibleDuplicate, Transition, transition},
            permutation::PermutationKey,
        },
        customer::UserId,
        org::{Definition, Invalid, Org, OrgId},
    },
    secret::Secret,
};

const DEFINITION: &str = "definition";
const PERMUTATION_KEY: &str = "permutation_key";
/// Raised by each change: two operators cannot overwrite each other.
const VERSION: &str = "version";
/// Plans that numbers were issued under before the current one.
const RETIRED: &str = "retired_plans";
const NAME: &str = "name";
const ID: &str = "id";
/// On the counter: its plan, and the value that the plan began at.
const PLAN: &str = "plan";
const FIRST: &str = "first";

/// What [`Store::apply_org`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    Created,
    /// The definition that was replaced.
    Updated(Box<Definition>),
    Unchanged,
}

/// Why a definition was not applied. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Invalid(Invalid),
    /// It could let a card number appear twice.
    #[error(transparent)]
    PossibleDuplicate(PossibleDuplicate),
    /// Somebody else changed the org at the same moment.
    #[error("somebody else changed the org at the same moment; try again")]
    Concurrent,
    /// Numbers were taken too fast to change the plan that they are taken by.
    #[error("card numbers are taken too fast to change their plan; try again")]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How often a change of the plan is tried. The last attempt skips up to 65,536 numbers of the old plan.
const PLAN_CHANGE_ATTEMPTS: u32 = 11;
/// The first attempts skip none.
const EXACT_ATTEMPTS: u32 = 2;

/// An org's item, whole.
struct OrgItem {
    definition: Definition,
    permutation_key: PermutationKey,
    version: u64,
    retired: Vec<IssuedRange>,
}

impl Store {
    /// An org as it was last written.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn org(&self, id: OrgId) -> Result<Option<Org>, StoreError> {
        let Some(record) = self.org_record(id).await? else {
            return Ok(None);
        };
        Org::new(record.definition, record.permutation_key).map(Some).map_err(StoreError::corrupt)
    }

    /// The id and name of every org, by id.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn orgs(&self) -> Result<Vec<(OrgId, String)>, StoreError> {
        let listed = self.query(keys::ORGS, "ORG#", "ORG#~").await?;
        listed
            .iter()
            .rev()
            .map(|attributes| {
                let item = Item(attributes);
                Ok((OrgId(item.n(ID)?), item.s(NAME)?.to_owned()))
            })
            .collect()
    }

    /// How many card numbers the current plan has given, if the org has one: its sequence from the first
    /// value to the next one.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn issued_card_numbers(&self, org: OrgId) -> Result<Option<IssuedRange>, StoreError> {
        let Some(attributes) = self.get(&keys::card_number_counter(org)).await? else {
            return Ok(None);
        };
        let item = Item(&attributes);
        Ok(Some(IssuedRange { plan: item.json(PLAN)?, first: item.n(FIRST)?, next: item.n(NEXT)? }))
    }

    /// Creates an org or changes it to `definition`. A new org gets `permutation_key`, and its first
    /// customer gets `first_user`; for an org that exists, both are ignored.
    ///
    /// # Errors
    /// [`ApplyError`]; then nothing was written.
    pub async fn apply_org(
        &self,
        definition: &Definition,
        permutation_key: PermutationKey,
        first_user: UserId,
    ) -> Result<Applied, ApplyError> {
        definition.check().map_err(ApplyError::Invalid)?;
        // The plan may change only if no number was taken since the counter was read. Where they are taken too fast for
        // that, more and more of those to come are counted as taken.
        for attempt in 0..PLAN_CHANGE_ATTEMPTS {
            let to_skip = attempt.checked_sub(EXACT_ATTEMPTS).map_or(0, |attempt| 4_u64.pow(attempt));
            let applied = self.try_apply_org(definition, &permutation_key, first_user, to_skip).await?;
            if let Some(applied) = applied {
                return Ok(applied);
            }
        }
        Err(ApplyError::Busy)
    }

    /// `None` when more than `to_skip` numbers were taken between reading the counter and changing its plan.
    async fn try_apply_org(
        &self,
        definition: &Definition,
        permutation_key: &PermutationKey,
        first_user: UserId,
        to_skip: u64,
    ) -> Result<Option<Applied>, ApplyError> {
        let plan = NumberingPlan::try_from(&definition.config.card_numbers).ok();
        let existing = self.org_record(definition.id).await?;
        if existing.as_ref().is_some_and(|record| record.definition == *definition) {
            return Ok(Some(Applied::Unchanged));
        }
        let version = existing.as_ref().map(|record| record.version);
        let mut record = OrgItem {
            definition: definition.clone(),
            permutation_key: existing
                .as_ref()
                .map_or(permutation_key, |record| &record.permutation_key)
                .clone(),
            version: version.unwrap_or(0) + 1,
            retired: existing.as_ref().map_or_else(Vec::new, |record| record.retired.clone()),
        };
        let mut writes = Vec::new();
        if let Some(plan) = &plan {
            let mut current = self.issued_card_numbers(definition.id).await?;
            if let Some(current) = &mut current {
                current.next = current.plan.end().min(current.next + to_skip).max(current.next);
            }
            let next = match transition(current.as_ref(), &record.retired, plan) {
                Err(_) if to_skip > 0 => return Ok(None),
                next => next.map_err(ApplyError::PossibleDuplicate)?,
            };
            if let Transition::Start(started) = next {
                let retired = current.as_ref().filter(|current| {
                    current.first < current.next && current.plan.format() != started.plan.format()
                });
                record.retired.extend(retired.cloned());
                writes.push(self.put_counter(definition.id, &started, current.as_ref())?);
            }
        }
        let counter_writes = writes.len();
        writes.push(self.put_record(&record, version)?);
        writes.push(self.put_listing(definition)?);
        if existing.is_none() {
            let counter = NewItem::new(&keys::user_id_counter(definition.id)).with(NEXT, n(first_user));
            writes.push(self.put_new(counter)?);
        }
        match self.transact(writes).await? {
            Outcome::Refused(at) if at.keys().all(|position| *position < counter_writes) => Ok(None),
            Outcome::Refused(_) => Err(ApplyError::Concurrent),
            Outcome::Done => Ok(Some(
                existing.map_or(Applied::Created, |record| Applied::Updated(Box::new(record.definition))),
            )),
        }
    }

    async fn org_record(&self, id: OrgId) -> Result<Option<OrgItem>, StoreError> {
        let Some(attributes) = self.get(&keys::org(id)).await? else {
            return Ok(None);
        };
        let item = Item(&attributes);
        Ok(Some(OrgItem {
            definition: item.json(DEFINITION)?,
            permutation_key: Secret::new(item.bytes(PERMUTATION_KEY)?),
            version: item.n(VERSION)?,
            retired: item.json(RETIRED)?,
        }))
    }

    /// The org's item, where `replaced` is the version that it takes the place of.
    fn put_record(&self, record: &OrgItem, replaced: Option<u64>) -> Result<TransactWriteItem, StoreError> {
        let item = NewItem::new(&keys::org(record.definition.id))
            .with(DEFINITION, json(&record.definition)?)
            .with(PERMUTATION_KEY, b(record.permutation_key.expose()))
            .with(VERSION, n(record.version))
            .with(RETIRED, json(&record.retired)?);
        let Some(replaced) = replaced else {
            return self.put_new(item);
        };
        self.put_if(item, |put| {
            put.condition_expression("#version = :replaced")
                .expression_attribute_names("#version", VERSION)
                .expression_attribute_values(":replaced", n(replaced))
        })
    }

    fn put_listing(&self, definition: &Definition) -> Result<TransactWriteItem, StoreError> {
        let item = NewItem::new(&keys::org_listing(definition.id))
            .with(ID, n(definition.id))
            .with(NAME, s(&definition.name));
        self.put_if(item, |put| put)
    }

    /// The counter of `started`, in the place of `current`, which must not have gone further meanwhile.
    fn put_counter(
        &self,
        org: OrgId,
        started: &IssuedRange,
        current: Option<&IssuedRange>,
    ) -> Result<TransactWriteItem, StoreError> {
        let item = NewItem::new(&keys::card_number_counter(org))
            .with(SHAPE, s(started.plan.format()))
            .with(PLAN, json(&started.plan)?)
            .with(FIRST, n(started.first))
            .with(NEXT, n(started.next));
        let Some(current) = current else {
            return self.put_new(item);
        };
        self.put_if(item, |put| {
            put.condition_expression("#shape = :shape AND #next <= :next")
                .expression_attribute_names("#shape", SHAPE)
                .expression_attribute_names("#next", NEXT)
                .expression_attribute_values(":shape", s(current.plan.format()))
                .expression_attribute_values(":next", n(current.next))
        })
    }
}
