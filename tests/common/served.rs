//! `loyaltyctl serve` as its users run it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// Far longer than anything here takes, so that a hang is an error and not a wait.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn loyaltyctl(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loyaltyctl"));
    command.args(arguments).env_remove("AWS_ACCESS_KEY_ID").env("RUST_LOG", "info");
    command
}

/// `loyaltyctl serve`, killed when it is dropped.
#[derive(Debug)]
pub struct Served {
    pub process: Child,
    lines: mpsc::Receiver<String>,
    /// What it said until it was ready.
    pub said: Vec<String>,
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
        let mut served = Self { process, lines, said: Vec::new() };
        served.wait_for("loyalty-codes listens on ");
        if embeds {
            served.wait_for("DynamoDB listens on ");
        }
        if demo {
            served.wait_for("# register a customer");
            served.wait_for("curl ");
        }
        served
    }

    pub fn wait_for(&mut self, beginning: &str) {
        self.wait_until(|line| line.starts_with(beginning));
    }

    /// Waits for a line that `is` says to be the one.
    pub fn wait_until(&mut self, is: impl Fn(&str) -> bool) {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{:?}", self.said));
            self.said.push(line.clone());
            if is(&line) {
                return;
            }
        }
    }

    pub fn after(&self, beginning: &str) -> &str {
        let line = self.said.iter().find_map(|line| line.strip_prefix(beginning)).unwrap();
        line.split(' ').next().unwrap()
    }

    pub fn base(&self) -> &str {
        self.after("loyalty-codes listens on ")
    }

    pub fn dynamodb(&self) -> &str {
        self.after("DynamoDB listens on ")
    }

    /// What it printed to paste.
    pub fn requests(&self) -> String {
        let start = self.said.iter().position(|line| line.starts_with("# issue")).unwrap();
        self.said[start..].join("\n")
    }

    /// The demo's till with its password, `store.server:…`.
    pub fn till(&self) -> String {
        let requests = self.requests();
        requests.split_whitespace().skip_while(|word| *word != "-u").nth(1).unwrap().to_owned()
    }

    /// SIGKILL: it has no chance to tidy up. Returns everything that it said.
    pub fn kill(mut self) -> Vec<String> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let mut said = std::mem::take(&mut self.said);
        said.extend(self.lines.iter());
        said
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
