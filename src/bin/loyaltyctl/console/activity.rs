//! The Activity page: the recent requests of the API that `serve` answers, and what operators did.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use askama::Template;
use axum::extract::{Path, State};
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use loyalty_codes::{api::RequestSummary, model::org::OrgId, store::AuditEntry};

use super::{
    Console, org_of,
    page::{Page, Shell, page},
};
use crate::{audit, support};

/// How many requests are kept.
const KEPT: usize = 500;

/// The longest user agent that is kept, in characters.
const MAX_USER_AGENT: usize = 120;

/// How long ago the acts of operators that the page lists may be.
const LISTED: TimeDelta = TimeDelta::days(90);

/// The recent requests of an API. They contain no identifiers: neither paths nor parameters are
/// kept.
#[derive(Default)]
pub struct Activity(Mutex<VecDeque<Recent>>);

/// A request that was answered.
#[derive(Clone)]
struct Recent {
    at: DateTime<Utc>,
    request: RequestSummary,
}

impl Activity {
    /// Keeps a request, and drops the oldest one if there are too many.
    pub fn record(&self, mut request: RequestSummary) {
        request.user_agent = request.user_agent.chars().take(MAX_USER_AGENT).collect();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Recent { at: Utc::now(), request });
    }

    /// The requests that `is_shown` selects, newest first.
    fn rows(&self, is_shown: impl Fn(&RequestSummary) -> bool) -> Vec<RequestRow> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().rev().filter(|recent| is_shown(&recent.request)).map(RequestRow::new).collect()
    }
}

struct RequestRow {
    at: String,
    status: u16,
    user_agent: String,
    till: String,
    route: String,
    milliseconds: String,
}

impl RequestRow {
    fn new(Recent { at, request }: &Recent) -> Self {
        let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        Self {
            at: at.to_rfc3339_opts(SecondsFormat::Millis, true),
            status: request.status,
            user_agent: or_dash(&request.user_agent),
            till: or_dash(request.till.as_deref().unwrap_or_default()),
            route: or_dash(request.route.as_deref().unwrap_or_default()),
            milliseconds: format!("{:.1}", request.duration.as_secs_f64() * 1e3),
        }
    }
}

#[derive(Template)]
#[template(path = "activity.html")]
struct ActivityPage {
    shell: Shell,
    /// `None` if this process serves no API.
    requests: Option<Vec<RequestRow>>,
    /// `None` on the page of the whole process.
    acts: Option<Vec<ShownAct>>,
}

struct ShownAct {
    /// In the org's time.
    at: String,
    detail: String,
    entry: AuditEntry,
}

/// `GET /activity`: the requests of every org.
pub async fn of_service(State(console): State<Arc<Console>>) -> Page {
    let requests = console.activity.as_ref().map(|activity| activity.rows(|_| true));
    page(&ActivityPage { shell: Shell::new(&console, "Activity"), requests, acts: None })
}

/// `GET …/activity`: the requests of an org, and what operators did for it.
pub async fn of_org(State(console): State<Arc<Console>>, Path(id): Path<u32>) -> Page {
    let org = org_of(&console, id).await?;
    let own = |request: &RequestSummary| request.org == Some(OrgId(id));
    let requests = console.activity.as_ref().map(|activity| activity.rows(own));
    let now = Utc::now();
    let acts = console.store.audit_entries(org.id(), now - LISTED, now).await?;
    let acts = acts.into_iter().map(|entry| ShownAct {
        at: support::time(&org, entry.at),
        detail: audit::detail_in_words(&entry.detail),
        entry,
    });
    page(&ActivityPage {
        shell: Shell::of_org(&console, &org, "activity", "Activity"),
        requests,
        acts: Some(acts.collect()),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_the_recent_requests_are_kept() {
        let activity = Activity::default();
        for status in 0..600 {
            activity.record(RequestSummary {
                route: None,
                org: None,
                till: None,
                status,
                user_agent: "x".repeat(5000),
                duration: Duration::from_micros(1500),
            });
        }
        let rows = activity.rows(|_| true);
        assert_eq!((rows.len(), rows[0].status, rows[KEPT - 1].status), (KEPT, 599, 100));
        assert_eq!((rows[0].user_agent.len(), rows[0].milliseconds.as_str()), (MAX_USER_AGENT, "1.5"));
        assert_eq!((rows[0].till.as_str(), rows[0].route.as_str()), ("-", "-"));
    }
}
