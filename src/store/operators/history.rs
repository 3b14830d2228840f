//! What is stored about customers and contacts, for operators: the OTPs of the last days, what
//! became of their messages, wrong guesses and quotas. Nothing that is read here contains a code.
//!
//! Everything of an owner is in one partition, so each owner takes one query, whatever the size of
//! the table. A customer's OTPs are in the customer's own partition, and those for a contact in a
//! partition for each identifier and account.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use futures_util::future::join_all;

use super::{
    Attributes, Item, Store, StoreError,
    customer_writes::{ACCOUNTS, REGISTERED_AT, StoredCustomer, USER_ID},
    customers::owner_keys,
    issuing::{ISSUED, SENT_AT},
    keys::{self, OwnedItem},
    messages,
    otps::{CONSUMED_AT, SENDS, TIMES, VALID_UNTIL},
    revocation::REVOKED_AT,
    tombstones::Tombstone,
};
use crate::model::{
    customer::{Account, Identifier, IdentifierName, Identity, UserId},
    delivery_state::ChannelState,
    message::Channel,
    org::{Org, OrgId},
    otp::{CreatedId, FailedAttempts, Scope},
    profile::{Customer, StoredIdentifier},
};

/// Whose OTPs they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HistoryOwner {
    Customer(UserId),
    /// An identifier, whether or not it belongs to a customer.
    Contact(StoredIdentifier),
}

impl HistoryOwner {
    pub(super) fn partition(&self, org: OrgId) -> String {
        match self {
            Self::Customer(user) => keys::customer_partition(org, *user),
            Self::Contact(address) => keys::contact_partition(org, address),
        }
    }
}

/// What is stored about the OTPs of one owner.
#[derive(Debug, Clone)]
pub struct OwnerHistory {
    pub owner: HistoryOwner,
    /// Newest first.
    pub otps: Vec<OtpRecord>,
    /// By scope. Those that no longer count may be among them.
    pub failed_attempts: Vec<(Scope, FailedAttempts)>,
    pub quotas: Vec<QuotaCount>,
    /// When the last OTP of a scope was issued or sent again. Stored in orgs with a cooldown or
    /// with `CONF_OTP_REISSUE = "SAME"` only.
    pub last_sent: Vec<(Scope, DateTime<Utc>)>,
}

/// The failed attempts in several histories of one person. One that was counted for the customer
/// and for a contact is the customer's.
pub fn distinct_attempts<'a>(
    histories: impl Iterator<Item = &'a OwnerHistory>,
) -> Vec<(&'a OwnerHistory, Scope, FailedAttempts)> {
    let mut distinct = Vec::<(&OwnerHistory, Scope, FailedAttempts)>::new();
    let (customers, contacts): (Vec<_>, Vec<_>) =
        histories.partition(|history| matches!(history.owner, HistoryOwner::Customer(_)));
    for history in customers.into_iter().chain(contacts) {
        for (scope, attempts) in &history.failed_attempts {
            let counted = distinct.iter().filter(|(_, of, _)| of == scope);
            let own = counted.fold(attempts.clone(), |own, (_, _, counted)| own.without(counted));
            distinct.push((history, *scope, own));
        }
    }
    distinct
}

impl OwnerHistory {
    /// Whether nothing is stored.
    pub fn is_empty(&self) -> bool {
        self.otps.is_empty() && self.failed_attempts.is_empty() && self.quotas.is_empty()
    }
}

/// An OTP without its code, and its messages.
#[derive(Debug, Clone)]
pub struct OtpRecord {
    pub scope: Scope,
    pub created_id: CreatedId,
    pub end: OtpEnd,
    /// The first moment at which it is no longer valid.
    pub valid_until: DateTime<Utc>,
    /// How often it was issued or sent again.
    pub sends: u32,
    /// In the order in which they were asked for.
    pub messages: Vec<MessageRecord>,
}

/// What ended an OTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtpEnd {
    /// Nothing but, perhaps, its expiry.
    None,
    Validated(DateTime<Utc>),
    Revoked(DateTime<Utc>),
    /// It expired and was deleted. Its messages are kept longer, and nothing says whether it was
    /// validated.
    Deleted,
}

