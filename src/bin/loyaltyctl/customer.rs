//! `loyaltyctl customer`.

use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::{Args, Subcommand};
use csv::StringRecord;
use indicatif::ProgressBar;
use loyalty_codes::{
    api::{
        App,
        error::ApiError,
        import::{Imported, ImportedCustomer},
    },
    clock::Clock,
    model::{
        customer::IdentifierName,
        org::{Org, OrgId},
        profile::StoredIdentifier,
    },
    store::{AuditEntry, Store, error_chain},
};
use serde_json::{Map, Value, json};
use tokio::task::JoinSet;

use crate::{Target, audit, failure::Failure, output::Output};

#[derive(Subcommand)]
pub enum Command {
    /// Register the customers of a CSV file, by the rules of `POST /v2/customers`
    ///
    /// Each row is a profile of a customer. The heading names the columns: source (INSTORE if there is
    /// no such column), accountId, firstName, lastName, and the kinds of identifiers, such as mobile,
    /// email and externalId. Rows with the same mobile or e-mail address in different sources become
    /// one customer.
    ///
    /// It may be interrupted. Running it again skips the customers who are there already. Rows that
    /// cannot be imported are written to the error file with the reason; that file can be corrected and
    /// imported. A file with card numbers that the org's plan could give again is refused.
    Import(Import),
}

#[derive(Args)]
pub struct Import {
    /// The file: UTF-8, with commas and a heading
    file: PathBuf,
    /// The org that the customers belong to
    #[arg(long, value_name = "ID")]
    org: u32,
    /// Where to write rows that cannot be imported [default: FILE with the extension errors.csv]
    #[arg(long, value_name = "PATH")]
    errors: Option<PathBuf>,
    /// Check the file and say what would happen, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// How many rows are in progress at once.
const CONCURRENT: usize = 32;
/// The column of the error file that has the reason. It is ignored in a file that is imported.
const REASON: &str = "error";

/// The command of its audit entries.
const IMPORT: &str = "customer import";

pub async fn run(command: Command, target: &Target, output: &Output) -> Result<(), Failure> {
    let Command::Import(options) = command;
    let store = &target.store().await?;
    let id = OrgId(options.org);
    let org = output.with_spinner("reading the org", store.org(id)).await?;
    let org = Arc::new(org.ok_or_else(|| Failure::not_found(format!("there is no org {id}")))?);
    check_numbers(&options.file, &org, store).await?;

    let errors = options.errors.clone().unwrap_or_else(|| options.file.with_extension("errors.csv"));
    if errors == options.file {
        return Err(Failure::usage("the error file cannot be the file itself"));
    }
    let mut rows = Rows::open(&options.file)?;
    let progress = output.progress(rows.length);
    progress.enable_steady_tick(Duration::from_millis(200));
    let app = Arc::new(App::new(store.clone(), Clock::system()));
    let mut import = Running {
        org,
        app,
        dry_run: options.dry_run,
        tasks: JoinSet::new(),
        in_progress: HashSet::new(),
        counts: Counts::default(),
        errors: ErrorFile { path: &errors, heading: rows.heading.clone(), writer: None },
    };
    let done = if options.dry_run {
        import.rows(&mut rows, &progress).await
    } else {
        let act = async |entry: &mut AuditEntry| {
            let done = import.rows(&mut rows, &progress).await;
            let Counts { registered, joined, failed, .. } = import.counts;
            entry.detail = json!({"registered": registered, "joined": joined, "failed": failed});
            done
        };
        audit::record(store, id, &target.operator().await?, IMPORT, json!({}), act).await
    };
    progress.finish_and_clear();
    import.errors.finish()?;
    done?;
    let Counts { rows, registered, joined, existed, failed } = import.counts;
    let verb = if options.dry_run { "would be " } else { "" };
    let path = (failed > 0).then(|| errors.display().to_string());
    output.print(
        &json!({
            "org": options.org, "dry_run": options.dry_run, "rows": rows, "registered": registered,
            "joined": joined, "existed": existed, "failed": failed, "errors": path,
        }),
        &format!(
            "{rows} rows: {registered} {verb}registered, {joined} {verb}added to customers of other accounts, {existed} \
             there already, {failed} with errors"
        ),
    )?;
    match path {
        None => Ok(()),
        Some(path) => Err(Failure::refused(format!(
            "{failed} rows cannot be imported; {path} has them with the reasons. Correct them there, and import that file"
        ))),
    }
}

#[derive(Default)]
struct Counts {
    rows: u64,
    registered: u64,
    joined: u64,
    existed: u64,
    failed: u64,
}

/// An import in progress.
struct Running<'a> {
    org: Arc<Org>,
    app: Arc<App>,
    dry_run: bool,
    tasks: JoinSet<(Row, HashSet<StoredIdentifier>, Result<Imported, ApiError>)>,
    /// What identifies the customers that are in progress. Rows about the same customer are imported in
    /// their order, because the first one decides on the card number.
    in_progress: HashSet<StoredIdentifier>,
    counts: Counts,
    errors: ErrorFile<'a>,
}

