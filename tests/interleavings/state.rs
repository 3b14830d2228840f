//! Prepares the state of each run, and releases the calls of its requests one by one.

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
        faults::{Fault, Faults, with_fault_proxy},
    },
    model::{DAILY_LIMIT, FAILED_ATTEMPTS, FIRST_CODE, Model, Outcome, UniqueValue, explain},
    requests::{BLOCK_SIZE, Kind, LOOKUP, Numbering, Request, follow_ups},
    search::{Choice, InjectedFault},
};

type Attributes = HashMap<String, AttributeValue>;

/// At most three requests race.
const PROCESSES: usize = 3;
/// Number of runs on one engine. The engine keeps each transaction's token for ten minutes, and
/// searches all of them at each transaction.
const RUNS_OF_AN_ENGINE: u64 = 300;
/// Timeout that detects a hang. It is much longer than a call and the backoff before it.
const HANG_TIMEOUT: Duration = Duration::from_secs(20);

/// Number of digits of the org's card numbers, before and after its plan is changed.
pub const fn digits(changed: bool) -> usize {
    if changed { 12 } else { 10 }
}

/// The offset of the org's first plan.
pub const FIRST_NUMBER: u64 = 1_000_000_010;

/// Data of one run that its requests use.
pub struct Run {
    pub org: OrgId,
    numbering: Numbering,
    pub key: String,
    /// The last card number that the org has given.
    last_number: Option<String>,
    /// The card number that would follow.
    pub next_number: String,
    till: String,
    number: u64,
}

impl Run {
    /// A run that is only used to list its calls.
    pub fn example() -> Self {
        Self {
            org: ORG,
            numbering: Numbering::Single,
            key: String::new(),
            last_number: None,
            next_number: String::new(),
            till: String::new(),
            number: 0,
        }
    }

    /// Defines the org with its first plan and these changes.
    pub fn definition(&self, config: &str) -> Definition {
        let first_plan = self.numbering.config();
        org(self.org, &format!("{first_plan}\n{config}"))
    }

    /// Mobile 0 is the customer's. The others belong to new customers. Mobile 1 is the contact's.
    pub fn mobile(&self, of: u64) -> String {
        (9_000_000_000 + self.number * 10 + of).to_string()
    }

    /// The user id of the customer that is registered before the race.
    fn user(&self) -> u64 {
        1_000_000_000 + self.number
    }

    pub fn email(&self) -> String {
        format!("{}@example.com", self.number)
    }
}

/// A process for one of the racing requests.
struct Process {
    service: TestService,
    faults: Faults,
}

/// A held call.
struct Held {
    operation: String,
    decision: Arc<SetOnce<Option<Fault>>>,
}

/// A request in progress.
struct Racer {
    name: &'static str,
    task: JoinHandle<Answer>,
    held: mpsc::UnboundedReceiver<Held>,
    held_call: Option<Held>,
    outcome: Option<Outcome>,
    calls: usize,
    has_fault: bool,
}

/// An engine and its processes.
pub struct State {
    table: TestTable,
    direct: TestService,
    processes: Vec<Process>,
    /// A plain SDK client.
    setup: aws_sdk_dynamodb::Client,
    timezone: TimeZone,
    runs: u64,
    /// The card numbers and users of all runs.
    allocated: HashSet<(OrgId, UniqueValue, String)>,
}

/// Defines an org with limits that two requests reach.
fn org(id: OrgId, config: &str) -> Definition {
    let limits = format!(
        "CONF_OTP_DAILY_LIMIT = {DAILY_LIMIT}\nCONF_OTP_VALIDATE_RATE_LIMIT_COUNT = {FAILED_ATTEMPTS}\n{config}"
    );
    Definition { id, ..demo_org_with(&limits) }
}

const ORG: OrgId = OrgId(966);

