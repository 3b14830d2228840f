//! Log lines: JSON on Lambda, plain text elsewhere. A request writes one line, and so does the
//! delivery of a message on a channel. On Lambda, that line also contains its metrics.
//!
//! `RUST_LOG` sets the level of this crate (`debug`, or `loyalty_codes=debug`). Dependencies log
//! only warnings and errors, whatever `RUST_LOG` says: at lower levels, the SDK and the HTTP stack
//! log requests with personal data and secrets.

mod json;

use std::io;

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    filter::Targets,
    fmt::MakeWriter,
    layer::{Layer, SubscriberExt},
    registry::LookupSpan,
};

use crate::settings::{InvalidSetting, variable};
use json::JsonLayer;

/// The target of the event at the end of each request. It is the request's only line above `debug`.
pub const REQUEST: &str = "loyalty_codes::request";

/// The target of the event at the end of the delivery of a message on a channel.
pub const DELIVERY: &str = "loyalty_codes::deliveries";

/// How lines are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// One JSON object per line. The line of a request contains its metrics, if they are enabled.
    Json(Option<Metrics>),
    /// Plain text, with colours if `ansi`. It is not compiled into the function.
    #[cfg(feature = "cli")]
    Text { ansi: bool },
}

/// The CloudWatch namespace and dimensions of the metrics of requests and deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metrics {
    namespace: String,
    by_org: bool,
}

impl Metrics {
    /// Metrics in `namespace`, by route or channel, and if `by_org` also by org.
    pub fn new(namespace: impl Into<String>, by_org: bool) -> Self {
        Self { namespace: namespace.into(), by_org }
    }

    /// Reads `METRICS_NAMESPACE` and `METRICS_BY_ORG`. Without a namespace there are no metrics.
    ///
    /// # Errors
    /// [`InvalidSetting`] for the first variable that cannot be used.
    pub fn from_env() -> Result<Option<Self>, InvalidSetting> {
        Self::read(variable)
    }

    fn read(
        get: impl Fn(&'static str) -> Result<Option<String>, InvalidSetting>,
    ) -> Result<Option<Self>, InvalidSetting> {
        let get = |variable| Ok(get(variable)?.filter(|value| !value.is_empty()));
        let by_org = match get("METRICS_BY_ORG")?.as_deref() {
            Some("true") => true,
            Some("false") | None => false,
            Some(other) => {
                let reason = format!("`{other}` is neither `true` nor `false`");
                return Err(InvalidSetting { variable: "METRICS_BY_ORG", reason });
            }
        };
        get("METRICS_NAMESPACE")?
            .map(|namespace| Ok(Self { namespace: check_namespace(namespace)?, by_org }))
            .transpose()
    }
}

/// Returns `name` if CloudWatch accepts it as a namespace (`PutMetricData`, parameter `Namespace`).
fn check_namespace(name: String) -> Result<String, InvalidSetting> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_/#: ".contains(&b);
    let well_formed = name.len() <= 255 && name.bytes().all(allowed) && !name.starts_with([':', ' ']);
    if well_formed && !name.starts_with("AWS/") {
        Ok(name)
    } else {
        let reason = format!(
            "`{name}` is not a namespace: up to 255 of A-Z a-z 0-9 . - _ / # : and the space, without AWS/"
        );
        Err(InvalidSetting { variable: "METRICS_NAMESPACE", reason })
    }
}

const OWN_TARGETS: [&str; 2] = ["loyalty_codes", "loyaltyctl"];

/// A subscriber that writes the events that `rust_log` enables to `writer`.
///
/// # Errors
/// [`InvalidSetting`] when `rust_log` cannot be read.
pub fn subscriber<W>(
    format: Format,
    rust_log: Option<&str>,
    writer: W,
) -> Result<impl Subscriber + for<'a> LookupSpan<'a> + Send + Sync, InvalidSetting>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = match format {
        Format::Json(metrics) => JsonLayer { writer, metrics }.boxed(),
        #[cfg(feature = "cli")]
        Format::Text { ansi } => {
            // A line that cannot be written is dropped. An error message would go to standard
            // error, and panic if that is closed, too.
            let layer = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
            layer.with_target(false).with_ansi(ansi).boxed()
        }
    };
    Ok(tracing_subscriber::registry().with(layer.with_filter(filter(rust_log)?)))
}

