//! What a process remembers between requests: tills and orgs, for a minute.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};

/// How long a revoked secret or a changed org may go on being used.
pub const TTL: TimeDelta = TimeDelta::seconds(60);

/// A value that was not read again for so long is dropped.
const FORGET_AFTER: TimeDelta = TimeDelta::hours(1);

/// Values by key, each with the time it was read.
#[derive(Debug)]
pub struct Cache<K, V>(Mutex<HashMap<K, (DateTime<Utc>, V)>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    pub fn get(&self, key: &K, now: DateTime<Utc>) -> Option<V> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (read_at, value) = entries.get(key)?;
        (now - read_at < TTL).then(|| value.clone())
    }

    pub fn put(&self, key: K, value: V, now: DateTime<Utc>) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, (read_at, _)| now - *read_at < FORGET_AFTER);
        entries.insert(key, (now, value));
    }

    /// Whether there is a value, however old.
    pub fn contains(&self, key: &K) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }
}
