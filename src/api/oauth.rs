//! Exchanging a till's password for an access token.

use serde::Serialize;

use super::{
    App, Call, Caller, Request,
    error::{ApiError, Problem, SuccessBody},
    params,
};
use crate::{
    model::{
        access_token::{AccessToken, TokenGrant},
        till::TillName,
    },
    secret::{Secret, os_rng},
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IssuedToken<'a> {
    access_token: &'a str,
    ttl_seconds: u32,
}

/// `POST /v3/oauth/token/generate`: a token that stands for the till and the password in the body.
pub async fn issue_token(call: Call<'_>) -> Result<SuccessBody, ApiError> {
    let Caller { till, credential, .. } = call.caller;
    let token = AccessToken::generate(&mut os_rng());
    let grant = TokenGrant::new(till.name.clone(), *credential, till.token_lifetime, call.now);
    call.app.store.put_access_token(&token.digest(), &grant).await?;
    call.app.cache_token(token.digest(), grant);
    let issued = IssuedToken { access_token: token.expose(), ttl_seconds: till.token_lifetime.seconds() };
    SuccessBody::with_null_errors(issued)
}

impl App {
    /// Authenticates the caller by the fields `key` and `secret` of the body: a till's name, and
    /// its password or the `md5hex` of it.
    ///
    /// # Errors
    /// 401 unless these are the credentials of a till; 400 or 415 if the body cannot be read.
    pub(super) async fn authenticate_by_body(&self, request: &Request) -> Result<Caller, ApiError> {
        let body = params::json_object(&request.headers, &request.body)?;
        let key = body.exact_text("key", Problem::CredentialsNotText)?;
        let secret = body.exact_text("secret", Problem::CredentialsNotText)?;
        let name = key.as_deref().and_then(TillName::parse).ok_or(Problem::Unauthorized)?;
        let secret = secret.ok_or(Problem::Unauthorized)?.into_owned();
        self.authenticate_by_password(&name, &Secret::new(secret)).await
    }
}
