//! Data for unit tests.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    org::{Definition, Invalid, Org},
    otp::{Code, CreatedId, Otp},
    phone_number::PhoneNumberPlan,
};
use crate::secret::Secret;

/// The definition of an Indian org whose file also has these keys and tables.
pub fn definition(tables: &Value) -> Definition {
    let mut file = json!({
        "id": 966, "name": "Demo", "timezone": "Asia/Kolkata", "country_code": "91", "national_mobile_length": 10,
    });
    file.as_object_mut().unwrap().extend(tables.as_object().unwrap().clone());
    serde_json::from_value(file).unwrap()
}

/// The problems of a definition.
pub fn problems(definition: &Definition) -> Vec<String> {
    definition.check().err().map_or_else(Vec::new, |Invalid(problems)| problems)
}

/// The org with that definition.
pub fn org(tables: &Value) -> Org {
    Org::new(definition(tables), Secret::new([0; 32])).unwrap()
}

/// The mobile numbers of that org.
pub fn india() -> PhoneNumberPlan {
    definition(&json!({})).phone_number_plan()
}

/// The time that is `seconds` after a fixed one.
pub fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
}

/// An OTP that was issued and expires at these times, in seconds as for [`at`].
pub fn otp(issued: i64, valid_until: i64) -> Otp {
    Otp {
        created_id: CreatedId::earliest(at(issued)),
        code: Code::stored(&format!("CODE{issued}")),
        valid_until: at(valid_until),
        consumed: false,
        sends: 1,
    }
}
