//! An org and its configuration. [`Definition`] is the content of an org's file. [`Org`] is a
//! checked definition together with the data that the service generated for the org.

use std::{collections::BTreeMap, fmt};

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};

use crate::model::{
    card_number::{CardNumberSettings, NumberingPlan, PlanError, permutation::PermutationKey},
    config_keys::CONFIG,
    customer::{Account, AccountId, Identifier, IdentifierName, Malformed, Source},
    delivery::{DeliverySettings, TemplateScope, TemplateTexts},
    issuing::IssueRules,
    message::{ChannelType, Templates},
    otp::{AttemptLimit, Code, CodeType, Reissue, Scope, Threshold, ThresholdMode},
    phone_number::{NationalLengths, PhoneNumberPlan},
    timezone::TimeZone,
    typed_text,
};

/// An org's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrgId(pub u32);

impl fmt::Display for OrgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The content of an org's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Definition {
    pub id: OrgId,
    pub name: String,
    /// Name of a time zone in the IANA database.
    pub timezone: String,
    /// Digits of the country code that a national mobile number gets.
    pub country_code: String,
    /// How many digits a national mobile number has, without trunk prefix.
    pub national_mobile_length: NationalLengths,
    /// The prefix that people write before a national number, such as `0`. Empty if there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub trunk_prefix: String,
    /// The accounts of each source. INSTORE need not be listed.
    #[serde(default)]
    pub sources: BTreeMap<Source, Vec<AccountId>>,
    #[serde(default)]
    pub config: Config,
    /// Message texts by scope.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub templates: BTreeMap<TemplateScope, TemplateTexts>,
    /// Who sends which channel. Without it, every channel is accepted and nothing is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<DeliverySettings>,
    /// Mobiles and e-mail addresses whose OTPs always have the given code and are never sent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub test_identifiers: BTreeMap<String, String>,
}

/// The `CONF_…` keys of an org, with their defaults.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    #[serde(rename = "CONF_CLIENT_V2_API_ENABLED")]
    pub v2_enabled: bool,
    #[serde(rename = "CONF_OTP_TYPE")]
    pub otp_type: CodeType,
    #[serde(rename = "CONF_OTP_LENGTH")]
    pub otp_length: i64,
    #[serde(rename = "CONF_OTP_VALIDITY_SECONDS")]
    pub otp_validity_seconds: i64,
    #[serde(rename = "CONF_OTP_DAILY_LIMIT")]
    pub otp_daily_limit: i64,
    /// OTPs in a clock hour for an address that they are sent to.
    #[serde(rename = "CONF_OTP_RATE_LIMIT_ONE_HOUR", skip_serializing_if = "Option::is_none")]
    pub otp_hourly_limit: Option<i64>,
    #[serde(rename = "CONF_OTP_COOLDOWN_SECONDS")]
    pub otp_cooldown_seconds: i64,
    #[serde(rename = "CONF_OTP_REISSUE")]
    pub otp_reissue: Reissue,
    /// The channels of a request that names none.
    #[serde(rename = "CONF_OTP_COMMUNICATE_VIA", skip_serializing_if = "Vec::is_empty")]
    pub otp_channels: Vec<ChannelType>,
    /// The country codes of the mobiles that are sent to. Empty if all are.
    #[serde(rename = "CONF_OTP_ALLOWED_COUNTRY_CODES", skip_serializing_if = "Vec::is_empty")]
    pub otp_country_codes: Vec<String>,
    /// Messages that are sent for the whole org in a clock hour.
    #[serde(rename = "CONF_OTP_MESSAGES_PER_HOUR", skip_serializing_if = "Option::is_none")]
    pub otp_hourly_messages: Option<i64>,
    #[serde(rename = "CONF_OTP_THRESHOLD_MODE")]
    pub otp_threshold_mode: ThresholdMode,
    #[serde(rename = "CONF_OTP_VALIDATE_RATE_LIMIT_COUNT")]
    pub attempt_count: i64,
    #[serde(rename = "CONF_OTP_VALIDATE_RATE_LIMIT_MINUTE")]
    pub attempt_minutes: i64,
    #[serde(rename = "CONF_CARD_NUMBER_GENERATION_ENABLED")]
    pub card_numbers_enabled: bool,
    #[serde(rename = "SOURCE_ACCOUNTS_EXTERNALID_ENABLED")]
    pub card_number_accounts: Vec<Account>,
    #[serde(rename = "CONF_CARD_NUMBER_BLOCK_SIZE")]
    pub card_number_block_size: i64,
    #[serde(flatten)]
    pub card_numbers: CardNumberSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            v2_enabled: true,
            otp_type: CodeType::Alphanumeric,
            otp_length: 7,
            otp_validity_seconds: 300,
            otp_daily_limit: 10,
            otp_hourly_limit: None,
            otp_cooldown_seconds: 0,
            otp_reissue: Reissue::New,
            otp_channels: Vec::new(),
            otp_country_codes: Vec::new(),
            otp_hourly_messages: None,
            otp_threshold_mode: ThresholdMode::MinRemaining,
            attempt_count: 5,
            attempt_minutes: 15,
            card_numbers_enabled: false,
            card_number_accounts: Vec::new(),
            card_number_block_size: 1,
            card_numbers: CardNumberSettings::default(),
        }
    }
}

