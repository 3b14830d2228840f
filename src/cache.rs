//! An in-memory cache for tills, access tokens and orgs. Entries are valid for one minute.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Mutex, PoisonError},
};

use chrono::{DateTime, TimeDelta, Utc};

/// How long an entry is valid. A revoked secret or an old version of an org may be used for this
/// long.
pub const TTL: TimeDelta = TimeDelta::seconds(60);

/// An entry that was not refreshed for this long is dropped.
const DROP_AFTER: TimeDelta = TimeDelta::hours(1);

/// The maximum number of entries, which take a few MiB. The oldest entry is dropped first.
const MAX_ENTRIES: usize = 4096;

/// Values by key, each with the time at which it was read. The size is bounded, because a Lambda
/// environment lives for hours.
#[derive(Debug)]
pub struct Cache<K, V>(Mutex<HashMap<K, (DateTime<Utc>, V)>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Cache<K, V> {
    pub fn get(&self, key: &K, now: DateTime<Utc>) -> Option<V> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (read_at, value) = entries.get(key)?;
        (now - read_at < TTL).then(|| value.clone())
    }

    pub fn put(&self, key: K, value: V, now: DateTime<Utc>) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, (read_at, _)| now - *read_at < DROP_AFTER);
        if entries.len() >= MAX_ENTRIES && !entries.contains_key(&key) {
            let oldest = entries.iter().min_by_key(|(_, (read_at, _))| *read_at).map(|(key, _)| key.clone());
            oldest.and_then(|key| entries.remove(&key));
        }
        entries.insert(key, (now, value));
    }

    /// Whether there is an entry, expired or not.
    pub fn contains(&self, key: &K) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::milliseconds(milliseconds)
    }

    #[test]
    fn an_entry_is_valid_for_a_minute() {
        let cache = Cache::default();
        cache.put("key", 1, at(0));
        assert_eq!((cache.get(&"key", at(59_999)), cache.get(&"key", at(60_000))), (Some(1), None));
        assert!(cache.contains(&"key"));
    }

    #[test]
    fn an_entry_that_was_not_refreshed_for_an_hour_is_dropped() {
        let cache = Cache::default();
        cache.put("old", 1, at(0));
        cache.put("new", 2, at(3_600_000));
        assert!(!cache.contains(&"old") && cache.contains(&"new"));
    }

    #[test]
    fn a_full_cache_drops_the_oldest_value() {
        let cache = Cache::default();
        let now = |key: usize| at(i64::try_from(key).unwrap());
        for key in 0..MAX_ENTRIES {
            cache.put(key, (), now(key));
        }
        cache.put(0, (), now(MAX_ENTRIES));
        cache.put(MAX_ENTRIES, (), now(MAX_ENTRIES + 1));
        assert!(!cache.contains(&1), "it is the oldest, since 0 was read again");
        assert!([0, 2, MAX_ENTRIES].iter().all(|key| cache.contains(key)));
        assert_eq!(cache.0.lock().unwrap().len(), MAX_ENTRIES);
    }
}
