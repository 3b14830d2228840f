//! The keys of an org's `[config]` for the people who set them: what kind of value each has, what
//! it means, and what else follows from it. The defaults are those of [`Config`].

use serde_json::Value;

use super::org::Config;
use crate::wire::wire_enum;

/// A key of `[config]`.
#[derive(Debug, Clone, Copy)]
pub struct ConfigKey {
    pub name: &'static str,
    pub group: Group,
    pub kind: Kind,
    /// What the key sets.
    pub meaning: &'static str,
    /// What a caller or a customer notices of it.
    pub effect: &'static str,
}

wire_enum! {
    /// Keys that belong together.
    pub enum Group {
        Api = "The API",
        Otps = "One-time passwords",
        Limits = "Limits",
        Messages = "Messages",
        CardNumbers = "Card numbers (external IDs)",
    }
}

/// The kind of value that a key has.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Switch,
    /// A whole number from `min` to `max`.
    Number {
        min: i64,
        max: i64,
        unit: &'static str,
    },
    /// One of these values, each with its meaning.
    Choice(&'static [(&'static str, &'static str)]),
    Text,
    /// Any of the channels of messages.
    Channels,
    /// Country codes.
    CountryCodes,
    /// Any of the org's accounts.
    Accounts,
}

impl ConfigKey {
    /// The value of an org that does not set the key. Null if the key has no default.
    pub fn default_value(&self) -> Value {
        serde_json::to_value(Config::default()).map_or(Value::Null, |config| config[self.name].clone())
    }
}

/// The key that a problem of a definition is about: the one that its sentence names first. `None`
/// if it names none.
pub fn key_of_problem(problem: &str) -> Option<&'static ConfigKey> {
    let named = CONFIG.iter().filter_map(|key| Some((problem.find(key.name)?, key)));
    named.min_by_key(|(position, _)| *position).map(|(_, key)| key)
}

const fn number(min: i64, max: i64, unit: &'static str) -> Kind {
    Kind::Number { min, max, unit }
}

