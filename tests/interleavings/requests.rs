//! The table of requests that race. Add every new route to [`requests`].

use http::Method;
use loyalty_codes::{
    model::org::Definition,
    store::{Applied, ApplyError},
};
use serde_json::{Value, json};

use crate::{
    common::{Answer, TestService},
    model::{DAILY_LIMIT, Expected, FAILED_ATTEMPTS, FIRST_CODE, Model},
    state::{FIRST_NUMBER, Run, answer, digits, org},
};

/// Kind of a request. It determines what is prepared before a race and what is checked after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The OTPs of one customer.
    Otps,
    /// The org's card numbers.
    Numbers,
    /// The identifiers of new customers.
    Customers,
    /// The org's numbering plan. Each run has its own org.
    Plan,
    /// The last card number of an org. Each run has its own org. These requests race only among
    /// themselves.
    LastNumber,
}

/// The call that a request makes.
pub enum Call {
    Http(Method, String, Value),
    /// An operator applies the definitions in turn until one is not refused because of possible
    /// duplicate numbers.
    Apply(Vec<Definition>),
}

/// A request that takes part in races.
#[derive(Clone, Copy)]
pub struct Request {
    pub name: &'static str,
    pub kind: Kind,
    /// All requests with an idempotency key share one key in a run.
    pub has_key: bool,
    pub call: fn(&Run) -> Call,
    /// Effect and expected answer of the request if it runs alone. If two answers are allowed, the
    /// actual status decides.
    pub step: fn(&mut Model, Option<u16>) -> Expected,
}

impl Request {
    const fn new(
        name: &'static str,
        kind: Kind,
        call: fn(&Run) -> Call,
        step: fn(&mut Model, Option<u16>) -> Expected,
    ) -> Self {
        Self { name, kind, has_key: false, call, step }
    }

    const fn with_key(self, name: &'static str) -> Self {
        Self { name, has_key: true, ..self }
    }

    pub async fn send(&self, service: TestService, run: &Run) -> Answer {
        match (self.call)(run) {
            Call::Http(method, url, body) => {
                let mut headers = vec![("content-type", "application/json")];
                headers.extend(self.has_key.then_some(("idempotency-key", run.key.as_str())));
                service.send(method, &url, &headers, body.to_string().into()).await
            }
            Call::Apply(definitions) => {
                let mut status = 409;
                for definition in definitions {
                    status = match service.apply(&definition).await {
                        Err(ApplyError::PossibleDuplicate(_)) => continue,
                        Ok(Applied::Updated(_) | Applied::Unchanged) => 200,
                        Err(ApplyError::Concurrent | ApplyError::Busy) => 409,
                        Err(ApplyError::Store(_)) => 503,
                        other => panic!("{other:?}"),
                    };
                    break;
                }
                answer(status, json!({}))
            }
        }
    }
}

/// All requests that race.
pub fn requests() -> Vec<Request> {
    const FETCH: Request = Request::new("fetch", Kind::Otps, Run::fetch, fetched);
    const GENERATE: Request = Request::new("generate", Kind::Otps, |run| run.otp("generate", ""), generated);
    const RIGHT: Request = Request::new(
        "validate, right",
        Kind::Otps,
        |run| run.otp("validate", FIRST_CODE),
        right_code_validated,
    );
    const WRONG: Request = Request::new(
        "validate, wrong",
        Kind::Otps,
        |run| run.otp("validate", "WRONG23"),
        wrong_code_validated,
    );
    const NUMBER: Request =
        Request::new("cardNumber", Kind::Numbers, |_| card_number(Method::GET), number_allocated);
    const POSTED_NUMBER: Request =
        Request::new("cardNumber, POST", Kind::Numbers, |_| card_number(Method::POST), number_allocated);
    const REGISTER: Request = Request::new("register", Kind::Customers, Run::register, registered);
    vec![
        FETCH,
        GENERATE,
        GENERATE.with_key("generate, key"),
        RIGHT,
        RIGHT.with_key("validate, right, key"),
        WRONG,
        WRONG.with_key("validate, wrong, key"),
        NUMBER,
        POSTED_NUMBER.with_key("cardNumber, key"),
        REGISTER,
        REGISTER.with_key("register, key"),
        Request::new(
            "register, explicit number",
            Kind::Customers,
            Run::register_explicit_number,
            explicit_number_registered,
        ),
        Request::new("register, same e-mail", Kind::Customers, Run::register_same_email, |model, _| {
            model.register_with_number(["other mobile", "email"], "other mobile, by number")
        }),
        Request::new("change of plan", Kind::Plan, Run::change_plan, plan_changed),
        Request::new("change of name", Kind::Plan, Run::change_name, name_changed),
        Request { name: "last number", kind: Kind::LastNumber, ..NUMBER },
        Request { kind: Kind::LastNumber, ..POSTED_NUMBER.with_key("last number, key") },
    ]
}

