//! `loyaltyctl org`.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
};

use chrono::Utc;
use clap::{Subcommand, builder::PossibleValuesParser};
use loyalty_codes::{
    model::{
        card_number::{
            NumberingPlan,
            history::{IssuedRange, Transition, transition},
            new_permutation_key,
        },
        customer::{IdentifierName, UserId},
        delivery::Provider,
        delivery_state::{FailureReason, Outcome},
        message::{Channel, ChannelType},
        org::{Definition, Invalid, Org, OrgId},
        otp::{Code, Scope},
        webhook::WebhookSecret,
    },
    secret::os_rng,
    store::{Applied, AuditEntry, Store, StoreError, StoredOrg},
};
use serde_json::{Value, json};
use tokio::signal::unix::SignalKind;

use crate::{
    Target, audit,
    delivery::{self, Delivery, Needs},
    failure::Failure,
    new_file::{end, keep, temporary, while_editing},
    org_file, org_words,
    output::{self, Output, printable},
    upgrade,
};

#[derive(Subcommand)]
pub enum Command {
    /// Create an org, or change it to what a file says
    ///
    /// Checks everything first and says what changed. A numbering plan that could hand out a card
    /// number twice is refused. Running processes follow within a minute.
    Apply {
        /// The org's file; - is standard input
        file: PathBuf,
    },
    /// Show what `org apply` would change, and change nothing
    Diff {
        /// The org's file; - is standard input
        file: PathBuf,
    },
    /// Open an org's file in `$VISUAL` or `$EDITOR`, and apply it after it was checked and
    /// confirmed
    Edit {
        /// The org
        id: u32,
        /// Apply it without asking
        #[arg(long)]
        yes: bool,
    },
    /// Print the file that gives an org, for `org apply`
    Export {
        /// The org
        id: u32,
    },
    /// Show an org's configuration, how much of its card number range is used, and what all that
    /// means for its customers
    Show {
        /// The org
        id: u32,
    },
    /// List all orgs
    List,
    /// Make or replace the secret that signs the org's webhook messages, and print it, once
    ///
    /// A replaced secret signs beside the new one for a day. The secret is printed before the org
    /// gets it, and is good if the command succeeds.
    WebhookSecret {
        /// The org
        id: u32,
    },
    /// Send a test message with a made-up code by the provider of a channel, and say what the
    /// provider answered
    ///
    /// It counts in no limit, and its code is valid nowhere.
    TestDelivery {
        /// The org
        id: u32,
        /// The channel whose provider sends it
        #[arg(long, value_parser = channel(), ignore_case = true)]
        channel: String,
        /// The address: a mobile number, an e-mail address, or the id on the channel
        #[arg(long, value_name = "ADDRESS")]
        to: String,
        /// Whose texts of the org's file are sent
        #[arg(long, default_value = "GENERIC", value_parser = scope(), ignore_case = true)]
        scope: String,
    },
}

/// The user id of the first customer of a new org.
pub const FIRST_USER: UserId = UserId(1);

fn channel() -> PossibleValuesParser {
    PossibleValuesParser::new(ChannelType::ALL.iter().map(|channel| channel.as_str()))
}

fn scope() -> PossibleValuesParser {
    PossibleValuesParser::new(Scope::ALL.iter().map(|scope| scope.as_str()))
}

pub async fn run(command: Command, target: &Target, output: &Output) -> Result<(), Failure> {
    match command {
        Command::Apply { file } => {
            // The file is checked before any call to DynamoDB.
            let definition = read(&file)?;
            apply(&target.store().await?, output, &target.operator().await?, &definition, None).await
        }
        Command::Diff { file } => {
            let definition = read(&file)?;
            diff(&target.store().await?, output, &definition).await
        }
        Command::Edit { id, yes } => edit(target, output, OrgId(id), yes).await,
        Command::Export { id } => export(&target.store().await?, output, OrgId(id)).await,
        Command::Show { id } => show(&target.store().await?, output, OrgId(id)).await,
        Command::List => list(&target.store().await?, output).await,
        Command::WebhookSecret { id } => replace_webhook_secret(target, output, OrgId(id)).await,
        Command::TestDelivery { id, channel, to, scope } => {
            let (Some(channel), Some(scope)) = (ChannelType::parse(&channel), Scope::parse(&scope)) else {
                return Err(Failure::usage("unknown channel or scope"));
            };
            test_delivery(target, output, OrgId(id), channel, &to, scope).await
        }
    }
}

