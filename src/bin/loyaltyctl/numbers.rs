//! `loyaltyctl numbers`: card numbers for printing, and what is known of one.

use std::{
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use clap::Subcommand;
use loyalty_codes::{
    model::{
        card_number::{
            NumberReading, NumberingPlan,
            history::IssuedRange,
            new_permutation_key,
            permutation::PermutationKey,
            rate::{Rate, Reading},
        },
        customer::{IdentifierName, UserId},
        org::{Org, OrgId},
    },
    secret::os_rng,
    store::{
        ActOutcome, AuditEntry, NumberingError, Store, StoreError, TakeError, TakenNumbers, error_chain,
    },
};
use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::{Target, audit, failure::Failure, new_file::new_file, org, output::Output, restored};

#[derive(Subcommand)]
pub enum Command {
    /// Show the next ten card numbers, the last one, how many are left, and until when they last
    ///
    /// They last until then if they are given as fast as in the last 30 days. The rate is known
    /// from readings of the org's counter: each preview, `doctor` and `numbers take` leaves one.
    Preview {
        /// The org
        #[arg(long, value_name = "ID")]
        org: u32,
        /// Preview the plan of this file before it is applied; - is standard input
        #[arg(long, value_name = "PATH")]
        file: Option<PathBuf>,
    },
    /// Take card numbers for printing, and write them to a file
    ///
    /// The numbers are taken by one write, and are then given to nobody else. The file is written
    /// completely or not at all. If the command is interrupted, `audit list` shows what was taken,
    /// and `numbers taken` writes the file. A number that a customer brought by hand, after the
    /// plan was applied, is among them all the same: `numbers check` says whose it is.
    Take {
        /// The org
        #[arg(long, value_name = "ID")]
        org: u32,
        /// How many numbers
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=MAX_COUNT))]
        count: u64,
        /// The file to write: CSV with one column, `number`. It must not exist yet
        #[arg(long, value_name = "PATH")]
        to: PathBuf,
    },
    /// Write the file of an earlier `numbers take` again
    Taken {
        /// The id that `audit list` shows
        id: String,
        /// The org
        #[arg(long, value_name = "ID")]
        org: u32,
        /// The file to write, as that of `numbers take`
        #[arg(long, value_name = "PATH")]
        to: PathBuf,
    },
    /// Say whose a number is, whether it was given, and whether its check digit is right
    Check {
        /// The number as it is printed or typed
        number: String,
        /// The org
        #[arg(long, value_name = "ID")]
        org: u32,
    },
}

/// The command of the audit entries whose numbers `numbers taken` writes.
pub const TAKE: &str = "numbers take";

/// The mark of an entry whose numbers may have been taken.
const UNCERTAIN: &str = "uncertain";

/// The most numbers that are taken at once.
pub const MAX_COUNT: u64 = 10_000_000;

/// How many numbers a preview shows.
const PREVIEWED: u64 = 10;

pub async fn run(command: Command, target: &Target, output: &Output) -> Result<(), Failure> {
    let store = target.store().await?;
    match command {
        Command::Preview { org, file } => preview(&store, output, OrgId(org), file.as_deref()).await,
        Command::Take { org, count, to } => {
            take(&store, output, &target.operator().await?, OrgId(org), count, &to).await
        }
        Command::Taken { id, org, to } => taken(&store, output, OrgId(org), &id, &to).await,
        Command::Check { number, org } => check(&store, output, OrgId(org), &number).await,
    }
}

/// The org, and its plan.
pub async fn numbering(store: &Store, id: OrgId) -> Result<(Org, NumberingPlan), Failure> {
    let org = org::existing(store, id).await?;
    match org.numbering_plan().cloned() {
        Ok(plan) => Ok((org, plan)),
        Err(error) => Err(Failure::refused(format!("org {id} has no numbering plan: {error}"))),
    }
}

/// What a preview is made of.
struct Previewed {
    /// `None` for an org that is not there yet.
    counter: Option<IssuedRange>,
    preview: Preview,
}

