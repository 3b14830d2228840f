//! Injects every fault into every call of every route. No card number is given twice, no OTP is
//! validated twice, and no daily limit is exceeded. Every answer comes in time, and is right or a
//! 503. After the fault, the service works again.

use std::{
    collections::{HashMap, HashSet},
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use aws_sdk_dynamodb::types::AttributeValue;
use chrono::TimeDelta;
use http::{HeaderMap, HeaderValue, header};
use loyalty_codes::{
    api::ROUTES,
    model::{org::Definition, otp::OtpSeries},
};
use serde_json::{Value, json};
use tokio::{
    sync::Semaphore,
    task::{JoinSet, LocalSet},
    time::sleep,
};

use crate::{
    common::{
        Answer, MOBILE, PASSWORD, TestService, TestTable, USER, contact_series, demo_of, demo_org_and,
        demo_org_with, demo_series,
        faults::{Fault, Faults, with_fault_proxy},
    },
    guard::DELIVERY,
    idempotency,
};

/// Time limit of an answer, as the function derives it from its deadline on Lambda.
const TIME_LIMIT: Duration = Duration::from_millis(500);
/// Time limit on an engine that all tests share.
const SHARED_TIME_LIMIT: Duration = Duration::from_secs(1);
/// Time for which a call is held before its caller is killed.
const HOLD_TIME: Duration = Duration::from_millis(20);
/// Additional time for a busy machine.
const GRACE: Duration = Duration::from_secs(5);
/// Marks a request that ran out of time. Its write may still be carried out.
const OUT_OF_TIME: &str = ", out of time";
const DAILY_LIMIT: usize = 5;
/// A little more than a day, so that no OTP of the day before is valid.
const ONE_DAY: TimeDelta = TimeDelta::seconds(86_401);

/// A fault, and the calls that it applies to.
struct FaultCase {
    name: &'static str,
    /// Prefix of the names of the operations that fail.
    operation: &'static str,
    fault: Fault,
    /// Status of the answer if the request fails because of the fault, and not because of the time
    /// limit.
    failure: u16,
    /// Whether the caller is killed while the call is held.
    kills: bool,
}

/// All faults that a call can have.
fn fault_cases() -> Vec<FaultCase> {
    const ANY: &str = "";
    const TRANSACTION: &str = "TransactWriteItems";
    let case = |name, operation, fault| FaultCase { name, operation, fault, failure: 503, kills: false };
    let cancelled = |name, reason| case(name, TRANSACTION, Fault::cancelled(&[reason, "None"]));
    let permanent = |name, reason| FaultCase { failure: 500, ..cancelled(name, reason) };
    vec![
        case("answer lost", ANY, Fault::ResetBeforeAnswer),
        case("answer cut", ANY, Fault::ResetWithinAnswer),
        case("reset", ANY, Fault::Reset),
        case("no answer", ANY, Fault::Dropped),
        case("delay", ANY, Fault::Delay(Duration::from_millis(50))),
        case("postponed", ANY, Fault::Postponed),
        case("500", ANY, Fault::error("InternalServerError")),
        case("503", ANY, Fault::Answer(503, "Service Unavailable".to_owned())),
        case("throttled", ANY, Fault::error("ProvisionedThroughputExceededException")),
        case("over the limit", ANY, Fault::error("RequestLimitExceeded")),
        case("conflict", ANY, Fault::error("TransactionConflictException")),
        case("expired credentials", ANY, Fault::error("ExpiredTokenException")),
        case("in progress", TRANSACTION, Fault::error("TransactionInProgressException")),
        cancelled("transaction conflict", "TransactionConflict"),
        cancelled("transaction throttled", "ThrottlingError"),
        cancelled("transaction over the throughput", "ProvisionedThroughputExceeded"),
        permanent("collection too large", "ItemCollectionSizeLimitExceeded"),
        permanent("invalid transaction", "ValidationError"),
        permanent("unknown reason", "SomethingNew"),
        FaultCase { kills: true, ..case("answer withheld, caller killed", ANY, Fault::Unanswered) },
        FaultCase { kills: true, ..case("postponed, caller killed", ANY, Fault::Postponed) },
    ]
}

/// Number of cases that run concurrently. They share a thread, and each request must end within
/// [`TIME_LIMIT`].
const CONCURRENT_CASES: usize = 6;

/// Runs `test` for each fault case, each with its own table, some of them concurrently.
async fn with_every_fault(test: impl AsyncFn(Setup) + 'static) {
    with_every_fault_in(|| demo_org_with(&limits()), test).await;
}

/// The same in another org.
async fn with_every_fault_in(org: fn() -> Definition, test: impl AsyncFn(Setup) + 'static) {
    let test = Rc::new(test);
    let (local, mut tests) = (LocalSet::new(), JoinSet::new());
    let permits = Rc::new(Semaphore::new(CONCURRENT_CASES));
    for case in fault_cases() {
        let (test, permits) = (Rc::clone(&test), Rc::clone(&permits));
        let run = async move {
            let _permit = permits.acquire().await.unwrap();
            test(Setup::new(case, &org()).await).await;
        };
        tests.spawn_local_on(run, &local);
    }
    local.run_until(tests.join_all()).await;
}

/// Whether a request failed. Its write may have been carried out all the same.
fn failed(answer: &Answer) -> bool {
    [500, 503].contains(&answer.status)
}

/// Stands for the answer that a killed caller did not receive.
fn unavailable() -> Answer {
    let headers = HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static("1"))]);
    Answer { status: 503, headers, text: String::new(), json: Value::Null }
}

