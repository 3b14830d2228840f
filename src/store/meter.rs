//! Counts what a request asks of DynamoDB.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use aws_sdk_dynamodb::{
    config::{ConfigBag, Intercept, RuntimeComponents, interceptors::BeforeTransmitInterceptorContextRef},
    error::BoxError,
};

tokio::task_local! {
    static ROUND_TRIPS: Arc<AtomicU32>;
}

/// Runs `work` and counts the round trips to DynamoDB made in it, retries included.
pub async fn count_round_trips<T>(work: impl Future<Output = T>) -> (T, u32) {
    let round_trips = Arc::new(AtomicU32::new(0));
    let output = ROUND_TRIPS.scope(Arc::clone(&round_trips), work).await;
    (output, round_trips.load(Ordering::Relaxed))
}

/// Adds one for each attempt that the SDK sends.
#[derive(Debug)]
pub(super) struct Meter;

impl Intercept for Meter {
    fn name(&self) -> &'static str {
        "Meter"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        // Outside of a counted request, as when the connection is warmed, nobody asks for the count.
        let _ = ROUND_TRIPS.try_with(|count| count.fetch_add(1, Ordering::Relaxed));
        Ok(())
    }
}