impl State {
    pub async fn new() -> Self {
        let table = TestTable::new().await;
        let direct = table.service("store.server");
        direct.apply(&org(ORG, "")).await.unwrap();
        direct.create_till("store.server", ORG.0, Permission::ALL).await;
        let mut processes = Vec::new();
        for _ in 0..PROCESSES {
            let (_, faults) = with_fault_proxy(&table, "store.server").await;
            let retries = RetryConfig::standard().with_initial_backoff(Duration::from_millis(1));
            let config = table.client().config().to_builder();
            let config = config.endpoint_url(faults.endpoint()).retry_config(retries).build();
            let client = aws_sdk_dynamodb::Client::from_conf(config);
            let service = table.service_with(client, "store.server");
            warm_up(&service).await;
            processes.push(Process { service, faults });
        }
        warm_up(&direct).await;
        let timezone = direct.store.org(ORG).await.unwrap().unwrap().timezone.clone();
        let setup = table.client();
        Self { table, direct, processes, setup, timezone, runs: 0, allocated: HashSet::new() }
    }

    /// Prepares a fresh state for requests of these kinds and this numbering.
    async fn fresh(&mut self, kinds: &[Kind], numbering: Numbering) -> (Run, TestService, Vec<TestService>) {
        if self.runs == RUNS_OF_AN_ENGINE {
            *self = Self::new().await;
        }
        self.runs += 1;
        let number = self.runs;
        let mut run = Run {
            org: ORG,
            numbering,
            key: format!("key-{number}"),
            last_number: None,
            next_number: String::new(),
            till: "store.server".to_owned(),
            number,
        };
        let mut direct = self.direct.clone();
        let mut services: Vec<TestService> =
            self.processes.iter().map(|process| process.service.clone()).collect();
        services.truncate(kinds.len());
        if kinds.contains(&Kind::Plan) || numbering != Numbering::Single {
            run.org = OrgId(u32::try_from(1000 + number).unwrap());
            run.till = format!("till-{number}");
            direct.apply(&run.definition("")).await.unwrap();
            direct.create_till(&run.till, run.org.0, Permission::ALL).await;
            direct = direct.as_till(&run.till, PASSWORD);
            for service in &mut services {
                *service = service.another_process().as_till(&run.till, PASSWORD);
                warm_up(service).await;
            }
        }
        if kinds.contains(&Kind::Otps) {
            let customer = format!("USER#{}", run.user());
            self.issue_first_otp(&run, &customer, "POINTS", &customer).await;
            self.register_customer(&run).await;
        }
        if kinds.contains(&Kind::ContactOtps) {
            let contact = format!("CONTACT#INSTORE##mobile#91{}", run.mobile(1));
            let address = format!("RECIPIENT#mobile#91{}", run.mobile(1));
            self.issue_first_otp(&run, &contact, "GENERIC", &address).await;
        }
        let needs_number = kinds.contains(&Kind::Customers) || kinds.contains(&Kind::Plan);
        if needs_number && numbering != Numbering::Last {
            // An earlier run may have registered this number explicitly.
            let number = process(&direct, numbering).card_number().await;
            let taken = if numbering == Numbering::Blocks { BLOCK_SIZE } else { 1 };
            run.next_number = (number.parse::<u64>().unwrap() + taken).to_string();
            run.last_number = Some(number);
        }
        // Later OTPs are newer.
        self.table.clock.advance(TimeDelta::milliseconds(1));
        (run, direct, services)
    }

    /// Writes the items of an owner's first OTP, in the form that every version stores. It counts
    /// in the daily quota of `counted_by`.
    async fn issue_first_otp(&self, run: &Run, owner: &str, scope: &str, counted_by: &str) {
        let now = self.table.clock.now();
        let created_id = now.timestamp_millis() * 1000;
        let valid_until = now + TimeDelta::minutes(5);
        let partition = format!("ORG#{}#{owner}", run.org);
        let today = OrgDay::of(now, &self.timezone).date;
        let expires_at = ("expires_at", N((valid_until.timestamp() + 86_400).to_string()));
        let otp = put(
            partition,
            format!("OTP#{scope}#{created_id:0>16}"),
            [
                ("created_id", N(created_id.to_string())),
                ("code", S(FIRST_CODE.to_owned())),
                ("valid_until", N(valid_until.timestamp_millis().to_string())),
                expires_at.clone(),
            ],
        );
        let issued = ("issued", N("1".to_owned()));
        let counter = format!("ORG#{}#{counted_by}", run.org);
        self.write(vec![otp, put(counter, format!("QUOTA#{today}"), [issued, expires_at])]).await;
    }

    /// Writes the item of a customer's mobile.
    async fn register_customer(&self, run: &Run) {
        let identity = identity(run.org, "mobile", &format!("91{}", run.mobile(0)));
        self.write(vec![put(identity, "ID".to_owned(), [("user_id", N(run.user().to_string()))])]).await;
    }

