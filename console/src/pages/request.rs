//! What became of a request.

use axum::extract::Query;
use passbook_command::proto::{
    GetRequestOutcomeRequest, GetRequestOutcomeResponse, RequestOutcome,
};

use crate::{
    calls::Problem,
    page::{Content, Form, Input, InputKind, Page, PageError, Section},
    pages::{ById, holds, transactions},
    session::Session,
    view,
};

pub async fn show(session: Session, Query(request): Query<ById>) -> Result<Page, PageError> {
    page(&session, request.id).await
}

async fn page(session: &Session, request_id: String) -> Result<Page, PageError> {
    let input = Input {
        name: "id",
        label: "Request id",
        value: request_id.clone(),
        kind: InputKind::Text { placeholder: "" },
    };
    let form = Form { action: "/request", inputs: vec![input], submit: "Show" };
    let search =
        Section::new("search", "Search a request").with(Content::Form(form)).with(Content::Note(
            "A request id belongs to the identity that sent it: you find the \
            requests of your own identity. A transaction shows the request id of any identity."
                .to_owned(),
        ));
    if request_id.is_empty() {
        return Ok(Page::new("Requests", session).with(search));
    }
    let title = format!("Request {request_id}");
    let request = session.calls.request(GetRequestOutcomeRequest { request_id });
    let found = session.calls.accounts().get_request_outcome(request).await;
    let found = found.map_err(|status| PageError::of(status, session))?.into_inner();
    let mut page = Page::new(title, session).with(search).with(outcome(&found));
    if let Some(transaction) = &found.transaction {
        page = page.with(transactions::section(transaction));
    }
    if let Some(hold) = &found.hold {
        page = page.with(holds::section(hold));
    }
    Ok(page)
}

fn outcome(found: &GetRequestOutcomeResponse) -> Section {
    let outcome = found.outcome();
    let name = view::name(outcome.as_str_name(), "REQUEST_OUTCOME_");
    let meaning = match outcome {
        RequestOutcome::Applied => "It took effect.",
        RequestOutcome::Rejected => "It took no effect, and never will.",
        RequestOutcome::NotSeen if found.fenced => "It took no effect, and never will.",
        _ => "The ledger has no such request of your identity. It may still arrive.",
    };
    let fenced = if found.fenced { "yes: no request with this id is ever applied" } else { "no" };
    let section = Section::new("outcome", "Outcome").with(Content::Fields(vec![
        ("Outcome", name.into()),
        ("Meaning", meaning.into()),
        ("Fenced", fenced.into()),
    ]));
    match &found.error {
        Some(error) => section.with(Content::Problem(Problem::of_outcome(error))),
        None => section,
    }
}
