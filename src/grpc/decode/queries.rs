//! Queries: filters, ranges and pages. Commands are in the other files.

use std::collections::BTreeSet;

use crate::{
    domain::{
        account::{AccountState, Labels},
        effective_time::EffectivePosition,
        hold::HoldState,
        ids::{AccountId, HoldId, TransactionId},
        query::{AccountFilter, EffectiveRange, EntryRange, HoldFilter, Order, TransactionFilter},
        rejection::TransactionName,
        transaction::TransactionKind,
    },
    grpc::{
        decode::{
            BATCH_GET_MAX,
            decoder::{Decoder, given},
        },
        encode,
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
        parse: impl FnOnce(&str) -> Option<Cursor>,
    ) -> Page<Cursor> {
        if page_size < 0 {
            self.report(ErrorReason::InvalidPageSize, "page_size", "must not be negative");
        }
        let mut page = Page::new(query, page_size);
        if let Some(token) = given(page_token) {
            page.cursor = page.cursor_in(token).and_then(|cursor| parse(&cursor));
            if page.cursor.is_none() {
                let description = "is not a next_page_token of this query";
                self.report(ErrorReason::InvalidPageToken, "page_token", description);
            }
        }
        page
    }

    /// A filter by the value of an enum. Unspecified means all values: None.
    fn filter<T: Copy, E: Into<i32>>(
        &mut self,
        field: &str,
        value: i32,
        all: &[T],
        encode: fn(T) -> E,
    ) -> Option<T> {
        let found = all.iter().copied().find(|it| encode(*it).into() == value);
        if found.is_none() && value != 0 {
            self.report(ErrorReason::InvalidFilter, field, format_args!("is not a known {field}"));
        }
        found
    }

    /// Checks the times by which a query goes.
    fn time_basis(&mut self, time_basis: i32) {
        if proto::TimeBasis::try_from(time_basis).is_err() {
            let reason = ErrorReason::InvalidFilter;
            self.report(reason, "time_basis", "is not a known time_basis");
        }
    }

    fn after_sequence(&mut self, sequence: i64) {
        if sequence < 0 {
            let reason = ErrorReason::InvalidFilter;
            self.report(reason, "after_sequence", "must not be negative");
        }
    }
}

/// Whether a query goes by effective time.
fn is_by_effective_time(time_basis: i32) -> bool {
    time_basis == i32::from(proto::TimeBasis::EffectiveTime)
}

/// A transaction by one of its two ids.
pub fn transaction_name(
    decoder: &mut Decoder<'_>,
    request: proto::GetTransactionRequest,
) -> Option<TransactionName> {
    use proto::get_transaction_request::Lookup;
    match request.lookup {
        Some(Lookup::RequestId(text)) => decoder.request_id(&text).map(TransactionName::RequestId),
        Some(Lookup::TransactionId(text)) => {
            decoder.transaction_id(&text).map(TransactionName::TransactionId)
        }
        None => {
            let reason = ErrorReason::InvalidTransactionId;
            decoder.report(reason, "transaction_id", "or request_id is required");
            None
        }
    }
}

/// The ids of several accounts, without duplicates.
pub fn account_ids(
    decoder: &mut Decoder<'_>,
    request: proto::BatchGetAccountsRequest,
) -> Option<Vec<AccountId>> {
    let (texts, reason) = (&request.account_ids, ErrorReason::InvalidAccountId);
    if texts.is_empty() || texts.len() > BATCH_GET_MAX {
        let description = format!("has {} ids; 1-{BATCH_GET_MAX} are allowed", texts.len());
        decoder.report(reason, "account_ids", description);
        return None;
    }
    let mut seen = BTreeSet::new();
    let mut account_ids = Vec::with_capacity(texts.len());
    for (index, text) in texts.iter().enumerate() {
        if let Some(account_id) = decoder.account_id(format_args!("account_ids[{index}]"), text) {
            if !seen.insert(account_id.clone()) {
                decoder.report(reason, format_args!("account_ids[{index}]"), "is named twice");
            }
            account_ids.push(account_id);
        }
    }
    Some(account_ids)
}

/// The beginning of the ids of the accounts to list, what else selects them, and the page.
pub fn account_list(
    decoder: &mut Decoder<'_>,
    request: proto::ListAccountsRequest,
) -> Option<(String, AccountFilter, Page<AccountId>)> {
    let (code, prefix) = (&request.currency_code, &request.account_id_prefix);
    let query = format!("{code}/{}/{:?}/{prefix}", request.state, request.labels);
    let filter = account_filter(decoder, code, request.state, request.labels);
    let prefix = account_id_prefix(decoder, request.account_id_prefix);
    let page = decoder
        .page(query, request.page_size, &request.page_token, |text| AccountId::parse(text).ok());
    Some((prefix, filter, page))
}