impl OtpRecord {
    /// Whether it can be validated.
    pub fn is_open(&self, now: DateTime<Utc>) -> bool {
        self.end == OtpEnd::None && now < self.valid_until
    }
}

/// A message of an OTP.
#[derive(Debug, Clone)]
pub struct MessageRecord {
    pub requested_at: DateTime<Utc>,
    /// Each with what became of it. `None` if its delivery was not begun.
    pub channels: Vec<(Channel, Option<ChannelState>)>,
}

/// How many OTPs count in a quota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaCount {
    /// A day in the org's time, such as `2026-11-21`, or an hour in UTC, such as `2026-11-21T10`.
    pub period: String,
    pub issued: u64,
}

/// The quotas of an address.
#[derive(Debug, Clone)]
pub struct AddressQuotas {
    pub name: IdentifierName,
    pub value: String,
    pub quotas: Vec<QuotaCount>,
}

/// What a user id stands for.
#[derive(Clone)]
pub enum CustomerState {
    Registered {
        /// `None` if an early version wrote the item without it.
        at: Option<DateTime<Utc>>,
        customer: Customer,
    },
    Gone(Tombstone),
}

/// Everything that is stored about a customer.
#[derive(Clone)]
pub struct CustomerHistory {
    pub user: UserId,
    pub state: CustomerState,
    /// What is in the customer's own partition.
    pub own: OwnerHistory,
    /// What is in the partitions of the customer's identifiers, without those that have nothing.
    pub contacts: Vec<OwnerHistory>,
    /// The quotas of the customer's addresses, without those that have none.
    pub addresses: Vec<AddressQuotas>,
}

impl CustomerHistory {
    /// The customer's own history and those of the customer's contacts.
    pub fn all(&self) -> impl Iterator<Item = &OwnerHistory> + Clone {
        [&self.own].into_iter().chain(&self.contacts)
    }
}

/// The result of a search by an identifier.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Who has the identifier, with the accounts in which they have it. External IDs and card
    /// numbers have no account. There is more than one only for kinds that are unique in their
    /// account alone, or before `table upgrade`.
    pub customers: BTreeMap<UserId, BTreeSet<Account>>,
    /// What is stored for the identifier as a contact. Read only if nobody has it.
    pub contacts: Vec<OwnerHistory>,
    /// The erased customer who had this number of the org's numbering plan.
    pub erased: Option<UserId>,
}

/// How many partitions are read at the same time.
pub(super) const CONCURRENT: usize = 32;

