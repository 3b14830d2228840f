//! Counts the DynamoDB round trips of a client, and the capacity units that they consume.
//!
//! DynamoDB reports units only if a request asks for them, which makes requests and answers longer.
//! Therefore only tests ask. The embedded engine reports the units that were measured on AWS. It
//! reports nothing for a write whose condition fails, although AWS charges for such a write. Such a
//! write counts here as a write of at most 1 KB. All refused writes of the tests are that small.
//! <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html>

use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::{
    config::{ConfigBag, Intercept, RuntimeComponents},
    error::BoxError,
};
use aws_smithy_runtime_api::client::{
    interceptors::context::{AfterDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextMut},
    orchestrator::Metadata,
};
use loyalty_codes::store::edit_body;
use serde_json::Value;

/// Round trips and units of one or more requests.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Consumed {
    pub round_trips: u32,
    pub read_units: f64,
    pub write_units: f64,
}

/// Interceptor for the measured client.
#[derive(Debug, Clone, Default)]
pub struct Capacity(Arc<Mutex<Consumed>>);

impl Capacity {
    /// Returns the consumption since the last call, and resets it.
    pub fn take(&self) -> Consumed {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Intercept for Capacity {
    fn name(&self) -> &'static str {
        "Capacity"
    }

    fn modify_before_retry_loop(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        edit_body(context, |body| {
            body.insert("ReturnConsumedCapacity".to_owned(), "TOTAL".into());
        })
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let body: Value = serde_json::from_slice(context.response().body().bytes().unwrap())?;
        let mut consumed = self.0.lock().unwrap();
        consumed.round_trips += 1;
        match config.load::<Metadata>().unwrap().name() {
            "GetItem" | "BatchGetItem" | "Query" => consumed.read_units += reported(&body),
            "TransactWriteItems" => {
                let refused = body["CancellationReasons"].as_array().map(Vec::len);
                consumed.write_units += refused.map_or_else(|| reported(&body), |writes| 2.0 * units(writes));
            }
            "PutItem" | "UpdateItem" | "DeleteItem" if body["__type"].is_string() => {
                consumed.write_units += 1.0;
            }
            "PutItem" | "UpdateItem" | "DeleteItem" => consumed.write_units += reported(&body),
            operation => panic!("unknown operation {operation}: add it to the reads or the writes"),
        }
        Ok(())
    }
}

/// Units in the answer to one operation, for one table or a list of tables.
fn reported(body: &Value) -> f64 {
    let of_table = |table: &Value| table["CapacityUnits"].as_f64().unwrap();
    match &body["ConsumedCapacity"] {
        Value::Array(tables) => tables.iter().map(of_table).sum(),
        table => of_table(table),
    }
}

fn units(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap())
}