/// The beginning of the ids of the accounts to sum, what else selects them, and the time of the balances.
pub fn balance_sums(
    decoder: &mut Decoder<'_>,
    request: proto::SumBalancesRequest,
) -> Option<(String, AccountFilter, Option<i64>)> {
    let prefix = account_id_prefix(decoder, request.account_id_prefix);
    let filter = account_filter(decoder, &request.currency_code, request.state, request.labels);
    let time_us = at_time(decoder, request.at_time.as_ref());
    Some((prefix, filter, time_us))
}

/// The time of balances, in microseconds since the Unix epoch.
fn at_time(decoder: &mut Decoder<'_>, at_time: Option<&prost_types::Timestamp>) -> Option<i64> {
    // Rounded down to a whole microsecond, as entries have: "at this time or before". Negative nanos
    // stay negative, and are a violation.
    let whole = |nanos: i32| nanos - (nanos % 1000).max(0);
    let at_time = at_time.map(|it| prost_types::Timestamp { nanos: whole(it.nanos), ..*it });
    decoder.time(ErrorReason::InvalidFilter, "at_time", at_time.as_ref())
}

/// The beginning of accounts' ids, which is empty or has the form of an id.
fn account_id_prefix(decoder: &mut Decoder<'_>, prefix: String) -> String {
    let parsed = given(&prefix).map_or(Ok(()), |it| AccountId::parse(it).map(drop));
    decoder.check(ErrorReason::InvalidFilter, "account_id_prefix", parsed);
    prefix
}

/// What selects accounts. An invalid field is a violation.
fn account_filter(
    decoder: &mut Decoder<'_>,
    currency_code: &str,
    state: i32,
    labels: Labels,
) -> AccountFilter {
    let currency = given(currency_code).and_then(|it| decoder.currency("currency_code", it));
    decoder.labels(&labels);
    let state = decoder.filter("state", state, &AccountState::ALL, encode::account_state);
    AccountFilter { currency_code: currency.map(|it| it.code().to_owned()), state, labels }
}

/// A page of an account's entries.
pub enum EntryList {
    /// By the times at which they were written. The cursor is a sequence.
    Written(AccountId, EntryRange, Page<i64>),
    /// By the times at which they take effect.
    Effective(AccountId, EffectiveRange, Page<EffectivePosition>),
}

/// A page of an account's entries.
pub fn entry_list(
    decoder: &mut Decoder<'_>,
    request: proto::ListEntriesRequest,
) -> Option<EntryList> {
    let proto::ListEntriesRequest { account_id, after_sequence, start_time, end_time, .. } =
        &request;
    let mut query =
        format!("{account_id}/{after_sequence}/{start_time:?}/{end_time:?}/{}", request.order);
    let reason = ErrorReason::InvalidFilter;
    let account_id = decoder.account_id("account_id", account_id);
    decoder.after_sequence(*after_sequence);
    let is_by_effective_time = is_by_effective_time(request.time_basis);
    if is_by_effective_time && *after_sequence != 0 {
        decoder.report(reason, "after_sequence", "must be absent by effective time");
    }
    let start_time_us = decoder.time(reason, "start_time", start_time.as_ref());
    let end_time_us = decoder.time(reason, "end_time", end_time.as_ref());
    let order = match proto::EntryOrder::try_from(request.order) {
        Ok(proto::EntryOrder::Unspecified | proto::EntryOrder::Ascending) => Order::Ascending,
        Ok(proto::EntryOrder::Descending) => Order::Descending,
        Err(_) => {
            decoder.report(reason, "order", "is not a known order");
            Order::Ascending
        }
    };
    decoder.time_basis(request.time_basis);
    let (page_size, page_token) = (request.page_size, &request.page_token);
    if is_by_effective_time {
        query.push_str(BY_EFFECTIVE_TIME);
        let page = decoder.page(query, page_size, page_token, |text| text.parse().ok());
        let range = effective_range(start_time_us, end_time_us, order, page.cursor);
        return Some(EntryList::Effective(account_id?, range, page));
    }
    let (mut after_sequence, mut before_sequence) = (*after_sequence, None);
    let page = decoder.page(query, page_size, page_token, |text| text.parse().ok());
    match (page.cursor, order) {
        (None, _) => {}
        (Some(sequence), Order::Ascending) => after_sequence = sequence,
        (Some(sequence), Order::Descending) => before_sequence = Some(sequence),
    }
    let range = EntryRange { after_sequence, before_sequence, start_time_us, end_time_us, order };
    Some(EntryList::Written(account_id?, range, page))
}

/// What distinguishes the tokens of a query by effective time from those by `create_time`.
const BY_EFFECTIVE_TIME: &str = "/effective";

/// The entries between two times, from the cursor on.
fn effective_range(
    start_time_us: Option<i64>,
    end_time_us: Option<i64>,
    order: Order,
    cursor: Option<EffectivePosition>,
) -> EffectiveRange {
    let mut after = EffectivePosition::before(start_time_us.unwrap_or(i64::MIN));
    let mut before = EffectivePosition::before(end_time_us.unwrap_or(i64::MAX));
    match order {
        Order::Ascending => after = cursor.unwrap_or(after),
        Order::Descending => before = cursor.unwrap_or(before),
    }
    EffectiveRange { after, before, order }
}

