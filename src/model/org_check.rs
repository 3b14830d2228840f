//! Checks an org's definition as a whole. A definition that cannot work is refused when it is
//! applied; a probable mistake causes a warning. Stored definitions are not checked by these rules,
//! so that a new rule does not stop an org that is being served.

use std::collections::HashMap;

use super::{
    card_number::{CardNumberSettings, NumberingPlan},
    customer::{Account, AccountId, Source},
    delivery,
    org::{Definition, Invalid, problems},
    phone_number::MOBILE_DIGITS,
    typed_text,
};

/// The longest name of an org, in characters.
const MAX_NAME_LENGTH: usize = 255;

/// The most accounts of a source.
const MAX_ACCOUNTS: usize = 200;

/// The most bytes of a definition in JSON. An item has at most 400 KB, and the org's has other
/// attributes, too.
const MAX_BYTES: usize = 350_000;

impl Definition {
    /// Checks the definition, including its numbering plan, before it is applied.
    ///
    /// # Errors
    /// [`Invalid`] with every problem found.
    pub fn check(&self) -> Result<(), Invalid> {
        let mut problems = problems(self);
        problems.extend(
            hidden(&self.name).map(|characters| {
                format!("name has invisible characters in it ({characters}); leave them out")
            }),
        );
        problems.extend(self.phone_number_problems());
        if self.name.chars().count() > MAX_NAME_LENGTH {
            problems.push(format!("name is longer than {MAX_NAME_LENGTH} characters"));
        }
        for (source, accounts) in &self.sources {
            if accounts.len() > MAX_ACCOUNTS {
                problems.push(format!("sources.{source} has more than {MAX_ACCOUNTS} accounts"));
                continue;
            }
            problems.extend(account_problems(*source, accounts));
            if accounts.is_empty() && *source != Source::Instore {
                problems.push(format!("sources.{source} has no account; name one, or leave the source out"));
            }
        }
        let config = &self.config;
        let mentions_card_numbers = config.card_numbers != CardNumberSettings::default();
        if config.card_numbers_enabled || mentions_card_numbers {
            let settings = &config.card_numbers;
            let plan = NumberingPlan::try_from(settings);
            let wrong = settings.problems();
            problems.extend(wrong.iter().map(ToString::to_string));
            problems.extend(plan.err().filter(|_| wrong.is_empty()).map(|error| error.to_string()));
        }
        for account in &config.card_number_accounts {
            if !self.accounts(account.source).contains(&account.id) {
                problems.push(format!(
                    "SOURCE_ACCOUNTS_EXTERNALID_ENABLED names `{account}`, which [sources] does not"
                ));
            }
        }
        problems.extend(delivery::problems(self));
        if serde_json::to_string(self).is_ok_and(|json| json.len() > MAX_BYTES) {
            problems.push(format!(
                "the file has more than {} KB; shorten its texts, or name fewer accounts",
                MAX_BYTES / 1000
            ));
        }
        if problems.is_empty() { Ok(()) } else { Err(Invalid(problems)) }
    }

