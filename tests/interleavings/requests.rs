//! The table of requests that race. Add every new route to [`requests`].

use http::Method;
use loyalty_codes::{
    model::org::Definition,
    store::{Applied, ApplyError},
};
use serde_json::{Value, json};

use crate::{
    common::{Answer, TestService},
    model::{Expected, FIRST_CODE, Model, WRONG_CODE},
    state::{FIRST_NUMBER, Run, answer, digits},
};

/// Kind of a request. It determines what is prepared before a race and what is checked after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The OTPs of one customer.
    Otps,
    /// The OTPs of a mobile that is not registered before the race.
    ContactOtps,
    /// The org's card numbers.
    Numbers,
    /// The identifiers of new customers.
    Customers,
    /// The org's numbering plan. Each run has its own org.
    Plan,
}

/// How the org numbers its cards. Requests race only among those with the same numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbering {
    /// One by one, from a large range.
    Single,
    /// One by one, and one number is left. Each run has its own org.
    Last,
    /// In blocks of [`BLOCK_SIZE`]. Each run has its own org.
    Blocks,
}

/// The block size of [`Numbering::Blocks`].
pub const BLOCK_SIZE: u64 = 2;

impl Numbering {
    /// The card-number settings of the org's first plan.
    pub fn config(self) -> String {
        match self {
            Self::Single => String::new(),
            Self::Last => "CONF_CARD_NUMBER_LENGTH = 2\nCONF_CARD_NUMBER_OFFSET = 99".to_owned(),
            Self::Blocks => format!("CONF_CARD_NUMBER_BLOCK_SIZE = {BLOCK_SIZE}"),
        }
    }

    /// The beginning of a race's name.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Single => "",
            Self::Last => "last number: ",
            Self::Blocks => "blocks: ",
        }
    }
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
    pub numbering: Numbering,
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
        Self { name, kind, numbering: Numbering::Single, has_key: false, call, step }
    }

    const fn with_numbering(self, numbering: Numbering) -> Self {
        Self { numbering, ..self }
    }

    const fn with_key(self, name: &'static str) -> Self {
        Self { name, has_key: true, ..self }
    }

    /// Whether a race of both requests can show anything. A contact's OTPs have a partition of
    /// their own. Only the registration of the contact's mobile changes whose they are.
    pub fn races_with(&self, other: &Self) -> bool {
        let is_related = |one: &Self, other: &Self| {
            one.kind != Kind::ContactOtps
                || other.kind == Kind::ContactOtps
                || ["register", "register, key"].contains(&other.name)
        };
        self.numbering == other.numbering && is_related(self, other) && is_related(other, self)
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
    use Kind::{ContactOtps, Customers, Numbers, Otps, Plan};

    const FETCH: Request = Request::new("fetch", Otps, Run::fetch, |model, _| model.customer.fetch());
    const GENERATE: Request =
        Request::new("generate", Otps, |run| run.otp("generate", ""), |model, _| model.customer.generate());
    const RIGHT: Request = Request::new(
        "validate, right",
        Otps,
        |run| run.otp("validate", FIRST_CODE),
        |model, _| model.customer.validate_right(),
    );
    const WRONG: Request = Request::new(
        "validate, wrong",
        Otps,
        |run| run.otp("validate", WRONG_CODE),
        |model, _| model.customer.validate_wrong(),
    );
    const NUMBER: Request =
        Request::new("cardNumber", Numbers, |_| card_number(Method::GET), number_allocated);
    const POSTED_NUMBER: Request =
        Request::new("cardNumber, POST", Numbers, |_| card_number(Method::POST), number_allocated);
    const REGISTER: Request = Request::new("register", Customers, Run::register, registered);
    const REGISTER_NUMBER: Request = Request::new(
        "register, explicit number",
        Customers,
        Run::register_explicit_number,
        explicit_number_registered,
    );
    const CHANGE_PLAN: Request = Request::new("change of plan", Plan, Run::change_plan, plan_changed);
    vec![
        FETCH,
        GENERATE,
        GENERATE.with_key("generate, key"),
        RIGHT,
        RIGHT.with_key("validate, right, key"),
        WRONG,
        WRONG.with_key("validate, wrong, key"),
        Request::new("contact: fetch", ContactOtps, Run::fetch_contact, |model, _| model.contact.fetch()),
        Request::new(
            "contact: generate",
            ContactOtps,
            |run| run.contact_otp("generate", ""),
            |model, _| model.contact.generate(),
        ),
        Request::new(
            "contact: validate, right",
            ContactOtps,
            |run| run.contact_otp("validate", FIRST_CODE),
            |model, _| model.contact.validate_right(),
        ),
        Request::new(
            "contact: validate, wrong",
            ContactOtps,
            |run| run.contact_otp("validate", WRONG_CODE),
            |model, _| model.contact.validate_wrong(),
        ),
        NUMBER,
        POSTED_NUMBER.with_key("cardNumber, key"),
        REGISTER,
        REGISTER.with_key("register, key"),
        REGISTER_NUMBER,
        Request::new("register, same e-mail", Customers, Run::register_same_email, |model, status| {
            model.register_with_number(["other mobile", "email"], "other mobile, by number", status)
        }),
        CHANGE_PLAN,
        Request::new("change of name", Plan, Run::change_name, name_changed),
        NUMBER.with_numbering(Numbering::Last),
        POSTED_NUMBER.with_key("cardNumber, key").with_numbering(Numbering::Last),
        REGISTER.with_numbering(Numbering::Last),
        REGISTER.with_key("register, key").with_numbering(Numbering::Last),
        NUMBER.with_numbering(Numbering::Blocks),
        POSTED_NUMBER.with_key("cardNumber, key").with_numbering(Numbering::Blocks),
        REGISTER.with_numbering(Numbering::Blocks),
        REGISTER_NUMBER.with_numbering(Numbering::Blocks),
        CHANGE_PLAN.with_numbering(Numbering::Blocks),
    ]
}