async fn apply(
    store: &Store,
    output: &Output,
    who: &str,
    definition: &Definition,
    version: Option<u64>,
) -> Result<(), Failure> {
    let applying = apply_definition(store, who, definition, version);
    let (applied, warnings) = output.with_spinner("applying", applying).await?;
    let changes = match &applied {
        Applied::Created | Applied::Unchanged => Vec::new(),
        Applied::Updated(before) => changes(before, definition),
    };
    print_changes(output, definition.id, "", &Preview { result: applied_name(&applied), changes, warnings })
}

/// Applies a definition and records it; to this version of the org only, if one is given. Returns
/// what changed, and warnings.
pub async fn apply_definition(
    store: &Store,
    who: &str,
    definition: &Definition,
    version: Option<u64>,
) -> Result<(Applied, Vec<String>), Failure> {
    let act = async |entry: &mut AuditEntry| {
        if let Some(org) = store.org(definition.id).await?
            && let Ok(plan) = NumberingPlan::try_from(&definition.config.card_numbers)
        {
            checked_start(store, &org, &plan).await?;
        }
        let key = new_permutation_key(&mut os_rng());
        let applied = store.apply_org(definition, key, FIRST_USER, version).await?;
        entry.detail["result"] = applied_name(&applied).into();
        if let Applied::Updated(before) = &applied {
            let mut keys: Vec<_> =
                changes(before, definition).into_iter().map(|(key, ..)| without_identifier(key)).collect();
            keys.dedup();
            entry.detail["changed"] = json!(keys);
        }
        Ok(applied)
    };
    let applied = audit::record(store, definition.id, who, "org apply", json!({}), act).await?;
    let before = match &applied {
        Applied::Updated(before) => Some(&**before),
        Applied::Created | Applied::Unchanged => None,
    };
    let warnings = warnings(store, before, definition).await?;
    Ok((applied, warnings))
}

/// The warnings about a definition, and about what a change from `before` means for the customers.
async fn warnings(
    store: &Store,
    before: Option<&Definition>,
    definition: &Definition,
) -> Result<Vec<String>, StoreError> {
    let mut warnings = definition.warnings();
    if let Some(before) = before {
        let concerns_customers: Vec<_> =
            upgrade::advice(before, definition).into_iter().chain(unreachable(before, definition)).collect();
        if !concerns_customers.is_empty() && store.has_customers(definition.id, FIRST_USER).await? {
            warnings.extend(concerns_customers);
        }
    }
    Ok(warnings)
}

/// What `org apply` would do.
struct Preview {
    /// What it would name the result.
    result: &'static str,
    changes: Vec<Change>,
    warnings: Vec<String>,
}

/// What applying `definition` would change.
async fn preview(store: &Store, definition: &Definition) -> Result<Preview, Failure> {
    let Some(org) = store.org(definition.id).await? else {
        let warnings = warnings(store, None, definition).await?;
        return Ok(Preview { result: "created", changes: Vec::new(), warnings });
    };
    let changes = changes(&org.definition, definition);
    let keeps_counter = match NumberingPlan::try_from(&definition.config.card_numbers) {
        Ok(plan) => checked_start(store, &org, &plan).await?.keeps_counter,
        Err(_) => true,
    };
    let result = if changes.is_empty() && keeps_counter { "unchanged" } else { "updated" };
    Ok(Preview { result, changes, warnings: warnings(store, Some(&org.definition), definition).await? })
}

async fn diff(store: &Store, output: &Output, definition: &Definition) -> Result<(), Failure> {
    let preview = output.with_spinner("reading", preview(store, definition)).await?;
    print_changes(output, definition.id, "would be ", &preview)
}

/// What an org's own file changes if an item was edited.
const COUNTER_HAS_ANOTHER_PLAN: &str = "the counter of its card numbers has another plan";

/// Prints what applying a definition changes. `lead` is written before the result.
fn print_changes(output: &Output, id: OrgId, lead: &str, preview: &Preview) -> Result<(), Failure> {
    let Preview { result, changes, warnings } = preview;
    let entry = |(key, before, after): &Change| json!({"key": key, "before": before, "after": after});
    let entries: Vec<_> = changes.iter().map(entry).collect();
    let mut text = format!("org {id} {lead}{}", output.strong(result));
    if !changes.is_empty() {
        text = format!("{text}\n{}", changes_as_table(output, changes));
    } else if *result == "updated" {
        text = format!("{text}: {COUNTER_HAS_ANOTHER_PLAN}");
    }
    output.print(&json!({"id": id, "result": result, "changes": entries, "warnings": warnings}), &text)?;
    for warning in warnings {
        output.warn(warning);
    }
    Ok(())
}