/// The top-level keys of an org's file.
pub const DEFINITION_KEYS: &[&str] = &[
    "id", "name", "timezone", "country_code", "national_mobile_length", "trunk_prefix", "sources", "config",
    "templates", "delivery", "test_identifiers",
];

/// The names of the keys of `[config]`.
pub const CONFIG_KEYS: &[&str] = &{
    let mut names = [""; CONFIG.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = CONFIG[i].name;
        i += 1;
    }
    names
};

/// The maximum validity of an OTP. No OTP that was issued longer ago is valid.
pub const MAX_OTP_VALIDITY: TimeDelta = TimeDelta::seconds(86_400);

/// The maximum number of card numbers that a process allocates at once.
pub const MAX_BLOCK_SIZE: i64 = 1000;

/// The problems of an invalid definition, one sentence each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct Invalid(pub Vec<String>);

/// An org with a valid definition.
#[derive(Debug, Clone)]
pub struct Org {
    pub definition: Definition,
    pub timezone: TimeZone,
    pub permutation_key: PermutationKey,
    /// Whether a profile joins the customer who has its mobile or e-mail address in another
    /// account. Until an upgrade has written the org-wide identities of all customers, it does not.
    pub customers_join: bool,
    phone_number_plan: PhoneNumberPlan,
    numbering_plan: Result<NumberingPlan, PlanError>,
}

/// Why an org generates no card numbers for the customers of an account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotNumbered {
    /// It generates none at all.
    #[error("card number generation is disabled")]
    Disabled,
    #[error("card number generation is not enabled for the account")]
    AccountNotEnabled,
    #[error(transparent)]
    PlanInvalid(PlanError),
}

/// Why the account of a request cannot be resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccountError {
    /// The source has several, and none was named.
    NotNamed,
    /// The source has no such account, or none at all.
    NotConfigured,
}

impl Org {
    /// Checks the settings that every request depends on. A wrong numbering plan is accepted: it
    /// prevents card numbers from being generated, but does not affect OTPs.
    ///
    /// # Errors
    /// [`Invalid`] with every problem found.
    pub fn new(definition: Definition, permutation_key: PermutationKey) -> Result<Self, Invalid> {
        let problems = problems(&definition);
        let timezone = TimeZone::named(&definition.timezone);
        match timezone {
            Some(timezone) if problems.is_empty() => Ok(Self {
                timezone,
                permutation_key,
                customers_join: false,
                phone_number_plan: definition.phone_number_plan(),
                numbering_plan: NumberingPlan::try_from(&definition.config.card_numbers),
                definition,
            }),
            _ => Err(Invalid(problems)),
        }
    }

    pub const fn id(&self) -> OrgId {
        self.definition.id
    }

    pub const fn config(&self) -> &Config {
        &self.definition.config
    }

    /// How long an OTP issued now is valid.
    pub const fn otp_validity(&self) -> TimeDelta {
        TimeDelta::seconds(self.definition.config.otp_validity_seconds)
    }

    pub fn otp_length(&self) -> usize {
        usize::try_from(self.config().otp_length).unwrap_or_default()
    }

