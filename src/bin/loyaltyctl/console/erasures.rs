//! The erasures that the console has begun. Each ends half a minute later in the background, so the
//! process waits for them before it ends.

use std::{collections::BTreeSet, sync::Arc};

use loyalty_codes::{
    model::{customer::UserId, org::OrgId},
    store::Store,
};
use tokio::sync::watch;

use crate::output::{print_error, printable};

/// Erasures that have begun and not ended.
#[derive(Clone)]
pub struct Erasures {
    open: Arc<watch::Sender<BTreeSet<(OrgId, UserId)>>>,
    /// The table, for the command that finishes one.
    table: String,
}

impl Erasures {
    pub fn of(store: &Store) -> Self {
        Self { open: Arc::default(), table: store.table().to_owned() }
    }

    pub fn begin(&self, org: OrgId, user: UserId) {
        self.open.send_modify(|open| {
            open.insert((org, user));
        });
    }

    pub fn end(&self, org: OrgId, user: UserId) {
        self.open.send_modify(|open| {
            open.remove(&(org, user));
        });
    }

    /// Waits until every erasure has ended, and says so.
    pub async fn finish(&self) {
        let count = self.open.borrow().len();
        if count == 0 {
            return;
        }
        print_error(&format!(
            "{count} erasures are finished first, which takes half a minute at most; another signal ends the process at once"
        ));
        let mut open = self.open.subscribe();
        // The sender is there, so the wait cannot fail.
        let _ = open.wait_for(BTreeSet::is_empty).await;
    }

    /// Prints the command that finishes each erasure that has not ended.
    pub fn print_unfinished(&self) {
        for (org, user) in self.open.borrow().iter() {
            print_error(&self.command(*org, *user));
        }
    }

    /// What finishes an erasure.
    fn command(&self, org: OrgId, user: UserId) -> String {
        let table = printable(&self.table);
        format!(
            "The erasure of customer {user} is not finished: run `loyaltyctl --table {table} customer erase --org {org} {user}`"
        )
    }
}
