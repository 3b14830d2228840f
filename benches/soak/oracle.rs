//! Checks answers. Each simulated till serves its own customers and knows their earlier answers.

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use rand::{RngExt, rngs::SmallRng};

use crate::{
    common::{
        Answer,
        caller::{Caller, ConnectionLost},
    },
    pace::{Pace, PaceEnded},
};

/// The validity of the demo's OTPs.
const VALIDITY: Duration = Duration::from_mins(5);
const CODE_LENGTH: usize = 7;

/// State that all simulated tills share.
pub struct Oracle {
    caller: Caller,
    names: AtomicU64,
    /// The highest card number of an answer. Later requests must get a higher number.
    highest: AtomicU64,
    card_numbers: Mutex<HashSet<u64>>,
    users: Mutex<HashSet<u64>>,
    wrong: Mutex<Vec<String>>,
}

impl Oracle {
    pub fn new(caller: Caller) -> Self {
        Self {
            caller,
            names: AtomicU64::new(0),
            highest: AtomicU64::new(0),
            card_numbers: Mutex::default(),
            users: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    /// Records a violation.
    pub fn note(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    pub fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }

    /// Checks that the counter has issued exactly the numbers that callers and customers received.
    pub fn check_issued_numbers(&self, taken: u64) {
        let given = self.card_numbers.lock().unwrap().len() + self.users.lock().unwrap().len();
        if taken != given as u64 {
            self.note(format!("{taken} card numbers were issued, {given} were received"));
        }
    }

    fn name(&self) -> u64 {
        self.names.fetch_add(1, Ordering::Relaxed)
    }
}

/// A registered customer. `otp` is an unused OTP, if there is one.
struct Customer {
    mobile: String,
    otp: Option<Otp>,
}

struct Otp {
    code: String,
    asked: Instant,
    answered: Instant,
}

pub struct SimulatedTill {
    oracle: Arc<Oracle>,
    pace: Arc<Pace>,
    rng: SmallRng,
    customers: Vec<Customer>,
}

impl SimulatedTill {
    pub fn new(oracle: Arc<Oracle>, pace: Arc<Pace>, rng: SmallRng) -> Self {
        Self { oracle, pace, rng, customers: Vec::new() }
    }

    /// Serves one customer after another until the pace has ended.
    pub async fn run(mut self) {
        while let Ok(customer) = self.serve().await {
            self.customers.push(customer);
        }
    }

    async fn serve(&mut self) -> Result<Customer, PaceEnded> {
        let (mobile, user) = self.register().await?;
        self.card_numbers().await?;
        let otp = self.one_time_password(&mobile, user).await?;
        self.card_numbers().await?;
        if self.one_in(4) {
            self.unregistered_mobile().await?;
        }
        self.earlier_customer().await?;
        Ok(Customer { mobile, otp })
    }

    async fn register(&mut self) -> Result<(String, u64), PaceEnded> {
        let (caller, mobile, key) = (self.oracle.caller.clone(), self.mobile(), self.key());
        let answer = self.ask(caller.register(&mobile, key.as_deref())).await?;
        let user = answer.json["createdId"].as_u64().unwrap_or_default();
        let new = self.oracle.users.lock().unwrap().insert(user);
        self.check(answer.status == 200 && new, "be a new user", &answer);
        if let Some(key) = key.filter(|_| self.one_in(2)) {
            let again = self.ask(caller.register(&mobile, Some(&key))).await?;
            self.check(again.text == answer.text, "be the stored response", &again);
        }
        if self.one_in(4) {
            self.check_is_registered(&mobile).await?;
        }
        Ok((mobile, user))
    }

    async fn check_is_registered(&mut self, mobile: &str) -> Result<(), PaceEnded> {
        let caller = self.oracle.caller.clone();
        let answer = self.ask(caller.register(mobile, None)).await?;
        self.check(is_refusal(&answer, 409, 8006), "be 8006", &answer);
        Ok(())
    }

    async fn card_numbers(&mut self) -> Result<(), PaceEnded> {
        let caller = self.oracle.caller.clone();
        for _ in 0..self.rng.random_range(1..4) {
            let key = self.key();
            let highest = self.oracle.highest.load(Ordering::SeqCst);
            let answer = self.ask(caller.card_number(key.as_deref())).await?;
            let number = answer.json["entity"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
            let new = self.oracle.card_numbers.lock().unwrap().insert(number);
            self.check(new && number > highest, "be a higher number that was not given before", &answer);
            self.oracle.highest.fetch_max(number, Ordering::SeqCst);
            if let Some(key) = key.filter(|_| self.one_in(2)) {
                let again = self.ask(caller.card_number(Some(&key))).await?;
                self.check(again.text == answer.text, "be the stored response", &again);
            }
        }
        Ok(())
    }

    /// Issues an OTP, fetches it, and validates it in most cases. Returns an OTP that was not
    /// validated.
    async fn one_time_password(&mut self, mobile: &str, user: u64) -> Result<Option<Otp>, PaceEnded> {
        let caller = self.oracle.caller.clone();
        let (key, mut asked) = (self.key(), None);
        let turn = async {
            asked = Some(Instant::now());
            caller.generate(mobile, key.as_deref()).await
        };
        let issued = self.ask(turn).await?;
        let answered = Instant::now();
        let created_id = issued.json["createdId"].as_i64().unwrap_or_default();
        self.check(issued.status == 200 && created_id > 0, "be issued", &issued);
        if let Some(key) = key.filter(|_| self.one_in(2)) {
            let again = self.ask(caller.generate(mobile, Some(&key))).await?;
            self.check(again.text == issued.text, "be the stored response", &again);
        }

        let by_mobile = format!("mobile={mobile}");
        let fetched = self.ask(caller.fetch(&by_mobile)).await?;
        let code = fetched.json["code"].as_str().unwrap_or_default().to_owned();
        let valid_until = DateTime::from_timestamp_micros(created_id).unwrap_or_default() + VALIDITY;
        let right = fetched.json["orgId"] == 966
            && fetched.json["userId"] == user
            && code.len() == CODE_LENGTH
            && code.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
            && seconds(&fetched) == Some(valid_until.timestamp());
        self.check(right, &format!("be {user}'s OTP until {valid_until}"), &fetched);
        if self.one_in(2) {
            let by_email = self.ask(caller.fetch(&format!("email={mobile}@example.com"))).await?;
            self.check(by_email.text == fetched.text, "be the same by e-mail", &by_email);
        }

        if self.one_in(2) {
            self.check_validation(mobile, "WRONG", false).await?;
        }
        if self.one_in(4) {
            return Ok(asked.map(|asked| Otp { code, asked, answered }));
        }
        let typed = if self.one_in(2) { code.to_lowercase() } else { code.clone() };
        self.check_validation(mobile, &typed, true).await?;
        if self.one_in(2) {
            self.check_validation(mobile, &code, false).await?;
        }
        if self.one_in(2) {
            let gone = self.ask(caller.fetch(&by_mobile)).await?;
            self.check(is_refusal(&gone, 404, 9001), "be consumed", &gone);
        }
        Ok(None)
    }

    async fn check_validation(&mut self, mobile: &str, code: &str, right: bool) -> Result<(), PaceEnded> {
        let caller = self.oracle.caller.clone();
        let key = self.key();
        let answer = self.ask(caller.validate(mobile, code, key.as_deref())).await?;
        self.check(answer.status == 200 && answer.json["entity"] == right, &format!("be {right}"), &answer);
        if let Some(key) = key.filter(|_| self.one_in(2)) {
            let again = self.ask(caller.validate(mobile, code, Some(&key))).await?;
            self.check(again.text == answer.text, "be the stored response", &again);
        }
        Ok(())
    }

    /// Sends a request for a mobile without a customer.
    async fn unregistered_mobile(&mut self) -> Result<(), PaceEnded> {
        let (caller, mobile) = (self.oracle.caller.clone(), self.mobile());
        let answer = match self.rng.random_range(0..3) {
            0 => self.ask(caller.fetch(&format!("mobile={mobile}"))).await?,
            1 => self.ask(caller.generate(&mobile, None)).await?,
            _ => self.ask(caller.validate(&mobile, "538AD87", None)).await?,
        };
        self.check(is_refusal(&answer, 404, 8015), "be an unknown customer", &answer);
        Ok(())
    }

    /// Sends a request for an earlier customer. An unused OTP must be found exactly until it
    /// expires.
    async fn earlier_customer(&mut self) -> Result<(), PaceEnded> {
        if self.customers.is_empty() {
            return Ok(());
        }
        let customer = self.customers.swap_remove(self.rng.random_range(0..self.customers.len()));
        if self.one_in(2) {
            self.check_is_registered(&customer.mobile).await?;
        } else {
            let caller = self.oracle.caller.clone();
            let mut asked = None;
            let by_mobile = format!("mobile={}", customer.mobile);
            let turn = async {
                asked = Some(Instant::now());
                caller.fetch(&by_mobile).await
            };
            let answer = self.ask(turn).await?;
            let asked = asked.unwrap_or_else(Instant::now);
            let gone = is_refusal(&answer, 404, 9001);
            let right = customer.otp.as_ref().map_or(gone, |otp| {
                let there = answer.json["code"] == otp.code.as_str();
                // Between the two times, both answers are right.
                let (valid, expired) = (otp.asked.elapsed() < VALIDITY, asked - otp.answered > VALIDITY);
                there && !expired || gone && !valid
            });
            self.check(right, "be the unused OTP until it expires", &answer);
        }
        self.customers.push(customer);
        Ok(())
    }

    /// Sends a request when it is due. Its latency counts from the due time.
    async fn ask(
        &self,
        request: impl Future<Output = Result<Answer, ConnectionLost>>,
    ) -> Result<Answer, PaceEnded> {
        let due = self.pace.next_due().await?;
        let answer = request.await;
        self.pace.answered_since(due);
        answer.map_err(|lost| {
            self.oracle.note(format!("{lost:?}"));
            PaceEnded
        })
    }

    fn check(&self, right: bool, what: &str, answer: &Answer) {
        if !right {
            self.oracle.note(format!("must {what}: {} {}", answer.status, answer.text));
        }
    }

    fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_ratio(1, n)
    }

    fn mobile(&self) -> String {
        format!("91{:010}", 7_000_000_000 + self.oracle.name())
    }

    /// Returns an idempotency key for one in eight requests.
    fn key(&mut self) -> Option<String> {
        self.one_in(8).then(|| format!("key-{}", self.oracle.name()))
    }
}

fn is_refusal(answer: &Answer, status: u16, code: u64) -> bool {
    answer.status == status && answer.json["errors"][0]["code"] == code
}

fn seconds(fetched: &Answer) -> Option<i64> {
    let valid_until = fetched.json["validUpto"].as_str()?.parse::<DateTime<Utc>>();
    valid_until.ok().map(|time| time.timestamp())
}
