//! The source of time. It is injected everywhere, so that tests can set it.

use std::{fmt, sync::Arc};

use chrono::{DateTime, Utc};

/// Returns the current time. Cheap to clone.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> DateTime<Utc> + Send + Sync>);

impl Clock {
    /// The time of the operating system.
    pub fn system() -> Self {
        Self::from_fn(Utc::now)
    }

    /// A clock that returns the result of `now`.
    pub fn from_fn(now: impl Fn() -> DateTime<Utc> + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The time now.
    pub fn now(&self) -> DateTime<Utc> {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}
