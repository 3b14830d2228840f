//! Kills `loyaltyctl serve` under load, many times. Answers that callers received must stay true.
//! Requests in progress must be complete or without effect.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failure must fail the test and print its seed"
)]

mod common;

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::AttributeValue;
use common::{
    Answer,
    caller::{Caller, ConnectionLost},
    served::{Served, loyaltyctl},
};
use loyalty_codes::{
    model::org::OrgId,
    secret::os_rng,
    settings::{DEFAULT_TABLE, Settings},
    store::{Store, connect_local},
};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tokio::{sync::Notify, task::JoinSet};

const KILLS: u64 = 50;
const CALLERS: u64 = 8;
/// A process is killed after at most this many answers.
const MAX_ANSWERS: u64 = 80;

/// State of the test that all processes share.
#[derive(Default)]
struct SharedState {
    card_numbers: Mutex<HashSet<String>>,
    /// A counter that makes every mobile and every idempotency key unique.
    names: AtomicU64,
}

impl SharedState {
    fn name(&self) -> u64 {
        self.names.fetch_add(1, Ordering::Relaxed)
    }

    fn mobile(&self) -> String {
        format!("91{:010}", 9_100_000_000 + self.name())
    }

    fn key(&self, rng: &mut SmallRng) -> Option<KeyedRequest> {
        rng.random::<bool>().then(|| KeyedRequest { key: format!("key-{}", self.name()), answer: None })
    }

    fn take(&self, answer: &Answer) {
        let number = answer.json["entity"].as_str().unwrap().to_owned();
        assert!(self.card_numbers.lock().unwrap().insert(number), "card number given twice: {answer:?}");
    }
}

/// A process under load.
struct ProcessRun {
    shared: Arc<SharedState>,
    caller: Caller,
    answers: AtomicU64,
    /// The process is killed after this many answers.
    ends_after: u64,
    end: Notify,
    killed: AtomicBool,
}

impl ProcessRun {
    /// Counts an answer, which must be a success. An answer may be missing only after the kill.
    fn completed(&self, result: Result<Answer, ConnectionLost>) -> Result<Answer, ConnectionLost> {
        match result {
            Ok(answer) => {
                assert_eq!(answer.status, 200, "{answer:?}");
                if self.answers.fetch_add(1, Ordering::SeqCst) == self.ends_after {
                    self.end.notify_one();
                }
                Ok(answer)
            }
            Err(lost) => {
                assert!(self.killed.load(Ordering::SeqCst), "{lost:?} before the kill");
                Err(lost)
            }
        }
    }
}

/// A request's idempotency key, and its answer if there was one.
struct KeyedRequest {
    key: String,
    answer: Option<String>,
}

impl KeyedRequest {
    /// Records the first answer, or compares a later answer with it.
    fn record(&mut self, answer: &Answer) {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(*self.answer.get_or_insert_with(|| answer.text.clone()), answer.text, "{}", self.key);
    }
}

fn key(keyed: Option<&KeyedRequest>) -> Option<&str> {
    keyed.map(|keyed| keyed.key.as_str())
}

/// A customer whose registration was requested.
struct Customer {
    mobile: String,
    key: Option<KeyedRequest>,
    registered: bool,
    otp: Option<Otp>,
}

/// The validity of the demo's OTPs.
const VALIDITY: Duration = Duration::from_mins(5);

/// An OTP that was requested.
struct Otp {
    /// Latest time of the request.
    since: Instant,
    key: Option<KeyedRequest>,
    issued: bool,
    code: Option<String>,
    asked_to_validate: bool,
    validation_key: Option<KeyedRequest>,
    validated: bool,
}

/// Requests of a caller and the answers that it received.
#[derive(Default)]
struct CallerState {
    customers: Vec<Customer>,
    card_numbers: Vec<KeyedRequest>,
}

impl CallerState {
    /// Sends requests until the process is killed.
    async fn fill(&mut self, run: &ProcessRun, rng: &mut SmallRng) -> Result<Infallible, ConnectionLost> {
        let ProcessRun { shared, caller, .. } = run;
        loop {
            let customer = Customer::new(shared, rng);
            self.customers.push(customer);
            if let Some(customer) = self.customers.last_mut() {
                customer.send_requests(run, rng).await?;
            }
            match shared.key(rng) {
                None => shared.take(&run.completed(caller.card_number(None).await)?),
                Some(keyed) => {
                    self.card_numbers.push(keyed);
                    if let Some(keyed) = self.card_numbers.last_mut() {
                        let answer = run.completed(caller.card_number(Some(&keyed.key)).await)?;
                        keyed.record(&answer);
                        shared.take(&answer);
                    }
                }
            }
        }
    }

