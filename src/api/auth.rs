//! Authentication: a till by its password or an access token, and its org.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose};
use http::{HeaderMap, header};

use super::{
    App,
    error::{ApiError, Problem},
};
use crate::{
    model::{
        access_token::{AccessToken, TokenDigest, TokenGrant},
        org::{Org, OrgId},
        till::{CredentialId, Till, TillName},
    },
    secret::Secret,
};

/// The header in which existing clients send an access token.
pub const TOKEN_HEADER: &str = "x-cap-api-oauth-token";

/// An authenticated till, and its org. No parameter of a request can change the org.
#[derive(Debug, Clone)]
pub struct Caller {
    pub till: Arc<Till>,
    pub org: Arc<Org>,
    /// The credential by which the till authenticated, itself or for the token that it sent.
    pub credential: CredentialId,
}

/// A till's item names an org that does not exist.
#[derive(Debug, thiserror::Error)]
#[error("there is no org {0}")]
struct NoOrg(OrgId);

impl App {
    /// Authenticates the caller by the headers of a request.
    ///
    /// # Errors
    /// 401 unless the credentials are those of a till.
    pub(super) async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        match credentials(headers).ok_or(Problem::Unauthorized)? {
            Credentials::Password(name, secret) => self.authenticate_by_password(&name, &secret).await,
            Credentials::Token(token) => self.authenticate_by_token(&token).await,
        }
    }

    /// Authenticates the till with that name by its password or the `md5hex` of it.
    ///
    /// # Errors
    /// 401 if there is no such till, or it has another password.
    pub(super) async fn authenticate_by_password(
        &self,
        name: &TillName,
        secret: &Secret<String>,
    ) -> Result<Caller, ApiError> {
        self.caller(name, |till| till.credential(secret.expose())).await
    }

    /// Authenticates the till that got the token. A token is remembered for as long as a till is.
    /// An unknown token costs as much as an unknown till.
    ///
    /// # Errors
    /// 401 if the token is unknown or has expired, or the till does not have the password any more
    /// by which it got the token.
    async fn authenticate_by_token(&self, token: &AccessToken) -> Result<Caller, ApiError> {
        let (digest, now) = (token.digest(), self.clock.now());
        let grant = match self.tokens.get(&digest, now) {
            Some(grant) => grant,
            None => self.read_token(digest).await?.ok_or(Problem::Unauthorized)?,
        };
        if !grant.is_valid_at(now) {
            return Err(Problem::Unauthorized.into());
        }
        let credential = grant.credential;
        self.caller(&grant.till, |till| till.has_credential(credential).then_some(credential)).await
    }

    /// What a token stands for, read from the table.
    async fn read_token(&self, digest: TokenDigest) -> Result<Option<Arc<TokenGrant>>, ApiError> {
        let grant = self.store.access_token(&digest).await?;
        Ok(grant.map(|grant| self.cache_token(digest, grant)))
    }

    /// Puts a token that was just read or issued into the cache.
    pub(super) fn cache_token(&self, digest: TokenDigest, grant: TokenGrant) -> Arc<TokenGrant> {
        let grant = Arc::new(grant);
        self.tokens.put(digest, Arc::clone(&grant), self.clock.now());
        grant
    }

    /// The till with that name and its org, if `find` finds the credential that the caller claims
    /// to have.
    async fn caller(
        &self,
        name: &TillName,
        find: impl Fn(&Till) -> Option<CredentialId>,
    ) -> Result<Caller, ApiError> {
        let (till, credential) = self.till_with(name, find).await?.ok_or(Problem::Unauthorized)?;
        let org = self.org(till.org).await?;
        Ok(Caller { till, org, credential })
    }

    /// The till with that name and the credential that `find` finds. A caller is refused only after
    /// the till was read from the table again. So a new password works at once, and a wrong one
    /// costs as much as an unknown till.
    async fn till_with(
        &self,
        name: &TillName,
        find: impl Fn(&Till) -> Option<CredentialId>,
    ) -> Result<Option<(Arc<Till>, CredentialId)>, ApiError> {
        let now = self.clock.now();
        let with_credential = |till: Arc<Till>| find(&till).map(|credential| (till, credential));
        if let Some(found) = self.tills.get(name, now).and_then(with_credential) {
            return Ok(Some(found));
        }
        let Some(till) = self.store.till(name).await?.map(Arc::new) else {
            return Ok(None);
        };
        self.tills.put(name.clone(), Arc::clone(&till), now);
        Ok(with_credential(till))
    }

    /// The org, at most [`crate::cache::TTL`] old.
    pub(super) async fn org(&self, id: OrgId) -> Result<Arc<Org>, ApiError> {
        match self.orgs.get(&id, self.clock.now()) {
            Some(org) => Ok(org),
            None => self.read_org(id).await,
        }
    }

    /// The org, read from the table.
    async fn read_org(&self, id: OrgId) -> Result<Arc<Org>, ApiError> {
        let org = self.store.org(id).await?;
        let org = Arc::new(org.ok_or_else(|| ApiError::caused_by(Problem::Internal, NoOrg(id)))?);
        self.cache_org(&org);
        Ok(org)
    }

    /// Puts an org that was just read into the cache, and drops the blocks of orgs that are no
    /// longer cached.
    pub(super) fn cache_org(&self, org: &Arc<Org>) {
        self.orgs.put(org.id(), Arc::clone(org), self.clock.now());
        self.store.retain_blocks(|org| self.orgs.contains(&org));
    }
}

