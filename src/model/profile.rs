//! A registered customer: the profiles, the identifiers, and the rules by which a registration
//! joins a customer and a request changes the identifiers.

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{
    customer::{Account, Identifier, IdentifierName, Identity, UserId},
    till::TillName,
};

/// A customer's profile in one account of a source.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    pub account: Account,
    pub first_name: Option<String>,
    pub last_name: Option<String>,
    /// `None` for profiles that were written before attributions were stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attribution: Option<Attribution>,
}

/// When a profile was created, and by which till.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribution {
    /// Milliseconds since 1970.
    created_at: i64,
    till: String,
}

impl Attribution {
    pub fn new(created_at: DateTime<Utc>, till: &TillName) -> Self {
        Self { created_at: created_at.timestamp_millis(), till: till.as_str().to_owned() }
    }

    pub fn created_at(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.created_at).unwrap_or_default()
    }

    pub fn till(&self) -> &str {
        &self.till
    }
}

impl Profile {
    /// Takes over the names that this profile does not have.
    fn fill_in(&mut self, other: &Self) {
        let fill = |own: &mut Option<String>, other: &Option<String>| {
            if own.is_none() {
                own.clone_from(other);
            }
        };
        fill(&mut self.first_name, &other.first_name);
        fill(&mut self.last_name, &other.last_name);
    }
}

/// An identifier in a customer's list: its account, kind and stored value. External IDs and card
/// numbers have no account. The value may be in the normal form of an earlier version.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StoredIdentifier(pub Option<Account>, pub IdentifierName, pub String);

impl StoredIdentifier {
    /// What is unique about the identifier: of two identifiers with the same key, one customer has
    /// both. The key of an identity item is made from it.
    #[must_use]
    pub fn key(&self) -> Self {
        Self(self.0.clone(), self.1.name_space(), self.2.clone())
    }

    /// The key of the person whom the identifier identifies in every source. `None` for kinds that
    /// identify nobody outside of their account.
    pub fn person(&self) -> Option<Self> {
        self.1.identifies_person().then(|| Self(None, self.1, self.2.clone()))
    }

    /// The keys of its identity items: its own, and that of the person whom it identifies.
    pub fn keys(&self) -> impl Iterator<Item = Self> + use<> {
        [Some(self.key()), self.person()].into_iter().flatten()
    }
}

impl From<&Identity> for StoredIdentifier {
    fn from(identity: &Identity) -> Self {
        let identifier = identity.identifier();
        Self(identity.account().cloned(), identifier.name(), identifier.value().to_owned())
    }
}

/// Shows account and kind, and hides the value.
impl fmt::Debug for StoredIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredIdentifier({:?}, {}, [hidden])", self.0, self.1)
    }
}

/// Who has which identifiers, by [`StoredIdentifier::key`] and [`StoredIdentifier::person`]. It
/// holds what was looked up.
#[derive(Debug, Default)]
pub struct Owners {
    owners: HashMap<StoredIdentifier, UserId>,
    /// Numbers of erased customers, which nobody can have again.
    retired: BTreeSet<StoredIdentifier>,
}

impl Owners {
    /// The owner of a key.
    pub fn get(&self, key: &StoredIdentifier) -> Option<UserId> {
        self.owners.get(key).copied()
    }

    pub fn insert(&mut self, key: StoredIdentifier, owner: UserId) {
        self.owners.insert(key, owner);
    }

    /// Records that nobody can have a key again.
    pub fn retire(&mut self, key: StoredIdentifier) {
        self.retired.insert(key);
    }

    /// Whether nobody can have a key again.
    pub fn is_retired(&self, key: &StoredIdentifier) -> bool {
        self.retired.contains(key)
    }

    fn retires(&self, identity: &Identity) -> bool {
        !self.retired.is_empty() && self.is_retired(&StoredIdentifier::from(identity).key())
    }

    fn of(&self, identity: &Identity) -> Option<UserId> {
        self.get(&StoredIdentifier::from(identity).key())
    }

    /// The customer who has a mobile or an e-mail address in any account.
    fn person(&self, identity: &Identity) -> Option<UserId> {
        self.get(&StoredIdentifier::from(identity).person()?)
    }
}