impl Running<'_> {
    async fn rows(&mut self, rows: &mut Rows, progress: &ProgressBar) -> Result<(), Failure> {
        while let Some(row) = rows.read()? {
            self.counts.rows += 1;
            progress.set_position(rows.position());
            progress.set_message(format!("{} rows", self.counts.rows));
            let customer = match row.body.as_deref().map(|body| ImportedCustomer::read(&self.org, body)) {
                Ok(Ok(customer)) => customer,
                Ok(Err(error)) => {
                    self.failed(&row, &error.messages())?;
                    continue;
                }
                Err(reason) => {
                    self.failed(&row, reason)?;
                    continue;
                }
            };
            let keys = customer.keys();
            while self.tasks.len() >= CONCURRENT || !self.in_progress.is_disjoint(&keys) {
                self.finish_one().await?;
            }
            self.in_progress.extend(keys.iter().cloned());
            let (app, org, dry_run) = (Arc::clone(&self.app), Arc::clone(&self.org), self.dry_run);
            self.tasks.spawn(async move {
                let result = if dry_run {
                    app.rehearse_import(&org, &customer).await
                } else {
                    app.import(&org, &customer).await
                };
                (row, keys, result)
            });
        }
        while !self.tasks.is_empty() {
            self.finish_one().await?;
        }
        Ok(())
    }

    /// Waits for a row to be done.
    async fn finish_one(&mut self) -> Result<(), Failure> {
        let Some(done) = self.tasks.join_next().await else {
            return Ok(());
        };
        let (row, keys, result) = done.map_err(|error| Failure::failed(error.to_string()))?;
        self.in_progress.retain(|key| !keys.contains(key));
        match result {
            Ok(Imported::Registered) => self.counts.registered += 1,
            Ok(Imported::Joined) => self.counts.joined += 1,
            Ok(Imported::Existed) => self.counts.existed += 1,
            Err(error) if error.status().is_server_error() => return Err(stopped(&row, &error)),
            Err(error) => self.failed(&row, &error.messages())?,
        }
        Ok(())
    }

    fn failed(&mut self, row: &Row, reason: &str) -> Result<(), Failure> {
        self.counts.failed += 1;
        self.errors.write(&row.record, reason)
    }
}

/// The import ends early, because the service failed and not a row.
fn stopped(row: &Row, error: &ApiError) -> Failure {
    let cause = error.cause().map_or_else(|| error.messages(), error_chain);
    Failure::failed(format!("stopped at line {}: {cause}", row.line))
        .with_detail("Run the command again: it skips the customers who are there already.")
}

/// A row of the file.
struct Row {
    line: u64,
    record: StringRecord,
    /// The body of a request that registers the customer, or why there is none.
    body: Result<Vec<u8>, String>,
}

/// The rows of a file, read one by one.
struct Rows {
    path: PathBuf,
    reader: csv::Reader<File>,
    /// In bytes.
    length: u64,
    heading: StringRecord,
    columns: Vec<Column>,
}

/// What a column contains.
#[derive(Clone)]
enum Column {
    /// A field of the profile.
    Field(&'static str),
    Identifier(String),
    Ignored,
}

impl Column {
    fn parse(name: &str) -> Option<Self> {
        let name = name.trim();
        let field = ["source", "accountId", "firstName", "lastName"].into_iter().find(|field| *field == name);
        match field {
            Some(field) => Some(Self::Field(field)),
            None if name == REASON => Some(Self::Ignored),
            None => IdentifierName::parse(name).map(|_| Self::Identifier(name.to_owned())),
        }
    }
}

impl Rows {
    fn open(path: &Path) -> Result<Self, Failure> {
        let fails = |error: &dyn std::error::Error| Failure::refused(format!("{}: {error}", path.display()));
        let file = File::open(path).map_err(|error| fails(&error))?;
        let length = file.metadata().map_err(|error| fails(&error))?.len();
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file);
        let heading = reader.headers().map_err(|error| fails(&error))?.clone();
        let columns = heading.iter().map(|name| {
            Column::parse(name).ok_or_else(|| {
                Failure::refused(format!(
                    "{}: the column {name:?} is not known: there are source, accountId, firstName, lastName and the \
                     kinds of identifiers, such as mobile, email and externalId",
                    path.display()
                ))
            })
        });
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        if !columns.iter().any(|column| matches!(column, Column::Identifier(_))) {
            return Err(Failure::refused(format!("{}: no column is an identifier", path.display())));
        }
        Ok(Self { path: path.to_owned(), reader, length, heading, columns })
    }

    /// How far the file was read, in bytes.
    fn position(&self) -> u64 {
        self.reader.position().byte()
    }

