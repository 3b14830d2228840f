//! What must come back: each shopper calls for customers of its own, and knows what they were told.

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
        caller::{Caller, Lost},
    },
    pace::{Over, Pace},
};

/// How long the demo's OTPs are valid.
const VALIDITY: Duration = Duration::from_mins(5);
const CODE_LENGTH: usize = 7;

/// What all shoppers share.
pub struct Oracle {
    caller: Caller,
    names: AtomicU64,
    /// The highest card number that somebody was given. Who asks after that gets a higher one.
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

    /// Notes something that must not be.
    pub fn note(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    pub fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }

    /// Every number that was taken has somebody: no more were taken than were told to callers or given to customers.
    pub fn holds(&self, taken: u64) {
        let given = self.card_numbers.lock().unwrap().len() + self.users.lock().unwrap().len();
        if taken != given as u64 {
            self.note(format!("{taken} card numbers were taken, {given} were given"));
        }
    }

    fn name(&self) -> u64 {
        self.names.fetch_add(1, Ordering::Relaxed)
    }
}

/// A customer who was registered, whose OTP may be left unused.
struct Customer {
    mobile: String,
    otp: Option<Otp>,
}

struct Otp {
    code: String,
    asked: Instant,
    answered: Instant,
}

pub struct Shopper {
    oracle: Arc<Oracle>,
    pace: Arc<Pace>,
    rng: SmallRng,
    customers: Vec<Customer>,
}

impl Shopper {
    pub fn new(oracle: Arc<Oracle>, pace: Arc<Pace>, rng: SmallRng) -> Self {
        Self { oracle, pace, rng, customers: Vec::new() }
    }

    /// One customer after another, until the pace ends.
    pub async fn shop(mut self) {
        while let Ok(customer) = self.serve().await {
            self.customers.push(customer);
        }
    }

    async fn serve(&mut self) -> Result<Customer, Over> {
        let (mobile, user) = self.register().await?;
        self.card_numbers().await?;
        let otp = self.one_time_password(&mobile, user).await?;
        self.card_numbers().await?;
        if self.one_in(4) {
            self.stranger().await?;
        }
        self.earlier_customer().await?;
        Ok(Customer { mobile, otp })
    }

    async fn register(&mut self) -> Result<(String, u64), Over> {
        let (caller, mobile, key) = (self.oracle.caller.clone(), self.mobile(), self.key());
        let answer = self.ask(caller.register(&mobile, key.as_deref())).await?;
        let user = answer.json["createdId"].as_u64().unwrap_or_default();
        let new = self.oracle.users.lock().unwrap().insert(user);
        self.must(answer.status == 200 && new, "be a new user", &answer);
        if let Some(key) = key.filter(|_| self.one_in(2)) {
            let again = self.ask(caller.register(&mobile, Some(&key))).await?;
            self.must(again.text == answer.text, "be as the first time", &again);
        }
        if self.one_in(4) {
            self.is_taken(&mobile).await?;
        }
        Ok((mobile, user))
    }

    async fn is_taken(&mut self, mobile: &str) -> Result<(), Over> {
        let caller = self.oracle.caller.clone();
        let answer = self.ask(caller.register(mobile, None)).await?;
        self.must(is_refusal(&answer, 409, 8008), "be 8008", &answer);
        Ok(())
    }

    async fn card_numbers(&mut self) -> Result<(), Over> {
        let caller = self.oracle.caller.clone();
        for _ in 0..self.rng.random_range(1..4) {
            let key = self.key();
            let highest = self.oracle.highest.load(Ordering::SeqCst);
            let answer = self.ask(caller.card_number(key.as_deref())).await?;
            let number = answer.json["entity"].as_str().and_then(|text| text.parse().ok()).unwrap_or(0);
            let new = self.oracle.card_numbers.lock().unwrap().insert(number);
            self.must(new && number > highest, "be a higher number that nobody has", &answer);
            self.oracle.highest.fetch_max(number, Ordering::SeqCst);
            if let Some(key) = key.filter(|_| self.one_in(2)) {
                let again = self.ask(caller.card_number(Some(&key))).await?;
                self.must(again.text == answer.text, "be as the first time", &again);
            }
        }
        Ok(())
    }

