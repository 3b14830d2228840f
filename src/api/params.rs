//! Reads parameters of queries and paths and fields of JSON bodies, and converts them to values of
//! the model.

use std::{borrow::Cow, collections::HashMap};

use http::{HeaderMap, header};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    error::{ApiMessage, Gather, Problem, Problems},
    path::PathParameters,
};
use crate::{
    model::{
        customer::{Account, Identifier, IdentifierName, Malformed, Source},
        org::{AccountError, Org},
        otp::{Scope, Threshold},
        typed_text,
    },
    store::Place,
};

/// The decoded parameters of the query string and of the path. A blank value counts as absent.
pub struct Params {
    values: Vec<(String, Value)>,
    /// See [`Request::query_was_decoded`](super::Request::query_was_decoded).
    query_was_decoded: bool,
}

/// A decoded value, in two readings of a bare `+` in a query: as a space and as a plus. The kind of
/// value decides which one applies.
#[derive(PartialEq, Eq)]
struct Value {
    /// Read as an HTML form: a bare `+` is a space.
    form: String,
    /// Read with a bare `+` as a plus. Both readings have the same length.
    plus: String,
}

impl Params {
    /// Reads `query`, which is form-encoded, and the parameters in the path, where `+` is a plus.
    ///
    /// # Errors
    /// [`Problem::PathAmbiguous`] for a path whose parameters cannot be separated.
    pub fn parse(
        query: &str,
        query_was_decoded: bool,
        in_path: Option<&PathParameters<'_>>,
    ) -> Result<Self, Problem> {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let form = |text: &str| decode(&text.replace('+', " "));
        let in_path = in_path.map(PathParameters::pairs).transpose()?.unwrap_or_default().into_iter();
        let in_path = in_path.map(|(name, value)| (name, Value { form: value.clone(), plus: value }));
        let in_query = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let in_query =
            in_query.map(|(name, value)| (form(name), Value { form: form(value), plus: decode(value) }));
        Ok(Self { values: in_path.chain(in_query).collect(), query_was_decoded })
    }

    /// Reads an identifier. Callers often forget to encode a plus. Before a mobile number and
    /// inside an e-mail address, a bare `+` is read as a plus, because no space can be there.
    ///
    /// If the query was decoded before, nobody knows whether a space before a mobile number was a
    /// plus. Where that makes two numbers, none of them is read.
    fn read_identifier(&self, org: &Org, name: IdentifierName, value: &Value) -> Result<Identifier, Problem> {
        match name {
            IdentifierName::Mobile => {
                let mobile = identifier(org, name, &with_leading_plus(value))?;
                let with_space = identifier(org, name, &value.form);
                if self.query_was_decoded && with_space.is_ok_and(|other| other != mobile) {
                    return Err(Problem::MobileMalformed);
                }
                Ok(mobile)
            }
            IdentifierName::Email => identifier(org, name, with_inner_plus(value)),
            _ => identifier(org, name, &value.form),
        }
    }

    /// The values of a parameter that are not blank.
    fn values(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.values
            .iter()
            .filter(move |(key, value)| key == name && !typed_text::is_absent(&value.form))
            .map(|(_, value)| value)
    }

    fn value(&self, name: &str) -> Result<Option<&Value>, Problem> {
        only(self.values(name))
    }

    fn get(&self, name: &str) -> Result<Option<&str>, Problem> {
        only(self.values(name).map(|value| typed_text::trim(&value.form)))
    }

    /// `source` and `accountId`.
    pub fn account(&self, org: &Org, default: Option<Source>) -> Result<(Account, Warning), Problems> {
        account(org, self.get("source")?, default, self.get("accountId")?)
    }

    /// `identifierName` with `identifierValue`, or `<identifier name>=<value>`, or both if they
    /// agree.
    pub fn identifier(&self, org: &Org) -> Result<Identifier, Problems> {
        let (name, value) = (self.get("identifierName")?, self.value("identifierValue")?);
        let mut candidates = Vec::new();
        for shorthand in ["mobile", "email", "external_id", "externalId", "wechat"] {
            if let (Some(value), Some(name)) = (self.value(shorthand)?, IdentifierName::parse(shorthand)) {
                candidates.push(self.read_identifier(org, name, value)?);
            }
        }
        let of_otps = |text| IdentifierName::parse(text).filter(|name| name.receives_otps());
        match (name.map(of_otps), value) {
            (Some(None), Some(_)) => return Err(Problem::IdentifierNameUnknown.into()),
            (Some(None), None) => {
                return Err(Problems(vec![Problem::IdentifierNameUnknown, Problem::IdentifierValueMissing]));
            }
            (Some(Some(name)), Some(value)) => candidates.push(self.read_identifier(org, name, value)?),
            (Some(Some(name)), None) if candidates.iter().any(|c| c.name() != name) => {
                return Err(Problem::IdentifiersDiffer.into());
            }
            (None, Some(_)) => return Err(Problem::IdentifierNameMissing.into()),
            (Some(Some(_)) | None, None) => {}
        }
        let Some(identifier) = candidates.pop() else {
            let missing = [
                (name.is_none(), Problem::IdentifierNameMissing),
                (value.is_none(), Problem::IdentifierValueMissing),
            ];
            return Err(Problems(missing.iter().filter(|(missing, _)| *missing).map(|(_, p)| *p).collect()));
        };
        if candidates.iter().any(|other| *other != identifier) {
            return Err(Problem::IdentifiersDiffer.into());
        }
        Ok(identifier)
    }

