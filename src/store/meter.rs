//! Counts what a request asks of DynamoDB.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use aws_sdk_dynamodb::{
    config::{
        ConfigBag, Intercept, RuntimeComponents,
        interceptors::{BeforeSerializationInterceptorContextRef, BeforeTransmitInterceptorContextRef},
    },
    error::BoxError,
};

/// What a request asked of DynamoDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Calls of the SDK.
    pub operations: u32,
    /// Attempts that the SDK sent for them.
    pub round_trips: u32,
}

#[derive(Default)]
struct Counters {
    operations: AtomicU32,
    round_trips: AtomicU32,
}

tokio::task_local! {
    static COUNTERS: Arc<Counters>;
}

/// Runs `work` and counts what it asks of DynamoDB.
pub async fn count_usage<T>(work: impl Future<Output = T>) -> (T, Usage) {
    let counters = Arc::<Counters>::default();
    let output = COUNTERS.scope(Arc::clone(&counters), work).await;
    let usage = Usage {
        operations: counters.operations.load(Ordering::Relaxed),
        round_trips: counters.round_trips.load(Ordering::Relaxed),
    };
    (output, usage)
}

/// Adds one for each call and for each attempt. Outside of a counted request, as when the connection is
/// warmed, nobody asks for the count.
#[derive(Debug)]
pub(super) struct Meter;

impl Intercept for Meter {
    fn name(&self) -> &'static str {
        "Meter"
    }

    fn read_before_execution(
        &self,
        _context: &BeforeSerializationInterceptorContextRef<'_>,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let _ = COUNTERS.try_with(|counters| counters.operations.fetch_add(1, Ordering::Relaxed));
        Ok(())
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let _ = COUNTERS.try_with(|counters| counters.round_trips.fetch_add(1, Ordering::Relaxed));
        Ok(())
    }
}
