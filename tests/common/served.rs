//! Runs `loyaltyctl serve` as its users do.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// Timeout that detects a hang. Nothing here takes nearly as long.
pub const HANG_TIMEOUT: Duration = Duration::from_secs(30);

pub fn loyaltyctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loyaltyctl"));
    command.args(arguments).env_remove("AWS_ACCESS_KEY_ID").env("RUST_LOG", "info");
    command
}

/// A process of `loyaltyctl serve`. Dropping it kills the process.
#[derive(Debug)]
pub struct Served {
    pub process: Child,
    lines: mpsc::Receiver<String>,
    /// The lines that it has printed so far.
    pub printed: Vec<String>,
}

impl Served {
    pub fn start(arguments: &[&str]) -> Self {
        Self::run(loyaltyctl(&["serve", "--listen", "127.0.0.1:0"]).args(arguments))
    }

    /// Runs a command that serves, and waits until it is ready.
    pub fn run(command: &mut Command) -> Self {
        let has = |wanted: &str| command.get_args().any(|argument| argument == wanted);
        let (demo, embeds) = (has("--demo"), !has("--endpoint"));
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        let mut served = Self { process, lines, printed: Vec::new() };
        served.wait_for("loyalty-codes listens on ");
        if embeds {
            served.wait_for("DynamoDB listens on ");
        }
        if demo {
            served.wait_for(": register a customer");
            served.wait_for("curl ");
        }
        served
    }

    pub fn wait_for(&mut self, beginning: &str) {
        self.wait_until(|line| line.starts_with(beginning));
    }

    /// Waits for a line for which `is` returns true.
    pub fn wait_until(&mut self, is: impl Fn(&str) -> bool) {
        loop {
            let line = self.lines.recv_timeout(HANG_TIMEOUT).unwrap_or_else(|_| panic!("{:?}", self.printed));
            self.printed.push(line.clone());
            if is(&line) {
                return;
            }
        }
    }

    pub fn after(&self, beginning: &str) -> &str {
        let line = self.printed.iter().find_map(|line| line.strip_prefix(beginning)).unwrap();
        line.split(' ').next().unwrap()
    }

    pub fn base(&self) -> &str {
        self.after("loyalty-codes listens on ")
    }

    pub fn dynamodb(&self) -> &str {
        self.after("DynamoDB listens on ")
    }

    /// The printed commands that a user can paste.
    pub fn requests(&self) -> String {
        let start = self.printed.iter().position(|line| line.starts_with(": issue")).unwrap();
        self.printed[start..].join("\n")
    }

    /// The demo till's credentials, `store.server:…`.
    pub fn till(&self) -> String {
        let requests = self.requests();
        requests.split_whitespace().skip_while(|word| *word != "-u").nth(1).unwrap().to_owned()
    }

    /// Kills the process by SIGKILL, so that it cannot clean up. Returns all lines that it printed.
    pub fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let mut printed = std::mem::take(&mut self.printed);
        printed.extend(self.lines.iter());
        printed
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
