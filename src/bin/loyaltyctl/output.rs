//! The output of commands: colours, aligned tables and a spinner on a terminal, plain lines
//! elsewhere, or one JSON value for scripts. Control characters are escaped; see [`printable`].

use std::{
    borrow::Cow,
    env::{self, VarError},
    future::Future,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use comfy_table::{Table, presets};
use console::style;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::failure::Failure;

/// The form of the output.
pub struct Output {
    json: bool,
    terminal: bool,
    colours: bool,
}

impl Output {
    pub fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        Self { json, terminal, colours: colours(terminal) }
    }

    /// Whether standard output gets colours.
    pub const fn colours(&self) -> bool {
        self.colours
    }

    pub const fn json(&self) -> bool {
        self.json
    }

    /// Prints the result of a command as JSON or as text. `text` must be [`printable`].
    pub fn print(&self, json: &Value, text: &str) -> Result<(), Failure> {
        if self.json { line(&escape(&json.to_string(), json_escape)) } else { line(text) }
    }

    /// Formats rows under a heading: aligned on a terminal, separated by tabs elsewhere.
    pub fn table(&self, heading: &[&str], rows: &[Vec<String>]) -> String {
        let rows = rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect::<Vec<_>>());
        if !self.terminal {
            return rows.map(|row| row.join("\t")).collect::<Vec<_>>().join("\n");
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING);
        table.set_header(heading.iter().map(|name| name.to_uppercase()));
        table.add_rows(rows);
        // Colours are added afterwards, because the table would count them as characters.
        let lines = table.lines().enumerate().map(|(i, line)| {
            let line = line.trim();
            if i == 0 { style(line).dim().force_styling(self.colours).to_string() } else { line.to_owned() }
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Emphasized text: bold if colours are enabled.
    pub fn strong(&self, text: &str) -> String {
        style(printable(text)).bold().force_styling(self.colours).to_string()
    }

    /// Waits for `work`, with a spinner on standard error once it takes long.
    pub async fn with_spinner<T>(&self, what: &'static str, work: impl Future<Output = T>) -> T {
        let spinner = self.spinner();
        if spinner.is_hidden() {
            return work.await;
        }
        let mut work = std::pin::pin!(work);
        tokio::select! {
            done = &mut work => return done,
            () = tokio::time::sleep(Duration::from_millis(200)) => {}
        }
        spinner.set_message(what);
        spinner.enable_steady_tick(Duration::from_millis(80));
        let done = work.await;
        spinner.finish_and_clear();
        done
    }

    /// A spinner on standard error; hidden where that is no terminal or has no colours, and with
    /// `--json`.
    pub fn spinner(&self) -> ProgressBar {
        if self.shows_progress() { ProgressBar::new_spinner() } else { ProgressBar::hidden() }
    }

    /// A bar on standard error for work of this length; hidden as [`Self::spinner`] is.
    pub fn progress(&self, length: u64) -> ProgressBar {
        if !self.shows_progress() {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{bar:40} {percent:>3} %  {msg}, {eta} left");
        ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    fn shows_progress(&self) -> bool {
        let terminal = io::stderr().is_terminal();
        !self.json && terminal && colours(terminal)
    }

    /// Why a command failed, on standard error.
    pub fn failure(&self, failure: &Failure) {
        let message = failure.to_string();
        if self.json {
            let error = serde_json::json!({"error": message});
            print_error(&escape(&error.to_string(), json_escape));
        } else {
            let label = style("error").red().bold().force_styling(colours(io::stderr().is_terminal()));
            print_error(&format!("{label}: {}", printable_lines(&message)));
        }
    }

    /// Prints a warning of a command that succeeded to standard error. With `--json`, the result
    /// contains it instead.
    pub fn warn(&self, warning: &str) {
        if !self.json {
            let label = style("warning").yellow().bold().force_styling(colours(io::stderr().is_terminal()));
            print_error(&format!("{label}: {}", printable_lines(warning)));
        }
    }
}

/// Asks whether to go on.
///
/// # Errors
/// A refusal when the answer is not yes, and where nobody can be asked.
pub fn ask(question: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::refused("this needs --yes where nobody can be asked"));
    }
    let _ = write!(io::stderr(), "{} [y/N] ", printable_lines(question)); // an unseen question gets no answer
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer);
    read.map_err(|error| Failure::failed(format!("cannot read the answer: {error}")))?;
    if matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes") {
        Ok(())
    } else {
        Err(Failure::refused("nothing was changed"))
    }
}

