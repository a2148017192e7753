//! What to do after an error: commands to type, or a sentence.

use crate::server::{
    CallKind,
    error::{CallError, Outcome},
    invocation::{command, repeat, repeat_with},
};

/// The next steps after an error, the best one first.
pub fn next(error: &CallError, kind: CallKind<'_>, outcome: Option<Outcome>) -> Vec<String> {
    if outcome == Some(Outcome::Unknown) {
        return after_unknown(kind);
    }
    // Metadata can be missing: a caller without the right to read an account does not get it.
    let of = |key: &str, words: &[&str]| {
        let value = error.metadata(key);
        value.map(|value| command(&[words, &[value]].concat())).into_iter().collect::<Vec<_>>()
    };
    let steps = match error.reason() {
        "REQUEST_ID_REUSED" => match kind {
            CallKind::Change(request_id) => vec![command(&["request", "outcome", request_id])],
            CallKind::Read | CallKind::Opening(_) | CallKind::Update(_) => Vec::new(),
        },
        _ if error.is_invalid() => vec!["correct the command: `--help` explains it".to_owned()],
        "ACCOUNT_NOT_FOUND" => vec![command(&["account", "list"])],
        "ACCOUNT_EXISTS"
        | "CURRENCY_MISMATCH"
        | "CONDITION_FAILED"
        | "INSUFFICIENT_FUNDS"
        | "BALANCE_OUT_OF_RANGE"
        | "VERSION_MISMATCH" => of("account_id", &["account", "get"]),
        // Without held money it is the balance.
        "ACCOUNT_NOT_EMPTY" => match error.metadata("held") {
            Some(held) if held.contains(|it| matches!(it, '1'..='9')) => {
                of("account_id", &["hold", "list", "--state", "open"])
            }
            _ => of("account_id", &["account", "get"]),
        },
        "ACCOUNT_FROZEN" | "ACCOUNT_CLOSED" => of("account_id", &["account", "changes"]),
        "HOLD_EXISTS" | "HOLD_NOT_OPEN" | "HOLD_AMOUNT_EXCEEDED" | "HOLD_AMOUNT_TOO_LOW" => {
            of("hold_id", &["hold", "get"])
        }
        "HOLD_NOT_FOUND" => vec!["`passbook hold list ACCOUNT` prints the ids of holds".to_owned()],
        "TRANSACTION_NOT_DIVISIBLE" | "REVERSAL_AMOUNT_EXCEEDED" => {
            of("transaction_id", &["transaction", "get"])
        }
        "TRANSACTION_NOT_FOUND" => vec![command(&["transaction", "list", "--limit", "20"])],
        "EVENT_TOKEN_UNKNOWN" => vec![
            "compare what you have with the ledger, then begin again without the token".to_owned(),
        ],
        "ALREADY_REVERSED" => of("reversed_by_transaction_id", &["transaction", "get"]),
        "UNBALANCED" => vec![
            "let the amounts sum to zero in each currency; a deposit, a withdrawal or a capture needs \
             a contra account of the server"
                .to_owned(),
        ],
        "TOO_MANY_ACCOUNTS" => vec!["name a longer --prefix".to_owned()],
        "UNAUTHENTICATED" => vec![
            "give a token with --token-file, PASSBOOK_TOKEN_FILE or a context (`passbook context \
             set`)"
                .to_owned(),
        ],
        "PERMISSION_DENIED" => {
            vec!["ask the operator of the server: its policy does not allow this".to_owned()]
        }
        // Nothing comes behind a command: it is pasted as it is.
        _ if error.is_deadline() => vec![format!("with a longer --timeout, {}", again(kind))],
        _ if error.is_final() => Vec::new(),
        "" => vec!["start a server with `passbook serve`, or name one with --target".to_owned()],
        _ => vec![again(kind)],
    };
    let is_stored = outcome == Some(Outcome::Rejected) && matches!(kind, CallKind::Change(_));
    let advice = "a new attempt needs a new request id: this one stays rejected".to_owned();
    steps.into_iter().chain(is_stored.then_some(advice)).collect()
}

/// The command again, under the same id.
fn again(kind: CallKind<'_>) -> String {
    match kind {
        CallKind::Change(request_id) => format!("repeat it: {}", repeat(request_id)),
        CallKind::Opening(Some(account_id)) => format!("repeat it: {}", repeat_with(account_id)),
        CallKind::Read | CallKind::Opening(None) | CallKind::Update(_) => {
            "repeat the command".to_owned()
        }
    }
}

/// How to find out whether a change was applied.
fn after_unknown(kind: CallKind<'_>) -> Vec<String> {
    match kind {
        CallKind::Change(request_id) => vec![
            format!("to complete it, repeat it: {}", repeat(request_id)),
            format!("to ask: {}", command(&["request", "outcome", request_id])),
            format!("to give it up: {}", command(&["request", "fence", request_id])),
        ],
        CallKind::Update(account_id) => vec![
            format!(
                "it was applied or not; to see: {}",
                command(&["account", "changes", account_id])
            ),
            "then repeat the command if it is still needed".to_owned(),
        ],
        CallKind::Read | CallKind::Opening(_) => vec![again(kind)],
    }
}
