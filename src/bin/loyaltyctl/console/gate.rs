//! Who may use the console: the browser that opened the printed address first, on requests that
//! come from the console's own pages.
//!
//! - The address holds a secret that works once and becomes a session cookie. No other browser,
//!   user or page gets that cookie.
//! - `Host` must name the address that the console listens on, so that a domain name that an
//!   attacker points at it (DNS rebinding) gets no answer.
//! - `Origin` and `Sec-Fetch-Site` must not name another page, and each form has a token that only
//!   the console's pages know.
//! - Every response, also that to a refused request, has the headers of [`secure`].

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody, to_bytes},
    extract::{RawQuery, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use loyalty_codes::secret::{Secret, os_rng};
use rand::Rng;
use subtle::ConstantTimeEq;
use tokio::time::timeout;

use super::{Console, HOME, form::Form, page::Refusal};

/// The largest form that is read, in bytes. An org's file can have 400 KB.
const MAX_FORM: usize = 512 * 1024;

/// The time limit for the body of a form.
const FORM_TIME: Duration = Duration::from_secs(30);

/// How many forms can be open that may be sent once.
const MAX_OPEN_FORMS: usize = 1000;

/// The secrets of the console, and the address that it is reached at.
pub struct Gate {
    address: SocketAddr,
    /// The secret in the printed address; `None` once it was used.
    key: Mutex<Option<Secret<String>>>,
    session: Secret<String>,
    form_token: Secret<String>,
    /// The tokens of forms that were shown and not sent yet, oldest first.
    open_forms: Mutex<VecDeque<String>>,
}

impl Gate {
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            key: Mutex::new(Some(Secret::new(random_token()))),
            session: Secret::new(random_token()),
            form_token: Secret::new(random_token()),
            open_forms: Mutex::default(),
        }
    }

    /// The address to open, with the secret in it while that can be used.
    pub fn url(&self) -> String {
        let key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        let base = format!("http://{}", self.address);
        match key.as_ref() {
            Some(key) => format!("{base}{HOME}start?key={}", key.expose()),
            None => format!("{base}{HOME}"),
        }
    }

    /// The token that every form must have.
    pub fn form_token(&self) -> &str {
        self.form_token.expose()
    }

    /// A token for a form that may be sent once.
    pub fn open_form(&self) -> String {
        let token = random_token();
        let mut open = self.open_forms.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() == MAX_OPEN_FORMS {
            open.pop_front();
        }
        open.push_back(token.clone());
        token
    }

    /// Takes a form of [`Self::open_form`], which is accepted once.
    ///
    /// # Errors
    /// A refusal when it was sent before, or was never opened.
    pub fn close_form(&self, token: &str) -> Result<(), Refusal> {
        let mut open = self.open_forms.lock().unwrap_or_else(PoisonError::into_inner);
        let position = open.iter().position(|known| known == token);
        position.and_then(|position| open.remove(position)).map(|_| ()).ok_or_else(Refusal::sent_before)
    }

    /// The name of the session cookie. Browsers send cookies to every port of a host, so that two
    /// consoles need two names.
    fn cookie_name(&self) -> String {
        format!("loyalty-console-{}", self.address.port())
    }

    /// Makes the browser that sends `key` the one that may use the console. `None` if the key is
    /// not the right one or was used.
    fn start_session(&self, key: &str) -> Option<HeaderValue> {
        let mut expected = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if !expected.as_ref().is_some_and(|expected| is_same(expected.expose(), key)) {
            return None;
        }
        *expected = None;
        let (name, session) = (self.cookie_name(), self.session.expose());
        let path = HOME.trim_end_matches('/');
        HeaderValue::from_str(&format!("{name}={session}; Path={path}; HttpOnly; SameSite=Strict")).ok()
    }

    fn has_session(&self, headers: &HeaderMap) -> bool {
        let name = self.cookie_name();
        // Cookies of other servers on the host are in the same header, and need not be ASCII.
        let lines = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes);
        let cookies = lines.flat_map(|line| line.split(|byte| *byte == b';')).map(<[u8]>::trim_ascii);
        let values = cookies.filter_map(|cookie| cookie.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
        values.map(String::from_utf8_lossy).any(|value| is_same(self.session.expose(), &value))
    }

    /// Checks that a request was made for this address and by the console's own pages.
    fn check_origin(&self, method: &Method, headers: &HeaderMap) -> Result<(), Refusal> {
        let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let host = text(header::HOST).unwrap_or_default();
        if headers.get_all(header::HOST).iter().count() != 1 || !self.accepts_host(host) {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "Wrong address",
                &format!("The console answers at http://{} only.", self.address),
            ));
        }
        let site = text(HeaderName::from_static("sec-fetch-site"));
        let is_own = match text(header::ORIGIN) {
            Some(origin) => origin == format!("http://{host}"),
            None => method.is_safe() || site == Some("same-origin"),
        };
        let from_elsewhere = match site {
            None | Some("same-origin") => false,
            Some("none") => !method.is_safe(),
            Some(_) => true,
        };
        if is_own && !from_elsewhere { Ok(()) } else { Err(Self::foreign()) }
    }

    fn foreign() -> Refusal {
        let text = "The request does not come from a page of the console. If you followed a link, copy its address \
                    instead.";
        Refusal::new(StatusCode::FORBIDDEN, "Not from the console", text)
    }

    /// Whether `host` names the console. Domain names do not, because anybody can point one at this
    /// machine; only `localhost` cannot be pointed elsewhere.
    fn accepts_host(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        if authority.port_u16().unwrap_or(80) != self.address.port() || host.contains('@') {
            return false;
        }
        let own = self.address.ip();
        let name = authority.host();
        if name.eq_ignore_ascii_case("localhost") {
            return own.is_loopback() || own.is_unspecified();
        }
        let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        ip.is_ok_and(|ip| ip == own || own.is_unspecified())
    }
}

