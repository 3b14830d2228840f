//! Every fault, at every call of every route. Whatever happens: no number twice, no OTP validated twice, no more OTPs than
//! the day allows, an answer in time that is either right or a clean 503; and with the fault gone, all is well again.

use std::{
    collections::HashSet,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use http::{HeaderMap, HeaderValue, header};
use loyalty_codes::{api::ROUTES, model::otp::OtpSeries};
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    task::{JoinSet, LocalSet},
    time::sleep,
};

use crate::{
    common::{
        Answer, MOBILE, TestService, TestTable, contact_series, demo_series, demo_with,
        faults::{Fault, Faults, behind_faults},
    },
    idempotency,
};

/// How long an answer may take; as it follows from the function's deadline on Lambda.
const TIME_LIMIT: Duration = Duration::from_millis(500);
/// The same on an engine that is not ours, which all tests share.
const SHARED_TIME_LIMIT: Duration = Duration::from_secs(1);
/// How long a call is held before its caller is killed.
const LAST_MOMENT: Duration = Duration::from_millis(20);
/// What a busy machine may take on top.
const GRACE: Duration = Duration::from_secs(5);
/// What is said of a request that was given up when its time was over: a write may still have happened.
const OUT_OF_TIME: &str = ", out of time";
const DAILY_LIMIT: usize = 5;
/// And a little more, so that nothing of the day before is valid.
const A_DAY: TimeDelta = TimeDelta::seconds(86_401);

/// A way in which a call can go wrong.
struct Attack {
    name: &'static str,
    /// What the names of the operations that it happens to begin with.
    operation: &'static str,
    fault: Fault,
    /// The answer where the request fails because of it, and not because the time is over.
    failure: u16,
    /// Whether the caller is killed while the call is held.
    kills: bool,
}

/// Every way in which a call can go wrong.
fn attacks() -> Vec<Attack> {
    const ANY: &str = "";
    const TRANSACTION: &str = "TransactWriteItems";
    let attack = |name, operation, fault| Attack { name, operation, fault, failure: 503, kills: false };
    let cancelled = |name, reason| attack(name, TRANSACTION, Fault::cancelled(&[reason, "None"]));
    let cannot_be = |name, reason| Attack { failure: 500, ..cancelled(name, reason) };
    vec![
        attack("answer lost", ANY, Fault::LostAnswer),
        attack("answer cut", ANY, Fault::CutAnswer),
        attack("reset", ANY, Fault::Reset),
        attack("silence", ANY, Fault::Silence),
        attack("delay", ANY, Fault::Delay(Duration::from_millis(50))),
        attack("late", ANY, Fault::Late),
        attack("500", ANY, Fault::error("InternalServerError")),
        attack("503", ANY, Fault::Answer(503, "Service Unavailable".to_owned())),
        attack("throttled", ANY, Fault::error("ProvisionedThroughputExceededException")),
        attack("over the limit", ANY, Fault::error("RequestLimitExceeded")),
        attack("conflict", ANY, Fault::error("TransactionConflictException")),
        attack("expired credentials", ANY, Fault::error("ExpiredTokenException")),
        attack("in progress", TRANSACTION, Fault::error("TransactionInProgressException")),
        cancelled("transaction conflict", "TransactionConflict"),
        cancelled("transaction throttled", "ThrottlingError"),
        cancelled("transaction over the throughput", "ProvisionedThroughputExceeded"),
        cannot_be("collection too large", "ItemCollectionSizeLimitExceeded"),
        cannot_be("invalid transaction", "ValidationError"),
        cannot_be("unknown reason", "SomethingNew"),
        Attack { kills: true, ..attack("answer not heard, caller killed", ANY, Fault::Unheard) },
        Attack { kills: true, ..attack("late, caller killed", ANY, Fault::Late) },
    ]
}

/// So many attacks run side by side: they share a thread, and each request must be done within [`TIME_LIMIT`].
const SIDE_BY_SIDE: usize = 6;

