//! Reading requests: parameters of the query and of the path, members of JSON bodies, and the model's
//! values in both.

use http::{HeaderMap, header};
use serde_json::{Map, Value};

use super::{
    error::{ApiMessage, Gather, Problem, Problems},
    path::PathParameters,
};
use crate::model::{
    customer::{Account, Identifier, IdentifierName, Malformed, Source},
    org::{AccountError, Org},
    otp::{Scope, Threshold},
};

/// Parameters of the query string and of the path-style spelling, decoded. An empty value is as good
/// as none.
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Reads `query`, which is written as HTML forms write it, and the parameters that stand in the path.
    ///
    /// # Errors
    /// [`Problem::PathAmbiguous`] for a path whose parameters cannot be told apart.
    pub fn parse(query: &str, in_path: Option<&PathParameters<'_>>) -> Result<Self, Problem> {
        let mut pairs = in_path.map(PathParameters::pairs).transpose()?.unwrap_or_default();
        pairs.extend(form_urlencoded::parse(query.as_bytes()).into_owned());
        Ok(Self(pairs))
    }

    /// The value of a parameter. Passed twice, it must be the same twice.
    fn get(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(key, value)| key == name && !value.is_empty());
        let first = values.next().map(|(_, value)| value.as_str());
        if values.any(|(_, value)| Some(value.as_str()) != first) {
            return Err(Problem::ParameterRepeated);
        }
        Ok(first)
    }

    /// `source` and `accountId`.
    pub fn account(&self, org: &Org, default: Option<Source>) -> Result<ResolvedAccount, Problems> {
        account(org, self.get("source")?, default, self.get("accountId")?)
    }

    /// `identifierName` with `identifierValue`, or `<identifier name>=<value>`, or both if they say the same.
    pub fn identifier(&self, org: &Org) -> Result<Identifier, Problems> {
        let (name, value) = (self.get("identifierName")?, self.get("identifierValue")?);
        let mut candidates = Vec::new();
        for shorthand in ["mobile", "email", "external_id", "externalId", "wechat"] {
            if let (Some(value), Some(name)) = (self.get(shorthand)?, IdentifierName::parse(shorthand)) {
                candidates.push(identifier_in_query(org, name, value)?);
            }
        }
        match (name.map(IdentifierName::parse), value) {
            (Some(None), Some(_)) => return Err(Problem::IdentifierNameUnknown.into()),
            (Some(None), None) => {
                return Err(Problems(vec![Problem::IdentifierNameUnknown, Problem::IdentifierValueMissing]));
            }
            (Some(Some(name)), Some(value)) => candidates.push(identifier_in_query(org, name, value)?),
            (Some(Some(name)), None) if candidates.iter().any(|c| c.name() != name) => {
                return Err(Problem::IdentifiersDiffer.into());
            }
            (None, Some(_)) => return Err(Problem::IdentifierNameMissing.into()),
            (Some(Some(_)) | None, None) => {}
        }
        let Some(identifier) = candidates.pop() else {
            let missing = [(name, Problem::IdentifierNameMissing), (value, Problem::IdentifierValueMissing)];
            return Err(Problems(missing.iter().filter(|(v, _)| v.is_none()).map(|(_, p)| *p).collect()));
        };
        if candidates.iter().any(|other| *other != identifier) {
            return Err(Problem::IdentifiersDiffer.into());
        }
        Ok(identifier)
    }

    /// `scope`.
    pub fn scope(&self) -> Result<Scope, Problems> {
        scope(self.get("scope")?)
    }

    /// `threshold`, in the meaning that the org gives it.
    pub fn threshold(&self, org: &Org) -> Result<Option<Threshold>, Problems> {
        let Some(text) = self.get("threshold")? else {
            return Ok(None);
        };
        // `parse` alone would take a sign.
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let seconds = text.parse().ok().filter(|seconds| digits && i64::try_from(*seconds).is_ok());
        Ok(Some(org.threshold(seconds.ok_or(Problem::ThresholdInvalid)?)))
    }
}

/// In a query `+` stands for a space. A mobile number never begins with one, but often with `+`, and
/// callers forget to encode it; unless the number says after its spaces, too, that it is international.
fn identifier_in_query(org: &Org, name: IdentifierName, value: &str) -> Result<Identifier, Problem> {
    let international = ["+", "00"].iter().any(|prefix| value.trim_start().starts_with(prefix));
    match value.strip_prefix(' ') {
        Some(rest) if name == IdentifierName::Mobile && !international => {
            identifier(org, name, &format!("+{rest}"))
        }
        _ => identifier(org, name, value),
    }
}

