//! `loyaltyctl`, the operators' and developers' tool.
#![allow(clippy::large_futures, reason = "a command is awaited once, and so are the parts of it")]

mod audit;
mod console;
mod customer;
mod delivery;
mod demo;
mod doctor;
mod engine;
mod failure;
mod import;
mod limits;
mod message_words;
mod new_file;
mod numbers;
mod org;
mod org_file;
mod org_words;
mod otp;
mod output;
mod reference;
mod restored;
mod serve;
mod support;
mod till;
mod upgrade;

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, CommandFactory, Parser, Subcommand, error::ErrorKind};
use clap_complete::Shell;
use loyalty_codes::{
    aws,
    settings::{self, Settings},
    store::{Store, Stream, TableCreation, connect, connect_local},
};

use failure::Failure;
use output::{Output, printable};

/// Runs loyalty-codes on this machine, and administers its tables, orgs and tills anywhere.
///
/// Without --endpoint, commands talk to the DynamoDB that the AWS SDK's own configuration points at
/// (`AWS_PROFILE`, `AWS_REGION`, `AWS_ENDPOINT_URL_DYNAMODB`, …). Without it, `serve` embeds one.
#[derive(Parser)]
#[command(name = "loyaltyctl", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    target: Target,

    /// Print one JSON value instead of text; errors, too, on standard error
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done; also if the reader of the output closes it early, as `head` does
  1  DynamoDB failed or cannot be reached, or the output cannot be written
  2  the command line is wrong
  3  refused: an invalid file, a name that is taken, a plan that could repeat a number; or
     `doctor` found something that does not work
  4  there is no such org, till or customer
  130, 143  `serve` was interrupted or terminated a second time, before its requests had ended; or
     another command was, which has left no unfinished file

Colours follow NO_COLOR, CLICOLOR, CLICOLOR_FORCE and TERM.

Examples:
  loyaltyctl serve --demo
  loyaltyctl table create
  loyaltyctl org apply demo.toml
  loyaltyctl till create store.server --org 966 --allow otp:fetch,otp:issue,otp:validate";

/// The table to use.
#[derive(Args)]
struct Target {
    /// The DynamoDB to talk to, as `http://127.0.0.1:8000`
    #[arg(long, global = true, value_name = "URL", value_parser = settings::check_endpoint)]
    endpoint: Option<String>,

    /// The table
    #[arg(long, global = true, env = "TABLE_NAME", hide_env_values = true, value_name = "NAME", default_value = settings::DEFAULT_TABLE)]
    table: String,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API over HTTP, on an embedded DynamoDB or the one at --endpoint
    Serve(serve::Options),
    /// The table
    #[command(subcommand)]
    Table(TableCommand),
    /// Orgs and their configuration
    #[command(subcommand)]
    Org(org::Command),
    /// Tills and their passwords
    #[command(subcommand)]
    Till(till::Command),
    /// Card numbers for printing
    #[command(subcommand)]
    Numbers(numbers::Command),
    /// Serve pages for operators on this machine
    ///
    /// Prints their address, which works once, in one browser. Changes go through the same
    /// functions as those of the other commands.
    Console(console::Options),
    /// What operators did
    #[command(subcommand)]
    Audit(audit::Command),
    /// Customers
    #[command(subcommand)]
    Customer(customer::Command),
    /// Check whether the table, the delivery function, AWS and each org are as they must be
    ///
    /// Every check that is not passed comes with what to do about it. The exit code is 3 if one
    /// failed. Writes a test item and a message to nobody into the table, and removes both.
    Doctor(doctor::Options),
    /// The OTPs of a customer or a contact
    #[command(subcommand)]
    Otp(otp::Command),
    /// Print the OpenAPI document of the API
    Openapi,
    /// Print a completion script for a shell
    ///
    /// For bash: `loyaltyctl completions bash >
    /// ~/.local/share/bash-completion/completions/loyaltyctl`
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man pages of all commands into a folder
    ///
    /// `man -l loyaltyctl.1` shows one; `~/.local/share/man/man1` is where `man loyaltyctl` finds
    /// them.
    Man {
        /// The folder, which is made if it is not there
        folder: PathBuf,
    },
}

