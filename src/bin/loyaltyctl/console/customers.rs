//! The Customers page: who has an identifier, what happened to a customer, and what support and
//! privacy do about it.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Redirect},
};
use chrono::{DateTime, Utc};
use loyalty_codes::{
    model::{
        customer::{Identifier, IdentifierName, UserId},
        delivery_state::Explanation,
        org::{Org, OrgId},
        profile::StoredIdentifier,
    },
    store::{AddressQuotas, CustomerHistory, CustomerState, OwnerHistory, Search},
};
use tokio::sync::oneshot;

use super::{
    Console,
    form::Form,
    org_of, org_path,
    page::{Notice, Page, Shell, ShownProblem, page, page_with},
};
use crate::{
    failure::Failure,
    limits, message_words,
    support::{self, Event, EventKind, Reveal, Subject},
};

#[derive(Template)]
#[template(path = "customers.html")]
struct FindPage {
    shell: Shell,
    id: OrgId,
    /// What to find somebody by: value, name, and whether it is chosen.
    kinds: Vec<(&'static str, &'static str, bool)>,
    value: String,
    problems: Vec<ShownProblem>,
    found: Vec<(UserId, String)>,
}

#[derive(Template)]
#[template(path = "customer.html")]
struct CustomerPage {
    shell: Shell,
    id: OrgId,
    user: UserId,
    /// What became of a customer who is gone; `None` for one who is registered.
    gone: Option<String>,
    /// Who has everything of a customer who was merged.
    merged_into: Option<UserId>,
    /// Whether there is something to erase.
    can_erase: bool,
    profiles: Vec<Vec<String>>,
    identifiers: Vec<Vec<String>>,
    history: History,
    is_revealed: bool,
    problems: Vec<ShownProblem>,
    once: String,
}

#[derive(Template)]
#[template(path = "contact.html")]
struct ContactPage {
    shell: Shell,
    id: OrgId,
    kind: IdentifierName,
    /// As it was typed.
    value: String,
    history: History,
    once: String,
}

/// What happened, newest first.
struct History {
    events: Vec<EventRow>,
    /// How far the limits are used.
    limits: Vec<ShownLimit>,
}

struct ShownLimit {
    /// Whether it keeps OTPs from being issued or checked.
    is_reached: bool,
    text: String,
}

struct EventRow {
    at: String,
    what: String,
    detail: String,
    otp: String,
    scope: String,
    contact: String,
}

#[derive(Template)]
#[template(path = "confirm_revoke.html")]
struct RevokePage {
    shell: Shell,
    to: String,
    back: String,
    subject: Vec<(String, String)>,
    once: String,
}

impl History {
    fn new(
        org: &Org,
        events: &[Event],
        histories: &[OwnerHistory],
        addresses: &[AddressQuotas],
        now: DateTime<Utc>,
    ) -> Self {
        let limits = limits::limits(org, histories, addresses, now);
        let limits = limits
            .iter()
            .map(|limit| ShownLimit { is_reached: limit.free_at.is_some(), text: limit.in_words(org, now) });
        Self {
            events: events.iter().map(|event| EventRow::new(org, event)).collect(),
            limits: limits.collect(),
        }
    }
}

impl EventRow {
    fn new(org: &Org, event: &Event) -> Self {
        let or_dash =
            |text: Option<String>| text.filter(|text| !text.is_empty()).unwrap_or_else(|| "-".to_owned());
        let mut detail = event.what.detail(org);
        if let EventKind::Message(_, _, status) = &event.what
            && let Some(Explanation { meaning, remedy }) = message_words::explanation(status)
        {
            detail = format!("{detail}. {meaning} {remedy}");
        }
        Self {
            at: support::time(org, event.at),
            what: event.what.name().replace('_', " "),
            detail: or_dash(Some(detail)),
            otp: or_dash(event.what.otp().map(|id| id.0.to_string())),
            scope: or_dash(event.scope.map(|scope| scope.to_string())),
            contact: event.contact.as_ref().map_or_else(
                || "customer".to_owned(),
                |StoredIdentifier(_, kind, value)| {
                    format!("{kind} {}", Reveal::Masked.identifier(*kind, value))
                },
            ),
        }
    }
}