    async fn write(&self, items: Vec<WriteRequest>) {
        self.setup.batch_write_item().request_items(self.table.name(), items).send().await.unwrap();
    }

    /// Moves the clock, so that no two requests draw the number of an OTP from the same thousand.
    /// OTPs of different owners may have the same number, which no order of the requests explains.
    fn next_millisecond(&self) {
        self.table.clock.advance(TimeDelta::milliseconds(1));
    }

    /// Runs concurrent requests from a fresh state. `next` chooses the call to release, given which
    /// requests have a held call. Returns the number of calls of each request.
    ///
    /// # Errors
    /// Describes the calls and answers, if no order of whole requests explains them.
    pub async fn run(
        &mut self,
        requests: &[Request],
        mut next: impl FnMut(&[bool]) -> Choice,
    ) -> Result<Vec<usize>, String> {
        let kinds: Vec<Kind> = requests.iter().map(|request| request.kind).collect();
        let numbering = requests[0].numbering;
        let (run, direct, services) = self.fresh(&kinds, numbering).await;
        let run = Arc::new(run);
        let mut racers = Vec::new();
        for ((request, service), process) in requests.iter().zip(services).zip(&self.processes) {
            self.next_millisecond();
            let mut racer = Racer::start(*request, service, &run, &process.faults);
            racer.advance().await;
            racers.push(racer);
        }
        let (mut trace, mut has_fault) = (Vec::new(), false);
        loop {
            let waiting: Vec<bool> = racers.iter().map(|racer| racer.held_call.is_some()).collect();
            if !waiting.contains(&true) {
                break;
            }
            let choice = next(&waiting);
            has_fault |= choice.injected.is_some();
            trace.push(racers[choice.request].release(choice.injected));
            racers[choice.request].advance().await;
        }
        self.processes.iter().for_each(|process| process.faults.clear());
        let calls = racers.iter().map(|racer| racer.calls).collect();
        let race = requests.iter().zip(racers.into_iter().filter_map(|racer| racer.outcome));
        let race: Vec<(&Request, Outcome)> = race.collect();

        let again: Vec<Request> = requests.iter().filter(|request| request.has_key).copied().collect();
        let again: Vec<Request> = again.into_iter().chain(follow_ups(&kinds)).collect();
        let mut later = Vec::new();
        for request in &again {
            self.next_millisecond();
            let service = process(&direct, numbering);
            later.push((request, Outcome::Answered(request.send(service, &run).await)));
        }
        if kinds.contains(&Kind::Customers) {
            later.push((&LOOKUP, Outcome::Answered(self.look_up(&run).await)));
        }
        let (numbers_left, first_digits) =
            if numbering == Numbering::Last { (1, 2) } else { (usize::MAX, digits(false)) };
        let mut model = Model::new(kinds, first_digits, numbers_left);
        model.number_may_be_skipped = has_fault;
        model.allocated.extend(run.last_number.clone().map(|number| (UniqueValue::Number, Some(number))));
        let explained = explain(&model, &race, &later);
        let is_new = explained.is_some_and(|model| self.values_are_new(&run, &model));
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

    /// Returns whether no earlier run has the same card numbers or users.
    fn values_are_new(&mut self, run: &Run, model: &Model) -> bool {
        model.allocated.iter().all(|(new, value)| match value {
            Some(value) if *new != UniqueValue::Otp => self.allocated.insert((run.org, *new, value.clone())),
            _ => true,
        })
    }

    /// Reads from the items the owner of each identifier, and the card numbers of the new
    /// customers.
    async fn look_up(&self, run: &Run) -> Answer {
        let mobile = |of| identity(run.org, "mobile", &format!("91{}", run.mobile(of)));
        let wanted = [
            ("second mobile", mobile(1)),
            ("mobile with explicit number", mobile(2)),
            ("other mobile", mobile(3)),
            ("email", identity(run.org, "email", &run.email())),
            ("explicit number", external_id(run.org, &run.next_number)),
        ];
        let keys = wanted.iter().map(|(_, partition)| key(partition, "ID")).collect();
        let keys = KeysAndAttributes::builder().set_keys(Some(keys)).consistent_read(true).build().unwrap();
        let batch = self.setup.batch_get_item().request_items(self.table.name(), keys).send().await.unwrap();
        let found = batch.responses.unwrap().remove(self.table.name()).unwrap_or_default();
        let mut owners = serde_json::Map::new();
        for (name, partition) in wanted {
            let item = found.iter().find(|item| item["PK"] == S(partition.clone()));
            owners.insert(name.to_owned(), item.map(user_id).into());
        }
        let mut numbers = Vec::new();
        for (name, by_number) in
            [("second mobile", "second mobile, by number"), ("other mobile", "other mobile, by number")]
        {
            if let Some(user) = owners[name].as_u64() {
                let number = self.number_of(run.org, user).await;
                let item = self.item(&external_id(run.org, &number), "ID").await;
                owners.insert(by_number.to_owned(), item.as_ref().map(user_id).into());
                numbers.push(number);
            }
        }
        // In this case a registration has generated that number.
        if numbers.contains(&run.next_number) {
            owners.remove("explicit number");
        }
        answer(200, json!({"owners": owners, "numbers": numbers}))
    }

    /// The card number in the profile of a user.
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
    /// Starts a request. The proxy holds each of its calls.
    fn start(request: Request, service: TestService, run: &Arc<Run>, faults: &Faults) -> Self {
        let (sender, held) = mpsc::unbounded_channel();
        faults.inject(move |operation, _| {
            let decision = Arc::default();
            sender.send(Held { operation: operation.to_owned(), decision: Arc::clone(&decision) }).unwrap();
            Some(Fault::Held(decision))
        });
        let run = Arc::clone(run);
        let task = tokio::spawn(async move { request.send(service, &run).await });
        Self { name: request.name, task, held, held_call: None, outcome: None, calls: 0, has_fault: false }
    }

    /// Waits until the request makes its next call or ends. Requests make one call at a time, and
    /// no other request runs meanwhile.
    async fn advance(&mut self) {
        let next = async {
            tokio::select! {
                biased;
                Some(held) = self.held.recv() => (Some(held), None),
                ended = &mut self.task => (None, Some(ended)),
            }
        };
        let next = timeout(HANG_TIMEOUT, next).await;
        let (held, ended) = next.unwrap_or_else(|_| panic!("{} neither makes a call nor ends", self.name));
        self.held_call = held;
        self.outcome = ended.map(|ended| match ended {
            Ok(answer) if answer.status == 503 && self.has_fault => Outcome::Unknown,
            Ok(answer) => Outcome::Answered(answer),
            Err(error) if error.is_cancelled() => Outcome::Unknown,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        });
    }

    /// Releases the held call, and returns a description of it.
    fn release(&mut self, injected: Option<InjectedFault>) -> String {
        let held = self.held_call.take().expect("the request has a held call");
        self.calls += 1;
        self.has_fault |= injected.is_some();
        let (fault, ending) = match injected {
            None => (None, ""),
            Some(InjectedFault::AnswerLost) => (Some(Fault::ResetBeforeAnswer), " (answer lost)"),
            Some(InjectedFault::Refused) => (Some(Fault::error("ExpiredTokenException")), " (refused)"),
            Some(InjectedFault::Killed) => (Some(Fault::Killed(self.task.abort_handle())), " (killed)"),
        };
        held.decision.set(fault).expect("each call is decided once");
        format!("{}: {}{ending}", self.name, held.operation)
    }
}

/// The process for a request before or after a race. With blocks, each has its own, because a
/// process with a block may give numbers of an old plan for a minute.
fn process(direct: &TestService, numbering: Numbering) -> TestService {
    if numbering == Numbering::Blocks { direct.another_process() } else { direct.clone() }
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

/// Fills the caches, so that a race starts with the calls that matter.
async fn warm_up(service: &TestService) {
    assert_eq!(service.get("/v2/otp").await.status, 400);
}

/// An answer that does not come from the API.
pub fn answer(status: u16, json: Value) -> Answer {
    Answer { status, headers: HeaderMap::new(), text: String::new(), json }
}

/// The partition of an identity item. It is written out here, because it must be the same in every
/// version.
fn identity(org: OrgId, name: &str, value: &str) -> String {
    format!("ORG#{org}#ID#INSTORE##{name}#{value}")
}

fn external_id(org: OrgId, value: &str) -> String {
    format!("ORG#{org}#ID###external_id#{value}")
}
