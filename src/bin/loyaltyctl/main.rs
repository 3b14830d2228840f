//! `loyaltyctl`, the operators' and developers' tool.
#![allow(clippy::large_futures, reason = "a command is awaited once, and so are the parts of it")]

mod delivery;
mod demo;
mod failure;
mod http;
mod org;
mod output;
mod reference;
mod serve;
mod till;

use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use loyalty_codes::{
    settings::Settings,
    store::{Store, Stream, TableCreation, connect, connect_local},
};

use failure::Failure;
use output::Output;

/// Runs loyalty-codes on this machine, and administers its tables, orgs and tills anywhere.
///
/// Without --endpoint, commands talk to the DynamoDB that the AWS SDK's own configuration points at
/// (`AWS_PROFILE`, `AWS_REGION`, `AWS_ENDPOINT_URL_DYNAMODB`, …). Without it, `serve` embeds one.
#[derive(Parser)]
#[command(name = "loyaltyctl", version, arg_required_else_help = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(flatten)]
    target: Target,

    /// Print one JSON value instead of text; what goes wrong too, on standard error
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  DynamoDB failed, or cannot be reached
  2  the command line is wrong
  3  refused: an invalid file, a name that is taken, a plan that could repeat a number
  4  there is no such org or till

Examples:
  loyaltyctl serve --demo
  loyaltyctl table create
  loyaltyctl org apply demo.toml
  loyaltyctl till create store.server --org 966 --allow otp:fetch,otp:issue,otp:validate";

/// Which table.
#[derive(Args)]
struct Target {
    /// The DynamoDB to talk to, as `http://127.0.0.1:8000`
    #[arg(long, global = true, value_name = "URL", value_parser = url)]
    endpoint: Option<String>,

    /// The table
    #[arg(long, global = true, env = "TABLE_NAME", value_name = "NAME", default_value = loyalty_codes::settings::DEFAULT_TABLE)]
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
    /// Print the OpenAPI document of the API
    Openapi,
    /// Print a completion script for a shell
    ///
    /// For bash: `loyaltyctl completions bash > ~/.local/share/bash-completion/completions/loyaltyctl`
    Completions { shell: Shell },
}

#[derive(Subcommand)]
enum TableCommand {
    /// Create the table with its TTL, if it is not there already, and wait until it can be used
    Create,
}

fn url(text: &str) -> Result<String, String> {
    let well_formed = ["http://", "https://"].iter().any(|scheme| text.starts_with(scheme));
    if well_formed {
        Ok(text.to_owned())
    } else {
        Err("an endpoint begins with http:// or https://".to_owned())
    }
}

impl Target {
    fn settings(&self) -> Result<Settings, Failure> {
        Ok(Settings {
            table: loyalty_codes::settings::check_table_name(self.table.clone())?,
            ..Settings::from_env()?
        })
    }

    /// The table, by the SDK's own configuration or at the endpoint. A plain-HTTP endpoint is a local one, which
    /// does not check credentials: unless the environment names some, it gets made-up ones.
    async fn store(&self) -> Result<Store, Failure> {
        let settings = self.settings()?;
        let named = ["AWS_ACCESS_KEY_ID", "AWS_PROFILE"].iter().any(|name| std::env::var_os(name).is_some());
        let client = match self.endpoint.as_deref() {
            Some(endpoint) if endpoint.starts_with("http://") && !named => {
                connect_local(&settings, endpoint)?
            }
            endpoint => connect(&settings, endpoint).await?,
        };
        Ok(Store::new(client, settings.table))
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = Output::new(cli.json);
    match run(cli, &output).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output.failure(&failure);
            failure.exit_code()
        }
    }
}

async fn run(cli: Cli, output: &Output) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(options) => serve::run(&cli.target, &options).await,
        Command::Table(TableCommand::Create) => create_table(&cli.target.store().await?, output).await,
        Command::Org(command) => org::run(command, &cli.target.store().await?, output).await,
        Command::Till(command) => till::run(command, &cli.target.store().await?, output).await,
        Command::Openapi => {
            output::line(&reference::document());
            Ok(())
        }
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "loyaltyctl", &mut std::io::stdout());
            Ok(())
        }
    }
}

async fn create_table(store: &Store, output: &Output) -> Result<(), Failure> {
    let creation = output.while_waiting("creating the table", store.create_table(Stream::NewImages)).await?;
    let (result, text) = match creation {
        TableCreation::Created => ("created", "created"),
        TableCreation::Existed => ("unchanged", "is there already"),
    };
    output.print(
        &serde_json::json!({"table": store.table(), "result": result}),
        &format!("table {} {text}", store.table()),
    );
    Ok(())
}
