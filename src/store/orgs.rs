//! Orgs: their definition, their permutation key, and the history of their numbering plans.

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};
use chrono::{DateTime, Utc};

use super::{
    Item, Store, StoreError,
    card_numbers::{FORMAT, NEXT},
    item::{Attributes, NewItem, b, json, millis, n, s},
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
        webhook::{WebhookSecret, WebhookSecrets},
    },
    secret::Secret,
};

const DEFINITION: &str = "definition";
const PERMUTATION_KEY: &str = "permutation_key";
/// Incremented by each change, so that two operators cannot overwrite each other's changes.
const VERSION: &str = "version";
/// Present once all org-wide identities of the org's customers are written.
const CUSTOMERS_JOIN: &str = "customers_join";
/// Plans before the current one under which numbers were issued.
const RETIRED: &str = "retired_plans";
/// The secret of the webhooks, and those before, each with the time until which it signs, too.
const WEBHOOK_SECRET: &str = "webhook_secret";
const PREVIOUS_SECRETS: &str = "previous_webhook_secrets";
const SECRET: &str = "secret";
const UNTIL: &str = "until";
const NAME: &str = "name";
const ID: &str = "id";
/// On the counter: its plan, and the first value of the plan.
const PLAN: &str = "plan";
const FIRST: &str = "first";

/// The result of [`Store::apply_org`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Applied {
    Created,
    /// Contains the previous definition. It is the same as the new one if only the counter of the
    /// card numbers had another plan.
    Updated(Box<Definition>),
    Unchanged,
}

/// Why a definition was not applied. Nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Invalid(Invalid),
    /// The new plan could repeat a card number.
    #[error(transparent)]
    PossibleDuplicate(PossibleDuplicate),
    /// The org is not of the version that was to be replaced.
    #[error("the org was changed since it was read; look at it again")]
    Outdated,
    /// Another change of the org was written at the same time.
    #[error("the org was changed at the same moment; try again")]
    Concurrent,
    /// Card numbers were allocated too fast for the plan to be changed.
    #[error("card numbers are taken too fast to change their plan; try again")]
    Busy,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// How many attempts are made to change the plan. The last attempt skips up to 65,536 numbers of
/// the old plan.
const PLAN_CHANGE_ATTEMPTS: u32 = 11;
/// How many of the first attempts skip no numbers.
const EXACT_ATTEMPTS: u32 = 2;

/// The complete item of an org.
struct OrgItem {
    definition: Definition,
    permutation_key: PermutationKey,
    version: u64,
    retired: Vec<IssuedRange>,
    webhook_secrets: Option<WebhookSecrets>,
    customers_join: bool,
}

/// An org, its version and the secrets of its webhooks.
#[derive(Debug, Clone)]
pub struct StoredOrg {
    pub org: Org,
    /// Incremented by each change.
    pub version: u64,
    /// `None` if it has none.
    pub secrets: Option<WebhookSecrets>,
}

