//! `loyaltyctl doctor`: whether everything that a table and its orgs need is there, and what to do
//! where it is not. The other files of this module make the checks.

mod orgs;
mod providers;
mod stack;

use std::time::Duration;

use clap::Args;
use console::style;
use loyalty_codes::{aws_call::CallError, model::org::OrgId};
use serde::Serialize;
use serde_json::json;

use crate::{
    Target,
    failure::Failure,
    output::{Output, printable},
};

#[derive(Args)]
pub struct Options {
    /// Check only this org, instead of all
    #[arg(long, value_name = "ID")]
    org: Option<u32>,

    /// How long to wait for the delivery function, which gets a message to nobody; 0 leaves it out
    #[arg(long, value_name = "SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=300))]
    wait: u64,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Ok,
    /// It works, but not as it should.
    Warning,
    Failed,
    NotChecked,
}

impl Status {
    const ALL: [Self; 4] = [Self::Ok, Self::Warning, Self::Failed, Self::NotChecked];

    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::NotChecked => "not checked",
        }
    }
}

/// What was found, and what to do about it.
#[derive(Debug, Serialize)]
struct Check {
    /// `None` for what all orgs share.
    org: Option<OrgId>,
    name: &'static str,
    status: Status,
    finding: String,
    remedy: Option<String>,
}

impl Check {
    fn new(name: &'static str, status: Status, finding: impl Into<String>) -> Self {
        Self { org: None, name, status, finding: finding.into(), remedy: None }
    }

    fn ok(name: &'static str, finding: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, finding)
    }

    fn warning(name: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..Self::new(name, Status::Warning, finding) }
    }

    fn failed(name: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..Self::new(name, Status::Failed, finding) }
    }

    fn not_checked(name: &'static str, why: impl Into<String>) -> Self {
        Self::new(name, Status::NotChecked, why)
    }

    /// A check whose call had no answer. `action` is the permission that the call needs.
    fn unanswered(name: &'static str, action: &str, error: &CallError) -> Self {
        let finding = error.to_string();
        match error {
            CallError::Unsupported => Self::not_checked(name, format!("there is no {action} here")),
            CallError::Denied(_) => Self {
                remedy: Some(format!("Allow {action} to your identity to have this checked.")),
                ..Self::not_checked(name, finding)
            },
            CallError::Credentials(_) => Self::failed(name, finding, CREDENTIALS_REMEDY),
            CallError::Unreachable(_) => Self::failed(name, finding, NETWORK_REMEDY),
            CallError::NotFound | CallError::Refused(_) => Self::failed(
                name,
                format!("{action}: {finding}"),
                "Run it again; if it stays, the text is AWS's own.",
            ),
        }
    }

    fn of(self, org: OrgId) -> Self {
        Self { org: Some(org), ..self }
    }

    /// The check as text, with its remedy on another line.
    fn text(&self, output: &Output) -> String {
        let status = style(format!("{:<11}", self.status.name())).force_styling(output.colours());
        let status = match self.status {
            Status::Ok => status.green(),
            Status::Warning => status.yellow(),
            Status::Failed => status.red().bold(),
            Status::NotChecked => status.dim(),
        };
        let org = self.org.map_or_else(String::new, |org| format!("org {org}, "));
        let mut text = format!("{status}  {org}{}: {}", self.name, printable(&self.finding));
        if let Some(remedy) = &self.remedy {
            text = format!("{text}\n{:<11}  → {}", "", printable(remedy));
        }
        text
    }
}

const CREDENTIALS_REMEDY: &str = "Sign in (`aws sso login`), or set AWS_PROFILE or AWS_ACCESS_KEY_ID and \
                                  AWS_SECRET_ACCESS_KEY; `aws sts get-caller-identity` shows who you are.";

const NETWORK_REMEDY: &str = "Check the network and the endpoint: AWS_REGION, AWS_ENDPOINT_URL_…, a proxy, and \
                              AWS_CA_BUNDLE if something on the way replaces certificates.";

pub async fn run(options: &Options, target: &Target, output: &Output) -> Result<(), Failure> {
    let checks = output.with_spinner("checking", examine(options, target)).await?;
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let summary = Status::ALL.map(|status| match (count(status), status) {
        (1, Status::Warning) => "1 warning".to_owned(),
        (warnings, Status::Warning) => format!("{warnings} warnings"),
        (others, _) => format!("{others} {}", status.name()),
    });
    let summary = summary.join(", ");
    let lines: Vec<_> = checks.iter().map(|check| check.text(output)).collect();
    output.print(
        &json!({"checks": checks, "failed": count(Status::Failed), "warnings": count(Status::Warning)}),
        &format!("{}\n{summary}", lines.join("\n")),
    )?;
    match count(Status::Failed) {
        0 => Ok(()),
        1 => Err(Failure::refused("1 check failed")),
        failed => Err(Failure::refused(format!("{failed} checks failed"))),
    }
}

async fn examine(options: &Options, target: &Target) -> Result<Vec<Check>, Failure> {
    let mut checks = Vec::new();
    let Some(store) = stack::connection(target, &mut checks).await else {
        return Ok(checks);
    };
    if !stack::table(target, &store, &mut checks).await {
        return Ok(checks);
    }
    let orgs = orgs::read(&store, options.org.map(OrgId), &mut checks).await?;
    stack::delivery(target, &store, &orgs, Duration::from_secs(options.wait), &mut checks).await;
    let providers = providers::Providers::new(target, &orgs, &mut checks).await;
    for org in &orgs {
        checks.extend(orgs::check(&store, org, &providers).await.into_iter().map(|check| check.of(org.id())));
    }
    Ok(checks)
}
