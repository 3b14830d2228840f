//! The Tills page: the tills of an org, and their passwords.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Redirect},
};
use loyalty_codes::model::{
    access_token::TokenLifetime,
    org::{Org, OrgId},
    till::{Password, Permission, Till, TillName},
};

use super::{
    Console,
    form::Form,
    org_of, org_path,
    page::{Notice, Page, Refusal, Shell, ShownProblem, page, page_with},
};
use crate::{
    failure::Failure,
    org_words::counted,
    support,
    till::{self, Passwords, Revoked, Rotation},
};

#[derive(Template)]
#[template(path = "tills.html")]
struct TillsPage {
    shell: Shell,
    id: OrgId,
    tills: Vec<Row>,
    /// What is wrong with the form for another till: the id of the field, and the reason.
    problems: Vec<ShownProblem>,
    entered: Entered,
    /// Allows the forms of the page to be sent once.
    once: String,
}

impl TillsPage {
    fn error(&self, input: &str) -> Option<&str> {
        let problem = self.problems.iter().find(|problem| problem.input.as_deref() == Some(input));
        problem.map(|problem| problem.text.as_str())
    }
}

struct Row {
    name: String,
    state: &'static str,
    passwords: usize,
    since: String,
    permissions: String,
    token_ttl: u32,
}

/// What the form for another till says.
struct Entered {
    name: String,
    token_ttl: String,
    permissions: Vec<(Permission, bool)>,
}

#[derive(Template)]
#[template(path = "password.html")]
struct PasswordPage {
    shell: Shell,
    id: OrgId,
    name: String,
    password: String,
    /// The command that tries it.
    command: String,
    /// Whether the till has another password, which still works.
    has_another: bool,
}

#[derive(Template)]
#[template(path = "revoke.html")]
struct RevokePage {
    shell: Shell,
    id: OrgId,
    name: String,
    which: &'static str,
    what: &'static str,
    /// The passwords that are asked about.
    seen: String,
    once: String,
}

impl Entered {
    fn none() -> Self {
        Self {
            name: String::new(),
            token_ttl: TokenLifetime::default().seconds().to_string(),
            permissions: Permission::ALL.iter().map(|permission| (*permission, false)).collect(),
        }
    }

    fn of(form: &Form) -> Self {
        let ticked = |permission: Permission| form.all("allow").any(|name| name == permission.as_str());
        Self {
            name: form.text("name").trim().to_owned(),
            token_ttl: form.text("token_ttl").trim().to_owned(),
            permissions: Permission::ALL
                .iter()
                .map(|permission| (*permission, ticked(*permission)))
                .collect(),
        }
    }

    fn read(&self) -> Result<(TillName, Vec<Permission>, TokenLifetime), Vec<ShownProblem>> {
        let mut problems = Vec::new();
        let mut wrong = |input, text: String| problems.push(ShownProblem::of(input, text));
        let name = till::name(&self.name).map_err(|text| wrong("name", text));
        let ticked = self.permissions.iter().filter(|(_, ticked)| *ticked);
        let permissions: Vec<_> = ticked.map(|(permission, _)| *permission).collect();
        if permissions.is_empty() {
            wrong("allow-0", "a till needs at least one permission".to_owned());
        }
        let lifetime = till::token_lifetime(&self.token_ttl).map_err(|text| wrong("token_ttl", text));
        match (name, lifetime) {
            (Ok(name), Ok(lifetime)) if problems.is_empty() => Ok((name, permissions, lifetime)),
            _ => Err(problems),
        }
    }
}

/// `GET …/tills`.
pub async fn list(State(console): State<Arc<Console>>, Path(id): Path<u32>) -> Page {
    let org = org_of(&console, id).await?;
    list_with(&console, &org, StatusCode::OK, Entered::none(), Vec::new()).await
}

async fn list_with(
    console: &Console,
    org: &Org,
    status: StatusCode,
    entered: Entered,
    problems: Vec<ShownProblem>,
) -> Page {
    let tills = console.store.tills(org.id()).await?;
    let row = |till: &Till| Row {
        name: till.name.to_string(),
        state: till::state(till),
        passwords: till.credentials.len(),
        since: till
            .credentials
            .last()
            .map_or_else(|| "-".to_owned(), |credential| support::time(org, credential.created_at)),
        permissions: till.permissions.iter().map(|it| it.as_str()).collect::<Vec<_>>().join(", "),
        token_ttl: till.token_lifetime.seconds(),
    };
    page_with(
        status,
        &TillsPage {
            shell: Shell::of_org(console, org, "tills", "Tills"),
            id: org.id(),
            tills: tills.iter().map(row).collect(),
            problems,
            entered,
            once: console.gate.open_form(),
        },
    )
}

