//! The erasures that the console has begun. Each ends half a minute later in the background, so the
//! process waits for them before it ends.

use std::{collections::BTreeSet, sync::Arc};

use loyalty_codes::model::{customer::UserId, org::OrgId};
use tokio::sync::watch;

use crate::{
    failure::Failure,
    org_words::counted,
    output::{print_error, printable},
};

/// Erasures that have begun and not ended.
#[derive(Clone)]
pub struct Erasures {
    state: Arc<watch::Sender<State>>,
    /// What is to be run before `customer erase` finishes one: the program, with the options that
    /// name the table. `None` if the table is gone when the process ends.
    program: Option<String>,
}

#[derive(Default)]
struct State {
    open: BTreeSet<(OrgId, UserId)>,
    failed: BTreeSet<(OrgId, UserId)>,
}

/// An erasure that is open until this is dropped. It has failed unless it was [`done`](Self::done).
pub struct OpenErasure {
    erasures: Erasures,
    customer: (OrgId, UserId),
    is_done: bool,
}

impl Erasures {
    /// The erasures in the table `table` of the DynamoDB at `endpoint`, or of AWS.
    pub fn in_table(endpoint: Option<&str>, table: &str) -> Self {
        let endpoint = endpoint.map_or_else(String::new, |endpoint| format!("--endpoint {endpoint} "));
        let program = format!("loyaltyctl {}", printable(&format!("{endpoint}--table {table}")));
        Self { state: Arc::default(), program: Some(program) }
    }

    /// The erasures in the table of a DynamoDB that ends with this process.
    pub fn in_embedded() -> Self {
        Self { state: Arc::default(), program: None }
    }

    pub fn begin(&self, org: OrgId, user: UserId) -> OpenErasure {
        let customer = (org, user);
        self.state.send_modify(|state| {
            state.open.insert(customer);
        });
        OpenErasure { erasures: self.clone(), customer, is_done: false }
    }

    /// Waits until every erasure has ended, and says so.
    ///
    /// # Errors
    /// A failure when some have failed. What finishes them has been printed.
    pub async fn finish(&self) -> Result<(), Failure> {
        let open = self.state.borrow().open.len();
        if open > 0 {
            print_error(&format!(
                "waiting for {}, for half a minute at most; another signal ends the process at once",
                counted(open, "erasure", "erasures")
            ));
            let mut state = self.state.subscribe();
            // The sender is there, so the wait cannot fail.
            let _ = state.wait_for(|state| state.open.is_empty()).await;
        }
        match self.state.borrow().failed.len() {
            0 => Ok(()),
            failed => {
                self.print_unfinished();
                Err(Failure::failed(format!("{} failed", counted(failed, "erasure", "erasures"))))
            }
        }
    }

    /// Prints what finishes each erasure that has not ended, or has failed.
    pub fn print_unfinished(&self) {
        let state = self.state.borrow();
        for (org, user) in state.open.union(&state.failed) {
            let way = match &self.program {
                Some(program) => format!("run `{program} customer erase --org {org} {user}`"),
                None => "start `serve` again, and erase the customer again".to_owned(),
            };
            print_error(&format!("The erasure of customer {user} of org {org} is not finished: {way}"));
        }
    }
}

impl OpenErasure {
    /// The erasure has ended.
    pub fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for OpenErasure {
    fn drop(&mut self) {
        self.erasures.state.send_modify(|state| {
            state.open.remove(&self.customer);
            if self.is_done {
                state.failed.remove(&self.customer);
            } else {
                state.failed.insert(self.customer);
            }
        });
    }
}
