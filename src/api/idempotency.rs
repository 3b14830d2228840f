//! `Idempotency-Key`: a request that is sent again under its key is answered as it was the first time, and nothing happens
//! again. Only successes are stored: what was refused has changed nothing, and is judged anew.
//! <https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};

use super::{
    App, Call, Caller, Request, Route,
    error::{ApiError, Problem, SuccessBody},
};
use crate::store::{IdempotentRequest, ResponseToStore, StoredResponse};

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
        let stored = self.store.stored_response(request).await?;
        stored.map(|stored| replay(request, stored)).transpose()
    }
}

/// A response that is stored under the key of `request` as the answer to it; 422 if it answers another request.
fn replay(request: &IdempotentRequest, stored: StoredResponse) -> Result<SuccessBody, ApiError> {
    if stored.fingerprint == request.fingerprint {
        Ok(SuccessBody::again(stored.answer))
    } else {
        Err(Problem::IdempotencyKeyReused.into())
    }
}

impl Call<'_> {
    /// `answer` as what is to be stored under the request's key, if it has one.
    pub(super) fn response_to_store<'a>(&'a self, answer: &'a SuccessBody) -> Option<ResponseToStore<'a>> {
        let request = self.idempotent_request.as_ref()?;
        Some(ResponseToStore { request, answer: answer.as_ref() })
    }

    /// Stores `answer` under the request's key, if it has one, and returns the answer that counts: that of a rival with
    /// the same key, if it was faster.
    pub(super) async fn store_response(&self, answer: SuccessBody) -> Result<SuccessBody, ApiError> {
        let earlier = match self.response_to_store(&answer) {
            Some(response) => self.app.store.store_response(response).await?,
            None => None,
        };
        earlier.map_or(Ok(answer), |earlier| self.replay(earlier))
    }

    /// What a rival with the same key was answered.
    pub(super) fn replay(&self, stored: StoredResponse) -> Result<SuccessBody, ApiError> {
        let request = self.idempotent_request.as_ref().ok_or(Problem::Internal)?;
        replay(request, stored)
    }

    /// What a rival with the same key was answered, if it was faster; otherwise `error`.
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
