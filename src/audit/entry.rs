//! The lines of the audit log. docs/operations/audit.md has the table of their fields.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::SystemTime};

use serde::Serialize;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    audit::{
        credential::Credential,
        denials::{DenialCount, Denied},
    },
    domain::{
        account::{AttributeChange, NewLimit},
        command::{Action, Command},
        hex::to_hex,
        ids::{AccountId, Identity, TransactionId},
        money::{Amount, Currency},
        rejection::Rejection,
    },
};

/// Bytes of the hash of a `request_id`. Enough to find the line of a known id.
const REQUEST_HASH_BYTES: usize = 8;

/// About the memory of an entry without its command, and its part of the line.
const ENTRY_BYTES: usize = 256;
/// About the memory of an account in a command, and its part of the line.
const ACCOUNT_BYTES: usize = 256;
/// About the length of a line without accounts and amounts.
const LINE_BYTES: usize = 350;
/// About the length of an account in a line without its id, and of an amount without it.
const ACCOUNT_LINE_BYTES: usize = 3;
const AMOUNT_LINE_BYTES: usize = 90;

/// A line before it is formatted: that is the work of the thread that writes.
pub struct Entry {
    pub time: SystemTime,
    pub event: Event,
}

/// What happened.
pub enum Event {
    /// A change is about to begin.
    Intent(Arc<Change>),
    /// What became of a change.
    Result(Arc<Change>, Outcome),
    /// A call, or one request of it, was denied.
    Denial(Denial),
    /// So many denials, which have no line of their own.
    DenialCount(DenialCount),
    /// So many lines are missing at this place.
    Lost(u64),
    /// An event of the server, with its own fields.
    Server(&'static str, serde_json::Value),
}

/// Where a call comes from, and what it calls.
#[derive(Debug)]
pub struct Origin {
    /// `passbook.v1.AccountService/Deposit`
    pub method: &'static str,
    /// Whether the method has one request and one response.
    pub is_unary: bool,
    /// The other end.
    pub peer: Option<SocketAddr>,
    /// What the caller sent.
    pub credential: Credential,
}

/// A change, as its lines name it.
#[derive(Debug)]
pub struct Change {
    pub change_id: Uuid,
    pub origin: Arc<Origin>,
    pub identity: Identity,
    pub command: Command,
}

/// A denial, as its line names it.
pub struct Denial {
    pub origin: Arc<Origin>,
    /// Anonymous if the caller was not identified.
    pub identity: Identity,
    /// Whether the policy allows the identity anything.
    pub has_rights: bool,
    pub reason: &'static str,
    /// The command that was denied, if the call was read so far.
    pub command: Option<Command>,
}

/// What became of a change.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was applied, now.
    Applied(Option<TransactionId>),
    /// It had a result before, which was given again.
    Replayed(Option<TransactionId>),
    /// The state of the ledger rejects it.
    Rejected(Rejection),
    /// It was not applied, for this reason.
    NotApplied(&'static str),
    /// The server does not know, for this reason.
    Unknown(&'static str),
}

/// A line about a call.
#[derive(Default, Serialize)]
struct Line<'a> {
    time: String,
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    change_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    identity: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    credential_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_ids: Option<BTreeSet<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_sha256: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    amounts: Vec<AmountField<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    forced: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<TransactionId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
}

#[derive(Serialize)]
struct AmountField<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    account_id: Option<&'a str>,
    /// None: the amount is zero in any currency, or unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    currency_code: Option<&'a str>,
    value: String,
}

/// A line about the server.
#[derive(Serialize)]
struct ServerLine<'a> {
    time: String,
    event: &'static str,
    #[serde(flatten)]
    fields: &'a serde_json::Value,
}

impl Entry {
    /// An entry with the present time.
    pub fn now(event: Event) -> Self {
        Self { time: SystemTime::now(), event }
    }

    /// Appends the line.
    pub fn format(&self, has_amounts: bool, text: &mut Vec<u8>) {
        let time = timestamp(self.time);
        let begin = text.len();
        let result = match &self.event {
            Event::Server(event, fields) => {
                serde_json::to_writer(&mut *text, &ServerLine { time, event, fields })
            }
            event => serde_json::to_writer(&mut *text, &Line { time, ..event.line(has_amounts) }),
        };
        // Texts and numbers in memory can always be formatted.
        match result {
            Ok(()) => text.push(b'\n'),
            Err(_) => text.truncate(begin),
        }
    }
}