    /// `identifierName` with `identifierValue`, of any kind.
    pub fn lookup_identifier(&self, org: &Org) -> Result<Identifier, Problems> {
        let name = self.get("identifierName").map_err(Problems::from).and_then(|text| {
            let text = text.ok_or(Problem::IdentifierNameMissing)?;
            Ok(IdentifierName::parse(text).ok_or(Problem::IdentifierNameUnknown)?)
        });
        let value = self.value("identifierValue").map_err(Problems::from);
        let value = value.and_then(|value| Ok(value.ok_or(Problem::IdentifierValueMissing)?));
        let (name, value) = (name, value).gather()?;
        Ok(self.read_identifier(org, name, value)?)
    }

    /// `source`, which may be `ALL`, and `accountId`.
    pub fn place(&self, org: &Org, default: Option<Source>) -> Result<(Place, Warning), Problems> {
        if self.get("source")?.is_some_and(|source| source.eq_ignore_ascii_case(ALL_SOURCES)) {
            return Ok((Place::Everywhere, None));
        }
        let (account, warning) = self.account(org, default)?;
        Ok((Place::Account(account), warning))
    }

    /// `scope`.
    pub fn scope(&self) -> Result<Scope, Problems> {
        scope(self.get("scope")?)
    }

    /// `threshold`, as the org's configuration interprets it.
    pub fn threshold(&self, org: &Org) -> Result<Option<Threshold>, Problems> {
        // As it was sent: in a query, a bare `+` is a space, and `+1` is no whole number.
        let exact = self.values.iter().filter(|(key, value)| key == "threshold" && !value.form.is_empty());
        let Some(text) = only(exact.map(|(_, value)| value.form.as_str()))? else {
            return Ok(None);
        };
        let seconds = whole_number(text).filter(|seconds| i64::try_from(*seconds).is_ok());
        Ok(Some(org.threshold(seconds.ok_or(Problem::ThresholdInvalid)?)))
    }
}

/// A number in digits. `parse` alone would accept a sign.
pub(super) fn whole_number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()))
}

/// The value of a parameter. If it is passed more than once, all values must be equal.
fn only<T: PartialEq>(mut values: impl Iterator<Item = T>) -> Result<Option<T>, Problem> {
    let first = values.next();
    if values.any(|value| Some(&value) != first.as_ref()) {
        return Err(Problem::ParameterRepeated);
    }
    Ok(first)
}

/// Restores a bare `+` before a number. What may stand before the plus is skipped. A number with an
/// international prefix after its spaces is left as it is.
fn with_leading_plus(value: &Value) -> Cow<'_, str> {
    let form = typed_text::number(&value.form).to_ascii_lowercase();
    let plus = typed_text::number(&value.plus).to_ascii_lowercase();
    let number = without_decoration(&form);
    if without_decoration(&plus).starts_with('+') && !["+", "00"].iter().any(|p| number.starts_with(p)) {
        format!("+{number}").into()
    } else {
        form.into()
    }
}

/// The number behind what may stand before its first digit or plus: `tel:`, spaces, brackets and
/// signs.
fn without_decoration(text: &str) -> &str {
    let mut number = text.strip_prefix("tel:").unwrap_or(text);
    loop {
        let rest = number.strip_prefix("(0)").unwrap_or(number);
        let rest = rest.strip_prefix([' ', '(', ')', '-', '.', '/']).unwrap_or(rest);
        if rest == number {
            return number;
        }
        number = rest;
    }
}

/// Restores a bare `+` inside an address. Around it, a bare `+` is a space.
fn with_inner_plus(value: &Value) -> &str {
    let start = value.form.len() - value.form.trim_start().len();
    let end = value.form.trim_end().len();
    value.plus.get(start..end).unwrap_or_default()
}

fn identifier(org: &Org, name: IdentifierName, value: &str) -> Result<Identifier, Problem> {
    org.identifier(name, value).map_err(|Malformed(name)| match name {
        IdentifierName::Mobile => Problem::MobileMalformed,
        IdentifierName::Email => Problem::EmailMalformed,
        _ => Problem::IdentifierValueMalformed,
    })
}

/// The warning for an account that was defaulted.
pub type Warning = Option<ApiMessage>;

/// Stands for every account of every source where customers are looked up.
pub(super) const ALL_SOURCES: &str = "ALL";

