//! The state that each run starts from, and how its requests are let through call by call.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use aws_sdk_dynamodb::{
    config::retry::RetryConfig,
    types::{
        AttributeValue::{self, N, S},
        KeysAndAttributes, PutRequest, WriteRequest,
    },
};
use chrono::TimeDelta;
use http::HeaderMap;
use loyalty_codes::model::{
    org::{Definition, OrgId},
    otp::OrgDay,
    till::Permission,
    timezone::TimeZone,
};
use serde_json::{Value, json};
use tokio::{
    sync::{SetOnce, mpsc},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    common::{
        Answer, PASSWORD, TestService, TestTable, demo_org_with,
        faults::{Fault, Faults, behind_faults},
    },
    model::{DAILY_LIMIT, FAILED_ATTEMPTS, FIRST_CODE, Model, New, Outcome, explain},
    requests::{Kind, LOOKUP, Request, afterwards},
    search::{Choice, Mishap},
};

type Attributes = HashMap<String, AttributeValue>;

/// Requests race in threes at most.
const PROCESSES: usize = 3;
/// The engine keeps each transaction's token for ten minutes, and looks through all of them at each
/// transaction.
const RUNS_OF_AN_ENGINE: u64 = 300;
/// Far longer than a call takes, or the backoff before it.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long the org's numbers are, before its plan changes and after.
pub const fn digits(changed: bool) -> usize {
    if changed { 12 } else { 10 }
}

/// The offset of the org's first plan.
pub const FIRST_NUMBER: u64 = 1_000_000_010;

/// What the requests of one run are about.
pub struct Run {
    pub org: OrgId,
    pub key: String,
    /// The org's number that was given last.
    last_number: Option<String>,
    /// What the org's next number would be.
    pub next_number: String,
    till: String,
    number: u64,
}

impl Run {
    /// One that is not run.
    pub fn example() -> Self {
        Self {
            org: ORG,
            key: String::new(),
            last_number: None,
            next_number: String::new(),
            till: String::new(),
            number: 0,
        }
    }

    /// The mobile of the customer, and those of others.
    pub fn mobile(&self, of: u64) -> String {
        (9_000_000_000 + self.number * 10 + of).to_string()
    }

    pub fn email(&self) -> String {
        format!("{}@example.com", self.number)
    }
}

/// One of the processes that race.
struct Process {
    service: TestService,
    faults: Faults,
}

/// A call that waits until it is let through.
struct Held {
    operation: String,
    decision: Arc<SetOnce<Option<Fault>>>,
}

/// A request on its way.
struct Racer {
    name: &'static str,
    task: JoinHandle<Answer>,
    held: mpsc::UnboundedReceiver<Held>,
    waits: Option<Held>,
    outcome: Option<Outcome>,
    calls: usize,
    has_mishap: bool,
}

/// An engine with processes on it.
pub struct State {
    table: TestTable,
    clean: TestService,
    processes: Vec<Process>,
    /// The bare SDK.
    setup: aws_sdk_dynamodb::Client,
    timezone: TimeZone,
    runs: u64,
    /// The numbers and users of all runs.
    given: HashSet<(OrgId, New, String)>,
}

/// The org with limits that two requests reach.
pub fn org(id: OrgId, config: &str) -> Definition {
    let limits = format!(
        "CONF_OTP_DAILY_LIMIT = {DAILY_LIMIT}\nCONF_OTP_VALIDATE_RATE_LIMIT_COUNT = {FAILED_ATTEMPTS}\n{config}"
    );
    Definition { id, ..demo_org_with(&limits) }
}

const ORG: OrgId = OrgId(966);

impl State {
    pub async fn new() -> Self {
        let table = TestTable::new().await;
        let clean = table.service("store.server");
        clean.apply(&org(ORG, "")).await.unwrap();
        clean.create_till("store.server", ORG.0, Permission::ALL).await;
        let mut processes = Vec::new();
        for _ in 0..PROCESSES {
            let (_, faults) = behind_faults(&table, "store.server").await;
            let retries = RetryConfig::standard().with_initial_backoff(Duration::from_millis(1));
            let config = table.client().config().to_builder();
            let config = config.endpoint_url(faults.endpoint()).retry_config(retries).build();
            let client = aws_sdk_dynamodb::Client::from_conf(config);
            let service = table.service_with(client, "store.server");
            warm_up(&service).await;
            processes.push(Process { service, faults });
        }
        warm_up(&clean).await;
        let timezone = clean.store.org(ORG).await.unwrap().unwrap().timezone.clone();
        let setup = table.client();
        Self { table, clean, processes, setup, timezone, runs: 0, given: HashSet::new() }
    }