impl Event {
    /// The identity that it is about.
    pub fn identity(&self) -> Option<&Identity> {
        match self {
            Self::Intent(change) | Self::Result(change, _) => Some(&change.identity),
            Self::Denial(denial) => Some(&denial.identity),
            Self::DenialCount(_) | Self::Lost(_) | Self::Server(..) => None,
        }
    }

    /// About the memory that it takes until it is written.
    pub fn bytes(&self) -> usize {
        let command = match self {
            Self::Intent(change) | Self::Result(change, _) => Some(&change.command),
            Self::Denial(denial) => denial.command.as_ref(),
            Self::DenialCount(_) | Self::Lost(_) | Self::Server(..) => None,
        };
        let of_command = |it: &Command| it.memory() + it.account_ids().count() * ACCOUNT_BYTES;
        ENTRY_BYTES + command.map_or(0, of_command)
    }

    fn line(&self, has_amounts: bool) -> Line<'_> {
        match self {
            Self::Intent(change) => Line { event: "intent", ..change.line(has_amounts) },
            Self::Result(change, outcome) => {
                let (outcome, reason, transaction_id) = outcome.fields();
                let line = change.line(has_amounts);
                Line { event: "change", outcome: Some(outcome), reason, transaction_id, ..line }
            }
            Self::Denial(denial) => Line {
                event: "denial",
                outcome: Some("denied"),
                reason: Some(denial.reason.to_owned()),
                count: Some(1),
                ..of_call(&denial.origin, &denial.identity, denial.command.as_ref(), has_amounts)
            },
            Self::DenialCount(DenialCount { who, reason, count }) => {
                let (identity, address) = match who {
                    Denied::Identity(identity) | Denied::WithoutRights(identity) => {
                        (Some(identity.as_str()), None)
                    }
                    Denied::Network(network) => (None, network.map(|it| it.to_string())),
                    Denied::Others => (None, Some("others".to_owned())),
                };
                let (outcome, reason) = (Some("denied"), Some((*reason).to_owned()));
                let count = Some(*count);
                Line { event: "denial", identity, address, outcome, reason, count, ..no_line() }
            }
            Self::Lost(count) => Line { event: "lost", count: Some(*count), ..no_line() },
            Self::Server(event, _) => Line { event, ..no_line() },
        }
    }
}

impl Change {
    fn line(&self, has_amounts: bool) -> Line<'_> {
        let line = of_call(&self.origin, &self.identity, Some(&self.command), has_amounts);
        Line { change_id: Some(self.change_id), ..line }
    }
}

impl Outcome {
    fn fields(&self) -> (&'static str, Option<String>, Option<TransactionId>) {
        match self {
            Self::Applied(transaction_id) => ("applied", None, *transaction_id),
            Self::Replayed(transaction_id) => ("replayed", None, *transaction_id),
            Self::Rejected(rejection) => ("rejected", Some(reason_of(rejection)), None),
            Self::NotApplied(reason) => ("not_applied", Some((*reason).to_owned()), None),
            Self::Unknown(reason) => ("unknown", Some((*reason).to_owned()), None),
        }
    }
}

/// The reason of a rejection, as `passbook_requests_total` has it.
fn reason_of(rejection: &Rejection) -> String {
    let fields = serde_json::to_value(rejection).unwrap_or_default();
    fields["reason"].as_str().unwrap_or_default().to_ascii_lowercase()
}

/// About the length of a line about this command.
pub fn line_bytes(command: &Command, has_amounts: bool) -> usize {
    let of_account = |id: &AccountId| match has_amounts {
        true => 2 * id.as_str().len() + ACCOUNT_LINE_BYTES + AMOUNT_LINE_BYTES,
        false => id.as_str().len() + ACCOUNT_LINE_BYTES,
    };
    LINE_BYTES + command.account_ids().map(of_account).sum::<usize>()
}

fn no_line() -> Line<'static> {
    Line::default()
}