impl Store {
    /// Who has an identifier in any account, or else what is stored for it as a contact.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn search(&self, org: &Org, identifier: &Identifier) -> Result<Search, StoreError> {
        let in_accounts: Vec<StoredIdentifier> = in_every_account(org, identifier);
        let keys = owner_keys(&in_accounts);
        let mut search = Search::default();
        for (key, attributes) in self.owner_items(org.id(), &keys).await? {
            let item = Item(&attributes);
            let user = UserId(item.n(USER_ID)?);
            if item.is_gone() {
                search.erased = Some(user);
                continue;
            }
            let accounts = search.customers.entry(user).or_default();
            accounts.extend(key.0);
            if item.has(ACCOUNTS) {
                accounts.extend(item.texts(ACCOUNTS)?.iter().filter_map(|text| Account::parse(text)));
            }
        }
        if search.customers.is_empty() {
            search.contacts = self.contact_histories(org.id(), in_accounts).await?;
        }
        Ok(search)
    }

    /// What is stored for an identifier as a contact, in every account.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn contact_history(
        &self,
        org: &Org,
        identifier: &Identifier,
    ) -> Result<Vec<OwnerHistory>, StoreError> {
        self.contact_histories(org.id(), in_every_account(org, identifier)).await
    }

    /// Everything that is stored about a customer. `None` if the user id was never given, or
    /// nothing is stored for it.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn customer_history(
        &self,
        org: &Org,
        user: UserId,
    ) -> Result<Option<CustomerHistory>, StoreError> {
        let owner = HistoryOwner::Customer(user);
        let items = self.partition(&owner.partition(org.id())).await?;
        let profile = items.iter().find(|item| Item(item).s(keys::SK).is_ok_and(|sk| sk == keys::PROFILE));
        let state = match profile {
            None => return Ok(None),
            Some(attributes) => match Tombstone::read(&Item(attributes))? {
                Some(tombstone) => CustomerState::Gone(tombstone),
                None => CustomerState::Registered {
                    at: registered_at(&Item(attributes))?,
                    customer: StoredCustomer::read(attributes)?.customer,
                },
            },
        };
        let own = read_history(owner, &items)?;
        let (mut contacts, mut addresses) = (Vec::new(), Vec::new());
        if let CustomerState::Registered { customer, .. } = &state {
            contacts = self.contact_histories(org.id(), contacts_of(org, &customer.identifiers)).await?;
            addresses = self.address_quotas(org.id(), addresses_of(&customer.identifiers)).await?;
        }
        Ok(Some(CustomerHistory { user, state, own, contacts, addresses }))
    }

    /// The histories of contacts, without those that have nothing.
    async fn contact_histories(
        &self,
        org: OrgId,
        contacts: impl IntoIterator<Item = StoredIdentifier>,
    ) -> Result<Vec<OwnerHistory>, StoreError> {
        let contacts: Vec<_> = contacts.into_iter().collect();
        let mut histories = Vec::new();
        for chunk in contacts.chunks(CONCURRENT) {
            let reads = chunk.iter().map(async |contact| {
                let owner = HistoryOwner::Contact(contact.clone());
                let items = self.partition(&owner.partition(org)).await?;
                read_history(owner, &items)
            });
            for history in join_all(reads).await {
                histories.push(history?);
            }
        }
        histories.retain(|history| !history.is_empty());
        Ok(histories)
    }

    /// The quotas of an address, whether or not it is registered. Empty if nothing counts.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn quotas_of_address(
        &self,
        org: &Org,
        identifier: &Identifier,
    ) -> Result<Vec<AddressQuotas>, StoreError> {
        let address = (identifier.name().name_space(), identifier.value().to_owned());
        self.address_quotas(org.id(), [address]).await
    }

    async fn address_quotas(
        &self,
        org: OrgId,
        addresses: impl IntoIterator<Item = (IdentifierName, String)>,
    ) -> Result<Vec<AddressQuotas>, StoreError> {
        let addresses: Vec<_> = addresses.into_iter().collect();
        let mut all = Vec::new();
        for chunk in addresses.chunks(CONCURRENT) {
            let reads = chunk.iter().map(async |(name, value)| {
                let items = self.partition(&keys::recipient_partition(org, *name, value)).await?;
                let quotas = items.iter().filter_map(|item| read_quota(&Item(item)).transpose());
                let quotas = quotas.collect::<Result<Vec<_>, _>>()?;
                Ok::<_, StoreError>(AddressQuotas { name: *name, value: value.clone(), quotas })
            });
            for quotas in join_all(reads).await {
                all.push(quotas?);
            }
        }
        all.retain(|address| !address.quotas.is_empty());
        Ok(all)
    }

    /// All items of a partition, in descending order of their sort keys.
    pub(super) async fn partition(&self, partition: &str) -> Result<Vec<Attributes>, StoreError> {
        let (from, to) = keys::ALL_SORT_KEYS;
        self.query(partition, from, to).await
    }
}

/// An identifier in each account in which it can be.
fn in_every_account(org: &Org, identifier: &Identifier) -> Vec<StoredIdentifier> {
    let accounts = org.accounts().map(|account| Identity::new(account, identifier.clone()));
    accounts.map(|identity| StoredIdentifier::from(&identity)).collect::<BTreeSet<_>>().into_iter().collect()
}

/// The contacts under which OTPs for a customer with these identifiers can be stored. A mobile or
/// an e-mail address is the same person in every account of the org.
pub(super) fn contacts_of(org: &Org, identifiers: &[StoredIdentifier]) -> BTreeSet<StoredIdentifier> {
    let mut contacts = BTreeSet::new();
    for listed in identifiers.iter().map(StoredIdentifier::key).filter(|listed| listed.1.receives_otps()) {
        if listed.1.identifies_person() {
            let accounts = org.accounts();
            contacts
                .extend(accounts.map(|account| StoredIdentifier(Some(account), listed.1, listed.2.clone())));
        }
        contacts.insert(listed);
    }
    contacts
}