    /// A state that nobody has changed, for requests of these kinds.
    async fn fresh(&mut self, kinds: &[Kind]) -> (Run, TestService, Vec<TestService>) {
        if self.runs == RUNS_OF_AN_ENGINE {
            *self = Self::new().await;
        }
        self.runs += 1;
        let number = self.runs;
        let mut run = Run {
            org: ORG,
            key: format!("key-{number}"),
            last_number: None,
            next_number: String::new(),
            till: "store.server".to_owned(),
            number,
        };
        let mut clean = self.clean.clone();
        let mut services: Vec<TestService> =
            self.processes.iter().map(|process| process.service.clone()).collect();
        services.truncate(kinds.len());
        if kinds.contains(&Kind::Plan) || kinds.contains(&Kind::LastNumber) {
            run.org = OrgId(u32::try_from(1000 + number).unwrap());
            run.till = format!("till-{number}");
            let last = "CONF_CARD_NUMBER_LENGTH = 2\nCONF_CARD_NUMBER_OFFSET = 99";
            let config = if kinds.contains(&Kind::LastNumber) { last } else { "" };
            clean.apply(&org(run.org, config)).await.unwrap();
            clean.create_till(&run.till, run.org.0, Permission::ALL).await;
            clean = clean.as_till(&run.till, PASSWORD);
            for service in &mut services {
                *service = service.another_process().as_till(&run.till, PASSWORD);
                warm_up(service).await;
            }
        }
        if kinds.contains(&Kind::Otps) {
            self.issue_first_otp(&run).await;
        }
        if kinds.contains(&Kind::Customers) || kinds.contains(&Kind::Plan) {
            // An earlier run may have registered this one by hand.
            let number = clean.card_number().await;
            run.next_number = (number.parse::<u64>().unwrap() + 1).to_string();
            run.last_number = Some(number);
        }
        // What is issued from now on is newer.
        self.table.clock.advance(TimeDelta::milliseconds(1));
        (run, clean, services)
    }

    /// Gives a customer an OTP, by the items that every version has stored for it.
    async fn issue_first_otp(&self, run: &Run) {
        let now = self.table.clock.now();
        let (user, created_id) = (1_000_000_000 + run.number, now.timestamp_millis() * 1000);
        let valid_until = now + TimeDelta::minutes(5);
        let partition = format!("ORG#{}#USER#{user}", run.org);
        let identity = identity(run.org, "mobile", &format!("91{}", run.mobile(0)));
        let today = OrgDay::of(now, &self.timezone).date;
        let expires_at = ("expires_at", N((valid_until.timestamp() + 86_400).to_string()));
        let items = [
            put(identity, "ID".to_owned(), [("user_id", N(user.to_string()))]),
            put(
                partition.clone(),
                format!("OTP#POINTS#{created_id:0>16}"),
                [
                    ("created_id", N(created_id.to_string())),
                    ("code", S(FIRST_CODE.to_owned())),
                    ("valid_until", N(valid_until.timestamp_millis().to_string())),
                    expires_at.clone(),
                ],
            ),
            put(partition, format!("QUOTA#{today}"), [("issued", N("1".to_owned())), expires_at]),
        ];
        let batch = self.setup.batch_write_item().request_items(self.table.name(), items.to_vec());
        batch.send().await.unwrap();
    }

