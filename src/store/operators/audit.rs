//! What operators did. An entry is written before an act, so that no act goes unrecorded, and
//! completed after it. It contains ids and no personal data.

use chrono::{DateTime, Datelike, Months, SecondsFormat, Utc};
use rand::RngExt;
use serde_json::Value;

use super::{
    Attributes, Item, Store, StoreError,
    item::{NewItem, json, millis, s},
    keys,
};
use crate::{model::org::OrgId, secret::os_rng, wire::wire_enum};

const ID: &str = "id";
const AT: &str = "at";
const WHO: &str = "who";
const WHAT: &str = "what";
const DETAIL: &str = "detail";
const OUTCOME: &str = "outcome";

wire_enum! {
    /// How an act ended.
    pub enum Outcome {
        /// It was begun, and nothing says how it ended: it is under way, or the process died.
        Begun = "begun",
        Done = "done",
        /// It failed or was refused.
        Failed = "failed",
    }
}

/// An act of an operator, to be recorded.
#[derive(Debug, Clone)]
pub struct Act {
    pub org: OrgId,
    /// Who acts: an AWS identity, or a user of the operating system.
    pub who: String,
    /// The command, such as `numbers take`.
    pub what: &'static str,
    pub detail: Value,
    pub at: DateTime<Utc>,
}

/// A recorded act.
#[derive(Debug, Clone, PartialEq)]
pub struct AuditEntry {
    /// Unique within the org; begins with the time.
    pub id: String,
    pub org: OrgId,
    pub at: DateTime<Utc>,
    pub who: String,
    pub what: String,
    pub detail: Value,
    pub outcome: Outcome,
}

impl AuditEntry {
    fn read(org: OrgId, attributes: &Attributes) -> Result<Self, StoreError> {
        let item = Item(attributes);
        let unknown = || StoreError::corrupt("an audit entry has an unknown outcome");
        Ok(Self {
            id: item.s(ID)?.to_owned(),
            org,
            at: item.millis(AT)?,
            who: item.s(WHO)?.to_owned(),
            what: item.s(WHAT)?.to_owned(),
            detail: item.json(DETAIL)?,
            outcome: Outcome::parse(item.s(OUTCOME)?).ok_or_else(unknown)?,
        })
    }
}

impl Store {
    /// Records that an act begins.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails. Then the act must not be done.
    pub async fn begin_act(&self, act: &Act) -> Result<AuditEntry, StoreError> {
        let time = act.at.to_rfc3339_opts(SecondsFormat::Micros, true);
        let entry = AuditEntry {
            id: format!("{time}-{:08x}", os_rng().random::<u32>()),
            org: act.org,
            at: act.at,
            who: act.who.clone(),
            what: act.what.to_owned(),
            detail: act.detail.clone(),
            outcome: Outcome::Begun,
        };
        self.write_entry(&entry).await?;
        Ok(entry)
    }

    /// Replaces an entry with its later state.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn write_entry(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        let item = NewItem::new(&keys::audit_entry(entry.org, entry.at, &entry.id))
            .with(ID, s(&entry.id))
            .with(AT, millis(entry.at))
            .with(WHO, s(&entry.who))
            .with(WHAT, s(&entry.what))
            .with(DETAIL, json(&entry.detail)?)
            .with(OUTCOME, s(entry.outcome.as_str()));
        let put = self.client.put_item().table_name(&self.table).set_item(Some(item.into_attributes()));
        put.send().await.map(|_| ()).map_err(StoreError::from_sdk)
    }

    /// What was done for an org from `since` to `until`, newest first.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn audit_entries(
        &self,
        org: OrgId,
        since: DateTime<Utc>,
        until: DateTime<Utc>,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let mut entries = Vec::new();
        let mut month = Some(until);
        while let Some(current) =
            month.filter(|month| (month.year(), month.month()) >= (since.year(), since.month()))
        {
            for attributes in self.query(&keys::audit_month(org, current), "0", "9999").await? {
                entries.push(AuditEntry::read(org, &attributes)?);
            }
            month = current.checked_sub_months(Months::new(1));
        }
        entries.retain(|entry| (since..=until).contains(&entry.at));
        Ok(entries)
    }

    /// The entry with that id.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn audit_entry(&self, org: OrgId, id: &str) -> Result<Option<AuditEntry>, StoreError> {
        let time = id.rsplit_once('-').and_then(|(time, _)| time.parse::<DateTime<Utc>>().ok());
        let Some(at) = time else { return Ok(None) };
        let found = self.get(&keys::audit_entry(org, at, id)).await?;
        found.map(|attributes| AuditEntry::read(org, &attributes)).transpose()
    }
}