    /// Issues an OTP, fetches it, and mostly uses it; returns it if not.
    async fn one_time_password(&mut self, mobile: &str, user: u64) -> Result<Option<Otp>, Over> {
        let caller = self.oracle.caller.clone();
        let (key, mut asked) = (self.key(), None);
        let turn = async {
            asked = Some(Instant::now());
            caller.generate(mobile, key.as_deref()).await
        };
        let issued = self.ask(turn).await?;
        let answered = Instant::now();
        let created_id = issued.json["createdId"].as_i64().unwrap_or_default();
        self.must(issued.status == 200 && created_id > 0, "be issued", &issued);
        if let Some(key) = key.filter(|_| self.one_in(2)) {
            let again = self.ask(caller.generate(mobile, Some(&key))).await?;
            self.must(again.text == issued.text, "be as the first time", &again);
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
        self.must(right, &format!("be {user}'s OTP until {valid_until}"), &fetched);
        if self.one_in(2) {
            let by_email = self.ask(caller.fetch(&format!("email={mobile}@example.com"))).await?;
            self.must(by_email.text == fetched.text, "be the same by e-mail", &by_email);
        }

        if self.one_in(2) {
            self.is_judged(mobile, "WRONG", false).await?;
        }
        if self.one_in(4) {
            return Ok(asked.map(|asked| Otp { code, asked, answered }));
        }
        let typed = if self.one_in(2) { code.to_lowercase() } else { code.clone() };
        self.is_judged(mobile, &typed, true).await?;
        if self.one_in(2) {
            self.is_judged(mobile, &code, false).await?;
        }
        if self.one_in(2) {
            let gone = self.ask(caller.fetch(&by_mobile)).await?;
            self.must(is_refusal(&gone, 404, 9001), "be used", &gone);
        }
        Ok(None)
    }

    async fn is_judged(&mut self, mobile: &str, code: &str, right: bool) -> Result<(), Over> {
        let caller = self.oracle.caller.clone();
        let key = self.key();
        let answer = self.ask(caller.validate(mobile, code, key.as_deref())).await?;
        self.must(
            answer.status == 200 && answer.json["entity"] == right,
            &format!("be judged {right}"),
            &answer,
        );
        if let Some(key) = key.filter(|_| self.one_in(2)) {
            let again = self.ask(caller.validate(mobile, code, Some(&key))).await?;
            self.must(again.text == answer.text, "be as the first time", &again);
        }
        Ok(())
    }

    /// Somebody who is no customer.
    async fn stranger(&mut self) -> Result<(), Over> {
        let (caller, mobile) = (self.oracle.caller.clone(), self.mobile());
        let answer = match self.rng.random_range(0..3) {
            0 => self.ask(caller.fetch(&format!("mobile={mobile}"))).await?,
            1 => self.ask(caller.generate(&mobile, None)).await?,
            _ => self.ask(caller.validate(&mobile, "538AD87", None)).await?,
        };
        self.must(is_refusal(&answer, 404, 8015), "be nobody", &answer);
        Ok(())
    }

    /// Somebody who was served before: the OTP that was left unused is there until it expires, and no longer.
    async fn earlier_customer(&mut self) -> Result<(), Over> {
        if self.customers.is_empty() {
            return Ok(());
        }
        let customer = self.customers.swap_remove(self.rng.random_range(0..self.customers.len()));
        if self.one_in(2) {
            self.is_taken(&customer.mobile).await?;
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
                // Between the two, either is right.
                let (valid, expired) = (otp.asked.elapsed() < VALIDITY, asked - otp.answered > VALIDITY);
                there && !expired || gone && !valid
            });
            self.must(right, "be as it was left", &answer);
        }
        self.customers.push(customer);
        Ok(())
    }

    /// Sends a request when it is due. The time that counts began then.
    async fn ask(&self, request: impl Future<Output = Result<Answer, Lost>>) -> Result<Answer, Over> {
        let due = self.pace.turn().await?;
        let answer = request.await;
        self.pace.answered_since(due);
        answer.map_err(|lost| {
            self.oracle.note(format!("{lost:?}"));
            Over
        })
    }

    fn must(&self, right: bool, what: &str, answer: &Answer) {
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

    /// One in eight has one.
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