    /// Lets requests race from a fresh state, in the order that `next` says, given which of them
    /// wait with a call. Returns how many calls each made.
    ///
    /// # Errors
    /// What was seen, where no order of whole requests explains it.
    pub async fn run(
        &mut self,
        requests: &[Request],
        mut next: impl FnMut(&[bool]) -> Choice,
    ) -> Result<Vec<usize>, String> {
        let kinds: Vec<Kind> = requests.iter().map(|request| request.kind).collect();
        let (run, clean, services) = self.fresh(&kinds).await;
        let run = Arc::new(run);
        let mut racers = Vec::new();
        for ((request, service), process) in requests.iter().zip(services).zip(&self.processes) {
            let mut racer = Racer::start(*request, service, &run, &process.faults);
            racer.goes_on().await;
            racers.push(racer);
        }
        let mut trace = Vec::new();
        loop {
            let waits: Vec<bool> = racers.iter().map(|racer| racer.waits.is_some()).collect();
            if !waits.contains(&true) {
                break;
            }
            let choice = next(&waits);
            trace.push(racers[choice.request].release(choice.mishap));
            racers[choice.request].goes_on().await;
        }
        self.processes.iter().for_each(|process| process.faults.end());
        let calls = racers.iter().map(|racer| racer.calls).collect();
        let race = requests.iter().zip(racers.into_iter().filter_map(|racer| racer.outcome));
        let race: Vec<(&Request, Outcome)> = race.collect();

        let again: Vec<Request> = requests.iter().filter(|request| request.has_key).copied().collect();
        let again: Vec<Request> = again.into_iter().chain(afterwards(&kinds)).collect();
        let mut later = Vec::new();
        for request in &again {
            later.push((request, Outcome::Answered(request.send(clean.clone(), &run).await)));
        }
        if kinds.contains(&Kind::Customers) {
            later.push((&LOOKUP, Outcome::Answered(self.look_up(&run).await)));
        }
        let numbers_left = if kinds.contains(&Kind::LastNumber) { 1 } else { usize::MAX };
        let first_digits = if kinds.contains(&Kind::LastNumber) { 2 } else { digits(false) };
        let mut model = Model::new(kinds, first_digits, numbers_left);
        model.given.extend(run.last_number.clone().map(|number| (New::Number, Some(number))));
        let explained = explain(&model, &race, &later);
        let is_new = explained.is_some_and(|model| self.was_never_given(&run, &model));
        if is_new {
            Ok(calls)
        } else {
            let ended = |(request, outcome): &(&Request, Outcome)| match outcome {
                Outcome::Answered(answer) => {
                    format!("{}: {} {} {}", request.name, answer.status, answer.text, answer.json)
                }
                Outcome::Unknown => format!("{}: unknown", request.name),
            };
            let ended = race.iter().map(ended).chain(["afterwards:".into()]).chain(later.iter().map(ended));
            Err(format!("{}\n  {}", trace.join(", "), ended.collect::<Vec<_>>().join("\n  ")))
        }
    }

    /// Whether no earlier run was given any number or user of this one.
    fn was_never_given(&mut self, run: &Run, model: &Model) -> bool {
        model.given.iter().all(|(new, value)| match value {
            Some(value) if *new != New::Otp => self.given.insert((run.org, *new, value.clone())),
            _ => true,
        })
    }

    /// Who has which identifier, as the items say, and the numbers that the new customers were
    /// given.
    async fn look_up(&self, run: &Run) -> Answer {
        let mobile = |of| identity(run.org, "mobile", &format!("91{}", run.mobile(of)));
        let wanted = [
            ("second mobile", mobile(1)),
            ("mobile by hand", mobile(2)),
            ("other mobile", mobile(3)),
            ("email", identity(run.org, "email", &run.email())),
            ("number by hand", external_id(run.org, &run.next_number)),
        ];
        let keys = wanted.iter().map(|(_, partition)| key(partition, "ID")).collect();
        let keys = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build().unwrap();
        let batch = self.setup.batch_get_item().request_items(self.table.name(), keys).send().await.unwrap();
        let found = batch.responses.unwrap().remove(self.table.name()).unwrap_or_default();
        let mut holders = serde_json::Map::new();
        for (name, partition) in wanted {
            let item = found.iter().find(|item| item["PK"] == S(partition.clone()));
            holders.insert(name.to_owned(), item.map(user_id).into());
        }
        let mut numbers = Vec::new();
        for (name, by_number) in
            [("second mobile", "second mobile, by number"), ("other mobile", "other mobile, by number")]
        {
            if let Some(user) = holders[name].as_u64() {
                let number = self.number_of(run.org, user).await;
                let item = self.item(&external_id(run.org, &number), "ID").await;
                holders.insert(by_number.to_owned(), item.as_ref().map(user_id).into());
                numbers.push(number);
            }
        }
        // Then, somebody was given it without asking for it.
        if numbers.contains(&run.next_number) {
            holders.remove("number by hand");
        }
        answer(200, json!({"holders": holders, "numbers": numbers}))
    }

