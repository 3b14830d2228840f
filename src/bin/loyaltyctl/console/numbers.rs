//! The Numbers page: how much of an org's range is used, the plans that there were, and numbers for
//! printing.

use std::{convert::Infallible, sync::Arc};

use askama::Template;
use axum::{
    Extension,
    body::Body,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Redirect},
};
use bytes::Bytes;
use chrono::{TimeDelta, Utc};
use futures_util::stream;
use loyalty_codes::{
    model::{
        card_number::{NumberingPlan, history::IssuedRange, permutation::PermutationKey},
        org::{Org, OrgId},
    },
    store::{AuditEntry, error_chain},
};

use super::{
    Console,
    form::Form,
    org_of, org_path,
    page::{Notice, Page, Shell, ShownProblem, page, page_with},
};
use crate::{
    failure::Failure,
    numbers::{self, MAX_COUNT, Preview, TAKE, Taken},
    support,
};

/// How long ago numbers that the page lists may have been taken.
const LISTED: TimeDelta = TimeDelta::days(366);

#[derive(Template)]
#[template(path = "numbers.html")]
struct NumbersPage {
    shell: Shell,
    id: OrgId,
    /// `None` for an org without a plan.
    range: Option<Range>,
    plans: Vec<Plan>,
    /// Each with its time in the org's time zone.
    taken: Vec<(String, AuditEntry)>,
    /// What is wrong with the form for taking numbers.
    problems: Vec<ShownProblem>,
    /// What it says.
    count: String,
    /// Allows the form for taking numbers to be sent once.
    once: String,
}

/// How much of the range of the current plan is used.
struct Range {
    given: u64,
    whole: u64,
    percent: f64,
    /// Until when they last, in words.
    until: String,
    preview: Preview,
}

/// A plan under which numbers were given.
struct Plan {
    is_current: bool,
    format: String,
    first: String,
    last: String,
    given: u64,
}

#[derive(Template)]
#[template(path = "take.html")]
struct TakePage {
    shell: Shell,
    id: OrgId,
    count: u64,
    /// The plan whose numbers the page shows.
    plan: String,
    first: String,
    left: u64,
    once: String,
}

#[derive(Template)]
#[template(path = "taken.html")]
struct TakenPage {
    shell: Shell,
    id: OrgId,
    entry: String,
    count: u64,
    first: String,
    last: String,
}

/// `GET …/numbers`.
pub async fn show(State(console): State<Arc<Console>>, Path(id): Path<u32>) -> Page {
    let org = org_of(&console, id).await?;
    show_with(&console, &org, StatusCode::OK, "", None).await
}

/// The page, with what is wrong with the `count` of its form.
async fn show_with(
    console: &Console,
    org: &Org,
    status: StatusCode,
    count: &str,
    problem: Option<String>,
) -> Page {
    let id = org.id();
    let current = console.store.issued_card_numbers(id).await?;
    let retired = console.store.retired_card_numbers(id).await?;
    let key = &org.permutation_key;
    let plans = current.iter().map(|range| plan(range, true, key));
    let plans = plans.chain(retired.iter().rev().map(|range| plan(range, false, key)));
    let plans = plans.collect();
    let now = Utc::now();
    let taken = console.store.audit_entries(id, now - LISTED, now).await?.into_iter();
    let taken = taken.filter(|entry| entry.what == TAKE);
    let taken = taken.map(|entry| (support::time(org, entry.at), entry)).collect();
    let range = match &current {
        Some(current) => Some(range(console, org, current).await?),
        None => None,
    };
    page_with(
        status,
        &NumbersPage {
            range,
            plans,
            taken,
            problems: problem.into_iter().map(|text| ShownProblem::of("count", text)).collect(),
            count: count.to_owned(),
            once: console.gate.open_form(),
            shell: Shell::of_org(console, org, "numbers", "Numbers"),
            id,
        },
    )
}

async fn range(console: &Console, org: &Org, current: &IssuedRange) -> Result<Range, Failure> {
    let offset = current.plan.offset();
    let given = current.next.saturating_sub(offset);
    let preview = Preview::new(&current.plan, current.next, &org.permutation_key);
    let now = Utc::now();
    let rate = numbers::rate(&console.store, org.id(), current, now).await?;
    // Noted as by `numbers preview`. Without it, a later rate is less exact.
    if let Err(error) = console.store.write_reading(org.id(), current, now).await {
        tracing::warn!(cause = error_chain(&error), "the counter could not be noted for later rates");
    }
    Ok(Range {
        given,
        whole: current.plan.end() - offset,
        percent: if given == 0 { 0.0 } else { current.plan.percent_used(current.next - 1) },
        until: numbers::outlook(rate.as_ref(), preview.left, now),
        preview,
    })
}