    /// The rules for OTPs of a series that follow each other.
    pub const fn issue_rules(&self) -> IssueRules {
        let config = self.config();
        let cooldown = TimeDelta::seconds(config.otp_cooldown_seconds);
        IssueRules { cooldown, reissue: config.otp_reissue }
    }

    /// The texts of messages for `scope` that the request does not set: each text is that of the
    /// scope, else the default one of the org, else the built-in one.
    pub fn templates(&self, scope: Scope) -> Templates {
        let texts = |scope| self.definition.templates.get(&TemplateScope(scope));
        let mut templates = Templates::default();
        for texts in [texts(None), texts(Some(scope))].into_iter().flatten() {
            texts.replace_in(&mut templates);
        }
        templates
    }

    /// Whether messages can be sent by a channel. Without a `[delivery]` table, every channel is
    /// accepted and nothing is sent.
    pub fn accepts_channel(&self, channel: ChannelType) -> bool {
        self.definition.delivery.as_ref().is_none_or(|delivery| delivery.provider(channel).is_some())
    }

    /// Whether the messages of OTPs are sent.
    pub const fn sends_messages(&self) -> bool {
        self.definition.delivery.is_some()
    }

    /// Whether messages may be sent to a mobile number in normal form.
    pub fn allows_country_of(&self, mobile: &str) -> bool {
        let codes = &self.config().otp_country_codes;
        codes.is_empty() || codes.iter().any(|code| mobile.starts_with(code))
    }

    /// The fixed code of a test identifier. `None` for every other identifier.
    pub fn test_code(&self, identifier: &Identifier) -> Option<&str> {
        let is_same = |raw: &&String| {
            let name = test_identifier_name(raw);
            self.identifier(name, raw).is_ok_and(|test| test == *identifier)
        };
        let (_, code) = self.definition.test_identifiers.iter().find(|(raw, _)| is_same(raw))?;
        Some(code)
    }

    /// Whether a code is the fixed one of a test identifier.
    pub fn is_test_code(&self, code: &Code) -> bool {
        self.definition.test_identifiers.values().any(|fixed| fixed == code.expose())
    }

    pub fn attempt_limit(&self) -> AttemptLimit {
        AttemptLimit {
            count: usize::try_from(self.config().attempt_count).unwrap_or_default(),
            window: TimeDelta::minutes(self.config().attempt_minutes),
        }
    }

    /// The meaning of `threshold=seconds` in this org.
    pub const fn threshold(&self, seconds: u64) -> Threshold {
        Threshold { mode: self.definition.config.otp_threshold_mode, seconds }
    }

    /// The numbering plan.
    ///
    /// # Errors
    /// [`PlanError`] when the settings do not form a plan.
    pub const fn numbering_plan(&self) -> Result<&NumberingPlan, &PlanError> {
        self.numbering_plan.as_ref()
    }

    /// The numbering plan for customers of `account`.
    ///
    /// # Errors
    /// [`NotNumbered`] when the org generates no card numbers for them.
    pub fn numbering_plan_for(&self, account: &Account) -> Result<&NumberingPlan, NotNumbered> {
        if !self.config().card_numbers_enabled {
            return Err(NotNumbered::Disabled);
        }
        if !self.generates_for(account) {
            return Err(NotNumbered::AccountNotEnabled);
        }
        self.numbering_plan().map_err(|error| NotNumbered::PlanInvalid(error.clone()))
    }

    /// How many card numbers a process allocates at once: 1 to [`MAX_BLOCK_SIZE`].
    pub fn card_number_block_size(&self) -> u64 {
        u64::try_from(self.config().card_number_block_size).unwrap_or(1)
    }

    /// Whether card numbers are generated for customers of that account.
    pub fn generates_for(&self, account: &Account) -> bool {
        self.config().card_numbers_enabled && self.config().card_number_accounts.contains(account)
    }

    /// The normal form of an identifier in this org.
    ///
    /// # Errors
    /// [`Malformed`] when `raw` cannot be one of that kind.
    pub fn identifier(&self, name: IdentifierName, raw: &str) -> Result<Identifier, Malformed> {
        Identifier::new(name, raw, &self.phone_number_plan)
    }

