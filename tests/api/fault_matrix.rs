//! Every fault, at every call of every route. Whatever happens: no number twice, no OTP validated twice, no more OTPs than
//! the day allows, an answer in time that is either right or a clean 503; and with the fault gone, all is well again.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use chrono::TimeDelta;
use loyalty_codes::api::ROUTES;
use serde_json::{Value, json};

use crate::{
    common::{
        Answer, MOBILE, TestService, TestTable, demo_series, demo_with,
        faults::{Fault, Faults, behind_faults},
    },
    idempotency,
};

/// How long an answer may take; as it follows from the function's deadline on Lambda.
const TIME_LIMIT: Duration = Duration::from_millis(250);
/// The same on an engine that is not ours, which all tests share.
const SHARED_TIME_LIMIT: Duration = Duration::from_secs(1);
/// What a busy machine may take on top.
const GRACE: Duration = Duration::from_secs(5);
const DAILY_LIMIT: usize = 5;
/// And a little more, so that nothing of the day before is valid.
const A_DAY: TimeDelta = TimeDelta::seconds(86_401);

/// Every way in which a call can go wrong, and the operations that it happens to.
fn faults() -> Vec<(&'static str, &'static str, Fault)> {
    const ANY: &str = "";
    const TRANSACTION: &str = "TransactWriteItems";
    vec![
        ("answer lost", ANY, Fault::LostAnswer),
        ("answer cut", ANY, Fault::CutAnswer),
        ("reset", ANY, Fault::Reset),
        ("silence", ANY, Fault::Silence),
        ("delay", ANY, Fault::Delay(Duration::from_millis(50))),
        ("late", ANY, Fault::Late),
        ("500", ANY, Fault::error("InternalServerError")),
        ("503", ANY, Fault::Answer(503, "Service Unavailable".to_owned())),
        ("throttled", ANY, Fault::error("ProvisionedThroughputExceededException")),
        ("conflict", ANY, Fault::error("TransactionConflictException")),
        ("transaction conflict", TRANSACTION, Fault::cancelled(&["TransactionConflict", "None"])),
        ("transaction throttled", TRANSACTION, Fault::cancelled(&["ThrottlingError", "None"])),
        ("expired credentials", ANY, Fault::error("ExpiredTokenException")),
    ]
}

struct Setup {
    _table: TestTable,
    /// Without faults.
    clean: TestService,
    attacked: TestService,
    faults: Faults,
}

impl Setup {
    async fn new() -> Self {
        let config =
            format!("CONF_OTP_DAILY_LIMIT = {DAILY_LIMIT}\nCONF_OTP_VALIDATE_RATE_LIMIT_COUNT = 100");
        let (table, clean) = demo_with(&config).await;
        let (mut attacked, faults) = behind_faults(&table, "store.server").await;
        attacked.time_limit = if table.is_shared() { SHARED_TIME_LIMIT } else { TIME_LIMIT };
        Self { _table: table, clean, attacked, faults }
    }

