//! `loyaltyctl console`: pages for operators, served on loopback for the one who started it.
//!
//! Every change goes through the functions of the command line. [`gate`] decides who may use the
//! pages. They work without script; `console.js` adds copying and the live preview.

mod activity;
mod customers;
mod erasures;
mod form;
mod gate;
mod numbers;
mod page;
mod registration;
mod tills;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use askama::Template;
use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    middleware::{from_fn, from_fn_with_state},
    response::{IntoResponse, Redirect},
    routing::{get, post},
};
use clap::Args;
use loyalty_codes::{
    aws,
    entrypoints::http::{self, Drained, Limits},
    logging::{self, Format},
    model::org::{Org, OrgId},
    store::Store,
};
use serde_json::json;
use tokio::net::TcpListener;

use crate::{Target, failure::Failure, org, output::Output, serve, support::Settle};
pub use activity::Activity;
pub use erasures::Erasures;
use gate::Gate;
use page::{Notice, Page, Refusal, Shell, page};

/// The path of the first page.
pub const HOME: &str = "/console/";

#[derive(Args)]
pub struct Options {
    /// The port of 127.0.0.1 to listen on; 0 is a free one
    #[arg(long, value_name = "PORT", default_value_t = 0, conflicts_with = "listen")]
    port: u16,

    /// Where to listen, if not on 127.0.0.1. Other addresses than loopback need --i-know
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,

    /// Listen on an address that other machines reach, without TLS
    #[arg(long)]
    i_know: bool,

    /// The address of the API, for the commands that try a till
    #[arg(long, value_name = "URL", default_value = "https://API")]
    api: String,

    /// The stack on AWS, for the link to its dashboard [default: what the table's name begins with,
    /// before `-Table-`]
    #[arg(long, value_name = "NAME")]
    stack: Option<String>,

    #[command(flatten)]
    settle: Settle,
}

/// What the pages share.
pub struct Console {
    store: Store,
    /// Who acts, for the audit.
    who: String,
    gate: Gate,
    /// The address of the API.
    api: String,
    dashboard: Option<String>,
    /// The recent requests of the API, if this process serves it.
    activity: Option<Arc<Activity>>,
    /// Messages that the next page shows.
    notices: Mutex<Vec<Notice>>,
    erasures: Erasures,
    /// How long an erasure waits for requests that are under way.
    settle: Duration,
}

impl Console {
    /// The console of `serve` on an embedded DynamoDB, at the address of the API.
    pub fn of_serve(
        store: Store,
        who: String,
        address: SocketAddr,
        activity: Arc<Activity>,
        settle: Duration,
    ) -> Self {
        let api = format!("http://{address}");
        Self {
            erasures: Erasures::in_embedded(),
            settle,
            store,
            who,
            gate: Gate::new(address),
            api,
            dashboard: None,
            activity: Some(activity),
            notices: Mutex::default(),
        }
    }

    /// The address to open, once.
    pub fn url(&self) -> String {
        self.gate.url()
    }

    pub const fn erasures(&self) -> &Erasures {
        &self.erasures
    }

