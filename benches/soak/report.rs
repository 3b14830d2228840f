//! The table, and the requirements of the test.

use std::{sync::Arc, time::Duration};

use crate::{
    measure::{Values, memory},
    oracle::Oracle,
    pace::{Pace, SLICE, Slice},
};

/// Slices in a minute.
const MINUTE: usize = 6;
/// The memory in the last third of the time may exceed that in the second third by this fraction.
const MORE_MEMORY: f64 = 0.10;

/// Records the memory of a process every second.
pub async fn watch_memory(process: u32, pace: Arc<Pace>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        pace.has_memory(memory(process, "VmRSS"));
    }
}

/// A line of the table. Latencies are in milliseconds.
pub struct Line {
    pub requests: usize,
    pub median: f64,
    pub p99: f64,
    pub max: f64,
    pub memory: f64,
}

impl Line {
    fn new(slices: &[Slice]) -> Self {
        let latencies = Values::new(slices.iter().flat_map(|slice| slice.latencies.clone()).collect());
        Self {
            requests: latencies.count(),
            median: latencies.median(),
            p99: latencies.percentile(99),
            max: latencies.percentile(100),
            memory: slices.iter().map(|slice| slice.memory).fold(0.0, f64::max),
        }
    }
}

pub struct Report {
    pub slices: Vec<Line>,
    minutes: Vec<Line>,
}

impl Report {
    pub fn new(pace: &Pace) -> Self {
        let slices = pace.slices();
        Self {
            slices: slices.chunks(1).map(Line::new).collect(),
            minutes: slices.chunks(MINUTE).map(Line::new).collect(),
        }
    }

    pub fn print(&self) {
        println!(
            "\n{:>8} {:>9} {:>10} {:>8} {:>8} {:>8}",
            "from s", "requests", "median ms", "p99", "max", "MiB"
        );
        for (at, line) in self.slices.iter().enumerate() {
            let Line { requests, median, p99, max, memory } = line;
            let from = at as u64 * SLICE.as_secs();
            println!("{from:>8} {requests:>9} {median:>10.2} {p99:>8.2} {max:>8.2} {memory:>8.1}");
        }
        println!(
            "\n{:>8} {:>9} {:>10} {:>8} {:>8} {:>8}",
            "minute", "requests", "median ms", "p99", "max", "MiB"
        );
        for (at, line) in self.minutes.iter().enumerate() {
            let Line { requests, median, p99, max, memory } = line;
            println!("{:>8} {requests:>9} {median:>10.2} {p99:>8.2} {max:>8.2} {memory:>8.1}", at + 1);
        }
    }

    /// Prints each requirement with the measured value, and returns whether all are met. Also
    /// prints p99 of minutes: the median of the p99 of a minute's slices.
    pub fn check_requirements(&self, pace: &Pace, oracle: &Oracle) -> bool {
        let mut met = true;
        let mut require = |what: String, is_met: bool| {
            println!("{:<8} {what}", if is_met { "met" } else { "NOT MET" });
            met &= is_met;
        };
        println!();
        let wrong = oracle.wrong();
        wrong.iter().take(20).for_each(|what| println!("wrong: {what}"));
        require(format!("wrong answers: {}, at most 0", wrong.len()), wrong.is_empty());

        let (answered, due) = (pace.answered(), pace.due());
        require(format!("answered: {answered} of {due} that were due"), answered >= due);

        let most = |slices: &[Line]| slices.iter().map(|line| line.memory).fold(0.0, f64::max);
        let third = self.slices.len() / 3;
        let (before, after) = (most(&self.slices[third..third * 2]), most(&self.slices[third * 2..]));
        let limit = before * (1.0 + MORE_MEMORY);
        require(
            format!(
                "memory in the last third: {after:.1} MiB, at most {limit:.1} (second third: {before:.1})"
            ),
            after <= limit,
        );

        // This is not a requirement, because other load on a shared machine makes a minute slow in
        // one run of several.
        let p99 = |slices: &[Line]| Values::new(slices.iter().map(|line| line.p99).collect()).median();
        let mut minutes = self.slices.chunks(MINUTE).map(p99);
        let first = minutes.next().unwrap_or_default();
        match minutes.reduce(f64::max) {
            None => println!("         p99 of the only minute: {first:.2} ms"),
            Some(worst) => println!(
                "         p99 of the first minute: {first:.2} ms, of the worst later one: {worst:.2}"
            ),
        }
        met
    }
}
