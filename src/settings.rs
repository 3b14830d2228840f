//! The environment variables of a process, read once.

use std::path::PathBuf;

/// What a process is told by its environment. `RUST_LOG` belongs to [`crate::logging`]; region and credentials the AWS
/// SDK reads by itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// `TABLE_NAME`: the DynamoDB table.
    pub table: String,
    /// `BASE_PATH`: what a custom domain puts before the path of each route: `/codes`, or nothing.
    pub base_path: String,
    /// `AWS_CA_BUNDLE`: a PEM file of the roots to trust instead of Amazon's.
    pub ca_bundle: Option<PathBuf>,
    /// `AWS_ENDPOINT_URL_DYNAMODB`, or else `AWS_ENDPOINT_URL`: another DynamoDB than the region's.
    pub endpoint: Option<String>,
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

impl Settings {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// [`InvalidSetting`] for the first variable that cannot be used.
    pub fn from_env() -> Result<Self, InvalidSetting> {
        Self::read(|variable| std::env::var(variable).ok())
    }

    fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidSetting> {
        let table = get("TABLE_NAME").unwrap_or_else(|| DEFAULT_TABLE.to_owned());
        let get = |variable| get(variable).filter(|value| !value.is_empty());
        Ok(Self {
            table: check_table_name(table)?,
            base_path: get("BASE_PATH").map_or_else(|| Ok(String::new()), |path| read_base_path(&path))?,
            ca_bundle: get("AWS_CA_BUNDLE").map(PathBuf::from),
            endpoint: get("AWS_ENDPOINT_URL_DYNAMODB").or_else(|| get("AWS_ENDPOINT_URL")),
        })
    }
}

/// `name` again, if it keeps AWS's rule for table names (`CreateTable`, parameter `TableName`).
///
/// # Errors
/// [`InvalidSetting`] for `TABLE_NAME` when it does not.
pub fn check_table_name(name: String) -> Result<String, InvalidSetting> {
    let well_formed = (3..=255).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    if well_formed {
        Ok(name)
    } else {
        let reason = format!("`{name}` is no table name: 3 to 255 characters of A-Z a-z 0-9 _ - .");
        Err(InvalidSetting { variable: "TABLE_NAME", reason })
    }
}

/// A base path with a slash before it and none after it; `/` is none. Its characters are those that API
/// Gateway takes in the key of a mapping.
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
            format!("`{path}` is no path: segments of A-Z a-z 0-9 $ - _ . + ! * ' ( ) between slashes");
        Err(InvalidSetting { variable: "BASE_PATH", reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_environment_gives_the_defaults() {
        let settings = Settings::read(|_| None).unwrap();
        assert_eq!(settings, Settings { table: "loyalty-codes".into(), ..Settings::default() });
    }

    #[test]
    fn a_wrong_table_name_is_refused_by_the_name_of_its_variable() {
        for name in ["", "ab", "a b c", "tablé"] {
            let error = Settings::read(|v| (v == "TABLE_NAME").then(|| name.to_owned())).unwrap_err();
            assert_eq!(error.variable, "TABLE_NAME");
            assert!(error.to_string().contains("no table name"), "{error}");
        }
    }

    #[test]
    fn a_base_path_begins_with_a_slash_and_ends_without_one() {
        let read = |path: &str| Settings::read(|v| (v == "BASE_PATH").then(|| path.to_owned()));
        for (path, expected) in
            [("", ""), ("/", ""), ("codes", "/codes"), ("/codes/", "/codes"), ("a/b-1", "/a/b-1")]
        {
            assert_eq!(read(path).unwrap().base_path, expected, "{path}");
        }
        for path in ["/codes//", "//a", "a//b", "/co des", "/cod%65s", "/c?x", "https://example.com", "/ü"] {
            let error = read(path).unwrap_err();
            assert_eq!(error.variable, "BASE_PATH");
            assert!(error.to_string().contains("is no path"), "{error}");
        }
    }
}