    fn notify(&self, notice: Notice) {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).push(notice);
    }

    fn take_notices(&self) -> Vec<Notice> {
        std::mem::take(&mut *self.notices.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub async fn run(target: &Target, options: &Options, output: &Output) -> Result<(), Failure> {
    let address = options.listen.unwrap_or_else(|| ([127, 0, 0, 1], options.port).into());
    if !address.ip().is_loopback() && !options.i_know {
        return Err(Failure::usage(format!(
            "{address} can be reached from other machines, without TLS. Use a loopback address and a tunnel (ssh -L), or \
             add --i-know"
        )));
    }
    logging::init(Format::Text { ansi: output.colours() })?;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| Failure::failed(format!("cannot listen on {address}: {error}")))?;
    let address = listener.local_addr().map_err(|error| Failure::failed(error.to_string()))?;
    let store = target.store().await?;
    // Fails now rather than on a page.
    output.with_spinner("reading", store.orgs()).await?;
    let console = Arc::new(Console {
        who: target.operator().await?,
        gate: Gate::new(address),
        api: options.api.trim_end_matches('/').to_owned(),
        dashboard: dashboard(target, options, store.table()).await,
        activity: None,
        notices: Mutex::default(),
        erasures: Erasures::in_table(target.endpoint.as_deref(), store.table()),
        settle: options.settle.time(),
        store,
    });
    let erasures = console.erasures().clone();
    let shutdown = serve::shutdown(move || erasures.print_unfinished())
        .map_err(|error| Failure::failed(error.to_string()))?;
    let url = console.url();
    output.print(
        &json!({"url": url, "listens": address.to_string()}),
        &format!("The console is at {url}\nThe address works once, in one browser. Ctrl-C ends the console."),
    )?;
    let pages = Router::new()
        .route("/", get(|| async { Redirect::to(HOME) }))
        .nest_service(HOME.trim_end_matches('/'), nested(&console));
    let pages = guarded(pages, &console);
    let Drained { aborted, .. } = http::serve_pages(pages, listener, Limits::default(), shutdown).await;
    if aborted > 0 {
        tracing::warn!(
            connections = aborted,
            "connections were closed, because their requests did not end in time"
        );
    }
    console.erasures().finish().await
}

/// The address of the stack's dashboard; `None` for a table that is not on AWS.
async fn dashboard(target: &Target, options: &Options, table: &str) -> Option<String> {
    let settings = target.settings().ok().filter(|_| !target.is_local())?;
    let stack = options.stack.as_deref().or_else(|| table.split_once("-Table-").map(|(stack, _)| stack))?;
    let region = aws::of_operator(&settings, None).await.ok()?.region()?.to_string();
    Some(dashboard_url(&region, stack))
}

fn dashboard_url(region: &str, stack: &str) -> String {
    let domain = match region.split('-').next() {
        Some("cn") => "console.amazonaws.cn",
        _ if region.starts_with("us-gov-") => "console.amazonaws-us-gov.com",
        _ => "console.aws.amazon.com",
    };
    format!("https://{region}.{domain}/cloudwatch/home?region={region}#dashboards:name={stack}")
}

/// The console for [`http::serve`], to be nested at [`HOME`].
pub fn nested(console: &Arc<Console>) -> Router {
    guarded(pages(console), console)
}

fn pages(console: &Arc<Console>) -> Router {
    let pages = Router::new()
        .route("/", get(orgs))
        .route(
            "/orgs/{id}",
            get(|Path(id): Path<u32>| async move { Redirect::to(&org_path(OrgId(id), "registration")) }),
        )
        .route("/orgs/{id}/registration", get(registration::show).post(registration::submit))
        .route("/orgs/{id}/registration/preview", post(registration::preview))
        .route("/orgs/{id}/org.toml", get(registration::download))
        .route("/orgs/{id}/numbers", get(numbers::show))
        .route("/orgs/{id}/numbers/take", post(numbers::take))
        .route("/orgs/{id}/numbers/taken/{entry}", get(numbers::taken))
        .route("/orgs/{id}/numbers/taken/{entry}/cards.csv", get(numbers::download))
        .route("/orgs/{id}/tills", get(tills::list))
        .route("/orgs/{id}/tills/create", post(tills::create))
        .route("/orgs/{id}/tills/rotate", post(tills::rotate))
        .route("/orgs/{id}/tills/revoke", post(tills::revoke))
        .route("/orgs/{id}/customers", get(customers::show).post(customers::find))
        .route("/orgs/{id}/customers/{user}", get(customers::customer).post(customers::act))
        .route("/orgs/{id}/contacts", post(customers::act_on_contact))
        .route("/orgs/{id}/activity", get(activity::of_org))
        .route("/activity", get(activity::of_service))
        .method_not_allowed_fallback(not_allowed)
        .route_layer(from_fn_with_state(Arc::clone(console), gate::session));
    let asset = |media_type: &'static str, text: &'static str| {
        get(move || async move { ([(header::CONTENT_TYPE, media_type)], text) })
    };
    pages
        .route("/start", get(gate::start))
        .route("/console.css", asset("text/css; charset=utf-8", include_str!("console.css")))
        .route("/console.js", asset("text/javascript; charset=utf-8", include_str!("console.js")))
        .route("/icon.svg", asset("image/svg+xml", include_str!("icon.svg")))
        .with_state(Arc::clone(console))
}

fn guarded(pages: Router, console: &Arc<Console>) -> Router {
    pages
        .fallback(|| async { Refusal::not_found() })
        .method_not_allowed_fallback(not_allowed)
        .layer(from_fn(bad_request_as_page))
        .layer(from_fn_with_state(Arc::clone(console), gate::guard))
}

async fn not_allowed() -> Refusal {
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "Not allowed", "The page does not take that method.")
}

/// Replaces the plain text with which extractors refuse a path.
async fn bad_request_as_page(
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> axum::response::Response {
    let response = next.run(request).await;
    let is_page =
        response.headers().get(header::CONTENT_TYPE).is_none_or(|it| it != "text/plain; charset=utf-8");
    if response.status() != StatusCode::BAD_REQUEST || is_page {
        return response;
    }
    Refusal::new(StatusCode::BAD_REQUEST, "Not valid", "The address has a part that cannot be read.")
        .into_response()
}

/// The path of a page of an org.
fn org_path(id: OrgId, page: &str) -> String {
    format!("{HOME}orgs/{id}/{page}")
}

#[derive(Template)]
#[template(path = "orgs.html")]
struct OrgsPage {
    shell: Shell,
    orgs: Vec<(OrgId, String)>,
    serves: bool,
}

/// `GET /`: the orgs.
async fn orgs(State(console): State<Arc<Console>>) -> Page {
    let orgs = console.store.orgs().await?;
    page(&OrgsPage { shell: Shell::new(&console, "Orgs"), orgs, serves: console.activity.is_some() })
}

/// The org of a path.
async fn org_of(console: &Console, id: u32) -> Result<Org, Refusal> {
    Ok(org::existing(&console.store, OrgId(id)).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dashboard_is_that_of_the_stack_in_its_region() {
        assert_eq!(
            dashboard_url("ap-south-1", "codes"),
            "https://ap-south-1.console.aws.amazon.com/cloudwatch/home?region=ap-south-1#dashboards:name=codes"
        );
        assert!(dashboard_url("cn-north-1", "codes").starts_with("https://cn-north-1.console.amazonaws.cn/"));
        assert!(dashboard_url("us-gov-west-1", "codes").contains(".console.amazonaws-us-gov.com/"));
    }
}