impl FromIterator<(StoredIdentifier, UserId)> for Owners {
    fn from_iter<T: IntoIterator<Item = (StoredIdentifier, UserId)>>(owners: T) -> Self {
        Self { owners: owners.into_iter().collect(), retired: BTreeSet::new() }
    }
}

/// Who a registration is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registrant {
    /// Nobody has the identifiers.
    New,
    /// The customer who has one of the mobiles or e-mail addresses in another account.
    Known(UserId),
}

/// Why a registration is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// All identifiers that are taken belong to this customer.
    Exists(UserId),
    /// Identifiers are taken by several customers or were those of an erased one, or the customer
    /// has another external ID.
    Taken,
    /// The identifiers belong to different customers, and not all of them in the accounts of the
    /// request.
    SeveralCustomers,
    TooLarge(TooLarge),
}

/// Decides who a registration is about. With `joins`, a mobile or an e-mail address of a customer
/// in another account identifies that customer, and so the customer's external ID and card numbers
/// are not taken.
///
/// # Errors
/// [`Refusal`] when an identifier is taken.
pub fn registrant(identities: &[Identity], owners: &Owners, joins: bool) -> Result<Registrant, Refusal> {
    if identities.iter().any(|identity| owners.retires(identity)) {
        return Err(Refusal::Taken);
    }
    let (in_org, in_account): (Vec<_>, Vec<_>) =
        identities.iter().partition(|identity| identity.account().is_none());
    let all_owners = |identities: Vec<&Identity>| -> BTreeSet<UserId> {
        identities.into_iter().filter_map(|identity| owners.of(identity)).collect()
    };
    let (in_org, in_account) = (all_owners(in_org), all_owners(in_account));
    // Who has an identifier in the account itself counts there only. In orgs of version 0.1.0, that
    // customer need not be the one whom others join.
    let elsewhere: BTreeSet<UserId> = identities
        .iter()
        .filter(|identity| joins && owners.of(identity).is_none())
        .filter_map(|identity| owners.person(identity))
        .collect();
    let only = |users: &BTreeSet<UserId>| users.first().copied().filter(|_| users.len() == 1);
    if in_account.is_empty() && !elsewhere.is_empty() {
        return only(&(&elsewhere | &in_org)).map(Registrant::Known).ok_or(Refusal::SeveralCustomers);
    }
    let taken = &in_account | &in_org;
    if taken.is_empty() {
        return Ok(Registrant::New);
    }
    Err(match only(&taken) {
        None => Refusal::Taken,
        Some(user) if elsewhere.iter().all(|other| *other == user) => Refusal::Exists(user),
        Some(_) => Refusal::SeveralCustomers,
    })
}

/// A change of a customer's identifiers in one account.
#[derive(Clone)]
pub struct IdentifierChange {
    pub account: Account,
    pub add: Vec<Identity>,
    pub remove: Vec<Identity>,
    /// For the profile that the customer gets in the account, if there is none.
    pub attribution: Attribution,
}

/// A changed customer.
pub struct Changed {
    pub customer: Customer,
    /// How many identifiers were added or removed before already.
    pub unchanged: usize,
}

/// Why a change is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeRefusal {
    /// Another customer has an identifier that is to be added, or an erased one had it, or the
    /// customer has another external ID.
    Taken,
    /// Another customer has an identifier that is to be removed.
    BelongsToAnother,
    /// No identifier would be left.
    NoneLeft,
    TooLarge(TooLarge),
}

/// How a customer would be too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLarge {
    /// More than [`MAX_IDENTIFIERS_PER_CUSTOMER`].
    Identifiers,
    /// Profiles and identifiers would not fit into an item or a response.
    Bytes,
}

impl From<TooLarge> for Refusal {
    fn from(too_large: TooLarge) -> Self {
        Self::TooLarge(too_large)
    }
}

impl From<TooLarge> for ChangeRefusal {
    fn from(too_large: TooLarge) -> Self {
        Self::TooLarge(too_large)
    }
}

pub const MAX_IDENTIFIERS_PER_CUSTOMER: usize = 500;
/// How many bytes of JSON the profiles and identifiers of a customer have at most. DynamoDB's limit
/// for the whole item is 400 KB.
pub const MAX_CUSTOMER_BYTES: usize = 300_000;
/// How many bytes of JSON the identifiers have at most when each profile repeats them, as a
/// response with the customer's details does. Lambda's limit for a response is 6 MB, with the
/// body's quotes escaped.
pub const MAX_DETAILS_BYTES: usize = 1_300_000;