#[derive(Subcommand)]
enum TableCommand {
    /// Create the table with its TTL, if it is not there already, and wait until it can be used
    Create,
    /// Bring stored identifiers to the normal form that this version and each org's phone number
    /// plan give them
    ///
    /// May run beside the service and be interrupted; running it again does the rest. Lists what it
    /// cannot decide.
    Upgrade(upgrade::Options),
    /// Raise the counters of a table that was restored from a backup, before traffic returns to it
    ///
    /// The backup does not know the numbers that were given after it was made, and the restored
    /// table would give them again. Every counter is raised by a margin that must be larger than
    /// the count of these numbers.
    Restored(restored::Options),
}

impl Target {
    fn settings(&self) -> Result<Settings, Failure> {
        Ok(Settings { table: settings::check_table_name(self.table.clone())?, ..Settings::from_env()? })
    }

    /// The table at the endpoint, or by the SDK's own configuration. A plain-HTTP endpoint is a
    /// local one, which does not check credentials. It gets placeholder credentials unless the
    /// environment sets some.
    async fn store(&self) -> Result<Store, Failure> {
        let settings = self.settings()?;
        let client = match self.endpoint.as_deref() {
            Some(endpoint) if self.is_local() => connect_local(&settings, endpoint)?,
            endpoint => connect(&settings, endpoint).await?,
        };
        Ok(Store::new(client, settings.table))
    }

    /// Whether the DynamoDB at the endpoint does not check credentials.
    fn is_local(&self) -> bool {
        let named = ["AWS_ACCESS_KEY_ID", "AWS_PROFILE"].iter().any(|name| env::var_os(name).is_some());
        self.has_plain_endpoint() && !named
    }

    /// Whether the endpoint has no TLS, which only a local DynamoDB can do without.
    fn has_plain_endpoint(&self) -> bool {
        self.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"))
    }

    /// Who acts, for the audit: the AWS identity, or the user of the operating system where
    /// DynamoDB checks no credentials.
    async fn operator(&self) -> Result<String, Failure> {
        if self.is_local() {
            return Ok(audit::local_user());
        }
        Ok(aws::caller_identity(&self.settings()?)
            .await
            .unwrap_or_else(|| format!("{} without AWS identity", audit::local_user())))
    }

    /// The DynamoDB endpoint and the option or variable that sets it, for error messages.
    fn place(&self) -> String {
        if let Some(endpoint) = &self.endpoint {
            return format!("{endpoint} (--endpoint)");
        }
        let variables = settings::ENDPOINT_VARIABLES.into_iter().chain(["AWS_REGION"]);
        let set = variables.filter_map(|variable| Some((variable, env::var(variable).ok()?)));
        let set = set.map(|(variable, value)| format!("{value} ({variable})")).next();
        set.unwrap_or_else(|| "what the AWS profile names".to_owned())
    }
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    let output = Output::new(asks_for_json(&arguments));
    let done = match Cli::try_parse_from(&arguments) {
        Ok(cli) => block_on(cli, &output),
        Err(error) => explain(&error, &output),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.is_quiet() {
                output.failure(&failure);
            }
            failure.exit_code()
        }
    }
}

/// Whether `--json` is among the arguments. Works for invalid command lines, too.
fn asks_for_json(arguments: &[OsString]) -> bool {
    arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json")
}

/// Prints what clap reports when there is no command to run: help and version on standard output,
/// and errors in the arguments as a failure.
fn explain(error: &clap::Error, output: &Output) -> Result<(), Failure> {
    let text = error.render();
    if !error.use_stderr() {
        let text = if output.colours() { text.ansi().to_string() } else { text.to_string() };
        return output::raw(text.as_bytes());
    }
    let text = text.to_string();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let help = if output.json() { String::new() } else { format!("\n\n{}", text.trim_end()) };
        return Err(Failure::usage(format!("a command is missing; `loyaltyctl help` lists them{help}")));
    }
    Err(Failure::usage(text.strip_prefix("error: ").unwrap_or(&text).trim_end()))
}

