//! CloudWatch metrics of each request, in the Embedded Metric Format: lines in the log that CloudWatch makes
//! metrics of. Their dimensions are the org and the route; nothing in them is a customer's.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use metrique_writer_core::{Entry, EntryWriter, format::Format};
use metrique_writer_format_emf::Emf;

use crate::wire::wire_enum;

/// The namespace that the template's alarms and dashboard look into.
const NAMESPACE: &str = "loyalty-codes";

wire_enum! {
    /// What events in a request, besides its outcome.
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

/// What events in one request. Each thing has one value: a line can hold a metric once.
#[derive(Debug, Default)]
pub struct EventCounts(Mutex<BTreeMap<Event, f64>>);

impl EventCounts {
    /// It events once more.
    pub fn count(&self, events: Event) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(events).or_default() += 1.0;
    }

    /// It stands at `value` now.
    pub fn set(&self, events: Event, value: f64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(events, value);
    }

    pub fn into_values(self) -> BTreeMap<Event, f64> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request, as it is measured.
#[derive(Debug)]
pub struct RequestMetrics {
    pub at: SystemTime,
    /// The org's number, or `none` for a caller who proved nothing.
    pub org: String,
    /// Method and path of the route, or `none`.
    pub route: String,
    /// `ok`, or the codes of the errors.
    pub outcomes: BTreeSet<String>,
    pub latency: Duration,
    pub round_trips: u32,
    /// Round trips that repeated one before them.
    pub retries: u32,
    /// Whether it is the first request of its process.
    pub cold_start: bool,
    pub events: BTreeMap<Event, f64>,
}

impl Entry for RequestMetrics {
    fn write<'a>(&'a self, writer: &mut impl EntryWriter<'a>) {
        writer.timestamp(self.at);
        writer.value("org", &self.org);
        writer.value("route", &self.route);
        writer.value("Requests", &1_u64);
        for outcome in &self.outcomes {
            writer.value(format!("Outcome.{outcome}"), &1_u64);
        }
        writer.value("Latency", &self.latency);
        writer.value("DynamoDbRoundTrips", &u64::from(self.round_trips));
        writer.value("DynamoDbRetries", &u64::from(self.retries));
        writer.value("ColdStarts", &u64::from(self.cold_start));
        for (events, value) in &self.events {
            writer.value(events.as_str(), value);
        }
    }
}

/// Where metrics are written.
pub struct Metrics(Mutex<Sink>);

struct Sink {
    format: Emf,
    writer: Box<dyn io::Write + Send>,
}

impl Metrics {
    /// Metrics written to `writer`: on Lambda, the standard output.
    pub fn new(writer: impl io::Write + Send + 'static) -> Self {
        // By org and route, and, for alarms, altogether.
        let dimensions = vec![vec!["org".to_owned(), "route".to_owned()], Vec::new()];
        let format = Emf::builder(NAMESPACE.to_owned(), dimensions).build();
        Self(Mutex::new(Sink { format, writer: Box::new(writer) }))
    }

    /// Writes a line. One that cannot be written is worth a warning and no failed request.
    pub fn write(&self, measured: &RequestMetrics) {
        let Sink { format, writer } = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // In one piece: lines of the log must not come between.
        let mut line = Vec::new();
        let written = format.format(measured, &mut line).map_err(|error| error.to_string());
        let written = written.and_then(|()| writer.write_all(&line).map_err(|error| error.to_string()));
        if let Err(error) = written {
            tracing::warn!(error, "metrics cannot be written");
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}
