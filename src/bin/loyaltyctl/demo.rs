//! The demo org of `serve --demo`, with everything that the README's requests need.

use std::{fs, io::Write, os::unix::fs::OpenOptionsExt, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::Utc;
use http::{HeaderMap, HeaderValue, Method, header};
use loyalty_codes::{
    api::{self, App, Request, TIME_LIMIT},
    model::{
        access_token::TokenLifetime,
        card_number::new_permutation_key,
        customer::{Account, IdentifierName, Identity, UserId},
        till::{Credential, Password, Permission, Till, TillName},
    },
    secret::os_rng,
    store::Store,
};
use serde_json::json;

use crate::{failure::Failure, org_file};

const TILL: &str = "store.server";
const MOBILE: &str = "8799361139";
/// The customer in the documentation.
const USER: UserId = UserId(313_302_314);

/// Creates the demo org, its till and its customer unless they exist, and returns the till's
/// password. The password is stored in `password_file`, so that the same requests work after a
/// restart.
pub async fn prepare(app: &App, store: &Store, password_file: Option<&Path>) -> Result<String, Failure> {
    let definition = org_file::parse(include_str!("demo.toml")).map_err(Failure::failed)?;
    if store.org(definition.id).await?.is_none() {
        store.apply_org(&definition, new_permutation_key(&mut os_rng()), USER, None).await?;
    }
    let password = prepare_till(store, definition.id, password_file).await?;
    let org = store.org(definition.id).await?.ok_or_else(|| Failure::failed("the demo org has vanished"))?;
    let mobile = org.identifier(IdentifierName::Mobile, MOBILE).map_err(|_| Failure::failed("no mobile"))?;
    if store.find_customer(definition.id, &Identity::new(Account::instore(), mobile)).await?.is_none() {
        register_customer(app, &password).await?;
    }
    Ok(password)
}

async fn prepare_till(
    store: &Store,
    org: loyalty_codes::model::org::OrgId,
    password_file: Option<&Path>,
) -> Result<String, Failure> {
    let name = TillName::parse(TILL).ok_or_else(|| Failure::failed("the demo till has no valid name"))?;
    let existing = store.till(&name).await?;
    let remembered = password_file.and_then(|file| fs::read_to_string(file).ok());
    if let (Some(till), Some(password)) = (&existing, &remembered)
        && till.accepts(password)
    {
        return Ok(password.clone());
    }
    let password = Password::generate(&mut os_rng()).expose().to_owned();
    let credentials = vec![Credential::new(&password, Utc::now())];
    let stored = if let Some(till) = existing {
        store.replace_credentials(&till, &credentials).await?
    } else {
        let permissions = Permission::ALL.to_vec();
        let token_lifetime = TokenLifetime::default();
        store.create_till(&Till { name, org, permissions, credentials, token_lifetime }).await?
    };
    if !stored {
        return Err(Failure::failed("the demo till was changed at the same moment"));
    }
    if let Some(file) = password_file {
        let written = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file);
        written
            .and_then(|mut file| file.write_all(password.as_bytes()))
            .map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
    }
    Ok(password)
}

/// Registers the demo customer through the API. The customer has an external ID, so that the first
/// card number is still unused.
async fn register_customer(app: &App, password: &str) -> Result<(), Failure> {
    let identifiers = json!([{"type": "mobile", "value": MOBILE}, {"type": "externalId", "value": "DEMO-1"}]);
    let profile = |source: &str, account: &str| json!({"firstName": "Tom", "source": source, "accountId": account, "identifiers": identifiers});
    let body = json!({"profiles": [profile("INSTORE", ""), profile("WECHAT", "WECHAT-API1")]});
    let credentials = format!("Basic {}", STANDARD.encode(format!("{TILL}:{password}")));
    let mut headers = HeaderMap::new();
    headers.insert(
        header::AUTHORIZATION,
        HeaderValue::from_str(&credentials).map_err(|error| Failure::failed(error.to_string()))?,
    );
    let response = app
        .handle(Request {
            method: Method::POST,
            path: api::Path::Encoded("/v2/customers".to_owned()),
            query: String::new(),
            query_was_decoded: false,
            headers,
            body: body.to_string().into(),
            time_limit: TIME_LIMIT,
            request_id: "demo".to_owned(),
        })
        .await;
    if response.status().is_success() {
        Ok(())
    } else {
        Err(Failure::failed(format!("the demo customer was not registered: {}", response.body())))
    }
}

/// Example requests, in the order in which they depend on each other. Each has a heading that no
/// shell minds: zsh knows no comments where it is typed into.
pub fn requests(base: &str, password: &str) -> String {
    let curl = format!(r"curl -sw '\n' -u {TILL}:{password}");
    let json = "-H 'Content-Type: application/json'";
    let entity = format!(r#""entityType":"MOBILE","entityValue":"{MOBILE}","action":"POINTS""#);
    let account = r#""source":"WECHAT","accountId":"WECHAT-API1""#;
    let fetch = format!(
        "source=WECHAT&accountId=WECHAT-API1&identifierName=mobile&identifierValue={MOBILE}&threshold=60&scope=POINTS"
    );
    format!(
        r#": issue an OTP
{curl} {json} {base}/v2/otp/generate -d '{{{entity},{account},"channels":[{{"type":"SMS","value":"{MOBILE}"}}]}}'

: fetch it, by both spellings of the documented request
{curl} '{base}/v2/otp?{fetch}'
{curl} '{base}/v2/otp/{fetch}'

: validate it
CODE=$({curl} '{base}/v2/otp?{fetch}' | sed -n 's/.*"code":"\([^"]*\)".*/\1/p')
{curl} {json} {base}/v2/otp/validate -d '{{{entity},{account},"code":"'"$CODE"'"}}'

: take the next card number
{curl} {base}/v2/cardNumber

: register a customer, who gets the card number after it
{curl} {json} {base}/v2/customers -d '{{"profiles":[{{"firstName":"Tom","source":"INSTORE","accountId":"","identifiers":[{{"type":"mobile","value":"919010000022"}}]}}]}}'

: look the customer up in every source
{curl} '{base}/v2/customers/lookup?source=ALL&identifierName=mobile&identifierValue=919010000022'
"#
    )
}