    /// Every call of a request goes wrong once, and, in another request, it and all that follow it do, until
    /// there is no such call any more. The process is a new one each time, so that tills and orgs are read, too.
    async fn attack<F: Future<Output = Answer>>(
        &self,
        request: impl Fn(TestService) -> F,
        mut check: impl AsyncFnMut(&str, &Answer),
    ) {
        for (name, happens_to, fault) in faults() {
            for forever in [false, true] {
                for n in 0.. {
                    let fault = fault.clone();
                    let goes_wrong = move |call| if forever { call >= n } else { call == n };
                    let plan = move |operation: &str, call| {
                        (operation.starts_with(happens_to) && goes_wrong(call)).then(|| fault.clone())
                    };
                    self.faults.inject(plan);
                    let process = self.attacked.another_process();
                    let started = Instant::now();
                    let answer = request(process.clone()).await;
                    let what = format!("{name} at call {n}, forever: {forever}");
                    assert!(started.elapsed() < self.attacked.time_limit + GRACE, "{what}: a hang");
                    assert!([200, 503].contains(&answer.status), "{what}: {answer:?}");
                    assert!(answer.status == 200 || answer.retry_after() > 0, "{what}");
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
    }
}

fn otp(code: &str) -> Value {
    json!({"entityType": "MOBILE", "entityValue": MOBILE, "action": "POINTS", "code": code})
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
    let setup = Setup::new().await;
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
            assert!(answer.status == 503 || answer.text == again.text, "{what}: {answer:?}, then {again:?}");
            setup.faults.let_late_through().await;
            assert_eq!(keyed(setup.clean.clone()).await.text, again.text, "{what}");
            check(&setup, what, &again).await;
            number.fetch_add(1, Ordering::SeqCst);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_number_with_a_key_is_given_to_that_key_alone() {
    let mut given = HashSet::new();
    attack_with_keys(
        Setup::new().await,
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
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_with_a_key_makes_one_customer() {
    let mobile = |number: u64| (9_100_000_000 + number).to_string();
    let adapt =
        |number, body: &mut Value| body["profiles"][0]["identifiers"][0]["value"] = mobile(number).into();
    let mut users = HashSet::new();
    attack_with_keys(Setup::new().await, "/v2/customers", adapt, async |setup, what, answer| {
        let user = answer.json["createdId"].as_u64().unwrap();
        assert!(users.insert(user), "{what}: twice: {answer:?}");
        let mobile = mobile(users.len() as u64 - 1);
        let otp = json!({"entityType": "MOBILE", "entityValue": mobile, "action": "POINTS"});
        assert_eq!(setup.clean.post("/v2/otp/generate", &otp).await.status, 200, "{what}");
        let url = format!("/v2/otp?source=INSTORE&mobile={mobile}&scope=POINTS");
        assert_eq!(setup.clean.get(&url).await.json["userId"], user, "{what}");
    })
    .await;
}

/// However often it is sent, and whatever goes wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_guess_with_a_key_counts_once() {
    let setup = Setup::new().await;
    attack_with_keys(
        setup,
        "/v2/otp/validate",
        |_, _| (),
        async |setup, what, answer| {
            assert_eq!(answer.json["entity"], false, "{what}");
            // One of the hundred that this org allows is used.
            let series = demo_series();
            let found = setup.clean.store.otps_and_attempts(&series, setup.clean.clock.now()).await.unwrap();
            assert_eq!(found.failed_attempts.times().len(), 1, "{what}");
            setup.clean.clock.advance(A_DAY);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_code_with_a_key_is_true_again() {
    let setup = Setup::new().await;
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
}

#[tokio::test(flavor = "multi_thread")]
async fn an_otp_with_a_key_is_issued_once() {
    attack_with_keys(
        Setup::new().await,
        "/v2/otp/generate",
        |_, _| (),
        async |setup, what, _| {
            assert_eq!(setup.clean.issued_otps().await, 1, "{what}");
            setup.clean.clock.advance(A_DAY);
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_customer_gets_more_otps_than_the_day_allows() {
    let setup = Setup::new().await;
    let request = async |service: TestService| service.post("/v2/otp/generate", &otp("")).await;
    setup
        .attack(request, async |what, answer| {
            let issued = setup.clean.issued_otps().await;
            assert!(issued <= 1, "{what}: one request, {issued} OTPs");
            assert!(answer.status == 503 || issued == 1, "{what}: {answer:?}");
            // With the fault gone, what is left of the day's OTPs is issued, and no more.
            let mut refused = None;
            for _ in 0..=DAILY_LIMIT {
                let answer = setup.clean.post("/v2/otp/generate", &otp("")).await;
                if answer.status != 200 {
                    refused = Some(answer);
                    break;
                }
            }
            assert_eq!(refused.unwrap().refusal(), (429, vec![429]), "{what}");
            setup.faults.let_late_through().await;
            assert_eq!(setup.clean.issued_otps().await, DAILY_LIMIT, "{what}");
            setup.clean.clock.advance(A_DAY);
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_otp_is_validated_twice() {
    let setup = Setup::new().await;
    let code = std::sync::Mutex::new(String::new());
    let renew = async || {
        setup.clean.clock.advance(A_DAY);
        setup.clean.issue().await;
        *code.lock().unwrap() = setup.clean.code().await;
    };
    renew().await;
    let current = || code.lock().unwrap().clone();
    let request = async |service: TestService| service.post("/v2/otp/validate", &otp(&current())).await;
    setup
        .attack(request, async |what, answer| {
            let first = answer.status == 200 && answer.json["entity"] == true;
            assert!(first || answer.status == 503, "{what}: the code was right");
            let second = setup.clean.is_right(&current()).await;
            setup.faults.let_late_through().await;
            let third = setup.clean.is_right(&current()).await;
            assert!(!first || !second, "{what}: twice");
            assert!(!third, "{what}: again, after a late verdict");
            // A verdict that nobody heard may have been written, unless the engine never saw it.
            let may_be_written = what.starts_with("answer") || what.starts_with("delay");
            assert!(first || second || may_be_written, "{what}: the OTP is lost");
            renew().await;
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_is_right_or_a_503() {
    let setup = Setup::new().await;
    setup.clean.issue().await;
    let right = setup.clean.fetch().await.text;
    let request = async |service: TestService| service.fetch().await;
    setup
        .attack(request, async |what, answer| {
            assert!(answer.status == 503 || answer.text == right, "{what}: {answer:?}");
            assert_eq!(setup.clean.fetch().await.text, right, "{what}");
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_is_registered_wholly_or_not_at_all() {
    let setup = Setup::new().await;
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
}