/// Every key of `[config]`, in the order of the documentation.
pub const CONFIG: &[ConfigKey] = &[
    ConfigKey {
        name: "CONF_CLIENT_V2_API_ENABLED",
        group: Group::Api,
        kind: Kind::Switch,
        meaning: "Whether the org's tills may call the API.",
        effect: "When it is off, every call is refused with 403.",
    },
    ConfigKey {
        name: "CONF_OTP_TYPE",
        group: Group::Otps,
        kind: Kind::Choice(&[
            ("ALPHANUMERIC", "capital letters and digits"),
            ("NUMERIC", "digits, easiest to type on a phone"),
            ("UNAMBIGUOUS", "no I, L, O and U; an O is read as 0, an I or L as 1"),
        ]),
        meaning: "The characters of a code.",
        effect: "It applies to codes that are issued from now on.",
    },
    ConfigKey {
        name: "CONF_OTP_LENGTH",
        group: Group::Otps,
        kind: number(4, 50, "characters"),
        meaning: "How many characters a code has.",
        effect: "A longer code is harder to guess and to type.",
    },
    ConfigKey {
        name: "CONF_OTP_VALIDITY_SECONDS",
        group: Group::Otps,
        kind: number(1, 86_400, "seconds"),
        meaning: "How long a code is valid after it was issued.",
        effect: "Codes that are issued already keep their expiry.",
    },
    ConfigKey {
        name: "CONF_OTP_DAILY_LIMIT",
        group: Group::Limits,
        kind: number(1, 1000, "codes a day"),
        meaning: "How many codes a customer gets in a day of the org's time zone.",
        effect: "One more is refused with 429 until midnight.",
    },
    ConfigKey {
        name: "CONF_OTP_RATE_LIMIT_ONE_HOUR",
        group: Group::Limits,
        kind: number(1, 1_000_000, "codes an hour"),
        meaning: "How many codes are sent to an address in an hour of UTC, of all sources and scopes.",
        effect: "One more is refused with 429 until the hour ends. Empty means no limit.",
    },
    ConfigKey {
        name: "CONF_OTP_COOLDOWN_SECONDS",
        group: Group::Limits,
        kind: number(0, 86_400, "seconds"),
        meaning: "The time between two codes of a customer and scope.",
        effect: "An earlier one is refused with 429. 0 means no wait.",
    },
    ConfigKey {
        name: "CONF_OTP_REISSUE",
        group: Group::Otps,
        kind: Kind::Choice(&[
            ("NEW", "a new code each time"),
            ("SAME", "while a code is valid, it is sent again and keeps its expiry"),
        ]),
        meaning: "What a customer gets who asks again.",
        effect: "A code that is sent again counts in every limit, too.",
    },
    ConfigKey {
        name: "CONF_OTP_COMMUNICATE_VIA",
        group: Group::Messages,
        kind: Kind::Channels,
        meaning: "The channels of a request that names none.",
        effect: "With none here, such a request issues a code and sends no message.",
    },
    ConfigKey {
        name: "CONF_OTP_ALLOWED_COUNTRY_CODES",
        group: Group::Messages,
        kind: Kind::CountryCodes,
        meaning: "The countries whose mobiles are sent to and called, separated by commas.",
        effect: "Mobiles of other countries are refused with 400. Empty means every country.",
    },
    ConfigKey {
        name: "CONF_OTP_MESSAGES_PER_HOUR",
        group: Group::Messages,
        kind: number(1, 100_000_000, "messages an hour"),
        meaning: "How many messages are sent for the whole org in an hour of UTC.",
        effect: "Beyond it nothing is sent, and an alarm says so. Empty means no limit.",
    },
    ConfigKey {
        name: "CONF_OTP_THRESHOLD_MODE",
        group: Group::Otps,
        kind: Kind::Choice(&[
            ("MIN_REMAINING", "at least that many seconds of validity are left"),
            ("MAX_AGE", "the code was issued within that many seconds"),
        ]),
        meaning: "What the threshold of a fetch means.",
        effect: "A code that does not meet it is not found: 404.",
    },
    ConfigKey {
        name: "CONF_OTP_VALIDATE_RATE_LIMIT_COUNT",
        group: Group::Limits,
        kind: number(1, 100, "wrong codes"),
        meaning: "How many wrong codes a customer and scope may have within the time below.",
        effect: "Then every code is refused with 429, a right one, too.",
    },
    ConfigKey {
        name: "CONF_OTP_VALIDATE_RATE_LIMIT_MINUTE",
        group: Group::Limits,
        kind: number(1, 1440, "minutes"),
        meaning: "The time in which wrong codes are counted.",
        effect: "A locked customer can try again when the oldest wrong code is that old.",
    },
    ConfigKey {
        name: "CONF_CARD_NUMBER_GENERATION_ENABLED",
        group: Group::CardNumbers,
        kind: Kind::Switch,
        meaning: "Whether card numbers are generated.",
        effect: "When it is off, a request for one is refused with 403, and customers are registered without one.",
    },
    ConfigKey {
        name: "SOURCE_ACCOUNTS_EXTERNALID_ENABLED",
        group: Group::CardNumbers,
        kind: Kind::Accounts,
        meaning: "The accounts whose customers get a card number. INSTORE: is the shops.",
        effect: "A request for another account is refused with 403.",
    },
    ConfigKey {
        name: "CONF_CARD_NUMBER_LENGTH",
        group: Group::CardNumbers,
        kind: number(1, 50, "characters"),
        meaning: "The length of a card number, with prefix, suffix and check digit.",
        effect: "The sequence is filled with zeros to that length, and ends when it does not fit any more.",
    },
    ConfigKey {
        name: "CONF_CARD_NUMBER_OFFSET",
        group: Group::CardNumbers,
        kind: number(0, i64::MAX - 1, ""),
        meaning: "The first value of the sequence.",
        effect: "An offset that could give a number twice is refused. Empty means 0.",
    },
    ConfigKey {
        name: "CONF_CARD_NUMBER_PREFIX",
        group: Group::CardNumbers,
        kind: Kind::Text,
        meaning: "What each card number begins with: letters A-Z, a-z and digits.",
        effect: "It takes its part of the length.",
    },
    ConfigKey {
        name: "CONF_CARD_NUMBER_SUFFIX",
        group: Group::CardNumbers,
        kind: Kind::Text,
        meaning: "What each card number ends with, with AUTO_INC only.",
        effect: "It takes its part of the length.",
    },
    ConfigKey {
        name: "CONF_CARD_CHECKSUM_DIGIT_ALGO",
        group: Group::CardNumbers,
        kind: Kind::Choice(&[
            ("AUTO_INC", "in sequence, without check digit"),
            ("LUHN_ALGO", "in sequence, with a Luhn digit"),
            ("MOD7_ALGO", "in sequence, with the remainder modulo 7"),
            ("RANDOM", "in an order that nobody can guess, without check digit"),
            ("RANDOM_LUHN", "in an order that nobody can guess, with a Luhn digit"),
            ("RANDOM_MOD7", "in an order that nobody can guess, with the remainder modulo 7"),
        ]),
        meaning: "The order of the numbers, and their check digit, which comes last.",
        effect: "A check digit tells most mistyped numbers.",
    },
    ConfigKey {
        name: "CONF_VALUES_TO_INCLUDE_FOR_CHECKSUM_DIGIT",
        group: Group::CardNumbers,
        kind: Kind::Choice(&[
            ("NONE", "the sequence alone"),
            ("PREFIX", "the prefix, too; its letters are skipped"),
        ]),
        meaning: "What the check digit covers.",
        effect: "It matters for numbers with a check digit and a prefix.",
    },
    ConfigKey {
        name: "CONF_CARD_NUMBER_BLOCK_SIZE",
        group: Group::CardNumbers,
        kind: number(1, 1000, "numbers"),
        meaning: "How many numbers a process takes at once.",
        effect: "More give a higher rate for less, and numbers that are in order within a process only.",
    },
];

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::model::{
        card_number::{Algorithm, ChecksumIncludes},
        fixtures::{self, definition},
        otp::{CodeType, Reissue, ThresholdMode},
    };

    /// The problems of a definition that has these keys in its `[config]`.
    fn problems(config: &Map<String, Value>) -> Vec<String> {
        fixtures::problems(&definition(&json!({"config": config})))
    }

    /// The problems of one value of a key. The card numbers are as long as they can be, so that
    /// every offset fits.
    fn problems_of(key: &str, value: &Value) -> Vec<String> {
        let mut config = Map::new();
        config.insert("CONF_CARD_NUMBER_LENGTH".to_owned(), json!(50));
        config.insert(key.to_owned(), value.clone());
        problems(&config)
    }

    #[test]
    fn the_ranges_of_numbers_are_those_that_are_checked() {
        for key in CONFIG {
            let Kind::Number { min, max, .. } = key.kind else { continue };
            for value in [min, max] {
                assert_eq!(
                    problems_of(key.name, &json!(value)),
                    Vec::<String>::new(),
                    "{} {value}",
                    key.name
                );
            }
            for value in [min - 1, max + 1] {
                let problems = problems_of(key.name, &json!(value));
                assert_eq!(problems.len(), 1, "{} {value}: {problems:?}", key.name);
                assert_eq!(key_of_problem(&problems[0]).unwrap().name, key.name, "{problems:?}");
            }
        }
    }

    #[test]
    fn the_choices_are_those_of_the_types() {
        let names = |name: &str| match CONFIG.iter().find(|key| key.name == name).unwrap().kind {
            Kind::Choice(values) => values.iter().map(|(value, _)| *value).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
        assert_eq!(names("CONF_OTP_TYPE"), CodeType::NAMES);
        assert_eq!(names("CONF_OTP_REISSUE"), Reissue::NAMES);
        assert_eq!(names("CONF_OTP_THRESHOLD_MODE"), ThresholdMode::NAMES);
        assert_eq!(names("CONF_CARD_CHECKSUM_DIGIT_ALGO"), Algorithm::NAMES);
        let mut includes = names("CONF_VALUES_TO_INCLUDE_FOR_CHECKSUM_DIGIT");
        includes.reverse();
        assert_eq!(includes, ChecksumIncludes::NAMES);
    }

    #[test]
    fn a_problem_leads_to_the_key_that_it_names_first() {
        for (key, value) in [
            ("CONF_CARD_NUMBER_PREFIX", json!("a-b")),
            ("CONF_CARD_NUMBER_SUFFIX", json!("a b")),
            ("SOURCE_ACCOUNTS_EXTERNALID_ENABLED", json!(["LINE:x"])),
            ("CONF_OTP_ALLOWED_COUNTRY_CODES", json!(["+91"])),
            ("CONF_CARD_NUMBER_OFFSET", json!(-1)),
        ] {
            let problems = problems_of(key, &value);
            assert_eq!(problems.len(), 1, "{problems:?}");
            assert_eq!(key_of_problem(&problems[0]).unwrap().name, key, "{problems:?}");
        }
        assert!(key_of_problem("name is empty").is_none());
        let both = "CONF_CARD_NUMBER_SUFFIX goes with AUTO_INC only, not with CONF_OTP_TYPE";
        assert_eq!(key_of_problem(both).unwrap().name, "CONF_CARD_NUMBER_SUFFIX");
    }

    #[test]
    fn defaults_are_those_of_an_org_that_sets_nothing() {
        let default = |name: &str| CONFIG.iter().find(|key| key.name == name).unwrap().default_value();
        assert_eq!(default("CONF_OTP_LENGTH"), 7);
        assert_eq!(default("CONF_CLIENT_V2_API_ENABLED"), true);
        assert_eq!(default("CONF_OTP_RATE_LIMIT_ONE_HOUR"), Value::Null);
        assert_eq!(default("CONF_CARD_NUMBER_LENGTH"), Value::Null);
    }
}
