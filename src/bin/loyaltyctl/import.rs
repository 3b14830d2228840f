//! `loyaltyctl customer import`.

use std::{
    collections::{BTreeMap, HashSet},
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use csv::{ByteRecord, StringRecord};
use indicatif::ProgressBar;
use loyalty_codes::{
    api::{
        App,
        error::ApiError,
        import::{Imported, Rehearsal},
    },
    clock::Clock,
    model::{card_number::NumberingPlan, customer::IdentifierName, org::OrgId, profile::StoredIdentifier},
    store::{AuditEntry, HeldNumbers, Store, error_chain},
};
use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;
use tokio::task::JoinSet;

use crate::{Target, audit, failure::Failure, new_file::new_file, output::Output};

#[derive(Args)]
pub struct Options {
    /// The file: UTF-8, with commas and a heading
    file: PathBuf,
    /// The org that the customers belong to
    #[arg(long, value_name = "ID")]
    org: u32,
    /// Where to write rows that cannot be imported; it must not exist yet [default: FILE with the
    /// extension errors.csv, and none in a dry run]
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

pub async fn run(options: &Options, target: &Target, output: &Output) -> Result<(), Failure> {
    let mut rows = Rows::open(&options.file)?;
    let default = (!options.dry_run).then(|| options.file.with_extension("errors.csv"));
    let errors = options.errors.clone().or(default).map(ErrorFile::new).transpose()?;
    let store = &target.store().await?;
    let id = OrgId(options.org);
    let org = output.with_spinner("reading the org", store.org(id)).await?;
    let org = org.ok_or_else(|| Failure::not_found(format!("there is no org {id}")))?;
    if !org.customers_join {
        return Err(Failure::refused(format!(
            "the customers of org {id} do not join across sources yet, so rows of one person would become several \
             customers: run `loyaltyctl table upgrade --org {id}` first"
        )));
    }
    let app = Arc::new(App::new(store.clone(), Clock::system()));
    check(&options.file, id, &app, store).await?;

    let progress = output.progress(rows.length);
    progress.enable_steady_tick(Duration::from_millis(200));
    let mut import = Running {
        org: id,
        plan: org.numbering_plan().ok().cloned(),
        app,
        rehearsal: options.dry_run.then(Arc::default),
        tasks: JoinSet::new(),
        in_progress: HashSet::new(),
        counts: Counts::default(),
        errors,
        first_failures: BTreeMap::new(),
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
    done?;
    let path = import.errors.map(ErrorFile::finish).transpose()?.flatten();
    let path = path.map(|path| path.display().to_string());
    let Counts { rows, registered, joined, existed, failed } = import.counts;
    let verb = if options.dry_run { "would be " } else { "" };
    // A closed output ends a command quietly, but not one that failed.
    let printed = output.print(
        &json!({
            "org": options.org, "dry_run": options.dry_run, "rows": rows, "registered": registered,
            "joined": joined, "existed": existed, "failed": failed, "errors": path,
        }),
        &format!(
            "{rows} rows: {registered} {verb}registered, {joined} {verb}added to customers of other accounts, {existed} \
             there already, {failed} with errors"
        ),
    );
    match path {
        Some(path) => Err(Failure::refused(format!(
            "{failed} rows cannot be imported; {path} has them with the reasons. Correct them there, and import that file"
        ))),
        None if failed > 0 => {
            let lines =
                import.first_failures.iter().map(|(line, reason)| format!("\n  line {line}: {reason}"));
            Err(Failure::refused(format!(
                "{failed} rows cannot be imported; --errors PATH writes all of them to a file. The first ones:{}",
                lines.collect::<String>()
            )))
        }
        None => printed,
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
struct Running {
    org: OrgId,
    /// The plan that the card numbers of the file were compared with.
    plan: Option<NumberingPlan>,
    app: Arc<App>,
    /// Present in a dry run.
    rehearsal: Option<Arc<Rehearsal>>,
    tasks: JoinSet<(Row, HashSet<StoredIdentifier>, Result<Imported, ApiError>)>,
    /// What identifies the customers that are in progress. Rows about the same customer are
    /// imported in their order, because the first one decides on the card number.
    in_progress: HashSet<StoredIdentifier>,
    counts: Counts,
    /// `None` in a dry run that writes no file.
    errors: Option<ErrorFile>,
    /// The reasons of the first rows that cannot be imported, by line.
    first_failures: BTreeMap<u64, String>,
}

/// How many problems of a file are shown at most.
const SHOWN: usize = 10;

impl Running {
    async fn rows(&mut self, rows: &mut Rows, progress: &ProgressBar) -> Result<(), Failure> {
        while let Some(row) = rows.read()? {
            self.counts.rows += 1;
            progress.set_position(rows.position());
            progress.set_message(format!("{} rows", self.counts.rows));
            if let Some(problem) = &row.malformed {
                return Err(Failure::refused(format!("stopped at line {}: {problem}", row.line)));
            }
            let read = match &row.body {
                Ok(body) => {
                    self.app.read_import(self.org, body).await.map_err(|error| stopped(&row, &error))?
                }
                Err(reason) => {
                    self.failed(rows, &row, reason)?;
                    continue;
                }
            };
            let customer = match read {
                Ok(customer) => customer,
                Err(error) => {
                    self.failed(rows, &row, &error.messages())?;
                    continue;
                }
            };
            if customer.plan() != self.plan.as_ref() {
                return Err(Failure::refused(format!(
                    "stopped at line {}: the org has another plan of card numbers than when the import began. Run the \
                     command again: it compares the file with that plan, and skips the customers who are there already",
                    row.line
                )));
            }
            let keys = customer.keys();
            while self.tasks.len() >= CONCURRENT || !self.in_progress.is_disjoint(&keys) {
                self.finish_one(rows).await?;
            }
            self.in_progress.extend(keys.iter().cloned());
            let (app, rehearsal) = (Arc::clone(&self.app), self.rehearsal.clone());
            self.tasks.spawn(async move {
                let result = match &rehearsal {
                    Some(rehearsal) => app.rehearse_import(rehearsal, &customer).await,
                    None => app.import(&customer).await,
                };
                (row, keys, result)
            });
        }
        while !self.tasks.is_empty() {
            self.finish_one(rows).await?;
        }
        Ok(())
    }

    /// Waits for a row to be done.
    async fn finish_one(&mut self, rows: &Rows) -> Result<(), Failure> {
        let Some(done) = self.tasks.join_next().await else {
            return Ok(());
        };
        let (row, keys, result) = done.map_err(|error| Failure::failed(error.to_string()))?;
        self.in_progress.retain(|key| !keys.contains(key));
        match result {
            Ok(Imported::Registered) => self.counts.registered += 1,
            Ok(Imported::Joined) => self.counts.joined += 1,
            Ok(Imported::Existed) => self.counts.existed += 1,
            // The other rows do not depend on the item.
            Err(error) if error.is_about_a_corrupt_item() => self.failed(rows, &row, &reason(&error))?,
            Err(error) if error.status().is_server_error() => return Err(stopped(&row, &error)),
            Err(error) => self.failed(rows, &row, &error.messages())?,
        }
        Ok(())
    }

    fn failed(&mut self, rows: &Rows, row: &Row, reason: &str) -> Result<(), Failure> {
        self.counts.failed += 1;
        self.first_failures.insert(row.line, reason.to_owned());
        if self.first_failures.len() > SHOWN {
            self.first_failures.pop_last();
        }
        match &mut self.errors {
            Some(errors) => errors.write(&rows.heading, &row.record, reason),
            None => Ok(()),
        }
    }
}

/// The import ends early, because the service failed and not a row.
fn stopped(row: &Row, error: &ApiError) -> Failure {
    Failure::failed(format!("stopped at line {}: {}", row.line, reason(error)))
        .with_detail("Run the command again: it skips the customers who are there already.")
}

/// The cause of an error of the service.
fn reason(error: &ApiError) -> String {
    error.cause().map_or_else(|| error.messages(), error_chain)
}

/// A row of the file.
struct Row {
    line: u64,
    /// As it is in the file, in any encoding.
    record: ByteRecord,
    /// Why the file cannot be read from this row on.
    malformed: Option<String>,
    /// The body of a request that registers the customer, or why there is none.
    body: Result<Vec<u8>, String>,
}

/// The rows of a file, read one by one.
struct Rows {
    path: PathBuf,
    reader: csv::Reader<io::Chain<File, &'static [u8]>>,
    /// In bytes.
    length: u64,
    heading: ByteRecord,
    columns: Vec<Column>,
}

/// What a column contains.
#[derive(Clone, PartialEq, Eq)]
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
        // Before it is opened, because that waits for the other end of a pipe.
        if !fs::metadata(path).map_err(|error| fails(&error))?.is_file() {
            return Err(Failure::refused(format!(
                "{} is not a regular file: the file is read twice; it cannot be a pipe",
                path.display()
            )));
        }
        let file = File::open(path).map_err(|error| fails(&error))?;
        let length = file.metadata().map_err(|error| fails(&error))?.len();
        // With a line break at the end, a field whose quote is still open there has one.
        let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(file.chain(&b"\n"[..]));
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
        // A customer may have several mobiles, but one name.
        let is_repeated = |(at, column): &(usize, &Column)| {
            !matches!(column, Column::Identifier(_)) && columns[..*at].contains(column)
        };
        if let Some((at, _)) = columns.iter().enumerate().find(is_repeated) {
            let name = heading[at].trim();
            return Err(Failure::refused(format!("{}: the column {name} is there twice", path.display())));
        }
        if !columns.iter().any(|column| matches!(column, Column::Identifier(_))) {
            return Err(Failure::refused(format!("{}: no column is an identifier", path.display())));
        }
        Ok(Self { path: path.to_owned(), reader, length, heading: heading.into_byte_record(), columns })
    }

    /// How far the file was read, in bytes.
    fn position(&self) -> u64 {
        self.reader.position().byte()
    }

    fn read(&mut self) -> Result<Option<Row>, Failure> {
        let mut record = ByteRecord::new();
        let read = self.reader.read_byte_record(&mut record);
        if !read.map_err(|error| Failure::failed(format!("{}: {error}", self.path.display())))? {
            return Ok(None);
        }
        let line = record.position().map_or(0, csv::Position::line);
        let malformed = self.malformed(&record);
        let body = match StringRecord::from_byte_record(record.clone()) {
            Ok(record) => self.body(&record),
            Err(_) => Err("the row is not UTF-8".to_owned()),
        };
        Ok(Some(Row { line, record, malformed, body }))
    }

    /// Why a record is not what the heading promises.
    fn malformed(&self, record: &ByteRecord) -> Option<String> {
        if record.iter().any(|field| field.contains(&b'\n') || field.contains(&b'\r')) {
            return Some("a field has a line break; a quote may be missing at its end".to_owned());
        }
        let (fields, columns) = (record.len(), self.columns.len());
        (fields != columns).then(|| format!("the row has {fields} fields, and the heading {columns}"))
    }

    fn body(&self, record: &StringRecord) -> Result<Vec<u8>, String> {
        let mut profile = Map::new();
        if !self.columns.iter().any(|column| matches!(column, Column::Field("source"))) {
            profile.insert("source".to_owned(), json!("INSTORE"));
        }
        let mut identifiers = Vec::new();
        for (column, value) in self.columns.iter().zip(record).filter(|(_, value)| !value.trim().is_empty()) {
            match column {
                Column::Field(field) => {
                    if value.contains(char::REPLACEMENT_CHARACTER) {
                        return Err(format!(
                            "{field} has a U+FFFD, which stands for a character that was lost in a conversion"
                        ));
                    }
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

/// The rows that cannot be imported. They are written to a file that only its owner can read,
/// because it contains personal data, and that gets its name at the end.
struct ErrorFile {
    path: PathBuf,
    writer: csv::Writer<NamedTempFile>,
    is_empty: bool,
}

impl ErrorFile {
    /// The error file at `path`. That it can be written there is found out before anything is
    /// imported.
    fn new(path: PathBuf) -> Result<Self, Failure> {
        let file = new_file(&path).map_err(|failure| {
            failure.with_detail(
                "It is for the rows that cannot be imported, and an earlier one may have corrections: import or \
                 remove it, or name another error file by --errors.",
            )
        })?;
        Ok(Self { path, writer: csv::Writer::from_writer(file), is_empty: true })
    }

    fn write(&mut self, heading: &ByteRecord, record: &ByteRecord, reason: &str) -> Result<(), Failure> {
        // An error file that was corrected has the column already.
        let reason_at = heading.iter().position(|name| name.trim_ascii() == REASON.as_bytes());
        let reason_at = reason_at.unwrap_or(heading.len());
        let with = |record: &ByteRecord, reason: &str| -> Vec<Vec<u8>> {
            let mut fields: Vec<Vec<u8>> = record.iter().map(<[u8]>::to_vec).collect();
            fields.resize(fields.len().max(reason_at + 1), Vec::new());
            fields[reason_at] = reason.into();
            fields
        };
        let is_first = std::mem::take(&mut self.is_empty);
        let heading = is_first.then(|| with(heading, REASON));
        for fields in heading.into_iter().chain([with(record, reason)]) {
            let written = self.writer.write_record(fields);
            written.map_err(|error| Failure::failed(format!("{}: {error}", self.path.display())))?;
        }
        Ok(())
    }

    /// Gives the file its name. Returns the path, or `None` if no row was written.
    fn finish(self) -> Result<Option<PathBuf>, Failure> {
        let Self { path, writer, is_empty } = self;
        if is_empty {
            return Ok(None);
        }
        let fails = |error: io::Error| Failure::failed(format!("{}: {error}", path.display()));
        let file = writer.into_inner().map_err(|error| fails(error.into_error()))?;
        file.persist_noclobber(&path).map_err(|error| fails(error.error))?;
        Ok(Some(path))
    }
}

/// Refuses a file that cannot be read to its end, and one with card numbers that the org's plan
/// could give again. A registration skips a number that somebody has, but `GET /v2/cardNumber` does
/// not know of it. A plan that is applied later is compared with the customers' numbers then.
async fn check(path: &Path, id: OrgId, app: &App, store: &Store) -> Result<(), Failure> {
    let issued = store.issued_card_numbers(id).await?;
    let (mut held, mut first, mut plan) = (HeldNumbers::default(), 0, None);
    let mut rows = Rows::open(path)?;
    let mut malformed = Vec::new();
    while let Some(row) = rows.read()? {
        malformed.extend(row.malformed.as_ref().map(|problem| format!("\n  line {}: {problem}", row.line)));
        if malformed.len() > SHOWN {
            break;
        }
        let Ok(body) = &row.body else {
            continue;
        };
        let read = app.read_import(id, body).await.map_err(|error| stopped(&row, &error))?;
        let Some(customer) = read.ok().filter(|customer| customer.plan().is_some()) else {
            continue;
        };
        let next = |plan: &NumberingPlan| match &issued {
            Some(issued) if issued.plan == *plan => issued.next,
            _ => plan.offset(),
        };
        let next = customer.plan().map_or(0, next);
        for value in customer.values_of_plan().filter(|value| *value >= next) {
            first = if held.count == 0 { row.line } else { first };
            held.add(value);
            plan = customer.plan().cloned();
        }
    }
    if !malformed.is_empty() {
        return Err(Failure::refused(format!(
            "{}: nothing was imported{}",
            path.display(),
            malformed.concat()
        )));
    }
    let Some(plan) = plan else {
        return Ok(());
    };
    Err(Failure::refused(format!(
        "the org's plan could give {} of the card numbers in the file to other customers, the first in line {first}: \
         {}, apply it, and import again",
        held.count,
        held.remedy(&plan)
    )))
}
