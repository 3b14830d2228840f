//! The HTTP API: the table of routes, and the steps that every request takes before its handler.
//!
//! A handler reads the parameters, finds the customer, decides and responds. Response bodies and
//! errors are in [`error`]; `params` converts parameters to values of the model.

mod auth;
mod card_number;
mod change_identifier;
mod customer;
mod customer_lookup;
pub mod error;
mod idempotency;
#[cfg(feature = "cli")]
pub mod import;
pub mod metrics;
mod oauth;
#[cfg(feature = "cli")]
pub mod openapi;
mod otp;
mod params;
mod path;

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use crate::{
    cache::Cache,
    clock::Clock,
    logging,
    model::{
        access_token::{TokenDigest, TokenGrant},
        org::{Org, OrgId},
        till::{Permission, Till, TillName},
    },
    store::{IdempotentRequest, Store, Usage, count_usage, error_chain, keys::Key, within},
};
pub use auth::Caller;
use error::{ApiError, Problem, SuccessBody};
use metrics::{Event, EventCounts};
use params::{JsonFields, Params};
pub use path::Path;
use path::PathParameters;

/// A route of the API.
pub struct Route {
    pub method: Method,
    /// The path. `{id}` stands for one segment.
    pub path: &'static str,
    /// The permission that a till needs. `None` for the route that issues access tokens: a till
    /// needs no permission for one, and its credentials are in the body instead of the headers.
    pub permission: Option<Permission>,
    /// Whether it takes an `Idempotency-Key`.
    pub idempotent: bool,
    handler: Handler,
    #[cfg(feature = "cli")]
    describe: fn() -> openapi::Operation,
}

impl Route {
    /// Whether a call changes nothing (RFC 9110, section 9.2.1). Such a `GET` also handles `HEAD`.
    pub fn is_safe(&self) -> bool {
        self.method == Method::GET && self.permission != Some(Permission::CardNumberGenerate)
    }

    /// Whether it handles requests with that method.
    fn handles(&self, method: &Method) -> bool {
        self.method == *method || (self.is_safe() && *method == Method::HEAD)
    }

    /// The segment of `own` that `{id}` stands for. `None` if `own` is not a path of this route.
    fn id_in<'a>(&self, own: &'a str) -> Option<&'a str> {
        let (before, after) = self.path.split_once(ID)?;
        let id = own.strip_prefix(before)?.strip_suffix(after)?;
        (!id.is_empty() && !id.contains('/')).then_some(id)
    }

    /// The name of the route in the log and the metrics.
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

type Handler =
    for<'a> fn(Call<'a>) -> Pin<Box<dyn Future<Output = Result<SuccessBody, ApiError>> + Send + 'a>>;

macro_rules! route {
    ($method:ident $path:literal, $file:ident::$handler:ident) => {
        route!($method $path, permission: None, $file::$handler, idempotent: false)
    };
    ($method:ident $path:literal, $permission:ident, $file:ident::$handler:ident) => {
        route!($method $path, $permission, $file::$handler, idempotent: false)
    };
    ($method:ident $path:literal, $permission:ident, $file:ident::$handler:ident, idempotent: $idempotent:literal) => {
        route!(
            $method $path,
            permission: Some(Permission::$permission),
            $file::$handler,
            idempotent: $idempotent
        )
    };
    ($method:ident $path:literal, permission: $permission:expr, $file:ident::$handler:ident, idempotent: $idempotent:literal) => {
        Route {
            method: Method::$method,
            path: $path,
            permission: $permission,
            idempotent: $idempotent,
            handler: |call| Box::pin($file::$handler(call)),
            #[cfg(feature = "cli")]
            describe: openapi::$file::$handler,
        }
    };
}

/// Stands for a customer's id in the path of a route.
const ID: &str = "{id}";

/// All routes of the API.
pub const ROUTES: &[Route] = &[
    route!(GET "/v2/otp", OtpFetch, otp::fetch),
    route!(POST "/v2/otp/generate", OtpIssue, otp::generate, idempotent: true),
    route!(POST "/v2/otp/validate", OtpValidate, otp::validate, idempotent: true),
    route!(GET "/v2/cardNumber", CardNumberGenerate, card_number::next),
    route!(POST "/v2/cardNumber", CardNumberGenerate, card_number::next, idempotent: true),
    route!(POST "/v2/customers", CustomerRegister, customer::register, idempotent: true),
    route!(GET "/v2/customers/lookup", CustomerRead, customer_lookup::lookup),
    route!(GET "/v2/customers/lookup/customerDetails", CustomerRead, customer_lookup::details),
    route!(GET "/v2/customers/{id}", CustomerRead, customer_lookup::by_id),
    route!(POST "/v2/customers/{id}/changeIdentifier", CustomerUpdate, change_identifier::change, idempotent: true),
    route!(POST "/v3/oauth/token/generate", oauth::issue_token),
];