/// Runs `test` once for each attack, each on a table of its own, some of them side by side.
async fn with_every_attack(test: impl AsyncFn(Setup) + 'static) {
    let test = Rc::new(test);
    let (local, mut tests) = (LocalSet::new(), JoinSet::new());
    let places = Rc::new(Semaphore::new(SIDE_BY_SIDE));
    for attack in attacks() {
        let (test, places) = (Rc::clone(&test), Rc::clone(&places));
        let run = async move {
            let _place = places.acquire().await.unwrap();
            test(Setup::new(attack).await).await;
        };
        tests.spawn_local_on(run, &local);
    }
    local.run_until(tests.join_all()).await;
}

/// Whether a request failed. What it wanted may have happened all the same.
fn failed(answer: &Answer) -> bool {
    [500, 503].contains(&answer.status)
}

/// What nobody heard.
fn unheard() -> Answer {
    let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static("1"))]);
    Answer { status: 503, headers, text: String::new(), json: Value::Null }
}

struct Setup {
    _table: TestTable,
    /// Without faults.
    clean: TestService,
    attacked: TestService,
    faults: Faults,
    attack: Attack,
}

impl Setup {
    async fn new(attack: Attack) -> Self {
        let config =
            format!("CONF_OTP_DAILY_LIMIT = {DAILY_LIMIT}\nCONF_OTP_VALIDATE_RATE_LIMIT_COUNT = 100");
        let (table, clean) = demo_with(&config).await;
        let (mut attacked, faults) = behind_faults(&table, "store.server").await;
        attacked.time_limit = if table.is_shared() { SHARED_TIME_LIMIT } else { TIME_LIMIT };
        Self { _table: table, clean, attacked, faults, attack }
    }

    /// Every call of a request goes wrong once, and, in another request, it and all that follow it do, until
    /// there is no such call any more. The process is a new one each time, so that tills and orgs are read, too.
    async fn attack<F: Future<Output = Answer>>(
        &self,
        request: impl Fn(TestService) -> F,
        mut check: impl AsyncFnMut(&str, &Answer),
    ) {
        let Attack { name, operation: happens_to, ref fault, failure, kills } = self.attack;
        for forever in [false, true] {
            // Who is killed makes one call that goes wrong.
            if kills && forever {
                continue;
            }
            for n in 0.. {
                let fault = fault.clone();
                let goes_wrong = move |call| if forever { call >= n } else { call == n };
                self.faults.inject(move |operation, call| {
                    (operation.starts_with(happens_to) && goes_wrong(call)).then(|| fault.clone())
                });
                let process = self.attacked.another_process();
                let started = Instant::now();
                let answer = if kills {
                    self.kill_at(n, request(process.clone())).await
                } else {
                    request(process.clone()).await
                };
                let out_of_time = if started.elapsed() < self.attacked.time_limit { "" } else { OUT_OF_TIME };
                let what = format!("{name} at call {n}, forever: {forever}{out_of_time}");
                assert!(started.elapsed() < self.attacked.time_limit + GRACE, "{what}: a hang");
                assert!([200, 503, failure].contains(&answer.status), "{what}: {answer:?}");
                assert!(answer.status != 503 || answer.retry_after() > 0, "{what}");
                let reached = self.faults.calls() > n;
                self.faults.end();
                let recovered = TestService { time_limit: GRACE, ..process }.fetch().await;
                assert!(recovered.status < 500, "{name} at call {n}: the same process works again");
                check(&what, &answer).await;
                self.faults.let_late_through().await;
                // Where nothing went wrong and the time ran out all the same, the machine was busy.
                if !reached && answer.status == 200 {
                    break;
                }
                assert!(n < 20, "{what}: it never ends");
            }
        }
    }

    /// Drops a request while its call `n` is held, as if its process was killed.
    async fn kill_at(&self, n: usize, request: impl Future<Output = Answer>) -> Answer {
        let held = async {
            while self.faults.calls() <= n {
                sleep(Duration::from_millis(1)).await;
            }
            sleep(LAST_MOMENT).await;
        };
        tokio::select! {
            answer = request => answer,
            () = held => unheard(),
        }
    }
}

