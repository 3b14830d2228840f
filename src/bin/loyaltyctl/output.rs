//! What a command prints: colours, aligned tables and a spinner on a terminal, plain lines elsewhere, one JSON
//! value for scripts.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this file is for")]

use std::{future::Future, time::Duration};

use comfy_table::{Table, presets};
use console::{Term, style};
use indicatif::ProgressBar;
use serde_json::Value;

use crate::failure::Failure;

/// Where output goes and how it looks.
pub struct Output {
    json: bool,
    terminal: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        Self { json, terminal: Term::stdout().is_term() }
    }

    /// The result of a command, in whichever form was asked for.
    pub fn print(&self, json: &Value, text: &str) {
        if self.json {
            println!("{json}");
        } else {
            println!("{text}");
        }
    }

    /// Rows under a heading: aligned on a terminal, separated by tabs elsewhere.
    pub fn table(&self, heading: &[&str], rows: &[Vec<String>]) -> String {
        if !self.terminal {
            let lines: Vec<String> = rows.iter().map(|row| row.join("\t")).collect();
            return lines.join("\n");
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(heading.iter().map(|name| name.to_uppercase()));
        table.add_rows(rows);
        // The table would count colours as characters, so they come afterwards.
        let lines = table.lines().enumerate().map(|(i, line)| {
            let line = line.trim();
            if i == 0 { style(line).dim().to_string() } else { line.to_owned() }
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Text that matters, in bold on a terminal.
    pub fn strong(&self, text: &str) -> String {
        if self.terminal { style(text).bold().to_string() } else { text.to_owned() }
    }

    /// Waits for `work`, with a spinner on standard error once it takes long.
    pub async fn while_waiting<T>(&self, what: &'static str, work: impl Future<Output = T>) -> T {
        if self.json || !Term::stderr().is_term() {
            return work.await;
        }
        let mut work = std::pin::pin!(work);
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        let spinner = ProgressBar::new_spinner().with_message(what);
        spinner.enable_steady_tick(Duration::from_millis(80));
        let done = work.await;
        spinner.finish_and_clear();
        done
    }

    /// Why a command failed, on standard error.
    pub fn failure(&self, failure: &Failure) {
        if self.json {
            eprintln!("{}", serde_json::json!({"error": failure.to_string()}));
        } else {
            let label = if Term::stderr().is_term() {
                style("error").red().bold().to_string()
            } else {
                "error".into()
            };
            eprintln!("{label}: {failure}");
        }
    }
}

/// A line that is neither a result nor a failure.
pub fn line(text: &str) {
    println!("{text}");
}
