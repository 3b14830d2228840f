//! The table, and what is required of it.

use std::{sync::Arc, time::Duration};

use crate::{
    measure::{Values, memory},
    oracle::Oracle,
    pace::{Pace, SLICE, Slice},
};

/// So many slices are a minute.
const MINUTE: usize = 6;
/// How much worse than at first it may get.
const SLOWER: f64 = 3.0;
/// What the service may have in the last third of the time above what it had in the second: this part of it.
const MORE_MEMORY: f64 = 0.10;

/// Notes what a process has in memory, each second.
pub async fn watch_memory(process: u32, pace: Arc<Pace>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    loop {
        second.tick().await;
        pace.has_memory(memory(process, "VmRSS"));
    }
}

/// A line of the table, latencies in milliseconds.
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

    /// Prints each requirement with what was found, and says whether all are met.
    pub fn verdict(&self, pace: &Pace, oracle: &Oracle) -> bool {
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

        let later = self.minutes.get(1..).unwrap_or_default();
        if later.is_empty() {
            println!("         p99: there is no minute to hold against the first");
            return met;
        }
        // Of the six slices of a minute, so that a hiccup of the machine does not stand for all of it.
        let p99 = |slices: &[Line]| Values::new(slices.iter().map(|line| line.p99).collect()).median();
        let mut minutes = self.slices.chunks(MINUTE).map(p99);
        let limit = minutes.next().unwrap_or_default() * SLOWER;
        let worst = minutes.fold(0.0, f64::max);
        require(
            format!(
                "median p99 of the slices of the worst later minute: {worst:.2} ms, at most {limit:.2} (3 × the first's)"
            ),
            worst <= limit,
        );
        let limit = self.minutes[0].median * SLOWER;
        let within = later.iter().filter(|line| line.p99 <= limit).count();
        let minutes = later.len();
        println!(
            "         {within} of {minutes} later minutes have it within {limit:.2} ms (3 × the first one's median latency)"
        );
        met
    }
}