/// The numbers that an org gives next, by its own plan or by that of a file that was not applied
/// yet.
async fn previewed(store: &Store, id: OrgId, file: Option<&Path>) -> Result<Previewed, Failure> {
    let (org, plan) = match file {
        None => {
            let (org, plan) = numbering(store, id).await?;
            (Some(org), plan)
        }
        Some(file) => {
            let definition = org::read_for(id, file)?;
            let plan = NumberingPlan::try_from(&definition.config.card_numbers)
                .map_err(|error| Failure::refused(error.to_string()))?;
            (store.org(id).await?, plan)
        }
    };
    if let Some(org) = org {
        let start = org::checked_start(store, &org, &plan).await?;
        let preview = Preview::new(&plan, start.next, &org.permutation_key);
        return Ok(Previewed { counter: start.counter, preview });
    }
    if plan.is_random() {
        return Err(Failure::not_found(format!(
            "there is no org {id} yet, so its RANDOM numbers cannot be known: their order is that of a secret key, which \
             is drawn when the file is applied. `loyaltyctl org diff FILE` says whether the plan is valid"
        )));
    }
    // The numbers do not depend on the key.
    let preview = Preview::new(&plan, plan.offset(), &new_permutation_key(&mut os_rng()));
    Ok(Previewed { counter: None, preview })
}

/// The numbers that a plan gives next.
pub struct Preview {
    pub next: Vec<String>,
    /// The last number of the plan.
    pub last: String,
    pub left: u64,
}

impl Preview {
    /// The numbers from the value `next` of the sequence on.
    pub fn new(plan: &NumberingPlan, next: u64, key: &PermutationKey) -> Self {
        let shown = next..plan.end().min(next + PREVIEWED);
        Self {
            next: shown.map(|value| plan.number(value, key)).collect(),
            last: plan.number(plan.end() - 1, key),
            left: plan.end() - next,
        }
    }
}

async fn preview(store: &Store, output: &Output, id: OrgId, file: Option<&Path>) -> Result<(), Failure> {
    let reading = previewed(store, id, file);
    let Previewed { counter, preview } = output.with_spinner("reading", reading).await?;
    let now = Utc::now();
    let (rate, noted) = match &counter {
        Some(counter) => (rate(store, id, counter, now).await?, store.write_reading(id, counter, now).await),
        None => (None, Ok(())),
    };
    let Preview { next, last, left } = preview;
    let mut rows: Vec<_> = next.iter().map(|number| vec!["next".to_owned(), number.clone()]).collect();
    rows.push(vec!["last".to_owned(), last.clone()]);
    rows.push(vec!["left".to_owned(), left.to_string()]);
    rows.push(vec!["until".to_owned(), outlook(rate.as_ref(), left, now)]);
    let until = rate.and_then(|rate| rate.used_up(left, now)).map(|until| until.date_naive().to_string());
    let rate = rate.map(|rate| {
        let since = rate.since.to_rfc3339_opts(SecondsFormat::Secs, true);
        json!({"since": since, "numbers": rate.numbers, "per_day": rate.per_day})
    });
    output.print(
        &json!({"next": next, "last": last, "left": left, "rate": rate, "until": until, "noted": noted.is_ok()}),
        &output.table(&["", "number"], &rows),
    )?;
    if let Err(error) = noted {
        output.warn(&format!("the counter could not be noted for later rates: {}", error_chain(&error)));
    }
    Ok(())
}

/// The rate at which the org gives numbers. `None` if nobody has looked at its counter before
/// today.
///
/// # Errors
/// [`StoreError`] when DynamoDB fails or an item is corrupt.
pub async fn rate(
    store: &Store,
    id: OrgId,
    counter: &IssuedRange,
    now: DateTime<Utc>,
) -> Result<Option<Rate>, StoreError> {
    let mut readings = store.readings(id).await?;
    let acts = store.audit_entries(id, now - LOOK_BACK, now).await?;
    for act in acts.iter().filter(|act| act.what == TAKE) {
        // The counter after the numbers were taken.
        let plan = serde_json::from_value::<NumberingPlan>(act.detail["plan"].clone()).ok();
        if let (Some(plan), Some(first), Some(count)) =
            (plan, act.detail["first"].as_u64(), act.detail["count"].as_u64())
        {
            readings.push(Reading { at: act.at, plan, next: first + count });
        }
    }
    // What a restore skips was not given.
    let restored = acts.iter().filter(|act| act.what == restored::RESTORED).map(|act| act.at).max();
    readings.retain(|reading| restored.is_none_or(|restored| reading.at > restored));
    Ok(Rate::of(&readings, counter, now))
}