/// Requests that follow a race of these kinds, to check its results. Requests with a key are also
/// sent again.
pub fn follow_ups(kinds: &[Kind]) -> Vec<Request> {
    let of = |kind| {
        let is_of = move |request: &Request| request.kind == kind && !request.has_key;
        requests().into_iter().filter(is_of).filter(|request| request.numbering == Numbering::Single)
    };
    let mut asked = Vec::new();
    for kind in [Kind::Otps, Kind::ContactOtps] {
        if kinds.contains(&kind) {
            // A request with a wrong code would show nothing more.
            asked.extend(of(kind).filter(|request| !request.name.ends_with("validate, wrong")));
        }
    }
    let number = of(Kind::Numbers).next();
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
        fetch(&self.mobile(0), "POINTS")
    }

    fn fetch_contact(&self) -> Call {
        fetch(&self.mobile(1), "GENERIC")
    }

    fn otp(&self, verb: &str, code: &str) -> Call {
        otp(&self.mobile(0), "POINTS", verb, code)
    }

    fn contact_otp(&self, verb: &str, code: &str) -> Call {
        otp(&self.mobile(1), "GENERIC", verb, code)
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
        Call::Apply(vec![self.definition(&format!("CONF_CARD_NUMBER_LENGTH = {}", digits(true)))])
    }

    fn change_name(&self) -> Call {
        Call::Apply(vec![Definition { name: "Other Stores".to_owned(), ..self.definition("") }])
    }

    fn first_plan(&self) -> Call {
        // A run takes fewer numbers than this.
        let offsets = (0..20).map(|taken| format!("CONF_CARD_NUMBER_OFFSET = {}", FIRST_NUMBER + taken));
        Call::Apply(offsets.map(|offset| self.definition(&offset)).collect())
    }
}

fn fetch(mobile: &str, scope: &str) -> Call {
    let url = format!("/v2/otp?source=INSTORE&mobile={mobile}&scope={scope}");
    Call::Http(Method::GET, url, json!({}))
}

fn otp(mobile: &str, scope: &str, verb: &str, code: &str) -> Call {
    let body = json!({"entityType": "MOBILE", "entityValue": mobile, "action": scope, "code": code});
    Call::Http(Method::POST, format!("/v2/otp/{verb}"), body)
}

fn register(identifiers: &[(&str, String)]) -> Call {
    let identifiers: Vec<Value> =
        identifiers.iter().map(|(name, value)| json!({"type": name, "value": value})).collect();
    let body = json!({"profiles": [{"source": "INSTORE", "accountId": "", "identifiers": identifiers}]});
    Call::Http(Method::POST, "/v2/customers".to_owned(), body)
}

fn number_allocated(model: &mut Model, status: Option<u16>) -> Expected {
    if model.take_number(status) { Expected::Number { digits: model.digits } } else { Expected::Refused(409) }
}

fn registered(model: &mut Model, status: Option<u16>) -> Expected {
    let expected = model.register_with_number(["second mobile", "email"], "second mobile, by number", status);
    if matches!(expected, Expected::User) {
        model.contact.register();
    }
    expected
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
    fn register_with_number(
        &mut self,
        identifiers: [&'static str; 2],
        number: &'static str,
        status: Option<u16>,
    ) -> Expected {
        let is_taken = identifiers.iter().any(|identifier| self.owners.contains_key(identifier));
        if is_taken || !self.take_number(status) {
            return Expected::Refused(409);
        }
        self.number_registered = true;
        self.owners.insert(number, self.allocated.len());
        self.register(&identifiers)
    }

    /// Takes the next card number. Returns whether one is left.
    fn take_number(&mut self, status: Option<u16>) -> bool {
        // Another request may have taken the last number without an answer yet. Then no number is
        // left.
        if self.numbers_left == 1 && self.race_kinds.len() > 1 && status == Some(409) {
            self.last_is_pending = true;
        }
        if self.numbers_left == 0 || self.last_is_pending && status == Some(409) {
            return false;
        }
        self.numbers_left -= 1;
        self.last_is_pending = false;
        true
    }
}