async fn edit(target: &Target, output: &Output, id: OrgId, yes: bool) -> Result<(), Failure> {
    let store = target.store().await?;
    let found = output.with_spinner("reading", store.stored_org(id)).await?;
    let StoredOrg { org: before, version, .. } = found.ok_or_else(|| no_such_org(id))?;
    let text = org_file::write(&before.definition).map_err(|error| Failure::failed(error.to_string()))?;
    let failed = |error: io::Error| Failure::failed(format!("cannot edit the file: {error}"));
    let file = temporary(|| tempfile::Builder::new().suffix(".toml").tempfile()).map_err(failed)?;
    std::fs::write(file.path(), &text).map_err(failed)?;
    let set = |name: &&str| std::env::var(name).ok().filter(|editor| !editor.trim().is_empty());
    let editor = ["VISUAL", "EDITOR"].iter().find_map(set).unwrap_or_else(|| "vi".to_owned());
    // The variable may contain arguments, so a shell splits it.
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "exec $0 \"$1\"", &editor]).arg(file.path());
    let edited = while_editing(|| command.status()).map_err(failed)?;
    if edited.signal() == Some(SignalKind::interrupt().as_raw_value()) {
        end(SignalKind::interrupt());
    }
    if !edited.success() {
        return Err(Failure::refused("the editor failed; nothing was changed"));
    }
    let applying = async {
        let definition = read_for(id, file.path())?;
        let preview = output.with_spinner("reading", preview(&store, &definition)).await?;
        if preview.result == "unchanged" {
            return print_changes(output, id, "", &preview);
        }
        if !yes {
            let shown = match &preview.changes[..] {
                [] => COUNTER_HAS_ANOTHER_PLAN.to_owned(),
                changes => changes_as_table(output, changes),
            };
            output::before_question(&shown);
            for warning in &preview.warnings {
                output.warn(warning);
            }
            output::ask("Apply this?")?;
        }
        let who = target.operator().await?;
        if yes || output.json() {
            return apply(&store, output, &who, &definition, Some(version)).await;
        }
        // The changes and the warnings were shown with the question.
        let applying = apply_definition(&store, &who, &definition, Some(version));
        let (applied, _) = output.with_spinner("applying", applying).await?;
        output::line(&format!("org {id} {}", output.strong(applied_name(&applied))))
    };
    match applying.await {
        Ok(()) => Ok(()),
        // What was typed is not lost, unless the command is interrupted.
        Err(failure) => match keep(file) {
            Ok(path) => Err(failure.with_detail(&format!(
                "The edited file is {0}\nWhen it is as it must be, `loyaltyctl org diff {0}` shows what it changes, and \
                 `loyaltyctl org apply {0}` applies it.",
                path.display()
            ))),
            Err(error) => Err(failure.with_detail(&format!("The edited file is lost: {error}"))),
        },
    }
}

/// A changed key as the audit may keep it: the keys of `[test_identifiers]` are identifiers.
fn without_identifier(key: String) -> String {
    const TABLE: &str = "test_identifiers";
    if key.starts_with(TABLE) { TABLE.to_owned() } else { key }
}

/// The warning about accounts that the org does not have any more, if it has customers.
fn unreachable(before: &Definition, after: &Definition) -> Option<String> {
    let removed: Vec<_> = before.accounts_removed_by(after).iter().map(ToString::to_string).collect();
    (!removed.is_empty()).then(|| {
        format!(
            "The org does not have {} any more. Customers cannot be reached by the identifiers that they have there, \
             until the org has it again.",
            removed.join(", ")
        )
    })
}

async fn list(store: &Store, output: &Output) -> Result<(), Failure> {
    let orgs = output.with_spinner("listing", store.orgs()).await?;
    let rows: Vec<_> = orgs.iter().map(|(id, name)| vec![id.to_string(), name.clone()]).collect();
    let json: Vec<_> = orgs.iter().map(|(id, name)| json!({"id": id, "name": name})).collect();
    output.print(&json!(json), &output.table(&["id", "name"], &rows))
}

