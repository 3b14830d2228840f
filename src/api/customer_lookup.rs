//! Looking up customers.

use chrono::SecondsFormat;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Call,
    error::{ApiError, Gather, Problem, SuccessBody},
    params::{Warning, whole_number},
};
use crate::{
    model::{
        customer::{Account, IdentifierName, Source, UserId},
        org::Org,
        profile::{Attribution, Customer, Profile, StoredIdentifier},
    },
    store::{Found, Place},
};

#[derive(Serialize)]
struct LookedUp {
    entity: UserId,
}

/// `GET /v2/customers/lookup`: the user id of a customer.
pub async fn lookup(call: Call<'_>) -> Result<SuccessBody, ApiError> {
    let (user, warning) = call.look_up().await?;
    SuccessBody::new(LookedUp { entity: user }, warning.as_slice())
}

/// `GET /v2/customers/lookup/customerDetails`: the profiles of a customer.
pub async fn details(call: Call<'_>) -> Result<SuccessBody, ApiError> {
    let (user, warning) = call.look_up().await?;
    call.customer_details(user, &warning).await
}

/// `GET /v2/customers/{id}`: the profiles of the customer with that user id.
pub async fn by_id(call: Call<'_>) -> Result<SuccessBody, ApiError> {
    // The customer is the same in every account.
    let (_, warning) = call.params()?.place(&call.caller.org, Some(Source::Instore))?;
    call.customer_details(call.customer_id()?, &warning).await
}

impl Call<'_> {
    /// The customer whom the request's identifier names.
    async fn look_up(&self) -> Result<(UserId, Warning), ApiError> {
        let (org, params) = (&*self.caller.org, self.params()?);
        let ((place, warning), identifier) =
            (params.place(org, None), params.lookup_identifier(org)).gather()?;
        let found = self.app.store.look_up(org, &identifier, &place).await?;
        let problem = match (found, place) {
            (Found::Customer(user), _) => return Ok((user, warning)),
            (Found::Elsewhere, Place::Account(_)) => Problem::CustomerElsewhere,
            (Found::Several, _) => Problem::SeveralCustomers,
            (Found::Nobody | Found::Elsewhere, _) => Problem::CustomerNotFound,
        };
        Err(problem.into())
    }

    /// The user id in the path.
    pub(super) fn customer_id(&self) -> Result<UserId, Problem> {
        // An id has one spelling, so that a path names one resource: `01` is no id.
        let id = self.path_id.as_deref().filter(|id| !id.starts_with('0')).and_then(whole_number);
        id.map(UserId).ok_or(Problem::CustomerUnknown)
    }

    async fn customer_details(&self, user: UserId, warning: &Warning) -> Result<SuccessBody, ApiError> {
        let org = &self.caller.org;
        let customer = self.app.store.customer(org.id(), user).await?.ok_or(Problem::CustomerUnknown)?;
        SuccessBody::new(Details::of(&customer, org), warning.as_slice())
    }
}

/// What is known of a customer. It is personal data, and is sent in responses only.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Details<'a> {
    id: UserId,
    profiles: Vec<ProfileDetails<'a>>,
    loyalty_info: LoyaltyInfo,
    /// Always empty, as all fields are that the service does not store.
    extended_fields: Map<String, Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoyaltyInfo {
    loyalty_type: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ProfileDetails<'a> {
    first_name: &'a str,
    last_name: &'a str,
    attribution: Option<AttributionDetails<'a>>,
    fields: Map<String, Value>,
    identifiers: Vec<IdentifierDetails<'a>>,
    comm_channels: [(); 0],
    source: &'static str,
    account_id: &'a str,
    user_id: UserId,
    identifiers_all: Vec<IdentifierDetails<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AttributionDetails<'a> {
    create_date: String,
    created_by: CreatedBy<'a>,
}

#[derive(Serialize)]
struct CreatedBy<'a> {
    code: &'a str,
    name: &'a str,
    r#type: &'static str,
}

#[derive(Clone, PartialEq, Eq, Serialize)]
struct IdentifierDetails<'a> {
    r#type: &'static str,
    value: &'a str,
}

impl<'a> Details<'a> {
    fn of(customer: &'a Customer, org: &Org) -> Self {
        Self {
            id: customer.user,
            profiles: customer
                .profiles
                .iter()
                .map(|profile| ProfileDetails::of(customer, profile, org))
                .collect(),
            loyalty_info: LoyaltyInfo { loyalty_type: "loyalty" },
            extended_fields: Map::new(),
        }
    }
}

impl<'a> ProfileDetails<'a> {
    fn of(customer: &'a Customer, profile: &'a Profile, org: &Org) -> Self {
        // External IDs and card numbers belong to no account, and are part of every profile.
        let in_profile =
            |account: Option<&Account>| account.is_none_or(|account| *account == profile.account);
        Self {
            first_name: profile.first_name.as_deref().unwrap_or_default(),
            last_name: profile.last_name.as_deref().unwrap_or_default(),
            attribution: profile.attribution.as_ref().map(|stored| AttributionDetails::of(stored, org)),
            fields: Map::new(),
            identifiers: identifiers(customer, in_profile),
            comm_channels: [],
            source: profile.account.source.as_str(),
            account_id: &profile.account.id.0,
            user_id: customer.user,
            identifiers_all: identifiers(customer, |_| true),
        }
    }
}

impl<'a> AttributionDetails<'a> {
    fn of(stored: &'a Attribution, org: &Org) -> Self {
        Self {
            // `false` makes UTC `+00:00` instead of `Z`.
            create_date: org.timezone.local(stored.created_at()).to_rfc3339_opts(SecondsFormat::Secs, false),
            created_by: CreatedBy { code: stored.till(), name: stored.till(), r#type: "TILL" },
        }
    }
}

/// The customer's identifiers in the accounts that `wanted` selects, each once.
fn identifiers(customer: &Customer, wanted: impl Fn(Option<&Account>) -> bool) -> Vec<IdentifierDetails<'_>> {
    let mut all = Vec::new();
    for StoredIdentifier(account, name, value) in &customer.identifiers {
        let details = IdentifierDetails { r#type: type_name(*name), value };
        if wanted(account.as_ref()) && !all.contains(&details) {
            all.push(details);
        }
    }
    all
}

/// The spelling that bodies about customers use.
const fn type_name(name: IdentifierName) -> &'static str {
    match name {
        IdentifierName::ExternalId => "externalId",
        other => other.as_str(),
    }
}
