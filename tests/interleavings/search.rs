//! Which call is next: every order, one after another, or a part of them that is spread evenly.
//!
//! A run is replayed from a fresh state for each order, so that nothing needs to be undone. The
//! tree of orders becomes known while it is walked: a request that loses a race makes more calls
//! than it does alone.

use std::collections::HashMap;

/// What happens to a call, other than that DynamoDB does it and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// DynamoDB does it; the answer is lost. The SDK sends it again.
    AnswerLost,
    /// DynamoDB refuses it, in a way that is not tried again.
    Refused,
    /// DynamoDB does it; the caller is gone by then.
    Killed,
}

const MISHAPS: [Mishap; 3] = [Mishap::AnswerLost, Mishap::Refused, Mishap::Killed];

/// One step of an order: the call of which request, and how it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub request: usize,
    pub mishap: Option<Mishap>,
}

/// Orders that begin alike. Those of a node lie in its part of the interval from 0 to 1.
struct Node {
    path: Vec<Choice>,
    low: f64,
    high: f64,
}

/// The orders that are left to run.
pub struct Search {
    /// How many calls each request makes alone.
    calls: Vec<usize>,
    with_mishap: bool,
    /// So many points, spread evenly over the interval, are run. `None`: all orders are.
    samples: Option<u32>,
    pending: Vec<Node>,
    counts: HashMap<(Vec<usize>, bool), f64>,
}

impl Search {
    /// Of requests that make so many calls alone; with one mishap in each order or with none.
    pub fn new(calls: Vec<usize>, with_mishap: bool, samples: Option<u32>) -> Self {
        let all = Node { path: Vec::new(), low: 0.0, high: 1.0 };
        Self { calls, with_mishap, samples, pending: vec![all], counts: HashMap::new() }
    }

    /// How many orders there are, as far as the calls of each request alone tell.
    pub fn expected(&mut self) -> f64 {
        self.count(self.calls.clone(), self.with_mishap)
    }

    /// The next order, of which the beginning is decided.
    pub fn next(&mut self) -> Option<Order<'_>> {
        let node = self.pending.pop()?;
        Some(Order { made: vec![0; self.calls.len()], at: 0, search: self, node })
    }

    /// In how many orders requests with so many calls left can go on, with one mishap (`to_come`)
    /// or none.
    fn count(&mut self, left: Vec<usize>, to_come: bool) -> f64 {
        if left.iter().all(|calls| *calls == 0) {
            return if to_come { 0.0 } else { 1.0 };
        }
        if let Some(known) = self.counts.get(&(left.clone(), to_come)) {
            return *known;
        }
        let mut total = 0.0;
        for request in 0..left.len() {
            if left[request] > 0 {
                for mishap in mishaps(to_come) {
                    let (left, to_come) = after(left.clone(), to_come, Choice { request, mishap });
                    total += self.count(left, to_come);
                }
            }
        }
        self.counts.insert((left, to_come), total);
        total
    }
}

/// What can happen to a call.
fn mishaps(to_come: bool) -> Vec<Option<Mishap>> {
    let mut all = vec![None];
    if to_come {
        all.extend(MISHAPS.map(Some));
    }
    all
}

/// What is left after a choice.
fn after(mut left: Vec<usize>, to_come: bool, Choice { request, mishap }: Choice) -> (Vec<usize>, bool) {
    left[request] = match mishap {
        None => left[request] - 1,
        Some(Mishap::AnswerLost) => left[request],
        Some(Mishap::Refused | Mishap::Killed) => 0,
    };
    (left, to_come && mishap.is_none())
}

/// An order on its way: how it goes on is asked for call by call.
pub struct Order<'a> {
    search: &'a mut Search,
    node: Node,
    /// How many calls of each request were released.
    made: Vec<usize>,
    at: usize,
}

