//! The fetch route as a Rust function with all default features of `aws-config`, `aws-sdk-dynamodb`
//! and `lambda_http`, and with tokio's default runtime.

use std::collections::HashMap;

use aws_sdk_dynamodb::{Client, types::AttributeValue};
use chrono::{TimeDelta, Utc};
use lambda_http::{Body, Error, Request, RequestExt, Response, run, service_fn};

type Item = HashMap<String, AttributeValue>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let config = aws_config::load_from_env().await;
    let client = Client::new(&config);
    let table = std::env::var("TABLE_NAME")?;
    run(service_fn(|request| fetch(&client, &table, request))).await
}

async fn fetch(client: &Client, table: &str, request: Request) -> Result<Response<Body>, Error> {
    let query = request.query_string_parameters();
    let parameter = |name| query.first(name).unwrap_or_default();
    get(client, table, "TILL#store.server", "TILL").await?.ok_or("no such till")?;
    get(client, table, "ORG#966", "ORG").await?.ok_or("no such org")?;
    let (source, account) = (parameter("source"), parameter("accountId"));
    let digits: String = parameter("identifierValue").chars().filter(char::is_ascii_digit).collect();
    let country_code = if digits.len() == 10 { "91" } else { "" };
    let identity = format!("ORG#966#ID#{source}#{account}#mobile#{country_code}{digits}");
    let customer = get(client, table, &identity, "ID").await?.ok_or("no such customer")?;
    let user: u64 = number(&customer, "user_id")?;
    let earliest = (Utc::now() - TimeDelta::days(1)).timestamp_millis() * 1000;
    let scope = parameter("scope");
    let otps = client
        .query()
        .table_name(table)
        .key_condition_expression("#pk = :pk AND #sk BETWEEN :from AND :to")
        .expression_attribute_names("#pk", "PK")
        .expression_attribute_names("#sk", "SK")
        .expression_attribute_values(":pk", AttributeValue::S(format!("ORG#966#USER#{user}")))
        .expression_attribute_values(":from", AttributeValue::S(format!("OTP#{scope}#{earliest:016}")))
        .expression_attribute_values(":to", AttributeValue::S(format!("OTP#{scope}#GUESSES")))
        .consistent_read(true)
        .scan_index_forward(false)
        .send()
        .await?;
    let newest = otps.items().iter().find(|item| item.contains_key("code")).ok_or("no OTP")?;
    let code = newest["code"].as_s().map_err(|_| "a code is text")?;
    let valid_until: i64 = number(newest, "valid_until")?;
    let body = serde_json::json!({"orgId": 966, "userId": user, "code": code, "validUpto": valid_until});
    Ok(Response::new(Body::from(body.to_string())))
}

async fn get(client: &Client, table: &str, pk: &str, sk: &str) -> Result<Option<Item>, Error> {
    let read = client
        .get_item()
        .table_name(table)
        .key("PK", AttributeValue::S(pk.to_owned()))
        .key("SK", AttributeValue::S(sk.to_owned()))
        .consistent_read(true);
    Ok(read.send().await?.item)
}

fn number<T: std::str::FromStr>(item: &Item, name: &str) -> Result<T, Error> {
    let number = item.get(name).and_then(|value| value.as_n().ok()).ok_or("a number is missing")?;
    number.parse().map_err(|_| "a number is none".into())
}