/// The largest body that is read, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

/// The default time limit of a request.
pub const TIME_LIMIT: Duration = Duration::from_secs(10);

/// A request from any entry point.
#[derive(Debug)]
pub struct Request {
    pub method: Method,
    pub path: Path,
    /// The query string, encoded, without the question mark.
    pub query: String,
    /// Whether API Gateway has decoded the query. Then a space in it may have been sent as a `+`.
    pub query_was_decoded: bool,
    pub headers: HeaderMap,
    /// An entry point may truncate the body at one byte above [`MAX_BODY`].
    pub body: Bytes,
    /// The maximum time until the response. After that, the response is 503.
    pub time_limit: Duration,
    /// Returned as `X-Request-Id`, and part of the log line.
    pub request_id: String,
}

/// A response: a JSON text with its status and headers.
pub type Response = http::Response<String>;

/// What an operator sees of a request that was answered. It contains nothing of the path, the query
/// or the bodies.
#[cfg(feature = "cli")]
#[derive(Debug, Clone)]
pub struct RequestSummary {
    /// Method and path of the route. `None` if there is no such route.
    pub route: Option<String>,
    /// `None` before the caller is known, as is `till`.
    pub org: Option<OrgId>,
    pub till: Option<String>,
    pub status: u16,
    /// As the caller sent it; empty if there is none.
    pub user_agent: String,
    pub duration: Duration,
}

/// Called with each request that was answered.
#[cfg(feature = "cli")]
type RequestListener = Box<dyn Fn(RequestSummary) + Send + Sync>;

/// Called with the key of each message that was stored.
type MessageListener = Box<dyn Fn(Key) + Send + Sync>;

/// The service, with the state that the handlers share.
pub struct App {
    store: Store,
    clock: Clock,
    tills: Cache<TillName, Arc<Till>>,
    tokens: Cache<TokenDigest, Arc<TokenGrant>>,
    orgs: Cache<OrgId, Arc<Org>>,
    message_listener: Option<MessageListener>,
    #[cfg(feature = "cli")]
    request_listener: Option<RequestListener>,
    /// The prefix that paths may have before that of a route, such as `/codes`. Empty if there is
    /// none.
    base_path: String,
    /// Whether the next request is the first one.
    cold: AtomicBool,
}

/// An authenticated request, as a handler gets it.
pub struct Call<'a> {
    app: &'a App,
    request: &'a Request,
    caller: &'a Caller,
    /// The parameters that follow the route's path.
    path_parameters: Option<PathParameters<'a>>,
    /// The segment of the path that `{id}` stands for.
    path_id: Option<String>,
    /// Set if the request has an `Idempotency-Key`.
    idempotent_request: Option<IdempotentRequest>,
    /// The time at which the request began.
    now: DateTime<Utc>,
    events: &'a EventCounts,
}

impl Call<'_> {
    fn params(&self) -> Result<Params, Problem> {
        Params::parse(&self.request.query, self.request.query_was_decoded, self.path_parameters.as_ref())
    }

    fn json_object(&self) -> Result<JsonFields<'_>, Problem> {
        params::json_object(&self.request.headers, &self.request.body)
    }
}

/// The data of a request for the log and the metrics.
#[derive(Default)]
struct RequestTrace {
    route: Option<&'static Route>,
    caller: Option<Caller>,
    events: EventCounts,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("store", &self.store)
            .field("base_path", &self.base_path)
            .finish_non_exhaustive()
    }
}

impl App {
    pub fn new(store: Store, clock: Clock) -> Self {
        Self {
            store,
            clock,
            tills: Cache::default(),
            tokens: Cache::default(),
            orgs: Cache::default(),
            message_listener: None,
            #[cfg(feature = "cli")]
            request_listener: None,
            base_path: String::new(),
            cold: AtomicBool::new(true),
        }
    }

    /// Calls `listener` with the key of each message that was stored. Used where no stream of the
    /// table starts the delivery.
    #[must_use]
    pub fn with_message_listener(self, listener: impl Fn(Key) + Send + Sync + 'static) -> Self {
        Self { message_listener: Some(Box::new(listener)), ..self }
    }

    /// Calls `listener` with each request that was answered.
    #[cfg(feature = "cli")]
    #[must_use]
    pub fn with_request_listener(self, listener: impl Fn(RequestSummary) + Send + Sync + 'static) -> Self {
        Self { request_listener: Some(Box::new(listener)), ..self }
    }

