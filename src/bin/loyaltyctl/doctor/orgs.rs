//! Checks of an org: its configuration, tills, card numbers and customers, and who sends its
//! messages.

use chrono::Utc;
use loyalty_codes::{
    model::{
        delivery::{DeliverySettings, Provider},
        org::{Invalid, Org, OrgId},
    },
    settings::ProviderSettings,
    store::{Store, StoreError, error_chain},
};

use super::{Check, providers::Providers};
use crate::{failure::Failure, numbers};

/// The percentage of a number range at which it is near its end, as in the template's alarm.
const NEAR_THE_END: f64 = 80.0;

/// Reads all orgs, or the one that is asked for. An org that cannot be read is a failed check.
///
/// # Errors
/// [`Failure`] when there is no such org.
pub async fn read(store: &Store, only: Option<OrgId>, checks: &mut Vec<Check>) -> Result<Vec<Org>, Failure> {
    const NAME: &str = "org";
    let ids = match only {
        Some(id) => vec![id],
        None => match store.orgs().await {
            Ok(listed) => listed.into_iter().map(|(id, _)| id).collect(),
            Err(error) => {
                checks.push(unreadable("orgs", &error));
                return Ok(Vec::new());
            }
        },
    };
    if ids.is_empty() {
        let remedy = "Write an org's file, and apply it with `loyaltyctl org apply FILE`.";
        checks.push(Check::warning("orgs", "there is none", remedy));
    }
    let mut orgs = Vec::new();
    for id in ids {
        match store.org(id).await {
            Ok(Some(org)) => orgs.push(org),
            Ok(None) if only.is_some() => return Err(Failure::not_found(format!("there is no org {id}"))),
            Ok(None) => {
                let remedy =
                    "It is listed, but its item is gone: apply its file with `loyaltyctl org apply FILE`.";
                checks.push(Check::failed(NAME, "cannot be found", remedy).of(id));
            }
            Err(error) => checks.push(unreadable(NAME, &error).of(id)),
        }
    }
    Ok(orgs)
}

fn unreadable(name: &'static str, error: &StoreError) -> Check {
    Check::failed(
        name,
        error_chain(error),
        "If an item is corrupt or of a later version, restore it, or use the version of `loyaltyctl` that wrote it.",
    )
}

pub async fn check(store: &Store, org: &Org, providers: &Providers) -> Vec<Check> {
    let id = org.id();
    let mut checks = configuration(org);
    checks.extend(tills(store, id).await);
    checks.extend(card_numbers(store, org).await);
    checks.extend(customers(org));
    if let Some(delivery) = &org.definition.delivery {
        checks.extend(providers.check_org(delivery).await);
        if delivery.channels.values().any(|provider| *provider == Provider::Webhook) {
            checks.extend(webhook(store, id, delivery, providers.is_local()).await);
        }
    }
    checks
}

fn configuration(org: &Org) -> Vec<Check> {
    const NAME: &str = "configuration";
    let remedy = || format!("Change it with `loyaltyctl org edit {}`.", org.id());
    let definition = &org.definition;
    if let Err(Invalid(problems)) = definition.check() {
        let finding = format!("this version would refuse its file: {}", problems.join("; "));
        return vec![Check::failed(NAME, finding, remedy())];
    }
    let mut warnings = definition.warnings();
    for remark in definition.remarks() {
        if !warnings.iter().any(|warning| warning.starts_with(&remark)) {
            warnings.push(remark);
        }
    }
    if warnings.is_empty() {
        return vec![Check::ok(NAME, "valid")];
    }
    warnings.into_iter().map(|warning| Check::warning(NAME, warning, remedy())).collect()
}

async fn tills(store: &Store, id: OrgId) -> Option<Check> {
    const NAME: &str = "tills";
    Some(match store.tills(id).await {
        Err(error) => unreadable(NAME, &error),
        Ok(tills) => match tills.iter().filter(|till| !till.credentials.is_empty()).count() {
            0 => Check::warning(
                NAME,
                "none has a password, so nobody can call the API",
                format!("Make one: `loyaltyctl till create NAME --org {id} --allow …`."),
            ),
            count => Check::ok(NAME, format!("{count} with a password")),
        },
    })
}

