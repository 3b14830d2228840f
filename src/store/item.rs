//! Reading and writing the attributes of an item.

use std::{collections::HashMap, fmt::Display, str::FromStr};

use aws_sdk_dynamodb::{primitives::Blob, types::AttributeValue};
use chrono::{DateTime, Utc};

use super::{error::StoreError, keys::Key};

pub type Attributes = HashMap<String, AttributeValue>;

/// An item to be written.
pub struct NewItem(Attributes);

impl NewItem {
    pub fn new(key: &Key) -> Self {
        Self(key.attributes())
    }

    pub fn with(mut self, name: &str, value: AttributeValue) -> Self {
        self.0.insert(name.to_owned(), value);
        self
    }

    pub fn into_attributes(self) -> Attributes {
        self.0
    }
}

/// Text.
pub fn s(value: impl Into<String>) -> AttributeValue {
    AttributeValue::S(value.into())
}

/// A number.
pub fn n(value: impl Display) -> AttributeValue {
    AttributeValue::N(format!("{value}"))
}

/// Bytes.
pub fn b(value: &[u8]) -> AttributeValue {
    AttributeValue::B(Blob::new(value))
}

/// A point in time, as milliseconds since 1970.
pub fn millis(time: DateTime<Utc>) -> AttributeValue {
    n(time.timestamp_millis())
}

/// A point in time as TTL expects it: seconds since 1970, rounded up, so that nothing is deleted
/// early.
pub fn ttl(time: DateTime<Utc>) -> AttributeValue {
    n(time.timestamp() + 1)
}

/// On every tombstone and mark of a customer who was erased or merged (`operators::tombstones`):
/// when that was.
pub const GONE_AT: &str = "gone_at";

/// An item that was read. Its methods fail when an attribute is missing or has another type. The
/// error names the attribute and never its value.
pub struct Item<'a>(pub &'a Attributes);

impl<'a> Item<'a> {
    /// Whether it is a tombstone or a mark.
    pub fn is_gone(&self) -> bool {
        self.has(GONE_AT)
    }

    fn get<T>(
        &self,
        name: &str,
        read: impl FnOnce(&'a AttributeValue) -> Option<T>,
    ) -> Result<T, StoreError> {
        self.0
            .get(name)
            .and_then(read)
            .ok_or_else(|| StoreError::corrupt(format_args!("attribute `{name}` is missing or malformed")))
    }

    pub fn s(&self, name: &str) -> Result<&'a str, StoreError> {
        self.get(name, |value| value.as_s().ok().map(String::as_str))
    }

    pub fn n<T: FromStr>(&self, name: &str) -> Result<T, StoreError> {
        self.get(name, |value| value.as_n().ok()?.parse().ok())
    }

    pub fn bytes<const N: usize>(&self, name: &str) -> Result<[u8; N], StoreError> {
        self.get(name, |value| value.as_b().ok()?.as_ref().try_into().ok())
    }

    pub fn millis(&self, name: &str) -> Result<DateTime<Utc>, StoreError> {
        self.get(name, read_millis)
    }

    pub fn all_millis(&self, name: &str) -> Result<Vec<DateTime<Utc>>, StoreError> {
        self.get(name, |value| value.as_l().ok()?.iter().map(read_millis).collect())
    }

    pub fn json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T, StoreError> {
        // The text of serde's error quotes values.
        serde_json::from_str(self.s(name)?).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            StoreError::corrupt(format_args!("attribute `{name}` is malformed at {line}:{column}"))
        })
    }

    /// A set of texts.
    #[cfg(feature = "cli")]
    pub fn texts(&self, name: &str) -> Result<&'a [String], StoreError> {
        self.get(name, |value| value.as_ss().ok().map(Vec::as_slice))
    }

    pub fn items(&self, name: &str) -> Result<Vec<Item<'a>>, StoreError> {
        self.get(name, |value| value.as_l().ok()?.iter().map(|entry| entry.as_m().ok().map(Item)).collect())
    }

    pub fn map(&self, name: &str) -> Result<&'a Attributes, StoreError> {
        self.get(name, |value| value.as_m().ok())
    }

    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

fn read_millis(value: &AttributeValue) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(value.as_n().ok()?.parse().ok()?)
}

/// A value as JSON text in one attribute.
pub fn json<T: serde::Serialize>(value: &T) -> Result<AttributeValue, StoreError> {
    serde_json::to_string(value).map(s).map_err(StoreError::corrupt)
}