/// A customer who was made of two.
#[cfg(feature = "cli")]
pub struct Combined {
    pub customer: Customer,
    /// Accounts in which both had names, and not the same ones.
    pub names_kept: Vec<Account>,
}

/// Why two customers cannot become one.
#[cfg(feature = "cli")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CombineRefusal {
    #[error("both customers have an external ID, and a customer can have one")]
    ExternalIds,
    #[error("the customer would have too many identifiers, or would be too large")]
    TooLarge(TooLarge),
}

/// A registered customer.
#[derive(Clone)]
pub struct Customer {
    pub user: UserId,
    /// One for each account.
    pub profiles: Vec<Profile>,
    pub identifiers: Vec<StoredIdentifier>,
}

impl Customer {
    /// A customer without profiles and identifiers.
    pub const fn new(user: UserId) -> Self {
        Self { user, profiles: Vec::new(), identifiers: Vec::new() }
    }

    /// The external ID; a customer has at most one.
    pub fn external_id(&self) -> Option<&str> {
        self.identifiers.iter().find(|listed| listed.1 == IdentifierName::ExternalId).map(|listed| &*listed.2)
    }

    /// The accounts in which the customer has what `person` identifies.
    pub fn accounts_of(&self, person: &StoredIdentifier) -> BTreeSet<&Account> {
        let same = self.identifiers.iter().filter(|listed| (listed.1, &listed.2) == (person.1, &person.2));
        same.filter_map(|listed| listed.0.as_ref()).collect()
    }

    /// Whether the customer has an identifier with that [key](StoredIdentifier::key).
    pub fn has_key(&self, key: &StoredIdentifier) -> bool {
        self.identifiers.iter().any(|listed| listed.key() == *key)
    }

    /// Adds an identifier, unless the customer has it.
    pub fn add(&mut self, identity: &Identity) {
        let identifier = StoredIdentifier::from(identity);
        if !self.identifiers.contains(&identifier) {
            self.identifiers.push(identifier);
        }
    }

    /// Adds profiles and identifiers. A profile in an account in which the customer has one extends
    /// it; the names that it has stay.
    ///
    /// # Errors
    /// [`Refusal`] when the customer has another external ID, or would be too large.
    pub fn extended(&self, profiles: &[Profile], identities: &[Identity]) -> Result<Self, Refusal> {
        let mut customer = self.clone();
        for profile in profiles {
            match customer.profiles.iter_mut().find(|own| own.account == profile.account) {
                Some(own) => own.fill_in(profile),
                None => customer.profiles.push(profile.clone()),
            }
        }
        for identity in identities {
            if customer.has_another_external_id(identity.identifier()) {
                return Err(Refusal::Taken);
            }
            customer.add(identity);
        }
        customer.check_growth(self)?;
        Ok(customer)
    }

    /// Checks the size of a customer who was `before`. One that is too large already may change,
    /// but not grow.
    fn check_growth(&self, before: &Self) -> Result<(), TooLarge> {
        let count = self.identifiers.len();
        if count > MAX_IDENTIFIERS_PER_CUSTOMER.max(before.identifiers.len()) {
            return Err(TooLarge::Identifiers);
        }
        let identifiers = bytes(&self.identifiers);
        let (item, details) = (bytes(&self.profiles) + identifiers, self.profiles.len() * identifiers);
        if item <= MAX_CUSTOMER_BYTES && details <= MAX_DETAILS_BYTES {
            return Ok(());
        }
        let grows = count > before.identifiers.len()
            || identifiers > bytes(&before.identifiers)
            || bytes(&self.profiles) > bytes(&before.profiles);
        if grows { Err(TooLarge::Bytes) } else { Ok(()) }
    }

    fn has_another_external_id(&self, identifier: &Identifier) -> bool {
        identifier.name() == IdentifierName::ExternalId
            && self.external_id().is_some_and(|own| own != identifier.value())
    }

