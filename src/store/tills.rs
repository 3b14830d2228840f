//! Tills with the digests of their secrets.

use aws_sdk_dynamodb::types::AttributeValue;

use super::{
    Attributes, Item, Store, StoreError,
    item::{NewItem, b, json, millis, n, s},
    keys,
    transaction::Outcome,
};
use crate::model::{
    access_token::TokenLifetime,
    org::OrgId,
    till::{Credential, Till, TillName},
};

const NAME: &str = "name";
const ORG: &str = "org";
const PERMISSIONS: &str = "permissions";
const CREDENTIALS: &str = "credentials";
const CREATED_AT: &str = "created_at";
const PASSWORD_DIGEST: &str = "password_digest";
const MD5HEX_DIGEST: &str = "md5hex_digest";
/// In seconds. Tills of the first version have none, and get the default.
const TOKEN_LIFETIME: &str = "token_lifetime";

impl Store {
    /// A till, read strongly consistently.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn till(&self, name: &TillName) -> Result<Option<Till>, StoreError> {
        self.get(&keys::till(name)).await?.map(|attributes| read(&attributes, name)).transpose()
    }

    /// Creates a till. Returns `false`, and writes nothing, when any org has a till with that name.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn create_till(&self, till: &Till) -> Result<bool, StoreError> {
        let item = NewItem::new(&keys::till(&till.name))
            .with(NAME, s(till.name.as_str()))
            .with(ORG, n(till.org))
            .with(PERMISSIONS, json(&till.permissions)?)
            .with(CREDENTIALS, write_credentials(&till.credentials))
            .with(TOKEN_LIFETIME, n(till.token_lifetime.seconds()));
        let listing =
            NewItem::new(&keys::till_listing(till.org, &till.name)).with(NAME, s(till.name.as_str()));
        let outcome = self.transact(vec![self.put_new(item)?, self.put_new(listing)?]).await?;
        Ok(outcome == Outcome::Done)
    }

    /// Replaces the credentials that `till` has. Returns `false`, and writes nothing, when they
    /// have changed since `till` was read.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn replace_credentials(
        &self,
        till: &Till,
        credentials: &[Credential],
    ) -> Result<bool, StoreError> {
        let update = self.update(&keys::till(&till.name), |update| {
            update
                .update_expression(format!("SET {CREDENTIALS} = :new"))
                .condition_expression(format!("{CREDENTIALS} = :old"))
                .expression_attribute_values(":new", write_credentials(credentials))
                .expression_attribute_values(":old", write_credentials(&till.credentials))
        })?;
        let outcome = self.transact(vec![update]).await?;
        Ok(outcome == Outcome::Done)
    }

    /// All tills of an org, by name.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or an item is corrupt.
    pub async fn tills(&self, org: OrgId) -> Result<Vec<Till>, StoreError> {
        let prefix = keys::TILL_LISTING;
        let listed = self.query(&keys::org(org).pk, prefix, &format!("{prefix}~")).await?;
        let mut tills = Vec::with_capacity(listed.len());
        for attributes in listed.iter().rev() {
            let name = TillName::parse(Item(attributes).s(NAME)?)
                .ok_or_else(|| StoreError::corrupt("a till is listed under an invalid name"))?;
            tills.extend(self.till(&name).await?);
        }
        Ok(tills)
    }
}

fn write_credentials(credentials: &[Credential]) -> AttributeValue {
    let write = |credential: &Credential| {
        AttributeValue::M(Attributes::from([
            (CREATED_AT.to_owned(), millis(credential.created_at)),
            (PASSWORD_DIGEST.to_owned(), b(&credential.password_digest)),
            (MD5HEX_DIGEST.to_owned(), b(&credential.md5hex_digest)),
        ]))
    };
    AttributeValue::L(credentials.iter().map(write).collect())
}

fn read(attributes: &Attributes, name: &TillName) -> Result<Till, StoreError> {
    let item = Item(attributes);
    let credentials = item.items(CREDENTIALS)?.into_iter().map(|credential| {
        Ok(Credential {
            created_at: credential.millis(CREATED_AT)?,
            password_digest: credential.bytes(PASSWORD_DIGEST)?,
            md5hex_digest: credential.bytes(MD5HEX_DIGEST)?,
        })
    });
    let token_lifetime = if item.has(TOKEN_LIFETIME) {
        TokenLifetime::new(item.n(TOKEN_LIFETIME)?)
            .ok_or_else(|| StoreError::corrupt("the token lifetime of a till is out of range"))?
    } else {
        TokenLifetime::default()
    };
    Ok(Till {
        name: name.clone(),
        org: OrgId(item.n(ORG)?),
        permissions: item.json(PERMISSIONS)?,
        credentials: credentials.collect::<Result<_, StoreError>>()?,
        token_lifetime,
    })
}