/// The addresses for which OTPs are counted, of a customer with these identifiers.
pub(super) fn addresses_of(identifiers: &[StoredIdentifier]) -> BTreeSet<(IdentifierName, String)> {
    let addresses = identifiers.iter().map(|listed| (listed.1.name_space(), listed.2.clone()));
    addresses.filter(|(name, _)| name.receives_otps()).collect()
}

fn registered_at(item: &Item<'_>) -> Result<Option<DateTime<Utc>>, StoreError> {
    item.has(REGISTERED_AT).then(|| item.millis(REGISTERED_AT)).transpose()
}

/// Reads the items of an owner. Items that other versions may write are skipped.
fn read_history(owner: HistoryOwner, items: &[Attributes]) -> Result<OwnerHistory, StoreError> {
    let mut otps: BTreeMap<(CreatedId, Scope), OtpRecord> = BTreeMap::new();
    let mut messages: BTreeMap<(CreatedId, Scope), Vec<_>> = BTreeMap::new();
    let (mut failed_attempts, mut quotas, mut last_sent) = (Vec::new(), Vec::new(), Vec::new());
    for attributes in items {
        let item = Item(attributes);
        match OwnedItem::read(item.s(keys::SK)?) {
            Some(OwnedItem::Otp(scope, id)) => {
                otps.insert((id, scope), read_otp(&item, scope, id)?);
            }
            Some(OwnedItem::Message(scope, id, send)) => {
                let message = messages::read_record(&item)?;
                let valid_until = item.millis(VALID_UNTIL)?;
                messages.entry((id, scope)).or_default().push((send, message, valid_until));
            }
            Some(OwnedItem::FailedAttempts(scope)) => {
                let attempts = FailedAttempts::new(item.all_millis(TIMES)?);
                if !attempts.times().is_empty() {
                    failed_attempts.push((scope, attempts));
                }
            }
            Some(OwnedItem::Quota(_)) => quotas.extend(read_quota(&item)?),
            Some(OwnedItem::LastOtp(scope)) => last_sent.push((scope, item.millis(SENT_AT)?)),
            Some(OwnedItem::Profile) | None => {}
        }
    }
    for ((id, scope), mut found) in messages {
        found.sort_by_key(|(send, ..)| *send);
        let (sends, valid_until) =
            found.last().map_or_else(Default::default, |(send, _, until)| (*send, *until));
        let otp = otps.entry((id, scope)).or_insert_with(|| OtpRecord {
            scope,
            created_id: id,
            end: OtpEnd::Deleted,
            valid_until,
            sends,
            messages: Vec::new(),
        });
        otp.messages = found.into_iter().map(|(_, message, _)| message).collect();
    }
    let otps = otps.into_values().rev().collect();
    Ok(OwnerHistory { owner, otps, failed_attempts, quotas, last_sent })
}

fn read_otp(item: &Item<'_>, scope: Scope, created_id: CreatedId) -> Result<OtpRecord, StoreError> {
    let end = if item.has(REVOKED_AT) {
        OtpEnd::Revoked(item.millis(REVOKED_AT)?)
    } else if item.has(CONSUMED_AT) {
        OtpEnd::Validated(item.millis(CONSUMED_AT)?)
    } else {
        OtpEnd::None
    };
    Ok(OtpRecord {
        scope,
        created_id,
        end,
        valid_until: item.millis(VALID_UNTIL)?,
        sends: if item.has(SENDS) { item.n(SENDS)? } else { 1 },
        messages: Vec::new(),
    })
}

/// The count of a quota. `None` for other items, and for the mark of a customer who is gone.
fn read_quota(item: &Item<'_>) -> Result<Option<QuotaCount>, StoreError> {
    match OwnedItem::read(item.s(keys::SK)?) {
        Some(OwnedItem::Quota(period)) if !item.is_gone() => {
            Ok(Some(QuotaCount { period: period.to_owned(), issued: item.n(ISSUED)? }))
        }
        _ => Ok(None),
    }
}
