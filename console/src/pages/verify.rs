//! The verification of an account.

use axum::extract::Query;
use passbook_command::proto::{VerifyAccountRequest, VerifyAccountResponse};

use crate::{
    page::{Content, Link, Page, PageError, Section, href},
    pages::OfAccount,
    session::Session,
    view,
};

pub async fn show(session: Session, Query(of): Query<OfAccount>) -> Result<Page, PageError> {
    page(&session, of.account_id).await
}

async fn page(session: &Session, account_id: String) -> Result<Page, PageError> {
    let title = format!("Verification of {account_id}");
    let account = Link::new("Account", href("/account", &[("id", &account_id)]));
    let request = session.calls.request(VerifyAccountRequest { account_id });
    let result = session.calls.accounts().verify_account(request).await;
    let result = result.map_err(|status| PageError::of(status, session))?.into_inner();
    let section = Section::new("result", "Result").with(fields(&result)).links([account]);
    Ok(Page::new(title, session).with(section))
}

fn fields(result: &VerifyAccountResponse) -> Content {
    let is_valid = if result.valid { "valid" } else { "not valid" };
    let mut fields =
        vec![("Account", is_valid.into()), ("Entries verified", result.entries_verified.into())];
    if let Some(fault) = &result.fault {
        let kind = view::name(fault.kind().as_str_name(), "VERIFICATION_FAULT_KIND_");
        fields.extend([
            ("Fault", kind.into()),
            ("Entry", fault.sequence.into()),
            ("Description", (&fault.description).into()),
        ]);
    }
    Content::Fields(fields)
}
