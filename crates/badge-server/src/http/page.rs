//! Pages for people: the one at `/`, and the list of routes. Each is one file without others.

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};

/// `GET /`: try a text, and watch the server.
pub(crate) async fn home() -> Html<&'static str> {
    Html(include_str!("page.html"))
}

/// `GET /docs`: the OpenAPI document for people.
pub(crate) async fn docs() -> Html<&'static str> {
    Html(include_str!("docs.html"))
}

/// `GET /api-doc/openapi.json`.
pub(crate) async fn openapi() -> Response {
    let form = "application/json";
    ([(header::CONTENT_TYPE, form)], include_str!("openapi.json")).into_response()
}
