//! `loyaltyctl till`.

use chrono::{SecondsFormat, Utc};
use clap::{
    Subcommand,
    builder::{PossibleValue, PossibleValuesParser},
};
use loyalty_codes::{
    model::{
        access_token::TokenLifetime,
        org::OrgId,
        till::{Credential, Password, Permission, Till, TillName},
    },
    secret::os_rng,
    store::{AuditEntry, Store},
};
use serde_json::json;

use crate::{
    Target, audit,
    failure::Failure,
    output::{Output, ask},
};

#[derive(Subcommand)]
pub enum Command {
    /// Create a till and print its password, once
    ///
    /// The password is printed before the till is created, and is good if the command succeeds.
    Create {
        /// 1 to 64 characters of A-Z a-z 0-9 . _ -
        #[arg(value_parser = name)]
        name: TillName,
        /// The org that the till calls for
        #[arg(long, value_name = "ID")]
        org: u32,
        /// What it may do, separated by commas
        #[arg(long, required = true, value_delimiter = ',', value_name = "PERMISSION", value_parser = permissions())]
        allow: Vec<String>,
        /// How long its access tokens are valid, in seconds: 60 to 86400. Many clients keep a token
        /// for an hour, whatever the answer says
        #[arg(long, value_name = "SECONDS", value_parser = token_lifetime, default_value = "3600")]
        token_ttl: TokenLifetime,
    },
    /// List the tills of all orgs, or of one
    List {
        /// Only the tills of this org
        #[arg(long, value_name = "ID")]
        org: Option<u32>,
    },
    /// Give a till a new password and print it, once; the one it has goes on working until it is
    /// revoked
    ///
    /// The password is printed before the till gets it, and is good if the command succeeds. One
    /// that was lost is replaced by `revoke NAME --new` and another rotation.
    Rotate {
        /// The till's name
        #[arg(value_parser = name)]
        name: TillName,
    },
    /// Make a till's passwords stop working, within a minute
    Revoke {
        /// The till's name
        #[arg(value_parser = name)]
        name: TillName,
        /// Only those before the last rotation
        #[arg(long)]
        old: bool,
        /// Only that of the last rotation, if it is not in use yet or was lost
        #[arg(long, conflicts_with = "old")]
        new: bool,
        /// Do it without asking
        #[arg(long)]
        yes: bool,
    },
}

/// Reads the name of a till.
pub fn name(text: &str) -> Result<TillName, String> {
    TillName::parse(text).ok_or_else(|| "a till's name is 1 to 64 characters of A-Z a-z 0-9 . _ -".to_owned())
}

/// Reads a lifetime of access tokens in seconds.
pub fn token_lifetime(text: &str) -> Result<TokenLifetime, String> {
    let lifetime = text.parse().ok().and_then(TokenLifetime::new);
    lifetime.ok_or_else(|| "an access token is valid for 60 to 86400 seconds".to_owned())
}

fn permissions() -> PossibleValuesParser {
    let values = Permission::ALL.iter();
    PossibleValuesParser::new(
        values.map(|permission| PossibleValue::new(permission.as_str()).help(permission.meaning())),
    )
}

pub async fn run(command: Command, target: &Target, output: &Output) -> Result<(), Failure> {
    let store = &target.store().await?;
    match command {
        Command::Create { name, org, allow, token_ttl } => {
            let mut permissions: Vec<_> = allow.iter().filter_map(|text| Permission::parse(text)).collect();
            permissions.sort_unstable();
            permissions.dedup();
            create(store, output, &target.operator().await?, name, OrgId(org), permissions, token_ttl).await
        }
        Command::List { org } => list(store, output, org.map(OrgId)).await,
        Command::Rotate { name } => rotate(store, output, &target.operator().await?, &name).await,
        Command::Revoke { name, old, new, yes } => {
            let which = match (old, new) {
                (true, _) => Passwords::Old,
                (_, true) => Passwords::New,
                _ => Passwords::All,
            };
            let till = output.with_spinner("reading the till", find(store, &name)).await?;
            if !yes {
                ask(&format!("{} within a minute. Revoke of till {name}?", which.consequence()))?;
            }
            revoke(store, output, &target.operator().await?, &till, which).await
        }
    }
}

async fn create(
    store: &Store,
    output: &Output,
    who: &str,
    name: TillName,
    org: OrgId,
    permissions: Vec<Permission>,
    token_lifetime: TokenLifetime,
) -> Result<(), Failure> {
    let making = new_till(store, name, org, permissions, token_lifetime);
    let (till, password) = output.with_spinner("reading", making).await?;
    print_password(output, &till, &password, "")?;
    let creating = create_till(store, who, &till);
    output.with_spinner("creating the till", creating).await.map_err(explain_printed_password)
}