    /// The number that a user was given, as the profile says.
    async fn number_of(&self, org: OrgId, user: u64) -> String {
        let profile = self.item(&format!("ORG#{org}#USER#{user}"), "PROFILE").await.unwrap();
        let identifiers: Vec<(Value, String, String)> =
            serde_json::from_str(profile["identifiers"].as_s().unwrap()).unwrap();
        let mut numbers = identifiers.iter().filter(|(_, name, _)| name == "external_id");
        let (_, _, number) = numbers.next().unwrap();
        assert!(numbers.next().is_none(), "{identifiers:?}");
        number.clone()
    }

    async fn item(&self, partition: &str, sort: &str) -> Option<Attributes> {
        let get = self.setup.get_item().table_name(self.table.name()).consistent_read(true);
        get.set_key(Some(key(partition, sort))).send().await.unwrap().item
    }
}

impl Racer {
    /// Starts a request whose every call is held.
    fn start(request: Request, service: TestService, run: &Arc<Run>, faults: &Faults) -> Self {
        let (hold, held) = mpsc::unbounded_channel();
        faults.inject(move |operation, _| {
            let decision = Arc::default();
            hold.send(Held { operation: operation.to_owned(), decision: Arc::clone(&decision) }).unwrap();
            Some(Fault::Held(decision))
        });
        let run = Arc::clone(run);
        let task = tokio::spawn(async move { request.send(service, &run).await });
        Self { name: request.name, task, held, waits: None, outcome: None, calls: 0, has_mishap: false }
    }

    /// Waits until the request makes its next call or ends. Requests make one call at a time, and
    /// nobody else goes on meanwhile.
    async fn goes_on(&mut self) {
        let next = async {
            tokio::select! {
                biased;
                Some(held) = self.held.recv() => (Some(held), None),
                ended = &mut self.task => (None, Some(ended)),
            }
        };
        let next = timeout(PATIENCE, next).await;
        let (held, ended) = next.unwrap_or_else(|_| panic!("{} neither goes on nor ends", self.name));
        self.waits = held;
        self.outcome = ended.map(|ended| match ended {
            Ok(answer) if answer.status == 503 && self.has_mishap => Outcome::Unknown,
            Ok(answer) => Outcome::Answered(answer),
            Err(error) if error.is_cancelled() => Outcome::Unknown,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        });
    }

    /// Lets the call through that waits, and tells of it.
    fn release(&mut self, mishap: Option<Mishap>) -> String {
        let held = self.waits.take().expect("it waits");
        self.calls += 1;
        self.has_mishap |= mishap.is_some();
        let (fault, ending) = match mishap {
            None => (None, ""),
            Some(Mishap::AnswerLost) => (Some(Fault::LostAnswer), " (answer lost)"),
            Some(Mishap::Refused) => (Some(Fault::error("ExpiredTokenException")), " (refused)"),
            Some(Mishap::Killed) => (Some(Fault::Killed(self.task.abort_handle())), " (killed)"),
        };
        held.decision.set(fault).expect("it is decided once");
        format!("{}: {}{ending}", self.name, held.operation)
    }
}

fn key(partition: &str, sort: &str) -> Attributes {
    HashMap::from([("PK".to_owned(), S(partition.to_owned())), ("SK".to_owned(), S(sort.to_owned()))])
}

fn user_id(item: &Attributes) -> u64 {
    item["user_id"].as_n().unwrap().parse().unwrap()
}

fn put<const N: usize>(
    partition: String,
    sort: String,
    attributes: [(&str, AttributeValue); N],
) -> WriteRequest {
    let keys = [("PK", S(partition)), ("SK", S(sort))];
    let item = keys.into_iter().chain(attributes).map(|(name, value)| (name.to_owned(), value)).collect();
    WriteRequest::builder().put_request(PutRequest::builder().set_item(Some(item)).build().unwrap()).build()
}

/// Fills the caches, so that a race begins with what its requests are about.
async fn warm_up(service: &TestService) {
    assert_eq!(service.get("/v2/otp").await.status, 400);
}

/// An answer that is none of the API's.
pub fn answer(status: u16, json: Value) -> Answer {
    Answer { status, headers: HeaderMap::new(), text: String::new(), json }
}

/// The partition that says who has an identifier, spelled out here: it must be the same in every
/// version.
fn identity(org: OrgId, name: &str, value: &str) -> String {
    format!("ORG#{org}#ID#INSTORE##{name}#{value}")
}

fn external_id(org: OrgId, value: &str) -> String {
    format!("ORG#{org}#ID###external_id#{value}")
}
