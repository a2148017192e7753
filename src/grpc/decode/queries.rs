//! Reads: what to look for, and which page of it.

use std::{collections::BTreeSet, fmt};

use prost::Message;

use crate::{
    domain::{
        hold::HoldState,
        ids::{AccountId, HoldId},
        money::Currencies,
        query::{AccountFilter, EntryRange, HoldFilter, Order, TransactionFilter},
        rejection::TransactionName,
        transaction::TransactionKind,
    },
    grpc::{
        decode::{BATCH_GET_MAX, Decoder, Invalid, account_state, page_token},
        encode::answer_size::{self, RESPONSE_SIZE_MAX},
    },
    proto::{self, ErrorReason},
};

/// Rows in a page, if the request does not say.
const PAGE_SIZE_DEFAULT: u64 = 100;
/// The most rows in a page.
const PAGE_SIZE_MAX: u64 = 1000;

/// Which page of a query.
pub struct Page<Cursor> {
    /// The query that the page belongs to, without the page.
    query: String,
    /// Where the page before ended.
    pub cursor: Option<Cursor>,
    /// The most rows. Whoever asks for one more knows whether there is another page.
    pub limit: u64,
}

impl<Cursor> Page<Cursor> {
    /// The rows of the page as they are sent, without what is beyond it. The token is for the next
    /// one: after the last row, if there was anything beyond it; or else after `next`.
    pub fn answer<T, C: fmt::Display, M: Message>(
        &self,
        mut rows: Vec<T>,
        next: Option<C>,
        cursor: impl Fn(&T) -> C,
        encode: impl Fn(T) -> M,
    ) -> (Vec<M>, String) {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let is_cut = rows.len() > limit;
        rows.truncate(limit);
        let next = if is_cut { rows.last().map(&cursor) } else { next };
        self.answer_until(rows, next, cursor, encode)
    }

    /// The same of rows after which there is more if there is a cursor. Where one answer has no room
    /// for all, the page ends before.
    pub fn answer_until<T, C: fmt::Display, M: Message>(
        &self,
        rows: Vec<T>,
        mut next: Option<C>,
        cursor: impl Fn(&T) -> C,
        encode: impl Fn(T) -> M,
    ) -> (Vec<M>, String) {
        let mut room = RESPONSE_SIZE_MAX;
        let (mut messages, mut last) = (Vec::with_capacity(rows.len()), None);
        for row in rows {
            let at = cursor(&row);
            let message = encode(row);
            let size = answer_size::size_in_list(&message);
            if size > room && last.is_some() {
                next = last;
                break;
            }
            room = room.saturating_sub(size);
            messages.push(message);
            last = Some(at);
        }
        (messages, self.token(next))
    }

    /// The token for the page that begins here; empty if there is none.
    fn token(&self, cursor: Option<impl fmt::Display>) -> String {
        cursor
            .map(|cursor| page_token::encode(&self.query, &cursor.to_string()))
            .unwrap_or_default()
    }
}

impl Decoder<'_> {
    fn page<Cursor>(
        &mut self,
        query: String,
        page_size: i32,
        page_token: &str,
        parse: impl Fn(&str) -> Option<Cursor>,
    ) -> Page<Cursor> {
        let limit = match u64::try_from(page_size) {
            Ok(0) => PAGE_SIZE_DEFAULT,
            Ok(size) => size.min(PAGE_SIZE_MAX),
            Err(_) => {
                let reason = ErrorReason::InvalidPageSize;
                self.refuse(reason, "page_size", "must not be negative");
                PAGE_SIZE_DEFAULT
            }
        };
        let mut page = Page { query, cursor: None, limit };
        if !page_token.is_empty() {
            let cursor = page_token::decode(&page.query, page_token);
            page.cursor = cursor.and_then(|cursor| parse(&cursor));
            if page.cursor.is_none() {
                let description = "is not a next_page_token of this query";
                self.refuse(ErrorReason::InvalidPageToken, "page_token", description);
            }
        }
        page
    }
}

impl Decoder<'_> {
    fn after_sequence(&mut self, sequence: i64) {
        if sequence < 0 {
            let reason = ErrorReason::InvalidFilter;
            self.refuse(reason, "after_sequence", "must not be negative");
        }
    }
}

/// One account's id.
pub fn account_id(currencies: &Currencies, text: &str) -> Result<AccountId, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let account_id = decoder.account_id("account_id", text);
    decoder.finish(account_id)
}

/// One hold's id.
pub fn hold_id(currencies: &Currencies, text: &str) -> Result<HoldId, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let hold_id = decoder.hold_id("hold_id", text);
    decoder.finish(hold_id)
}

/// One of the two names of a transaction.
pub fn transaction_name(
    currencies: &Currencies,
    request: &proto::GetTransactionRequest,
) -> Result<TransactionName, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let name = decoder.transaction_name(request.lookup.as_ref());
    decoder.finish(name)
}

/// Several accounts' ids, none twice.
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
                decoder.refuse(reason, &field, "is named twice");
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
            decoder.refuse(ErrorReason::InvalidFilter, "order", "is not a known order");
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

/// A page of transactions. The cursor is an id of a transaction, or a sequence of the account.
pub struct TransactionList {
    /// Of this account only.
    pub account_id: Option<AccountId>,
    /// What must match.
    pub filter: TransactionFilter,
    /// Which page.
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
) -> Result<(AccountId, HoldFilter, Page<()>), Invalid> {
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
            decoder.refuse(ErrorReason::InvalidFilter, "state", "is not a known state");
            None
        }
    };
    let parse = |text: &str| HoldId::parse(text).ok();
    let page = decoder.page(query, request.page_size, &request.page_token, parse);
    let Page { query, cursor: after, limit } = page;
    let page = Page { query, cursor: None, limit };
    decoder.finish(account_id.map(|account_id| (account_id, HoldFilter { state, after }, page)))
}

/// A page of an account's changes; the cursor is a version.
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

/// An account, and the time of its balance in microseconds since the Unix epoch.
pub fn balance(
    currencies: &Currencies,
    request: &proto::GetBalanceRequest,
) -> Result<(AccountId, Option<i64>), Invalid> {
    let mut decoder = Decoder::new(currencies);
    let account_id = decoder.account_id("account_id", &request.account_id);
    // Down to a whole microsecond, as entries have: "at this time or before".
    // What is negative stays so, and is refused.
    let whole = |nanos: i32| nanos - (nanos % 1000).max(0);
    let at_time = request.at_time.map(|it| prost_types::Timestamp { nanos: whole(it.nanos), ..it });
    let time_us = decoder.time("at_time", at_time.as_ref());
    decoder.finish(account_id.map(|account_id| (account_id, time_us)))
}

/// An account to watch, from the entry after the request's `after_sequence` on.
pub fn watch(
    currencies: &Currencies,
    request: &proto::WatchEntriesRequest,
) -> Result<AccountId, Invalid> {
    let mut decoder = Decoder::new(currencies);
    let account_id = decoder.account_id("account_id", &request.account_id);
    decoder.after_sequence(request.after_sequence);
    decoder.finish(account_id)
}

/// The kind to filter by; unspecified is none.
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
            decoder.refuse(ErrorReason::InvalidFilter, "kind", "is not a known kind");
            None
        }
    }
}