/// The limits of the org, as lines of `[config]`.
fn limits() -> String {
    format!("CONF_OTP_DAILY_LIMIT = {DAILY_LIMIT}\nCONF_OTP_VALIDATE_RATE_LIMIT_COUNT = 100")
}

struct Setup {
    table: TestTable,
    /// A process that reaches the table without the proxy.
    direct: TestService,
    faulty: TestService,
    faults: Faults,
    case: FaultCase,
}

impl Setup {
    async fn new(case: FaultCase, org: &Definition) -> Self {
        let (table, direct) = demo_of(org).await;
        let (mut faulty, proxy) = with_fault_proxy(&table, "store.server").await;
        faulty.time_limit = if table.is_shared() { SHARED_TIME_LIMIT } else { TIME_LIMIT };
        Self { table, direct, faulty, faults: proxy, case }
    }

    /// Injects the fault into every call of a request: first into that call alone, then into it and
    /// all later ones. Ends when the request makes no more calls. Each request uses a new process,
    /// so that tills and orgs are read, too.
    async fn run_with_faults<F: Future<Output = Answer>>(
        &self,
        request: impl Fn(TestService) -> F,
        mut check: impl AsyncFnMut(&str, &Answer),
    ) {
        let FaultCase { name, operation: prefix, ref fault, failure, kills } = self.case;
        for forever in [false, true] {
            // A killed caller makes only one faulty call.
            if kills && forever {
                continue;
            }
            for n in 0.. {
                let fault = fault.clone();
                let is_faulty = move |call| if forever { call >= n } else { call == n };
                self.faults.inject(move |operation, call| {
                    (operation.starts_with(prefix) && is_faulty(call)).then(|| fault.clone())
                });
                let process = self.faulty.another_process();
                let started = Instant::now();
                let answer = if kills {
                    self.kill_at(n, request(process.clone())).await
                } else {
                    request(process.clone()).await
                };
                let out_of_time = if started.elapsed() < self.faulty.time_limit { "" } else { OUT_OF_TIME };
                let what = format!("{name} at call {n}, forever: {forever}{out_of_time}");
                assert!(
                    started.elapsed() < self.faulty.time_limit + GRACE,
                    "{what}: the answer came too late"
                );
                assert!([200, 503, failure].contains(&answer.status), "{what}: {answer:?}");
                assert!(answer.status != 503 || answer.retry_after() > 0, "{what}");
                let reached = self.faults.calls() > n;
                self.faults.clear();
                let recovered = TestService { time_limit: GRACE, ..process }.fetch().await;
                assert!(recovered.status < 500, "{name} at call {n}: the same process must work again");
                check(&what, &answer).await;
                self.faults.send_postponed().await;
                // A request without a fault that ran out of time was delayed by a busy machine.
                if !reached && answer.status == 200 {
                    break;
                }
                assert!(n < 20, "{what}: the request makes too many calls");
            }
        }
    }

