//! Access tokens. The table contains the SHA-256 of each token, so nobody who reads the table can
//! act as a till.

use super::{
    Item, Store, StoreError,
    item::{NewItem, b, millis, s, ttl},
    keys,
};
use crate::model::{
    access_token::{TokenDigest, TokenGrant},
    till::{CredentialId, TillName},
};

const TILL: &str = "till";
const CREDENTIAL: &str = "credential";
const VALID_UNTIL: &str = "valid_until";

impl Store {
    /// Stores a new token. A retry writes the same item again.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails.
    pub async fn put_access_token(&self, token: &TokenDigest, grant: &TokenGrant) -> Result<(), StoreError> {
        let item = NewItem::new(&keys::access_token(token))
            .with(TILL, s(grant.till.as_str()))
            .with(CREDENTIAL, b(&grant.credential.0))
            .with(VALID_UNTIL, millis(grant.valid_until))
            .with(keys::EXPIRES_AT, ttl(grant.valid_until));
        let put = self.client.put_item().table_name(&self.table).set_item(Some(item.into_attributes()));
        put.send().await.map(|_| ()).map_err(StoreError::from_sdk)
    }

    /// What a token stands for, read strongly consistently. An expired token may still be found,
    /// because TTL deletes late.
    ///
    /// # Errors
    /// [`StoreError`] when DynamoDB fails or the item is corrupt.
    pub async fn access_token(&self, token: &TokenDigest) -> Result<Option<TokenGrant>, StoreError> {
        let Some(attributes) = self.get(&keys::access_token(token)).await? else {
            return Ok(None);
        };
        let item = Item(&attributes);
        let till = TillName::parse(item.s(TILL)?)
            .ok_or_else(|| StoreError::corrupt("an access token is of a till with an invalid name"))?;
        Ok(Some(TokenGrant {
            till,
            credential: CredentialId(item.bytes(CREDENTIAL)?),
            valid_until: item.millis(VALID_UNTIL)?,
        }))
    }
}