fn identifier(org: &Org, name: IdentifierName, value: &str) -> Result<Identifier, Problem> {
    org.identifier(name, value).map_err(|Malformed(name)| match name {
        IdentifierName::Mobile => Problem::MobileMalformed,
        IdentifierName::Email => Problem::EmailMalformed,
        IdentifierName::ExternalId | IdentifierName::Wechat => Problem::IdentifierValueMalformed,
    })
}

/// The account that a request is about, and the warning that it was not named.
#[derive(Debug, Clone)]
pub struct ResolvedAccount {
    pub account: Account,
    pub warning: Option<ApiMessage>,
}

fn account(
    org: &Org,
    source: Option<&str>,
    default: Option<Source>,
    account_id: Option<&str>,
) -> Result<ResolvedAccount, Problems> {
    let source = match source {
        Some(text) => Source::parse(text).ok_or(Problem::SourceUnknown)?,
        None => default.ok_or(Problem::SourceMissing)?,
    };
    let resolved = org.account(source, account_id).map_err(|error| match error {
        AccountError::NotNamed => Problem::AccountMissing,
        AccountError::NotConfigured => Problem::AccountNotConfigured,
    })?;
    let warning = resolved.defaulted.then_some(ApiMessage::ACCOUNT_DEFAULTED);
    Ok(ResolvedAccount { account: resolved.account, warning })
}

fn scope(text: Option<&str>) -> Result<Scope, Problems> {
    Ok(text.and_then(Scope::parse).ok_or(Problem::ScopeInvalid)?)
}

/// An object of a JSON body. A member that is absent, null or an empty text is as good as none.
pub struct JsonFields<'a>(&'a Map<String, Value>);

/// Reads a JSON body.
///
/// # Errors
/// A wrong content type, or a body that is no JSON object. A request without a content type is taken at
/// its word.
pub fn json_object(headers: &HeaderMap, body: &[u8]) -> Result<Map<String, Value>, Problem> {
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
    pub const fn new(object: &'a Map<String, Value>) -> Self {
        Self(object)
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    /// A member that must be text if it is there.
    pub fn text(&self, name: &str, type_error: Problem) -> Result<Option<&'a str>, Problem> {
        self.get(name).map(|value| value.as_str().ok_or(type_error)).transpose()
    }

    /// A member that must be an object if it is there.
    pub fn object(&self, name: &str, type_error: Problem) -> Result<Option<Self>, Problem> {
        self.get(name).map(|value| value.as_object().map(JsonFields).ok_or(type_error)).transpose()
    }

    /// A member that must be an array of objects if it is there.
    pub fn objects(&self, name: &str, type_error: Problem) -> Result<Vec<Self>, Problem> {
        let Some(value) = self.get(name) else {
            return Ok(Vec::new());
        };
        let entries = value.as_array().ok_or(type_error)?;
        entries.iter().map(|entry| entry.as_object().map(JsonFields).ok_or(type_error)).collect()
    }

    /// `source` and `accountId`.
    pub fn account(&self, org: &Org, default: Option<Source>) -> Result<ResolvedAccount, Problems> {
        let source = self.text("source", Problem::SourceUnknown)?;
        account(org, source, default, self.text("accountId", Problem::AccountNotConfigured)?)
    }

    /// `entityType` and `entityValue`.
    pub fn entity(&self, org: &Org) -> Result<Identifier, Problems> {
        let name = self.text("entityType", Problem::EntityTypeInvalid).map_err(Problems::from);
        let name = name
            .and_then(|text| Ok(text.and_then(IdentifierName::parse).ok_or(Problem::EntityTypeInvalid)?));
        let value = self.text("entityValue", Problem::EntityValueMissing).map_err(Problems::from);
        let value = value.and_then(|text| Ok(text.ok_or(Problem::EntityValueMissing)?));
        let (name, value) = (name, value).gather()?;
        Ok(identifier(org, name, value)?)
    }

    /// `type` and `value` of an identifier in a profile.
    pub fn identifier(&self, org: &Org) -> Result<Identifier, Problems> {
        let name =
            self.text("type", Problem::IdentifierNameUnknown)?.ok_or(Problem::IdentifierNameMissing)?;
        let name = IdentifierName::parse(name).ok_or(Problem::IdentifierNameUnknown)?;
        let value =
            self.text("value", Problem::IdentifierValueMalformed)?.ok_or(Problem::IdentifierValueMissing)?;
        Ok(identifier(org, name, value)?)
    }

    /// `action`.
    pub fn action(&self) -> Result<Scope, Problems> {
        scope(self.text("action", Problem::ScopeInvalid)?)
    }
}
