//! Authentication: the Basic credentials of a till, and its org.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose};
use http::{HeaderMap, header};

use super::{
    App,
    error::{ApiError, Problem},
};
use crate::{
    model::{
        org::{Org, OrgId},
        till::{Till, TillName},
    },
    secret::Secret,
};

/// An authenticated till, and its org. No parameter of a request can change the org.
#[derive(Debug, Clone)]
pub struct Caller {
    pub till: Arc<Till>,
    pub org: Arc<Org>,
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
        let (name, secret) = credentials(headers).ok_or(Problem::Unauthorized)?;
        let till = self.till_with(&name, &secret).await?.ok_or(Problem::Unauthorized)?;
        let org = self.org(till.org).await?;
        Ok(Caller { till, org })
    }

    /// The till with that name, if `secret` is one of its secrets. A secret is refused only after
    /// the till was read from the table again. So a new secret works at once, and a wrong secret
    /// costs as much as an unknown till.
    async fn till_with(
        &self,
        name: &TillName,
        secret: &Secret<String>,
    ) -> Result<Option<Arc<Till>>, ApiError> {
        let now = self.clock.now();
        if let Some(till) = self.tills.get(name, now).filter(|till| till.accepts(secret.expose())) {
            return Ok(Some(till));
        }
        let Some(till) = self.store.till(name).await?.map(Arc::new) else {
            return Ok(None);
        };
        self.tills.put(name.clone(), Arc::clone(&till), now);
        Ok(till.accepts(secret.expose()).then_some(till))
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

/// The name and secret of a Basic `Authorization` header (RFC 7617).
fn credentials(headers: &HeaderMap) -> Option<(TillName, Secret<String>)> {
    let (scheme, encoded) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let encoded = encoded.trim().trim_end_matches('=');
    let decoded = general_purpose::STANDARD_NO_PAD.decode(encoded).ok()?;
    let (name, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some((TillName::parse(name)?, Secret::new(secret.to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Option<(String, String)> {
        let headers = HeaderMap::from_iter([(header::AUTHORIZATION, header.parse().unwrap())]);
        credentials(&headers).map(|(name, secret)| (name.as_str().to_owned(), secret.expose().clone()))
    }

    #[test]
    fn basic_credentials_are_read_in_every_spelling() {
        let expected = Some(("store.server".to_owned(), "server:123".to_owned()));
        let encoded = general_purpose::STANDARD.encode("store.server:server:123");
        assert_eq!(read(&format!("Basic {encoded}")), expected);
        assert_eq!(read(&format!("basic  {}", encoded.trim_end_matches('='))), expected);
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
