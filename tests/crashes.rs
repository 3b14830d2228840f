//! `loyaltyctl serve`, killed under load again and again. Whatever a caller was told stays true, and what was on its way
//! has happened wholly or not at all.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what fails in a test should fail loudly, and say how to do it again"
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
    caller::{Caller, Lost},
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

const LIVES: u64 = 50;
const CALLERS: u64 = 8;
/// A life ends after so many answers at most.
const MAX_ANSWERS: u64 = 80;

/// What all lives share.
#[derive(Default)]
struct World {
    card_numbers: Mutex<HashSet<String>>,
    /// Counts up, so that no two mobiles and no two keys are equal.
    names: AtomicU64,
}

impl World {
    fn name(&self) -> u64 {
        self.names.fetch_add(1, Ordering::Relaxed)
    }

    fn mobile(&self) -> String {
        format!("91{:010}", 9_100_000_000 + self.name())
    }

    fn key(&self, rng: &mut SmallRng) -> Option<Keyed> {
        rng.random::<bool>().then(|| Keyed { key: format!("key-{}", self.name()), answer: None })
    }

    fn take(&self, answer: &Answer) {
        let number = answer.json["entity"].as_str().unwrap().to_owned();
        assert!(self.card_numbers.lock().unwrap().insert(number), "given twice: {answer:?}");
    }
}

/// A process under load.
struct Life {
    world: Arc<World>,
    caller: Caller,
    answers: AtomicU64,
    /// It ends after so many answers.
    ends_after: u64,
    end: Notify,
    killed: AtomicBool,
}

impl Life {
    /// Counts an answer, which must be a success. Only a kill excuses that there is none.
    fn completed(&self, result: Result<Answer, Lost>) -> Result<Answer, Lost> {
        match result {
            Ok(answer) => {
                assert_eq!(answer.status, 200, "{answer:?}");
                if self.answers.fetch_add(1, Ordering::SeqCst) == self.ends_after {
                    self.end.notify_one();
                }
                Ok(answer)
            }
            Err(lost) => {
                assert!(self.killed.load(Ordering::SeqCst), "{lost:?}, and nobody killed it");
                Err(lost)
            }
        }
    }
}

/// An `Idempotency-Key`, and what its request was answered, if it was.
struct Keyed {
    key: String,
    answer: Option<String>,
}

impl Keyed {
    /// The first answer, or that one again.
    fn record(&mut self, answer: &Answer) {
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(*self.answer.get_or_insert_with(|| answer.text.clone()), answer.text, "{}", self.key);
    }
}

fn key(keyed: Option<&Keyed>) -> Option<&str> {
    keyed.map(|keyed| keyed.key.as_str())
}

/// A customer whose registration was asked for.
struct Customer {
    mobile: String,
    key: Option<Keyed>,
    registered: bool,
    otp: Option<Otp>,
}

/// How long the demo's OTPs are valid.
const VALIDITY: Duration = Duration::from_mins(5);

/// An OTP that was asked for.
struct Otp {
    /// When it was asked for, at the latest.
    since: Instant,
    key: Option<Keyed>,
    issued: bool,
    code: Option<String>,
    asked_to_validate: bool,
    validation_key: Option<Keyed>,
    validated: bool,
}

/// What a caller remembers.
#[derive(Default)]
struct Memory {
    customers: Vec<Customer>,
    card_numbers: Vec<Keyed>,
}

impl Memory {
    /// Calls until the process is killed.
    async fn fill(&mut self, life: &Life, rng: &mut SmallRng) -> Result<Infallible, Lost> {
        let Life { world, caller, .. } = life;
        loop {
            let customer = Customer::new(world, rng);
            self.customers.push(customer);
            if let Some(customer) = self.customers.last_mut() {
                customer.live(life, rng).await?;
            }
            match world.key(rng) {
                None => world.take(&life.completed(caller.card_number(None).await)?),
                Some(keyed) => {
                    self.card_numbers.push(keyed);
                    if let Some(keyed) = self.card_numbers.last_mut() {
                        let answer = life.completed(caller.card_number(Some(&keyed.key)).await)?;
                        keyed.record(&answer);
                        world.take(&answer);
                    }
                }
            }
        }
    }

    /// Fails when another process contradicts what is remembered.
    async fn check(&mut self, world: &World, caller: &Caller) {
        for customer in &mut self.customers {
            customer.check(caller).await;
        }
        for keyed in &mut self.card_numbers {
            let unknown = keyed.answer.is_none();
            let answer = caller.card_number(Some(&keyed.key)).await.unwrap();
            keyed.record(&answer);
            if unknown {
                world.take(&answer);
            }
        }
        let answer = caller.card_number(None).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        world.take(&answer);
    }
}

