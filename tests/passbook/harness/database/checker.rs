//! Checks a whole ledger against the invariants, and against the answers that callers got.
//!
//! It recomputes everything from the entries with its own code (`decimal`, the hash below), so that
//! a defect of the service cannot hide in the check.

use std::collections::{BTreeMap, BTreeSet};

use passbook::proto::Entry;
use sha2::{Digest, Sha256};
use tonic::Status;

use crate::harness::{
    Answer, Change, RequestResult, TestDatabase,
    decimal::Decimal,
    ledger_dump::{AccountRow, EntryRow, LedgerDump},
    outcome,
};

/// The requests that callers sent, and their results.
pub type History = Vec<(Change, RequestResult)>;

/// The requests that callers sent, with the answer if one arrived.
pub type Outcomes = Vec<(Change, Option<Result<Answer, Status>>)>;

/// Fails unless the ledger is consistent and matches the results.
pub async fn assert_sound(database: &TestDatabase, history: &History) {
    let faults = faults(&LedgerDump::read(database).await, history);
    assert!(faults.is_empty(), "{} faults: {:#?}", faults.len(), &faults[..faults.len().min(20)]);
}

/// Fails unless the ledger is consistent in itself.
pub async fn assert_consistent(database: &TestDatabase) {
    let faults = faults_inside(&LedgerDump::read(database).await);
    assert!(faults.is_empty(), "{} faults: {:#?}", faults.len(), &faults[..faults.len().min(20)]);
}

/// Fails if a request whose error said "not_applied" was applied. Returns how many errors said so.
pub async fn assert_not_applied_is_true(database: &TestDatabase, outcomes: &Outcomes) -> usize {
    let kept = database.texts("SELECT request_id FROM requests").await;
    let kept: BTreeSet<String> = kept.into_iter().collect();
    let mut claims = 0;
    for (change, answer) in outcomes {
        let Some(Err(status)) = answer else { continue };
        if outcome(status) == "not_applied" {
            claims += 1;
            assert!(!kept.contains(change.request_id()), "it was applied after all: {status:?}");
        }
    }
    println!("{claims} claims of not_applied");
    claims
}

/// All faults. The history must be complete: every change that the ledger ever had.
pub fn faults(dump: &LedgerDump, history: &History) -> Vec<String> {
    let mut faults = faults_inside(dump);
    faults.extend(faults_against(dump, history));
    faults
}

/// The faults of the ledger in itself.
pub fn faults_inside(dump: &LedgerDump) -> Vec<String> {
    let mut faults = Vec::new();
    for (account_id, account) in &dump.accounts {
        let entries = dump.entries.get(account_id).map_or(&[][..], Vec::as_slice);
        check_entries(account_id, account, entries, &mut faults);
        check_account(account_id, account, entries, &mut faults);
        check_changes(account_id, account, dump, &mut faults);
    }
    for account_id in dump.entries.keys() {
        if !dump.accounts.contains_key(account_id) {
            faults.push(format!("{account_id}: entries without an account"));
        }
    }
    check_requests(dump, &mut faults);
    faults
}

fn check_entries(
    account_id: &str,
    account: &AccountRow,
    entries: &[EntryRow],
    faults: &mut Vec<String>,
) {
    let (mut balance, mut hash, mut time) = (Decimal::ZERO, "0".repeat(64), i64::MIN);
    for (index, entry) in entries.iter().enumerate() {
        let at = format!("{account_id}: entry {} of {}", index + 1, entries.len());
        if entry.sequence != index as i64 + 1 {
            faults.push(format!("{at} has sequence {}", entry.sequence));
        }
        balance += entry.amount;
        if entry.balance_after != balance {
            faults.push(format!("{at} has balance_after {}, not {balance}", entry.balance_after));
            balance = entry.balance_after;
        }
        if entry.create_time_us < time {
            faults.push(format!("{at} is older than the one before it"));
        }
        time = entry.create_time_us;
        if entry.hash != entry_hash(&hash, account_id, &account.currency_code, entry) {
            faults.push(format!("{at} does not follow the entry before it: its hash is another"));
        }
        hash.clone_from(&entry.hash);
    }
}

