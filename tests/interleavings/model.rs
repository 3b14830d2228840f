//! The oracle: a model of requests that run one after another. Every outcome must agree with it.

use std::collections::BTreeMap;

use crate::{
    common::Answer,
    requests::{Kind, Request},
};

/// The daily limit of OTPs of a customer or a contact. One OTP is issued before the race.
pub const DAILY_LIMIT: usize = 2;
/// Limit of failed attempts. A customer who has reached it is locked out.
pub const FAILED_ATTEMPTS: usize = 1;
/// Code of the OTP that is issued before the race.
pub const FIRST_CODE: &str = "FIRST23";
/// Code that no OTP has.
pub const WRONG_CODE: &str = "WRONG23";

/// How a request ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    Answered(Answer),
    /// The caller was killed, or the answer was a 503. The request may have been carried out or
    /// not.
    Unknown,
}

impl Outcome {
    fn answer(&self) -> Option<&Answer> {
        match self {
            Self::Answered(answer) => Some(answer),
            Self::Unknown => None,
        }
    }
}

/// Kinds of values that are given only once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UniqueValue {
    Number,
    Otp,
    User,
}

/// Expected answer to a request.
#[derive(Debug, Clone)]
pub enum Expected {
    /// A card number, with the number of digits of its plan.
    Number {
        digits: usize,
    },
    Otp,
    User,
    Validated(bool),
    /// Whether the fetched code is the one from before the race.
    Fetched {
        first: bool,
    },
    /// The owner of each identifier, as the user's position in [`Model::allocated`].
    Owners(BTreeMap<&'static str, usize>),
    Applied,
    Refused(u16),
}

/// The stored response of the idempotency key that all requests of a run share.
#[derive(Debug, Clone)]
struct Stored {
    request: &'static str,
    expected: Expected,
    allocated: Option<usize>,
}

/// The OTPs of one owner and scope. The first one is issued before the race.
#[derive(Debug, Clone)]
pub struct Otps {
    first_is_valid: bool,
    second_is_valid: bool,
    issued: usize,
    failed_attempts: usize,
}

impl Otps {
    fn new() -> Self {
        Self { first_is_valid: true, second_is_valid: false, issued: 1, failed_attempts: 0 }
    }

    pub fn fetch(&self) -> Expected {
        if self.second_is_valid || self.first_is_valid {
            Expected::Fetched { first: !self.second_is_valid }
        } else {
            Expected::Refused(404)
        }
    }

    pub fn generate(&mut self) -> Expected {
        if self.issued == DAILY_LIMIT {
            return Expected::Refused(429);
        }
        self.issued += 1;
        self.second_is_valid = true;
        Expected::Otp
    }

    pub fn validate_right(&mut self) -> Expected {
        if self.failed_attempts < FAILED_ATTEMPTS && self.first_is_valid {
            self.first_is_valid = false;
            return Expected::Validated(true);
        }
        self.validate_wrong()
    }

    pub fn validate_wrong(&mut self) -> Expected {
        if self.failed_attempts == FAILED_ATTEMPTS {
            return Expected::Refused(429);
        }
        self.failed_attempts += 1;
        Expected::Validated(false)
    }

    /// Moves the owner's later OTPs to a customer, who has a daily limit of its own. The OTPs and
    /// the failed attempts of the contact still count.
    pub fn register(&mut self) {
        self.issued = 0;
    }
}

/// The state of an org with one customer and one contact.
#[derive(Debug, Clone)]
pub struct Model {
    /// The kind of each request of the race.
    pub race_kinds: Vec<Kind>,
    pub customer: Otps,
    pub contact: Otps,
    pub digits: usize,
    pub numbers_left: usize,
    /// A request was answered that no number is left while one was. Another request must have taken
    /// it.
    pub last_is_pending: bool,
    /// A fault was injected. It may have skipped a number.
    pub number_may_be_skipped: bool,
    pub owners: BTreeMap<&'static str, usize>,
    /// A registration has taken a number. A request may ask for the same number explicitly.
    pub number_registered: bool,
    /// All allocated values. `None` is a value that is not known yet.
    pub allocated: Vec<(UniqueValue, Option<String>)>,
    stored: Option<Stored>,
}

impl Model {
    pub fn new(race_kinds: Vec<Kind>, digits: usize, numbers_left: usize) -> Self {
        Self {
            race_kinds,
            customer: Otps::new(),
            contact: Otps::new(),
            digits,
            numbers_left,
            last_is_pending: false,
            number_may_be_skipped: false,
            owners: BTreeMap::new(),
            number_registered: false,
            allocated: Vec::new(),
            stored: None,
        }
    }