/// How far back the audit is read for readings.
const LOOK_BACK: TimeDelta = TimeDelta::days(60);

/// Until when `left` numbers last, in words.
pub fn outlook(rate: Option<&Rate>, left: u64, now: DateTime<Utc>) -> String {
    let Some(rate) = rate else {
        return "not known yet: the counter is noted now, so look again in a day or more".to_owned();
    };
    let since = rate.since.date_naive();
    let at_rate = format!("{} since {since}, {:.1} a day", rate.numbers, rate.per_day);
    match rate.used_up(left, now) {
        Some(until) => format!("{}, at the rate of {at_rate}", until.date_naive()),
        None => format!("more than a hundred years, at the rate of {at_rate}"),
    }
}

/// Numbers that an operator has taken.
pub struct Taken {
    /// The id of the audit entry.
    pub id: String,
    pub numbers: TakenNumbers,
}

impl Taken {
    /// The first and the last number.
    pub fn ends(&self) -> (String, String) {
        let IssuedRange { first, next, .. } = self.numbers.range;
        (self.numbers.number(first), self.numbers.number(next - 1))
    }

    pub fn count(&self) -> u64 {
        self.numbers.range.next - self.numbers.range.first
    }

    /// The lines of the file of these numbers, without line ends.
    pub fn lines(&self) -> impl Iterator<Item = String> + Send + use<> {
        let TakenNumbers { range, org } = &self.numbers;
        let (plan, key) = (range.plan.clone(), org.permutation_key.clone());
        let numbers = (range.first..range.next).map(move |value| plan.number(value, &key));
        std::iter::once("number".to_owned()).chain(numbers)
    }
}

/// Takes the next `count` numbers of an org, records them, and gives them to `deliver`.
pub async fn take_numbers(
    store: &Store,
    who: &str,
    id: OrgId,
    count: u64,
    deliver: impl FnOnce(&Taken) -> Result<(), Failure>,
) -> Result<Taken, Failure> {
    let (org, plan) = numbering(store, id).await?;
    let detail = json!({"count": count, "plan": plan});
    let act = async |entry: &mut AuditEntry| {
        let taken = match store.take_card_numbers(org, count).await {
            Err(TakeError::Uncertain(error)) => {
                entry.detail[UNCERTAIN] = true.into();
                return Err(Failure::failed(error_chain(&error)).with_detail(&format!(
                    "DynamoDB did not answer whether it took the numbers: up to {count} numbers may be skipped, and nobody \
                     gets them. Audit entry {}",
                    entry.id
                )));
            }
            Err(TakeError::NotTaken(NumberingError::Store(error))) => return Err(error.into()),
            Err(TakeError::NotTaken(error)) => return Err(Failure::refused(error.to_string())),
            Ok(taken) => taken,
        };
        let numbers = taken
            .ok_or_else(|| Failure::refused(format!("fewer than {count} numbers of the plan are left")))?;
        entry.detail["plan"] = json!(numbers.range.plan);
        entry.detail["first"] = numbers.range.first.into();
        // Recorded before the file is written, so that the file can be written again.
        store.write_entry(entry).await.map_err(|error| {
            Failure::from(error).with_detail(&format!(
                "The numbers are taken, but may not be recorded: up to {count} numbers are skipped, unless `loyaltyctl \
                 numbers taken {} --org {id} --to FILE` finds them.",
                entry.id
            ))
        })?;
        let taken = Taken { id: entry.id.clone(), numbers };
        deliver(&taken)?;
        Ok(taken)
    };
    audit::record(store, id, who, TAKE, detail, act).await
}