/// Finds a customer by the user id, in place of a kind of identifier.
const USER_ID: &str = "userId";

/// `GET …/customers`: the form to find somebody.
pub async fn show(State(console): State<Arc<Console>>, Path(id): Path<u32>) -> Page {
    let org = org_of(&console, id).await?;
    find_page(&console, &org, StatusCode::OK, &Form::default(), None, Vec::new())
}

fn find_page(
    console: &Console,
    org: &Org,
    status: StatusCode,
    form: &Form,
    problem: Option<String>,
    found: Vec<(UserId, String)>,
) -> Page {
    let chosen = IdentifierName::parse(form.text("kind")).unwrap_or(IdentifierName::Mobile);
    let by_id = form.text("kind") == USER_ID;
    let kinds = IdentifierName::ALL.iter();
    let kinds = kinds.map(|kind| (kind.as_str(), kind.as_str(), !by_id && *kind == chosen));
    page_with(
        status,
        &FindPage {
            shell: Shell::of_org(console, org, "customers", "Customers"),
            id: org.id(),
            kinds: kinds.chain([(USER_ID, "user id", by_id)]).collect(),
            value: form.text("value").to_owned(),
            problems: problem.into_iter().map(|text| ShownProblem::of("value", text)).collect(),
            found,
        },
    )
}

fn identifier(org: &Org, form: &Form) -> Result<Identifier, Failure> {
    let kind = IdentifierName::parse(form.text("kind"));
    let kind = kind.ok_or_else(|| Failure::usage("no such kind of identifier"))?;
    support::identifier(org, kind, form.text("value"))
}

/// `POST …/customers`: finds somebody by an identifier, which is in no address.
pub async fn find(
    State(console): State<Arc<Console>>,
    Path(id): Path<u32>,
    Extension(form): Extension<Form>,
) -> Page {
    let org = org_of(&console, id).await?;
    if form.text("kind") == USER_ID {
        let user = form.text("value").trim().parse().map(UserId);
        let found = match user {
            Ok(user) => console.store.customer_history(&org, user).await?.map(|found| found.user),
            Err(_) => None,
        };
        if let Some(user) = found {
            return Ok(Redirect::to(&customer_path(org.id(), user)).into_response());
        }
        let problem = Some("No customer of the org has that user id".to_owned());
        return find_page(&console, &org, StatusCode::NOT_FOUND, &form, problem, Vec::new());
    }
    let identifier = match identifier(&org, &form) {
        Ok(identifier) => identifier,
        Err(failure) => {
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            return find_page(&console, &org, status, &form, Some(failure.to_string()), Vec::new());
        }
    };
    let Search { customers, contacts, erased, .. } = console.store.search(&org, &identifier).await?;
    let found: Vec<_> = customers.iter().collect();
    let addresses = if found.is_empty() && identifier.name().receives_otps() {
        console.store.quotas_of_address(&org, &identifier).await?
    } else {
        Vec::new()
    };
    match (found.as_slice(), contacts.is_empty()) {
        ([(user, _)], _) => Ok(Redirect::to(&customer_path(org.id(), **user)).into_response()),
        ([], true) if addresses.is_empty() => {
            let text = erased.map_or_else(
                || "Nobody has it, and no OTP was sent to it in the last days".to_owned(),
                |user| format!("Nobody has it. It was a number of customer {user}, who was erased"),
            );
            find_page(&console, &org, StatusCode::NOT_FOUND, &form, Some(text), Vec::new())
        }
        ([], _) => contact_page(&console, &org, &form, &identifier, &contacts, &addresses),
        (several, _) => {
            let several = several.iter().map(|(user, accounts)| {
                let accounts: Vec<_> = accounts.iter().map(ToString::to_string).collect();
                (**user, accounts.join(", "))
            });
            find_page(&console, &org, StatusCode::OK, &form, None, several.collect())
        }
    }
}