    /// The normal form of an identifier that is stored in the normal form of this or an earlier
    /// version.
    ///
    /// # Errors
    /// [`Malformed`] when `stored` cannot be one of that kind any more.
    pub fn stored_identifier(&self, name: IdentifierName, stored: &str) -> Result<Identifier, Malformed> {
        match name {
            // A stored mobile number includes its country code.
            IdentifierName::Mobile => self.identifier(name, &format!("+{stored}")),
            _ => self.identifier(name, stored),
        }
    }

    /// The account that `source` and `account_id` name, and whether it was defaulted: an id that is
    /// absent or empty means the source's only account.
    ///
    /// # Errors
    /// [`AccountError`] when there is no such account, or none was named and the source has
    /// several.
    pub fn account(&self, source: Source, account_id: Option<&str>) -> Result<(Account, bool), AccountError> {
        let accounts = self.definition.accounts(source);
        let named = account_id.unwrap_or_default();
        let cleaned = typed_text::opaque_id(named);
        let same = accounts.iter().find(|id| id.0 == named);
        if let Some(id) = same.or_else(|| accounts.iter().find(|id| typed_text::opaque_id(&id.0) == cleaned))
        {
            return Ok((Account { source, id: id.clone() }, false));
        }
        match (cleaned.as_str(), accounts.as_slice()) {
            ("", [only]) => Ok((Account { source, id: only.clone() }, true)),
            ("", [_, _, ..]) => Err(AccountError::NotNamed),
            _ => Err(AccountError::NotConfigured),
        }
    }
}

impl Org {
    /// Every account of every source.
    pub fn accounts(&self) -> impl Iterator<Item = Account> {
        Source::ALL.iter().flat_map(|source| {
            self.definition.accounts(*source).into_iter().map(|id| Account { source: *source, id })
        })
    }
}

impl Definition {
    /// How the mobile numbers of the org's customers are normalized.
    pub fn phone_number_plan(&self) -> PhoneNumberPlan {
        PhoneNumberPlan {
            country_code: self.country_code.clone(),
            trunk_prefix: self.trunk_prefix.clone(),
            national_lengths: self.national_mobile_length.clone(),
        }
    }

    /// The accounts of a source. INSTORE always has the account `""`.
    pub(super) fn accounts(&self, source: Source) -> Vec<AccountId> {
        let named = self.sources.get(&source).into_iter().flatten();
        if source == Source::Instore {
            let own = Account::instore().id;
            return std::iter::once(&own).chain(named.filter(|id| **id != own)).cloned().collect();
        }
        named.cloned().collect()
    }
}

/// The kind of a test identifier, as the org's file writes it.
pub(super) fn test_identifier_name(raw: &str) -> IdentifierName {
    if raw.contains('@') { IdentifierName::Email } else { IdentifierName::Mobile }
}