/// The numbers that an earlier [`take_numbers`] took.
pub async fn taken_numbers(store: &Store, id: OrgId, entry_id: &str) -> Result<Taken, Failure> {
    let org = org::existing(store, id).await?;
    let entry = store.audit_entry(id, entry_id).await?.filter(|entry| entry.what == TAKE);
    let entry = entry.ok_or_else(|| {
        Failure::not_found(format!(
            "org {id} has no `{TAKE}` of that id; `loyaltyctl audit list --org {id}` lists them"
        ))
    })?;
    let count = entry.detail["count"].as_u64().unwrap_or_default();
    let plan: Option<NumberingPlan> = serde_json::from_value(entry.detail["plan"].clone()).ok();
    let (Some(first), Some(plan)) = (entry.detail["first"].as_u64(), plan) else {
        let why = match entry.outcome {
            ActOutcome::Failed if entry.detail[UNCERTAIN] == true => {
                format!(
                    "DynamoDB did not answer that command: up to {count} numbers were skipped, and nobody gets them"
                )
            }
            ActOutcome::Failed => "that command failed and took no numbers".to_owned(),
            ActOutcome::Begun | ActOutcome::Done => format!(
                "that command ended before it recorded its numbers: up to {count} numbers were skipped, and nobody gets them"
            ),
        };
        return Err(Failure::refused(why));
    };
    let range = IssuedRange { plan, first, next: first + count };
    Ok(Taken { id: entry.id, numbers: TakenNumbers { range, org } })
}

async fn take(
    store: &Store,
    output: &Output,
    who: &str,
    id: OrgId,
    count: u64,
    to: &Path,
) -> Result<(), Failure> {
    // Before numbers are taken, so that none are taken for a file that cannot be written.
    let file = new_file(to)?;
    let deliver = |taken: &Taken| {
        write_numbers(output, file, to, taken).map_err(|failure| {
            failure.with_detail(&format!(
                "The numbers are taken: `loyaltyctl numbers taken {} --org {id} --to FILE` writes the file.",
                taken.id
            ))
        })
    };
    print_written(output, to, &take_numbers(store, who, id, count, deliver).await?)
}

async fn taken(store: &Store, output: &Output, id: OrgId, entry_id: &str, to: &Path) -> Result<(), Failure> {
    let file = new_file(to)?;
    let taken = output.with_spinner("reading", taken_numbers(store, id, entry_id)).await?;
    write_numbers(output, file, to, &taken)?;
    print_written(output, to, &taken)
}

fn print_written(output: &Output, to: &Path, taken: &Taken) -> Result<(), Failure> {
    let (count, (first, last)) = (taken.count(), taken.ends());
    let (entry, file) = (&taken.id, to.display().to_string());
    output.print(
        &json!({"id": entry, "count": count, "first": first, "last": last, "file": file}),
        &format!(
            "{count} numbers from {first} to {last} are in {}\naudit entry {entry}",
            crate::output::printable(&file)
        ),
    )
}

/// Writes numbers to `file`, and then gives it its name, unless there is a file of that name.
fn write_numbers(output: &Output, mut file: NamedTempFile, to: &Path, taken: &Taken) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed(format!("{}: {error}", to.display()));
    let bar = output.progress(taken.count());
    {
        let mut writer = BufWriter::new(file.as_file_mut());
        for line in taken.lines() {
            writeln!(writer, "{line}").map_err(failed)?;
            bar.inc(1);
        }
        writer.flush().map_err(failed)?;
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist_noclobber(to).map_err(|error| failed(error.error))?;
    bar.finish_and_clear();
    Ok(())
}

async fn check(store: &Store, output: &Output, id: OrgId, number: &str) -> Result<(), Failure> {
    let org = org::find(store, output, id).await?;
    let mut finding = find(store, &org, number).await?;
    // Cards are printed in groups of digits.
    let without_spaces: String = number.split_whitespace().collect();
    if finding.says_nothing() && without_spaces != number.trim() {
        let found = find(store, &org, &without_spaces).await?;
        if !found.says_nothing() {
            finding = found;
        }
    }
    output.print(&finding.json(), &finding.text())
}

