//! Queries: filters, ranges and pages. Commands are in the other files.

use std::collections::BTreeSet;

use crate::{
    domain::{
        account::AccountState,
        hold::HoldState,
        ids::{AccountId, HoldId, RequestId},
        money::Currencies,
        query::{AccountFilter, EntryRange, HoldFilter, Order, TransactionFilter},
        rejection::TransactionName,
        transaction::TransactionKind,
    },
    grpc::{
        decode::{BATCH_GET_MAX, decoder::Decoder},
        error::invalid::Invalid,
        page::Page,
    },
    proto::{self, ErrorReason},
};

impl Decoder<'_> {
    fn page<Cursor>(
        &mut self,
        query: String,
        page_size: i32,
        page_token: &str,
        parse: impl Fn(&str) -> Option<Cursor>,
    ) -> Page<Cursor> {
        if page_size < 0 {
            self.report(ErrorReason::InvalidPageSize, "page_size", "must not be negative");
        }
        let mut page = Page::new(query, page_size);
        if !page_token.is_empty() {
            page.cursor = page.cursor_in(page_token).and_then(|cursor| parse(&cursor));
            if page.cursor.is_none() {
                let description = "is not a next_page_token of this query";
                self.report(ErrorReason::InvalidPageToken, "page_token", description);
            }
        }
        page
    }

    fn after_sequence(&mut self, sequence: i64) {
        if sequence < 0 {
            let reason = ErrorReason::InvalidFilter;
            self.report(reason, "after_sequence", "must not be negative");
        }
    }
}

/// The id of an account.
pub fn account_id(currencies: &Currencies, text: &str) -> Result<AccountId, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let account_id = decoder.account_id("account_id", text);
    decoder.finish(account_id)
}

/// The id of a hold.
pub fn hold_id(currencies: &Currencies, text: &str) -> Result<HoldId, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let hold_id = decoder.hold_id("hold_id", text);
    decoder.finish(hold_id)
}

/// The id of a request.
pub fn request_id(currencies: &Currencies, request_id: &str) -> Result<RequestId, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let request_id = decoder.request_id("request_id", request_id);
    decoder.finish(request_id)
}

/// A transaction by one of its two ids.
pub fn transaction_name(
    currencies: &Currencies,
    request: &proto::GetTransactionRequest,
) -> Result<TransactionName, Invalid> {
    use proto::get_transaction_request::Lookup;
    let mut decoder = Decoder::new(currencies);
    let name = match &request.lookup {
        Some(Lookup::RequestId(text)) => {
            decoder.request_id("request_id", text).map(TransactionName::RequestId)
        }
        Some(Lookup::TransactionId(text)) => {
            decoder.transaction_id("transaction_id", text).map(TransactionName::TransactionId)
        }
        None => {
            let reason = ErrorReason::InvalidTransactionId;
            decoder.report(reason, "transaction_id", "or request_id is required");
            None
        }
    };
    decoder.finish(name)
}

/// The ids of several accounts, without duplicates.
pub fn account_ids(currencies: &Currencies, texts: &[String]) -> Result<Vec<AccountId>, Invalid> {
    let reason = ErrorReason::InvalidAccountId;
    if texts.is_empty() || texts.len() > BATCH_GET_MAX {
        let description = format!("has {} ids; 1-{BATCH_GET_MAX} are allowed", texts.len());
        return Err(Invalid::new(reason, "account_ids", description));
    }
    let mut decoder = Decoder::new(currencies);
    let mut seen = BTreeSet::new();
    let mut account_ids = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        let field = format!("account_ids[{index}]");
        if let Some(account_id) = decoder.account_id(&field, text) {
            if !seen.insert(account_id.clone()) {
                decoder.report(reason, &field, "is named twice");
            }
            account_ids.push(account_id);
        }
    }
    decoder.finish(Some(account_ids))
}

