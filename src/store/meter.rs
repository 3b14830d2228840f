//! Counts the calls that a request makes to DynamoDB.

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

/// The calls that a request made to DynamoDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Operations that were called on the SDK.
    pub operations: u32,
    /// Attempts that the SDK sent for these operations, retries included.
    pub round_trips: u32,
}

#[derive(Default)]
struct UsageCounters {
    operations: AtomicU32,
    round_trips: AtomicU32,
}

tokio::task_local! {
    static USAGE_COUNTERS: Arc<UsageCounters>;
}

/// Runs `work` and counts its calls to DynamoDB.
pub async fn count_usage<T>(work: impl Future<Output = T>) -> (T, Usage) {
    let counters = Arc::<UsageCounters>::default();
    let output = USAGE_COUNTERS.scope(Arc::clone(&counters), work).await;
    let usage = Usage {
        operations: counters.operations.load(Ordering::Relaxed),
        round_trips: counters.round_trips.load(Ordering::Relaxed),
    };
    (output, usage)
}

/// Counts each operation and each attempt. Does nothing outside of [`count_usage`].
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
        let _ = USAGE_COUNTERS.try_with(|counters| counters.operations.fetch_add(1, Ordering::Relaxed));
        Ok(())
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let _ = USAGE_COUNTERS.try_with(|counters| counters.round_trips.fetch_add(1, Ordering::Relaxed));
        Ok(())
    }
}