async fn card_numbers(store: &Store, org: &Org) -> Vec<Check> {
    const NAME: &str = "card numbers";
    let id = org.id();
    let Some(plan) = org.numbering_plan().ok().filter(|_| org.config().card_numbers_enabled) else {
        return Vec::new();
    };
    let counter = match store.issued_card_numbers(id).await {
        Err(error) => return vec![unreadable(NAME, &error)],
        Ok(counter) => counter.filter(|counter| counter.plan == *plan),
    };
    let another = || {
        format!(
            "Give the org a longer CONF_CARD_NUMBER_LENGTH or another CONF_CARD_NUMBER_PREFIX; `loyaltyctl numbers preview \
             --org {id} --file FILE` shows it before it is applied."
        )
    };
    let Some(counter) = counter else {
        let remedy = format!(
            "Apply the org's file again: `loyaltyctl org export {id} > FILE`, `loyaltyctl org apply FILE`. If numbers could \
             repeat, that says what to change in the file."
        );
        return vec![Check::failed(NAME, "the counter is missing or has another plan than the org", remedy)];
    };
    if counter.next >= plan.end() {
        return vec![Check::failed(NAME, "all numbers of the plan are given", another())];
    }
    let left = plan.end() - counter.next;
    let used = if counter.first < counter.next { plan.percent_used(counter.next - 1) } else { 0.0 };
    let now = Utc::now();
    let mut checks = Vec::new();
    let outlook = match numbers::rate(store, id, &counter, now).await {
        Ok(rate) => numbers::outlook(rate.as_ref(), left, now),
        Err(error) => {
            checks.push(unreadable("rate of card numbers", &error));
            "not known".to_owned()
        }
    };
    if let Err(error) = store.write_reading(id, &counter, now).await {
        checks.push(Check::warning(
            "rate of card numbers",
            format!("the counter could not be noted: {}", error_chain(&error)),
            "The rate is known from these notes: let the operator's AWS identity do dynamodb:PutItem.",
        ));
    }
    let finding = format!("{used} % of the range is used, {left} numbers are left; until: {outlook}");
    checks.push(if used >= NEAR_THE_END {
        Check::warning(NAME, finding, another())
    } else {
        Check::ok(NAME, finding)
    });
    checks
}

/// Whether the customers of an org of an earlier version join across sources.
fn customers(org: &Org) -> Option<Check> {
    (!org.customers_join).then(|| {
        Check::warning(
            "upgrade",
            "customers of an earlier version do not join across sources yet",
            format!(
                "When every process has this version, run `loyaltyctl table upgrade --org {}`.",
                org.id()
            ),
        )
    })
}

/// Whether the org's gateway can be told from others, and is where messages are posted to.
async fn webhook(store: &Store, id: OrgId, delivery: &DeliverySettings, local: bool) -> Vec<Check> {
    const NAME: &str = "webhook";
    let mut checks = vec![match store.webhook_secrets(id).await {
        Err(error) => unreadable(NAME, &error),
        Ok(None) => Check::failed(
            NAME,
            "there is no secret to sign with, so nothing is posted",
            format!("Make it with `loyaltyctl org webhook-secret {id}`, and give it to the gateway."),
        ),
        Ok(Some(secrets)) => Check::ok(
            NAME,
            if secrets.previous.is_empty() { "a secret" } else { "a secret, and one before it" },
        ),
    }];
    let Some(settings) = &delivery.webhook else {
        return checks;
    };
    let allow_private =
        local || ProviderSettings::from_env().is_ok_and(|settings| settings.allow_private_webhooks);
    let try_it = format!("`loyaltyctl org test-delivery {id} --channel … --to …` posts a test message.");
    checks.push(match loyalty_codes::delivery::webhook_addresses(&settings.url).await {
        Err(reason) => Check::failed(
            NAME,
            format!("the host of {} has no address: {reason}", settings.url),
            "Correct the url in [delivery.webhook], or the host's DNS.",
        ),
        Ok((_, true)) if settings.url.starts_with("https:") || allow_private => {
            Check::ok(NAME, format!("{} has a public address. {try_it}", settings.url))
        }
        Ok(_) if allow_private => Check::ok(NAME, format!("{} has an address. {try_it}", settings.url)),
        Ok((_, true)) => Check::failed(
            NAME,
            format!("{} is not https", settings.url),
            "Give the gateway a certificate of a public authority, and an https url in [delivery.webhook].",
        ),
        Ok((addresses, false)) => {
            let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            Check::failed(
                NAME,
                format!("{} is at {}, which is not public", settings.url, addresses.join(", ")),
                "The delivery function connects to public addresses alone: give the gateway one.",
            )
        }
    });
    checks
}
