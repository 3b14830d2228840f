//! The path of a request: the route that it names, and the parameters in it.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::error::Problem;

/// A path as the entry point gets it. It is decoded exactly once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// As the caller sent it, percent-encoded.
    Encoded(String),
    /// Decoded by a gateway. A value that contains `&` or `=` can no longer be distinguished from
    /// two values.
    Decoded(String),
}

/// The path that parameters may follow, `/v2/otp/source=…&scope=…`, as in the public documentation.
const PARAMETERS_IN_PATH: &str = "/v2/otp";

/// The parameters whose values may end with a slash.
const MAY_END_WITH_SLASH: &[&str] = &["accountId", "identifierValue", "external_id", "externalId", "wechat"];

/// The parameters in a path, before they are split.
#[derive(Debug, PartialEq, Eq)]
pub enum PathParameters<'a> {
    Encoded(&'a str),
    Decoded(Cow<'a, str>),
}

impl Path {
    /// The path of the route, decoded and without a trailing slash, and the parameters that follow
    /// it. `base` is removed from the beginning if the path begins with it.
    pub fn resolve(&self, base: &str) -> (Cow<'_, str>, Option<PathParameters<'_>>) {
        let (Self::Encoded(whole) | Self::Decoded(whole)) = self;
        let path = whole.strip_prefix(base).filter(|rest| rest.starts_with('/')).unwrap_or(whole);
        if let Some(parameters) = self.parameters_after(path) {
            return (PARAMETERS_IN_PATH.into(), Some(parameters));
        }
        let own = match self {
            Self::Encoded(_) => percent_decode_str(path).decode_utf8_lossy(),
            Self::Decoded(_) => path.into(),
        };
        let own = match own {
            Cow::Borrowed(own) => own.strip_suffix('/').unwrap_or(own).into(),
            Cow::Owned(own) => own.strip_suffix('/').unwrap_or(&own).to_owned().into(),
        };
        (own, None)
    }

    fn parameters_after<'a>(&self, path: &'a str) -> Option<PathParameters<'a>> {
        let tail = path.strip_prefix(PARAMETERS_IN_PATH)?.strip_prefix('/')?;
        if let Self::Decoded(_) = self {
            return tail.contains('=').then(|| PathParameters::Decoded(tail.into()));
        }
        let tail = tail.strip_suffix('/').unwrap_or(tail);
        if tail.contains('=') {
            return Some(PathParameters::Encoded(tail));
        }
        // Some clients encode the parameters as a whole, with `=` and `&`.
        let tail = percent_decode_str(tail).decode_utf8_lossy();
        tail.contains('=').then_some(PathParameters::Decoded(tail))
    }
}

impl PathParameters<'_> {
    /// Names and values, decoded. In a path, `+` is a plus (RFC 3986).
    ///
    /// # Errors
    /// [`Problem::PathAmbiguous`] when the path was decoded as a whole and decoding may have split
    /// or changed a value.
    pub fn pairs(&self) -> Result<Vec<(String, String)>, Problem> {
        match self {
            Self::Encoded(text) => {
                let decode = |text| percent_decode_str(text).decode_utf8_lossy().into_owned();
                // A piece without `=` may be what follows a `&` in a value that was not encoded.
                let pairs = text.split('&').filter(|piece| !piece.is_empty()).map(|piece| {
                    let (name, value) = piece.split_once('=').ok_or(Problem::PathAmbiguous)?;
                    Ok((decode(name), decode(value)))
                });
                pairs.collect()
            }
            Self::Decoded(text) => decoded_pairs(text).ok_or(Problem::PathAmbiguous),
        }
    }
}