/// Installs the global subscriber, which writes to standard output.
///
/// # Errors
/// [`InvalidSetting`] when `RUST_LOG` cannot be read.
pub fn init(format: Format) -> Result<(), InvalidSetting> {
    let rust_log = variable("RUST_LOG")?;
    let subscriber = subscriber(format, rust_log.as_deref(), io::stdout)?;
    // A second call keeps the first subscriber.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

fn filter(rust_log: Option<&str>) -> Result<Targets, InvalidSetting> {
    let invalid = |reason| InvalidSetting { variable: "RUST_LOG", reason };
    let own = |target: &str| OWN_TARGETS.iter().any(|own| target.starts_with(own));
    let asked: Targets = match rust_log.map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => {
            // Without this check, a misspelt level would be parsed as a target, and the log would
            // have another level than intended.
            let wrong = text.split(',').map(str::trim).find(|directive| {
                let level = |level: &str| !level.is_empty() && level.parse::<LevelFilter>().is_ok();
                match directive.rsplit_once('=') {
                    Some((target, name)) => target.is_empty() || !level(name),
                    None => !level(directive) && !own(directive),
                }
            });
            if let Some(wrong) = wrong {
                let levels = "off, error, warn, info, debug or trace";
                return Err(invalid(format!(
                    "`{wrong}` is not a level ({levels}), nor of the form TARGET=LEVEL"
                )));
            }
            text.parse().map_err(|error| invalid(format!("`{text}`: {error}")))?
        }
        None => Targets::new().with_default(LevelFilter::INFO),
    };
    let named =
        asked.iter().filter(|(target, _)| own(target)).map(|(target, level)| (target.to_owned(), level));
    let default = asked.default_level().unwrap_or(LevelFilter::INFO);
    Ok(Targets::new()
        .with_default(LevelFilter::WARN)
        // The embedded engine logs a warning for each error response. The store decides what to log
        // about these.
        .with_target("dynoxide", LevelFilter::ERROR)
        .with_targets(OWN_TARGETS.map(|target| (target, default)))
        .with_targets(named))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn dependencies_never_log_below_warnings() {
        for rust_log in [None, Some("trace"), Some("aws_smithy_runtime=trace,hyper=debug")] {
            let filter = filter(rust_log).unwrap();
            for target in ["aws_smithy_runtime", "hyper", "lambda_runtime"] {
                assert!(!filter.would_enable(target, &Level::INFO), "{rust_log:?} {target}");
                assert!(filter.would_enable(target, &Level::WARN));
            }
        }
    }

    #[test]
    fn rust_log_sets_our_own_level() {
        assert!(filter(None).unwrap().would_enable("loyalty_codes::api", &Level::INFO));
        assert!(!filter(None).unwrap().would_enable("loyalty_codes::api", &Level::DEBUG));
        assert!(filter(Some(" ")).unwrap().would_enable("loyalty_codes::api", &Level::INFO));
        assert!(filter(Some("debug")).unwrap().would_enable("loyalty_codes::api", &Level::DEBUG));
        assert!(filter(Some("loyalty_codes=trace")).unwrap().would_enable("loyalty_codes", &Level::TRACE));
        let module = filter(Some("loyalty_codes::api=debug")).unwrap();
        assert!(module.would_enable("loyalty_codes::api", &Level::DEBUG));
        assert!(module.would_enable("loyalty_codes::store", &Level::INFO));
        assert!(filter(Some("hyper=debug")).unwrap().would_enable("loyalty_codes", &Level::INFO));
        assert!(!filter(Some("error")).unwrap().would_enable("loyalty_codes", &Level::INFO));
    }

    #[test]
    fn metrics_are_written_where_a_namespace_is_given() {
        let read = |pairs: &[(&str, &str)]| {
            Metrics::read(|name| {
                Ok(pairs.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned()))
            })
        };
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[("METRICS_NAMESPACE", ""), ("METRICS_BY_ORG", "true")]), Ok(None));
        assert_eq!(read(&[("METRICS_NAMESPACE", "codes-eu")]), Ok(Some(Metrics::new("codes-eu", false))));
        let by_org = read(&[("METRICS_NAMESPACE", "codes"), ("METRICS_BY_ORG", "true")]);
        assert_eq!(by_org, Ok(Some(Metrics::new("codes", true))));
        for (variable, value) in [
            ("METRICS_NAMESPACE", "AWS/Lambda"),
            ("METRICS_NAMESPACE", "a\"b"),
            ("METRICS_NAMESPACE", ":a"),
            ("METRICS_BY_ORG", "yes"),
        ] {
            assert_eq!(read(&[(variable, value)]).unwrap_err().variable, variable, "{value}");
        }
    }

    #[test]
    fn an_unreadable_rust_log_is_refused_by_name() {
        for rust_log in ["loyalty_codes=loud", "infoo", "info,hyperr", "=", ",,"] {
            assert_eq!(filter(Some(rust_log)).unwrap_err().variable, "RUST_LOG", "{rust_log}");
        }
    }
}