    /// This customer with the profiles and identifiers of another one. In an account in which both
    /// have a profile, the names that this one has stay. With `as_card_number`, the other one's
    /// external ID becomes a card number if this one has an external ID, too.
    ///
    /// # Errors
    /// [`CombineRefusal`].
    #[cfg(feature = "cli")]
    pub fn combined_with(&self, other: &Self, as_card_number: bool) -> Result<Combined, CombineRefusal> {
        let (mut customer, mut names_kept) = (self.clone(), Vec::new());
        for profile in &other.profiles {
            match customer.profiles.iter_mut().find(|own| own.account == profile.account) {
                Some(own) => {
                    own.fill_in(profile);
                    let differs =
                        |own: &Option<String>, other: &Option<String>| other.is_some() && own != other;
                    if differs(&own.first_name, &profile.first_name)
                        || differs(&own.last_name, &profile.last_name)
                    {
                        names_kept.push(own.account.clone());
                    }
                }
                None => customer.profiles.push(profile.clone()),
            }
        }
        for listed in &other.identifiers {
            let mut listed = listed.clone();
            if listed.1 == IdentifierName::ExternalId
                && customer.external_id().is_some_and(|own| own != listed.2)
            {
                if !as_card_number {
                    return Err(CombineRefusal::ExternalIds);
                }
                listed.1 = IdentifierName::CardNumber;
            }
            if !customer.identifiers.contains(&listed) {
                customer.identifiers.push(listed);
            }
        }
        customer.check_growth(self).map_err(CombineRefusal::TooLarge)?;
        Ok(Combined { customer, names_kept })
    }

    /// Removes and adds identifiers, given the `owners` of all of them. What is in both lists is
    /// added.
    ///
    /// # Errors
    /// [`ChangeRefusal`].
    pub fn changed(&self, change: &IdentifierChange, owners: &Owners) -> Result<Changed, ChangeRefusal> {
        let (mut customer, mut unchanged) = (self.clone(), 0);
        let is_another = |owner: Option<UserId>| owner.is_some_and(|owner| owner != self.user);
        for identity in change.remove.iter().filter(|identity| !change.add.contains(identity)) {
            let wanted = StoredIdentifier::from(identity);
            // External IDs and card numbers are one name space, so either removes the other, unless
            // the customer has the number as both.
            let own = customer.identifiers.iter().position(|own| *own == wanted);
            let own = own.or_else(|| customer.identifiers.iter().position(|own| own.key() == wanted.key()));
            if let Some(own) = own {
                customer.identifiers.remove(own);
            } else {
                if is_another(owners.of(identity)) {
                    return Err(ChangeRefusal::BelongsToAnother);
                }
                unchanged += 1;
            }
        }
        for identity in &change.add {
            if customer.identifiers.contains(&StoredIdentifier::from(identity)) {
                unchanged += 1;
                continue;
            }
            if is_another(owners.of(identity))
                || is_another(owners.person(identity))
                || owners.retires(identity)
                || customer.has_another_external_id(identity.identifier())
            {
                return Err(ChangeRefusal::Taken);
            }
            customer.add(identity);
            if identity.account().is_some() {
                customer.ensure_profile(change);
            }
        }
        if customer.identifiers.is_empty() {
            return Err(ChangeRefusal::NoneLeft);
        }
        customer.check_growth(self)?;
        Ok(Changed { customer, unchanged })
    }

    fn ensure_profile(&mut self, change: &IdentifierChange) {
        if self.profiles.iter().all(|profile| profile.account != change.account) {
            self.profiles.push(Profile {
                account: change.account.clone(),
                first_name: None,
                last_name: None,
                attribution: Some(change.attribution.clone()),
            });
        }
    }
}