/// The pairs of a path that was decoded before it was split.
///
/// `%` and `?` are refused: API Gateway decodes the paths of HTTP APIs up to twice and cuts them at
/// an encoded `?`. A value that still contains one of them is not what the caller sent. A repeated
/// name and a piece without `=` are refused, because they may be the rest of a value that contained
/// `&`. A slash at the end may belong to the path or to the value.
fn decoded_pairs(text: &str) -> Option<Vec<(String, String)>> {
    if text.contains(['%', '?']) {
        return None;
    }
    let mut pairs = Vec::<(String, String)>::new();
    for piece in text.split('&') {
        let (name, value) = piece.split_once('=')?;
        if pairs.iter().any(|(earlier, _)| earlier == name) {
            return None;
        }
        pairs.push((name.to_owned(), value.to_owned()));
    }
    if let Some((name, value)) = pairs.last_mut()
        && value.ends_with('/')
    {
        if MAY_END_WITH_SLASH.contains(&name.as_str()) {
            return None;
        }
        value.pop();
    }
    Some(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(path: &str) -> Path {
        Path::Encoded(path.to_owned())
    }

    fn decoded(path: &str) -> Path {
        Path::Decoded(path.to_owned())
    }

    /// The pairs in the path of a fetch; panics when there are none.
    fn pairs(path: &Path) -> Result<Vec<(String, String)>, Problem> {
        let (own, parameters) = path.resolve("");
        assert_eq!(own, "/v2/otp", "{path:?}");
        parameters.unwrap_or_else(|| panic!("{path:?}")).pairs()
    }

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn an_encoded_path_is_split_first_and_decoded_once() {
        let found = pairs(&encoded("/v2/otp/scope=POINTS&external_id=A%2520B%26+%3D/"));
        assert_eq!(found, Ok(vec![pair("scope", "POINTS"), pair("external_id", "A%20B&+=")]));
    }

    #[test]
    fn a_decoded_path_is_not_decoded_again() {
        let found = pairs(&decoded("/v2/otp/external_id=A B+ü=#&scope=POINTS/"));
        assert_eq!(found, Ok(vec![pair("external_id", "A B+ü=#"), pair("scope", "POINTS")]));
    }

    #[test]
    fn parameters_encoded_as_a_whole_are_decoded_once() {
        let found = pairs(&encoded("/v2/otp/source%3DWECHAT%26scope%3DPOINTS"));
        assert_eq!(found, Ok(vec![pair("source", "WECHAT"), pair("scope", "POINTS")]));
        assert_eq!(pairs(&encoded("/v2/otp/external_id%3DA%2520B")), Err(Problem::PathAmbiguous));
    }

    #[test]
    fn what_decoding_may_have_changed_is_refused() {
        for tail in [
            "external_id=A%20B", "external_id=50%", "external_id=A?B", "external_id=A&B&scope=POINTS",
            "external_id=A&scope=POINTS&", "&external_id=A", "external_id=A&scope=COUPON&scope=POINTS",
            "external_id=A&external_id=A", "scope=POINTS&external_id=A/", "scope=POINTS&accountId=A/",
        ] {
            assert_eq!(pairs(&decoded(&format!("/v2/otp/{tail}"))), Err(Problem::PathAmbiguous), "{tail}");
        }
    }

    #[test]
    fn a_base_path_is_removed_where_it_is_there_as_whole_segments() {
        let resolved = |path: &Path, base| path.resolve(base).0.into_owned();
        for path in ["/codes/v2/otp", "/codes/v2/otp/", "/v2/otp"] {
            assert_eq!(resolved(&encoded(path), "/codes"), "/v2/otp", "{path}");
            assert_eq!(resolved(&decoded(path), "/codes"), "/v2/otp", "{path}");
        }
        assert_eq!(resolved(&encoded("/codesv2/otp"), "/codes"), "/codesv2/otp");
        assert_eq!(resolved(&encoded("/codes"), "/codes"), "/codes");
        assert_eq!(resolved(&encoded("/codes/v2/otp"), ""), "/codes/v2/otp");
        let (own, parameters) = (encoded("/a/b/v2/otp/scope=POINTS"), "/a/b");
        assert!(own.resolve(parameters).1.is_some());
    }

    #[test]
    fn only_an_encoded_path_is_decoded_to_find_its_route() {
        assert_eq!(encoded("/v2/card%4eumber").resolve("").0, "/v2/cardNumber");
        assert_eq!(decoded("/v2/card%4eumber").resolve("").0, "/v2/card%4eumber");
    }
}
