//! The Registration Configuration page: every key of an org's `[config]`, what a change of it would
//! do, and applying it.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Redirect},
};
use loyalty_codes::{
    model::{
        card_number::NumberingPlan,
        config_keys::{CONFIG, ConfigKey, Group, Kind, key_of_problem},
        customer::Account,
        message::ChannelType,
        org::{Config, Definition, Invalid, Org, OrgId},
    },
    store::{Applied, StoredOrg},
};
use serde_json::{Map, Value, json};

use super::{
    Console,
    form::Form,
    org_of, org_path,
    page::{Notice, Page, Refusal, Shell, ShownProblem, page, page_with},
};
use crate::{
    failure::Failure,
    numbers::Preview,
    org::{self, Change},
    org_file,
};

/// Something that is wrong with what a form says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Problem {
    /// The key that it is about.
    key: Option<&'static str>,
    text: String,
}

impl Problem {
    fn of(text: String) -> Self {
        Self { key: key_of_problem(&text).map(|key| key.name), text }
    }
}

/// A field of the form.
struct Field {
    key: &'static ConfigKey,
    input: Input,
    default: String,
    /// What the org has now.
    now: String,
    changed: bool,
    errors: Vec<String>,
}

impl Field {
    /// The ids of the texts that describe the input.
    fn described_by(&self) -> String {
        let name = self.key.name;
        let error = if self.errors.is_empty() { String::new() } else { format!("{name}-error ") };
        format!("{error}{name}-help")
    }

    /// The numbers that the key takes, in words.
    fn range(&self) -> Option<String> {
        match self.key.kind {
            Kind::Number { min, max, .. } if max == i64::MAX - 1 => Some(format!("{min} or more")),
            Kind::Number { min, max, .. } => Some(format!("{min} to {max}")),
            _ => None,
        }
    }

    /// The id of the first input, to which a problem leads.
    fn first_input(&self) -> String {
        match &self.input {
            Input::Boxes(boxes) if !boxes.is_empty() => format!("{}-0", self.key.name),
            _ => self.key.name.to_owned(),
        }
    }
}

enum Input {
    Switch(bool),
    Number { value: String, unit: &'static str },
    Text(String),
    Choice(Vec<Choice>),
    Boxes(Vec<Choice>),
}

struct Choice {
    value: String,
    text: String,
    chosen: bool,
}

struct FieldGroup {
    name: &'static str,
    fields: Vec<Field>,
}

/// What applying a form would change.
struct ChangePreview {
    /// `None` while something is to correct.
    changes: Option<Vec<ShownChange>>,
    warnings: Vec<String>,
    /// The next numbers, or why there are none.
    numbers: Result<Preview, String>,
}

struct ShownChange {
    key: String,
    before: String,
    after: String,
    meaning: &'static str,
    effect: &'static str,
}

#[derive(Template)]
#[template(path = "registration.html")]
struct RegistrationPage {
    shell: Shell,
    id: OrgId,
    version: u64,
    groups: Vec<FieldGroup>,
    problems: Vec<ShownProblem>,
    preview: ChangePreview,
    file: String,
    test_identifiers: usize,
    remarks: Vec<String>,
}

#[derive(Template)]
#[template(path = "preview.html")]
struct PreviewFragment {
    preview: ChangePreview,
    problems: Vec<ShownProblem>,
}

#[derive(Template)]
#[template(path = "review.html")]
struct ReviewPage {
    shell: Shell,
    id: OrgId,
    preview: ChangePreview,
    fields: Vec<(String, String)>,
}

/// An org as it is stored, and what a form says that it should be.
struct Draft {
    org: Org,
    version: u64,
    definition: Definition,
    problems: Vec<Problem>,
    form: Option<Form>,
    /// The value of the sequence that the org would give next; `None` if it would have no plan.
    next: Option<u64>,
}

/// Whether a preview looks for numbers that customers brought, which reads the whole table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Check {
    Quick,
    Whole,
}

impl Draft {
    async fn stored(console: &Console, id: OrgId) -> Result<Self, Failure> {
        let found = console.store.stored_org(id).await?;
        let StoredOrg { org, version, .. } = found.ok_or_else(|| org::no_such_org(id))?;
        let definition = org.definition.clone();
        let current = console.store.issued_card_numbers(id).await?;
        let next = current.map(|current| current.next);
        Ok(Self { org, version, definition, problems: Vec::new(), form: None, next })
    }