fn account(
    org: &Org,
    source: Option<&str>,
    default: Option<Source>,
    account_id: Option<&str>,
) -> Result<(Account, Warning), Problems> {
    let source = match source {
        Some(text) => Source::parse(text).ok_or(Problem::SourceUnknown)?,
        None => default.ok_or(Problem::SourceMissing)?,
    };
    let (account, defaulted) = org.account(source, account_id).map_err(|error| match error {
        AccountError::NotNamed => Problem::AccountMissing,
        AccountError::NotConfigured => Problem::AccountNotConfigured,
    })?;
    Ok((account, defaulted.then_some(ApiMessage::ACCOUNT_DEFAULTED)))
}

fn scope(text: Option<&str>) -> Result<Scope, Problems> {
    Ok(text.and_then(Scope::parse).ok_or(Problem::ScopeInvalid)?)
}

/// An object of a JSON body. A field that is absent, null or an empty text counts as absent. If a
/// field is repeated, the last one counts.
///
/// Fields are kept as JSON text, so that numbers keep all of their digits.
#[derive(Deserialize)]
pub struct JsonFields<'a>(#[serde(borrow)] HashMap<String, &'a RawValue>);

/// Reads a JSON body.
///
/// # Errors
/// A wrong content type, or a body that is not a JSON object. A request without a content type is
/// accepted.
pub fn json_object<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<JsonFields<'a>, Problem> {
    if let Some(content_type) = headers.get(header::CONTENT_TYPE) {
        let essence = content_type.to_str().unwrap_or_default().split(';').next().unwrap_or_default();
        if !essence.trim().eq_ignore_ascii_case("application/json") {
            return Err(Problem::ContentTypeUnsupported);
        }
    }
    // RFC 8259, section 8.1: a byte order mark may be ignored.
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    serde_json::from_slice(body).map_err(|_| Problem::BodyMalformed)
}

impl<'a> JsonFields<'a> {
    /// The JSON text of a field.
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|value| value.get()).filter(|json| !matches!(*json, "null" | "\"\""))
    }

    /// A field that must be text if it is present, trimmed. Blank text counts as absent. A whole
    /// number is read as its digits.
    pub fn text(&self, name: &str, type_error: Problem) -> Result<Option<Cow<'a, str>>, Problem> {
        let text = self.exact_text(name, type_error)?.filter(|text| !typed_text::is_absent(text));
        Ok(text.map(|text| match text {
            Cow::Borrowed(text) => typed_text::trim(text).into(),
            Cow::Owned(text) => typed_text::trim(&text).to_owned().into(),
        }))
    }

    /// The same as [`Self::text`], without trimming: for templates, and for passwords.
    pub fn exact_text(&self, name: &str, type_error: Problem) -> Result<Option<Cow<'a, str>>, Problem> {
        let Some(json) = self.get(name) else {
            return Ok(None);
        };
        if json.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(Some(json.into()));
        }
        serde_json::from_str::<String>(json).map(|text| Some(text.into())).map_err(|_| type_error)
    }

    /// A field that must be an object if it is present.
    pub fn object(&self, name: &str, type_error: Problem) -> Result<Option<Self>, Problem> {
        self.get(name).map(|json| serde_json::from_str(json).map_err(|_| type_error)).transpose()
    }

    /// A field that must be an array of objects if it is present.
    pub fn objects(&self, name: &str, type_error: Problem) -> Result<Vec<Self>, Problem> {
        let entries = self.get(name).map(|json| serde_json::from_str(json).map_err(|_| type_error));
        Ok(entries.transpose()?.unwrap_or_default())
    }

    /// `source` and `accountId`.
    pub fn account(&self, org: &Org, default: Option<Source>) -> Result<(Account, Warning), Problems> {
        let source = self.text("source", Problem::SourceNotText)?;
        let account_id = self.text("accountId", Problem::AccountNotText)?;
        account(org, source.as_deref(), default, account_id.as_deref())
    }

    /// `entityType` and `entityValue`.
    pub fn entity(&self, org: &Org) -> Result<Identifier, Problems> {
        let name = self.text("entityType", Problem::EntityTypeNotText).map_err(Problems::from);
        let name = name.and_then(|text| {
            let name = text.as_deref().and_then(IdentifierName::parse).filter(|name| name.receives_otps());
            Ok(name.ok_or(Problem::EntityTypeInvalid)?)
        });
        let value = self.text("entityValue", Problem::EntityValueNotText).map_err(Problems::from);
        let value = value.and_then(|text| Ok(text.ok_or(Problem::EntityValueMissing)?));
        let (name, value) = (name, value).gather()?;
        Ok(identifier(org, name, &value)?)
    }

    /// `type` and `value` of an identifier of any kind.
    pub fn identifier(&self, org: &Org) -> Result<Identifier, Problems> {
        let name =
            self.text("type", Problem::IdentifierNameNotText)?.ok_or(Problem::IdentifierNameMissing)?;
        let name = IdentifierName::parse(&name).ok_or(Problem::IdentifierNameUnknown)?;
        let value = self.text("value", Problem::IdentifierValueNotText)?;
        Ok(identifier(org, name, &value.ok_or(Problem::IdentifierValueMissing)?)?)
    }

    /// `action`.
    pub fn action(&self) -> Result<Scope, Problems> {
        scope(self.text("action", Problem::ScopeNotText)?.as_deref())
    }
}