fn read(file: &Path) -> Result<Definition, Failure> {
    let (name, text) = if file == Path::new("-") {
        ("standard input".to_owned(), io::read_to_string(io::stdin()))
    } else {
        (file.display().to_string(), std::fs::read_to_string(file))
    };
    let text = text.map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    let refused = |reason| Failure::refused(format!("{name}: {reason}"));
    let definition = org_file::parse(&text).map_err(refused)?;
    let problems = definition.check().err().map_or_else(Vec::new, |Invalid(problems)| problems);
    org_file::listed(&problems).map_err(refused)?;
    Ok(definition)
}

/// Reads the file of the org with that id.
pub fn read_for(id: OrgId, file: &Path) -> Result<Definition, Failure> {
    let definition = read(file)?;
    if definition.id == id {
        Ok(definition)
    } else {
        Err(Failure::refused(format!("the file is that of org {}, not of {id}", definition.id)))
    }
}

/// The value of the sequence that an org gives next once `plan` is applied. See
/// [`checked_start`].
pub async fn next_value(store: &Store, org: &Org, plan: &NumberingPlan) -> Result<u64, Failure> {
    Ok(checked_start(store, org, plan).await?.next)
}

/// Where the sequence goes on once a plan is applied.
pub struct PlannedStart {
    /// The value that the org gives next.
    pub next: u64,
    /// The counter as it is now.
    pub counter: Option<IssuedRange>,
    /// Whether the counter has the plan already.
    keeps_counter: bool,
}

/// Where the sequence of an org goes on once `plan` is applied. A plan that could repeat a number
/// is refused, whether it was issued or a customer brought it. For a plan of another format, that
/// reads the whole table.
pub async fn checked_start(store: &Store, org: &Org, plan: &NumberingPlan) -> Result<PlannedStart, Failure> {
    let start = planned_start(store, org, plan).await?;
    // With a higher offset alone, the plan gives nothing that it would not have given before.
    if start.counter.as_ref().is_none_or(|counter| counter.plan.format() != plan.format()) {
        let held = store.held_numbers(org, plan, start.next).await?;
        if held.count > 0 {
            return Err(Failure::refused(format!(
                "the plan could give {} of the customers' card numbers to other customers: {}",
                held.count,
                held.remedy(plan)
            )));
        }
    }
    Ok(start)
}

/// The same as [`checked_start`] without the numbers that customers brought.
pub async fn planned_start(store: &Store, org: &Org, plan: &NumberingPlan) -> Result<PlannedStart, Failure> {
    let counter = store.issued_card_numbers(org.id()).await?;
    let retired = store.retired_card_numbers(org.id()).await?;
    let next = transition(org.numbering_plan().ok(), counter.as_ref(), &retired, plan)
        .map_err(|error| Failure::refused(error.to_string()))?;
    let keeps_counter = next == Transition::Keep;
    let next = match (next, &counter) {
        (Transition::Start(started), _) => started.next,
        (Transition::Keep, Some(counter)) => counter.next,
        (Transition::Keep, None) => plan.offset(),
    };
    Ok(PlannedStart { next, counter, keeps_counter })
}

const fn applied_name(applied: &Applied) -> &'static str {
    match applied {
        Applied::Created => "created",
        Applied::Unchanged => "unchanged",
        Applied::Updated(_) => "updated",
    }
}

fn changes_as_table(output: &Output, changes: &[Change]) -> String {
    let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "-".to_owned(), Value::to_string);
    let row = |(key, before, after): &Change| vec![key.clone(), shown(before), shown(after)];
    let rows: Vec<_> = changes.iter().map(row).collect();
    output.table(&["key", "before", "after"], &rows)
}

/// A key, and its value before and after; `None` where the key is not set.
pub type Change = (String, Option<Value>, Option<Value>);

/// The keys whose values differ.
pub fn changes(before: &Definition, after: &Definition) -> Vec<Change> {
    let (before, after) = (flat(before), flat(after));
    let get = |all: &[(String, Value)], key: &str| all.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let mut keys: Vec<&String> = before.iter().chain(&after).map(|(key, _)| key).collect();
    keys.sort();
    keys.dedup();
    keys.into_iter()
        .map(|key| (key.clone(), get(&before, key), get(&after, key)))
        .filter(|(_, before, after)| before != after)
        .collect()
}