    fn read(&mut self) -> Result<Option<Row>, Failure> {
        let mut record = csv::ByteRecord::new();
        let read = self.reader.read_byte_record(&mut record);
        if !read.map_err(|error| Failure::failed(format!("{}: {error}", self.path.display())))? {
            return Ok(None);
        }
        let line = record.position().map_or(0, csv::Position::line);
        let (record, body) = match StringRecord::from_byte_record(record) {
            Ok(record) => {
                let body = self.body(&record);
                (record, body)
            }
            Err(error) => {
                let record = StringRecord::from_byte_record_lossy(error.into_byte_record());
                (record, Err("the row is not UTF-8".to_owned()))
            }
        };
        Ok(Some(Row { line, record, body }))
    }

    fn body(&self, record: &StringRecord) -> Result<Vec<u8>, String> {
        if record.len() > self.columns.len() {
            return Err(format!(
                "the row has {} fields, and the heading {}",
                record.len(),
                self.columns.len()
            ));
        }
        let mut profile = Map::from_iter([("source".to_owned(), json!("INSTORE"))]);
        if self.columns.iter().any(|column| matches!(column, Column::Field("source"))) {
            profile.remove("source");
        }
        let mut identifiers = Vec::new();
        for (column, value) in self.columns.iter().zip(record).filter(|(_, value)| !value.trim().is_empty()) {
            match column {
                Column::Field(field) => {
                    profile.insert((*field).to_owned(), value.into());
                }
                Column::Identifier(kind) => identifiers.push(json!({"type": kind, "value": value})),
                Column::Ignored => {}
            }
        }
        profile.insert("identifiers".to_owned(), identifiers.into());
        Ok(json!({"profiles": [Value::from(profile)]}).to_string().into_bytes())
    }
}

/// The rows that cannot be imported. The file is created with the first one, and only its owner can
/// read it, because it contains personal data.
struct ErrorFile<'a> {
    path: &'a Path,
    heading: StringRecord,
    writer: Option<csv::Writer<File>>,
}

impl ErrorFile<'_> {
    fn write(&mut self, record: &StringRecord, reason: &str) -> Result<(), Failure> {
        let path = self.path;
        let fails = |error: csv::Error| Failure::failed(format!("{}: {error}", path.display()));
        // An error file that was corrected has the column already.
        let reason_at = self.heading.iter().position(|name| name.trim() == REASON);
        let with = |record: &StringRecord, reason: &str| -> Vec<String> {
            let mut fields: Vec<String> = record.iter().map(str::to_owned).collect();
            let at = reason_at.unwrap_or(self.heading.len());
            fields.resize(fields.len().max(at + 1), String::new());
            reason.clone_into(&mut fields[at]);
            fields
        };
        let (heading, row) = (with(&self.heading, REASON), with(record, reason));
        let writer = match &mut self.writer {
            Some(writer) => writer,
            none => {
                let writer = none.insert(create(path).map_err(|error| fails(error.into()))?);
                writer.write_record(&heading).map_err(fails)?;
                writer
            }
        };
        writer.write_record(&row).map_err(fails)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let flushed = self.writer.as_mut().map_or(Ok(()), csv::Writer::flush);
        flushed.map_err(|error| Failure::failed(format!("{}: {error}", self.path.display())))
    }
}

fn create(path: &Path) -> io::Result<csv::Writer<File>> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // Rows with too many fields are written as they are.
    Ok(csv::WriterBuilder::new().flexible(true).from_writer(file))
}

/// Refuses a file with card numbers that the org's plan could give again. A registration skips a
/// number that somebody has, but `GET /v2/cardNumber` does not know of it.
async fn check_numbers(path: &Path, org: &Org, store: &Store) -> Result<(), Failure> {
    let Ok(plan) = org.numbering_plan() else {
        return Ok(());
    };
    let issued = store.issued_card_numbers(org.id()).await?;
    let next = issued.filter(|issued| issued.plan == *plan).map_or(plan.offset(), |issued| issued.next);
    let (mut count, mut first, mut highest) = (0_u64, 0, 0);
    let mut rows = Rows::open(path)?;
    while let Some(row) = rows.read()? {
        let Some(Ok(customer)) = row.body.as_deref().ok().map(|body| ImportedCustomer::read(org, body))
        else {
            continue;
        };
        for number in customer.card_numbers() {
            if let Some(value) = plan.value_of(number, &org.permutation_key).filter(|value| *value >= next) {
                first = if count == 0 { row.line } else { first };
                highest = value.max(highest);
                count += 1;
            }
        }
    }
    if count == 0 {
        return Ok(());
    }
    let remedy = if plan.is_random() {
        "change CONF_CARD_NUMBER_PREFIX or CONF_CARD_NUMBER_LENGTH in the org's file".to_owned()
    } else {
        format!("set CONF_CARD_NUMBER_OFFSET in the org's file to {} or higher", highest + 1)
    };
    Err(Failure::refused(format!(
        "the org's plan could give {count} of the card numbers in the file to other customers, the first in line {first}: \
         {remedy}, apply it, and import again"
    )))
}