    /// Drops a request while its call `n` is held, as if its process was killed.
    async fn kill_at(&self, n: usize, request: impl Future<Output = Answer>) -> Answer {
        let held = async {
            while self.faults.calls() <= n {
                sleep(Duration::from_millis(1)).await;
            }
            sleep(HOLD_TIME).await;
        };
        tokio::select! {
            answer = request => answer,
            () = held => unavailable(),
        }
    }
}

/// Owner of the tested OTPs.
#[derive(Clone, Copy)]
enum Owner {
    /// The demo customer, for POINTS.
    Customer,
    /// A mobile that is not necessarily a customer's, for REGISTRATION.
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

    /// Returns whether a code is right. Panics if the validation was refused.
    async fn is_right(self, service: &TestService, code: &str) -> bool {
        let answer = self.validate(service, code).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json["entity"].as_bool().unwrap()
    }

    /// Issues an OTP a day later, and returns its code.
    async fn renew(self, service: &TestService) -> String {
        service.clock.advance(ONE_DAY);
        assert_eq!(self.generate(service).await.status, 200);
        self.fetch(service).await.json["code"].as_str().unwrap().to_owned()
    }

    /// Number of OTPs that were issued today.
    async fn issued(self, service: &TestService) -> usize {
        service.store.otps_and_attempts(&self.series(), service.clock.now()).await.unwrap().otps.len()
    }
}

fn otp(scope: &str, code: &str) -> Value {
    json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": scope, "code": code})
}

