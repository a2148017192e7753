//! The pages, a file for each noun of the contract. Each makes the calls of its session and shows what
//! they return.

pub mod account;
pub mod accounts;
pub mod changes;
pub mod events;
pub mod health;
pub mod holds;
pub mod request;
pub mod statement;
pub mod transactions;
pub mod verify;

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;

use crate::{
    calls::Problem,
    page::{Link, Page, PageError, Section, href},
    session::Session,
};

/// What is named by an id.
#[derive(Deserialize)]
pub struct ById {
    #[serde(default)]
    id: String,
}

/// A page of the list of what belongs to an account.
#[derive(Deserialize)]
pub struct OfAccount {
    #[serde(default)]
    account_id: String,
    #[serde(default)]
    page: String,
}

/// The links to other pages of a list: the first, if this is another one, and the next, if there is
/// one.
fn pages(path: &str, query: &[(&str, &str)], page: &str, next: &str) -> Vec<Link> {
    let first = (!page.is_empty()).then(|| Link::new("First page", href(path, query)));
    let next = (!next.is_empty())
        .then(|| Link::new("Next page", href(path, &[query, &[("page", next)]].concat())));
    first.into_iter().chain(next).collect()
}

/// The response of a call, or the error of the page if the session is no longer valid.
fn part<T>(
    result: Result<tonic::Response<T>, tonic::Status>,
    session: &Session,
) -> Result<Result<T, Problem>, PageError> {
    match result.map_err(Problem::from) {
        Err(problem) if problem.is_unauthenticated() => Err(PageError::of(problem, session)),
        result => Ok(result.map(tonic::Response::into_inner)),
    }
}

pub async fn not_found(session: Option<Session>) -> Response {
    let page = match &session {
        Some(session) => Page::new("No such page", session)
            .with(Section::new("other", "Other pages").links([Link::new("Accounts", "/".into())]))
            .into_response(),
        None => "no such page\n".into_response(),
    };
    (StatusCode::NOT_FOUND, page).into_response()
}