/// The problems that prevent an org from being served.
pub(super) fn problems(definition: &Definition) -> Vec<String> {
    let mut problems = Vec::new();
    let mut require = |holds: bool, problem: &dyn Fn() -> String| {
        if !holds {
            problems.push(problem());
        }
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let config = &definition.config;
    require(!definition.name.trim().is_empty(), &|| "name is empty".to_owned());
    require(definition.id.0 > 0, &|| "id is 0; it must be a positive number".to_owned());
    require(TimeZone::named(&definition.timezone).is_some(), &|| {
        format!("timezone `{}` is not in the IANA database (an example is Asia/Kolkata)", definition.timezone)
    });
    let code = &definition.country_code;
    require((1..=3).contains(&code.len()) && digits(code) && !code.starts_with('0'), &|| {
        format!("country_code `{code}` is not 1 to 3 digits without a leading 0")
    });
    let lengths = &definition.national_mobile_length;
    require(!lengths.is_empty(), &|| "national_mobile_length is an empty list".to_owned());
    for length in lengths.iter() {
        require((4..=14).contains(&length), &|| {
            format!("national_mobile_length is {length}, not within 4 to 14")
        });
    }
    let trunk_prefix = &definition.trunk_prefix;
    require(trunk_prefix.len() <= 4 && digits(trunk_prefix), &|| {
        format!("trunk_prefix `{trunk_prefix}` is not 1 to 4 digits")
    });
    require(!trunk_prefix.starts_with("00") && trunk_prefix != code, &|| {
        format!("trunk_prefix `{trunk_prefix}` is how international numbers begin; leave it out")
    });
    let length = config.otp_length;
    require((4..=50).contains(&length), &|| {
        format!("CONF_OTP_LENGTH is {length}, not within 4 to 50; below 10,000 codes, one is guessed")
    });
    for (key, value, range) in [
        ("CONF_OTP_VALIDITY_SECONDS", config.otp_validity_seconds, 1..=MAX_OTP_VALIDITY.num_seconds()),
        ("CONF_OTP_DAILY_LIMIT", config.otp_daily_limit, 1..=1000),
        ("CONF_OTP_RATE_LIMIT_ONE_HOUR", config.otp_hourly_limit.unwrap_or(1), 1..=1_000_000),
        ("CONF_OTP_COOLDOWN_SECONDS", config.otp_cooldown_seconds, 0..=86_400),
        ("CONF_OTP_MESSAGES_PER_HOUR", config.otp_hourly_messages.unwrap_or(1), 1..=100_000_000),
        ("CONF_OTP_VALIDATE_RATE_LIMIT_COUNT", config.attempt_count, 1..=100),
        ("CONF_OTP_VALIDATE_RATE_LIMIT_MINUTE", config.attempt_minutes, 1..=1440),
        ("CONF_CARD_NUMBER_BLOCK_SIZE", config.card_number_block_size, 1..=MAX_BLOCK_SIZE),
    ] {
        require(range.contains(&value), &|| {
            format!("{key} is {value}, not within {} to {}", range.start(), range.end())
        });
    }
    for (source, accounts) in &definition.sources {
        for (i, AccountId(id)) in accounts.iter().enumerate() {
            let well_formed = id.len() <= 100 && !id.chars().any(|c| c == '#' || c.is_control());
            let named = *source == Source::Instore || !id.trim().is_empty();
            require(well_formed && named, &|| {
                format!(
                    "sources.{source}: account `{id}` is empty, longer than 100 bytes, or has a `#` or a control \
                     character in it"
                )
            });
            require(!accounts[..i].contains(&AccountId(id.clone())), &|| {
                format!("sources.{source}: account `{id}` is named twice")
            });
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{model::card_number::Algorithm, secret::Secret};

    fn demo() -> Definition {
        Definition {
            id: OrgId(966),
            name: "Demo Stores".into(),
            timezone: "Asia/Kolkata".into(),
            country_code: "91".into(),
            national_mobile_length: 10.into(),
            trunk_prefix: String::new(),
            templates: BTreeMap::new(),
            delivery: None,
            test_identifiers: BTreeMap::new(),
            sources: BTreeMap::from([
                (Source::Wechat, vec![AccountId("WECHAT-API1".into()), AccountId("WECHAT-API2".into())]),
                (Source::Martjack, vec![AccountId("SHOP".into())]),
            ]),
            config: Config::default(),
        }
    }

    fn org() -> Org {
        Org::new(demo(), Secret::new([0; 32])).unwrap()
    }

    fn account(source: Source, id: Option<&str>) -> Result<(String, bool), AccountError> {
        org().account(source, id).map(|(account, defaulted)| (account.id.0, defaulted))
    }

    #[test]
    fn instore_has_its_one_account_without_being_named() {
        assert_eq!(account(Source::Instore, None), Ok((String::new(), false)));
        assert_eq!(account(Source::Instore, Some("")), Ok((String::new(), false)));
        assert_eq!(account(Source::Instore, Some("X")), Err(AccountError::NotConfigured));
    }

    #[test]
    fn an_only_account_need_not_be_named_and_one_of_several_must() {
        assert_eq!(account(Source::Martjack, None), Ok(("SHOP".into(), true)));
        assert_eq!(account(Source::Martjack, Some("SHOP")), Ok(("SHOP".into(), false)));
        assert_eq!(account(Source::Wechat, None), Err(AccountError::NotNamed));
        assert_eq!(account(Source::Wechat, Some("wechat-api1")), Err(AccountError::NotConfigured));
        assert_eq!(
            account(Source::Wechat, Some(" WECHAT\u{2011}API1\u{200b}")),
            Ok(("WECHAT-API1".into(), false)),
            "as pasted"
        );
        assert_eq!(account(Source::Martjack, Some(" ")), Ok(("SHOP".into(), true)));
        assert_eq!(account(Source::Facebook, None), Err(AccountError::NotConfigured));
    }

    #[test]
    fn every_problem_of_a_definition_is_named() {
        let mut definition = demo();
        definition.timezone = "Asia/Nowhere".into();
        definition.country_code = "+91".into();
        definition.national_mobile_length = [3, 10].into_iter().collect();
        definition.trunk_prefix = "zero".into();
        definition.config.otp_length = 3;
        definition.config.otp_validity_seconds = 86_401;
        definition.config.attempt_count = 0;
        definition.config.card_number_block_size = 1001;
        definition.config.card_numbers_enabled = true;
        definition.config.card_number_accounts =
            vec![Account { source: Source::Wechat, id: AccountId("OTHER".into()) }];
        definition.sources.insert(
            Source::Line,
            vec![AccountId("a#b".into()), AccountId("x".into()), AccountId("x".into())],
        );
        let Invalid(problems) = definition.check().unwrap_err();
        for expected in [
            "timezone", "country_code", "national_mobile_length", "trunk_prefix", "CONF_OTP_LENGTH",
            "CONF_OTP_VALIDITY_SECONDS", "CONF_OTP_VALIDATE_RATE_LIMIT_COUNT",
            "CONF_CARD_NUMBER_BLOCK_SIZE is 1001, not within 1 to 1000",
            "CONF_CARD_NUMBER_LENGTH is missing", "`WECHAT:OTHER`", "a#b", "twice",
        ] {
            assert!(problems.iter().any(|p| p.contains(expected)), "{expected}: {problems:?}");
        }
        assert_eq!(problems.len(), 12, "{problems:?}");
    }

    #[test]
    fn a_wrong_numbering_plan_leaves_the_rest_of_the_org_usable() {
        let mut definition = demo();
        definition.config.card_numbers.algorithm = Some(Algorithm::Luhn);
        assert!(definition.check().is_err());
        let org = Org::new(definition, Secret::new([0; 32])).unwrap();
        assert!(matches!(org.numbering_plan(), Err(PlanError::Length(_))));
    }

    #[test]
    fn the_lists_of_keys_are_complete() {
        let mut definition = demo();
        definition.trunk_prefix = "0".into();
        definition.config.card_numbers = CardNumberSettings {
            length: Some(10),
            offset: Some(1),
            prefix: "1".into(),
            suffix: "2".into(),
            algorithm: Some(Algorithm::AutoInc),
            checksum_includes: Some(crate::model::card_number::ChecksumIncludes::None),
        };
        definition.config.otp_hourly_limit = Some(1000);
        definition.config.otp_hourly_messages = Some(5000);
        definition.config.otp_channels = vec![ChannelType::Sms];
        definition.config.otp_country_codes = vec!["91".into()];
        definition.templates.insert(TemplateScope(None), TemplateTexts::default());
        definition.delivery = Some(DeliverySettings::default());
        definition.test_identifiers.insert("919999900001".into(), "1234567".into());
        let json = serde_json::to_value(&definition).unwrap();
        let keys = |value: &serde_json::Value| -> BTreeSet<String> {
            value.as_object().unwrap().keys().cloned().collect()
        };
        let listed = |keys: &[&str]| -> BTreeSet<String> { keys.iter().map(|k| (*k).to_owned()).collect() };
        assert_eq!(keys(&json), listed(DEFINITION_KEYS));
        assert_eq!(keys(&json["config"]), listed(CONFIG_KEYS));
    }

    #[test]
    fn a_definition_survives_being_written_and_read() {
        let mut definition = demo();
        definition.config.card_numbers.length = Some(10);
        definition.config.card_number_accounts = vec![Account::instore()];
        let json = serde_json::to_string(&definition).unwrap();
        assert!(json.contains(r#""SOURCE_ACCOUNTS_EXTERNALID_ENABLED":["INSTORE:"]"#), "{json}");
        assert!(
            json.contains(r#""national_mobile_length":10,"sources""#),
            "as before lists and trunk prefixes: {json}"
        );
        assert_eq!(serde_json::from_str::<Definition>(&json).unwrap(), definition);
    }
}
