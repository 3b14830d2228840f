//! The reference: the OpenAPI document, and a page that shows it and tries requests out.

use axum::{
    Router,
    http::header,
    response::{Html, Redirect},
    routing::get,
};
use loyalty_codes::api::openapi;
use swagger_ui_dist::{ApiDefinition, OpenApiSource, generate_routes};

/// The path of the page.
pub const PAGE: &str = "/docs/";

const DOCUMENT: &str = "/openapi.json";

/// Allows no other origin, and no frame. Swagger UI uses inline styles and `data:` images.
const POLICY: &str =
    "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";

/// The document, in the form of `openapi.json`.
pub fn document() -> String {
    format!("{:#}", openapi::document())
}

pub fn routes() -> Router {
    let document = document();
    let headers = [(header::CONTENT_SECURITY_POLICY, POLICY)];
    let script = [(header::CONTENT_TYPE, "text/javascript")];
    let assets = ApiDefinition {
        uri_prefix: "/docs/swagger-ui",
        api_definition: OpenApiSource::Uri(DOCUMENT),
        title: None,
    };
    Router::new()
        .route(DOCUMENT, get(|| async { ([(header::CONTENT_TYPE, "application/json")], document) }))
        // Temporary, because a browser would apply a permanent redirect to every later server at
        // this address.
        .route("/", get(|| async { Redirect::temporary(PAGE) }))
        .route("/docs", get(|| async { Redirect::permanent(PAGE) }))
        .route(PAGE, get(move || async move { (headers, Html(include_str!("reference.html"))) }))
        .route("/docs/reference.js", get(move || async move { (script, include_str!("reference.js")) }))
        .merge(generate_routes(assets))
}