/// Requests that follow a race of these kinds, to check its results. Requests with a key are also
/// sent again.
pub fn follow_ups(kinds: &[Kind]) -> Vec<Request> {
    let of = |kind| move |request: &Request| request.kind == kind && !request.has_key;
    let mut asked = Vec::new();
    if kinds.contains(&Kind::Otps) {
        let otps = requests().into_iter().filter(of(Kind::Otps));
        // A request with a wrong code would show nothing more.
        asked.extend(otps.filter(|request| request.name != "validate, wrong"));
    }
    let number = requests().into_iter().find(of(Kind::Numbers));
    if kinds.contains(&Kind::Numbers) || kinds.contains(&Kind::Plan) {
        asked.extend(number);
    }
    if kinds.contains(&Kind::Plan) {
        // The range of the first plan must exclude every number that was given under it.
        asked.push(Request::new("return to the first plan", Kind::Plan, Run::first_plan, first_plan));
        asked.extend(number);
    }
    asked
}

/// Not a request: its answer is built from the stored items.
pub const LOOKUP: Request = Request::new(
    "identifiers",
    Kind::Customers,
    |_| Call::Http(Method::GET, String::new(), json!({})),
    |model, _| Expected::Owners(model.owners.clone()),
);

fn card_number(method: Method) -> Call {
    Call::Http(method, "/v2/cardNumber".to_owned(), json!({}))
}

impl Run {
    fn fetch(&self) -> Call {
        let url = format!("/v2/otp?source=INSTORE&mobile={}&scope=POINTS", self.mobile(0));
        Call::Http(Method::GET, url, json!({}))
    }

    fn otp(&self, verb: &str, code: &str) -> Call {
        let body = json!({
            "entityType": "MOBILE", "entityValue": self.mobile(0), "action": "POINTS", "code": code,
        });
        Call::Http(Method::POST, format!("/v2/otp/{verb}"), body)
    }

    fn register(&self) -> Call {
        register(&[("mobile", self.mobile(1)), ("email", self.email())])
    }

    fn register_explicit_number(&self) -> Call {
        register(&[("mobile", self.mobile(2)), ("externalId", self.next_number.clone())])
    }

    fn register_same_email(&self) -> Call {
        register(&[("email", self.email()), ("mobile", self.mobile(3))])
    }

    fn change_plan(&self) -> Call {
        Call::Apply(vec![org(self.org, &format!("CONF_CARD_NUMBER_LENGTH = {}", digits(true)))])
    }

    fn change_name(&self) -> Call {
        Call::Apply(vec![Definition { name: "Other Stores".to_owned(), ..org(self.org, "") }])
    }

    fn first_plan(&self) -> Call {
        // A run takes fewer numbers than this.
        let offsets = (0..20).map(|taken| format!("CONF_CARD_NUMBER_OFFSET = {}", FIRST_NUMBER + taken));
        Call::Apply(offsets.map(|offset| org(self.org, &offset)).collect())
    }
}

