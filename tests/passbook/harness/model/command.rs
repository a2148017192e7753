//! The calls of the model test and their replies: one type for all RPCs, so that the model and the
//! server get the same call and their replies are compared as a whole.

use std::{collections::BTreeMap, time::Duration};

use passbook::proto::*;
use prost_types::FieldMask;
use tonic::{Code, Request, Status};
use tonic_types::{StatusExt, pb};

use crate::harness::{Answer, Change, Client, as_outcome, seconds, status_of, within};

#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    CreateAccount(CreateAccountRequest),
    UpdateAccount(UpdateAccountRequest),
    Freeze(FreezeAccountRequest),
    Unfreeze(UnfreezeAccountRequest),
    Close(CloseAccountRequest),
    Deposit(DepositRequest),
    Withdraw(WithdrawRequest),
    Transfer(TransferRequest),
    Post(PostTransactionRequest),
    PlaceHold(PlaceHoldRequest),
    UpdateHold(UpdateHoldRequest),
    CaptureHold(CaptureHoldRequest),
    ReleaseHold(ReleaseHoldRequest),
    Reverse(ReverseTransactionRequest),
    GetRequestOutcome(GetRequestOutcomeRequest),
    FenceRequest(FenceRequestRequest),
    GetAccount(GetAccountRequest),
    BatchGetAccounts(BatchGetAccountsRequest),
    ListAccounts(ListAccountsRequest),
    SumBalances(SumBalancesRequest),
    ListAccountChanges(ListAccountChangesRequest),
    GetHold(GetHoldRequest),
    ListHolds(ListHoldsRequest),
    GetTransaction(GetTransactionRequest),
    ListTransactions(ListTransactionsRequest),
    ListEntries(ListEntriesRequest),
    GetBalance(GetBalanceRequest),
}

/// The content of an OK, of any RPC.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    pub accounts: Vec<Account>,
    pub account_changes: Vec<AccountChange>,
    pub transactions: Vec<Transaction>,
    pub holds: Vec<Hold>,
    pub entries: Vec<Entry>,
    pub balance: Option<(Money, i64)>,
    pub sums: Vec<BalanceSum>,
    pub replayed: bool,
    /// Of GetRequestOutcome and FenceRequest: the outcome, and whether the request is fenced.
    pub outcome: Option<(i32, bool)>,
    /// Of GetRequestOutcome and FenceRequest: the rejection.
    pub rejection: Option<Rejection>,
}

/// A rejection, with the metadata that `errors.proto` lists.
#[derive(Clone, Debug, PartialEq)]
pub struct Rejection {
    pub code: Code,
    pub reason: String,
    pub metadata: BTreeMap<String, String>,
}

pub type Reply = Result<Response, Rejection>;

impl Rejection {
    pub fn new(code: Code, reason: &str, metadata: &[(&str, String)]) -> Self {
        let metadata = metadata.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
        Self { code, reason: reason.to_owned(), metadata: metadata.collect() }
    }

    /// None if the status is not a result: the request was not applied.
    pub fn of(status: &Status) -> Option<Self> {
        let info = status.get_details_error_info();
        let info = info.unwrap_or_else(|| panic!("an error without ErrorInfo: {status:?}"));
        match info.metadata.get("outcome").map(String::as_str) {
            None => {}
            Some("not_applied") => return None,
            Some(_) => panic!("nothing here breaks off a commit: {status:?}"),
        }
        let is_malformed =
            info.metadata.contains_key("field") || info.reason == "REQUEST_ID_REUSED";
        let metadata =
            if is_malformed { BTreeMap::new() } else { info.metadata.into_iter().collect() };
        Some(Self { code: status.code(), reason: info.reason, metadata })
    }

    fn of_message(status: pb::Status) -> Self {
        Self::of(&status_of(&status)).expect("a result")
    }
}

impl Command {
    /// Whether the call is a read, which can be repeated.
    pub fn is_read(&self) -> bool {
        use Command as C;
        matches!(
            self,
            C::GetAccount(_)
                | C::BatchGetAccounts(_)
                | C::ListAccounts(_)
                | C::SumBalances(_)
                | C::ListAccountChanges(_)
                | C::GetHold(_)
                | C::ListHolds(_)
                | C::GetTransaction(_)
                | C::ListTransactions(_)
                | C::ListEntries(_)
                | C::GetBalance(_)
                | C::GetRequestOutcome(_)
        )
    }