fn block_on(cli: Cli, output: &Output) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::failed(format!("cannot start threads: {error}")))?;
    let place = cli.target.place();
    let done = runtime.block_on(run(cli, output)).map_err(|failure| failure.with_endpoint(&place));
    // Tasks that are still running have had their time to finish.
    runtime.shutdown_timeout(Duration::from_millis(100));
    done
}

async fn run(cli: Cli, output: &Output) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(options) => serve::run(&cli.target, &options, output).await,
        Command::Table(TableCommand::Create) => create_table(&cli.target.store().await?, output).await,
        Command::Table(TableCommand::Upgrade(options)) => upgrade::run(&options, &cli.target, output).await,
        Command::Org(command) => org::run(command, &cli.target, output).await,
        Command::Till(command) => till::run(command, &cli.target, output).await,
        Command::Numbers(command) => numbers::run(command, &cli.target, output).await,
        Command::Console(options) => console::run(&cli.target, &options, output).await,
        Command::Audit(command) => audit::run(command, &cli.target.store().await?, output).await,
        Command::Table(TableCommand::Restored(options)) => restored::run(&options, &cli.target, output).await,
        Command::Customer(command) => customer::run(command, &cli.target, output).await,
        Command::Doctor(options) => doctor::run(&options, &cli.target, output).await,
        Command::Otp(command) => otp::run(command, &cli.target, output).await,
        Command::Openapi => output::line(&reference::document()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "loyaltyctl", &mut script);
            output::raw(&script)
        }
        Command::Man { folder } => write_man_pages(&folder, output),
    }
}

/// Writes a page for each command, as `loyaltyctl-org-apply.1`.
fn write_man_pages(folder: &Path, output: &Output) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed(format!("{}: {error}", folder.display()));
    fs::create_dir_all(folder).map_err(failed)?;
    let mut root = Cli::command();
    root.build();
    let mut commands = vec![root];
    let mut pages = Vec::new();
    while let Some(command) = commands.pop() {
        // `help` repeats what the pages say.
        let subcommands = command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help");
        commands.extend(subcommands.cloned());
        let page = clap_mangen::Man::new(command);
        let name = page.get_filename();
        let mut text = Vec::new();
        page.render(&mut text).map_err(failed)?;
        fs::write(folder.join(&name), text).map_err(failed)?;
        pages.push(name);
    }
    pages.sort();
    let text = format!("{} pages in {}", pages.len(), printable(&folder.display().to_string()));
    output.print(&serde_json::json!({"pages": pages}), &text)
}

async fn create_table(store: &Store, output: &Output) -> Result<(), Failure> {
    let creation = output.with_spinner("creating the table", store.create_table(Stream::NewImages)).await?;
    let (result, text) = match creation {
        TableCreation::Created => ("created", "created"),
        TableCreation::Existed => ("unchanged", "is there already"),
    };
    output.print(
        &serde_json::json!({"table": store.table(), "result": result}),
        &format!("table {} {text}", printable(store.table())),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The arguments without a description, with their commands.
    fn undescribed(command: &clap::Command, path: &str) -> Vec<String> {
        let path = format!("{path} {}", command.get_name());
        let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
        let arguments = arguments.filter(|argument| argument.get_help().is_none());
        let mut found: Vec<_> = arguments.map(|argument| format!("{path}: {}", argument.get_id())).collect();
        if command.get_about().is_none() {
            found.push(path.clone());
        }
        found.extend(command.get_subcommands().flat_map(|command| undescribed(command, &path)));
        found
    }

    #[test]
    fn help_describes_every_command_and_argument() {
        assert_eq!(undescribed(&Cli::command(), ""), Vec::<String>::new());
    }
}