    /// Sets the path that a custom domain maps to the service, such as `/codes`. Empty if there is
    /// none.
    #[must_use]
    pub fn with_base_path(self, base_path: String) -> Self {
        Self { base_path, ..self }
    }

    /// Handles a request and writes its log line.
    pub async fn handle(&self, request: Request) -> Response {
        let started = Instant::now();
        let mut trace = RequestTrace::default();
        let work = async {
            // Boxed, because otherwise each enclosing future would hold a copy of it on the stack.
            let processing = Box::pin(self.process(&request, &mut trace));
            let result = within(request.time_limit, processing).await;
            result.unwrap_or_else(|elapsed| Err(ApiError::caused_by(Problem::Unavailable, elapsed)))
        };
        let (result, usage) = count_usage(work).await;
        let mut response = respond(&result, &request.request_id);
        if request.method == Method::HEAD {
            // The header has the length of the response to a GET.
            let length = HeaderValue::from(response.body().len());
            response.headers_mut().insert(header::CONTENT_LENGTH, length);
            response.body_mut().clear();
        }
        let cold_start = self.cold.swap(false, Ordering::Relaxed);
        log(&request, &trace, &result, response.status(), usage, cold_start, started);
        #[cfg(feature = "cli")]
        if let Some(listener) = &self.request_listener {
            listener(summary(&request, &trace, response.status(), started));
        }
        response
    }

    async fn process(&self, request: &Request, trace: &mut RequestTrace) -> Result<String, ApiError> {
        let now = self.clock.now();
        let Target { route, path_parameters, path_id } =
            find_route(&request.method, &request.path, &self.base_path)?;
        trace.route = Some(route);
        if request.body.len() > MAX_BODY {
            return Err(Problem::BodyTooLarge.into());
        }
        let caller = match route.permission {
            Some(_) => self.authenticate(&request.headers).await?,
            None => self.authenticate_by_body(request).await?,
        };
        let caller = trace.caller.insert(caller);
        if route.permission.is_some_and(|permission| !caller.till.may(permission)) {
            return Err(Problem::NotPermitted.into());
        }
        if !caller.org.config().v2_enabled {
            return Err(Problem::V2NotEnabled.into());
        }
        let idempotent_request = if route.idempotent {
            idempotency::read(request, route, path_id.as_deref(), caller, now)?
        } else {
            None
        };
        if let Some(idempotent_request) = &idempotent_request
            && let Some(body) = self.stored_response(idempotent_request).await?
        {
            return Ok(body.into_json());
        }
        let call = Call {
            app: self,
            request,
            caller,
            path_parameters,
            path_id,
            idempotent_request,
            now,
            events: &trace.events,
        };
        Ok((route.handler)(call).await?.into_json())
    }
}

/// What the path of a request names.
struct Target<'a> {
    route: &'static Route,
    /// The parameters that follow the route's path.
    path_parameters: Option<PathParameters<'a>>,
    path_id: Option<String>,
}

/// The target of a method and a path.
fn find_route<'a>(method: &Method, path: &'a Path, base_path: &str) -> Result<Target<'a>, ApiError> {
    // A gateway may have removed the base path already, and a base path may look like the beginning
    // of a route.
    let resolved = Some(path.resolve("")).filter(|(own, _)| routes_of(own).next().is_some());
    let (own, path_parameters) = resolved.unwrap_or_else(|| path.resolve(base_path));
    if let Some((route, id)) = routes_of(&own).find(|(route, _)| route.handles(method)) {
        let path_id = id.map(str::to_owned);
        return Ok(Target { route, path_parameters, path_id });
    }
    let allow: Vec<&str> = routes_of(&own).flat_map(|(route, _)| allowed_methods(route)).collect();
    if allow.is_empty() {
        Err(Problem::RouteUnknown.into())
    } else {
        Err(ApiError::method_not_allowed(allow.join(", ")))
    }
}

/// The routes with that path, and the segments that `{id}` stands for. A path that is the whole
/// path of a route, such as that of a lookup, contains no id.
fn routes_of(own: &str) -> impl Iterator<Item = (&'static Route, Option<&str>)> {
    let is_whole = ROUTES.iter().any(|route| route.path == own);
    ROUTES.iter().filter_map(move |route| {
        let id = if is_whole { (route.path == own).then_some(None)? } else { Some(route.id_in(own)?) };
        Some((route, id))
    })
}

