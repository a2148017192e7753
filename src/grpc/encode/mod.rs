//! Domain types into responses.

pub mod answer_size;

use prost::Message;

use crate::{
    domain::{
        account::{Account, AccountChange, AccountChangeKind, AccountState, Attributes},
        hold::{Hold, HoldState},
        ids::TransactionId,
        money::{Amount, Currency},
        rejection::Rejection,
        transaction::{Entry, Transaction, TransactionKind},
        unit_of_work::{RequestRecord, RequestResult},
        verification::{Fault, FaultKind, VerifiedAccount},
    },
    grpc::error::StatusBuilder,
    proto,
};

pub fn account(account: Account) -> proto::Account {
    let money = |amount| Some(money(&account.currency, amount));
    proto::Account {
        account_id: account.account_id.to_string(),
        currency_code: account.currency.code().to_owned(),
        balance: money(account.balance),
        held: money(account.held),
        available: money(account.available()),
        overdraft_limit: money(account.overdraft_limit),
        unlimited_overdraft: account.unlimited_overdraft,
        state: account_state(account.state).into(),
        sequence: account.sequence,
        version: account.version,
        create_time: Some(time(account.create_time_us)),
        update_time: Some(time(account.update_time_us)),
        created_by: account.created_by.to_string(),
        labels: account.labels,
    }
}

fn account_state(state: AccountState) -> proto::AccountState {
    match state {
        AccountState::Open => proto::AccountState::Open,
        AccountState::Frozen => proto::AccountState::Frozen,
        AccountState::Closed => proto::AccountState::Closed,
    }
}

pub fn account_change(change: AccountChange) -> proto::AccountChange {
    let attributes = |attributes: Attributes| proto::AccountAttributes {
        state: account_state(attributes.state).into(),
        overdraft_limit: Some(money(&change.currency, attributes.overdraft_limit)),
        unlimited_overdraft: attributes.unlimited_overdraft,
        labels: attributes.labels,
    };
    proto::AccountChange {
        account_id: change.account_id.to_string(),
        version: change.version,
        kind: match change.kind {
            AccountChangeKind::Updated => proto::AccountChangeKind::Updated,
            AccountChangeKind::Frozen => proto::AccountChangeKind::Frozen,
            AccountChangeKind::Unfrozen => proto::AccountChangeKind::Unfrozen,
            AccountChangeKind::Closed => proto::AccountChangeKind::Closed,
        }
        .into(),
        reason: change.reason,
        before: Some(attributes(change.before)),
        after: Some(attributes(change.after)),
        create_time: Some(time(change.create_time_us)),
        created_by: change.created_by.to_string(),
    }
}

pub fn hold(hold: &Hold) -> proto::Hold {
    let captured = hold.captured.as_ref();
    proto::Hold {
        hold_id: hold.hold_id.to_string(),
        account_id: hold.account_id.to_string(),
        amount: Some(money(&hold.currency, hold.amount)),
        state: match hold.state {
            HoldState::Open => proto::HoldState::Open,
            HoldState::Captured => proto::HoldState::Captured,
            HoldState::Released => proto::HoldState::Released,
            HoldState::Expired => proto::HoldState::Expired,
        }
        .into(),
        expire_time: hold.expire_time_us.map(time),
        captured_amount: captured.map(|captured| money(&hold.currency, captured.amount)),
        transaction_id: id(captured.map(|captured| captured.transaction_id)),
        description: hold.description.clone(),
        labels: hold.labels.clone(),
        create_time: Some(time(hold.create_time_us)),
        update_time: Some(time(hold.update_time_us)),
        request_id: hold.request_id.to_string(),
        created_by: hold.created_by.to_string(),
        ended_by: hold.ended_by.to_string(),
    }
}

impl From<RequestResult> for proto::DepositResponse {
    fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
        Self { transaction: effects.transaction.map(|it| transaction(&it)), replayed }
    }
}

impl From<RequestResult> for proto::WithdrawResponse {
    fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
        Self { transaction: effects.transaction.map(|it| transaction(&it)), replayed }
    }
}

impl From<RequestResult> for proto::TransferResponse {
    fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
        Self { transaction: effects.transaction.map(|it| transaction(&it)), replayed }
    }
}

impl From<RequestResult> for proto::PostTransactionResponse {
    fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
        Self { transaction: effects.transaction.map(|it| transaction(&it)), replayed }
    }
}

impl From<RequestResult> for proto::ReverseTransactionResponse {
    fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
        Self { transaction: effects.transaction.map(|it| transaction(&it)), replayed }
    }
}

impl From<RequestResult> for proto::PlaceHoldResponse {
    fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
        Self { hold: effects.hold.map(|it| hold(&it)), replayed }
    }
}

impl From<RequestResult> for proto::ReleaseHoldResponse {
    fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
        Self { hold: effects.hold.map(|it| hold(&it)), replayed }
    }
}

impl From<RequestResult> for proto::CaptureHoldResponse {
    fn from(RequestResult { effects, replayed }: RequestResult) -> Self {
        Self {
            transaction: effects.transaction.map(|it| transaction(&it)),
            hold: effects.hold.map(|it| hold(&it)),
            replayed,
        }
    }
}