fn customer_path(id: OrgId, user: UserId) -> String {
    org_path(id, &format!("customers/{user}"))
}

fn contact_page(
    console: &Console,
    org: &Org,
    form: &Form,
    identifier: &Identifier,
    histories: &[OwnerHistory],
    addresses: &[AddressQuotas],
) -> Page {
    let now = Utc::now();
    let events = support::otp_timeline(org, histories, now);
    page(&ContactPage {
        shell: Shell::of_org(console, org, "customers", "A contact without registration"),
        id: org.id(),
        kind: identifier.name(),
        value: form.text("value").to_owned(),
        history: History::new(org, &events, histories, addresses, now),
        once: console.gate.open_form(),
    })
}

/// `GET …/customers/{user}`: the customer, with masked identifiers.
pub async fn customer(State(console): State<Arc<Console>>, Path((id, user)): Path<(u32, u64)>) -> Page {
    let org = org_of(&console, id).await?;
    let found = support::customer(&console.store, &org, UserId(user)).await?;
    customer_page(&console, &org, &found, Reveal::Masked, StatusCode::OK, None).await
}

async fn customer_page(
    console: &Console,
    org: &Org,
    found: &CustomerHistory,
    reveal: Reveal,
    status: StatusCode,
    problem: Option<String>,
) -> Page {
    let now = Utc::now();
    let histories: Vec<_> = found.all().cloned().collect();
    let (profiles, identifiers) = match &found.state {
        CustomerState::Gone(_) => (Vec::new(), Vec::new()),
        CustomerState::Registered { customer, .. } => {
            let identifiers = customer.identifiers.iter().map(|one| support::identifier_row(one, reveal));
            (support::profile_rows(org, customer, reveal), identifiers.collect())
        }
    };
    let (merged_into, can_erase) = match &found.state {
        CustomerState::Registered { .. } => (None, true),
        CustomerState::Gone(tombstone) => (tombstone.merged_into, tombstone.pending.is_some()),
    };
    let acts = support::recent_acts(&console.store, org, now).await?;
    let events = support::timeline(org, found, &acts, now);
    page_with(
        status,
        &CustomerPage {
            shell: Shell::of_org(console, org, "customers", format!("Customer {}", found.user)),
            id: org.id(),
            user: found.user,
            gone: support::gone(org, found),
            merged_into,
            can_erase,
            profiles,
            identifiers,
            history: History::new(org, &events, &histories, &found.addresses, now),
            is_revealed: reveal == Reveal::All,
            problems: problem.into_iter().map(|text| ShownProblem::of("typed", text)).collect(),
            once: console.gate.open_form(),
        },
    )
}

/// `POST …/customers/{user}`: shows identifiers, unlocks, revokes or erases.
pub async fn act(
    State(console): State<Arc<Console>>,
    Path((id, user)): Path<(u32, u64)>,
    Extension(form): Extension<Form>,
) -> Page {
    let user = UserId(user);
    console.gate.close_form(form.text("once"))?;
    let org = org_of(&console, id).await?;
    let path = customer_path(org.id(), user);
    let subject = Subject::Customer(user);
    match form.text("action") {
        "reveal" => {
            let (store, who) = (&console.store, &console.who);
            let found = support::customer_revealed(store, who, &org, user, "customer show").await?;
            customer_page(&console, &org, &found, Reveal::All, StatusCode::OK, None).await
        }
        "unlock" => unlock(&console, &org, &subject, &path).await,
        "revoke" if form.text("confirmed") == "yes" => revoke(&console, &org, &subject, &path).await,
        "revoke" => ask_revoke(&console, &org, path.clone(), path, Vec::new()),
        "erase" if form.text("typed").trim() == user.to_string() => erase(&console, org, user, &path).await,
        "erase" => {
            let found = support::customer(&console.store, &org, user).await?;
            let problem = format!("To erase the customer, type the id {user}");
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            customer_page(&console, &org, &found, Reveal::Masked, status, Some(problem)).await
        }
        _ => Err(Failure::usage("the form says nothing to do").into()),
    }
}

