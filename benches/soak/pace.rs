//! When requests are due, and how long after that they were answered: a service that stalls is not spared the requests that
//! it keeps from being sent.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// What a slice of the table spans.
pub const SLICE: Duration = Duration::from_secs(10);
/// How long after the end what was due before it may still be sent.
const GRACE: Duration = Duration::from_mins(1);

/// The pace has ended.
pub struct Over;

/// What was seen in a slice of time.
#[derive(Debug, Clone, Default)]
pub struct Slice {
    /// Milliseconds from when each request was due to its answer.
    pub latencies: Vec<f64>,
    /// The most memory that the service had, in MiB.
    pub memory: f64,
}

#[derive(Debug)]
pub struct Pace {
    started: Instant,
    pub lasts: Duration,
    /// Seconds from one request to the next; without, the next is due when somebody asks.
    interval: Option<f64>,
    /// After so many requests it ends, too.
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

    /// So many requests per second, evenly.
    pub fn of(rate: f64, lasts: Duration) -> Self {
        Self::new(Some(1.0 / rate), u64::MAX, lasts)
    }

    /// So many requests, as fast as possible, and no more of them when the time is over.
    #[allow(dead_code, reason = "tests/load.rs has a number of requests, and the soak has none")]
    pub fn of_requests(requests: u64, lasts: Duration) -> Self {
        Self::new(None, requests, lasts)
    }

    /// Waits until the next request is due, and says when that was.
    pub async fn turn(&self) -> Result<Instant, Over> {
        let now = Instant::now();
        let turn = self.given.fetch_add(1, Ordering::Relaxed);
        let due = match self.interval {
            Some(interval) => self.started + Duration::from_secs_f64(interval * turn as f64),
            None => now,
        };
        let end = self.started + self.lasts;
        if turn >= self.requests || due >= end || now > end + GRACE {
            return Err(Over);
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

    /// How many requests were due.
    pub fn due(&self) -> usize {
        let due = self.interval.map_or(0.0, |interval| (self.lasts.as_secs_f64() / interval).floor());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let due = due as usize;
        due
    }
}
