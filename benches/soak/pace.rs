//! Schedules requests and measures latency from the time at which they are due. So a stall of the
//! service also counts for the requests that it delays.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Duration of a slice of the table.
pub const SLICE: Duration = Duration::from_secs(10);
/// Overdue requests may be sent until this long after the end.
const GRACE: Duration = Duration::from_mins(1);

/// Error: the pace has ended.
pub struct PaceEnded;

/// Measurements of one slice of time.
#[derive(Debug, Clone, Default)]
pub struct Slice {
    /// Latencies in milliseconds, each from the due time to the answer.
    pub latencies: Vec<f64>,
    /// Maximum memory of the service in MiB.
    pub memory: f64,
}

#[derive(Debug)]
pub struct Pace {
    started: Instant,
    pub lasts: Duration,
    /// Seconds between requests. `None`: each request is due at once.
    interval: Option<f64>,
    /// Maximum number of requests.
    requests: u64,
    given: AtomicU64,
    slices: Mutex<Vec<Slice>>,
}

impl Pace {
    fn new(interval: Option<f64>, requests: u64, lasts: Duration) -> Self {
        let slices = lasts.as_secs().div_ceil(SLICE.as_secs()).max(1);
        let slices = vec![Slice::default(); usize::try_from(slices).unwrap()];
        Self {
            started: Instant::now(),
            lasts,
            interval,
            requests,
            given: AtomicU64::new(0),
            slices: Mutex::new(slices),
        }
    }

    pub fn as_fast_as_possible(lasts: Duration) -> Self {
        Self::new(None, u64::MAX, lasts)
    }

    /// An even rate in requests per second.
    pub fn of(rate: f64, lasts: Duration) -> Self {
        Self::new(Some(1.0 / rate), u64::MAX, lasts)
    }

    /// This many requests, as fast as possible, and none after the time is over.
    #[allow(dead_code, reason = "only tests/load.rs uses it")]
    pub fn of_requests(requests: u64, lasts: Duration) -> Self {
        Self::new(None, requests, lasts)
    }

    /// Waits until the next request is due, and returns that time.
    pub async fn next_due(&self) -> Result<Instant, PaceEnded> {
        let now = Instant::now();
        let turn = self.given.fetch_add(1, Ordering::Relaxed);
        let due = match self.interval {
            Some(interval) => self.started + Duration::from_secs_f64(interval * turn as f64),
            None => now,
        };
        let end = self.started + self.lasts;
        if turn >= self.requests || due >= end || now > end + GRACE {
            return Err(PaceEnded);
        }
        sleep_until(due).await;
        Ok(due)
    }

    pub fn answered_since(&self, due: Instant) {
        let milliseconds = due.elapsed().as_secs_f64() * 1e3;
        self.at(due, |slice| slice.latencies.push(milliseconds));
    }

    pub fn has_memory(&self, mib: f64) {
        self.at(Instant::now(), |slice| slice.memory = slice.memory.max(mib));
    }

    fn at(&self, time: Instant, change: impl FnOnce(&mut Slice)) {
        let index = (time - self.started).as_secs() / SLICE.as_secs();
        if let Some(slice) = self.slices.lock().unwrap().get_mut(usize::try_from(index).unwrap()) {
            change(slice);
        }
    }

    pub fn slices(&self) -> Vec<Slice> {
        self.slices.lock().unwrap().clone()
    }

    pub fn answered(&self) -> usize {
        self.slices.lock().unwrap().iter().map(|slice| slice.latencies.len()).sum()
    }

    /// Number of requests that were due.
    pub fn due(&self) -> usize {
        let due = self.interval.map_or(0.0, |interval| (self.lasts.as_secs_f64() / interval).floor());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let due = due as usize;
        due
    }
}