/// Whose OTPs are attacked.
#[derive(Clone, Copy)]
enum Owner {
    /// The demo customer, for POINTS.
    Customer,
    /// A mobile that need not be a customer's, for REGISTRATION.
    Contact,
}

impl Owner {
    fn scope(self) -> &'static str {
        match self {
            Self::Customer => "POINTS",
            Self::Contact => "REGISTRATION",
        }
    }

    fn series(self) -> OtpSeries {
        match self {
            Self::Customer => demo_series(),
            Self::Contact => contact_series(),
        }
    }

    async fn generate(self, service: &TestService) -> Answer {
        service.post("/v2/otp/generate", &otp(self.scope(), "")).await
    }

    async fn validate(self, service: &TestService, code: &str) -> Answer {
        service.post("/v2/otp/validate", &otp(self.scope(), code)).await
    }

    async fn fetch(self, service: &TestService) -> Answer {
        service.get(&format!("/v2/otp?source=INSTORE&mobile={MOBILE}&scope={}", self.scope())).await
    }

    /// Whether a code is right; fails when it is not judged.
    async fn is_right(self, service: &TestService, code: &str) -> bool {
        let answer = self.validate(service, code).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json["entity"].as_bool().unwrap()
    }

    /// Issues an OTP a day later; its code.
    async fn renew(self, service: &TestService) -> String {
        service.clock.advance(A_DAY);
        assert_eq!(self.generate(service).await.status, 200);
        self.fetch(service).await.json["code"].as_str().unwrap().to_owned()
    }

    /// How many OTPs of today were issued.
    async fn issued(self, service: &TestService) -> usize {
        service.store.otps_and_attempts(&self.series(), service.clock.now()).await.unwrap().otps.len()
    }
}

fn otp(scope: &str, code: &str) -> Value {
    json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": scope, "code": code})
}