/// The methods that a route handles.
fn allowed_methods(route: &Route) -> impl Iterator<Item = &str> {
    std::iter::once(route.method.as_str()).chain(route.is_safe().then_some("HEAD"))
}

/// The response to a request that an entry point refuses, with the body and headers of `problem`.
pub fn refuse(problem: Problem, request_id: &str) -> Response {
    respond(&Err(problem.into()), request_id)
}

fn respond(result: &Result<String, ApiError>, request_id: &str) -> Response {
    let (status, body, headers) = match result {
        Ok(json) => (StatusCode::OK, json.clone(), Vec::new()),
        Err(error) => {
            let body = serde_json::to_string(&error.body()).unwrap_or_default();
            (error.status(), body, error.headers())
        }
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert("x-request-id", id);
    }
    response.headers_mut().extend(headers);
    response
}

#[cfg(feature = "cli")]
fn summary(request: &Request, trace: &RequestTrace, status: StatusCode, started: Instant) -> RequestSummary {
    let user_agent = request.headers.get(header::USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    RequestSummary {
        route: trace.route.map(Route::name),
        org: trace.caller.as_ref().map(|caller| caller.org.id()),
        till: trace.caller.as_ref().map(|caller| caller.till.name.to_string()),
        status: status.as_u16(),
        user_agent: String::from_utf8_lossy(user_agent).into_owned(),
        duration: started.elapsed(),
    }
}

/// Writes the log line of a request. It contains nothing of the path, the query or the bodies,
/// because these contain personal data. Fields that begin with a capital letter are metrics. They
/// are present only if there is something to count.
fn log(
    request: &Request,
    trace: &RequestTrace,
    result: &Result<String, ApiError>,
    status: StatusCode,
    usage: Usage,
    cold_start: bool,
    started: Instant,
) {
    let error = result.as_ref().err();
    let none = || "none".to_owned();
    let retries = usage.round_trips.saturating_sub(usage.operations);
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: logging::REQUEST,
                request_id = request.request_id,
                route = trace.route.map_or_else(none, Route::name),
                status = status.as_u16(),
                org = trace.caller.as_ref().map_or_else(none, |caller| caller.org.id().to_string()),
                till = trace.caller.as_ref().map(|caller| caller.till.name.as_str()),
                outcome = error.map_or_else(|| "ok".to_owned(), |error| error.code_list().join(",")),
                ms = (started.elapsed().as_secs_f64() * 1e6).round() / 1e3,
                round_trips = usage.round_trips,
                cause = error.and_then(ApiError::cause).map(error_chain),
                ColdStarts = cold_start.then_some(1),
                DynamoDbRetries = (retries > 0).then_some(retries),
                OtpsIssued = trace.events.get(Event::OtpIssued),
                OtpsToDeliver = trace.events.get(Event::OtpToDeliver),
                OtpsFetched = trace.events.get(Event::OtpFetched),
                OtpsValidated = trace.events.get(Event::OtpValidated),
                OtpsRefused = trace.events.get(Event::OtpRefused),
                CardNumbersGenerated = trace.events.get(Event::CardNumberGenerated),
                CardNumberRangeUsed = trace.events.get(Event::CardNumberRangeUsed),
                "request"
            )
        };
    }
    // Errors of the service raise an alarm. Errors of the caller do not, and requests that compete
    // for one customer either.
    if error.is_some_and(ApiError::is_about_contention) {
        line!(warn);
    } else if status.is_server_error() {
        line!(error);
    } else {
        line!(info);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_path_that_begins_like_a_route_hides_none() {
        for path in ["/v2/v2/cardNumber", "/v2/cardNumber"].map(|path| Path::Encoded(path.to_owned())) {
            let target = find_route(&Method::GET, &path, "/v2").unwrap_or_else(|_| panic!("{path:?}"));
            assert_eq!(target.route.path, "/v2/cardNumber", "{path:?}");
        }
    }

    #[test]
    fn a_segment_of_a_path_may_be_an_id() {
        let id = |method: &Method, path: &str| {
            let path = Path::Encoded(path.to_owned());
            find_route(method, &path, "").ok().map(|target| (target.route.path, target.path_id))
        };
        let five = Some("5".to_owned());
        assert_eq!(id(&Method::GET, "/v2/customers/5/"), Some(("/v2/customers/{id}", five.clone())));
        let change = "/v2/customers/{id}/changeIdentifier";
        assert_eq!(id(&Method::POST, "/v2/customers/5/changeIdentifier"), Some((change, five)));
        assert_eq!(id(&Method::GET, "/v2/customers/lookup"), Some(("/v2/customers/lookup", None)));
    }
}