/// What is known of a number in this spelling.
async fn find(store: &Store, org: &Org, number: &str) -> Result<Finding, Failure> {
    let identifier = org
        .identifier(IdentifierName::ExternalId, number)
        .map_err(|_| Failure::usage("that is no external ID"))?;
    let search = store.search(org, &identifier).await?;
    let current = store.issued_card_numbers(org.id()).await?;
    let retired = store.retired_card_numbers(org.id()).await?;
    let plans =
        current.iter().map(|range| ("current", range)).chain(retired.iter().map(|range| ("earlier", range)));
    let mut finding = Finding {
        number: number.to_owned(),
        owner: search.customers.keys().next().copied(),
        erased: search.erased,
        ..Finding::default()
    };
    for (which, range) in plans {
        match range.plan.read(identifier.value(), &org.permutation_key) {
            NumberReading::NotOfPlan => {}
            NumberReading::WrongCheckDigit => finding.wrong_check_digit = true,
            NumberReading::Value(value) => {
                finding.plan = Some(which);
                finding.check_digit_right |= range.plan.has_check_digit();
                let giving = match value {
                    value if (range.first..range.next).contains(&value) => Giving::Given,
                    value if which == "current" && value >= range.next => Giving::ToCome,
                    _ => Giving::Never,
                };
                finding.giving = finding.giving.max(giving);
            }
        }
    }
    Ok(finding)
}

/// Whether an org has given a number.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Giving {
    /// It has not, and its current plan does not give it.
    #[default]
    Never,
    /// Its current plan has yet to give it.
    ToCome,
    Given,
}

/// What is known of a number.
#[derive(Default)]
struct Finding {
    number: String,
    /// The customer who has it.
    owner: Option<UserId>,
    /// The plan whose number it is.
    plan: Option<&'static str>,
    giving: Giving,
    check_digit_right: bool,
    wrong_check_digit: bool,
    /// The erased customer who had it.
    erased: Option<UserId>,
}

impl Finding {
    fn check_digit(&self) -> &'static str {
        match (self.plan, self.wrong_check_digit, self.check_digit_right) {
            (Some(_), _, true) => "right",
            (None, true, _) => "wrong",
            _ => "none",
        }
    }

    /// Whether the org will give it although nobody can have it.
    fn is_reserved(&self) -> bool {
        self.erased.is_some() && self.giving == Giving::ToCome
    }

    /// Whether it belongs to nobody and looks like no number of a plan.
    fn says_nothing(&self) -> bool {
        self.owner.is_none() && self.erased.is_none() && self.plan.is_none() && !self.wrong_check_digit
    }

    fn json(&self) -> Value {
        json!({
            "number": self.number,
            "customer": self.owner,
            "erased": self.erased,
            "reserved": self.is_reserved(),
            "plan": self.plan,
            "given": self.giving == Giving::Given,
            "check_digit": self.check_digit(),
        })
    }

    fn text(&self) -> String {
        let whose = match (self.owner, self.erased, self.giving == Giving::Given, self.plan) {
            (Some(user), _, true, _) => format!(
                "belongs to customer {user}, and was given: to that customer or, if the customer brought it by hand \
                 before its turn came, to somebody else, too"
            ),
            (Some(user), _, false, _) if self.giving == Giving::ToCome => format!(
                "belongs to customer {user}, and was assigned manually: `numbers take` and `/v2/cardNumber` will still \
                 give it"
            ),
            (Some(user), _, false, _) => format!("belongs to customer {user}, and was assigned manually"),
            (None, Some(user), ..) if self.is_reserved() => format!(
                "was a number of customer {user}, who was erased, and is reserved: it will still be given and cannot be \
                 registered"
            ),
            (None, Some(user), ..) => {
                format!("was a number of customer {user}, who was erased; nobody gets it again")
            }
            (None, None, true, _) => "was given, and belongs to no customer".to_owned(),
            (None, None, false, Some(_)) => "was never given".to_owned(),
            (None, None, false, None) => "is no number of any plan of the org".to_owned(),
        };
        let number = crate::output::printable(&self.number);
        match self.check_digit() {
            "none" => format!("{number} {whose}"),
            digit => format!("{number} {whose}; its check digit is {digit}"),
        }
    }
}