/// A definition as keys and values. A key within a section is preceded by the section's name,
/// except in `[config]`.
fn flat(definition: &Definition) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    if let Ok(Value::Object(keys)) = serde_json::to_value(definition) {
        flatten("", keys, &mut flat);
    }
    flat
}

fn flatten(prefix: &str, keys: serde_json::Map<String, Value>, flat: &mut Vec<(String, Value)>) {
    for (key, value) in keys {
        match value {
            Value::Object(section) if key == "config" => flatten("", section, flat),
            Value::Object(section) => flatten(&format!("{prefix}{key}."), section, flat),
            value => flat.push((format!("{prefix}{key}"), value)),
        }
    }
}

pub async fn find(store: &Store, output: &Output, id: OrgId) -> Result<Org, Failure> {
    output.with_spinner("reading", existing(store, id)).await
}

/// The org with that id.
pub async fn existing(store: &Store, id: OrgId) -> Result<Org, Failure> {
    store.org(id).await?.ok_or_else(|| no_such_org(id))
}

pub fn no_such_org(id: OrgId) -> Failure {
    Failure::not_found(format!("there is no org {id}"))
}

async fn export(store: &Store, output: &Output, id: OrgId) -> Result<(), Failure> {
    let definition = find(store, output, id).await?.definition;
    let written = |error: serde_json::Error| Failure::failed(error.to_string());
    let file = org_file::write(&definition).map_err(written)?;
    output.print(&serde_json::to_value(&definition).map_err(written)?, file.trim_end())
}

async fn show(store: &Store, output: &Output, id: OrgId) -> Result<(), Failure> {
    let org = find(store, output, id).await?;
    let issued = store.issued_card_numbers(id).await?;
    let usage = issued.map(|issued| {
        let used = if issued.first < issued.next { issued.plan.percent_used(issued.next - 1) } else { 0.0 };
        json!({
            "issued": issued.next - issued.first,
            "left": issued.plan.end() - issued.next,
            "percent_used": used,
        })
    });
    let mut rows: Vec<_> = flat(&org.definition)
        .into_iter()
        .map(|(key, value)| vec![key, value.as_str().map_or_else(|| value.to_string(), str::to_owned)])
        .collect();
    if let Some(usage) = &usage {
        for key in ["issued", "left", "percent_used"] {
            rows.push(vec![format!("card numbers {}", key.replace('_', " ")), usage[key].to_string()]);
        }
    }
    let join = if org.customers_join {
        "across sources".to_owned()
    } else {
        format!("not before `loyaltyctl table upgrade --org {id}`")
    };
    rows.push(vec!["customers join".to_owned(), join]);
    let (remarks, words) = (org.definition.remarks(), org_words::sentences(&org));
    let json = json!({
        "definition": org.definition, "card_numbers": usage, "customers_join": org.customers_join,
        "remarks": remarks, "in_words": words,
    });
    let words: Vec<_> = words.iter().map(|sentence| format!("- {}", printable(sentence))).collect();
    output.print(&json, &format!("{}\n\n{}", output.table(&["key", "value"], &rows), words.join("\n")))?;
    for remark in &remarks {
        output.warn(remark);
    }
    Ok(())
}

async fn replace_webhook_secret(target: &Target, output: &Output, id: OrgId) -> Result<(), Failure> {
    let store = target.store().await?;
    let org = find(&store, output, id).await?;
    let secret = WebhookSecret::generate(&mut os_rng());
    let text = format!(
        "{}\nIt is shown this once. The receiver of org {id}'s messages checks their signatures with it. A secret from \
         before signs beside it for a day. A message that is being sent now, for some seconds, has its signature alone: \
         change the receiver after that, or let it accept both.",
        output.strong(&secret.to_text())
    );
    let printed = output.print(&json!({"secret": secret.to_text()}), &text);
    printed.map_err(|failure| failure.without_effect("nothing was changed"))?;
    let act = async |_: &mut AuditEntry| {
        let replacing = store.replace_webhook_secret(id, secret, Utc::now());
        if output.with_spinner("writing", replacing).await? {
            Ok(())
        } else {
            Err(Failure::not_found(format!("there is no org {id}")))
        }
    };
    let who = target.operator().await?;
    audit::record(&store, id, &who, "org webhook-secret", json!({}), act).await.map_err(|failure| {
        failure.with_detail("Whether the secret above signs is not certain: run the command again.")
    })?;
    if org.definition.delivery.is_none_or(|delivery| delivery.webhook.is_none()) {
        output.warn("the org's file has no [delivery.webhook] yet, so nothing is signed");
    }
    Ok(())
}

