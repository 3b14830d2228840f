//! Chooses the next call. It runs every order, or an evenly spread sample of the orders.
//!
//! Each order runs from a fresh state, so that nothing must be undone. The tree of orders is
//! discovered during the search, because a request that loses a race makes more calls than it does
//! alone.

use std::collections::HashMap;

/// A fault that is injected into one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InjectedFault {
    /// DynamoDB carries out the call, but its answer is lost. The SDK sends the call again.
    AnswerLost,
    /// DynamoDB refuses the call with an error that is not retried.
    Refused,
    /// DynamoDB carries out the call, but the caller has been killed.
    Killed,
}

const INJECTED_FAULTS: [InjectedFault; 3] =
    [InjectedFault::AnswerLost, InjectedFault::Refused, InjectedFault::Killed];

/// One step of an order: the request whose call is released, and the fault of that call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    pub request: usize,
    pub injected: Option<InjectedFault>,
}

/// Orders with a common beginning. Each node has a part of the interval from 0 to 1.
struct Node {
    path: Vec<Choice>,
    low: f64,
    high: f64,
}

/// The orders that are still to be run.
pub struct Search {
    /// Number of calls that each request makes alone.
    calls: Vec<usize>,
    with_fault: bool,
    /// Number of sample points, spread evenly over the interval. `None` runs all orders.
    samples: Option<u32>,
    pending: Vec<Node>,
    counts: HashMap<(Vec<usize>, bool), f64>,
}

impl Search {
    /// Creates a search over requests that make this many calls alone, with one fault in each order
    /// or none.
    pub fn new(calls: Vec<usize>, with_fault: bool, samples: Option<u32>) -> Self {
        let all = Node { path: Vec::new(), low: 0.0, high: 1.0 };
        Self { calls, with_fault, samples, pending: vec![all], counts: HashMap::new() }
    }

    /// Number of orders, calculated from the calls that each request makes alone.
    pub fn expected(&mut self) -> f64 {
        self.count(self.calls.clone(), self.with_fault)
    }

    /// Returns the next order. Its beginning is fixed.
    pub fn next(&mut self) -> Option<Order<'_>> {
        let node = self.pending.pop()?;
        Some(Order { made: vec![0; self.calls.len()], at: 0, search: self, node })
    }

    /// Number of orders of requests with this many calls left. `fault_left` tells whether the fault
    /// is still to come.
    fn count(&mut self, left: Vec<usize>, fault_left: bool) -> f64 {
        if left.iter().all(|calls| *calls == 0) {
            return if fault_left { 0.0 } else { 1.0 };
        }
        if let Some(known) = self.counts.get(&(left.clone(), fault_left)) {
            return *known;
        }
        let mut total = 0.0;
        for request in 0..left.len() {
            if left[request] > 0 {
                for injected in injected_faults(fault_left) {
                    let (left, fault_left) = after(left.clone(), fault_left, Choice { request, injected });
                    total += self.count(left, fault_left);
                }
            }
        }
        self.counts.insert((left, fault_left), total);
        total
    }
}

/// The possible faults of a call. `None` is no fault.
fn injected_faults(fault_left: bool) -> Vec<Option<InjectedFault>> {
    let mut all = vec![None];
    if fault_left {
        all.extend(INJECTED_FAULTS.map(Some));
    }
    all
}

/// State after a choice: the calls that are left, and whether the fault is still to come.
fn after(mut left: Vec<usize>, fault_left: bool, Choice { request, injected }: Choice) -> (Vec<usize>, bool) {
    left[request] = match injected {
        None => left[request] - 1,
        Some(InjectedFault::AnswerLost) => left[request],
        Some(InjectedFault::Refused | InjectedFault::Killed) => 0,
    };
    (left, fault_left && injected.is_none())
}

/// An order in progress. Its steps are chosen call by call.
pub struct Order<'a> {
    search: &'a mut Search,
    node: Node,
    /// Number of released calls of each request.
    made: Vec<usize>,
    at: usize,
}

