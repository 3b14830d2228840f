//! What requests do one after another: the oracle that every outcome is held to.

use std::collections::BTreeMap;

use crate::{
    common::Answer,
    requests::{Kind, Request},
};

/// OTPs that the customer may have in a day, of which one was issued before the race.
pub const DAILY_LIMIT: usize = 2;
/// Wrong codes after which the customer is locked out.
pub const FAILED_ATTEMPTS: usize = 1;
/// The code of the OTP that was issued before the race.
pub const FIRST_CODE: &str = "FIRST23";

/// How a request ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    Answered(Answer),
    /// It was killed or told that the service is unavailable: it may have happened or not.
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

/// What no two may have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum New {
    Number,
    Otp,
    User,
}

/// What a request must be answered.
#[derive(Debug, Clone)]
pub enum Expected {
    /// The number has as many digits as its plan says.
    Number {
        digits: usize,
    },
    Otp,
    User,
    Judged(bool),
    /// Whether it is the code of before the race.
    Fetched {
        first: bool,
    },
    /// Who has which identifier, by the position of the user in [`Model::given`].
    Holders(BTreeMap<&'static str, usize>),
    Applied,
    Refused(u16),
}

/// The answer under the idempotency key that all requests of a run share.
#[derive(Debug, Clone)]
struct Stored {
    request: &'static str,
    expected: Expected,
    given: Option<usize>,
}

/// The state of an org with one customer.
#[derive(Debug, Clone)]
pub struct Model {
    /// How many requests of the race are of which kind.
    pub rivals: Vec<Kind>,
    pub first_is_valid: bool,
    pub second_is_valid: bool,
    pub issued: usize,
    pub failed_attempts: usize,
    pub digits: usize,
    pub numbers_left: usize,
    /// A request was told that there is no number left while one was: another request must have got it.
    pub last_is_pending: bool,
    pub holders: BTreeMap<&'static str, usize>,
    /// A registration took a number, which somebody may want by hand.
    pub number_registered: bool,
    /// All that was given, as far as it is known.
    pub given: Vec<(New, Option<String>)>,
    stored: Option<Stored>,
}

impl Model {
    pub fn new(rivals: Vec<Kind>, digits: usize, numbers_left: usize) -> Self {
        Self {
            rivals,
            first_is_valid: true,
            second_is_valid: false,
            issued: 1,
            failed_attempts: 0,
            digits,
            numbers_left,
            last_is_pending: false,
            holders: BTreeMap::new(),
            number_registered: false,
            given: Vec::new(),
            stored: None,
        }
    }

    /// Whether the request, at this moment, may have ended so.
    fn happens(&mut self, request: &Request, outcome: &Outcome) -> bool {
        let answer = outcome.answer();
        if let Some(stored) = self.stored.clone().filter(|_| request.has_key) {
            if stored.request != request.name {
                return answer.is_none_or(|answer| answer.status == 422);
            }
            return answer.is_none_or(|answer| self.is_answer(&stored.expected, stored.given, answer));
        }
        let expected = (request.step)(self, answer.map(|answer| answer.status));
        let new = match expected {
            Expected::Number { .. } => Some(New::Number),
            Expected::Otp => Some(New::Otp),
            Expected::User => Some(New::User),
            _ => None,
        };
        let given = new.map(|new| {
            self.given.push((new, None));
            self.given.len() - 1
        });
        if request.has_key && !matches!(expected, Expected::Refused(_)) {
            self.stored = Some(Stored { request: request.name, expected: expected.clone(), given });
        }
        answer.is_none_or(|answer| self.is_answer(&expected, given, answer))
    }

    fn is_answer(&mut self, expected: &Expected, given: Option<usize>, answer: &Answer) -> bool {
        let json = &answer.json;
        if let Expected::Refused(status) = expected {
            return answer.status == *status;
        }
        let mut is_given = |value: Option<String>| value.is_some_and(|value| self.is(given.unwrap(), value));
        answer.status == 200
            && match expected {
                Expected::Number { digits } => {
                    let number = json["entity"].as_str().map(str::to_owned);
                    number.as_ref().is_some_and(|number| number.len() == *digits) && is_given(number)
                }
                Expected::Otp | Expected::User => {
                    is_given(json["createdId"].as_u64().map(|id| id.to_string()))
                }
                Expected::Judged(right) => json["entity"] == *right,
                Expected::Fetched { first } => (json["code"] == FIRST_CODE) == *first,
                Expected::Holders(holders) => {
                    let found = json["holders"].as_object().unwrap();
                    // Who is not found has nothing.
                    let all_found = holders.keys().all(|identifier| found.contains_key(*identifier));
                    let same_users = found.iter().all(|(identifier, user)| {
                        match (holders.get(identifier.as_str()), user.as_u64()) {
                            (None, None) => true,
                            (Some(holder), Some(user)) => self.is(*holder, user.to_string()),
                            _ => false,
                        }
                    });
                    let numbers = json["numbers"].as_array().unwrap();
                    let mut numbers = numbers.iter().filter_map(|number| number.as_str().map(str::to_owned));
                    all_found && same_users && numbers.all(|number| self.is_new(New::Number, number))
                }
                Expected::Applied => true,
                Expected::Refused(_) => false,
            }
    }

    /// Whether what was given at this position can have been `value`: it is, or nobody else has it.
    fn is(&mut self, position: usize, value: String) -> bool {
        let (new, known) = self.given[position].clone();
        match known {
            Some(known) => known == value,
            None => {
                let is_new = self.is_unique(new, &value);
                self.given[position].1 = Some(value);
                is_new
            }
        }
    }

    fn is_new(&mut self, new: New, value: String) -> bool {
        let is_new = self.is_unique(new, &value);
        self.given.push((new, Some(value)));
        is_new
    }

    fn is_unique(&self, new: New, value: &str) -> bool {
        !self.given.iter().any(|(kind, known)| *kind == new && known.as_deref() == Some(value))
    }
}

/// What the requests must have done, if some order of them explains how all ended: those of the
/// race in any order, each once (where nobody was told how it ended, at most once), then `later`
/// ones in theirs.
pub fn explain(model: &Model, race: &[(&Request, Outcome)], later: &[(&Request, Outcome)]) -> Option<Model> {
    if race.is_empty() {
        let mut model = model.clone();
        if model.last_is_pending {
            return None;
        }
        let explained = later.iter().all(|(request, outcome)| model.happens(request, outcome));
        return explained.then_some(model);
    }
    (0..race.len()).find_map(|next| {
        let mut others = race.to_vec();
        let (request, outcome) = others.remove(next);
        let mut happened = model.clone();
        if happened.happens(request, &outcome)
            && let Some(explained) = explain(&happened, &others, later)
        {
            return Some(explained);
        }
        match outcome {
            Outcome::Unknown => explain(model, &others, later),
            Outcome::Answered(_) => None,
        }
    })
}