/// What an operator does about a failure.
fn advice(reason: FailureReason, id: OrgId, provider: Option<Provider>) -> String {
    match reason {
        FailureReason::NotConfigured => format!(
            "The org's file must name a provider for the channel in [delivery], and a webhook needs `loyaltyctl org \
             webhook-secret {id}`"
        ),
        FailureReason::NotVerified => {
            "The account is in the sandbox of SES or of End User Messaging: verify the address there, or leave the \
             sandbox"
                .to_owned()
        }
        FailureReason::NotPermitted => {
            "The AWS identity of this command may not send; the delivery function has a role of its own".to_owned()
        }
        FailureReason::PrivateAddress => "A webhook must have a public address".to_owned(),
        FailureReason::Gateway(_) => "The gateway at [delivery.webhook] refused it; its own log says why".to_owned(),
        FailureReason::Unreachable | FailureReason::TimedOut if provider == Some(Provider::Webhook) => {
            "The url of [delivery.webhook] in the org's file does not answer; docs/webhook.md says what it must do"
                .to_owned()
        }
        _ => "README.md, \"Going live\", says what each provider needs".to_owned(),
    }
}

async fn test_delivery(
    target: &Target,
    output: &Output,
    id: OrgId,
    channel_type: ChannelType,
    to: &str,
    scope: Scope,
) -> Result<(), Failure> {
    let store = target.store().await?;
    let org = find(&store, output, id).await?;
    let address = org
        .identifier(channel_type.identifier(), to)
        .map_err(|_| Failure::usage(format!("`{to}` is no address for {channel_type}")))?;
    if address.name() == IdentifierName::Mobile && !org.allows_country_of(address.value()) {
        output.warn("CONF_OTP_ALLOWED_COUNTRY_CODES does not have that mobile's country, so no OTP would be sent there");
    }
    let provider = org.definition.delivery.as_ref().and_then(|delivery| delivery.provider(channel_type));
    let needs = Needs { private_webhooks: target.has_plain_endpoint(), aws: provider == Some(Provider::Aws) };
    let deliverer = delivery::deliverer(target, store.clone(), Delivery::AsConfigured, needs).await?;
    let channel = Channel { channel_type, value: address.value().to_owned() };
    let code = Code::generate(org.config().otp_type, org.otp_length(), &mut os_rng());
    let act = async |entry: &mut AuditEntry| {
        let sending = deliverer.send_one(id, scope, &channel, &code);
        let ended = output.with_spinner("sending", sending).await?;
        entry.detail["outcome"] = ended.as_ref().map(|ended| ended.outcome.name()).into();
        Ok(ended)
    };
    let detail = json!({"channel": channel_type, "scope": scope});
    let who = target.operator().await?;
    let Some(ended) = audit::record(&store, id, &who, "org test-delivery", detail, act).await? else {
        return Err(Failure::not_found(format!("there is no org {id}")));
    };
    let milliseconds = ended.latency.num_milliseconds();
    match &ended.outcome {
        Outcome::Sent { provider_id } => output.print(
            &json!({
                "channel": channel_type, "outcome": ended.outcome.name(), "provider_id": provider_id, "ms": milliseconds,
            }),
            &format!("{channel_type} was taken by the provider in {milliseconds} ms, as {}", printable(provider_id)),
        ),
        Outcome::Failed(reason) => Err(Failure::refused(format!(
            "{channel_type} was not sent: {reason}{}\n{}",
            if ended.provider_code.is_empty() { String::new() } else { format!(" ({})", ended.provider_code) },
            advice(*reason, id, provider)
        ))),
        other => Err(Failure::refused(format!("{channel_type} was not sent: {}", other.name()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::org_file::parse;

    #[test]
    fn changes_name_the_key_and_both_values() {
        let before = parse(include_str!("demo.toml")).unwrap();
        let mut after = before.clone();
        after.config.otp_length = 6;
        after.sources.clear();
        let keys: Vec<_> = changes(&before, &after).into_iter().map(|(key, ..)| key).collect();
        assert_eq!(keys, ["CONF_OTP_LENGTH", "sources.WECHAT"]);
    }
}