    /// Carries out the request, and returns whether its outcome is possible in the present state.
    fn accepts(&mut self, request: &Request, outcome: &Outcome) -> bool {
        let answer = outcome.answer();
        if let Some(stored) = self.stored.clone().filter(|_| request.has_key) {
            if stored.request != request.name {
                return answer.is_none_or(|answer| answer.status == 422);
            }
            return answer.is_none_or(|answer| self.is_answer(&stored.expected, stored.allocated, answer));
        }
        let expected = (request.step)(self, answer.map(|answer| answer.status));
        let new = match expected {
            Expected::Number { .. } => Some(UniqueValue::Number),
            Expected::Otp => Some(UniqueValue::Otp),
            Expected::User => Some(UniqueValue::User),
            _ => None,
        };
        let allocated = new.map(|new| {
            self.allocated.push((new, None));
            self.allocated.len() - 1
        });
        if request.has_key && !matches!(expected, Expected::Refused(_)) {
            self.stored = Some(Stored { request: request.name, expected: expected.clone(), allocated });
        }
        answer.is_none_or(|answer| self.is_answer(&expected, allocated, answer))
    }

    fn is_answer(&mut self, expected: &Expected, allocated: Option<usize>, answer: &Answer) -> bool {
        let json = &answer.json;
        if let Expected::Refused(status) = expected {
            return answer.status == *status;
        }
        let mut is_allocated =
            |value: Option<String>| value.is_some_and(|value| self.may_equal(allocated.unwrap(), value));
        answer.status == 200
            && match expected {
                Expected::Number { digits } => {
                    let number = json["entity"].as_str().map(str::to_owned);
                    number.as_ref().is_some_and(|number| number.len() == *digits) && is_allocated(number)
                }
                Expected::Otp | Expected::User => {
                    is_allocated(json["createdId"].as_u64().map(|id| id.to_string()))
                }
                Expected::Validated(right) => json["entity"] == *right,
                Expected::Fetched { first } => (json["code"] == FIRST_CODE) == *first,
                Expected::Owners(owners) => {
                    let found = json["owners"].as_object().unwrap();
                    // Identifiers without an owner are absent.
                    let all_found = owners.keys().all(|identifier| found.contains_key(*identifier));
                    let same_users = found.iter().all(|(identifier, user)| {
                        match (owners.get(identifier.as_str()), user.as_u64()) {
                            (None, None) => true,
                            (Some(owner), Some(user)) => self.may_equal(*owner, user.to_string()),
                            _ => false,
                        }
                    });
                    let numbers = json["numbers"].as_array().unwrap();
                    let mut numbers = numbers.iter().filter_map(|number| number.as_str().map(str::to_owned));
                    all_found && same_users && numbers.all(|number| self.is_new(UniqueValue::Number, number))
                }
                Expected::Applied => true,
                Expected::Refused(_) => false,
            }
    }

    /// Returns whether the value at this position is `value`. A value that is not known yet becomes
    /// `value`, if it is unique.
    fn may_equal(&mut self, position: usize, value: String) -> bool {
        let (new, known) = self.allocated[position].clone();
        if let Some(known) = known {
            return known == value;
        }
        let is_new = self.is_unique(new, &value);
        self.allocated[position].1 = Some(value);
        is_new
    }

    fn is_new(&mut self, new: UniqueValue, value: String) -> bool {
        let is_new = self.is_unique(new, &value);
        self.allocated.push((new, Some(value)));
        is_new
    }

    fn is_unique(&self, new: UniqueValue, value: &str) -> bool {
        !self.allocated.iter().any(|(kind, known)| *kind == new && known.as_deref() == Some(value))
    }
}

/// Searches for an order of whole requests that explains all outcomes, and returns the model after
/// it. The requests of the race may come in any order. Each happens once; one with an unknown
/// outcome happens at most once. The `later` requests follow in their order.
pub fn explain(model: &Model, race: &[(&Request, Outcome)], later: &[(&Request, Outcome)]) -> Option<Model> {
    if race.is_empty() {
        let mut model = model.clone();
        if model.last_is_pending && !model.number_may_be_skipped {
            return None;
        }
        let explained = later.iter().all(|(request, outcome)| model.accepts(request, outcome));
        return explained.then_some(model);
    }
    (0..race.len()).find_map(|next| {
        let mut others = race.to_vec();
        let (request, outcome) = others.remove(next);
        let mut next_model = model.clone();
        if next_model.accepts(request, &outcome)
            && let Some(explained) = explain(&next_model, &others, later)
        {
            return Some(explained);
        }
        match outcome {
            Outcome::Unknown => explain(model, &others, later),
            Outcome::Answered(_) => None,
        }
    })
}
