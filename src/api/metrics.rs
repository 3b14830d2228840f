//! Events that are counted for metrics. CloudWatch extracts them from the request's log line. They
//! contain no personal data.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::wire::wire_enum;

wire_enum! {
    /// An event in a request. Its name is a field of the request's log line.
    pub enum Event {
        /// An OTP was issued or sent again.
        OtpIssued = "OtpsIssued",
        /// One of them has a message that is to be delivered.
        OtpToDeliver = "OtpsToDeliver",
        OtpFetched = "OtpsFetched",
        /// A right code.
        OtpValidated = "OtpsValidated",
        /// A wrong code.
        OtpRefused = "OtpsRefused",
        CardNumberGenerated = "CardNumbersGenerated",
        /// The percentage of an org's range that is used.
        CardNumberRangeUsed = "CardNumberRangeUsed",
    }
}

/// The events of one request. Each event has one value, because a log line can contain a metric
/// once.
#[derive(Debug, Default)]
pub struct EventCounts(Mutex<BTreeMap<Event, f64>>);

impl EventCounts {
    /// Adds 1 to `event`.
    pub fn count(&self, event: Event) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(event).or_default() += 1.0;
    }

    /// Sets `event` to `value`, for events that are levels and not counts.
    pub fn set(&self, event: Event, value: f64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(event, value);
    }

    /// The value of `event`; `None` if it did not happen.
    pub fn get(&self, event: Event) -> Option<f64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&event).copied()
    }
}