    /// The `request_id` and `validate_only` of those that have them.
    fn identity(&mut self) -> Option<(&mut String, Option<&mut bool>)> {
        match self {
            Self::Deposit(it) => Some((&mut it.request_id, Some(&mut it.validate_only))),
            Self::Withdraw(it) => Some((&mut it.request_id, Some(&mut it.validate_only))),
            Self::Transfer(it) => Some((&mut it.request_id, Some(&mut it.validate_only))),
            Self::Post(it) => Some((&mut it.request_id, Some(&mut it.validate_only))),
            Self::PlaceHold(it) => Some((&mut it.request_id, None)),
            Self::UpdateHold(it) => Some((&mut it.request_id, None)),
            Self::CaptureHold(it) => Some((&mut it.request_id, None)),
            Self::ReleaseHold(it) => Some((&mut it.request_id, None)),
            Self::Reverse(it) => Some((&mut it.request_id, None)),
            _ => None,
        }
    }

    pub fn request_id(&self) -> Option<String> {
        self.clone().identity().map(|(request_id, _)| request_id.clone())
    }

    pub fn with_request_id(mut self, new: &str) -> Self {
        if let Some((request_id, _)) = self.identity() {
            new.clone_into(request_id);
        }
        self
    }

    pub fn is_dry_run(&self) -> bool {
        self.clone().identity().is_some_and(|(_, dry)| dry.is_some_and(|dry| *dry))
    }

    pub fn set_dry_run(&mut self, value: bool) {
        if let Some((_, Some(dry))) = self.identity() {
            *dry = value;
        }
    }

    /// The content that repeats of a request must share. What an update has outside its mask is no part
    /// of it.
    pub fn body(&self) -> Self {
        let mut body = self.clone().with_request_id("");
        body.set_dry_run(false);
        if let Self::UpdateHold(update) = &mut body {
            let mask = update.update_mask.take().filter(|mask| !mask.paths.is_empty());
            if let Some(mask) = mask {
                let is_named = |path: &str| mask.paths.iter().any(|it| it == path);
                update.amount.take_if(|_| !is_named("amount"));
                update.expire_time.take_if(|_| !is_named("expire_time"));
                let never_expires = is_named("expire_time") && update.expire_time.is_none();
                let paths = never_expires.then(|| "expire_time".to_owned());
                update.update_mask = paths.map(|path| FieldMask { paths: vec![path] });
            }
        }
        body
    }

    /// The amounts of the request, and whether each must be positive.
    pub fn amounts(&mut self) -> (Vec<&mut Money>, bool) {
        match self {
            Self::Deposit(it) => (it.amount.iter_mut().collect(), true),
            Self::Withdraw(it) => (it.amount.iter_mut().collect(), true),
            Self::Transfer(it) => (it.amount.iter_mut().collect(), true),
            Self::PlaceHold(it) => (it.amount.iter_mut().collect(), true),
            Self::UpdateHold(it) => (it.amount.iter_mut().collect(), true),
            Self::CaptureHold(it) => (it.amount.iter_mut().collect(), true),
            Self::Reverse(it) => (it.amount.iter_mut().collect(), true),
            Self::Post(it) => {
                (it.legs.iter_mut().filter_map(|leg| leg.amount.as_mut()).collect(), false)
            }
            _ => (Vec::new(), true),
        }
    }

    /// The same request with other spellings of its amounts.
    fn respelled(&self, random: &mut fastrand::Rng) -> Self {
        let mut command = self.clone();
        for money in command.amounts().0 {
            match random.u8(0..4) {
                0 if money.value.contains('.') => {
                    let short = money.value.trim_end_matches('0').trim_end_matches('.');
                    money.value = short.to_owned();
                }
                1 => {
                    let digits = money.value.trim_start_matches('-');
                    let sign = if digits.len() < money.value.len() { "-" } else { "" };
                    money.value = format!("{sign}0{digits}");
                }
                _ => {}
            }
        }
        command
    }