/// A page of accounts.
pub fn account_list(
    currencies: &Currencies,
    request: &proto::ListAccountsRequest,
) -> Result<(AccountFilter, Page<AccountId>), Invalid> {
    let query = format!("{}/{}/{:?}", request.currency_code, request.state, request.labels);
    let mut decoder = Decoder::new(currencies);
    let currency_code = (!request.currency_code.is_empty())
        .then(|| decoder.currency("currency_code", &request.currency_code))
        .flatten();
    decoder.labels(&request.labels);
    let filter = AccountFilter {
        currency_code: currency_code.map(|it| it.code().to_owned()),
        state: account_state(&mut decoder, request.state),
        labels: request.labels.clone(),
    };
    let parse = |text: &str| AccountId::parse(text).ok();
    let page = decoder.page(query, request.page_size, &request.page_token, parse);
    decoder.finish(Some((filter, page)))
}

/// A page of an account's entries.
pub fn entry_list(
    currencies: &Currencies,
    request: &proto::ListEntriesRequest,
) -> Result<(AccountId, EntryRange, Page<i64>), Invalid> {
    let query = format!(
        "{}/{}/{:?}/{:?}/{}",
        request.account_id,
        request.after_sequence,
        request.start_time,
        request.end_time,
        request.order
    );
    let mut decoder = Decoder::new(currencies);
    let account_id = decoder.account_id("account_id", &request.account_id);
    decoder.after_sequence(request.after_sequence);
    let start_time_us = decoder.time("start_time", request.start_time.as_ref());
    let end_time_us = decoder.time("end_time", request.end_time.as_ref());
    let order = match proto::EntryOrder::try_from(request.order) {
        Ok(proto::EntryOrder::Unspecified | proto::EntryOrder::Ascending) => Order::Ascending,
        Ok(proto::EntryOrder::Descending) => Order::Descending,
        Err(_) => {
            decoder.report(ErrorReason::InvalidFilter, "order", "is not a known order");
            Order::Ascending
        }
    };
    let after_sequence = request.after_sequence;
    let mut range =
        EntryRange { after_sequence, before_sequence: None, start_time_us, end_time_us, order };
    let parse = |text: &str| text.parse().ok();
    let page = decoder.page(query, request.page_size, &request.page_token, parse);
    match (page.cursor, order) {
        (None, _) => {}
        (Some(sequence), Order::Ascending) => range.after_sequence = sequence,
        (Some(sequence), Order::Descending) => range.before_sequence = Some(sequence),
    }
    decoder.finish(account_id.map(|account_id| (account_id, range, page)))
}

/// A query for transactions.
pub struct TransactionList {
    /// None: the transactions of all accounts.
    pub account_id: Option<AccountId>,
    /// The conditions on the transactions.
    pub filter: TransactionFilter,
    /// The page. Its cursor is the last transaction's id, or, with an `account_id`, the last sequence
    /// of that account.
    pub page: Page<String>,
}

/// A page of transactions.
pub fn transaction_list(
    currencies: &Currencies,
    request: &proto::ListTransactionsRequest,
) -> Result<TransactionList, Invalid> {
    let query = format!(
        "{}/{}/{:?}/{:?}/{:?}",
        request.account_id, request.kind, request.start_time, request.end_time, request.labels
    );
    let mut decoder = Decoder::new(currencies);
    let account_id = (!request.account_id.is_empty())
        .then(|| decoder.account_id("account_id", &request.account_id))
        .flatten();
    let kind = transaction_kind(&mut decoder, request.kind);
    let start_time_us = decoder.time("start_time", request.start_time.as_ref());
    let end_time_us = decoder.time("end_time", request.end_time.as_ref());
    decoder.labels(&request.labels);
    let filter =
        TransactionFilter { kind, start_time_us, end_time_us, labels: request.labels.clone() };
    let is_sequence = !request.account_id.is_empty();
    let parse = |text: &str| {
        let is_cursor = match is_sequence {
            true => text.parse::<i64>().is_ok(),
            false => uuid::Uuid::parse_str(text).is_ok(),
        };
        is_cursor.then(|| text.to_owned())
    };
    let page = decoder.page(query, request.page_size, &request.page_token, parse);
    decoder.finish(Some(TransactionList { account_id, filter, page }))
}

