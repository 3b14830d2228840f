//! Access tokens.

use serde_json::json;

use super::Operation;
use crate::model::access_token::TokenLifetime;

pub fn issue_token() -> Operation {
    let lifetimes = TokenLifetime::SECONDS;
    let text = json!({"type": ["string", "integer"], "minimum": 0});
    Operation {
        tag: "Access tokens",
        summary: "Get an access token",
        description: "The token stands for the till, in the header `X-CAP-API-OAUTH-TOKEN` or as `Authorization: Bearer`, \
                      until `ttlSeconds` are over or the password that it was got with is revoked. The credentials are \
                      in the body alone. This is the only success with the key `errors`.",
        parameters: Vec::new(),
        body: Some((
            json!({
                "type": "object",
                "required": ["key", "secret"],
                "properties": {"key": text, "secret": text},
            }),
            json!({"key": "store.server", "secret": "server123"}),
        )),
        response: json!({
            "data": {
                "type": "object",
                "required": ["accessToken", "ttlSeconds"],
                "properties": {
                    "accessToken": {"type": "string", "pattern": "^[A-Za-z0-9_-]{43}$"},
                    "ttlSeconds": {
                        "type": "integer",
                        "minimum": lifetimes.start(),
                        "maximum": lifetimes.end(),
                        "description": "The till's `--token-ttl`, 3600 by default",
                    },
                },
            },
            "errors": {"type": "null"},
        }),
        example: json!({
            "data": {"accessToken": "q3Jm0Yx7vV1sXh2cZb8LrTn5KdPwEoUgAiSfCyHlM9k", "ttlSeconds": 3600},
            "errors": null,
        }),
        links: json!({}),
        problems: problems! { ContentTypeUnsupported BodyMalformed CredentialsNotText },
    }
}