    /// Repeats the call until there is a result. Reads lists to their ends.
    pub async fn send(
        &self,
        client: &Client,
        random: &mut fastrand::Rng,
        in_stream: bool,
    ) -> Reply {
        for _ in 0..100 {
            let command = self.respelled(random);
            let status = match command.send_once(client, random, in_stream).await {
                Ok(response) => return Ok(response),
                Err(status) => status,
            };
            if let Some(rejection) = Rejection::of(&status) {
                return Err(rejection);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no result for {self:?}")
    }

    async fn send_once(
        self,
        client: &Client,
        random: &mut fastrand::Rng,
        in_stream: bool,
    ) -> Result<Response, Status> {
        let client = client.clone();
        match self {
            Self::CreateAccount(it) if random.bool() => create_in_batch(client, it, random).await,
            Self::CreateAccount(it) => Ok(account(client.create_account(timed(it)).await?.account)),
            Self::UpdateAccount(it) => Ok(account(client.update_account(timed(it)).await?.account)),
            Self::Freeze(it) => Ok(account(client.freeze_account(timed(it)).await?.account)),
            Self::Unfreeze(it) => Ok(account(client.unfreeze_account(timed(it)).await?.account)),
            Self::Close(it) => Ok(account(client.close_account(timed(it)).await?.account)),
            Self::Deposit(it) => change(client, it, random, in_stream).await,
            Self::Withdraw(it) => change(client, it, random, in_stream).await,
            Self::Transfer(it) => change(client, it, random, in_stream).await,
            Self::Post(it) => change(client, it, random, in_stream).await,
            Self::PlaceHold(it) => change(client, it, random, in_stream).await,
            Self::UpdateHold(it) => change(client, it, random, in_stream).await,
            Self::CaptureHold(it) => change(client, it, random, in_stream).await,
            Self::ReleaseHold(it) => change(client, it, random, in_stream).await,
            Self::Reverse(it) => change(client, it, random, in_stream).await,
            Self::GetRequestOutcome(it) => {
                Ok(outcome(client.get_request_outcome(timed(it)).await?))
            }
            Self::FenceRequest(it) => {
                Ok(outcome(as_outcome(client.fence_request(timed(it)).await?)))
            }
            read => crate::harness::model::reads::send(read, client).await,
        }
    }
}

fn outcome(it: GetRequestOutcomeResponse) -> Response {
    let outcome = Some((it.outcome, it.fenced));
    let rejection = it.error.map(Rejection::of_message);
    let answer = Answer { transaction: it.transaction, hold: it.hold, replayed: false };
    Response { outcome, rejection, ..made(answer) }
}

/// Opens an account in a batch, sometimes with a malformed request and with a repeat, which get their own
/// results.
async fn create_in_batch(
    client: Client,
    request: CreateAccountRequest,
    random: &mut fastrand::Rng,
) -> Result<Response, Status> {
    use create_account_result::Result as Outcome;
    let malformed = CreateAccountRequest { currency_code: "usd".to_owned(), ..request.clone() };
    let malformed = random.bool().then_some(malformed);
    let has_repeat = random.bool() && !request.account_id.is_empty();
    let repeat = has_repeat.then(|| request.clone());
    let before = usize::from(malformed.is_some());
    let requests = malformed.into_iter().chain([request]).chain(repeat).collect();
    let batch = BatchCreateAccountsRequest { requests };
    let results = client.batch_create_accounts(timed(batch)).await?.results;
    let results = results.into_iter().map(|result| match result.result {
        Some(Outcome::Account(it)) => Ok(account(Some(it))),
        Some(Outcome::Error(error)) => Err(status_of(&error)),
        None => panic!("no result"),
    });
    let mut results: Vec<_> = results.collect();
    assert_eq!(results.len(), before + 1 + usize::from(has_repeat));
    let answers: Vec<_> = results.split_off(before);
    assert!(results.iter().all(|it| matches!(it, Err(it) if it.code() == Code::InvalidArgument)));
    let codes = answers.iter().map(|it| match it {
        Ok(_) => Some(Code::Ok),
        Err(status) => Rejection::of(status).map(|it| it.code),
    });
    // Those without a result are sent again.
    let codes: Vec<Code> = codes.flatten().collect();
    assert!(codes.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
    answers.into_iter().next().expect("a result")
}

/// Makes a change: by a stream in one of its two forms, or by a unary call; a posting also by a batch.
async fn change(
    client: Client,
    request: impl Into<Change>,
    random: &mut fastrand::Rng,
    in_stream: bool,
) -> Result<Response, Status> {
    let change = match (in_stream, random.bool(), request.into()) {
        (true, true, Change::Post(request)) => Change::PostInStream(request),
        (true, _, request) => request.in_stream(),
        (false, true, Change::Post(request)) => Change::PostInBatch(request),
        (false, _, request) => request,
    };
    change.send(&client, DEADLINE).await.map(made)
}

/// A deadline that no call should ever reach.
const DEADLINE: Duration = seconds(30);

pub fn timed<T>(message: T) -> Request<T> {
    within(DEADLINE, message)
}

fn account(account: Option<Account>) -> Response {
    Response { accounts: account.into_iter().collect(), ..Response::default() }
}

fn made(answer: impl Into<Answer>) -> Response {
    let Answer { transaction, hold, replayed } = answer.into();
    let transactions = transaction.into_iter().collect();
    Response { transactions, holds: hold.into_iter().collect(), replayed, ..Response::default() }
}
