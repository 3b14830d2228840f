//! `Idempotency-Key`: a request that is sent again under its key is answered as it was the first time, and nothing happens
//! again. Only successes are kept: what was refused has changed nothing, and is judged anew.
//! <https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::{
    App, Call, Caller, Request, Route,
    error::{ApiError, Problem, SuccessBody},
};
use crate::store::{IdempotentRequest, ResponseToStore};

/// The header.
pub const HEADER: &str = "idempotency-key";
/// A UUID has 36 characters.
pub const MAX_KEY_LENGTH: usize = 255;

/// The request as one that must happen once, if it has a key.
pub fn read(
    request: &Request,
    route: &Route,
    caller: &Caller,
    now: DateTime<Utc>,
) -> Result<Option<IdempotentRequest>, Problem> {
    let mut keys = request.headers.get_all(HEADER).iter();
    let Some(key) = keys.next() else {
        return Ok(None);
    };
    let key = key.as_bytes();
    let visible = key.iter().all(u8::is_ascii_graphic);
    if !visible || !(1..=MAX_KEY_LENGTH).contains(&key.len()) || keys.next().is_some() {
        return Err(Problem::IdempotencyKeyInvalid);
    }
    let mut asked = Sha256::new();
    for part in [route.name().as_bytes(), request.query.as_bytes(), &request.body] {
        // With its length, no part can pass for the beginning of the next.
        asked.update(part.len().to_be_bytes());
        asked.update(part);
    }
    let (org, till) = (caller.org.id(), caller.till.name.clone());
    Ok(Some(IdempotentRequest {
        org,
        till,
        key: Sha256::digest(key).into(),
        fingerprint: asked.finalize().into(),
        now,
    }))
}

impl App {
    /// What the same request was answered before.
    pub(super) async fn stored_response(
        &self,
        request: &IdempotentRequest,
    ) -> Result<Option<SuccessBody>, ApiError> {
        match self.store.stored_response(request).await? {
            Some(given) if given.fingerprint != request.fingerprint => {
                Err(Problem::IdempotencyKeyReused.into())
            }
            given => Ok(given.map(|given| SuccessBody::again(given.answer))),
        }
    }
}

impl Call<'_> {
    /// `answer` as what is to be kept under the request's key, if it has one.
    pub(super) fn record<'a>(&'a self, answer: &'a SuccessBody) -> Option<ResponseToStore<'a>> {
        self.idempotent_request.as_ref().map(|request| ResponseToStore { request, answer: answer.as_str() })
    }

    /// What a rival with the same key was answered, if it was faster; otherwise `error`.
    pub(super) async fn stored_response_or(
        &self,
        error: impl Into<ApiError>,
    ) -> Result<SuccessBody, ApiError> {
        let given = match &self.idempotent_request {
            Some(request) => self.app.stored_response(request).await?,
            None => None,
        };
        given.ok_or_else(|| error.into())
    }
}