fn is_same(expected: &str, given: &str) -> bool {
    expected.as_bytes().ct_eq(given.as_bytes()).into()
}

/// 256 random bits as text.
fn random_token() -> String {
    let mut bytes = [0; 32];
    os_rng().fill_bytes(&mut bytes);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Checks where a request comes from, and adds the headers of [`secure`] to its response.
pub async fn guard(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response {
    let response = match console.gate.check_origin(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    };
    secure(response)
}

/// Checks the session and, of a form, its token. Passes the fields on as [`Form`].
pub async fn session(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response {
    if !console.gate.has_session(request.headers()) {
        let text = "Open the address that the command printed. It works once, in one browser. If it was used, start \
                    the command again.";
        return Refusal::new(StatusCode::UNAUTHORIZED, "No session", text).into_response();
    }
    if request.method().is_safe() {
        return next.run(request).await;
    }
    match read_form(&console.gate, request).await {
        // Goes on if the browser leaves, so that what was begun is also recorded.
        Ok(request) => tokio::spawn(next.run(request)).await.unwrap_or_else(|_| {
            let text = "The request ended early. The page Activity says what was done.";
            Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "Failed", text).into_response()
        }),
        Err(refusal) => refusal.into_response(),
    }
}

async fn read_form(gate: &Gate, request: Request) -> Result<Request, Refusal> {
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = media_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        let text = "The console takes the forms of its pages only.";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Not a form", text));
    }
    let (mut parts, body) = request.into_parts();
    let too_large = || {
        let text = "The form is larger than 512 KiB, or did not arrive as a whole.";
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "Too large", text)
    };
    if body.size_hint().lower() > MAX_FORM as u64 {
        return Err(too_large());
    }
    let body = timeout(FORM_TIME, to_bytes(body, MAX_FORM)).await.map_err(|_| {
        Refusal::new(StatusCode::REQUEST_TIMEOUT, "Too slow", "The form did not arrive in time.")
    })?;
    let body = body.map_err(|_| too_large())?;
    let form = Form::parse(&body);
    if !is_same(gate.form_token(), form.text("csrf")) {
        let text = "The form was not made by this console, or by one that has ended. Load its page again.";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "Form refused", text));
    }
    parts.extensions.insert(form);
    Ok(Request::from_parts(parts, Body::empty()))
}

/// `GET /start`: the printed address. The redirect takes the secret out of the browser's address
/// bar and history.
pub async fn start(
    State(console): State<Arc<Console>>,
    method: Method,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let query = Form::parse(query.unwrap_or_default().as_bytes());
    // A HEAD may come from a program that looks at links.
    let session = if method == Method::GET { console.gate.start_session(query.text("key")) } else { None };
    if let Some(cookie) = session {
        return ([(header::SET_COOKIE, cookie)], Redirect::to(HOME)).into_response();
    }
    if console.gate.has_session(&headers) {
        return Redirect::to(HOME).into_response();
    }
    let text = "This address works once, and was used already or is not the printed one. Start the command again for \
                another one.";
    Refusal::new(StatusCode::FORBIDDEN, "Used up", text).into_response()
}