    /// Panics if the answers of another process contradict the earlier ones.
    async fn check(&mut self, shared: &SharedState, caller: &Caller) {
        for customer in &mut self.customers {
            customer.check(caller).await;
        }
        for keyed in &mut self.card_numbers {
            let unknown = keyed.answer.is_none();
            let answer = caller.card_number(Some(&keyed.key)).await.unwrap();
            keyed.record(&answer);
            if unknown {
                shared.take(&answer);
            }
        }
        let answer = caller.card_number(None).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        shared.take(&answer);
    }
}

impl Customer {
    fn new(shared: &SharedState, rng: &mut SmallRng) -> Self {
        Self { mobile: shared.mobile(), key: shared.key(rng), registered: false, otp: None }
    }

    async fn send_requests(&mut self, run: &ProcessRun, rng: &mut SmallRng) -> Result<(), ConnectionLost> {
        let caller = &run.caller;
        let answer = run.completed(caller.register(&self.mobile, key(self.key.as_ref())).await)?;
        self.registered = true;
        self.key.iter_mut().for_each(|keyed| keyed.record(&answer));

        let otp = self.otp.insert(Otp::new(run.shared.key(rng)));
        let answer = run.completed(caller.generate(&self.mobile, key(otp.key.as_ref())).await)?;
        otp.issued = true;
        otp.key.iter_mut().for_each(|keyed| keyed.record(&answer));

        let answer = run.completed(caller.fetch(&format!("mobile={}", self.mobile)).await)?;
        let code = otp.code.insert(answer.json["code"].as_str().unwrap().to_owned());
        if rng.random() {
            otp.asked_to_validate = true;
            otp.validation_key = run.shared.key(rng);
            let key = key(otp.validation_key.as_ref());
            let answer = run.completed(caller.validate(&self.mobile, code, key).await)?;
            assert_eq!(answer.json["entity"], true, "{answer:?}");
            otp.validated = true;
            otp.validation_key.iter_mut().for_each(|keyed| keyed.record(&answer));
        }
        Ok(())
    }

    /// Returns whether the customer exists. All identifiers must agree.
    async fn is_known(&self, caller: &Caller) -> bool {
        let mut known = Vec::new();
        for identifier in [format!("mobile={}", self.mobile), format!("email={}@example.com", self.mobile)] {
            let answer = caller.fetch(&identifier).await.unwrap();
            known.push(answer.status == 200 || answer.refusal() == (404, vec![9001]));
            assert!(known.last() == Some(&true) || answer.refusal() == (404, vec![8015]), "{answer:?}");
        }
        assert_eq!(known[0], known[1], "only some identifiers find the customer {}", self.mobile);
        known[0]
    }

    async fn check(&mut self, caller: &Caller) {
        let known = self.is_known(caller).await;
        assert!(known || !self.registered, "the registered customer {} is missing", self.mobile);
        if let Some(keyed) = &mut self.key {
            keyed.record(&caller.register(&self.mobile, Some(&keyed.key)).await.unwrap());
        } else if !known {
            assert_eq!(caller.register(&self.mobile, None).await.unwrap().status, 200);
        }
        self.registered = true;
        let again = caller.register(&self.mobile, None).await.unwrap();
        assert_eq!(again.refusal(), (409, vec![8006]), "{}", self.mobile);
        if let Some(otp) = &mut self.otp {
            otp.check(&self.mobile, caller).await;
        }
    }
}

impl Otp {
    fn new(key: Option<KeyedRequest>) -> Self {
        Self {
            since: Instant::now(),
            key,
            issued: false,
            code: None,
            asked_to_validate: false,
            validation_key: None,
            validated: false,
        }
    }

