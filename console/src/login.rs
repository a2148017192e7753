//! Login and logout, the only forms that change something: sessions, and nothing else.

use askama::Template;
use axum::{
    Form,
    extract::State,
    response::{Html, IntoResponse, Redirect, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header::SET_COOKIE};
use passbook_command::proto::GetAccountRequest;
use serde::Deserialize;
use tokio::time::Instant;
use tonic::metadata::{Ascii, MetadataValue};

use crate::{
    App,
    calls::{Calls, ClientAddress, Problem},
};

/// The page with the login form.
#[derive(Template)]
#[template(path = "login.html", whitespace = "minimize")]
struct LoginPage {
    /// Path and query of the page to show after the login.
    next: String,
    /// Why an earlier login or session is not valid. Empty if there was none.
    problem: String,
}

/// The login form.
#[derive(Deserialize)]
pub struct Login {
    token: String,
    #[serde(default)]
    next: String,
}

/// The response to a request without a valid session: the login form in place of the page.
pub fn required(uri: &Uri, problem: &str) -> Response {
    let next = uri.path_and_query().map_or("/", |it| it.as_str());
    page(StatusCode::UNAUTHORIZED, next, problem)
}

fn page(status: StatusCode, next: &str, problem: &str) -> Response {
    let next = if is_of_this_console(next) { next } else { "/" };
    let page = LoginPage { next: next.to_owned(), problem: problem.to_owned() };
    match page.render() {
        Ok(html) => (status, Html(html)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Begins a session if the server accepts the token.
pub async fn log_in(
    State(app): State<App>,
    headers: HeaderMap,
    address: Option<axum::Extension<ClientAddress>>,
    Form(login): Form<Login>,
) -> Response {
    let Some(cookie) = &app.cookie else { return Redirect::to("/").into_response() };
    let authorization = format!("Bearer {}", login.token.trim()).parse::<MetadataValue<Ascii>>();
    let Ok(mut authorization) = authorization else {
        return page(StatusCode::UNAUTHORIZED, &login.next, "This is no token.");
    };
    authorization.set_sensitive(true);
    let address = address.map(|address| address.0);
    let calls = Calls::new(app.services.clone(), Some(authorization.clone()), address);
    if let Some(problem) = credential_problem(&calls).await {
        let status = problem.http_status();
        return page(status, &login.next, &format!("Not signed in: {}.", problem.message));
    }
    // The id is a new one, whatever the browser has sent.
    if let Some(id) = cookie.id(&headers) {
        app.sessions.end(id).await;
    }
    let id = app.sessions.begin(authorization, Instant::now()).await.ok();
    let Some(set_cookie) = id.and_then(|id| cookie.begin(&id)) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let next = if is_of_this_console(&login.next) { &*login.next } else { "/" };
    ([(SET_COOKIE, set_cookie)], Redirect::to(next)).into_response()
}

/// Ends the session.
pub async fn log_out(State(app): State<App>, headers: HeaderMap) -> Response {
    let Some(cookie) = &app.cookie else { return Redirect::to("/").into_response() };
    if let Some(id) = cookie.id(&headers) {
        app.sessions.end(id).await;
    }
    let removed: Option<HeaderValue> = cookie.remove();
    (removed.map(|it| [(SET_COOKIE, it)]), Redirect::to("/")).into_response()
}

/// Why the server does not accept the credential. The call names no account, so it reads nothing:
/// with a valid credential it is invalid, or denied by the policy.
async fn credential_problem(calls: &Calls) -> Option<Problem> {
    let request = calls.request(GetAccountRequest::default());
    let problem: Problem = calls.accounts().get_account(request).await.err()?.into();
    let is_accepted = [StatusCode::BAD_REQUEST, StatusCode::FORBIDDEN];
    (!is_accepted.contains(&problem.http_status())).then_some(problem)
}

/// Whether this is a path of the console. `//host/` and `/\host/` are other hosts to a browser.
fn is_of_this_console(next: &str) -> bool {
    let is_path = next.starts_with('/') && !next[1..].starts_with(['/', '\\']);
    is_path && next.bytes().all(|byte| byte.is_ascii_graphic())
}