/// A till that can be created, and its password. Nothing is written yet.
pub async fn new_till(
    store: &Store,
    name: TillName,
    org: OrgId,
    permissions: Vec<Permission>,
    token_lifetime: TokenLifetime,
) -> Result<(Till, Password), Failure> {
    if store.org(org).await?.is_none() {
        return Err(Failure::not_found(format!(
            "there is no org {org}; create it with `loyaltyctl org apply`"
        )));
    }
    if store.till(&name).await?.is_some() {
        return Err(exists(&name));
    }
    let password = Password::generate(&mut os_rng());
    let credentials = vec![Credential::new(password.expose(), Utc::now())];
    Ok((Till { name, org, permissions, credentials, token_lifetime }, password))
}

/// Creates a till of [`new_till`] and records it.
pub async fn create_till(store: &Store, who: &str, till: &Till) -> Result<(), Failure> {
    let act = async |_: &mut AuditEntry| {
        if store.create_till(till).await? { Ok(()) } else { Err(exists(&till.name)) }
    };
    let detail = json!({"till": till.name.as_str(), "permissions": till.permissions});
    audit::record(store, till.org, who, "till create", detail, act).await
}

fn exists(name: &TillName) -> Failure {
    Failure::refused(format!(
        "there is a till {name} already; `loyaltyctl till rotate {name}` gives it a new password"
    ))
}

/// A failure after the password was printed.
fn explain_printed_password(failure: Failure) -> Failure {
    let void = "The password above is void.";
    let uncertain = "Whether the password above works is not certain: `loyaltyctl till list` shows since when the till has one.";
    let consequence = if failure.is_refusal() { void } else { uncertain };
    failure.with_detail(consequence)
}

/// Prints a password before the till gets it, so that no password is in use that was never shown.
fn print_password(output: &Output, till: &Till, password: &Password, next: &str) -> Result<(), Failure> {
    let json = json!({
        "name": till.name.as_str(),
        "org": till.org,
        "password": password.expose(),
        "permissions": till.permissions,
        "token_ttl": till.token_lifetime.seconds(),
    });
    let text = format!(
        "till {} of org {}\npassword {}\nIt is shown this once. Clients send it, or its md5 as 32 hex digits.{next}",
        till.name,
        till.org,
        output.strong(password.expose())
    );
    output.print(&json, &text).map_err(|failure| failure.without_effect("nothing was changed"))
}

async fn list(store: &Store, output: &Output, org: Option<OrgId>) -> Result<(), Failure> {
    let listing = async {
        let orgs = match org {
            Some(org) if store.org(org).await?.is_none() => {
                return Err(Failure::not_found(format!("there is no org {org}")));
            }
            Some(org) => vec![org],
            None => store.orgs().await?.into_iter().map(|(id, _)| id).collect(),
        };
        let mut tills = Vec::new();
        for org in orgs {
            tills.extend(store.tills(org).await?);
        }
        Ok::<_, Failure>(tills)
    };
    let tills = output.with_spinner("listing", listing).await?;
    let since = |till: &Till| {
        till.credentials.last().map(|c| c.created_at.to_rfc3339_opts(SecondsFormat::Secs, true))
    };
    let allowed = |till: &Till| till.permissions.iter().map(|p| p.as_str()).collect::<Vec<_>>().join(",");
    let rows: Vec<_> = tills
        .iter()
        .map(|till| {
            let since = since(till).unwrap_or_else(|| "-".to_owned());
            vec![
                till.name.to_string(),
                till.org.to_string(),
                state(till).to_owned(),
                since,
                format!("{} s", till.token_lifetime.seconds()),
                allowed(till),
            ]
        })
        .collect();
    let json: Vec<_> = tills
        .iter()
        .map(|till| {
            json!({
                "name": till.name.as_str(),
                "org": till.org,
                "state": state(till),
                "password_since": since(till),
                "permissions": till.permissions,
                "token_ttl": till.token_lifetime.seconds(),
            })
        })
        .collect();
    let heading = ["name", "org", "state", "password since", "token ttl", "permissions"];
    output.print(&json!(json), &output.table(&heading, &rows))
}

/// Whether a till has a password, or two.
pub fn state(till: &Till) -> &'static str {
    match till.credentials.len() {
        0 => "revoked",
        1 => "active",
        _ => "rotating",
    }
}