/// A page of an account's holds.
pub fn hold_list(
    currencies: &Currencies,
    request: &proto::ListHoldsRequest,
) -> Result<(AccountId, HoldFilter, Page<HoldId>), Invalid> {
    let query = format!("{}/{}", request.account_id, request.state);
    let mut decoder = Decoder::new(currencies);
    let account_id = decoder.account_id("account_id", &request.account_id);
    let state = match proto::HoldState::try_from(request.state) {
        Ok(proto::HoldState::Unspecified) => None,
        Ok(proto::HoldState::Open) => Some(HoldState::Open),
        Ok(proto::HoldState::Captured) => Some(HoldState::Captured),
        Ok(proto::HoldState::Released) => Some(HoldState::Released),
        Ok(proto::HoldState::Expired) => Some(HoldState::Expired),
        Err(_) => {
            decoder.report(ErrorReason::InvalidFilter, "state", "is not a known state");
            None
        }
    };
    let parse = |text: &str| HoldId::parse(text).ok();
    let page = decoder.page(query, request.page_size, &request.page_token, parse);
    let filter = HoldFilter { state, after: page.cursor.clone() };
    decoder.finish(account_id.map(|account_id| (account_id, filter, page)))
}

/// A page of an account's changes. The cursor is a version.
pub fn account_change_list(
    currencies: &Currencies,
    request: &proto::ListAccountChangesRequest,
) -> Result<(AccountId, Page<i64>), Invalid> {
    let mut decoder = Decoder::new(currencies);
    let account_id = decoder.account_id("account_id", &request.account_id);
    let parse = |text: &str| text.parse().ok();
    let query = request.account_id.clone();
    let page = decoder.page(query, request.page_size, &request.page_token, parse);
    decoder.finish(account_id.map(|account_id| (account_id, page)))
}

/// An account, and the time of the balance in microseconds since the Unix epoch. None: now.
pub fn balance(
    currencies: &Currencies,
    request: &proto::GetBalanceRequest,
) -> Result<(AccountId, Option<i64>), Invalid> {
    let mut decoder = Decoder::new(currencies);
    let account_id = decoder.account_id("account_id", &request.account_id);
    // Rounded down to a whole microsecond, as entries have: "at this time or before". Negative nanos
    // stay negative, and are a violation.
    let whole = |nanos: i32| nanos - (nanos % 1000).max(0);
    let at_time = request.at_time.map(|it| prost_types::Timestamp { nanos: whole(it.nanos), ..it });
    let time_us = decoder.time("at_time", at_time.as_ref());
    decoder.finish(account_id.map(|account_id| (account_id, time_us)))
}

/// An account to watch.
pub fn watch(
    currencies: &Currencies,
    request: &proto::WatchEntriesRequest,
) -> Result<AccountId, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let account_id = decoder.account_id("account_id", &request.account_id);
    decoder.after_sequence(request.after_sequence);
    decoder.finish(account_id)
}

/// The kind in a filter. Unspecified means all kinds: None.
fn transaction_kind(decoder: &mut Decoder<'_>, kind: i32) -> Option<TransactionKind> {
    use proto::TransactionKind as Encoded;
    match Encoded::try_from(kind) {
        Ok(Encoded::Unspecified) => None,
        Ok(Encoded::Deposit) => Some(TransactionKind::Deposit),
        Ok(Encoded::Withdrawal) => Some(TransactionKind::Withdrawal),
        Ok(Encoded::Transfer) => Some(TransactionKind::Transfer),
        Ok(Encoded::Posting) => Some(TransactionKind::Posting),
        Ok(Encoded::Capture) => Some(TransactionKind::Capture),
        Ok(Encoded::Reversal) => Some(TransactionKind::Reversal),
        Err(_) => {
            decoder.report(ErrorReason::InvalidFilter, "kind", "is not a known kind");
            None
        }
    }
}

/// The state in a filter. Unspecified means all states: None.
fn account_state(decoder: &mut Decoder<'_>, state: i32) -> Option<AccountState> {
    match proto::AccountState::try_from(state) {
        Ok(proto::AccountState::Unspecified) => None,
        Ok(proto::AccountState::Open) => Some(AccountState::Open),
        Ok(proto::AccountState::Frozen) => Some(AccountState::Frozen),
        Ok(proto::AccountState::Closed) => Some(AccountState::Closed),
        Err(_) => {
            decoder.report(ErrorReason::InvalidFilter, "state", "is not a known state");
            None
        }
    }
}