    /// The org with the `[config]` of a form.
    async fn of_form(console: &Console, id: OrgId, form: Form, check: Check) -> Result<Self, Failure> {
        let mut draft = Self::stored(console, id).await?;
        let (config, mut problems) = read_config(&form);
        match config {
            Ok(config) => draft.definition.config = config,
            Err(problem) => problems.push(problem),
        }
        let found = draft.definition.check().err().map_or_else(Vec::new, |Invalid(problems)| problems);
        let unreadable: Vec<_> = problems.iter().filter_map(|problem| problem.key).collect();
        let found = found.into_iter().map(Problem::of);
        problems.extend(found.filter(|problem| problem.key.is_none_or(|key| !unreadable.contains(&key))));
        draft.problems = problems;
        draft.form = Some(form);
        if draft.problems.is_empty() {
            draft.plan(console, check).await?;
        }
        Ok(draft)
    }

    /// Finds the number that the org would give next, or why the plan is refused.
    async fn plan(&mut self, console: &Console, check: Check) -> Result<(), Failure> {
        self.next = None;
        let Ok(plan) = NumberingPlan::try_from(&self.definition.config.card_numbers) else { return Ok(()) };
        let next = match check {
            Check::Quick => {
                org::planned_start(&console.store, &self.org, &plan).await.map(|start| start.next)
            }
            Check::Whole => org::next_value(&console.store, &self.org, &plan).await,
        };
        match next {
            Ok(next) => self.next = Some(next),
            Err(failure) if failure.is_refusal() => self.problems.push(Problem::of(failure.to_string())),
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    fn change_preview(&self) -> ChangePreview {
        if !self.problems.is_empty() {
            let numbers = Err("They are shown when nothing is to correct.".to_owned());
            return ChangePreview { changes: None, warnings: Vec::new(), numbers };
        }
        let changes = org::changes(&self.org.definition, &self.definition);
        let plan = NumberingPlan::try_from(&self.definition.config.card_numbers);
        let numbers = match (plan, self.next) {
            (Ok(plan), Some(next)) => Ok(Preview::new(&plan, next, &self.org.permutation_key)),
            _ => Err("The org has no numbering plan: CONF_CARD_NUMBER_LENGTH is empty.".to_owned()),
        };
        let changes = Some(changes.iter().map(shown_change).collect());
        ChangePreview { changes, warnings: self.definition.warnings(), numbers }
    }

    fn groups(&self) -> Vec<FieldGroup> {
        let stored = config_values(&self.org.definition.config);
        let wanted = config_values(&self.definition.config);
        let field = |key: &'static ConfigKey| Field {
            key,
            input: self.input(key, &wanted[key.name]),
            default: shown(&key.default_value()),
            now: shown(&stored[key.name]),
            changed: stored[key.name] != wanted[key.name],
            errors: self.errors(key.name),
        };
        let of_group = |group: &Group| CONFIG.iter().filter(|key| key.group == *group).map(field).collect();
        Group::ALL.iter().map(|group| FieldGroup { name: group.as_str(), fields: of_group(group) }).collect()
    }

    fn errors(&self, key: &str) -> Vec<String> {
        let own = self.problems.iter().filter(|problem| problem.key == Some(key));
        own.map(|problem| problem.text.clone()).collect()
    }

    fn input(&self, key: &'static ConfigKey, value: &Value) -> Input {
        // What was typed is shown again, even if it cannot be read.
        let typed = self.form.as_ref().map(|form| form.text(key.name).to_owned());
        let text = || typed.clone().unwrap_or_else(|| plain(value));
        match key.kind {
            Kind::Switch => Input::Switch(value.as_bool().unwrap_or_default()),
            Kind::Number { unit, .. } => Input::Number { value: text(), unit },
            Kind::Text | Kind::CountryCodes => Input::Text(text()),
            Kind::Choice(values) => Input::Choice(choices(key, values, value)),
            Kind::Channels => {
                let channels = ChannelType::ALL.iter().map(|channel| channel.as_str().to_owned());
                Input::Boxes(boxes(channels.collect(), value))
            }
            Kind::Accounts => {
                let mut accounts: Vec<_> = self.org.accounts().map(|account| account.to_string()).collect();
                // An account that the org does not have any more can be unticked.
                let others = self.definition.config.card_number_accounts.iter().map(ToString::to_string);
                for other in others {
                    if !accounts.contains(&other) {
                        accounts.push(other);
                    }
                }
                Input::Boxes(boxes(accounts, value))
            }
        }
    }

    fn shown_problems(&self, groups: &[FieldGroup]) -> Vec<ShownProblem> {
        let input = |name: &str| {
            let mut fields = groups.iter().flat_map(|group| &group.fields);
            fields.find(|field| field.key.name == name).map(Field::first_input)
        };
        let shown = |problem: &Problem| ShownProblem {
            input: problem.key.and_then(input),
            text: problem.text.clone(),
        };
        self.problems.iter().map(shown).collect()
    }

    fn page(&self, console: &Console, status: StatusCode, more: Vec<String>) -> Page {
        let groups = self.groups();
        let mut problems: Vec<_> = more.into_iter().map(|text| ShownProblem { input: None, text }).collect();
        problems.extend(self.shown_problems(&groups));
        let mut public = self.definition.clone();
        public.test_identifiers.clear();
        page_with(
            status,
            &RegistrationPage {
                shell: Shell::of_org(console, &self.org, "registration", "Registration Configuration"),
                id: self.org.id(),
                version: self.version,
                problems,
                groups,
                preview: self.change_preview(),
                file: written(&public)?,
                test_identifiers: self.definition.test_identifiers.len(),
                remarks: self.org.definition.remarks(),
            },
        )
    }
}

/// The keys of a `[config]` with their values.
fn config_values(config: &Config) -> Value {
    serde_json::to_value(config).unwrap_or_default()
}

/// A value as a field has it.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// A value as a page says it.
fn shown(value: &Value) -> String {
    match value {
        Value::Bool(true) => "on".to_owned(),
        Value::Bool(false) => "off".to_owned(),
        value if plain(value).is_empty() => "none".to_owned(),
        value => plain(value),
    }
}

fn shown_change((key, before, after): &Change) -> ShownChange {
    let value = |value: &Option<Value>| value.as_ref().map_or_else(|| "none".to_owned(), shown);
    let known = CONFIG.iter().find(|known| known.name == key);
    ShownChange {
        key: key.clone(),
        before: value(before),
        after: value(after),
        meaning: known.map_or("", |key| key.meaning),
        effect: known.map_or("", |key| key.effect),
    }
}

fn choices(key: &ConfigKey, values: &[(&'static str, &'static str)], value: &Value) -> Vec<Choice> {
    let chosen = value.as_str().unwrap_or_default();
    let unset = key.default_value().is_null().then(|| Choice {
        value: String::new(),
        text: format!("not set, which is {}", values[0].0),
        chosen: chosen.is_empty(),
    });
    let set = values.iter().map(|(value, meaning)| Choice {
        value: (*value).to_owned(),
        text: format!("{value}: {meaning}"),
        chosen: *value == chosen,
    });
    unset.into_iter().chain(set).collect()
}

fn boxes(values: Vec<String>, ticked: &Value) -> Vec<Choice> {
    let is_ticked = |value: &String| {
        ticked.as_array().is_some_and(|ticked| ticked.iter().any(|other| other.as_str() == Some(value)))
    };
    let choice = |value: String| Choice { chosen: is_ticked(&value), text: value.clone(), value };
    values.into_iter().map(choice).collect()
}

/// The `[config]` of a form, and the values of it that cannot be read. A key without a value gets
/// its default.
fn read_config(form: &Form) -> (Result<Config, Problem>, Vec<Problem>) {
    let mut config = Map::new();
    let mut problems = Vec::new();
    for key in CONFIG {
        match read_value(key, form) {
            Ok(Some(value)) => {
                config.insert(key.name.to_owned(), value);
            }
            Ok(None) => {}
            Err(text) => problems.push(Problem { key: Some(key.name), text: format!("{} {text}", key.name) }),
        }
    }
    let read = serde_json::from_value(Value::Object(config));
    (read.map_err(|error| Problem::of(error.to_string())), problems)
}

fn read_value(key: &ConfigKey, form: &Form) -> Result<Option<Value>, String> {
    let text = form.text(key.name);
    let trimmed = text.trim();
    let all = || form.all(key.name).map(str::to_owned).collect::<Vec<_>>();
    Ok(match key.kind {
        Kind::Switch => Some(json!(form.is_ticked(key.name))),
        Kind::Number { .. } if trimmed.is_empty() => None,
        Kind::Number { .. } => match trimmed.parse::<i64>() {
            Ok(number) => Some(json!(number)),
            Err(_) => return Err(format!("is `{trimmed}`; it must be a whole number")),
        },
        Kind::Choice(_) | Kind::Text if text.is_empty() => None,
        Kind::Choice(values) if values.iter().all(|(value, _)| *value != text) => {
            return Err(format!("is `{text}`, which it cannot be"));
        }
        Kind::Choice(_) | Kind::Text => Some(json!(text)),
        Kind::CountryCodes => {
            let codes = text.split([',', ' ']).map(str::trim).filter(|code| !code.is_empty());
            Some(json!(codes.collect::<Vec<_>>()))
        }
        Kind::Channels => match all().iter().find(|name| ChannelType::parse(name).is_none()) {
            Some(unknown) => return Err(format!("names `{unknown}`, which is no channel")),
            None => Some(json!(all())),
        },
        Kind::Accounts => {
            let accounts = json!(all());
            let read = serde_json::from_value::<Vec<Account>>(accounts.clone());
            match read {
                Ok(_) => Some(accounts),
                Err(error) => return Err(format!("cannot be read: {error}")),
            }
        }
    })
}

fn written(definition: &Definition) -> Result<String, Failure> {
    org_file::write(definition).map_err(|error| Failure::failed(error.to_string()))
}

/// `GET …/registration`: the form, as the org is.
pub async fn show(State(console): State<Arc<Console>>, Path(id): Path<u32>) -> Page {
    Draft::stored(&console, OrgId(id)).await?.page(&console, StatusCode::OK, Vec::new())
}

/// `GET …/org.toml`: the org's file.
pub async fn download(State(console): State<Arc<Console>>, Path(id): Path<u32>) -> Page {
    let org = org_of(&console, id).await?;
    let disposition = format!("attachment; filename=\"org-{id}.toml\"");
    let headers =
        [(header::CONTENT_TYPE, "application/toml".to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    Ok((headers, written(&org.definition)?).into_response())
}

/// `POST …/registration/preview`: what the form would change, as a part of the page.
pub async fn preview(
    State(console): State<Arc<Console>>,
    Path(id): Path<u32>,
    Extension(form): Extension<Form>,
) -> Page {
    let draft = Draft::of_form(&console, OrgId(id), form, Check::Quick).await?;
    let problems = draft.shown_problems(&draft.groups());
    page(&PreviewFragment { preview: draft.change_preview(), problems })
}

/// `POST …/registration`: previews, reviews, edits again or applies what the form says.
pub async fn submit(
    State(console): State<Arc<Console>>,
    Path(id): Path<u32>,
    Extension(form): Extension<Form>,
) -> Page {
    let id = OrgId(id);
    let action = form.text("action").to_owned();
    // Applying looks for the numbers of customers by itself.
    let check = if action == "review" { Check::Whole } else { Check::Quick };
    let read_version = form.text("version").parse::<u64>().ok();
    let mut draft = Draft::of_form(&console, id, form, check).await?;
    if !draft.problems.is_empty() {
        // The version that the editor has seen, so that others' changes are not overwritten later.
        draft.version = read_version.unwrap_or(draft.version);
        return draft.page(&console, StatusCode::UNPROCESSABLE_ENTITY, Vec::new());
    }
    if matches!(action.as_str(), "review" | "apply") && read_version != Some(draft.version) {
        return draft.page(&console, StatusCode::CONFLICT, vec![OUTDATED.to_owned()]);
    }
    match action.as_str() {
        "review" => review(&console, &draft),
        "apply" => {
            let version = draft.version;
            match org::apply_definition(&console.store, &console.who, &draft.definition, Some(version)).await
            {
                Ok((applied, warnings)) => {
                    announce(&console, id, &applied, warnings);
                    Ok(Redirect::to(&org_path(id, "registration")).into_response())
                }
                Err(failure) if failure.is_refusal() => {
                    let now = Draft::stored(&console, id).await?;
                    (draft.org, draft.version) = (now.org, now.version);
                    draft.problems.push(Problem::of(failure.to_string()));
                    draft.page(&console, StatusCode::CONFLICT, Vec::new())
                }
                Err(failure) => Err(failure.into()),
            }
        }
        "preview" | "edit" => {
            // The version that the editor has seen, so that what others changed is not overwritten.
            draft.version = read_version.unwrap_or(draft.version);
            draft.page(&console, StatusCode::OK, Vec::new())
        }
        _ => Err(Refusal::new(StatusCode::BAD_REQUEST, "Not valid", "The form says nothing to do.")),
    }
}

const OUTDATED: &str = "Somebody changed the org after you opened this page, and nothing was applied. The fields have \
                        your values, and what differs from the org as it is now is marked: review it again.";

fn review(console: &Console, draft: &Draft) -> Page {
    let preview = draft.change_preview();
    if preview.changes.as_ref().is_some_and(Vec::is_empty) {
        console.notify(Notice::done("Nothing differs from the org as it is."));
        return draft.page(console, StatusCode::OK, Vec::new());
    }
    let form = draft.form.as_ref();
    let mut fields =
        form.map_or_else(Vec::new, |form| form.fields(|name| CONFIG.iter().any(|key| key.name == name)));
    fields.push(("version".to_owned(), draft.version.to_string()));
    let shell = Shell::of_org(console, &draft.org, "registration", "Review the changes");
    page(&ReviewPage { shell, id: draft.org.id(), preview, fields })
}

fn announce(console: &Console, id: OrgId, applied: &Applied, warnings: Vec<String>) {
    console.notify(Notice::done(match applied {
        Applied::Unchanged => format!("Org {id} was unchanged."),
        Applied::Created | Applied::Updated(_) => {
            format!("Org {id} was changed. Every process uses it within a minute.")
        }
    }));
    for warning in warnings {
        console.notify(Notice::warning(warning));
    }
}