    async fn check(&mut self, mobile: &str, caller: &Caller) {
        if let Some(keyed) = &mut self.key {
            keyed.record(&caller.generate(mobile, Some(&keyed.key)).await.unwrap());
            self.issued = true;
        }
        let answer = caller.fetch(&format!("mobile={mobile}")).await.unwrap();
        let found = answer.status == 200;
        if found {
            assert!(!self.validated, "a consumed OTP was fetched: {answer:?}");
            self.issued = true;
            let code = answer.json["code"].as_str().unwrap();
            assert_eq!(self.code.get_or_insert_with(|| code.to_owned()), code, "{answer:?}");
        } else {
            assert_eq!(answer.refusal(), (404, vec![9001]));
            let expired = self.since.elapsed() > VALIDITY;
            assert!(!self.issued || self.asked_to_validate || expired, "the OTP of {mobile} is missing");
        }
        if let (true, Some(code)) = (self.asked_to_validate, &self.code) {
            let mut unused = found;
            if let Some(keyed) = &mut self.validation_key {
                // With its key, the code is right, even if it was consumed before the kill.
                let answer = caller.validate(mobile, code, Some(&keyed.key)).await.unwrap();
                let expired = !found && self.since.elapsed() > VALIDITY;
                assert!(answer.json["entity"] == true || expired, "{mobile}: {answer:?}");
                keyed.record(&answer);
                unused = false;
            }
            // If its validation was in progress, the OTP is either valid or consumed.
            assert_eq!(is_right(mobile, code, caller).await, unused, "{mobile}");
            assert!(
                !unused || !is_right(mobile, code, caller).await,
                "{mobile}: the code was accepted twice"
            );
            self.validated = true;
        }
    }
}

async fn is_right(mobile: &str, code: &str, caller: &Caller) -> bool {
    let answer = caller.validate(mobile, code, None).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json["entity"].as_bool().unwrap()
}

/// Checks the answers of all callers against the new process, several at a time.
async fn check(states: Vec<CallerState>, shared: &Arc<SharedState>, caller: &Caller) -> Vec<CallerState> {
    let mut checks = JoinSet::new();
    for mut state in states {
        let (shared, caller) = (Arc::clone(shared), caller.clone());
        checks.spawn(async move {
            state.check(&shared, &caller).await;
            state
        });
    }
    checks.join_all().await
}

/// Loads a process until it is killed, and returns the state of its callers.
async fn run_until_killed(served: Served, shared: &Arc<SharedState>, rng: &mut SmallRng) -> Vec<CallerState> {
    let run = Arc::new(ProcessRun {
        shared: Arc::clone(shared),
        caller: Caller::new(&served),
        answers: AtomicU64::new(0),
        ends_after: rng.random_range(0..MAX_ANSWERS),
        end: Notify::new(),
        killed: AtomicBool::new(false),
    });
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (run, mut rng) = (Arc::clone(&run), SmallRng::seed_from_u64(rng.random()));
        callers.spawn(async move {
            let mut state = CallerState::default();
            let Err(_killed) = state.fill(&run, &mut rng).await;
            state
        });
    }
    tokio::select! {
        () = run.end.notified() => {}
        Some(failed) = callers.join_next() => drop(failed.unwrap()),
    }
    run.killed.store(true, Ordering::SeqCst);
    let output = served.kill();
    let problems: Vec<&String> =
        output.iter().filter(|line| line.contains(" ERROR ") || line.contains(" WARN ")).collect();
    assert!(problems.is_empty(), "{problems:?}");
    callers.join_all().await
}

/// Asserts that every customer is complete. A customer has a profile, all of its identities, a card
/// number, and as many OTPs as its quota counts. Each caller of a killed process skipped at most
/// one card number.
async fn assert_no_partial_customer(dynamodb: &str, shared: &SharedState) {
    let settings = Settings { table: DEFAULT_TABLE.to_owned(), ..Settings::default() };
    let client = connect_local(&settings, dynamodb).unwrap();
    let mut pages = client.scan().table_name(DEFAULT_TABLE).into_paginator().items().send();
    // Counts for each customer: profiles, identities, org-wide identities, OTPs, and OTPs in the
    // quota.
    let mut customers: BTreeMap<String, [u64; 5]> = BTreeMap::new();
    let (mut taken, mut given) = (0, shared.card_numbers.lock().unwrap().len() as u64);
    while let Some(item) = pages.next().await {
        let item = item.unwrap();
        let text = |name: &str| item[name].as_s().unwrap().as_str();
        let number = |name: &str| item.get(name).map(AttributeValue::as_n).unwrap().unwrap().as_str();
        if text("PK") == "ORG#966#COUNTER#CARD_NUMBER" {
            taken = number("next").parse::<u64>().unwrap() - number("first").parse::<u64>().unwrap();
        }
        given += u64::from(text("PK").starts_with("ORG#966#ID###external_id#10"));
        let user = text("PK").strip_prefix("ORG#966#USER#").map(str::to_owned);
        let identity = || text("PK").starts_with("ORG#966#ID#").then(|| number("user_id").to_owned());
        let Some(user) = user.or_else(identity) else { continue };
        let customer = customers.entry(user).or_default();
        match text("SK").split('#').next() {
            Some("PROFILE") => customer[0] += 1,
            Some("ID") if item.contains_key("accounts") => customer[2] += 1,
            Some("ID") => customer[1] += 1,
            Some("OTP") if item.contains_key("code") => customer[3] += 1,
            Some("QUOTA") => customer[4] += number("issued").parse::<u64>().unwrap(),
            _ => {}
        }
    }
    assert!(customers.len() > 1);
    let skipped = taken.checked_sub(given).unwrap();
    assert!(skipped <= KILLS * CALLERS, "{skipped} numbers of {taken} were skipped");
    for (user, [profiles, identities, org_wide, otps, counted]) in customers {
        // The demo's customer has a mobile in two accounts, the others a mobile and an e-mail
        // address.
        let persons = if user == common::USER.to_string() { 1 } else { 2 };
        assert_eq!((profiles, identities, org_wide, otps), (1, 3, persons, counted), "customer {user}");
    }
}

