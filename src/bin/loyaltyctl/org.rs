//! `loyaltyctl org`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use loyalty_codes::{
    model::{
        card_number::new_permutation_key,
        customer::{Source, UserId},
        org::{CONFIG_KEYS, DEFINITION_KEYS, Definition, OrgId},
    },
    secret::os_rng,
    store::{Applied, Store},
};
use serde_json::{Value, json};

use crate::{failure::Failure, output::Output};

#[derive(Subcommand)]
pub enum Command {
    /// Create an org, or change it to what a file says
    ///
    /// Checks everything first and says what changed. A numbering plan that could hand out a card number twice
    /// is refused. Running processes follow within a minute.
    Apply { file: PathBuf },
    /// Show an org's configuration, and how much of its card number range is used
    Show { id: u32 },
    /// List all orgs
    List,
}

/// The first customer of a new org.
pub const FIRST_USER: UserId = UserId(1);

pub async fn run(command: Command, store: &Store, output: &Output) -> Result<(), Failure> {
    match command {
        Command::Apply { file } => {
            let definition = read(&file)?;
            let applying = store.apply_org(&definition, new_permutation_key(&mut os_rng()), FIRST_USER);
            let applied = output.while_waiting("applying", applying).await?;
            print_applied(output, &definition, &applied);
        }
        Command::Show { id } => show(store, output, OrgId(id)).await?,
        Command::List => {
            let orgs = output.while_waiting("listing", store.orgs()).await?;
            let rows: Vec<_> = orgs.iter().map(|(id, name)| vec![id.to_string(), name.clone()]).collect();
            let json: Vec<_> = orgs.iter().map(|(id, name)| json!({"id": id, "name": name})).collect();
            output.print(&json!(json), &output.table(&["id", "name"], &rows));
        }
    }
    Ok(())
}

fn read(file: &Path) -> Result<Definition, Failure> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| Failure::usage(format!("{name}: {error}")))?;
    parse(&text).map_err(|reason| Failure::refused(format!("{name}: {reason}")))
}

/// An org's file. Unknown keys are refused, all at once, each with what was probably meant.
pub fn parse(text: &str) -> Result<Definition, String> {
    let document: toml::Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let section = |name| document.get(name).and_then(toml::Value::as_table);
    let sources: Vec<&str> = Source::ALL.iter().map(|source| source.as_str()).collect();
    let mut problems = unknown_keys(&document, DEFINITION_KEYS, "the file");
    problems
        .extend(section("sources").into_iter().flat_map(|keys| unknown_keys(keys, &sources, "[sources]")));
    problems
        .extend(section("config").into_iter().flat_map(|keys| unknown_keys(keys, CONFIG_KEYS, "[config]")));
    if !problems.is_empty() {
        return Err(format!("\n  - {}", problems.join("\n  - ")));
    }
    toml::from_str(text).map_err(|error| format!("\n{error}"))
}

fn unknown_keys(found: &toml::Table, known: &[&str], place: &str) -> Vec<String> {
    let unknown = found.keys().filter(|key| !known.contains(&key.as_str()));
    unknown
        .map(|key| {
            let likely = known
                .iter()
                .map(|name| (strsim::jaro_winkler(&key.to_uppercase(), &name.to_uppercase()), name))
                .filter(|(likeness, _)| *likeness > 0.8)
                .max_by(|a, b| a.0.total_cmp(&b.0));
            let hint = likely.map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"));
            format!("unknown key `{key}` in {place}{hint}")
        })
        .collect()
}

fn print_applied(output: &Output, definition: &Definition, applied: &Applied) {
    let id = definition.id;
    let (result, changes) = match applied {
        Applied::Created => ("created", Vec::new()),
        Applied::Unchanged => ("unchanged", Vec::new()),
        Applied::Updated(before) => ("updated", changes(before, definition)),
    };
    let json: Vec<_> = changes
        .iter()
        .map(|(key, before, after)| json!({"key": key, "before": before, "after": after}))
        .collect();
    let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "-".to_owned(), Value::to_string);
    let rows: Vec<_> =
        changes.iter().map(|(key, before, after)| vec![key.clone(), shown(before), shown(after)]).collect();
    let mut text = format!("org {id} {}", output.strong(result));
    if !rows.is_empty() {
        text = format!("{text}\n{}", output.table(&["key", "before", "after"], &rows));
    }
    output.print(&json!({"id": id, "result": result, "changes": json}), &text);
}

type Change = (String, Option<Value>, Option<Value>);

/// The keys whose values differ.
fn changes(before: &Definition, after: &Definition) -> Vec<Change> {
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

/// A definition as keys and values, without sections.
fn flat(definition: &Definition) -> Vec<(String, Value)> {
    let Ok(Value::Object(members)) = serde_json::to_value(definition) else { return Vec::new() };
    members
        .into_iter()
        .flat_map(|(key, value)| match value {
            Value::Object(section) if key == "config" => section.into_iter().collect(),
            Value::Object(section) => section.into_iter().map(|(k, v)| (format!("{key}.{k}"), v)).collect(),
            value => vec![(key, value)],
        })
        .collect()
}

async fn show(store: &Store, output: &Output, id: OrgId) -> Result<(), Failure> {
    let org = output.while_waiting("reading", store.org(id)).await?;
    let org = org.ok_or_else(|| Failure::not_found(format!("there is no org {id}")))?;
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
    let json = json!({"definition": org.definition, "card_numbers": usage});
    output.print(&json, &output.table(&["key", "value"], &rows));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_refused_with_what_was_meant() {
        let text = include_str!("demo.toml")
            .replace("timezone", "time_zone")
            .replace("WECHAT =", "WECHATT =")
            .replace("CONF_CARD_NUMBER_LENGTH", "CONF_CARD_NUMBER_LENGHT");
        let reason = parse(&text).unwrap_err();
        let config = parse(&include_str!("demo.toml").replace("[config]", "[Config]")).unwrap_err();
        assert!(config.contains("did you mean `config`"), "{config}");
        let source = parse(&include_str!("demo.toml").replace("WECHAT =", "wechat =")).unwrap_err();
        assert!(source.contains("did you mean `WECHAT`"), "{source}");
        for hint in
            ["did you mean `timezone`", "did you mean `WECHAT`", "did you mean `CONF_CARD_NUMBER_LENGTH`"]
        {
            assert!(reason.contains(hint), "{reason}");
        }
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_line() {
        let reason = parse(&include_str!("demo.toml").replace("966", "\"966\"")).unwrap_err();
        assert!(reason.contains("line 2") && reason.contains("invalid type"), "{reason}");
    }

    #[test]
    fn the_demo_orgs_file_is_valid() {
        assert_eq!(parse(include_str!("demo.toml")).unwrap().check(), Ok(()));
    }

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
