//! Writes one JSON object per line. The line of a request or of a delivery is also a document in
//! CloudWatch's Embedded Metric Format: CloudWatch extracts the metrics that `_aws` names, and Logs
//! Insights can query every field.
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html>

use std::{fmt, io::Write};

use chrono::{DateTime, SecondsFormat, Utc};
use serde::Serialize;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::MakeWriter,
    layer::{Context, Layer},
};

use super::{DELIVERY, Metrics, REQUEST};

/// Writes each event to `writer`.
pub(super) struct JsonLayer<W> {
    pub writer: W,
    pub metrics: Option<Metrics>,
}

impl<S, W> Layer<S> for JsonLayer<W>
where
    S: Subscriber,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let line = line(event, self.metrics.as_ref(), Utc::now());
        // Written in one call, so that lines are not mixed. An error is ignored: there is nowhere
        // to report it, and a request must not fail because of it.
        let _ = self.writer.make_writer_for(event.metadata()).write_all(&line);
    }
}

/// Formats an event as a line. Lambda forwards a line unchanged if it has `timestamp` and `level`.
fn line(event: &Event<'_>, metrics: Option<&Metrics>, now: DateTime<Utc>) -> Vec<u8> {
    let mut object = JsonObject(Vec::with_capacity(768));
    object.0.push(b'{');
    object.add("timestamp", now.to_rfc3339_opts(SecondsFormat::Millis, true));
    object.add("level", event.metadata().level().as_str());
    let mut fields = Fields { object, metrics: Vec::new(), ms: None, outcome: None };
    event.record(&mut fields);
    match (metrics, event.metadata().target()) {
        (Some(metrics), REQUEST) => fields.add_request_metrics(metrics, now),
        (Some(metrics), DELIVERY) => fields.add_delivery_metrics(metrics, now),
        _ => {}
    }
    let JsonObject(mut line) = fields.object;
    line.extend_from_slice(b"}\n");
    line
}

/// A JSON object under construction.
struct JsonObject(Vec<u8>);

impl JsonObject {
    /// Adds a member. `name` is written as it is: names of fields and of error codes contain
    /// nothing that JSON escapes.
    fn add(&mut self, name: &str, value: impl Serialize) {
        self.0.extend_from_slice(if self.0.last() == Some(&b'{') { b"\"" } else { b",\"" });
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
        // Serializing strings and numbers into a vector does not fail.
        let _ = serde_json::to_writer(&mut self.0, &value);
    }
}

/// Writes the fields of an event, and collects the data for the metrics.
struct Fields {
    object: JsonObject,
    /// The fields that are metrics. Their names, and no others, begin with a capital letter.
    metrics: Vec<&'static str>,
    ms: Option<f64>,
    /// `ok`, or the codes of the errors with commas between them.
    outcome: Option<String>,
}

impl Fields {
    fn add(&mut self, field: &Field, value: impl Serialize) {
        if field.name().starts_with(|first: char| first.is_ascii_uppercase()) {
            self.metrics.push(field.name());
        }
        self.object.add(field.name(), value);
    }

    /// Turns the line into a document of metrics. The number of requests, their latency and their
    /// error codes are reported by route. All other metrics are rare or belong to one route, so
    /// they are reported for the service as a whole. Each metric costs money in each of its
    /// dimensions.
    fn add_request_metrics(&mut self, metrics: &Metrics, now: DateTime<Utc>) {
        let error_codes = self.add_error_codes();
        let mut by_route = vec![Metric { name: "Requests", unit: None }];
        self.object.add("Requests", 1);
        if let Some(ms) = self.ms {
            self.object.add("Latency", ms);
            by_route.push(Metric { name: "Latency", unit: Some("Milliseconds") });
        }
        by_route.extend(error_codes.iter().map(|name| Metric { name, unit: None }));
        let overall: Vec<Metric> = self.metrics.iter().map(|name| Metric { name, unit: None }).collect();
        let mut directives =
            vec![directive(dimensions(&[&["route"], &["org", "route"]], 1, metrics), by_route, metrics)];
        if !overall.is_empty() {
            directives.push(directive(dimensions(&[&[], &["org"]], 1, metrics), overall, metrics));
        }
        self.object.add("_aws", Document { timestamp: now.timestamp_millis(), directives });
    }

    /// Turns the line into a document of metrics. What became of messages is reported for the
    /// service as a whole and by channel, and so is the time that it took.
    fn add_delivery_metrics(&mut self, metrics: &Metrics, now: DateTime<Utc>) {
        let mut all: Vec<Metric> = self.metrics.iter().map(|name| Metric { name, unit: None }).collect();
        if let Some(ms) = self.ms {
            self.object.add("DeliveryLatency", ms);
            all.push(Metric { name: "DeliveryLatency", unit: Some("Milliseconds") });
        }
        if !all.is_empty() {
            let sets = dimensions(&[&[], &["channel"], &["org"]], 2, metrics);
            let directives = vec![directive(sets, all, metrics)];
            self.object.add("_aws", Document { timestamp: now.timestamp_millis(), directives });
        }
    }

    /// Adds a metric for each error code of the request. A line can contain a metric once.
    fn add_error_codes(&mut self) -> Vec<String> {
        let outcome = self.outcome.take().unwrap_or_default();
        let mut names: Vec<String> =
            outcome.split(',').filter(|code| *code != "ok").map(|code| format!("Outcome.{code}")).collect();
        names.sort_unstable();
        names.dedup();
        for name in &names {
            self.object.add(name, 1);
        }
        names
    }
}

type Dimensions = &'static [&'static [&'static str]];

/// The first `without_org` sets of dimensions, and the others, which contain the org, if metrics by
/// org are enabled.
fn dimensions(sets: Dimensions, without_org: usize, metrics: &Metrics) -> Dimensions {
    if metrics.by_org { sets } else { &sets[..without_org] }
}

fn directive<'a>(dimensions: Dimensions, list: Vec<Metric<'a>>, metrics: &'a Metrics) -> Directive<'a> {
    Directive { namespace: &metrics.namespace, dimensions, metrics: list }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document<'a> {
    timestamp: i64,
    #[serde(rename = "CloudWatchMetrics")]
    directives: Vec<Directive<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Directive<'a> {
    namespace: &'a str,
    dimensions: Dimensions,
    metrics: Vec<Metric<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metric<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "ms" {
            self.ms = Some(value);
        }
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "outcome" {
            self.outcome = Some(value.to_owned());
        }
        self.add(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }
}
