//! `Idempotency-Key`: a repeated request with the same key gets the first response, and has no
//! further effect. Only successes are stored. A refused request has changed nothing, so it is
//! evaluated again.
//! <https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>

use std::borrow::Cow;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::{
    App, Call, Caller, Request, Route,
    error::{ApiError, Problem, SuccessBody},
};
use crate::store::{IdempotentRequest, ResponseToStore, StoredResponse};

/// The name of the header.
pub const HEADER: &str = "idempotency-key";
/// The maximum length of a key. A UUID has 36 characters.
pub const MAX_KEY_LENGTH: usize = 255;

/// Reads the idempotency key of a request, if it has one.
pub fn read(
    request: &Request,
    route: &Route,
    path_id: Option<&str>,
    caller: &Caller,
    now: DateTime<Utc>,
) -> Result<Option<IdempotentRequest>, Problem> {
    let mut keys = request.headers.get_all(HEADER).iter();
    let Some(header) = keys.next() else {
        return Ok(None);
    };
    let key = read_key(header.as_bytes()).filter(|_| keys.next().is_none());
    let key = key.ok_or(Problem::IdempotencyKeyInvalid)?;
    let (org, till) = (caller.org.id(), caller.till.name.clone());
    let (fingerprint, without_key) = fingerprints(route, path_id, request, &key);
    let key = Sha256::digest(key).into();
    Ok(Some(IdempotentRequest { org, till, key, fingerprint, fingerprint_without_key: without_key, now }))
}

/// The key in a header: visible ASCII characters as they are, or a string in double quotes (RFC
/// 8941, section 3.3.3), which may have spaces and commas in it.
///
/// `None` for a header without a key, and for one with several: gateways join repeated headers with
/// commas.
fn read_key(header: &[u8]) -> Option<Cow<'_, [u8]>> {
    let header = header.trim_ascii();
    let key = match header.strip_prefix(b"\"") {
        Some(quoted) => unquote(quoted)?.into(),
        None => Cow::Borrowed(header),
    };
    let quoted = matches!(key, Cow::Owned(_));
    let well_formed = key.iter().all(|byte| match byte {
        b' ' | b',' => quoted,
        byte => byte.is_ascii_graphic(),
    });
    (well_formed && (1..=MAX_KEY_LENGTH).contains(&key.len())).then_some(key)
}

/// Reads a quoted string up to its closing quote. `None` if anything follows.
fn unquote(text: &[u8]) -> Option<Vec<u8>> {
    let (mut key, mut bytes) = (Vec::new(), text.iter());
    loop {
        match bytes.next()? {
            b'"' => return bytes.as_slice().is_empty().then_some(key),
            b'\\' => key.push(*bytes.next().filter(|byte| matches!(byte, b'"' | b'\\'))?),
            byte => key.push(*byte),
        }
    }
}

/// SHA-256 of the content of a request: the route with the id in its path, the decoded parameters
/// in sorted order, the body, and the key. Parameters are decoded and sorted, because a gateway may
/// reorder them or encode them differently. The key is known to the caller alone. Without it, a
/// mobile in the request could be found by trying all of them. The second fingerprint is without
/// the key, as earlier versions stored it.
fn fingerprints(route: &Route, path_id: Option<&str>, request: &Request, key: &[u8]) -> ([u8; 32], [u8; 32]) {
    let mut parameters: Vec<_> = form_urlencoded::parse(request.query.as_bytes()).collect();
    parameters.sort_unstable();
    let parameters = form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    let mut hasher = Sha256::new();
    let route = route.name();
    let parts = [route.as_bytes(), parameters.as_bytes(), &request.body];
    for part in parts.into_iter().chain(path_id.map(str::as_bytes)) {
        // The length separates the parts. Without it, two different requests could have the same
        // bytes.
        hasher.update(part.len().to_be_bytes());
        hasher.update(part);
    }
    let without_key = hasher.clone().finalize().into();
    hasher.update(key);
    (hasher.finalize().into(), without_key)
}

impl App {
    /// The stored response to a request, if there is one.
    pub(super) async fn stored_response(
        &self,
        request: &IdempotentRequest,
    ) -> Result<Option<SuccessBody>, ApiError> {
        let stored = self.store.stored_response(request).await?;
        stored.map(|stored| replay(request, stored)).transpose()
    }
}

/// The body of a stored response. 422 if it belongs to a different request with the same key.
fn replay(request: &IdempotentRequest, stored: StoredResponse) -> Result<SuccessBody, ApiError> {
    if [request.fingerprint, request.fingerprint_without_key].contains(&stored.fingerprint) {
        Ok(SuccessBody::replayed(stored.body))
    } else {
        Err(Problem::IdempotencyKeyReused.into())
    }
}

impl Call<'_> {
    /// Stores `body` under the request's key, if it has one. Returns the stored response of a
    /// concurrent request with the same key that was faster, if there is one.
    pub(super) async fn store_response(
        &self,
        body: &SuccessBody,
    ) -> Result<Option<StoredResponse>, ApiError> {
        let Some(request) = &self.idempotent_request else { return Ok(None) };
        let response = ResponseToStore { request, body: body.as_ref() };
        let earlier = self.app.store.store_response(response).await?;
        // After a lost answer, the SDK's retry finds what its first attempt has stored.
        Ok(earlier.filter(|earlier| earlier.body != body.as_ref()))
    }

    /// The stored response of a concurrent request with the same key.
    pub(super) fn replay(&self, stored: StoredResponse) -> Result<SuccessBody, ApiError> {
        let request = self.idempotent_request.as_ref().ok_or(Problem::Internal)?;
        replay(request, stored)
    }

    /// The stored response of a concurrent request with the same key, if there is one; otherwise
    /// `error`.
    pub(super) async fn stored_response_or(
        &self,
        error: impl Into<ApiError>,
    ) -> Result<SuccessBody, ApiError> {
        let stored = match &self.idempotent_request {
            Some(request) => self.app.stored_response(request).await?,
            None => None,
        };
        stored.ok_or_else(|| error.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(header: &str) -> Option<String> {
        read_key(header.as_bytes()).map(|key| String::from_utf8(key.into_owned()).unwrap())
    }

    #[test]
    fn a_key_in_quotes_is_the_key_inside() {
        for header in ["key-1", "\"key-1\"", " key-1 ", "\t\"key-1\" "] {
            assert_eq!(key(header).as_deref(), Some("key-1"), "{header}");
        }
        assert_eq!(key(r#""a \"b\" \\c, d""#).as_deref(), Some(r#"a "b" \c, d"#));
        assert_eq!(key(r#"a"b\c"#).as_deref(), Some(r#"a"b\c"#));
        let longest = "x".repeat(MAX_KEY_LENGTH);
        assert_eq!(key(&format!("\"{longest}\"")), Some(longest));
    }

    #[test]
    fn several_keys_or_none_are_no_key() {
        for header in [
            "", " ", "\"\"", "a,b", "a, b", "a,", ",", "a b", "\"a\",\"b\"", "\"a\", \"b\"", "\"a\",b",
            "\"a\";x=1", "\"a", "\"", "\"a\\\"", "\"a\\b\"", "\"a\tb\"", "\"\u{e9}\"", "\u{e9}", "a\u{7f}",
        ] {
            assert_eq!(key(header), None, "{header}");
        }
        let too_long = "x".repeat(MAX_KEY_LENGTH + 1);
        assert_eq!(key(&too_long), None);
        assert_eq!(key(&format!("\"{too_long}\"")), None);
    }
}