/// `POST …/contacts`: unlocks or revokes for an identifier that belongs to nobody.
pub async fn act_on_contact(
    State(console): State<Arc<Console>>,
    Path(id): Path<u32>,
    Extension(form): Extension<Form>,
) -> Page {
    console.gate.close_form(form.text("once"))?;
    let org = org_of(&console, id).await?;
    let subject = Subject::Contact(identifier(&org, &form)?);
    let back = org_path(org.id(), "customers");
    match form.text("action") {
        "unlock" => unlock(&console, &org, &subject, &back).await,
        "revoke" if form.text("confirmed") == "yes" => revoke(&console, &org, &subject, &back).await,
        "revoke" => {
            let subject = form.fields(|name| matches!(name, "kind" | "value"));
            ask_revoke(&console, &org, org_path(org.id(), "contacts"), back, subject)
        }
        _ => Err(Failure::usage("the form says nothing to do").into()),
    }
}

async fn unlock(console: &Console, org: &Org, subject: &Subject, back: &str) -> Page {
    let unlocked = support::unlock(&console.store, &console.who, org, subject, None).await?;
    let scopes: Vec<_> = unlocked.iter().map(|scope| scope.as_str()).collect();
    console.notify(Notice::done(if scopes.is_empty() {
        "There were no wrong codes to forget.".to_owned()
    } else {
        format!("Wrong codes were forgotten for {}.", scopes.join(", "))
    }));
    Ok(Redirect::to(back).into_response())
}

async fn revoke(console: &Console, org: &Org, subject: &Subject, back: &str) -> Page {
    let revoked = support::revoke(&console.store, &console.who, org, subject, None).await?;
    console.notify(Notice::done(match revoked.len() {
        0 => "No OTP was open.".to_owned(),
        1 => "1 OTP was revoked.".to_owned(),
        count => format!("{count} OTPs were revoked."),
    }));
    Ok(Redirect::to(back).into_response())
}

fn ask_revoke(
    console: &Console,
    org: &Org,
    to: String,
    back: String,
    subject: Vec<(String, String)>,
) -> Page {
    page(&RevokePage {
        shell: Shell::of_org(console, org, "customers", "Revoke every open OTP?"),
        to,
        back,
        subject,
        once: console.gate.open_form(),
    })
}

/// Begins to erase a customer and goes on in the background, because the end of it waits for
/// requests that are under way.
async fn erase(console: &Arc<Console>, org: Org, user: UserId, back: &str) -> Page {
    let (begun, has_begun) = oneshot::channel();
    let background = Arc::clone(console);
    let erasing = tokio::spawn(async move {
        let id = org.id();
        // Before the first write, so that the process waits for it from then on.
        let open = background.erasures().begin(id, user);
        let mut is_begun = false;
        let tell = || {
            is_begun = true;
            // Nobody waits if the browser has gone; the erasure goes on.
            let _ = begun.send(());
        };
        let (store, who) = (&background.store, &background.who);
        let erased = support::erase(store, who, &org, user, background.settle, tell).await;
        match &erased {
            Err(failure) if is_begun => {
                tracing::warn!(org = %id, customer = %user, cause = %failure, "an erasure has not ended");
                let text =
                    format!("Customer {user} is not wholly erased. Erase the customer again: {failure}");
                background.notify(Notice::warning(text));
            }
            // The page itself tells a failure before it has begun.
            _ => open.done(),
        }
        erased
    });
    let text = if has_begun.await.is_ok() {
        let seconds = console.settle.as_secs();
        format!(
            "Customer {user} is unknown to every request from now on. The rest is deleted in {seconds} seconds."
        )
    } else {
        // It has ended without having begun.
        erasing.await.map_err(|error| Failure::failed(format!("the erasure failed: {error}")))??;
        format!("Customer {user} was erased before.")
    };
    console.notify(Notice::done(text));
    Ok(Redirect::to(back).into_response())
}