    /// Settings that work, but are probably a mistake.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        let config = &self.config;
        if config.card_numbers_enabled && config.card_number_accounts.is_empty() {
            warnings.push(
                "CONF_CARD_NUMBER_GENERATION_ENABLED is true, but SOURCE_ACCOUNTS_EXTERNALID_ENABLED names no \
                 account, so no card number is generated; the shops are \"INSTORE:\""
                    .to_owned(),
            );
        }
        if let Ok(plan) = NumberingPlan::try_from(&config.card_numbers) {
            warnings.extend(plan_warnings(&plan, config.card_number_block_size));
        }
        warnings.extend(delivery::warnings(self));
        warnings
    }

    /// The accounts of this definition that `after` does not have.
    pub fn accounts_removed_by(&self, after: &Self) -> Vec<Account> {
        let of_source = |source: &Source| {
            let left = after.accounts(*source);
            let removed = self.accounts(*source).into_iter().filter(move |id| !left.contains(id));
            removed.map(|id| Account { source: *source, id }).collect::<Vec<_>>()
        };
        self.sources.keys().flat_map(of_source).collect()
    }

    /// Problems of country code and national lengths in combination, where each is valid by itself.
    fn phone_number_problems(&self) -> Vec<String> {
        let code = &self.country_code;
        let (fewest, most) = (MOBILE_DIGITS.start(), MOBILE_DIGITS.end());
        let lengths = self.national_mobile_length.iter();
        let lengths = lengths.filter(|length| (4..=14).contains(length) && (1..=3).contains(&code.len()));
        lengths
            .filter(|length| !MOBILE_DIGITS.contains(&(code.len() + length)))
            .map(|length| {
                format!(
                    "country_code `{code}` and national_mobile_length {length} make numbers of {} digits, and \
                     international ones have {fewest} to {most}: national_mobile_length must be {} to {}",
                    code.len() + length,
                    fewest.saturating_sub(code.len()),
                    most.saturating_sub(code.len())
                )
            })
            .collect()
    }
}

/// Settings of a numbering plan that work, but are probably a mistake.
fn plan_warnings(plan: &NumberingPlan, block_size: i64) -> Vec<String> {
    let mut warnings = Vec::new();
    let max_size = plan.max_block_size();
    if block_size > 1 && u64::try_from(block_size).is_ok_and(|size| size > max_size) {
        let advice = if max_size > 1 { format!("use {max_size} or less") } else { "leave it out".to_owned() };
        warnings.push(format!(
            "CONF_CARD_NUMBER_BLOCK_SIZE is {block_size}, and blocks are taken only while the range has room for a \
             thousand of them: this one has {} numbers, so each is taken by itself; {advice}",
            plan.end() - plan.offset()
        ));
    }
    if plan.resembles_payment_cards() {
        warnings.push(
            "card numbers of this plan pass for payment cards (16 digits, the first one 3 to 6, a right Luhn \
             digit): tills may charge them, and scanners for card data will find them; another \
             CONF_CARD_NUMBER_PREFIX or CONF_CARD_NUMBER_LENGTH avoids it"
                .to_owned(),
        );
    }
    warnings
}

fn account_problems(source: Source, accounts: &[AccountId]) -> Vec<String> {
    let mut problems = Vec::new();
    let mut seen: HashMap<String, &String> = HashMap::new();
    for AccountId(id) in accounts {
        if let Some(characters) = hidden(id) {
            problems.push(format!(
                "sources.{source}: account `{id}` has invisible characters in it ({characters}); leave \
                 them out"
            ));
        }
        if id.trim() != id {
            problems.push(format!(
                "sources.{source}: account `{id}` begins or ends with a space; write `{}`",
                id.trim()
            ));
        }
        let other = seen.entry(typed_text::appearance(id)).or_insert(id);
        if *other != id {
            problems.push(format!(
                "sources.{source}: accounts `{other}` and `{id}` look alike, and callers would take one for the \
                 other; give one of them another name"
            ));
        }
    }
    problems
}