#[test]
fn every_route_is_tested_with_faults() {
    let tested = [
        "GET /v2/cardNumber", "GET /v2/customers/lookup", "GET /v2/customers/lookup/customerDetails",
        "GET /v2/customers/{id}", "GET /v2/otp", "POST /v2/cardNumber", "POST /v2/customers",
        "POST /v2/customers/{id}/changeIdentifier", "POST /v2/otp/generate", "POST /v2/otp/validate",
        "POST /v3/oauth/token/generate",
    ];
    let mut routes: Vec<String> =
        ROUTES.iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    routes.sort();
    assert_eq!(routes, tested, "add a test of the new route here");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_card_number_is_given_twice() {
    with_every_fault(async |setup: Setup| {
        let mut given = HashSet::new();
        let request = async |service: TestService| service.get("/v2/cardNumber").await;
        setup
            .run_with_faults(request, async |what, answer| {
                let mut numbers = vec![setup.direct.card_number().await];
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

/// Sends requests with an idempotency key and every fault, and again without a fault. `adapt` gives
/// each request another body. `check` receives the final answer.
async fn run_keyed_with_faults(
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
        .run_with_faults(keyed, async |what, answer| {
            let again = keyed(setup.direct.clone()).await;
            assert_eq!(again.status, 200, "{what}: {again:?}");
            assert!(failed(answer) || answer.text == again.text, "{what}: {answer:?}, then {again:?}");
            setup.faults.send_postponed().await;
            assert_eq!(keyed(setup.direct.clone()).await.text, again.text, "{what}");
            check(&setup, what, &again).await;
            number.fetch_add(1, Ordering::SeqCst);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_number_with_a_key_is_given_to_that_key_alone() {
    with_every_fault(async |setup: Setup| {
        let mut given = HashSet::new();
        run_keyed_with_faults(
            setup,
            "/v2/cardNumber",
            |_, _| (),
            async |setup, what, answer| {
                let number = answer.json["entity"].as_str().unwrap().to_owned();
                for number in [number, setup.direct.card_number().await] {
                    assert!(given.insert(number), "{what}: given twice: {answer:?}");
                }
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_with_a_key_makes_one_customer() {
    with_every_fault(async |setup: Setup| {
        let mobile = |number: u64| (9_100_000_000 + number).to_string();
        let adapt =
            |number, body: &mut Value| body["profiles"][0]["identifiers"][0]["value"] = mobile(number).into();
        let mut users = HashSet::new();
        run_keyed_with_faults(setup, "/v2/customers", adapt, async |setup, what, answer| {
            let user = answer.json["createdId"].as_u64().unwrap();
            assert!(users.insert(user), "{what}: given twice: {answer:?}");
            let mobile = mobile(users.len() as u64 - 1);
            let otp = json!({"entityType": "MOBILE", "entityValue": mobile, "action": "POINTS"});
            assert_eq!(setup.direct.post("/v2/otp/generate", &otp).await.status, 200, "{what}");
            let url = format!("/v2/otp?source=INSTORE&mobile={mobile}&scope=POINTS");
            assert_eq!(setup.direct.get(&url).await.json["userId"], user, "{what}");
        })
        .await;
    })
    .await;
}

/// It counts once however often it is sent, and whatever fault occurs.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_attempt_with_a_key_counts_once() {
    with_every_fault(async |setup: Setup| {
        run_keyed_with_faults(
            setup,
            "/v2/otp/validate",
            |_, _| (),
            async |setup, what, answer| {
                assert_eq!(answer.json["entity"], false, "{what}");
                // One of the hundred failed attempts that this org allows is used.
                let series = demo_series();
                let found =
                    setup.direct.store.otps_and_attempts(&series, setup.direct.clock.now()).await.unwrap();
                assert_eq!(found.failed_attempts.times().len(), 1, "{what}");
                setup.direct.clock.advance(ONE_DAY);
            },
        )
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_code_with_a_key_stays_true() {
    with_every_fault(async |setup: Setup| {
        let code = std::sync::Mutex::new(String::new());
        let renew = async |direct: &TestService| {
            direct.clock.advance(ONE_DAY);
            direct.issue().await;
            *code.lock().unwrap() = direct.code().await;
        };
        renew(&setup.direct).await;
        let adapt = |_, body: &mut Value| body["code"] = code.lock().unwrap().clone().into();
        run_keyed_with_faults(setup, "/v2/otp/validate", adapt, async |setup, what, answer| {
            assert_eq!(answer.json["entity"], true, "{what}");
            let current = code.lock().unwrap().clone();
            assert!(!setup.direct.is_right(&current).await, "{what}: without the key, the code is consumed");
            renew(&setup.direct).await;
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_otp_with_a_key_is_issued_once() {
    with_every_fault(async |setup: Setup| {
        run_keyed_with_faults(
            setup,
            "/v2/otp/generate",
            |_, _| (),
            async |setup, what, _| {
                assert_eq!(setup.direct.issued_otps().await, 1, "{what}");
                setup.direct.clock.advance(ONE_DAY);
            },
        )
        .await;
    })
    .await;
}

async fn generate_with_faults(owner: Owner) {
    with_every_fault(async move |setup: Setup| {
        let request = async |service: TestService| owner.generate(&service).await;
        setup
            .run_with_faults(request, async |what, answer| {
                let issued = owner.issued(&setup.direct).await;
                assert!(issued <= 1, "{what}: one request issued {issued} OTPs");
                assert!(failed(answer) || issued == 1, "{what}: {answer:?}");
                // After the fault, the rest of the daily limit can be issued, and no more.
                let mut refused = None;
                for _ in 0..=DAILY_LIMIT {
                    let answer = owner.generate(&setup.direct).await;
                    if answer.status != 200 {
                        refused = Some(answer);
                        break;
                    }
                }
                assert_eq!(refused.unwrap().refusal(), (429, vec![429]), "{what}");
                setup.faults.send_postponed().await;
                assert_eq!(owner.issued(&setup.direct).await, DAILY_LIMIT, "{what}");
                setup.direct.clock.advance(ONE_DAY);
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_customer_gets_more_otps_than_the_day_allows() {
    generate_with_faults(Owner::Customer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_contact_gets_more_otps_than_the_day_allows() {
    generate_with_faults(Owner::Contact).await;
}

/// An org with a cooldown, an hourly limit and OTPs that are sent again.
fn guarded_org() -> Definition {
    let guards = format!(
        "CONF_OTP_COOLDOWN_SECONDS = {COOLDOWN}\nCONF_OTP_RATE_LIMIT_ONE_HOUR = 1000\n\
         CONF_OTP_REISSUE = \"SAME\"\nCONF_OTP_COMMUNICATE_VIA = [\"SMS\", \"EMAIL\"]"
    );
    demo_org_and(&format!("{}\n{guards}\n{DELIVERY}", limits()))
}

const COOLDOWN: i64 = 30;

/// How often OTPs were issued or sent again so far, which each kind of item says.
async fn sends(table: &TestTable) -> usize {
    let counted = |items: Vec<HashMap<String, AttributeValue>>, name: &str, absent: usize| {
        let number = |item: &HashMap<String, AttributeValue>| {
            item.get(name).map_or(absent, |value| value.as_n().unwrap().parse().unwrap())
        };
        items.iter().map(number).sum::<usize>()
    };
    let is_hourly =
        |item: &HashMap<_, AttributeValue>| item["SK"].as_s().unwrap().len() > "QUOTA#2026-11-21".len();
    let (hourly, daily): (Vec<_>, Vec<_>) = table.items("QUOTA#").await.into_iter().partition(is_hourly);
    let mut otps = table.items("OTP#").await;
    otps.retain(|item| item.contains_key("code"));
    let sends = counted(otps, "sends", 1);
    assert_eq!(table.items("MESSAGE#").await.len(), sends, "a message for each");
    assert_eq!(counted(daily, "issued", 0), sends, "each counts in a day");
    assert_eq!(counted(hourly, "issued", 0), 2 * sends, "each counts for both addresses");
    assert_eq!(counted(table.items("OTP#POINTS#LAST").await, "version", 0), sends, "one after the other");
    sends
}

#[tokio::test(flavor = "multi_thread")]
async fn with_every_guard_an_otp_is_counted_and_sent_once_or_not_at_all() {
    with_every_fault_in(guarded_org, async |setup: Setup| {
        let request = async |service: TestService| Owner::Customer.generate(&service).await;
        setup
            .run_with_faults(request, async |what, answer| {
                let before = sends(&setup.table).await;
                let id = answer.json["createdId"].as_u64();
                assert!(failed(answer) || id.is_some(), "{what}: {answer:?}");
                let at_once = request(setup.direct.clone()).await;
                assert!(failed(answer) || at_once.status == 429, "{what}: the cooldown counts: {at_once:?}");
                setup.direct.clock.advance(TimeDelta::seconds(COOLDOWN));
                let again = request(setup.direct.clone()).await;
                assert_eq!(again.status, 200, "{what}: {again:?}");
                let is_same = again.json["createdId"].as_u64() == id;
                assert!(failed(answer) || is_same, "{what}: {answer:?} is sent again, not {again:?}");
                let written = sends(&setup.table).await - before;
                let expected = if at_once.status == 200 { 2 } else { 1 };
                assert!(written == expected || what.ends_with(OUT_OF_TIME), "{what}: {written} were sent");
                setup.faults.send_postponed().await;
                assert_eq!(sends(&setup.table).await - before, written, "{what}: after the postponed write");
                assert_eq!(setup.direct.issued_otps().await, 1, "{what}: one OTP, however often it is sent");
                setup.direct.clock.advance(ONE_DAY);
            })
            .await;
    })
    .await;
}

async fn validate_with_faults(owner: Owner) {
    with_every_fault(async move |setup: Setup| {
        let code = std::sync::Mutex::new(owner.renew(&setup.direct).await);
        let current = || code.lock().unwrap().clone();
        let request = async |service: TestService| owner.validate(&service, &current()).await;
        setup
            .run_with_faults(request, async |what, answer| {
                let first = answer.status == 200 && answer.json["entity"] == true;
                assert!(first || failed(answer), "{what}: the code was right");
                let second = owner.is_right(&setup.direct, &current()).await;
                setup.faults.send_postponed().await;
                let third = owner.is_right(&setup.direct, &current()).await;
                assert!(!first || !second, "{what}: the code was accepted twice");
                assert!(!third, "{what}: the code was accepted again after the postponed write");
                // The outcome of an unanswered validation may have been written, unless the engine
                // never received it.
                let may_be_written = what.starts_with("answer") || what.ends_with(OUT_OF_TIME);
                assert!(first || second || may_be_written, "{what}: the OTP is lost");
                let renewed = owner.renew(&setup.direct).await;
                *code.lock().unwrap() = renewed;
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_otp_of_a_customer_is_validated_twice() {
    validate_with_faults(Owner::Customer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_otp_of_a_contact_is_validated_twice() {
    validate_with_faults(Owner::Contact).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_was_answered_works() {
    with_every_fault(async |setup: Setup| {
        let request = async |service: TestService| service.request_token("store.server", PASSWORD).await;
        setup
            .run_with_faults(request, async |what, answer| {
                if answer.status == 200 {
                    let token = answer.json["data"]["accessToken"].as_str().unwrap();
                    let process = setup.direct.another_process().with_token(token);
                    assert_eq!(process.fetch().await.refusal(), (404, vec![9001]), "{what}");
                } else {
                    assert!(failed(answer), "{what}: {answer:?}");
                }
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_valid_token_is_accepted_or_the_answer_is_a_503() {
    with_every_fault(async |setup: Setup| {
        let token = setup.direct.token().await;
        let request = async |service: TestService| service.with_token(&token).fetch().await;
        setup.direct.issue().await;
        let right = setup.direct.fetch().await.text;
        setup
            .run_with_faults(request, async |what, answer| {
                assert!(failed(answer) || answer.text == right, "{what}: {answer:?}");
            })
            .await;
    })
    .await;
}

async fn fetch_with_faults(owner: Owner) {
    with_every_fault(async move |setup: Setup| {
        assert_eq!(owner.generate(&setup.direct).await.status, 200);
        let right = owner.fetch(&setup.direct).await.text;
        let request = async |service: TestService| owner.fetch(&service).await;
        setup
            .run_with_faults(request, async |what, answer| {
                assert!(failed(answer) || answer.text == right, "{what}: {answer:?}");
                assert_eq!(owner.fetch(&setup.direct).await.text, right, "{what}");
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customers_otp_is_fetched_or_the_answer_is_a_503() {
    fetch_with_faults(Owner::Customer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contacts_otp_is_fetched_or_the_answer_is_a_503() {
    fetch_with_faults(Owner::Contact).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_registered_wholly_or_not_at_all() {
    with_every_fault(async |setup: Setup| {
        let mobile = AtomicU64::new(9_100_000_000);
        let customer = || {
            let value = mobile.load(Ordering::SeqCst).to_string();
            let identifiers = json!([{"type": "mobile", "value": value}, {"type": "email", "value": format!("{value}@example.com")}]);
            json!({"profiles": [{"source": "INSTORE", "identifiers": identifiers}]})
        };
        let request = async |service: TestService| service.post("/v2/customers", &customer()).await;
        setup
            .run_with_faults(request, async |what, answer| {
                let again = setup.direct.post("/v2/customers", &customer()).await;
                let expected = if answer.status == 200 { vec![409] } else { vec![200, 409] };
                assert!(expected.contains(&again.status), "{what}: {answer:?}, then {again:?}");
                setup.faults.send_postponed().await;
                let found = |identifier: String| {
                    let url = format!("/v2/otp?source=INSTORE&{identifier}&scope=POINTS");
                    let direct = setup.direct.clone();
                    async move { direct.get(&url).await.refusal() }
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

/// A mobile that is registered in two accounts is one customer's, whatever fault the second
/// registration has.
#[tokio::test(flavor = "multi_thread")]
async fn a_registration_joins_a_customer_wholly_or_not_at_all() {
    with_every_fault(async |setup: Setup| {
        let mobile = AtomicU64::new(9_100_000_000);
        let profile = |source: &str| {
            let identifiers = json!([
                {"type": "mobile", "value": mobile.load(Ordering::SeqCst)}, {"type": "cuid", "value": "C"},
            ]);
            json!({"profiles": [{"source": source, "identifiers": identifiers}]})
        };
        let first = async || {
            let mut customer = profile("INSTORE");
            customer["profiles"][0]["identifiers"].as_array_mut().unwrap().pop();
            let answer = setup.direct.post("/v2/customers", &customer).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            answer.json["createdId"].as_u64().unwrap()
        };
        let user = AtomicU64::new(first().await);
        let joining = || {
            let mut customer = profile("MARTJACK");
            let own = format!("C{}", mobile.load(Ordering::SeqCst));
            customer["profiles"][0]["identifiers"][1]["value"] = own.into();
            customer
        };
        let request = async |service: TestService| service.post("/v2/customers", &joining()).await;
        setup
            .run_with_faults(request, async |what, answer| {
                let user_id = user.load(Ordering::SeqCst);
                let again = setup.direct.post("/v2/customers", &joining()).await;
                let expected = if answer.status == 200 { vec![409] } else { vec![200, 409] };
                assert!(expected.contains(&again.status), "{what}: {answer:?}, then {again:?}");
                setup.faults.send_postponed().await;
                let details = setup.direct.get(&format!("/v2/customers/{user_id}")).await;
                let profiles = details.json["profiles"].as_array().unwrap();
                let sizes: Vec<usize> =
                    profiles.iter().map(|profile| profile["identifiers"].as_array().unwrap().len()).collect();
                // Each profile has the mobile and the external ID, and the second one its own id.
                assert_eq!(sizes, [2, 3], "{what}: {details:?}");
                mobile.fetch_add(1, Ordering::SeqCst);
                user.store(first().await, Ordering::SeqCst);
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn identifiers_are_changed_wholly_or_not_at_all_and_a_retry_works() {
    with_every_fault(async |setup: Setup| {
        let step = AtomicU64::new(1);
        let url = format!("/v2/customers/{USER}/changeIdentifier?source=INSTORE");
        let mobile = |step: u64| (9_100_000_000 + step).to_string();
        let change = || {
            let step = step.load(Ordering::SeqCst);
            let list = |step: u64| json!([{"type": "mobile", "value": mobile(step)}]);
            json!({"add": list(step), "remove": list(step - 1)})
        };
        let request = async |service: TestService| service.post(&url, &change()).await;
        setup
            .run_with_faults(request, async |what, answer| {
                let again = setup.direct.post(&url, &change()).await;
                assert_eq!(again.status, 200, "{what}: {answer:?}, then {again:?}");
                let warnings = again.json["warnings"].as_array().unwrap().len();
                // The first change removes nothing.
                let expected: &[usize] = match (answer.status, step.load(Ordering::SeqCst)) {
                    (200, _) => &[2],
                    (_, 1) => &[1, 2],
                    _ => &[0, 2],
                };
                assert!(expected.contains(&warnings), "{what}: half of it was there: {again:?}");
                setup.faults.send_postponed().await;
                let step = step.fetch_add(1, Ordering::SeqCst);
                let found = async |step: u64| {
                    let url = format!(
                        "/v2/customers/lookup?source=INSTORE&identifierName=mobile&identifierValue={}",
                        mobile(step)
                    );
                    setup.direct.get(&url).await
                };
                assert_eq!(found(step).await.json["entity"], USER, "{what}");
                assert_eq!(found(step - 1).await.refusal(), (404, vec![8015]), "{what}");
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_identifiers_with_a_key_is_carried_out_once() {
    with_every_fault(async |setup: Setup| {
        let route = format!("/v2/customers/{USER}/changeIdentifier?source=INSTORE");
        let adapt = |number: u64, body: &mut Value| {
            *body = json!({"add": [{"type": "cuid", "value": format!("C{number}")}]});
        };
        run_keyed_with_faults(setup, &route, adapt, async |_, what, answer| {
            assert_eq!(answer.json, json!({"createdId": USER, "warnings": []}), "{what}");
        })
        .await;
    })
    .await;
}

async fn look_up_with_faults(url: &'static str) {
    with_every_fault(async move |setup: Setup| {
        let right = setup.direct.get(url).await;
        assert_eq!(right.status, 200, "{right:?}");
        let request = async |service: TestService| service.get(url).await;
        setup
            .run_with_faults(request, async |what, answer| {
                assert!(failed(answer) || answer.text == right.text, "{what}: {answer:?}");
            })
            .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_looked_up_or_the_answer_is_a_503() {
    look_up_with_faults(
        "/v2/customers/lookup?source=INSTORE&identifierName=mobile&identifierValue=8799361139",
    )
    .await;
    look_up_with_faults("/v2/customers/lookup?source=ALL&identifierName=wechat&identifierValue=openid-1")
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_profiles_of_a_customer_are_found_or_the_answer_is_a_503() {
    look_up_with_faults(
        "/v2/customers/lookup/customerDetails?source=ALL&identifierName=email&identifierValue=tom@example.com",
    )
    .await;
    look_up_with_faults("/v2/customers/313302314").await;
}
