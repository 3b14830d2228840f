//! What happens in a request and is counted: CloudWatch makes metrics of it, by way of the request's
//! log line. Nothing in it is a customer's.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::wire::wire_enum;

wire_enum! {
    /// What can happen in a request, besides its outcome: a field of the request's log line.
    pub enum Event {
        OtpIssued = "OtpsIssued",
        OtpFetched = "OtpsFetched",
        /// A right code.
        OtpValidated = "OtpsValidated",
        /// A wrong code.
        OtpRefused = "OtpsRefused",
        CardNumberGenerated = "CardNumbersGenerated",
        /// How much of an org's range is used up, in percent.
        CardNumberRangeUsed = "CardNumberRangeUsed",
    }
}

/// What happened in one request. Each event has one value, since a line can hold a metric once.
#[derive(Debug, Default)]
pub struct EventCounts(Mutex<BTreeMap<Event, f64>>);

impl EventCounts {
    /// Counts `event` once more.
    pub fn count(&self, event: Event) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(event).or_default() += 1.0;
    }

    /// Sets `event`, which is a level and no count, to `value`.
    pub fn set(&self, event: Event, value: f64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(event, value);
    }

    /// The value of `event`; `None` if it did not happen.
    pub fn get(&self, event: Event) -> Option<f64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&event).copied()
    }
}
