//! What all pages share: their frame, and the pages of errors.

use askama::Template;
use axum::{
    http::StatusCode,
    response::{Html, IntoResponse, Response},
};
use loyalty_codes::{
    model::org::{Org, OrgId},
    store::StoreError,
};

use super::Console;
use crate::failure::Failure;

/// The frame of a page.
pub struct Shell {
    pub title: String,
    pub org: Option<OrgLinks>,
    /// The token that every form must have.
    pub csrf: String,
    pub notices: Vec<Notice>,
    /// The address of the dashboard on AWS.
    pub dashboard: Option<String>,
}

/// The links to the pages of an org.
pub struct OrgLinks {
    pub id: OrgId,
    pub name: String,
    /// The last part of the page's own path.
    pub here: &'static str,
}

/// The pages of an org: the last part of the path, and the name.
pub const ORG_PAGES: &[(&str, &str)] = &[
    ("registration", "Registration Configuration"),
    ("numbers", "Numbers"),
    ("tills", "Tills"),
    ("customers", "Customers"),
    ("activity", "Activity"),
];

/// A message at the top of the next page.
#[derive(Debug, Clone)]
pub struct Notice {
    pub is_warning: bool,
    pub text: String,
}

impl Notice {
    pub fn done(text: impl Into<String>) -> Self {
        Self { is_warning: false, text: text.into() }
    }

    pub fn warning(text: impl Into<String>) -> Self {
        Self { is_warning: true, text: text.into() }
    }
}

/// Something that is wrong with a form.
pub struct ShownProblem {
    /// The id of the field to correct.
    pub input: Option<String>,
    pub text: String,
}

impl ShownProblem {
    /// What is wrong with the field of that id.
    pub fn of(input: &str, text: String) -> Self {
        Self { input: Some(input.to_owned()), text }
    }
}

impl Shell {
    pub fn new(console: &Console, title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            org: None,
            csrf: console.gate.form_token().to_owned(),
            notices: console.take_notices(),
            dashboard: console.dashboard.clone(),
        }
    }

    /// The frame of a page of an org.
    pub fn of_org(console: &Console, org: &Org, here: &'static str, title: impl Into<String>) -> Self {
        let name = org.definition.name.clone();
        Self { org: Some(OrgLinks { id: org.id(), name, here }), ..Self::new(console, title) }
    }
}

/// A rendered page.
pub type Page = Result<Response, Refusal>;

/// Renders a page with the status 200.
pub fn page(template: &impl Template) -> Page {
    page_with(StatusCode::OK, template)
}

pub fn page_with(status: StatusCode, template: &impl Template) -> Page {
    let html =
        template.render().map_err(|error| Failure::failed(format!("a page was not rendered: {error}")))?;
    Ok((status, Html(html)).into_response())
}

/// The page of a request that is not carried out.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    title: String,
    text: String,
}

#[derive(Template)]
#[template(path = "refusal.html")]
struct RefusalPage<'a> {
    shell: Shell,
    paragraphs: Vec<&'a str>,
}

impl Refusal {
    pub fn new(status: StatusCode, title: &str, text: &str) -> Self {
        Self { status, title: title.to_owned(), text: text.to_owned() }
    }

    pub fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "Not found", "The console has no such page.")
    }

    /// A form that may be sent once was sent again.
    pub fn sent_before() -> Self {
        let text = "This form was sent before, and nothing was done now: a page that a form has led to cannot be \
                    reloaded. What the form did the first time was done once: numbers are listed on the page Numbers, a \
                    till whose password you did not see can be rotated, and a customer's identifiers are shown again \
                    from the customer's page. Go back to the page for another form.";
        Self::new(StatusCode::CONFLICT, "Sent before", text)
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let status = failure.http_status();
        let title = match status {
            StatusCode::NOT_FOUND => "Not found",
            StatusCode::CONFLICT => "Refused",
            StatusCode::BAD_REQUEST => "Not valid",
            _ => "Failed",
        };
        Self::new(status, title, &failure.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Failure::from(error).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(cause = self.text, "a page of the console failed");
        }
        let shell =
            Shell { title: self.title, org: None, csrf: String::new(), notices: Vec::new(), dashboard: None };
        let html = RefusalPage { shell, paragraphs: self.text.lines().collect() }.render();
        match html {
            Ok(html) => (self.status, Html(html)).into_response(),
            Err(_) => (self.status, self.text).into_response(),
        }
    }
}