impl Order<'_> {
    /// Chooses the request to continue among those that are `waiting`, and the fault of its call.
    pub fn next(&mut self, waiting: &[bool]) -> Choice {
        if self.at == self.node.path.len() {
            self.branch(waiting);
        }
        let choice = self.node.path[self.at];
        assert!(waiting[choice.request], "runs from the same state must make the same calls");
        self.at += 1;
        self.made[choice.request] += 1;
        choice
    }

    /// Whether the fault of the order is still to come.
    fn fault_left(&self) -> bool {
        self.search.with_fault && self.node.path.iter().all(|choice| choice.injected.is_none())
    }

    /// Takes the first possible choice, and stores the others for later orders.
    fn branch(&mut self, waiting: &[bool]) {
        // A request that makes more calls than it did alone has at least this one left.
        let left: Vec<usize> = (0..waiting.len())
            .map(|i| if waiting[i] { self.search.calls[i].saturating_sub(self.made[i]).max(1) } else { 0 })
            .collect();
        let fault_left = self.fault_left();
        let mut options = Vec::new();
        for request in (0..waiting.len()).filter(|request| waiting[*request]) {
            for injected in injected_faults(fault_left) {
                let choice = Choice { request, injected };
                let (left, fault_left) = after(left.clone(), fault_left, choice);
                options.push((choice, self.search.count(left, fault_left).max(1.0)));
            }
        }
        let (low, high) = (self.node.low, self.node.high);
        let total: f64 = options.iter().map(|(_, weight)| weight).sum();
        let mut before = 0.0;
        let mut nodes = Vec::new();
        for (at, (choice, weight)) in options.iter().enumerate() {
            let part = |weight: f64| low + (high - low) * weight / total;
            // The last part ends exactly at the end of the whole, so that no point falls between
            // two nodes.
            let end = if at + 1 == options.len() { high } else { part(before + weight) };
            let node =
                Node { path: [&self.node.path[..], &[*choice]].concat(), low: part(before), high: end };
            before += weight;
            if self.search.samples.is_none_or(|samples| node.has_sample(samples)) {
                nodes.push(node);
            }
        }
        nodes.reverse();
        self.node = nodes.pop().expect("the part of an executed node contains a sample point");
        self.search.pending.append(&mut nodes);
    }
}

impl Node {
    /// Whether one of the evenly spread points lies in the part of the node.
    fn has_sample(&self, samples: u32) -> bool {
        let points_below = |end: f64| (end * f64::from(samples) + 0.5).floor();
        points_below(self.low) < points_below(self.high)
    }
}

/// Walks all orders of requests that make this many calls.
fn walk(calls: &[usize], with_fault: bool, samples: Option<u32>) -> Vec<Vec<Choice>> {
    let mut search = Search::new(calls.to_vec(), with_fault, samples);
    let mut walked = Vec::new();
    while let Some(mut order) = search.next() {
        let mut left = calls.to_vec();
        let mut path = Vec::new();
        while left.iter().any(|calls| *calls > 0) {
            let waiting: Vec<bool> = left.iter().map(|calls| *calls > 0).collect();
            let choice = order.next(&waiting);
            (left, _) = after(left, false, choice);
            path.push(choice);
        }
        walked.push(path);
    }
    walked
}

#[test]
fn every_order_is_visited_once() {
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
fn every_call_of_every_order_has_every_fault() {
    let walked = walk(&[2, 2], true, None);
    let with_fault = |path: &&Vec<Choice>| path.iter().any(|choice| choice.injected.is_some());
    let expected = Search::new(vec![2, 2], true, None).expected();
    assert!((expected - walked.iter().filter(with_fault).count() as f64).abs() < 0.5);
    // Six orders of four calls. Each call can lose its answer.
    let lost =
        |path: &&Vec<Choice>| path.iter().any(|choice| choice.injected == Some(InjectedFault::AnswerLost));
    assert!(walked.iter().filter(lost).count() >= 24);
}

#[test]
fn a_sample_of_orders_is_spread_evenly() {
    let walked = walk(&[5, 5, 5], false, Some(300));
    assert_eq!(walked.len(), 300);
    for request in 0..3 {
        let first = walked.iter().filter(|path| path[0].request == request).count();
        assert_eq!(first, 100);
    }
}