impl Store {
    /// An org, read strongly consistently.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn org(&self, id: OrgId) -> Result<Option<Org>, StoreError> {
        Ok(self.stored_org(id).await?.map(|found| found.org))
    }

    /// An org, its version and the secrets of its webhooks, read strongly consistently.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn stored_org(&self, id: OrgId) -> Result<Option<StoredOrg>, StoreError> {
        self.get(&keys::org(id)).await?.as_ref().map(stored_org).transpose()
    }

    /// The secrets of an org's webhooks. `None` if there is no such org, or it has none.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn webhook_secrets(&self, org: OrgId) -> Result<Option<WebhookSecrets>, StoreError> {
        Ok(self.read_org_item(org).await?.and_then(|record| record.webhook_secrets))
    }

    /// Makes `new` the secret of an org's webhooks. The one that it replaces, if any, signs beside
    /// it for [`SECRET_OVERLAP`](crate::model::webhook::SECRET_OVERLAP) from `now`. Returns whether
    /// there is such an org.
    ///
    /// # Errors
    /// [`ApplyError::Concurrent`] and [`ApplyError::Store`]; then nothing was written.
    pub async fn replace_webhook_secret(
        &self,
        org: OrgId,
        new: WebhookSecret,
        now: DateTime<Utc>,
    ) -> Result<bool, ApplyError> {
        let Some(mut record) = self.read_org_item(org).await? else {
            return Ok(false);
        };
        let replaced = record.version;
        record.version += 1;
        record.webhook_secrets = Some(WebhookSecrets::replaced(record.webhook_secrets, new, now));
        match self.transact(vec![self.put_org_item(&record, Some(replaced))?]).await? {
            Outcome::Done => Ok(true),
            Outcome::Refused(_) => Err(ApplyError::Concurrent),
        }
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

    /// The range of sequence values that the current plan has issued. `None` if the org has no
    /// plan.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn issued_card_numbers(&self, org: OrgId) -> Result<Option<IssuedRange>, StoreError> {
        let Some(attributes) = self.get(&keys::card_number_counter(org)).await? else {
            return Ok(None);
        };
        let item = Item(&attributes);
        let plan: NumberingPlan = item.json(PLAN)?;
        if item.s(FORMAT)? != plan.format() {
            return Err(StoreError::corrupt("`shape` and `plan` of the card number counter differ"));
        }
        Ok(Some(IssuedRange { plan, first: item.n(FIRST)?, next: item.n(NEXT)? }))
    }

    /// The ranges of sequence values that were issued under earlier plans of an org.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn retired_card_numbers(&self, org: OrgId) -> Result<Vec<IssuedRange>, StoreError> {
        Ok(self.read_org_item(org).await?.map_or_else(Vec::new, |record| record.retired))
    }

    /// Creates an org or changes it to `definition`. A new org gets `permutation_key`, and its
    /// first customer gets `first_user`. For an existing org, both are ignored. With `replaced`,
    /// only that version of the org is changed.
    ///
    /// # Errors
    /// [`ApplyError`]; then nothing was written.
    pub async fn apply_org(
        &self,
        definition: &Definition,
        permutation_key: PermutationKey,
        first_user: UserId,
        replaced: Option<u64>,
    ) -> Result<Applied, ApplyError> {
        definition.check().map_err(ApplyError::Invalid)?;
        // The plan may change only if no number was allocated since the counter was read. If
        // numbers are allocated too fast for that, each further attempt treats more of the next
        // numbers as allocated, which skips them.
        for attempt in 0..PLAN_CHANGE_ATTEMPTS {
            let to_skip = attempt.checked_sub(EXACT_ATTEMPTS).map_or(0, |attempt| 4_u64.pow(attempt));
            let applied =
                self.try_apply_org(definition, &permutation_key, first_user, replaced, to_skip).await?;
            if let Some(applied) = applied {
                return Ok(applied);
            }
        }
        Err(ApplyError::Busy)
    }

    /// Applies a definition, to the version `replaced` only if that is given. `None` when more than
    /// `to_skip` numbers were allocated between reading the counter and changing its plan.
    async fn try_apply_org(
        &self,
        definition: &Definition,
        permutation_key: &PermutationKey,
        first_user: UserId,
        replaced: Option<u64>,
        to_skip: u64,
    ) -> Result<Option<Applied>, ApplyError> {
        let plan = plan_of(definition);
        let existing = self.read_org_item(definition.id).await?;
        let version = existing.as_ref().map(|record| record.version);
        if replaced.is_some() && replaced != version {
            return Err(ApplyError::Outdated);
        }
        let mut record = OrgItem {
            definition: definition.clone(),
            permutation_key: existing
                .as_ref()
                .map_or(permutation_key, |record| &record.permutation_key)
                .clone(),
            version: version.unwrap_or(0) + 1,
            retired: existing.as_ref().map_or_else(Vec::new, |record| record.retired.clone()),
            webhook_secrets: existing.as_ref().and_then(|record| record.webhook_secrets.clone()),
            customers_join: existing.as_ref().is_none_or(|record| record.customers_join),
        };
        let mut writes = Vec::new();
        if let Some(plan) = &plan {
            let mut current = self.issued_card_numbers(definition.id).await?;
            if let Some(current) = &mut current {
                current.next = current.plan.end().min(current.next + to_skip).max(current.next);
            }
            let before = existing.as_ref().and_then(|record| plan_of(&record.definition));
            let next = match transition(before.as_ref(), current.as_ref(), &record.retired, plan) {
                Ok(next) => next,
                Err(_) if to_skip > 0 => return Ok(None),
                Err(duplicate) => {
                    // Between the two reads, another change may have given the counter its plan.
                    let now = self.read_org_item(definition.id).await?.map(|record| record.version);
                    return Err(if now == version {
                        ApplyError::PossibleDuplicate(duplicate)
                    } else {
                        ApplyError::Concurrent
                    });
                }
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
        // An unchanged definition may have a counter of another plan, because an item was edited.
        if counter_writes == 0 && existing.as_ref().is_some_and(|record| record.definition == *definition) {
            return Ok(Some(Applied::Unchanged));
        }
        writes.push(self.put_org_item(&record, version)?);
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

    /// Records that the org's customers join across sources from now on, that is, in every process
    /// within a minute.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    #[cfg(feature = "cli")]
    pub(super) async fn let_customers_join(&self, org: OrgId) -> Result<(), StoreError> {
        let update = self
            .client
            .update_item()
            .table_name(&self.table)
            .set_key(Some(keys::org(org).attributes()))
            // With the same version, a change of the org that was read before would remove the
            // mark.
            .update_expression("SET #join = :one ADD #version :one")
            .condition_expression("attribute_exists(#version)")
            .expression_attribute_names("#join", CUSTOMERS_JOIN)
            .expression_attribute_names("#version", VERSION)
            .expression_attribute_values(":one", n(1));
        update.send().await.map(|_| ()).map_err(StoreError::from_sdk)
    }

    async fn read_org_item(&self, id: OrgId) -> Result<Option<OrgItem>, StoreError> {
        self.get(&keys::org(id)).await?.as_ref().map(read_org).transpose()
    }

    /// The write of the org's item, on the condition that its stored version is `replaced`. `None`
    /// means that the org is new.
    fn put_org_item(&self, record: &OrgItem, replaced: Option<u64>) -> Result<TransactWriteItem, StoreError> {
        let item = NewItem::new(&keys::org(record.definition.id))
            .with(DEFINITION, json(&record.definition)?)
            .with(PERMUTATION_KEY, b(record.permutation_key.expose()))
            .with(VERSION, n(record.version))
            .with(RETIRED, json(&record.retired)?);
        let item = match &record.webhook_secrets {
            Some(secrets) => with_secrets(item, secrets),
            None => item,
        };
        let item = if record.customers_join { item.with(CUSTOMERS_JOIN, n(1)) } else { item };
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

    /// The write of a counter for `started`, on the condition that the counter of `current` has not
    /// advanced beyond `current.next`.
    fn put_counter(
        &self,
        org: OrgId,
        started: &IssuedRange,
        current: Option<&IssuedRange>,
    ) -> Result<TransactWriteItem, StoreError> {
        let item = NewItem::new(&keys::card_number_counter(org))
            .with(FORMAT, s(started.plan.format()))
            .with(PLAN, json(&started.plan)?)
            .with(FIRST, n(started.first))
            .with(NEXT, n(started.next));
        let Some(current) = current else {
            return self.put_new(item);
        };
        self.put_if(item, |put| {
            put.condition_expression("#format = :format AND #next <= :next")
                .expression_attribute_names("#format", FORMAT)
                .expression_attribute_names("#next", NEXT)
                .expression_attribute_values(":format", s(current.plan.format()))
                .expression_attribute_values(":next", n(current.next))
        })
    }
}

fn plan_of(definition: &Definition) -> Option<NumberingPlan> {
    NumberingPlan::try_from(&definition.config.card_numbers).ok()
}

fn read_org(attributes: &Attributes) -> Result<OrgItem, StoreError> {
    let item = Item(attributes);
    Ok(OrgItem {
        definition: item.json(DEFINITION)?,
        permutation_key: Secret::new(item.bytes(PERMUTATION_KEY)?),
        version: item.n(VERSION)?,
        retired: item.json(RETIRED)?,
        webhook_secrets: webhook_secrets(&item)?,
        customers_join: item.has(CUSTOMERS_JOIN),
    })
}

/// Reads the item of an org.
pub(super) fn stored_org(attributes: &Attributes) -> Result<StoredOrg, StoreError> {
    let record = read_org(attributes)?;
    let mut org = Org::new(record.definition, record.permutation_key).map_err(StoreError::corrupt)?;
    org.customers_join = record.customers_join;
    Ok(StoredOrg { org, version: record.version, secrets: record.webhook_secrets })
}

fn webhook_secrets(item: &Item<'_>) -> Result<Option<WebhookSecrets>, StoreError> {
    if !item.has(WEBHOOK_SECRET) {
        return Ok(None);
    }
    let secret = |item: &Item<'_>, name| item.bytes(name).map(WebhookSecret::stored);
    let previous = item.items(PREVIOUS_SECRETS)?;
    let previous = previous.iter().map(|entry| Ok((secret(entry, SECRET)?, entry.millis(UNTIL)?)));
    let previous = previous.collect::<Result<_, StoreError>>()?;
    Ok(Some(WebhookSecrets { current: secret(item, WEBHOOK_SECRET)?, previous }))
}

fn with_secrets(item: NewItem, secrets: &WebhookSecrets) -> NewItem {
    let entry = |(secret, until): &(WebhookSecret, DateTime<Utc>)| {
        AttributeValue::M(Attributes::from([
            (SECRET.to_owned(), b(secret.expose())),
            (UNTIL.to_owned(), millis(*until)),
        ]))
    };
    let previous = secrets.previous.iter().map(entry).collect();
    item.with(WEBHOOK_SECRET, b(secrets.current.expose())).with(PREVIOUS_SECRETS, AttributeValue::L(previous))
}