/// Prints a line that is neither a result nor a failure.
pub fn line(text: &str) -> Result<(), Failure> {
    raw(format!("{text}\n").as_bytes())
}

/// Writes bytes to standard output and flushes them.
pub fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    output.write_all(bytes).and_then(|()| output.flush()).map_err(|error| Failure::output(&error))
}

/// Prints what a question is about. `text` must be [`printable`].
pub fn before_question(text: &str) {
    print_error(text);
}

/// Prints a line to standard error. If that fails, the exit code still reports the failure. `text`
/// must be [`printable`].
pub fn print_error(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether a stream gets colours, by the rules of <https://no-color.org> and
/// <https://bixense.com/clicolors/>. A dumb terminal gets none.
fn colours(terminal: bool) -> bool {
    choose_colours(env::var, terminal)
}

fn choose_colours(get: impl Fn(&'static str) -> Result<String, VarError>, terminal: bool) -> bool {
    let get = |variable| get(variable).ok().filter(|value| !value.is_empty());
    if get("NO_COLOR").is_some() {
        return false;
    }
    if get("CLICOLOR_FORCE").is_some_and(|value| value != "0") {
        return true;
    }
    let refused = get("CLICOLOR").as_deref() == Some("0") || get("TERM").as_deref() == Some("dumb");
    terminal && !refused
}

/// Escapes the characters that control a terminal or change the direction of writing. Stored names
/// may contain them.
pub fn printable(text: &str) -> Cow<'_, str> {
    escape(text, |c| c.escape_default().to_string())
}

/// The same for a text of several lines.
fn printable_lines(text: &str) -> String {
    text.split('\n').map(printable).collect::<Vec<_>>().join("\n")
}

/// The JSON escape of a character. Used for characters that JSON may leave as they are, which occur
/// only in strings.
pub fn json_escape(c: char) -> String {
    format!("\\u{:04x}", u32::from(c))
}

/// Replaces each character that could control a terminal with the result of `escaped`.
pub fn escape(text: &str, escaped: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(controls_terminal) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if controls_terminal(c) { escaped(c) } else { c.to_string() }).collect())
}

/// Whether a character is a control character, a line or paragraph separator, or a direction mark.
fn controls_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let choose = |variables: &[(&str, &str)], terminal| {
            let get = |name: &'static str| {
                let found = variables.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| (*value).to_owned()).ok_or(VarError::NotPresent)
            };
            choose_colours(get, terminal)
        };
        assert!(choose(&[], true) && !choose(&[], false));
        for (refusal, value) in [("NO_COLOR", "1"), ("TERM", "dumb"), ("CLICOLOR", "0")] {
            assert!(!choose(&[(refusal, value)], true), "{refusal}");
        }
        assert!(choose(&[("NO_COLOR", ""), ("CLICOLOR", "1"), ("TERM", "xterm")], true));
        assert!(choose(&[("CLICOLOR_FORCE", "1"), ("CLICOLOR", "0"), ("TERM", "dumb")], false));
        assert!(!choose(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], true));
        assert!(!choose(&[("CLICOLOR_FORCE", "0")], false));
    }

    #[test]
    fn nothing_printed_controls_a_terminal() {
        let name = "a\u{1b}[31m\tb\n\u{9b}c\u{202e}d\u{7f}e";
        assert_eq!(printable(name), r"a\u{1b}[31m\tb\n\u{9b}c\u{202e}d\u{7f}e");
        assert_eq!(printable("Käse नमस्ते می\u{200c}خواهم"), "Käse नमस्ते می\u{200c}خواهم");
        let json = serde_json::json!({"name": name}).to_string();
        let escaped = escape(&json, json_escape);
        assert!(!escaped.contains(controls_terminal), "{escaped}");
        assert_eq!(serde_json::from_str::<Value>(&escaped).unwrap()["name"], name, "it says the same");
        let output = Output { json: false, terminal: false, colours: false };
        let table = output.table(&["name"], &[vec![name.to_owned(), "x".to_owned()]]);
        assert_eq!(table.matches('\t').count(), 1, "a tab in a cell is no other column: {table}");
        assert_eq!(output.strong(name), printable(name));
    }
}