/// The headers of every response: nothing is loaded from elsewhere, no script or style is inline,
/// no other page shows the console in a frame, no other site gets a referrer, and nothing is
/// cached.
fn secure(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        // Under `no-referrer`, browsers would send `Origin: null` with the console's own forms.
        (header::REFERRER_POLICY, "same-origin"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(address: &str) -> Gate {
        Gate::new(address.parse().unwrap())
    }

    #[test]
    fn only_the_own_address_is_a_host() {
        let loopback = gate("127.0.0.1:3001");
        for host in ["127.0.0.1:3001", "localhost:3001", "LocalHost:3001"] {
            assert!(loopback.accepts_host(host), "{host}");
        }
        for host in [
            "", "127.0.0.1", "127.0.0.1:3002", "attacker.example:3001", "127.0.0.1.nip.io:3001",
            "[::1]:3001", "x@localhost:3001",
        ] {
            assert!(!loopback.accepts_host(host), "{host}");
        }
        assert!(gate("[::1]:80").accepts_host("[::1]"));
        let all = gate("0.0.0.0:3001");
        assert!(all.accepts_host("192.168.1.2:3001") && all.accepts_host("localhost:3001"));
        assert!(!all.accepts_host("attacker.example:3001"));
        assert!(!gate("192.168.1.2:3001").accepts_host("localhost:3001"));
    }

    #[test]
    fn requests_of_other_pages_are_refused() {
        let check = |address: &str, method: Method, lines: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_str(address).unwrap());
            for (name, value) in lines {
                headers.insert(*name, HeaderValue::from_str(value).unwrap());
            }
            gate(address).check_origin(&method, &headers).is_ok()
        };
        let loopback = |method, lines: &[_]| check("127.0.0.1:3001", method, lines);
        let (origin, site) = ("origin", "sec-fetch-site");
        assert!(loopback(Method::GET, &[]));
        assert!(loopback(Method::GET, &[(site, "none")]), "typed into the address bar");
        assert!(loopback(Method::POST, &[(origin, "http://127.0.0.1:3001")]));
        assert!(loopback(Method::POST, &[(origin, "http://127.0.0.1:3001"), (site, "same-origin")]));
        assert!(loopback(Method::POST, &[(site, "same-origin")]));
        for (method, lines) in [
            (Method::GET, &[(site, "cross-site")][..]),
            (Method::GET, &[(site, "same-site")]),
            (Method::GET, &[(origin, "http://attacker.example")]),
            (Method::POST, &[]),
            (Method::POST, &[(origin, "null")]),
            (Method::POST, &[(origin, "null"), (site, "same-origin")]),
            (Method::POST, &[(site, "none")]),
            (Method::POST, &[(origin, "http://127.0.0.1:4000"), (site, "same-site")]),
            (Method::POST, &[(origin, "http://localhost:3001"), (site, "same-origin")]),
            (Method::POST, &[(origin, "null"), (site, "cross-site")]),
        ] {
            assert!(!loopback(method.clone(), lines), "{method} {lines:?}");
        }
        // Browsers tell addresses without TLS no site, except loopback ones.
        assert!(check("192.168.1.2:3001", Method::POST, &[(origin, "http://192.168.1.2:3001")]));
        assert!(!check("192.168.1.2:3001", Method::POST, &[(origin, "null")]));
        assert!(!check("192.168.1.2:3001", Method::POST, &[(origin, "http://attacker.example")]));
    }

    #[test]
    fn a_form_is_sent_once() {
        let gate = gate("127.0.0.1:3001");
        let first = gate.open_form();
        assert!(gate.close_form(&first).is_ok());
        assert!(gate.close_form(&first).is_err() && gate.close_form("other").is_err());
        let oldest = gate.open_form();
        for _ in 0..MAX_OPEN_FORMS {
            gate.open_form();
        }
        assert!(gate.close_form(&oldest).is_err(), "too many were opened since");
    }
}
