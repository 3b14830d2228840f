//! The console over HTTP, as a browser and as an attacker's page would use it.

mod activity;
mod customers;
mod numbers;
mod registration;
mod security;
mod tills;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use super::{
    Operator,
    common::served::{HANG_TIMEOUT, loyaltyctl},
};

const REGISTRATION: &str = "/console/orgs/966/registration";
const NUMBERS: &str = "/console/orgs/966/numbers";
const TAKE: &str = "/console/orgs/966/numbers/take";
const TILLS: &str = "/console/orgs/966/tills";
const CREATE: &str = "/console/orgs/966/tills/create";
const ROTATE: &str = "/console/orgs/966/tills/rotate";
const REVOKE: &str = "/console/orgs/966/tills/revoke";

/// A response whose headers have been checked.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// In lower case.
    head: String,
    pub body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }

    fn location(&self) -> &str {
        self.header("location").unwrap_or_else(|| panic!("{self:?}"))
    }

    /// The fields of every form as a browser sends them, when no button counts.
    pub fn fields(&self) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        let mut select = String::new();
        for tag in self.body.split('<').skip(1) {
            let tag = tag.split('>').next().unwrap();
            let attribute = |name: &str| {
                let value = tag.split(&format!(" {name}=\"")).nth(1)?;
                Some(unescape(value.split('"').next().unwrap()))
            };
            let has = |word: &str| tag.split_whitespace().any(|part| part == word);
            match tag.split_whitespace().next() {
                Some("input") if attribute("type").as_deref() != Some("checkbox") || has("checked") => {
                    fields.push((attribute("name").unwrap(), attribute("value").unwrap_or_default()));
                }
                Some("select") => select = attribute("name").unwrap(),
                Some("option") if has("selected") => {
                    fields.push((select.clone(), attribute("value").unwrap()));
                }
                _ => {}
            }
        }
        fields
    }

    pub fn field(&self, name: &str) -> String {
        let found = self.fields().into_iter().find(|(key, _)| key == name);
        found.unwrap_or_else(|| panic!("{name}: {}", self.body)).1
    }
}

pub fn unescape(text: &str) -> String {
    let replaced = [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")];
    replaced.iter().fold(text.to_owned(), |text, (escaped, plain)| text.replace(escaped, plain))
}

/// Sends a request as it is and reads the response. Every response must have the console's headers.
fn send(address: SocketAddr, request: &str) -> Answer {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(HANG_TIMEOUT)).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    connection.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{request}: {text}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    let body = if is_chunked { unchunk(body) } else { body.to_owned() };
    // The case of a location and of a cookie matters.
    let head = head.lines().map(|line| match line.split_once(": ") {
        Some((name, value)) => format!("{}: {value}", name.to_lowercase()),
        None => line.to_owned(),
    });
    let answer = Answer { status, head: head.collect::<Vec<_>>().join("\n"), body };
    let policy = answer.header("content-security-policy").unwrap_or_else(|| panic!("{request}: {answer:?}"));
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "same-origin"),
        ("cache-control", "no-store"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{request}: {answer:?}");
    }
    let inline = ["<style", " style=", " onclick=", "javascript:"];
    assert!(!inline.iter().any(|inline| answer.body.contains(inline)), "{answer:?}");
    assert_eq!(answer.body.matches("<script").count(), answer.body.matches("<script src=").count());
    answer
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        whole.push_str(&rest[..length]);
        body = rest[length..].trim_start_matches("\r\n");
    }
    whole
}

/// A process of `loyaltyctl console`. Dropping it kills the process.
pub struct Console {
    process: Child,
    /// The printed address.
    url: String,
}

impl Console {
    fn run(command: &mut Command) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let printed: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        Self { process, url: printed["url"].as_str().unwrap().to_owned() }
    }

    pub fn of(operator: &Operator) -> Self {
        Self::with(operator, &[], Stdio::inherit())
    }

    /// A console with further options and another standard error.
    fn with(operator: &Operator, options: &[&str], stderr: Stdio) -> Self {
        let endpoint = operator.table.endpoint();
        let target = ["--endpoint", &endpoint, "--table", operator.table.name()];
        let mut command = loyaltyctl(&target);
        command.args(["--json", "console", "--api", "https://api.example.com"]).args(options);
        Self::run(command.stderr(stderr))
    }

    fn address(&self) -> SocketAddr {
        let authority = self.url.strip_prefix("http://").unwrap();
        authority.split('/').next().unwrap().parse().unwrap()
    }

    /// The path and the secret of the printed address.
    fn path(&self) -> &str {
        &self.url[self.url.find("/console/").unwrap()..]
    }

    pub fn browser(&self) -> Browser {
        Browser::open(self.address(), self.path())
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A browser that has opened the printed address.
#[derive(Clone)]
pub struct Browser {
    address: SocketAddr,
    cookie: String,
}

impl Browser {
    fn open(address: SocketAddr, path: &str) -> Self {
        let started = send(address, &request(address, "GET", path, &[], ""));
        assert_eq!((started.status, started.location()), (303, "/console/"), "{started:?}");
        let cookie = started.header("set-cookie").unwrap();
        for attribute in ["HttpOnly", "SameSite=Strict", "Path=/console;"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        Self { address, cookie: cookie.split(';').next().unwrap().to_owned() }
    }

    pub fn get(&self, path: &str) -> Answer {
        send(self.address, &request(self.address, "GET", path, &[("Cookie", &self.cookie)], ""))
    }

    /// Sends a form as the browser does from a page of the console.
    pub fn post(&self, path: &str, fields: &[(String, String)]) -> Answer {
        let (body, origin) = (encode(fields), format!("http://{}", self.address));
        let headers = [
            ("Cookie", self.cookie.as_str()),
            ("Origin", origin.as_str()),
            ("Sec-Fetch-Site", "same-origin"),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ];
        send(self.address, &request(self.address, "POST", path, &headers, &body))
    }

    /// Loads a page, changes fields of its form, and sends it.
    pub fn submit(&self, page: &str, to: &str, changes: &[(&str, &str)]) -> Answer {
        self.post(to, &changed(self.get(page).fields(), changes))
    }

    fn follow(&self, answer: &Answer) -> Answer {
        assert_eq!(answer.status, 303, "{answer:?}");
        self.get(answer.location())
    }
}

fn request(address: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> String {
    let host = format!("{address}");
    let has_host = headers.iter().any(|(name, _)| *name == "Host");
    let host = if has_host { None } else { Some(("Host", host.as_str())) };
    let length = body.len().to_string();
    let length = (method == "POST").then_some(("Content-Length", length.as_str()));
    let lines = host.into_iter().chain(length).chain(headers.iter().copied());
    let lines = lines.map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join("\r\n");
    format!("{method} {path} HTTP/1.1\r\n{lines}\r\nConnection: close\r\n\r\n{body}")
}

fn encode(fields: &[(String, String)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// Fields with other values. A field that is not there yet is added.
pub fn changed(mut fields: Vec<(String, String)>, changes: &[(&str, &str)]) -> Vec<(String, String)> {
    for (name, value) in changes {
        match fields.iter_mut().find(|(key, _)| key == name) {
            Some(field) => (*value).clone_into(&mut field.1),
            None => fields.push(((*name).to_owned(), (*value).to_owned())),
        }
    }
    fields
}