/// The outcome of a request, by its record.
pub fn outcome(record: Option<RequestRecord>) -> proto::GetRequestOutcomeResponse {
    use proto::RequestOutcome as Outcome;
    let of = |outcome: Outcome| proto::GetRequestOutcomeResponse {
        outcome: outcome.into(),
        ..proto::GetRequestOutcomeResponse::default()
    };
    match record.map(|record| record.result) {
        None => of(Outcome::NotSeen),
        Some(Err(Rejection::RequestFenced { .. })) => {
            proto::GetRequestOutcomeResponse { fenced: true, ..of(Outcome::NotSeen) }
        }
        Some(Err(rejection)) => {
            let error = Some(StatusBuilder::from(&rejection).into_proto());
            proto::GetRequestOutcomeResponse { error, ..of(Outcome::Rejected) }
        }
        Some(Ok(effects)) => proto::GetRequestOutcomeResponse {
            transaction: effects.transaction.map(|it| transaction(&it)),
            hold: effects.hold.map(|it| hold(&it)),
            ..of(Outcome::Applied)
        },
    }
}

/// The outcome of a request that a fence was to stop: its record, or the fence's own.
pub fn fenced(record: RequestRecord) -> proto::FenceRequestResponse {
    let proto::GetRequestOutcomeResponse { outcome, transaction, hold, error, fenced } =
        outcome(Some(record));
    proto::FenceRequestResponse { outcome, transaction, hold, error, fenced }
}

fn id(id: Option<TransactionId>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}

pub fn transaction(transaction: &Transaction) -> proto::Transaction {
    let mut encoded = proto::Transaction {
        transaction_id: id(transaction.transaction_id),
        request_id: transaction.request_id.to_string(),
        kind: match transaction.kind {
            TransactionKind::Deposit => proto::TransactionKind::Deposit,
            TransactionKind::Withdrawal => proto::TransactionKind::Withdrawal,
            TransactionKind::Transfer => proto::TransactionKind::Transfer,
            TransactionKind::Posting => proto::TransactionKind::Posting,
            TransactionKind::Capture => proto::TransactionKind::Capture,
            TransactionKind::Reversal => proto::TransactionKind::Reversal,
        }
        .into(),
        entries: transaction.entries.iter().map(entry).collect(),
        description: transaction.description.clone(),
        labels: transaction.labels.clone(),
        create_time: Some(time(transaction.create_time_us)),
        reverses_transaction_id: id(transaction.reverses_transaction_id),
        reversed_by_transaction_id: id(transaction.reversed_by_transaction_id),
        created_by: transaction.created_by.to_string(),
    };
    if transaction.transaction_id.is_none() {
        // Only validated: there is no such transaction, at no time.
        encoded.create_time = None;
        for entry in &mut encoded.entries {
            entry.transaction_id.clear();
            entry.create_time = None;
            entry.hash.clear();
        }
    }
    encoded
}

pub fn entry(entry: &Entry) -> proto::Entry {
    proto::Entry {
        account_id: entry.account_id.to_string(),
        sequence: entry.sequence,
        transaction_id: entry.transaction_id.to_string(),
        amount: Some(money(&entry.currency, entry.amount)),
        balance_after: Some(money(&entry.currency, entry.balance_after)),
        create_time: Some(time(entry.create_time_us)),
        hash: entry.hash.to_vec(),
    }
}

pub fn verified_account(verified: VerifiedAccount) -> proto::VerifyAccountResponse {
    proto::VerifyAccountResponse {
        valid: verified.fault.is_none(),
        entries_verified: verified.entries_verified,
        fault: verified.fault.map(fault),
    }
}

fn fault(fault: Fault) -> proto::VerificationFault {
    use proto::VerificationFaultKind as Kind;
    proto::VerificationFault {
        account_id: fault.account_id.to_string(),
        sequence: fault.sequence,
        kind: match fault.kind {
            FaultKind::MissingEntry => Kind::MissingEntry,
            FaultKind::SurplusEntry => Kind::SurplusEntry,
            FaultKind::WrongSum => Kind::WrongSum,
            FaultKind::WrongHash => Kind::WrongHash,
            FaultKind::WrongBalance => Kind::WrongBalance,
            FaultKind::WrongHeld => Kind::WrongHeld,
            FaultKind::WrongTime => Kind::WrongTime,
            FaultKind::Unreadable => Kind::Unreadable,
        }
        .into(),
        description: fault.description,
    }
}

/// The message that tells of these entries, as it travels.
pub fn watched(entries: &[Entry]) -> Vec<u8> {
    let sequence = entries.last().map(|entry| entry.sequence).unwrap_or_default();
    let entries = entries.iter().map(entry).collect();
    proto::WatchEntriesResponse::new(entries, sequence).encode_to_vec()
}

pub fn money(currency: &Currency, amount: Amount) -> proto::Money {
    proto::Money { currency_code: currency.code().to_owned(), value: amount.to_string() }
}

fn time(microseconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: microseconds.div_euclid(1_000_000),
        // Below 10^9.
        nanos: (microseconds.rem_euclid(1_000_000) * 1000) as i32,
    }
}