impl Customer {
    fn new(world: &World, rng: &mut SmallRng) -> Self {
        Self { mobile: world.mobile(), key: world.key(rng), registered: false, otp: None }
    }

    async fn live(&mut self, life: &Life, rng: &mut SmallRng) -> Result<(), Lost> {
        let caller = &life.caller;
        let answer = life.completed(caller.register(&self.mobile, key(self.key.as_ref())).await)?;
        self.registered = true;
        self.key.iter_mut().for_each(|keyed| keyed.record(&answer));

        let otp = self.otp.insert(Otp::new(life.world.key(rng)));
        let answer = life.completed(caller.generate(&self.mobile, key(otp.key.as_ref())).await)?;
        otp.issued = true;
        otp.key.iter_mut().for_each(|keyed| keyed.record(&answer));

        let answer = life.completed(caller.fetch(&format!("mobile={}", self.mobile)).await)?;
        let code = otp.code.insert(answer.json["code"].as_str().unwrap().to_owned());
        if rng.random() {
            otp.asked_to_validate = true;
            otp.validation_key = life.world.key(rng);
            let key = key(otp.validation_key.as_ref());
            let answer = life.completed(caller.validate(&self.mobile, code, key).await)?;
            assert_eq!(answer.json["entity"], true, "{answer:?}");
            otp.validated = true;
            otp.validation_key.iter_mut().for_each(|keyed| keyed.record(&answer));
        }
        Ok(())
    }

    /// Whether the customer is there: by every identifier, or by none.
    async fn is_known(&self, caller: &Caller) -> bool {
        let mut known = Vec::new();
        for identifier in [format!("mobile={}", self.mobile), format!("email={}@example.com", self.mobile)] {
            let answer = caller.fetch(&identifier).await.unwrap();
            known.push(answer.status == 200 || answer.refusal() == (404, vec![9001]));
            assert!(known.last() == Some(&true) || answer.refusal() == (404, vec![8015]), "{answer:?}");
        }
        assert_eq!(known[0], known[1], "half a customer: {}", self.mobile);
        known[0]
    }

    async fn check(&mut self, caller: &Caller) {
        let known = self.is_known(caller).await;
        assert!(known || !self.registered, "{} is gone", self.mobile);
        if let Some(keyed) = &mut self.key {
            keyed.record(&caller.register(&self.mobile, Some(&keyed.key)).await.unwrap());
        } else if !known {
            assert_eq!(caller.register(&self.mobile, None).await.unwrap().status, 200);
        }
        self.registered = true;
        let again = caller.register(&self.mobile, None).await.unwrap();
        assert_eq!(again.refusal(), (409, vec![8008]), "{}", self.mobile);
        if let Some(otp) = &mut self.otp {
            otp.check(&self.mobile, caller).await;
        }
    }
}

impl Otp {
    fn new(key: Option<Keyed>) -> Self {
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
            assert!(!self.validated, "it is used: {answer:?}");
            self.issued = true;
            let code = answer.json["code"].as_str().unwrap();
            assert_eq!(self.code.get_or_insert_with(|| code.to_owned()), code, "{answer:?}");
        } else {
            assert_eq!(answer.refusal(), (404, vec![9001]));
            let expired = self.since.elapsed() > VALIDITY;
            assert!(!self.issued || self.asked_to_validate || expired, "the OTP of {mobile} is gone");
        }
        if let (true, Some(code)) = (self.asked_to_validate, &self.code) {
            let mut unused = found;
            if let Some(keyed) = &mut self.validation_key {
                // Under its key, it is right, whether it was used before the kill or not.
                let answer = caller.validate(mobile, code, Some(&keyed.key)).await.unwrap();
                let expired = !found && self.since.elapsed() > VALIDITY;
                assert!(answer.json["entity"] == true || expired, "{mobile}: {answer:?}");
                keyed.record(&answer);
                unused = false;
            }
            // One whose validation was on its way is either valid or used.
            assert_eq!(is_right(mobile, code, caller).await, unused, "{mobile}");
            assert!(!unused || !is_right(mobile, code, caller).await, "{mobile}: true twice");
            self.validated = true;
        }
    }
}

async fn is_right(mobile: &str, code: &str, caller: &Caller) -> bool {
    let answer = caller.validate(mobile, code, None).await.unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json["entity"].as_bool().unwrap()
}

/// Holds every memory against the process, several at a time.
async fn check(memories: Vec<Memory>, world: &Arc<World>, caller: &Caller) -> Vec<Memory> {
    let mut checks = JoinSet::new();
    for mut memory in memories {
        let (world, caller) = (Arc::clone(world), caller.clone());
        checks.spawn(async move {
            memory.check(&world, &caller).await;
            memory
        });
    }
    checks.join_all().await
}