/// The size of `value` as it is stored.
fn bytes(value: &impl Serialize) -> usize {
    serde_json::to_string(value).map_or(usize::MAX, |json| json.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        customer::{AccountId, Source},
        fixtures::india,
    };

    fn wechat() -> Account {
        Account { source: Source::Wechat, id: AccountId("A".into()) }
    }

    fn identity(account: Account, name: &str, value: &str) -> Identity {
        let name = IdentifierName::parse(name).unwrap();
        Identity::new(account, Identifier::new(name, value, &india()).unwrap())
    }

    fn shop(name: &str, value: &str) -> Identity {
        identity(Account::instore(), name, value)
    }

    const MOBILE: &str = "9010000022";

    /// The owners of a customer's identifiers, as the store keeps them.
    fn owned(customers: &[(u64, Vec<Identity>)]) -> Owners {
        let all = customers
            .iter()
            .flat_map(|(user, identities)| identities.iter().map(|identity| (UserId(*user), identity)));
        all.flat_map(|(user, identity)| StoredIdentifier::from(identity).keys().map(move |key| (key, user)))
            .collect()
    }

    fn customer(user: u64, identities: &[Identity]) -> Customer {
        let profile =
            Profile { account: Account::instore(), first_name: None, last_name: None, attribution: None };
        Customer::new(UserId(user)).extended(&[profile], identities).unwrap()
    }

    #[test]
    fn a_registration_is_about_whoever_has_its_mobiles_and_emails() {
        let owners = owned(&[
            (1, vec![shop("mobile", MOBILE), shop("externalId", "X1")]),
            (2, vec![shop("email", "tom@example.com"), shop("cuid", "C2"), shop("cardnumber", "K2")]),
        ]);
        let elsewhere = |name: &str, value: &str| identity(wechat(), name, value);
        let (mobile, email) = (elsewhere("mobile", MOBILE), elsewhere("email", "tom@example.com"));
        for (identities, expected) in [
            (vec![elsewhere("mobile", "9010000033"), elsewhere("cuid", "C2")], Ok(Registrant::New)),
            (vec![mobile.clone()], Ok(Registrant::Known(UserId(1)))),
            (vec![mobile.clone(), shop("externalId", "X1")], Ok(Registrant::Known(UserId(1)))),
            (vec![mobile.clone(), shop("externalId", "X9")], Ok(Registrant::Known(UserId(1)))),
            (vec![mobile.clone(), email.clone()], Err(Refusal::SeveralCustomers)),
            (vec![mobile.clone(), shop("externalId", "K2")], Err(Refusal::SeveralCustomers)),
            (vec![shop("mobile", MOBILE)], Err(Refusal::Exists(UserId(1)))),
            (vec![shop("mobile", MOBILE), email.clone()], Err(Refusal::SeveralCustomers)),
            (vec![shop("mobile", MOBILE), elsewhere("mobile", MOBILE)], Err(Refusal::Exists(UserId(1)))),
            (vec![shop("externalId", "X1"), email.clone()], Err(Refusal::SeveralCustomers)),
            (vec![shop("mobile", MOBILE), shop("cuid", "C2")], Err(Refusal::Taken)),
            (vec![elsewhere("cardnumber", "X1")], Err(Refusal::Exists(UserId(1)))),
        ] {
            assert_eq!(registrant(&identities, &owners, true), expected, "{identities:?}");
        }
        assert_eq!(registrant(&[mobile, email], &owners, false), Ok(Registrant::New));
    }

    #[test]
    fn an_extended_profile_keeps_its_names_and_its_external_id() {
        let named = |first: Option<&str>, last: Option<&str>| Profile {
            account: Account::instore(),
            first_name: first.map(str::to_owned),
            last_name: last.map(str::to_owned),
            attribution: None,
        };
        let tom = Customer::new(UserId(1)).extended(&[named(Some("Tom"), None)], &[shop("externalId", "X1")]);
        let tom = tom.unwrap();
        let later = tom.extended(&[named(Some("Thomas"), Some("Sawyer"))], &[shop("externalId", "X1")]);
        let later = later.unwrap();
        assert!(later.profiles == [named(Some("Tom"), Some("Sawyer"))]);
        assert_eq!(later.identifiers.len(), 1);
        assert_eq!(tom.extended(&[], &[shop("externalId", "X2")]).err(), Some(Refusal::Taken));
        let with_card = tom.extended(&[], &[shop("cardnumber", "X2"), shop("cardnumber", "X3")]).unwrap();
        assert_eq!((with_card.external_id(), with_card.identifiers.len()), (Some("X1"), 3));
    }

    #[test]
    fn in_an_org_of_an_earlier_version_two_customers_may_have_one_mobile() {
        let mobile = identity(wechat(), "mobile", MOBILE);
        let others_join_1 = StoredIdentifier::from(&mobile).person().unwrap();
        let owners: Owners = [(StoredIdentifier::from(&mobile).key(), UserId(2)), (others_join_1, UserId(1))]
            .into_iter()
            .collect();
        let again = registrant(std::slice::from_ref(&mobile), &owners, true);
        assert_eq!(again, Err(Refusal::Exists(UserId(2))));
    }

    fn profile_of(account: usize, name_length: usize) -> Profile {
        Profile {
            account: Account { source: Source::Others, id: AccountId(format!("A{account}")) },
            first_name: Some("\u{10348}".repeat(name_length)),
            last_name: None,
            attribution: None,
        }
    }

    #[test]
    fn a_customer_has_at_most_500_identifiers() {
        let many: Vec<Identity> =
            (0..MAX_IDENTIFIERS_PER_CUSTOMER).map(|i| shop("cuid", &format!("C{i}"))).collect();
        let full = customer(1, &many);
        assert_eq!(full.identifiers.len(), MAX_IDENTIFIERS_PER_CUSTOMER);
        let refused = full.extended(&[], &[shop("cuid", "C")]).err();
        assert_eq!(refused, Some(Refusal::TooLarge(TooLarge::Identifiers)));
    }

    #[test]
    fn a_customer_does_not_grow_beyond_an_item_or_a_response() {
        let add = |customer: &Customer, profiles: &[Profile], identities: &[Identity]| {
            customer.extended(profiles, identities).map_err(|refusal| match refusal {
                Refusal::TooLarge(TooLarge::Bytes) => (),
                other => panic!("{other:?}"),
            })
        };
        // Names alone, one profile after the other.
        let mut tom = customer(1, &[shop("mobile", MOBILE)]);
        for account in 0.. {
            match add(&tom, &[profile_of(account, 255)], &[]) {
                Ok(larger) => tom = larger,
                Err(()) => break,
            }
        }
        let stored = bytes(&tom.profiles) + bytes(&tom.identifiers);
        assert!((MAX_CUSTOMER_BYTES - 1_200..=MAX_CUSTOMER_BYTES).contains(&stored), "{stored}");
        // The longest identifiers, which each of some profiles repeats.
        let long = |i: usize| shop("cuid", &format!("{i:0>200}"));
        let profiles: Vec<Profile> = (0..20).map(|account| profile_of(account, 1)).collect();
        let mut tom = customer(1, &[shop("mobile", MOBILE)]).extended(&profiles, &[]).unwrap();
        for i in 0.. {
            match add(&tom, &[], &[long(i)]) {
                Ok(larger) => tom = larger,
                Err(()) => break,
            }
        }
        let repeated = tom.profiles.len() * bytes(&tom.identifiers);
        assert!((MAX_DETAILS_BYTES - 5_000..=MAX_DETAILS_BYTES).contains(&repeated), "{repeated}");
        // What is there may be repeated, and removed.
        assert!(add(&tom, &profiles, &[long(0)]).is_ok());
    }

    #[test]
    fn identifiers_are_added_and_removed_together_or_not_at_all() {
        let own = [shop("mobile", MOBILE), shop("externalId", "X1")];
        let tom = customer(1, &own);
        let owners = owned(&[(1, own.to_vec()), (2, vec![identity(wechat(), "email", "a@example.com")])]);
        let change = |account: Account, add: &[(&str, &str)], remove: &[(&str, &str)]| {
            let identities = |list: &[(&str, &str)]| {
                list.iter().map(|(name, value)| identity(account.clone(), name, value)).collect()
            };
            let till = TillName::parse("t").unwrap();
            let attribution = Attribution::new(DateTime::UNIX_EPOCH, &till);
            let change =
                IdentifierChange { add: identities(add), remove: identities(remove), account, attribution };
            tom.changed(&change, &owners)
        };
        let counts = |changed: Result<Changed, ChangeRefusal>| {
            changed.map(|changed| {
                (changed.customer.identifiers.len(), changed.customer.profiles.len(), changed.unchanged)
            })
        };
        let instore = Account::instore;
        for (account, add, remove, expected) in [
            (instore(), vec![("cuid", "C")], vec![], Ok((3, 1, 0))),
            (wechat(), vec![("mobile", MOBILE)], vec![], Ok((3, 2, 0))),
            (wechat(), vec![("cardnumber", "X1")], vec![], Ok((3, 1, 0))),
            (instore(), vec![("mobile", MOBILE)], vec![("cuid", "C")], Ok((2, 1, 2))),
            (instore(), vec![("mobile", MOBILE)], vec![("mobile", MOBILE)], Ok((2, 1, 1))),
            (instore(), vec![("externalId", "X2")], vec![("externalId", "X1")], Ok((2, 1, 0))),
            (instore(), vec![], vec![("cardnumber", "X1")], Ok((1, 1, 0))),
            (wechat(), vec![("externalId", "X2")], vec![("cardnumber", "X1")], Ok((2, 1, 0))),
            (instore(), vec![("externalId", "X2")], vec![], Err(ChangeRefusal::Taken)),
            (instore(), vec![("email", "a@example.com")], vec![], Err(ChangeRefusal::Taken)),
            (wechat(), vec![], vec![("email", "a@example.com")], Err(ChangeRefusal::BelongsToAnother)),
            (instore(), vec![], vec![("email", "a@example.com")], Ok((2, 1, 1))),
            (instore(), vec![], vec![("mobile", MOBILE), ("externalId", "X1")], Err(ChangeRefusal::NoneLeft)),
        ] {
            assert_eq!(counts(change(account, &add, &remove)), expected, "{add:?} {remove:?}");
        }
    }

    #[test]
    fn a_number_of_an_erased_customer_is_taken() {
        let mut owners = Owners::default();
        owners.retire(StoredIdentifier::from(&shop("externalId", "X1")));
        for name in ["externalId", "cardnumber"] {
            let identities = [shop("mobile", MOBILE), shop(name, "X1")];
            assert_eq!(registrant(&identities, &owners, true), Err(Refusal::Taken));
            let till = TillName::parse("t").unwrap();
            let change = IdentifierChange {
                account: Account::instore(),
                add: vec![shop(name, "X1")],
                remove: Vec::new(),
                attribution: Attribution::new(DateTime::UNIX_EPOCH, &till),
            };
            let tom = customer(1, &[shop("mobile", MOBILE)]);
            assert_eq!(tom.changed(&change, &owners).err(), Some(ChangeRefusal::Taken));
        }
        assert_eq!(registrant(&[shop("externalId", "X2")], &owners, true), Ok(Registrant::New));
    }

    #[cfg(feature = "cli")]
    #[test]
    fn two_customers_become_one_with_all_identifiers_and_one_external_id() {
        let named = |account: Account, first: &str| Profile {
            account,
            first_name: Some(first.to_owned()),
            last_name: None,
            attribution: None,
        };
        let tom = Customer::new(UserId(1))
            .extended(
                &[named(Account::instore(), "Tom")],
                &[shop("mobile", MOBILE), shop("externalId", "X1")],
            )
            .unwrap();
        let profiles = [named(Account::instore(), "Thomas"), named(wechat(), "Tom")];
        let thomas = Customer::new(UserId(2))
            .extended(
                &profiles,
                &[shop("mobile", MOBILE), identity(wechat(), "wechat", "o"), shop("externalId", "X2")],
            )
            .unwrap();
        assert_eq!(tom.combined_with(&thomas, false).err(), Some(CombineRefusal::ExternalIds));
        let Combined { customer, names_kept } = tom.combined_with(&thomas, true).unwrap();
        assert_eq!((customer.user, customer.external_id()), (UserId(1), Some("X1")));
        assert_eq!((customer.identifiers.len(), customer.profiles.len()), (4, 2));
        assert!(customer.identifiers.contains(&StoredIdentifier::from(&shop("cardnumber", "X2"))));
        assert_eq!(names_kept, [Account::instore()]);
        assert_eq!(customer.profiles[0].first_name.as_deref(), Some("Tom"));
        let many: Vec<Identity> =
            (0..MAX_IDENTIFIERS_PER_CUSTOMER).map(|i| shop("cuid", &format!("C{i}"))).collect();
        let many = Customer::new(UserId(3)).extended(&[], &many).unwrap();
        let refused = tom.combined_with(&many, true).err();
        assert_eq!(refused, Some(CombineRefusal::TooLarge(TooLarge::Identifiers)));
    }

    #[test]
    fn debug_hides_the_value() {
        let listed = StoredIdentifier::from(&shop("mobile", MOBILE));
        assert!(!format!("{listed:?}").contains(MOBILE));
    }
}
