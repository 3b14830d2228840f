//! `Idempotency-Key`: a request that is sent again under its key is answered as it was the first time, and nothing happens
//! again. Only successes are kept: what was refused has changed nothing, and is judged anew.
//! <https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::{
    App, Call, Caller, Request, Route,
    error::{Answer, ApiError, Problem},
};
use crate::store::{Once, Record};

/// The header.
pub const HEADER: &str = "idempotency-key";
/// A UUID has 36 characters.
pub const LONGEST_KEY: usize = 255;

/// The request as one that must happen once, if it has a key.
pub fn once(
    request: &Request,
    route: &Route,
    caller: &Caller,
    now: DateTime<Utc>,
) -> Result<Option<Once>, Problem> {
    let mut keys = request.headers.get_all(HEADER).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let key = key.as_bytes();
    let visible = key.iter().all(u8::is_ascii_graphic);
    if !visible || !(1..=LONGEST_KEY).contains(&key.len()) || keys.next().is_some() {
        return Err(Problem::IdempotencyKeyInvalid);
    }
    let mut asked = Sha256::new();
    for part in [route.name().as_bytes(), request.query.as_bytes(), &request.body] {
        // With its length, no part can pass for the beginning of the next.
        asked.update(part.len().to_be_bytes());
        asked.update(part);
    }
    let (org, till) = (caller.org.id(), caller.till.name.clone());
    Ok(Some(Once { org, till, key: Sha256::digest(key).into(), request: asked.finalize().into(), now }))
}

impl App {
    /// What the same request was answered before.
    pub(super) async fn answer_given(&self, once: &Once) -> Result<Option<Answer>, ApiError> {
        match self.store.answer_given(once).await? {
            Some(given) if given.request != once.request => Err(Problem::IdempotencyKeyReused.into()),
            given => Ok(given.map(|given| Answer::again(given.answer))),
        }
    }
}

impl Call<'_> {
    /// `answer` as what is to be kept under the request's key, if it has one.
    pub(super) fn record<'a>(&'a self, answer: &'a Answer) -> Option<Record<'a>> {
        self.once.as_ref().map(|once| Record { once, answer: answer.as_str() })
    }

    /// What a rival with the same key was answered, if it was faster; otherwise `error`.
    pub(super) async fn answer_given_or(&self, error: impl Into<ApiError>) -> Result<Answer, ApiError> {
        let given = match &self.once {
            Some(once) => self.app.answer_given(once).await?,
            None => None,
        };
        given.ok_or_else(|| error.into())
    }
}