/// The credentials in the headers of a request.
enum Credentials {
    /// A till's name and secret.
    Password(TillName, Secret<String>),
    Token(AccessToken),
}

/// The credentials of a request: an access token in its own header, or else what the
/// `Authorization` header contains. A token that is present but malformed is refused, whatever the
/// other header contains.
fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    if let Some(token) = headers.get(TOKEN_HEADER) {
        return AccessToken::parse(token.to_str().ok()?.trim()).map(Credentials::Token);
    }
    let (scheme, rest) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return AccessToken::parse(rest.trim()).map(Credentials::Token);
    }
    let (name, secret) = basic(rest).filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    Some(Credentials::Password(name, secret))
}

/// The name and secret that follow `Basic` in an `Authorization` header (RFC 7617).
fn basic(encoded: &str) -> Option<(TillName, Secret<String>)> {
    let encoded = encoded.trim().trim_end_matches('=');
    let decoded = general_purpose::STANDARD_NO_PAD.decode(encoded).ok()?;
    let (name, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((TillName::parse(name)?, Secret::new(secret.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name and secret, or an empty name and the token.
    fn read_all(all: &[(&'static str, &str)]) -> Option<(String, String)> {
        let headers = all.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
        credentials(&headers.collect::<HeaderMap>()).map(|credentials| match credentials {
            Credentials::Password(name, secret) => (name.as_str().to_owned(), secret.expose().clone()),
            Credentials::Token(token) => (String::new(), token.expose().to_owned()),
        })
    }

    fn read(authorization: &str) -> Option<(String, String)> {
        read_all(&[("authorization", authorization)])
    }

    #[test]
    fn basic_credentials_are_read_in_every_spelling() {
        let expected = Some(("store.server".to_owned(), "server:123".to_owned()));
        let encoded = general_purpose::STANDARD.encode("store.server:server:123");
        assert_eq!(read(&format!("Basic {encoded}")), expected);
        assert_eq!(read(&format!("basic  {}", encoded.trim_end_matches('='))), expected);
    }

    #[test]
    fn a_token_is_read_from_either_header() {
        let (token, other) = ("A".repeat(43), format!("{}A", "B".repeat(42)));
        let expected = Some((String::new(), token.clone()));
        for scheme in ["Bearer", "bearer", "BEARER "] {
            assert_eq!(read(&format!("{scheme} {token}")), expected, "{scheme}");
        }
        assert_eq!(read_all(&[(TOKEN_HEADER, &token)]), expected);
        assert_eq!(
            read_all(&[(TOKEN_HEADER, &token), ("authorization", &format!("Bearer {other}"))]),
            expected
        );
    }

    #[test]
    fn a_token_counts_before_other_credentials() {
        let password = format!("Basic {}", general_purpose::STANDARD.encode("store.server:server123"));
        let token = "A".repeat(43);
        let both = |token| read_all(&[("authorization", &password), (TOKEN_HEADER, token)]);
        assert_eq!(both(&token), Some((String::new(), token.clone())));
        for malformed in ["", "no token", &token[1..]] {
            assert_eq!(both(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn anything_else_is_no_credentials() {
        let no_colon = general_purpose::STANDARD.encode("store.server");
        let bad_name = general_purpose::STANDARD.encode("a b:c");
        let not_utf8 = general_purpose::STANDARD.encode([b'a', b':', 0xff]);
        for header in [
            "",
            "Basic",
            "Basic !!!",
            "Bearer abc",
            &format!("Basic {no_colon}"),
            &format!("Basic {bad_name}"),
            &format!("Basic {not_utf8}"),
        ] {
            assert_eq!(read(header), None, "{header}");
        }
        assert!(credentials(&HeaderMap::new()).is_none());
    }
}