/// A page of transactions.
pub enum TransactionList {
    /// Of all accounts.
    All(TransactionFilter, Page<TransactionId>),
    /// Of one account. The cursor is a sequence of this account.
    OfAccount(AccountId, TransactionFilter, Page<i64>),
    /// Of one account, by the times at which they take effect.
    Effective(AccountId, TransactionFilter, EffectiveRange, Page<EffectivePosition>),
}

/// A page of transactions.
pub fn transaction_list(
    decoder: &mut Decoder<'_>,
    request: proto::ListTransactionsRequest,
) -> Option<TransactionList> {
    let proto::ListTransactionsRequest { account_id, kind, start_time, end_time, labels, .. } =
        &request;
    let mut query = format!("{account_id}/{kind}/{start_time:?}/{end_time:?}/{labels:?}");
    let reason = ErrorReason::InvalidFilter;
    let account_id = given(account_id).map(|it| decoder.account_id("account_id", it));
    let is_by_effective_time = is_by_effective_time(request.time_basis);
    if is_by_effective_time && account_id.is_none() {
        decoder.report(reason, "account_id", "is required by effective time");
    }
    let kind = decoder.filter("kind", *kind, &TransactionKind::ALL, encode::transaction_kind);
    let start_time_us = decoder.time(reason, "start_time", start_time.as_ref());
    let end_time_us = decoder.time(reason, "end_time", end_time.as_ref());
    decoder.labels(labels);
    decoder.time_basis(request.time_basis);
    let (page_size, page_token) = (request.page_size, &request.page_token);
    if is_by_effective_time {
        query.push_str(BY_EFFECTIVE_TIME);
        let page = decoder.page(query, page_size, page_token, |text| text.parse().ok());
        let range = effective_range(start_time_us, end_time_us, Order::Descending, page.cursor);
        let filter = TransactionFilter { kind, labels: request.labels, ..Default::default() };
        return Some(TransactionList::Effective(account_id.flatten()?, filter, range, page));
    }
    let filter = TransactionFilter { kind, start_time_us, end_time_us, labels: request.labels };
    match account_id {
        None => {
            let page = decoder.page(query, page_size, page_token, |text| text.parse().ok());
            Some(TransactionList::All(filter, page))
        }
        Some(account_id) => {
            let page = decoder.page(query, page_size, page_token, |text| text.parse().ok());
            Some(TransactionList::OfAccount(account_id?, filter, page))
        }
    }
}

/// A page of an account's holds.
pub fn hold_list(
    decoder: &mut Decoder<'_>,
    request: proto::ListHoldsRequest,
) -> Option<(AccountId, HoldFilter, Page<HoldId>)> {
    let query = format!("{}/{}", request.account_id, request.state);
    let account_id = decoder.account_id("account_id", &request.account_id);
    let state = decoder.filter("state", request.state, &HoldState::ALL, encode::hold_state);
    let page = decoder
        .page(query, request.page_size, &request.page_token, |text| HoldId::parse(text).ok());
    let filter = HoldFilter { state, after: page.cursor.clone() };
    Some((account_id?, filter, page))
}

/// A page of an account's changes. The cursor is a version.
pub fn account_change_list(
    decoder: &mut Decoder<'_>,
    request: proto::ListAccountChangesRequest,
) -> Option<(AccountId, Page<i64>)> {
    let account_id = decoder.account_id("account_id", &request.account_id);
    let (query, page_size) = (request.account_id, request.page_size);
    let page = decoder.page(query, page_size, &request.page_token, |text| text.parse().ok());
    Some((account_id?, page))
}

/// A balance of an account.
pub enum BalanceQuery {
    /// Of the entries up to this time. None: of all.
    Written(AccountId, Option<i64>),
    /// Of the entries that take effect at this time or before.
    Effective(AccountId, i64),
}

/// An account, and the time of the balance in microseconds since the Unix epoch.
pub fn balance(
    decoder: &mut Decoder<'_>,
    request: proto::GetBalanceRequest,
) -> Option<BalanceQuery> {
    let account_id = decoder.account_id("account_id", &request.account_id);
    let time_us = at_time(decoder, request.at_time.as_ref());
    decoder.time_basis(request.time_basis);
    if !is_by_effective_time(request.time_basis) {
        return Some(BalanceQuery::Written(account_id?, time_us));
    }
    if request.at_time.is_none() {
        decoder.report(ErrorReason::InvalidFilter, "at_time", "is required by effective time");
    }
    Some(BalanceQuery::Effective(account_id?, time_us?))
}

/// An account to watch, and the sequence after which its entries are sent.
pub fn watch(
    decoder: &mut Decoder<'_>,
    request: proto::WatchEntriesRequest,
) -> Option<(AccountId, i64)> {
    let account_id = decoder.account_id("account_id", &request.account_id);
    decoder.after_sequence(request.after_sequence);
    Some((account_id?, request.after_sequence))
}
