//! Generating card numbers.

use serde_json::json;

use super::{Operation, account_parameters};

pub fn next() -> Operation {
    Operation {
        tag: "Card numbers",
        summary: "Generate the next external ID",
        description: "No number is given twice within an org, ever. One may be skipped, when an answer was lost on \
                      its way for instance. With an `Idempotency-Key`, a request that is sent again gets the same \
                      number. GET and POST do the same; a body only counts as part of what the key stands for.",
        parameters: account_parameters(false).into(),
        body: None,
        response: json!({"entity": {"type": "string", "pattern": "^[0-9A-Za-z]+$"}}),
        example: json!({"entity": "1000000010", "warnings": []}),
        links: json!({}),
        problems: problems! {
            ParameterRepeated SourceUnknown AccountMissing CardNumbersDisabled CardNumbersNotForAccount
            CardNumberSettingsInvalid CardNumberLengthInvalid CardNumbersExhausted
        },
    }
}