fn check_account(
    account_id: &str,
    account: &AccountRow,
    entries: &[EntryRow],
    faults: &mut Vec<String>,
) {
    let mut sum = Decimal::ZERO;
    for entry in entries {
        sum += entry.amount;
    }
    if account.balance != sum {
        faults.push(format!(
            "{account_id}: balance {}, but its entries sum to {sum}",
            account.balance
        ));
    }
    let last = entries.last();
    if last.is_some_and(|entry| entry.balance_after != account.balance) {
        faults.push(format!("{account_id}: the balance is not the last entry's balance_after"));
    }
    if account.sequence != entries.len() as i64 {
        let (sequence, count) = (account.sequence, entries.len());
        faults.push(format!("{account_id}: sequence {sequence}, but {count} entries"));
    }
    if last.is_some_and(|entry| entry.hash != account.last_hash) {
        faults.push(format!("{account_id}: last_hash is not the last entry's"));
    }
    let available = account.balance.plus(account.held.negative()).plus(account.overdraft_limit);
    let is_below = available.is_negative() && !account.unlimited_overdraft;
    if is_below != account.below_limit {
        let mark = if account.below_limit { "is" } else { "is not" };
        faults
            .push(format!("{account_id}: {available} is available, but it {mark} marked as below"));
    }
}

/// Checks the held amount and the version. The version counts the creation, each transaction once,
/// each change of attributes, each placed hold, each update of a hold, and each hold that ended without a
/// transaction.
fn check_changes(
    account_id: &str,
    account: &AccountRow,
    dump: &LedgerDump,
    faults: &mut Vec<String>,
) {
    let entries = dump.entries.get(account_id).map_or(&[][..], Vec::as_slice);
    let transactions: BTreeSet<_> = entries.iter().map(|entry| &entry.transaction_id).collect();
    let changes = dump.account_changes.iter().filter(|of| *of == account_id).count();
    let mut version = 1 + transactions.len() + changes;
    let mut held = Decimal::ZERO;
    for hold in dump.holds.iter().filter(|hold| hold.account_id == account_id) {
        version += match hold.state.as_str() {
            "released" | "expired" => 2,
            _ => 1,
        };
        version += hold.updates as usize;
        if hold.state == "open" {
            held += hold.amount.plus(hold.captured.negative());
        }
    }
    if account.version != version as i64 {
        faults.push(format!("{account_id}: version {}, not {version}", account.version));
    }
    if account.held != held {
        faults.push(format!("{account_id}: {} held, but {held} in open holds", account.held));
    }
}

fn check_requests(dump: &LedgerDump, faults: &mut Vec<String>) {
    let applied = dump.requests.iter().filter(|it| it.is_applied && it.is_transaction);
    let applied: BTreeSet<&str> = applied.map(|request| request.transaction_id.as_str()).collect();
    let entered = dump.entries.values().flatten();
    let entered: BTreeSet<&str> = entered.map(|entry| entry.transaction_id.as_str()).collect();
    for transaction_id in applied.symmetric_difference(&entered) {
        faults.push(format!("{transaction_id}: an applied request or its entries, not both"));
    }
}