#[test]
fn every_route_is_attacked() {
    let attacked = [
        "GET /v2/cardNumber",
        "GET /v2/otp",
        "POST /v2/cardNumber",
        "POST /v2/customers",
        "POST /v2/otp/generate",
        "POST /v2/otp/validate",
    ];
    let mut routes: Vec<String> =
        ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    routes.sort();
    assert_eq!(routes, attacked, "a new route needs a test here");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_card_number_is_given_twice() {
    with_every_attack(async |setup: Setup| {
        let mut given = HashSet::new();
        let request = async |service: TestService| service.get("/v2/cardNumber").await;
        setup
            .attack(request, async |what, answer| {
                let mut numbers = vec![setup.clean.card_number().await];
                if answer.status == 200 {
                    numbers.push(answer.json["entity"].as_str().unwrap().to_owned());
                }
                for number in numbers {
                    assert!(given.insert(number), "{what}: {answer:?}");
                }
            })
            .await;
    })
    .await;
}

/// Sends requests under a key, with every fault, and again without one. `adapt` makes each request's body differ from
/// that of the request before; `check` gets the answer that counts.
async fn attack_with_keys(
    setup: Setup,
    route: &str,
    adapt: impl Fn(u64, &mut Value),
    mut check: impl AsyncFnMut(&Setup, &str, &Answer),
) {
    let number = AtomicU64::new(0);
    let keyed = async |service: TestService| {
        let number = number.load(Ordering::SeqCst);
        let mut body = idempotency::body(route);
        adapt(number, &mut body);
        idempotency::send(&service, route, &number.to_string(), &body).await
    };
    setup
        .attack(keyed, async |what, answer| {
            let again = keyed(setup.clean.clone()).await;
            assert_eq!(again.status, 200, "{what}: {again:?}");
            assert!(failed(answer) || answer.text == again.text, "{what}: {answer:?}, then {again:?}");
            setup.faults.let_late_through().await;
            assert_eq!(keyed(setup.clean.clone()).await.text, again.text, "{what}");
            check(&setup, what, &again).await;
            number.fetch_add(1, Ordering::SeqCst);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_number_with_a_key_is_given_to_that_key_alone() {
    with_every_attack(async |setup: Setup| {
        let mut given = HashSet::new();
        attack_with_keys(
            setup,
            "/v2/cardNumber",
            |_, _| (),
            async |setup, what, answer| {
                let number = answer.json["entity"].as_str().unwrap().to_owned();
                for number in [number, setup.clean.card_number().await] {
                    assert!(given.insert(number), "{what}: twice: {answer:?}");
                }
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_with_a_key_makes_one_customer() {
    with_every_attack(async |setup: Setup| {
        let mobile = |number: u64| (9_100_000_000 + number).to_string();
        let adapt =
            |number, body: &mut Value| body["profiles"][0]["identifiers"][0]["value"] = mobile(number).into();
        let mut users = HashSet::new();
        attack_with_keys(setup, "/v2/customers", adapt, async |setup, what, answer| {
            let user = answer.json["createdId"].as_u64().unwrap();
            assert!(users.insert(user), "{what}: twice: {answer:?}");
            let mobile = mobile(users.len() as u64 - 1);
            let otp = json!({"entityType": "MOBILE", "entityValue": mobile, "action": "POINTS"});
            assert_eq!(setup.clean.post("/v2/otp/generate", &otp).await.status, 200, "{what}");
            let url = format!("/v2/otp?source=INSTORE&mobile={mobile}&scope=POINTS");
            assert_eq!(setup.clean.get(&url).await.json["userId"], user, "{what}");
        })
        .await;
    })
    .await;
}

/// However often it is sent, and whatever goes wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_guess_with_a_key_counts_once() {
    with_every_attack(async |setup: Setup| {
        attack_with_keys(
            setup,
            "/v2/otp/validate",
            |_, _| (),
            async |setup, what, answer| {
                assert_eq!(answer.json["entity"], false, "{what}");
                // One of the hundred that this org allows is used.
                let series = demo_series();
                let found =
                    setup.clean.store.otps_and_attempts(&series, setup.clean.clock.now()).await.unwrap();
                assert_eq!(found.failed_attempts.times().len(), 1, "{what}");
                setup.clean.clock.advance(A_DAY);
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_code_with_a_key_is_true_again() {
    with_every_attack(async |setup: Setup| {
        let code = std::sync::Mutex::new(String::new());
        let renew = async |clean: &TestService| {
            clean.clock.advance(A_DAY);
            clean.issue().await;
            *code.lock().unwrap() = clean.code().await;
        };
        renew(&setup.clean).await;
        let adapt = |_, body: &mut Value| body["code"] = code.lock().unwrap().clone().into();
        attack_with_keys(setup, "/v2/otp/validate", adapt, async |setup, what, answer| {
            assert_eq!(answer.json["entity"], true, "{what}");
            let current = code.lock().unwrap().clone();
            assert!(!setup.clean.is_right(&current).await, "{what}: without the key, it is used");
            renew(&setup.clean).await;
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_otp_with_a_key_is_issued_once() {
    with_every_attack(async |setup: Setup| {
        attack_with_keys(
            setup,
            "/v2/otp/generate",
            |_, _| (),
            async |setup, what, _| {
                assert_eq!(setup.clean.issued_otps().await, 1, "{what}");
                setup.clean.clock.advance(A_DAY);
            },
        )
        .await;
    })
    .await;
}

async fn attack_generate(owner: Owner) {
    with_every_attack(async move |setup: Setup| {
        let request = async |service: TestService| owner.generate(&service).await;
        setup
            .attack(request, async |what, answer| {
                let issued = owner.issued(&setup.clean).await;
                assert!(issued <= 1, "{what}: one request, {issued} OTPs");
                assert!(failed(answer) || issued == 1, "{what}: {answer:?}");
                // With the fault gone, what is left of the day's OTPs is issued, and no more.
                let mut refused = None;
                for _ in 0..=DAILY_LIMIT {
                    let answer = owner.generate(&setup.clean).await;
                    if answer.status != 200 {
                        refused = Some(answer);
                        break;
                    }
                }
                assert_eq!(refused.unwrap().refusal(), (429, vec![429]), "{what}");
                setup.faults.let_late_through().await;
                assert_eq!(owner.issued(&setup.clean).await, DAILY_LIMIT, "{what}");
                setup.clean.clock.advance(A_DAY);
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_customer_gets_more_otps_than_the_day_allows() {
    attack_generate(Owner::Customer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_contact_gets_more_otps_than_the_day_allows() {
    attack_generate(Owner::Contact).await;
}

async fn attack_validate(owner: Owner) {
    with_every_attack(async move |setup: Setup| {
        let code = std::sync::Mutex::new(owner.renew(&setup.clean).await);
        let current = || code.lock().unwrap().clone();
        let request = async |service: TestService| owner.validate(&service, &current()).await;
        setup
            .attack(request, async |what, answer| {
                let first = answer.status == 200 && answer.json["entity"] == true;
                assert!(first || failed(answer), "{what}: the code was right");
                let second = owner.is_right(&setup.clean, &current()).await;
                setup.faults.let_late_through().await;
                let third = owner.is_right(&setup.clean, &current()).await;
                assert!(!first || !second, "{what}: twice");
                assert!(!third, "{what}: again, after a late verdict");
                // A verdict that nobody heard may have been written, unless the engine never saw it.
                let may_be_written = what.starts_with("answer") || what.ends_with(OUT_OF_TIME);
                assert!(first || second || may_be_written, "{what}: the OTP is lost");
                let renewed = owner.renew(&setup.clean).await;
                *code.lock().unwrap() = renewed;
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_otp_of_a_customer_is_validated_twice() {
    attack_validate(Owner::Customer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_otp_of_a_contact_is_validated_twice() {
    attack_validate(Owner::Contact).await;
}

async fn attack_fetch(owner: Owner) {
    with_every_attack(async move |setup: Setup| {
        assert_eq!(owner.generate(&setup.clean).await.status, 200);
        let right = owner.fetch(&setup.clean).await.text;
        let request = async |service: TestService| owner.fetch(&service).await;
        setup
            .attack(request, async |what, answer| {
                assert!(failed(answer) || answer.text == right, "{what}: {answer:?}");
                assert_eq!(owner.fetch(&setup.clean).await.text, right, "{what}");
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customers_otp_is_fetched_or_it_is_a_503() {
    attack_fetch(Owner::Customer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contacts_otp_is_fetched_or_it_is_a_503() {
    attack_fetch(Owner::Contact).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_registered_wholly_or_not_at_all() {
    with_every_attack(async |setup: Setup| {
        let mobile = AtomicU64::new(9_100_000_000);
        let customer = || {
            let value = mobile.load(Ordering::SeqCst).to_string();
            let identifiers = json!([{"type": "mobile", "value": value}, {"type": "email", "value": format!("{value}@example.com")}]);
            json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]})
        };
        let request = async |service: TestService| service.post("/v2/customers", &customer()).await;
        setup
            .attack(request, async |what, answer| {
                let again = setup.clean.post("/v2/customers", &customer()).await;
                let expected = if answer.status == 200 { vec![409] } else { vec![200, 409] };
                assert!(expected.contains(&again.status), "{what}: {answer:?}, then {again:?}");
                setup.faults.let_late_through().await;
                let found = |identifier: String| {
                    let url = format!("/v2/otp?source=INSTORE&{identifier}&scope=POINTS");
                    let clean = setup.clean.clone();
                    async move { clean.get(&url).await.refusal() }
                };
                let value = mobile.fetch_add(1, Ordering::SeqCst);
                assert_eq!(found(format!("mobile={value}")).await, (404, vec![9001]), "{what}: by mobile");
                assert_eq!(
                    found(format!("email={value}@example.com")).await,
                    (404, vec![9001]),
                    "{what}: by email"
                );
            })
            .await;
    })
    .await;
}