impl Order<'_> {
    /// Which of the requests whose calls `wait` goes on, and how.
    pub fn next(&mut self, waits: &[bool]) -> Choice {
        if self.at == self.node.path.len() {
            self.branch(waits);
        }
        let choice = self.node.path[self.at];
        assert!(waits[choice.request], "a run from the same state went another way");
        self.at += 1;
        self.made[choice.request] += 1;
        choice
    }

    /// Whether the order has its mishap.
    fn to_come(&self) -> bool {
        self.search.with_mishap && self.node.path.iter().all(|choice| choice.mishap.is_none())
    }

    /// Goes on with the first of all that is possible, and leaves the others for later.
    fn branch(&mut self, waits: &[bool]) {
        // One that makes more calls than it did alone has at least this one left.
        let left: Vec<usize> = (0..waits.len())
            .map(|i| if waits[i] { self.search.calls[i].saturating_sub(self.made[i]).max(1) } else { 0 })
            .collect();
        let to_come = self.to_come();
        let mut options = Vec::new();
        for request in (0..waits.len()).filter(|request| waits[*request]) {
            for mishap in mishaps(to_come) {
                let choice = Choice { request, mishap };
                let (left, to_come) = after(left.clone(), to_come, choice);
                options.push((choice, self.search.count(left, to_come).max(1.0)));
            }
        }
        let (low, high) = (self.node.low, self.node.high);
        let total: f64 = options.iter().map(|(_, weight)| weight).sum();
        let mut before = 0.0;
        let mut nodes = Vec::new();
        for (at, (choice, weight)) in options.iter().enumerate() {
            let part = |weight: f64| low + (high - low) * weight / total;
            // The last part ends exactly where the whole does: no point falls between two nodes.
            let end = if at + 1 == options.len() { high } else { part(before + weight) };
            let node =
                Node { path: [&self.node.path[..], &[*choice]].concat(), low: part(before), high: end };
            before += weight;
            if self.search.samples.is_none_or(|samples| node.has_sample(samples)) {
                nodes.push(node);
            }
        }
        nodes.reverse();
        self.node = nodes.pop().expect("the part of a node that is run has a sample");
        self.search.pending.append(&mut nodes);
    }
}

impl Node {
    /// Whether one of so many evenly spread points lies in the node's part.
    fn has_sample(&self, samples: u32) -> bool {
        let points_below = |end: f64| (end * f64::from(samples) + 0.5).floor();
        points_below(self.low) < points_below(self.high)
    }
}

/// Walks all orders of requests that make so many calls.
fn walk(calls: &[usize], with_mishap: bool, samples: Option<u32>) -> Vec<Vec<Choice>> {
    let mut search = Search::new(calls.to_vec(), with_mishap, samples);
    let mut walked = Vec::new();
    while let Some(mut order) = search.next() {
        let mut left = calls.to_vec();
        let mut path = Vec::new();
        while left.iter().any(|calls| *calls > 0) {
            let waits: Vec<bool> = left.iter().map(|calls| *calls > 0).collect();
            let choice = order.next(&waits);
            (left, _) = after(left, false, choice);
            path.push(choice);
        }
        walked.push(path);
    }
    walked
}

#[test]
fn every_order_is_walked_once() {
    let mut orders: Vec<Vec<usize>> = walk(&[3, 4], false, None)
        .iter()
        .map(|path| path.iter().map(|choice| choice.request).collect())
        .collect();
    assert_eq!(orders.len(), 35, "7 over 3");
    orders.sort();
    orders.dedup();
    assert_eq!(orders.len(), 35);
}

#[test]
fn every_call_of_every_order_has_every_mishap() {
    let walked = walk(&[2, 2], true, None);
    let with_mishap = |path: &&Vec<Choice>| path.iter().any(|choice| choice.mishap.is_some());
    let expected = Search::new(vec![2, 2], true, None).expected();
    assert!((expected - walked.iter().filter(with_mishap).count() as f64).abs() < 0.5);
    // 6 orders of 4 calls, each of which can lose its answer.
    let lost = |path: &&Vec<Choice>| path.iter().any(|choice| choice.mishap == Some(Mishap::AnswerLost));
    assert!(walked.iter().filter(lost).count() >= 24);
}

#[test]
fn where_there_are_too_many_they_are_spread_evenly() {
    let walked = walk(&[5, 5, 5], false, Some(300));
    assert_eq!(walked.len(), 300);
    for request in 0..3 {
        let first = walked.iter().filter(|path| path[0].request == request).count();
        assert_eq!(first, 100);
    }
}