/// `POST …/tills/create`.
pub async fn create(
    State(console): State<Arc<Console>>,
    Path(id): Path<u32>,
    Extension(form): Extension<Form>,
) -> Page {
    console.gate.close_form(form.text("once"))?;
    let org = org_of(&console, id).await?;
    let entered = Entered::of(&form);
    let (name, permissions, lifetime) = match entered.read() {
        Ok(read) => read,
        Err(problems) => {
            return list_with(&console, &org, StatusCode::UNPROCESSABLE_ENTITY, entered, problems).await;
        }
    };
    let creating = async {
        let (till, password) = till::new_till(&console.store, name, org.id(), permissions, lifetime).await?;
        till::create_till(&console.store, &console.who, &till).await?;
        Ok::<_, Failure>((till, password))
    };
    match creating.await {
        Ok((till, password)) => show_password(&console, &org, &till, &password, false),
        Err(failure) if failure.is_refusal() => {
            let problem = ShownProblem::of("name", failure.to_string());
            list_with(&console, &org, StatusCode::CONFLICT, entered, vec![problem]).await
        }
        Err(failure) => Err(failure.into()),
    }
}

/// `POST …/tills/rotate`.
pub async fn rotate(
    State(console): State<Arc<Console>>,
    Path(id): Path<u32>,
    Extension(form): Extension<Form>,
) -> Page {
    console.gate.close_form(form.text("once"))?;
    let (org, till) = till_of(&console, id, &form).await?;
    let rotation = Rotation::new(&console.store, &till.name).await?;
    rotation.write(&console.store, &console.who).await?;
    show_password(&console, &org, &till, &rotation.password, !till.credentials.is_empty())
}

/// The till that a form names, which must be one of the org.
async fn till_of(console: &Console, id: u32, form: &Form) -> Result<(Org, Till), Refusal> {
    let org = org_of(console, id).await?;
    let Some(name) = TillName::parse(form.text("name")) else {
        return Err(Failure::usage("that is no name of a till").into());
    };
    let till = till::find(&console.store, &name).await?;
    if till.org != org.id() {
        return Err(Failure::not_found(format!("org {id} has no till {name}")).into());
    }
    Ok((org, till))
}

/// The page with a password. It is the answer to the form itself, so that the password is in no
/// address, and loading it again sends a form that was sent before.
fn show_password(console: &Console, org: &Org, till: &Till, password: &Password, has_another: bool) -> Page {
    let secret = password.expose();
    page(&PasswordPage {
        shell: Shell::of_org(console, org, "tills", format!("The password of {}", till.name)),
        id: org.id(),
        name: till.name.to_string(),
        password: secret.to_owned(),
        command: format!(
            "curl -sS {}/v3/oauth/token/generate -H 'Content-Type: application/json' -d '{{\"key\":\"{}\",\"secret\":\"{secret}\"}}'",
            console.api, till.name
        ),
        has_another,
    })
}

/// Which passwords a till has, by the times when they were made.
fn passwords_of(till: &Till) -> String {
    let times =
        till.credentials.iter().map(|credential| credential.created_at.timestamp_millis().to_string());
    times.collect::<Vec<_>>().join(",")
}

/// `POST …/tills/revoke`: asks, and revokes when that was confirmed.
pub async fn revoke(
    State(console): State<Arc<Console>>,
    Path(id): Path<u32>,
    Extension(form): Extension<Form>,
) -> Page {
    let (passwords, which) = match form.text("which") {
        "all" => (Passwords::All, "all"),
        "old" => (Passwords::Old, "old"),
        "new" => (Passwords::New, "new"),
        _ => return Err(Failure::usage("the form does not say which passwords").into()),
    };
    console.gate.close_form(form.text("once"))?;
    let (org, till) = till_of(&console, id, &form).await?;
    if form.text("confirmed") != "yes" {
        return page(&RevokePage {
            shell: Shell::of_org(&console, &org, "tills", format!("Revoke of {}?", till.name)),
            id: org.id(),
            name: till.name.to_string(),
            which,
            what: passwords.consequence(),
            seen: passwords_of(&till),
            once: console.gate.open_form(),
        });
    }
    if form.text("seen") != passwords_of(&till) {
        let text = "the till's passwords were changed after you were asked, so none was revoked";
        return Err(Failure::refused(text).into());
    }
    let Revoked { revoked, left } =
        till::revoke_passwords(&console.store, &console.who, &till, passwords).await?;
    let passwords = counted(revoked as u64, "password", "passwords");
    console.notify(Notice::done(format!("Till {}: {passwords} revoked, {left} left.", till.name)));
    Ok(Redirect::to(&org_path(org.id(), "tills")).into_response())
}