/// Prints the seed if the test fails.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("SEED={} makes the same choices", self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_stay_true_after_each_of_50_kills_under_load() {
    let seed = std::env::var("SEED").map_or_else(|_| os_rng().random(), |seed| seed.parse().unwrap());
    let seed = Seed(seed);
    let mut rng = SmallRng::seed_from_u64(seed.0);
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("dynamodb.db");
    let start = || Served::start(&["--demo", "--db", db.to_str().unwrap()]);
    let shared = Arc::new(SharedState::default());
    let (mut served, mut states) = (start(), Vec::new());
    for _ in 0..KILLS {
        let remembered = run_until_killed(served, &shared, &mut rng).await;
        served = start();
        states.extend(check(remembered, &shared, &Caller::new(&served)).await);
    }
    check(states, &shared, &Caller::new(&served)).await;
    assert_no_partial_customer(served.dynamodb(), &shared).await;
}

/// Takes card numbers until the process is killed.
async fn take_numbers(caller: Caller, given: Arc<AtomicU64>) -> Vec<String> {
    let mut numbers = Vec::new();
    while let Ok(answer) = caller.card_number(None).await {
        assert_eq!(answer.status, 200, "{answer:?}");
        numbers.push(answer.json["entity"].as_str().unwrap().to_owned());
        given.fetch_add(1, Ordering::SeqCst);
    }
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_processes_repeat_no_card_number_and_skip_less_than_one_block_each() {
    const BLOCK_SIZE: u64 = 50;
    const PROCESSES: u64 = 4;
    const CALLERS: u64 = 64;
    const ROUNDS: u64 = 3;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("org.toml");
    let config = format!("[config]\nCONF_CARD_NUMBER_BLOCK_SIZE = {BLOCK_SIZE}");
    let org = include_str!("../src/bin/loyaltyctl/demo.toml").replace("[config]", &config);
    std::fs::write(&file, org).unwrap();
    // All processes use this DynamoDB.
    let demo = Served::start(&["--demo", "--in-memory"]);
    let apply = ["org", "apply", "--endpoint", demo.dynamodb(), file.to_str().unwrap()];
    assert!(loyaltyctl(&apply).output().unwrap().status.success());

    let (mut numbers, given) = (Vec::new(), Arc::<AtomicU64>::default());
    for round in 1..=ROUNDS {
        let mut callers = JoinSet::new();
        let processes: Vec<Served> =
            (0..PROCESSES).map(|_| Served::start(&["--endpoint", demo.dynamodb()])).collect();
        for process in &processes {
            let caller = Caller::with_till(process, &demo.till());
            for _ in 0..CALLERS {
                callers.spawn(take_numbers(caller.clone(), Arc::clone(&given)));
            }
        }
        while given.load(Ordering::SeqCst) < round * 700 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        for process in processes {
            process.kill();
        }
        numbers.extend(callers.join_all().await.concat());
    }
    let different: HashSet<&String> = numbers.iter().collect();
    assert_eq!(different.len(), numbers.len(), "a card number was given twice");

    let settings = Settings { table: DEFAULT_TABLE.to_owned(), ..Settings::default() };
    let store = Store::new(connect_local(&settings, demo.dynamodb()).unwrap(), settings.table.clone());
    let taken = store.issued_card_numbers(OrgId(966)).await.unwrap().unwrap();
    let skipped = taken.next - taken.first - numbers.len() as u64;
    // Each process may skip the rest of a block, and one number for each caller whose answer was
    // lost.
    let limit = ROUNDS * PROCESSES * (BLOCK_SIZE - 1 + CALLERS);
    assert!(skipped <= limit, "{skipped} of {} are skipped, at most {limit}", taken.next - taken.first);
}
