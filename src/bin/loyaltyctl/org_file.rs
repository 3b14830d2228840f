//! Reads an org's file, with all errors in its keys and values, and writes one from a definition.

use std::{fmt::Write as _, ops::Range};

use loyalty_codes::model::{
    customer::Source,
    delivery::{AWS_KEYS, TEMPLATE_KEYS, TemplateScope, WEBHOOK_KEYS},
    message::ChannelType,
    org::{CONFIG_KEYS, DEFINITION_KEYS, Definition},
};
use serde_json::Value as Json;
use toml::{
    Table, Value,
    de::{DeTable, DeValue, Error},
};

use crate::output::{escape, json_escape};

/// The keys that a section of a file may have.
enum Keys {
    /// These keys, some of which may be sections themselves.
    Known(Vec<&'static str>),
    /// Keys that the author chooses.
    Any,
}

/// The keys of the section at `path`. `None` if there is a value and no section.
fn section(path: &[&str]) -> Option<Keys> {
    let known = |keys: &[&'static str]| Some(Keys::Known(keys.to_vec()));
    match path {
        [] => known(DEFINITION_KEYS),
        ["config"] => known(CONFIG_KEYS),
        ["sources"] => Some(Keys::Known(Source::ALL.iter().map(|source| source.as_str()).collect())),
        ["templates"] => Some(Keys::Known(TemplateScope::names().collect())),
        ["templates", _] => known(TEMPLATE_KEYS),
        ["delivery"] => {
            let channels = ChannelType::ALL.iter().map(|channel| channel.as_str());
            Some(Keys::Known(channels.chain(["aws", "webhook"]).collect()))
        }
        ["delivery", "aws"] => known(AWS_KEYS),
        ["delivery", "webhook"] => known(WEBHOOK_KEYS),
        ["test_identifiers"] => Some(Keys::Any),
        _ => None,
    }
}

/// Reads an org's file. Unknown keys and values of the wrong type are reported all at once, each
/// with its line and with what to write instead. [`Definition::check`] checks the values in
/// combination.
pub fn parse(text: &str) -> Result<Definition, String> {
    let lines = DeTable::parse(text).map_err(|error| error.to_string())?;
    let line_at = |position: usize| text[..position].matches('\n').count() + 1;
    let mut too_large = Vec::new();
    find_too_large(lines.get_ref(), &mut |key, number| {
        let (line, number) = (line_at(number.start), &text[number]);
        too_large.push(format!("line {line}: {key} is {number}, which has more than 64 bits"));
    });
    listed(&too_large)?;
    let mut document: Table = toml::from_str(text).map_err(|error| error.to_string())?;
    let line = |path: &[&str]| {
        let (key, sections) = path.split_last()?;
        let mut table = lines.get_ref();
        for section in sections {
            table = table.get(*section)?.get_ref().as_table()?;
        }
        let (key, _) = table.get_key_value(*key)?;
        Some(line_at(key.span().start))
    };
    let mut problems = Vec::new();
    let mut found = |path: &[&str], problem: String| {
        problems.push(match line(path) {
            Some(line) => format!("line {line}: {problem}"),
            None => problem,
        });
    };
    for key in DEFINITION_KEYS {
        if !document.contains_key(*key) && is_required(key) {
            found(&[key], format!("{key} is missing; write {}", example(key)));
        }
    }
    check_section(&[], &mut document, &mut found);
    listed(&problems)?;
    document.try_into().map_err(|error: Error| error.to_string())
}

/// The problems as a list. Succeeds if there are none.
pub fn listed(problems: &[String]) -> Result<(), String> {
    if problems.is_empty() { Ok(()) } else { Err(format!("\n  - {}", problems.join("\n  - "))) }
}

/// Calls `found` with the key and the position of each integer that has more than 64 bits. The
/// error that the parser has for it names no key.
fn find_too_large(table: &DeTable<'_>, found: &mut impl FnMut(&str, Range<usize>)) {
    for (key, value) in table {
        let values = match value.get_ref() {
            DeValue::Table(table) => {
                find_too_large(table, found);
                continue;
            }
            DeValue::Array(values) => values.iter().collect(),
            _ => vec![value],
        };
        for value in values {
            if let DeValue::Integer(number) = value.get_ref()
                && i64::from_str_radix(number.as_str(), number.radix()).is_err()
            {
                found(key.get_ref(), value.span());
            }
        }
    }
}

/// Checks each key and value of the section at `path`, and of the sections in it.
fn check_section(path: &[&str], table: &mut Table, found: &mut impl FnMut(&[&str], String)) {
    let Some(keys) = section(path) else { return };
    let name = if path.is_empty() { "the file".to_owned() } else { format!("[{}]", path.join(".")) };
    for (key, value) in table {
        let place = [path, &[key]].concat();
        if let Keys::Known(known) = &keys
            && !known.contains(&key.as_str())
        {
            found(&place, unknown(key, known, &name));
        } else if section(&place).is_none() {
            if let Err(problem) = check_value(path, key, value) {
                found(&place, problem);
            }
        } else if let Value::Table(section) = value {
            check_section(&place, section, found);
        } else {
            found(&place, format!("{key} is a section; write it as [{}]", place.join(".")));
        }
    }
}

fn unknown(key: &str, known: &[&str], place: &str) -> String {
    let likely = known
        .iter()
        .map(|name| (strsim::jaro_winkler(&key.to_uppercase(), &name.to_uppercase()), name))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let hint = likely.map_or_else(String::new, |(_, name)| format!("; did you mean `{name}`?"));
    format!("unknown key `{key}` in {place}{hint}")
}

/// A file with only the required keys.
fn minimal_file() -> Table {
    Table::from_iter([
        ("id".to_owned(), Value::Integer(1)),
        ("name".to_owned(), Value::String("name".to_owned())),
        ("timezone".to_owned(), Value::String("UTC".to_owned())),
        ("country_code".to_owned(), Value::String("1".to_owned())),
        ("national_mobile_length".to_owned(), Value::Integer(10)),
    ])
}

fn is_required(key: &str) -> bool {
    let mut file = minimal_file();
    file.remove(key);
    file.try_into::<Definition>().is_err()
}

/// The line of the demo's file with that key.
fn example(key: &str) -> String {
    let demo = include_str!("demo.toml");
    demo.lines().find(|line| line.starts_with(key)).unwrap_or(key).to_owned()
}

/// Checks a value of the section at `path` by itself. Converts 0 and 1 to booleans where a boolean
/// is expected.
fn check_value(path: &[&str], key: &str, value: &mut Value) -> Result<(), String> {
    let fits = |value: &Value| {
        let mut file = minimal_file();
        let mut entry = (key.to_owned(), value.clone());
        for section in path.iter().rev() {
            entry = ((*section).to_owned(), Value::Table(Table::from_iter([entry])));
        }
        file.insert(entry.0, entry.1);
        file.try_into::<Definition>().map(|_| ())
    };
    let Err(error) = fits(value) else { return Ok(()) };
    if let Value::Integer(number @ 0..=1) = value
        && let boolean = Value::Boolean(*number == 1)
        && fits(&boolean).is_ok()
    {
        *value = boolean;
        return Ok(());
    }
    Err(explain(key, value, error.message()))
}

/// Translates an error message of serde for the author of a file.
fn explain(key: &str, value: &Value, message: &str) -> String {
    let Some((_, expected)) = message.split_once(", expected ") else {
        return format!("{key}: {message}");
    };
    let each = if value.is_array() { "a list, each of it " } else { "" };
    let expected = match expected {
        "i64" => "a whole number, without quotes",
        "u32" => "a whole number, 0 to 4294967295, without quotes",
        "u64" | "usize" => "a whole number, 0 or more, without quotes",
        "a boolean" => "true or false, without quotes",
        "a string" | "a borrowed string" => "text, in quotes",
        "a sequence" => "a list, in brackets",
        other => other,
    };
    format!("{key} is {value}; it must be {each}{expected}")
}

/// Writes the file for `definition`: every key with its value, in the order of the documentation.
pub fn write(definition: &Definition) -> Result<String, serde_json::Error> {
    let mut text = String::new();
    if let Json::Object(keys) = serde_json::to_value(definition)? {
        write_section(&mut text, &[], keys);
    }
    Ok(text)
}

/// Writes the values of the section at `path`, and then the sections in it. The JSON form of texts,
/// numbers, booleans and lists of them is valid TOML.
fn write_section(text: &mut String, path: &[&str], mut keys: serde_json::Map<String, Json>) {
    let order = match section(path) {
        Some(Keys::Known(known)) => known.into_iter().map(str::to_owned).collect(),
        _ => keys.keys().cloned().collect::<Vec<_>>(),
    };
    let (mut values, mut sections) = (String::new(), Vec::new());
    for key in order {
        match keys.remove(&key) {
            None => {}
            Some(Json::Object(section)) => sections.push((key, section)),
            Some(value) => {
                let _ = writeln!(values, "{} = {}", toml_key(&key), toml_value(&value)); // to a string, which does not fail
            }
        }
    }
    if !path.is_empty() && !values.is_empty() {
        let _ = write!(text, "\n[{}]\n", path.join("."));
    }
    text.push_str(&values);
    for (key, section) in sections {
        write_section(text, &[path, &[key.as_str()]].concat(), section);
    }
}

/// A key as TOML writes it: bare if it can be, in quotes otherwise.
fn toml_key(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if bare { key.to_owned() } else { toml_value(&Json::from(key)) }
}

fn toml_value(value: &Json) -> String {
    match value {
        Json::Array(values) => {
            format!("[{}]", values.iter().map(toml_value).collect::<Vec<_>>().join(", "))
        }
        value => escape(&value.to_string(), json_escape).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use loyalty_codes::model::customer::AccountId;

    use super::*;

    const DEMO: &str = include_str!("demo.toml");

    #[test]
    fn a_misspelt_key_is_refused_with_its_line_and_what_was_meant() {
        let text = DEMO
            .replace("timezone", "time_zone")
            .replace("WECHAT =", "WECHATT =")
            .replace("CONF_CARD_NUMBER_LENGTH", "CONF_CARD_NUMBER_LENGHT");
        let reason = parse(&text).unwrap_err();
        for hint in [
            "line 4: unknown key `time_zone` in the file; did you mean `timezone`?",
            "did you mean `WECHAT`",
            "did you mean `CONF_CARD_NUMBER_LENGTH`",
            "timezone is missing; write timezone = \"Asia/Kolkata\"",
        ] {
            assert!(reason.contains(hint), "{reason}");
        }
        let config = parse(&DEMO.replace("[config]", "[Config]")).unwrap_err();
        assert!(config.contains("did you mean `config`"), "{config}");
        let source = parse(&DEMO.replace("WECHAT =", "wechat =")).unwrap_err();
        assert!(source.contains("did you mean `WECHAT`"), "{source}");
    }

    #[test]
    fn the_file_of_the_readme_has_every_key_and_can_be_applied() {
        let readme = include_str!("../../../README.md");
        let file = readme.split("```toml\n").find(|block| block.starts_with("id = 77")).unwrap();
        let file = file.split("```").next().unwrap();
        assert_eq!(parse(file).unwrap().check(), Ok(()));
        for key in [DEFINITION_KEYS, CONFIG_KEYS, TEMPLATE_KEYS, AWS_KEYS, WEBHOOK_KEYS].concat() {
            let is_there =
                |line: &str| line.starts_with(&format!("{key} = ")) || line.starts_with(&format!("[{key}"));
            assert!(file.lines().any(is_there), "{key}");
        }
    }

    #[test]
    fn every_value_of_the_wrong_kind_is_named_with_what_to_write() {
        let text = r#"
            id = "966"
            name = 7
            timezone = "Asia/Kolkata"
            country_code = 91
            national_mobile_length = "10"
            [sources]
            WECHAT = "WECHAT-API1"
            LINE = [1]
            [config]
            CONF_OTP_LENGTH = "7"
            CONF_OTP_TYPE = "HEX"
            CONF_CLIENT_V2_API_ENABLED = 2
            CONF_CARD_NUMBER_GENERATION_ENABLED = "true"
            SOURCE_ACCOUNTS_EXTERNALID_ENABLED = ["INSTORE", "NOWHERE:x"]
            CONF_CARD_NUMBER_OFFSET = 1.5
            CONF_CARD_NUMBER_PREFIX = 12
        "#;
        let reason = parse(text).unwrap_err();
        for expected in [
            "line 2: id is \"966\"; it must be a whole number, 0 to 4294967295, without quotes",
            "line 3: name is 7; it must be text, in quotes",
            "line 5: country_code is 91; it must be text, in quotes",
            "line 6: national_mobile_length is \"10\"; it must be a",
            "line 8: WECHAT is \"WECHAT-API1\"; it must be a list, in brackets",
            "line 9: LINE is [1]; it must be a list, each of it text, in quotes",
            "line 11: CONF_OTP_LENGTH is \"7\"; it must be a whole number, without quotes",
            "line 12: CONF_OTP_TYPE is \"HEX\"; it must be ",
            "line 13: CONF_CLIENT_V2_API_ENABLED is 2; it must be true or false, without quotes",
            "line 14: CONF_CARD_NUMBER_GENERATION_ENABLED is \"true\"; it must be true or false",
            "line 15: SOURCE_ACCOUNTS_EXTERNALID_ENABLED: `INSTORE` is not of the form SOURCE:account",
            "line 16: CONF_CARD_NUMBER_OFFSET is 1.5; it must be a whole number, without quotes",
            "line 17: CONF_CARD_NUMBER_PREFIX is 12; it must be text, in quotes",
        ] {
            assert!(reason.contains(expected), "{expected}\n{reason}");
        }
        assert_eq!(reason.matches("\n  - ").count(), 13, "{reason}");
        let section = parse(&DEMO.replace("[sources]\nWECHAT", "sources")).unwrap_err();
        assert!(section.contains("sources is a section; write it as [sources]"), "{section}");
    }

    #[test]
    fn a_number_that_is_too_large_is_named_with_its_line() {
        let text = "id = 966\nnational_mobile_length = [10, 0xFFFFFFFFFFFFFFFFFF]\n[config]\nCONF_OTP_LENGTH = \
                    9223372036854775808\n[other]\nx = -9223372036854775809\n";
        let reason = parse(text).unwrap_err();
        for expected in [
            "line 2: national_mobile_length is 0xFFFFFFFFFFFFFFFFFF, which has more than 64 bits",
            "line 4: CONF_OTP_LENGTH is 9223372036854775808, which has more than",
            "line 6: x is -9223372036854775809, which has more than",
        ] {
            assert!(reason.contains(expected), "{expected}\n{reason}");
        }
        let id = parse(&DEMO.replace("966", "4294967296")).unwrap_err();
        assert!(id.contains("id is 4294967296; it must be a whole number, 0 to 4294967295"), "{id}");
    }

    #[test]
    fn booleans_may_be_0_and_1() {
        let parsed = |v2: &str, numbers: &str| {
            let config = format!("[config]\nCONF_CLIENT_V2_API_ENABLED = {v2}");
            let text =
                DEMO.replace("[config]", &config).replace("ENABLED = true", &format!("ENABLED = {numbers}"));
            let config = parse(&text).unwrap().config;
            (config.v2_enabled, config.card_numbers_enabled)
        };
        assert_eq!(parsed("0", "1"), (false, true));
        assert_eq!(parsed("1", "0"), (true, false));
        assert_eq!(parsed("false", "true"), (false, true));
        assert!(
            parse(&DEMO.replace("966", "true")).unwrap_err().contains("id is true"),
            "and not the reverse"
        );
    }

    #[test]
    fn the_demo_orgs_file_is_valid() {
        let demo = parse(DEMO).unwrap();
        assert_eq!(demo.check(), Ok(()));
        assert_eq!(demo.warnings(), Vec::<String>::new());
    }

    #[test]
    fn every_required_key_has_an_example() {
        for key in minimal_file().keys() {
            assert!(is_required(key) && example(key).contains(" = "), "{key}");
        }
        assert!(!is_required("sources"));
    }

    #[test]
    fn a_written_file_gives_the_definition() {
        let mut definition = parse(DEMO).unwrap();
        let text = write(&definition).unwrap();
        assert_eq!(parse(&text).unwrap(), definition);
        let heads = [
            "id = 966\nname = \"Demo Stores\"\ntimezone",
            "\n\n[sources]\nWECHAT = [\"WECHAT-API1\", \"WECHAT-API2\"]\n\n[config]\nCONF_CLIENT",
        ];
        assert!(text.starts_with(heads[0]) && text.contains(heads[1]), "{text}");

        // Values that a file must not contain now, but that an item of an earlier version can.
        definition.name = "a \"b\" \\ c\n\u{1b}\u{7f}\u{85}\u{202e} 'd' 😀".to_owned();
        definition.sources =
            [(Source::Line, vec![AccountId(",".into()), AccountId("\"],\u{1b}[".into())])].into();
        let text = write(&definition).unwrap();
        assert_eq!(parse(&text).unwrap(), definition);
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        definition.sources.clear();
        let text = write(&definition).unwrap();
        assert_eq!(parse(&text).unwrap(), definition);
        assert!(!text.contains("[sources]"), "{text}");
    }
}