async fn rotate(store: &Store, output: &Output, who: &str, name: &TillName) -> Result<(), Failure> {
    let rotation = output.with_spinner("reading the till", Rotation::new(store, name)).await?;
    let next = match rotation.till.credentials.len() {
        0 => String::new(),
        _ => format!("\nThe password before it works until `loyaltyctl till revoke {name} --old`."),
    };
    print_password(output, &rotation.till, &rotation.password, &next)?;
    let writing = rotation.write(store, who);
    output.with_spinner("writing", writing).await.map_err(explain_printed_password)
}

/// Another password for a till. Nothing is written before [`Self::write`].
pub struct Rotation {
    /// As it is now.
    pub till: Till,
    pub password: Password,
}

impl Rotation {
    pub async fn new(store: &Store, name: &TillName) -> Result<Self, Failure> {
        let till = find(store, name).await?;
        if till.credentials.len() > 1 {
            return Err(Failure::refused(format!(
                "till {name} has two passwords already; `loyaltyctl till revoke {name} --old` ends the older one, \
                 `loyaltyctl till revoke {name} --new` the newer one, in case it was lost"
            )));
        }
        Ok(Self { till, password: Password::generate(&mut os_rng()) })
    }

    /// Gives the till the password and records it.
    pub async fn write(&self, store: &Store, who: &str) -> Result<(), Failure> {
        let mut credentials = self.till.credentials.clone();
        credentials.push(Credential::new(self.password.expose(), Utc::now()));
        let act = async |_: &mut AuditEntry| replace(store, &self.till, &credentials).await;
        let detail = json!({"till": self.till.name.as_str()});
        audit::record(store, self.till.org, who, "till rotate", detail, act).await
    }
}

/// Which of a till's passwords.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Passwords {
    All,
    /// All but the newest.
    Old,
    /// The newest of two.
    New,
}

impl Passwords {
    /// What revoking them means.
    pub const fn consequence(self) -> &'static str {
        match self {
            Self::All => "Every password of the till stops working",
            Self::Old => "The older password of the till stops working",
            Self::New => "The newer password of the till stops working",
        }
    }
}

async fn revoke(
    store: &Store,
    output: &Output,
    who: &str,
    till: &Till,
    which: Passwords,
) -> Result<(), Failure> {
    let name = &till.name;
    let revoking = revoke_passwords(store, who, till, which);
    let Revoked { revoked, left } = output.with_spinner("writing", revoking).await?;
    output.print(
        &json!({"name": name.as_str(), "revoked": revoked, "left": left}),
        &format!("till {name}: {revoked} revoked, {left} left"),
    )
}

/// How many passwords of a till were revoked, and how many it still has.
pub struct Revoked {
    pub revoked: usize,
    pub left: usize,
}

/// Revokes passwords of a till and records it.
///
/// # Errors
/// A refusal when the till has changed since it was read, or has no such password.
pub async fn revoke_passwords(
    store: &Store,
    who: &str,
    till: &Till,
    which: Passwords,
) -> Result<Revoked, Failure> {
    let name = &till.name;
    let kept = match (which, till.credentials.as_slice()) {
        (Passwords::All, _) | (Passwords::Old, []) => Vec::new(),
        (Passwords::Old, [.., newest]) => vec![newest.clone()],
        (Passwords::New, [older @ .., _]) if !older.is_empty() => older.to_vec(),
        (Passwords::New, credentials) => {
            let count = if credentials.is_empty() { "no password" } else { "one password, which is in use" };
            return Err(Failure::refused(format!(
                "till {name} has {count}; `loyaltyctl till rotate {name}` gives it another one"
            )));
        }
    };
    let (revoked, left) = (till.credentials.len() - kept.len(), kept.len());
    let act = async |_: &mut AuditEntry| replace(store, till, &kept).await;
    let detail = json!({"till": name.as_str(), "revoked": revoked, "left": left});
    audit::record(store, till.org, who, "till revoke", detail, act).await?;
    Ok(Revoked { revoked, left })
}

/// The till with that name.
pub async fn find(store: &Store, name: &TillName) -> Result<Till, Failure> {
    let till = store.till(name).await?;
    till.ok_or_else(|| Failure::not_found(format!("there is no till {name}")))
}

async fn replace(store: &Store, till: &Till, credentials: &[Credential]) -> Result<(), Failure> {
    if store.replace_credentials(till, credentials).await? {
        Ok(())
    } else {
        Err(Failure::refused(format!("till {} was changed at the same moment; try again", till.name)))
    }
}