fn plan(range: &IssuedRange, is_current: bool, key: &PermutationKey) -> Plan {
    let given = range.next - range.first;
    let number = |value| if given == 0 { "none yet".to_owned() } else { range.plan.number(value, key) };
    Plan {
        is_current,
        format: range.plan.format(),
        first: number(range.first),
        last: number(range.next.saturating_sub(1)),
        given,
    }
}

/// `POST …/numbers/take`: asks, and takes when that was confirmed.
pub async fn take(
    State(console): State<Arc<Console>>,
    Path(id): Path<u32>,
    Extension(form): Extension<Form>,
) -> Page {
    console.gate.close_form(form.text("once"))?;
    let org = org_of(&console, id).await?;
    let id = org.id();
    let typed = form.text("count").trim();
    let Some(count) = typed.parse::<u64>().ok().filter(|count| (1..=MAX_COUNT).contains(count)) else {
        let problem = format!("How many numbers must be a whole number from 1 to {MAX_COUNT}");
        return show_with(&console, &org, StatusCode::UNPROCESSABLE_ENTITY, typed, Some(problem)).await;
    };
    if form.text("confirmed") != "yes" {
        return ask(&console, id, count).await;
    }
    let (org, plan) = numbers::numbering(&console.store, id).await?;
    if named(&plan) != form.text("plan") {
        let problem =
            "The org has another numbering plan since the page was shown. No numbers were taken".to_owned();
        return show_with(&console, &org, StatusCode::CONFLICT, typed, Some(problem)).await;
    }
    match numbers::take_numbers(&console.store, &console.who, id, count, |_| Ok(())).await {
        Ok(taken) => {
            console.notify(Notice::done(format!("{count} numbers were taken. Nobody else gets them.")));
            Ok(Redirect::to(&taken_path(id, &taken.id)).into_response())
        }
        Err(failure) if failure.is_refusal() => {
            show_with(&console, &org, StatusCode::CONFLICT, typed, Some(failure.to_string())).await
        }
        Err(failure) => Err(failure.into()),
    }
}

fn taken_path(id: OrgId, entry: &str) -> String {
    org_path(id, &format!("numbers/taken/{entry}"))
}

/// The plan in a form, to see whether it is another one when the form is sent.
fn named(plan: &NumberingPlan) -> String {
    format!("{}/{}", plan.format(), plan.offset())
}

async fn ask(console: &Console, id: OrgId, count: u64) -> Page {
    let (org, plan) = numbers::numbering(&console.store, id).await?;
    let current = console.store.issued_card_numbers(id).await?;
    let next = current.map_or_else(|| plan.offset(), |current| current.next);
    let left = plan.end().saturating_sub(next);
    if count > left {
        let problem = format!("Only {left} numbers of the plan are left");
        return show_with(console, &org, StatusCode::CONFLICT, &count.to_string(), Some(problem)).await;
    }
    page(&TakePage {
        shell: Shell::of_org(console, &org, "numbers", format!("Take {count} numbers?")),
        id,
        count,
        plan: named(&plan),
        first: plan.number(next, &org.permutation_key),
        left,
        once: console.gate.open_form(),
    })
}

/// `GET …/numbers/taken/{entry}`: numbers that were taken.
pub async fn taken(State(console): State<Arc<Console>>, Path((id, entry)): Path<(u32, String)>) -> Page {
    let taken = numbers::taken_numbers(&console.store, OrgId(id), &entry).await?;
    let (count, (first, last)) = (taken.count(), taken.ends());
    let Taken { id: entry, numbers } = taken;
    page(&TakenPage {
        shell: Shell::of_org(&console, &numbers.org, "numbers", "Numbers that were taken"),
        id: numbers.org.id(),
        entry,
        count,
        first,
        last,
    })
}

/// `GET …/numbers/taken/{entry}/cards.csv`: their file, as `loyaltyctl numbers taken` writes it.
pub async fn download(State(console): State<Arc<Console>>, Path((id, entry)): Path<(u32, String)>) -> Page {
    let taken = numbers::taken_numbers(&console.store, OrgId(id), &entry).await?;
    let name: String = entry.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8; header=present".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"org-{id}-numbers-{name}.csv\"")),
    ];
    Ok((headers, Body::from_stream(stream::iter(chunks(taken.lines())))).into_response())
}

/// The lines of a file, in pieces of some kilobytes.
fn chunks(
    lines: impl Iterator<Item = String> + Send,
) -> impl Iterator<Item = Result<Bytes, Infallible>> + Send {
    let mut lines = lines.peekable();
    std::iter::from_fn(move || {
        lines.peek()?;
        let mut chunk = String::new();
        while chunk.len() < 16 * 1024
            && let Some(line) = lines.next()
        {
            chunk.push_str(&line);
            chunk.push('\n');
        }
        Some(Ok(Bytes::from(chunk)))
    })
}