/// Loads the process until it is killed, and returns what its callers remember.
async fn run_until_killed(served: Served, world: &Arc<World>, rng: &mut SmallRng) -> Vec<Memory> {
    let life = Arc::new(Life {
        world: Arc::clone(world),
        caller: Caller::new(&served),
        answers: AtomicU64::new(0),
        ends_after: rng.random_range(0..MAX_ANSWERS),
        end: Notify::new(),
        killed: AtomicBool::new(false),
    });
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (life, mut rng) = (Arc::clone(&life), SmallRng::seed_from_u64(rng.random()));
        callers.spawn(async move {
            let mut memory = Memory::default();
            let Err(_killed) = memory.fill(&life, &mut rng).await;
            memory
        });
    }
    tokio::select! {
        () = life.end.notified() => {}
        Some(failed) = callers.join_next() => drop(failed.unwrap()),
    }
    life.killed.store(true, Ordering::SeqCst);
    let said = served.kill();
    let problems: Vec<&String> =
        said.iter().filter(|line| line.contains(" ERROR ") || line.contains(" WARN ")).collect();
    assert!(problems.is_empty(), "{problems:?}");
    callers.join_all().await
}

/// A customer has a profile, each identifier given and a number, and as many OTPs as were counted; or there is nothing
/// of it. Each caller of a process that was killed left at most one number that nobody has.
async fn nothing_is_there_by_half(dynamodb: &str, world: &World) {
    let settings = Settings { table: DEFAULT_TABLE.to_owned(), ..Settings::default() };
    let client = connect_local(&settings, dynamodb).unwrap();
    let mut pages = client.scan().table_name(DEFAULT_TABLE).into_paginator().items().send();
    // Of each customer: profiles, identities, OTPs, OTPs that were counted.
    let mut customers: BTreeMap<String, [u64; 4]> = BTreeMap::new();
    let (mut taken, mut given) = (0, world.card_numbers.lock().unwrap().len() as u64);
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
            Some("ID") => customer[1] += 1,
            Some("OTP") if item.contains_key("code") => customer[2] += 1,
            Some("QUOTA") => customer[3] += number("issued").parse::<u64>().unwrap(),
            _ => {}
        }
    }
    assert!(customers.len() > 1);
    let skipped = taken.checked_sub(given).unwrap();
    assert!(skipped <= LIVES * CALLERS, "{skipped} numbers of {taken} were skipped");
    for (user, [profiles, identities, otps, counted]) in customers {
        assert_eq!((profiles, identities, otps), (1, 3, counted), "customer {user}");
    }
}

/// Says how to do the same again.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("SEED={} makes the same choices", self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_is_contradicted_after_any_of_50_kills_under_load() {
    let seed = std::env::var("SEED").map_or_else(|_| os_rng().random(), |seed| seed.parse().unwrap());
    let seed = Seed(seed);
    let mut rng = SmallRng::seed_from_u64(seed.0);
    let folder = tempfile::tempdir().unwrap();
    let db = folder.path().join("dynamodb.db");
    let start = || Served::start(&["--demo", "--db", db.to_str().unwrap()]);
    let world = Arc::new(World::default());
    let (mut served, mut memories) = (start(), Vec::new());
    for _ in 0..LIVES {
        let remembered = run_until_killed(served, &world, &mut rng).await;
        served = start();
        memories.extend(check(remembered, &world, &Caller::new(&served)).await);
    }
    check(memories, &world, &Caller::new(&served)).await;
    nothing_is_there_by_half(served.dynamodb(), &world).await;
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
async fn no_number_is_given_twice_in_blocks_and_each_kill_skips_less_than_one() {
    const BLOCK_SIZE: u64 = 50;
    const PROCESSES: u64 = 4;
    const CALLERS: u64 = 64;
    const ROUNDS: u64 = 3;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("org.toml");
    let org = include_str!("../src/bin/loyaltyctl/demo.toml").to_owned();
    std::fs::write(&file, format!("{org}CONF_CARD_NUMBER_BLOCK_SIZE = {BLOCK_SIZE}\n")).unwrap();
    // Its DynamoDB is the one of all processes.
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
    assert_eq!(different.len(), numbers.len(), "one is given twice");

    let settings = Settings { table: DEFAULT_TABLE.to_owned(), ..Settings::default() };
    let store = Store::new(connect_local(&settings, demo.dynamodb()).unwrap(), settings.table.clone());
    let taken = store.issued_card_numbers(OrgId(966)).await.unwrap().unwrap();
    let skipped = taken.next - taken.first - numbers.len() as u64;
    // Of each process, the rest of a block, and what its callers did not live to hear.
    let most = ROUNDS * PROCESSES * (BLOCK_SIZE - 1 + CALLERS);
    assert!(skipped <= most, "{skipped} of {} are skipped, at most {most}", taken.next - taken.first);
}
