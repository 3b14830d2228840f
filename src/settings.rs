//! The environment variables of a process, read once.

use std::{env::VarError, path::PathBuf};

use http::uri::{Scheme, Uri};

/// The settings of a process. [`crate::logging`] reads `RUST_LOG`. The AWS SDK reads the region and
/// the credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `TABLE_NAME`: the DynamoDB table.
    pub table: String,
    /// `BASE_PATH`: the path that a custom domain puts before each route, such as `/codes`. Empty
    /// if there is none.
    pub base_path: String,
    /// `AWS_CA_BUNDLE`: a PEM file of the roots to trust instead of Amazon's.
    pub ca_bundle: Option<PathBuf>,
    /// `AWS_ENDPOINT_URL_DYNAMODB`, or else `AWS_ENDPOINT_URL`: the DynamoDB endpoint, if it is not
    /// the region's.
    pub endpoint: Option<String>,
}

/// The settings of a process that sends messages, beside [`Settings`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProviderSettings {
    /// `AWS_ENDPOINT_URL_PINPOINT_SMS_VOICE_V2`, or else `AWS_ENDPOINT_URL`: the endpoint of End
    /// User Messaging, if it is not the region's.
    pub sms_endpoint: Option<String>,
    /// `AWS_ENDPOINT_URL_SESV2`, or else `AWS_ENDPOINT_URL`: the endpoint of Amazon SES.
    pub email_endpoint: Option<String>,
    /// `WEBHOOK_ALLOW_PRIVATE=1`: webhooks may be at private addresses, and over plain HTTP.
    pub allow_private_webhooks: bool,
}

/// A variable that cannot be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {reason}")]
pub struct InvalidSetting {
    pub variable: &'static str,
    pub reason: String,
}

/// The table's name where `TABLE_NAME` is not set.
pub const DEFAULT_TABLE: &str = "loyalty-codes";

/// The variables that can set the DynamoDB endpoint. The first one that is set is used.
pub const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_DYNAMODB", "AWS_ENDPOINT_URL"];

const ALLOW_PRIVATE: &str = "WEBHOOK_ALLOW_PRIVATE";

impl Settings {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// [`InvalidSetting`] for the first variable that cannot be used.
    pub fn from_env() -> Result<Self, InvalidSetting> {
        Self::read(variable)
    }

    fn read(
        get: impl Fn(&'static str) -> Result<Option<String>, InvalidSetting>,
    ) -> Result<Self, InvalidSetting> {
        let table = get("TABLE_NAME")?.unwrap_or_else(|| DEFAULT_TABLE.to_owned());
        let get = |variable| Ok(get(variable)?.filter(|value| !value.is_empty()));
        let endpoint = endpoint(get, ENDPOINT_VARIABLES)?;
        Ok(Self {
            table: check_table_name(table)?,
            base_path: get("BASE_PATH")?.map_or_else(|| Ok(String::new()), |path| read_base_path(&path))?,
            ca_bundle: get("AWS_CA_BUNDLE")?.map(PathBuf::from),
            endpoint,
        })
    }
}

impl ProviderSettings {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// [`InvalidSetting`] for the first variable that cannot be used.
    pub fn from_env() -> Result<Self, InvalidSetting> {
        Self::read(variable)
    }

