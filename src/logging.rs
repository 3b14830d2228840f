//! Log lines: JSON on Lambda, for people elsewhere.
//!
//! `RUST_LOG` sets the level of this crate (`debug`, or `loyalty_codes=debug`). Dependencies log warnings
//! and errors at most, whatever it says: at lower levels the SDK and the HTTP stack write out requests, with
//! the customers and secrets in them.

use std::io;

use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    filter::Targets,
    fmt::{self, MakeWriter},
    layer::{Layer, SubscriberExt},
    registry::LookupSpan,
};

use crate::settings::{InvalidSetting, variable};

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For a person: with colours if `ansi`. The function has no use for it.
    #[cfg(feature = "cli")]
    Text { ansi: bool },
}

const OWN_TARGETS: [&str; 2] = ["loyalty_codes", "loyaltyctl"];

/// A subscriber that writes to `writer` what `rust_log` asks for.
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
    // A line that cannot be written is dropped: the complaint about it would go to standard error, and panic
    // where that is closed, too.
    let layer = fmt::layer().with_writer(writer).with_target(false).log_internal_errors(false);
    let layer = match format {
        Format::Json => {
            layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
        #[cfg(feature = "cli")]
        Format::Text { ansi } => layer.with_ansi(ansi).boxed(),
    };
    Ok(tracing_subscriber::registry().with(layer.with_filter(filter(rust_log)?)))
}

/// Writes to standard output from now on.
///
/// # Errors
/// [`InvalidSetting`] when `RUST_LOG` cannot be read.
pub fn init(format: Format) -> Result<(), InvalidSetting> {
    let rust_log = variable("RUST_LOG")?;
    let subscriber = subscriber(format, rust_log.as_deref(), io::stdout)?;
    // A second call would find a subscriber there: it keeps the first.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Ok(())
}

fn filter(rust_log: Option<&str>) -> Result<Targets, InvalidSetting> {
    let invalid = |reason| InvalidSetting { variable: "RUST_LOG", reason };
    let own = |target: &str| OWN_TARGETS.iter().any(|own| target.starts_with(own));
    let asked: Targets = match rust_log.map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => {
            // A misspelt level would be taken for a target, and the log would be at a level that nobody asked for.
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
                    "`{wrong}` is no level ({levels}), nor of the form TARGET=LEVEL"
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
        // The embedded engine warns of each error that it answers, which is ours to judge.
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
    fn an_unreadable_rust_log_is_refused_by_name() {
        for rust_log in ["loyalty_codes=loud", "infoo", "info,hyperr", "=", ",,"] {
            assert_eq!(filter(Some(rust_log)).unwrap_err().variable, "RUST_LOG", "{rust_log}");
        }
    }
}