fn of_call<'a>(
    origin: &Origin,
    identity: &'a Identity,
    command: Option<&'a Command>,
    has_amounts: bool,
) -> Line<'a> {
    let key = command.and_then(Command::key);
    let request = key.map(|key| Sha256::digest(key.request_id.as_str()));
    Line {
        identity: Some(identity.as_str()),
        credential: Some(origin.credential.kind()),
        credential_sha256: origin.credential.sha256().map(to_hex),
        peer: origin.peer,
        method: Some(origin.method),
        account_ids: command.map(|it| it.account_ids().map(|id| id.as_str()).collect()),
        request_sha256: request.map(|hash| to_hex(&hash[..REQUEST_HASH_BYTES])),
        amounts: command.filter(|_| has_amounts).map(amounts).unwrap_or_default(),
        forced: command.is_some_and(Command::is_forced).then_some(true),
        ..Line::default()
    }
}

/// The amounts that the caller sent.
fn amounts(command: &Command) -> Vec<AmountField<'_>> {
    let request = match command {
        Command::CreateAccount(new) => {
            let limit = new.overdraft_limit;
            let is_sent = limit.is_positive();
            let limit = is_sent.then(|| field(Some(&new.account_id), &new.currency, limit));
            let unlimited = new.unlimited_overdraft.then(|| unlimited(&new.account_id));
            return limit.into_iter().chain(unlimited).collect();
        }
        Command::UpdateAccount(update) => {
            let AttributeChange::Update { overdraft_limit, unlimited_overdraft, .. } =
                &update.change
            else {
                return Vec::new();
            };
            let account_id = &update.account_id;
            let limit = overdraft_limit.as_ref().map(|limit| match limit {
                NewLimit::Zero => without_currency(account_id, "0"),
                NewLimit::Amount(currency, amount) => field(Some(account_id), currency, *amount),
            });
            let unlimited = (*unlimited_overdraft == Some(true)).then(|| unlimited(account_id));
            return limit.into_iter().chain(unlimited).collect();
        }
        Command::Request(request) => request,
        Command::ExpireHolds(_) => return Vec::new(),
    };
    match &request.action {
        Action::Post(_, legs) => {
            legs.iter().map(|leg| field(Some(&leg.account_id), &leg.currency, leg.amount)).collect()
        }
        Action::PlaceHold(new) => {
            vec![field(Some(&new.account_id), &new.currency, new.amount)]
        }
        Action::UpdateHold(update) => {
            let amount = update.amount.as_ref();
            amount.map(|(currency, amount)| field(None, currency, *amount)).into_iter().collect()
        }
        Action::CaptureHold(capture) => {
            let amount = capture.amount.as_ref();
            amount.map(|(currency, amount)| field(None, currency, *amount)).into_iter().collect()
        }
        Action::Reverse(reversal) => {
            let amount = reversal.amount.as_ref();
            amount.map(|(currency, amount)| field(None, currency, *amount)).into_iter().collect()
        }
        Action::ReleaseHold(_) | Action::Fence => Vec::new(),
    }
}

fn field<'a>(
    account_id: Option<&'a AccountId>,
    currency: &'a Currency,
    amount: Amount,
) -> AmountField<'a> {
    let account_id = account_id.map(AccountId::as_str);
    AmountField { account_id, currency_code: Some(currency.code()), value: amount.to_string() }
}

/// An overdraft without a limit.
fn unlimited(account_id: &AccountId) -> AmountField<'_> {
    without_currency(account_id, "unlimited")
}

fn without_currency<'a>(account_id: &'a AccountId, value: &str) -> AmountField<'a> {
    AmountField {
        account_id: Some(account_id.as_str()),
        currency_code: None,
        value: value.to_owned(),
    }
}

/// RFC 3339, in UTC, with microseconds.
pub fn timestamp(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_caller_can_forge_a_line() {
        // A certificate can have such a name.
        let name = "a\"}\n{\"event\":\"change\"\r\u{1b}[2K\u{2028}";
        let origin =
            Origin { method: "m", is_unary: true, peer: None, credential: Credential::None };
        let denial = Denial {
            origin: Arc::new(origin),
            identity: Identity::from_stored(name),
            has_rights: true,
            reason: "permission_denied",
            command: None,
        };
        let count =
            DenialCount { who: Denied::Identity(denial.identity.clone()), reason: "r", count: 2 };
        for event in [Event::Denial(denial), Event::DenialCount(count)] {
            let mut text = Vec::new();
            Entry::now(event).format(true, &mut text);
            let text = String::from_utf8(text).unwrap();
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.trim_end().contains(char::is_control), "{text:?}");
            let line: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!((&line["event"], &line["identity"]), (&"denial".into(), &name.into()));
        }
    }
}