    fn read(
        get: impl Fn(&'static str) -> Result<Option<String>, InvalidSetting>,
    ) -> Result<Self, InvalidSetting> {
        let get = |variable| Ok(get(variable)?.filter(|value| !value.is_empty()));
        let allow_private_webhooks = match get(ALLOW_PRIVATE)?.as_deref() {
            Some("1") => true,
            Some("0") | None => false,
            Some(other) => {
                let reason = format!("`{other}` is neither `1` nor `0`");
                return Err(InvalidSetting { variable: ALLOW_PRIVATE, reason });
            }
        };
        Ok(Self {
            sms_endpoint: endpoint(get, ["AWS_ENDPOINT_URL_PINPOINT_SMS_VOICE_V2", ENDPOINT_VARIABLES[1]])?,
            email_endpoint: endpoint(get, ["AWS_ENDPOINT_URL_SESV2", ENDPOINT_VARIABLES[1]])?,
            allow_private_webhooks,
        })
    }
}

/// The endpoint in the first of `variables` that is set. All of them are checked.
fn endpoint(
    get: impl Fn(&'static str) -> Result<Option<String>, InvalidSetting>,
    variables: [&'static str; 2],
) -> Result<Option<String>, InvalidSetting> {
    let mut endpoint = None;
    for variable in variables {
        if let Some(url) = get(variable)? {
            let checked = check_endpoint(&url).map_err(|reason| InvalidSetting { variable, reason })?;
            endpoint = endpoint.or(Some(checked));
        }
    }
    Ok(endpoint)
}

/// An environment variable, if it is set.
///
/// # Errors
/// [`InvalidSetting`] when its value is not UTF-8.
pub fn variable(variable: &'static str) -> Result<Option<String>, InvalidSetting> {
    match std::env::var(variable) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(InvalidSetting { variable, reason: "is not UTF-8".to_owned() }),
    }
}

/// Returns `url` if the SDK can send requests to it. Checked here because the SDK's own error for a
/// wrong URL contains the whole request.
///
/// # Errors
/// The reason, as text for the operator.
pub fn check_endpoint(url: &str) -> Result<String, String> {
    let uri: Option<Uri> = url.parse().ok();
    let well_formed = uri.is_some_and(|uri| {
        let host = uri.host().unwrap_or_default();
        let port = uri.authority().and_then(|authority| authority.as_str().strip_prefix(host));
        let port = port
            .map(|port| port.strip_prefix(':').map_or(port.is_empty(), |port| port.parse::<u16>().is_ok()));
        uri.scheme().is_some_and(|scheme| *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS)
            && !host.is_empty()
            && port == Some(true)
            && uri.query().is_none()
    });
    if well_formed {
        Ok(url.to_owned())
    } else {
        let shown = if url.contains('@') { "a URL with a user name" } else { &format!("`{url}`") };
        Err(format!("{shown} is not an endpoint; the form is http://HOST:PORT or https://HOST"))
    }
}

/// Returns `name` if it can be part of a host name, as the endpoint of a region requires.
///
/// # Errors
/// [`InvalidSetting`] for `AWS_REGION` when it is missing or is not a host label.
pub fn check_region(name: Option<&str>) -> Result<&str, InvalidSetting> {
    let invalid = |reason| InvalidSetting { variable: "AWS_REGION", reason };
    let name = name.filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| invalid("not set, and nothing else names a region".to_owned()))?;
    let well_formed = name.len() <= 63
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if well_formed {
        Ok(name)
    } else {
        Err(invalid(format!("`{name}` is not a region; an example is us-east-1")))
    }
}

/// Returns `name` if it follows AWS's rules for table names (`CreateTable`, parameter `TableName`).
///
/// # Errors
/// [`InvalidSetting`] for `TABLE_NAME` when it does not.
pub fn check_table_name(name: String) -> Result<String, InvalidSetting> {
    let well_formed = (3..=255).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if well_formed {
        Ok(name)
    } else {
        let reason = format!("`{name}` is not a table name: 3 to 255 characters of A-Z a-z 0-9 _ - .");
        Err(InvalidSetting { variable: "TABLE_NAME", reason })
    }
}

/// Normalizes a base path: a leading slash and no trailing slash; `/` becomes empty. The allowed
/// characters are those of an API mapping key in API Gateway.
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/rest-api-mappings.html>
fn read_base_path(path: &str) -> Result<String, InvalidSetting> {
    let segments = path.strip_prefix('/').unwrap_or(path);
    let segments = segments.strip_suffix('/').unwrap_or(segments);
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"$-_.+!*'()".contains(&b);
    let well_formed = |segment: &str| !segment.is_empty() && segment.bytes().all(allowed);
    if segments.is_empty() {
        Ok(String::new())
    } else if segments.split('/').all(well_formed) {
        Ok(format!("/{segments}"))
    } else {
        let reason =
            format!("`{path}` is not a path: segments of A-Z a-z 0-9 $ - _ . + ! * ' ( ) between slashes");
        Err(InvalidSetting { variable: "BASE_PATH", reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The settings with one variable set.
    fn read(variable: &str, value: &str) -> Result<Settings, InvalidSetting> {
        Settings::read(|name| Ok((name == variable).then(|| value.to_owned())))
    }

    #[test]
    fn an_empty_environment_gives_the_defaults() {
        let settings = Settings::read(|_| Ok(None)).unwrap();
        assert_eq!(settings, Settings { table: "loyalty-codes".into(), ..Settings::default() });
    }

    #[test]
    fn a_wrong_table_name_is_refused_by_the_name_of_its_variable() {
        for name in ["", "ab", "a b c", "tablé"] {
            let error = read("TABLE_NAME", name).unwrap_err();
            assert_eq!(error.variable, "TABLE_NAME");
            assert!(error.to_string().contains("not a table name"), "{error}");
        }
    }

    #[test]
    fn a_wrong_endpoint_is_refused_by_the_name_of_its_variable() {
        for variable in ENDPOINT_VARIABLES {
            for url in [
                "127.0.0.1:8000", "foo", "http://", "http:///x", "http://a b", "http://:8000", "http://a:",
                "http://a:99999", "http://a:b", "http://user:secret@a", "http://a?b", "ftp://a", " http://a",
                "http://a\n",
            ] {
                let error = read(variable, url).unwrap_err();
                assert_eq!(error.variable, variable, "{url}");
                assert!(error.to_string().contains(url) != url.contains('@'), "{error}");
            }
            for url in
                ["http://127.0.0.1:8000", "https://dynamodb.us-east-1.amazonaws.com/", "http://[::1]:8000"]
            {
                assert_eq!(read(variable, url).unwrap().endpoint.as_deref(), Some(url));
            }
            assert_eq!(read(variable, "").unwrap().endpoint, None);
        }
    }

    #[test]
    fn providers_have_endpoints_of_their_own() {
        let read = |pairs: &[(&str, &str)]| {
            ProviderSettings::read(|name| {
                Ok(pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
            })
        };
        assert_eq!(read(&[]), Ok(ProviderSettings::default()));
        let shared = ("AWS_ENDPOINT_URL", "http://a");
        let settings = read(&[shared, ("AWS_ENDPOINT_URL_SESV2", "http://b"), (ALLOW_PRIVATE, "1")]).unwrap();
        assert_eq!(settings.sms_endpoint.as_deref(), Some("http://a"));
        assert_eq!(settings.email_endpoint.as_deref(), Some("http://b"));
        assert!(settings.allow_private_webhooks);
        for (variable, value) in [
            (ALLOW_PRIVATE, "true"),
            ("AWS_ENDPOINT_URL_PINPOINT_SMS_VOICE_V2", "sms"),
            ("AWS_ENDPOINT_URL_SESV2", "http://"),
        ] {
            assert_eq!(read(&[(variable, value)]).unwrap_err().variable, variable);
        }
    }

    #[test]
    fn a_region_that_makes_no_host_name_is_refused() {
        for name in ["us-east-1", "local", "cn-north-1"] {
            assert_eq!(check_region(Some(name)), Ok(name));
        }
        let long = "x".repeat(64);
        for name in ["us east", "us-east-1\n", "-us", "us-", "a.b", "us_east_1", "a/b", "@", &long] {
            assert!(check_region(Some(name)).unwrap_err().to_string().contains("AWS_REGION: `"), "{name}");
        }
        for missing in [None, Some("")] {
            assert!(check_region(missing).unwrap_err().to_string().contains("not set"));
        }
    }

    #[test]
    fn a_base_path_begins_with_a_slash_and_ends_without_one() {
        let read = |path: &str| read("BASE_PATH", path);
        for (path, expected) in
            [("", ""), ("/", ""), ("codes", "/codes"), ("/codes/", "/codes"), ("a/b-1", "/a/b-1")]
        {
            assert_eq!(read(path).unwrap().base_path, expected, "{path}");
        }
        for path in ["/codes//", "//a", "a//b", "/co des", "/cod%65s", "/c?x", "https://example.com", "/ü"] {
            let error = read(path).unwrap_err();
            assert_eq!(error.variable, "BASE_PATH");
            assert!(error.to_string().contains("is not a path"), "{error}");
        }
    }
}