/// The differences between the ledger and the results.
fn faults_against(dump: &LedgerDump, history: &History) -> Vec<String> {
    let mut faults = Vec::new();
    let mut expected: BTreeMap<&str, Decimal> = BTreeMap::new();
    let mut answered = BTreeSet::new();
    for (change, result) in history {
        let RequestResult::Applied(answer) = result else { continue };
        if !answered.insert(answer.transaction().transaction_id.as_str()) {
            faults.push(format!("{}: one transaction answers two requests", change.request_id()));
        }
        check_answer(dump, change, answer, &mut faults);
        for (account_id, amount) in effects(change) {
            *expected.entry(account_id).or_insert(Decimal::ZERO) += amount;
        }
    }
    for (account_id, account) in &dump.accounts {
        let expected = expected.get(account_id.as_str()).copied().unwrap_or(Decimal::ZERO);
        if account.balance != expected {
            let balance = account.balance;
            faults.push(format!(
                "{account_id}: balance {balance}, but the answers add up to {expected}"
            ));
        }
    }
    for entry in dump.entries.values().flatten() {
        if !answered.contains(entry.transaction_id.as_str()) {
            faults.push(format!(
                "{}: an entry of a transaction that no caller got as an answer",
                entry.transaction_id
            ));
        }
    }
    faults
}

fn check_answer(dump: &LedgerDump, change: &Change, answer: &Answer, faults: &mut Vec<String>) {
    let request_id = change.request_id();
    let effects = effects(change);
    let entries = &answer.transaction().entries;
    if entries.len() != effects.len() {
        faults.push(format!(
            "{request_id}: {} entries for {} effects",
            entries.len(),
            effects.len()
        ));
    }
    for (entry, (account_id, amount)) in entries.iter().zip(effects) {
        if entry.account_id != account_id || decimal_of(&entry.amount) != amount {
            faults.push(format!("{request_id}: answered with another account or amount"));
        }
        if !is_kept(dump, entry) {
            let (account_id, sequence) = (&entry.account_id, entry.sequence);
            faults.push(format!(
                "{request_id}: entry {sequence} of {account_id} was answered, not kept"
            ));
        }
    }
}

fn is_kept(dump: &LedgerDump, answered: &Entry) -> bool {
    let entries = dump.entries.get(&answered.account_id).map_or(&[][..], Vec::as_slice);
    let index = usize::try_from(answered.sequence - 1).unwrap_or(usize::MAX);
    entries.get(index).is_some_and(|kept| {
        kept.transaction_id == answered.transaction_id
            && kept.amount == decimal_of(&answered.amount)
            && kept.balance_after == decimal_of(&answered.balance_after)
            && kept.hash == hex(&answered.hash)
    })
}

/// The effects of an applied change: accounts and signed amounts, in the order of the entries.
fn effects(change: &Change) -> Vec<(&str, Decimal)> {
    match change {
        Change::Deposit(request) => vec![(&request.account_id, decimal_of(&request.amount))],
        Change::Withdraw(request) => {
            vec![(&request.account_id, decimal_of(&request.amount).negative())]
        }
        Change::Transfer(request) => {
            let amount = decimal_of(&request.amount);
            vec![
                (&request.source_account_id, amount.negative()),
                (&request.destination_account_id, amount),
            ]
        }
        Change::Post(request) | Change::PostInBatch(request) | Change::PostInStream(request) => {
            request.legs.iter().map(|it| (it.account_id.as_str(), decimal_of(&it.amount))).collect()
        }
        Change::InStream(change) => effects(change),
        other => panic!("a history has no holds and reversals: {other:?}"),
    }
}

fn decimal_of(money: &Option<passbook::proto::Money>) -> Decimal {
    Decimal::parse(&money.as_ref().expect("an amount").value)
}

/// The hash of docs/entry-hash.md.
pub fn entry_hash(
    previous: &str,
    account_id: &str,
    currency_code: &str,
    entry: &EntryRow,
) -> String {
    let (version, effective_time) = match entry.effective_time_us {
        None => (1, String::new()),
        Some(time_us) => (2, format!("{time_us}\n")),
    };
    let text = format!(
        "passbook.entry.v{version}\n{previous}\n{account_id}\n{}\n{}\n{currency_code}\n{}\n{}\n{}\n\
         {effective_time}",
        entry.sequence,
        entry.transaction_id,
        entry.amount.canonical(),
        entry.balance_after.canonical(),
        entry.create_time_us
    );
    hex(&Sha256::digest(text.as_bytes()))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