fn register(identifiers: &[(&str, String)]) -> Call {
    let identifiers: Vec<Value> =
        identifiers.iter().map(|(name, value)| json!({"type": name, "value": value})).collect();
    let body = json!({"profiles": [{"source": "INSTORE", "accountId": "", "identifiers": identifiers}]});
    Call::Http(Method::POST, "/v2/customers".to_owned(), body)
}

fn fetched(model: &mut Model, _status: Option<u16>) -> Expected {
    if model.second_is_valid || model.first_is_valid {
        Expected::Fetched { first: !model.second_is_valid }
    } else {
        Expected::Refused(404)
    }
}

fn generated(model: &mut Model, _status: Option<u16>) -> Expected {
    if model.issued == DAILY_LIMIT {
        return Expected::Refused(429);
    }
    model.issued += 1;
    model.second_is_valid = true;
    Expected::Otp
}

fn right_code_validated(model: &mut Model, status: Option<u16>) -> Expected {
    if model.failed_attempts < FAILED_ATTEMPTS && model.first_is_valid {
        model.first_is_valid = false;
        return Expected::Validated(true);
    }
    wrong_code_validated(model, status)
}

fn wrong_code_validated(model: &mut Model, _status: Option<u16>) -> Expected {
    if model.failed_attempts == FAILED_ATTEMPTS {
        return Expected::Refused(429);
    }
    model.failed_attempts += 1;
    Expected::Validated(false)
}

fn number_allocated(model: &mut Model, status: Option<u16>) -> Expected {
    // Another request may have taken the last number without an answer yet. Then no number is left.
    if model.numbers_left == 1 && model.race_kinds.len() > 1 && status == Some(409) {
        model.last_is_pending = true;
    }
    if model.numbers_left == 0 || model.last_is_pending && status == Some(409) {
        return Expected::Refused(409);
    }
    model.numbers_left -= 1;
    model.last_is_pending = false;
    Expected::Number { digits: model.digits }
}

fn registered(model: &mut Model, _status: Option<u16>) -> Expected {
    model.register_with_number(["second mobile", "email"], "second mobile, by number")
}

fn explicit_number_registered(model: &mut Model, status: Option<u16>) -> Expected {
    // The number may be one that a registration has taken, or the next one.
    if model.number_registered && status == Some(409) {
        return Expected::Refused(409);
    }
    model.register(&["mobile with explicit number", "explicit number"])
}

/// Whether an operator's change is refused because of another operator's concurrent change.
fn is_concurrent_change_refused(model: &Model, status: Option<u16>) -> bool {
    let operators = model.race_kinds.iter().filter(|kind| **kind == Kind::Plan).count();
    operators > 1 && status == Some(409)
}

fn plan_changed(model: &mut Model, status: Option<u16>) -> Expected {
    if is_concurrent_change_refused(model, status) {
        return Expected::Refused(409);
    }
    model.digits = digits(true);
    Expected::Applied
}

fn name_changed(model: &mut Model, status: Option<u16>) -> Expected {
    // The definition has the first plan. That plan could repeat numbers after the plan was changed.
    if is_concurrent_change_refused(model, status) || model.digits == digits(true) {
        return Expected::Refused(409);
    }
    Expected::Applied
}

fn first_plan(model: &mut Model, _status: Option<u16>) -> Expected {
    model.digits = digits(false);
    Expected::Applied
}

impl Model {
    /// Registers all identifiers or none.
    fn register(&mut self, identifiers: &[&'static str]) -> Expected {
        if identifiers.iter().any(|identifier| self.owners.contains_key(identifier)) {
            return Expected::Refused(409);
        }
        for identifier in identifiers {
            self.owners.insert(identifier, self.allocated.len());
        }
        Expected::User
    }

    /// Registers all identifiers, with a generated card number.
    fn register_with_number(&mut self, identifiers: [&'static str; 2], number: &'static str) -> Expected {
        let expected = self.register(&identifiers);
        if matches!(expected, Expected::User) {
            self.number_registered = true;
            self.owners.insert(number, self.allocated.len());
        }
        expected
    }
}