/// The invisible characters of `text`, as code points; `None` if there are none. Joiners are
/// allowed, because names in Indic scripts and in Persian need them.
fn hidden(text: &str) -> Option<String> {
    let is_hidden = |c: &char| typed_text::is_ignorable(*c) && !matches!(c, '\u{200c}' | '\u{200d}');
    let characters: Vec<String> =
        text.chars().filter(is_hidden).map(|c| format!("U+{:04X}", u32::from(c))).collect();
    (!characters.is_empty()).then(|| characters.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{card_number::Algorithm, fixtures, otp::CodeType};

    fn definition() -> Definition {
        fixtures::definition(&serde_json::json!({}))
    }

    fn problems(change: impl FnOnce(&mut Definition)) -> Vec<String> {
        let mut definition = definition();
        change(&mut definition);
        fixtures::problems(&definition)
    }

    fn account_problems(accounts: &[&str]) -> Vec<String> {
        let accounts = accounts.iter().map(|id| AccountId((*id).to_owned())).collect();
        problems(|definition| {
            definition.sources.insert(Source::Wechat, accounts);
        })
    }

    fn one(problems: &[String], expected: &str) {
        assert!(problems.len() == 1 && problems[0].contains(expected), "{expected}: {problems:?}");
    }

    #[test]
    fn a_country_code_and_a_length_beyond_e164_are_refused_together() {
        let problems = |code: &str, length: usize| {
            problems(|definition| {
                definition.country_code = code.to_owned();
                definition.national_mobile_length = length.into();
            })
        };
        for (code, length) in [("91", 13), ("1", 14), ("971", 12), ("1", 6), ("971", 4)] {
            assert_eq!(problems(code, length), Vec::<String>::new(), "{code} {length}");
        }
        one(&problems("91", 14), "make numbers of 16 digits");
        one(&problems("91", 14), "national_mobile_length must be 5 to 13");
        one(&problems("1", 5), "make numbers of 6 digits");
        one(&problems("1", 15), "not within 4 to 14");
    }

    #[test]
    fn accounts_that_look_alike_are_refused() {
        assert_eq!(account_problems(&["WECHAT-API1", "WECHAT-API2", "क्\u{200d}ष"]), Vec::<String>::new());
        one(&account_problems(&["WECHAT-API1", "wechat-api1"]), "look alike");
        one(&account_problems(&["API 1", "API1"]), "look alike");
        one(&account_problems(&[" A"]), "begins or ends with a space; write `A`");
        one(&account_problems(&["A\u{a0}"]), "write `A`");
        one(&account_problems(&["A\u{200b}B"]), "(U+200B); leave them out");
        one(&account_problems(&["A", "A"]), "twice");
        let control = account_problems(&["A\u{7}"]);
        assert!(control.iter().any(|problem| problem.contains("U+0007")), "{control:?}");
    }

    #[test]
    fn a_control_character_in_the_name_is_refused() {
        for name in ["Demo\u{1b}[31m", "Demo\nStores", "Demo\u{202e}", "\u{feff}Demo"] {
            one(&problems(|definition| definition.name = name.to_owned()), "invisible characters in it (U+");
        }
        for name in ["Demo Stores", "می\u{200c}خواهم", "Käse & Söhne"] {
            assert_eq!(problems(|definition| definition.name = name.to_owned()), Vec::<String>::new());
        }
    }

    #[test]
    fn instore_can_have_accounts_besides_its_own() {
        let mut definition = definition();
        definition.sources.insert(Source::Instore, vec![AccountId("OUTLET".into())]);
        definition.config.card_number_accounts =
            vec![Account::instore(), Account { source: Source::Instore, id: AccountId("OUTLET".into()) }];
        assert_eq!(definition.check(), Ok(()));
        definition
            .sources
            .insert(Source::Instore, vec![AccountId(String::new()), AccountId("OUTLET".into())]);
        assert_eq!(definition.check(), Ok(()), "the own one may be named");
    }

    #[test]
    fn codes_of_the_least_length_are_enough_of_every_type() {
        for code_type in CodeType::ALL {
            assert!(code_type.alphabet().len().pow(4) >= 10_000, "{code_type}");
        }
        one(&problems(|definition| definition.config.otp_length = 3), "below 10,000 codes");
    }

    #[test]
    fn numbers_that_resemble_payment_cards_cause_a_warning() {
        let warned = |algorithm, length, prefix: &str, offset, includes: bool| {
            let mut definition = definition();
            let settings = &mut definition.config.card_numbers;
            settings.algorithm = Some(algorithm);
            settings.length = Some(length);
            settings.prefix = prefix.to_owned();
            settings.offset = Some(offset);
            settings.checksum_includes =
                includes.then_some(super::super::card_number::ChecksumIncludes::Prefix);
            assert_eq!(definition.check(), Ok(()));
            !definition.warnings().is_empty()
        };
        assert!(warned(Algorithm::Luhn, 16, "4", 1, true));
        assert!(warned(Algorithm::RandomLuhn, 16, "37", 1, true));
        assert!(warned(Algorithm::Luhn, 16, "", 500_000_000_000_000, false));
        assert!(warned(Algorithm::RandomLuhn, 16, "", 0, false), "in random order the first digit is any");
        assert!(warned(Algorithm::Luhn, 16, "5009", 1, false), "this prefix changes no sum");
        assert!(!warned(Algorithm::Luhn, 16, "4", 1, false), "the digit is wrong for the whole number");
        assert!(!warned(Algorithm::Luhn, 16, "", 0, false));
        assert!(!warned(Algorithm::Luhn, 16, "7", 1, true));
        assert!(!warned(Algorithm::Luhn, 15, "4", 1, true));
        assert!(!warned(Algorithm::Luhn, 16, "4A", 1, true));
        assert!(!warned(Algorithm::AutoInc, 16, "4", 1, true));
    }

    #[test]
    fn a_block_size_that_never_takes_a_block_causes_a_warning() {
        let warnings = |size, length, offset| {
            let mut definition = definition();
            definition.config.card_number_block_size = size;
            definition.config.card_numbers.length = Some(length);
            definition.config.card_numbers.offset = Some(offset);
            assert_eq!(definition.check(), Ok(()));
            definition.warnings()
        };
        for (size, length, offset) in [(1, 1, 0), (10, 4, 0), (1000, 6, 0), (9, 4, 1000), (1000, 50, 0)] {
            assert_eq!(warnings(size, length, offset), Vec::<String>::new(), "{size} {length} {offset}");
        }
        one(&warnings(11, 4, 0), "has 10000 numbers, so each is taken by itself; use 10 or less");
        one(&warnings(10, 4, 1), "has 9999 numbers, so each is taken by itself; use 9 or less");
        one(&warnings(2, 3, 0), "has 1000 numbers, so each is taken by itself; leave it out");
        one(&warnings(2, 50, i64::MAX - 1), "has 1 numbers");
    }

    #[test]
    fn removed_accounts_are_those_that_the_new_definition_lacks() {
        let with = |sources: &[(Source, &[&str])]| {
            let accounts = |ids: &[&str]| ids.iter().map(|id| AccountId((*id).to_owned())).collect();
            let sources = sources.iter().map(|(source, ids)| (*source, accounts(ids))).collect();
            Definition { sources, ..definition() }
        };
        let removed = |before: &Definition, after: &Definition| -> Vec<String> {
            before.accounts_removed_by(after).iter().map(ToString::to_string).collect()
        };
        let before = with(&[
            (Source::Instore, &["", "OUTLET"]),
            (Source::Wechat, &["A", "B"]),
            (Source::Line, &["L"]),
        ]);
        assert_eq!(removed(&before, &before), Vec::<String>::new());
        assert_eq!(removed(&definition(), &before), Vec::<String>::new());
        assert_eq!(removed(&before, &definition()), ["INSTORE:OUTLET", "WECHAT:A", "WECHAT:B", "LINE:L"]);
        assert_eq!(
            removed(&before, &with(&[(Source::Instore, &["OUTLET"]), (Source::Wechat, &["B", "C"])])),
            ["WECHAT:A", "LINE:L"]
        );
    }

    #[test]
    fn generation_for_no_account_causes_a_warning() {
        let mut definition = definition();
        definition.config.card_numbers_enabled = true;
        definition.config.card_numbers.length = Some(10);
        one(&definition.warnings(), "names no account");
        definition.config.card_number_accounts = vec![Account::instore()];
        assert_eq!(definition.warnings(), Vec::<String>::new());
    }
}
