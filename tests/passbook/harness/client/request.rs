//! A request with a `request_id`, as a value: it can be sent, repeated, and settled.

use std::time::Duration;

use bytes::Bytes;
use http_body::Body as HttpBody;
use passbook::proto::{
    post_transaction_result::Result as Posted, streamed_request::Request as Streamed, *,
};
use tonic::{Code, Status, body::Body, client::GrpcService, codegen::StdError};

use crate::harness::{
    Client, PATIENCE, ServiceClient, capture_part, deposit, deposited, hold, hold_update,
    in_any_order, new_request_id, one_posting, open, open_funded, place, posting, release,
    reversal, status_of, transfer, withdrawal, within,
};

#[derive(Clone, Debug)]
pub enum Change {
    Deposit(DepositRequest),
    Withdraw(WithdrawRequest),
    Transfer(TransferRequest),
    Post(PostTransactionRequest),
    /// By BatchPostTransactions, alone in its batch.
    PostInBatch(PostTransactionRequest),
    /// By StreamTransactions, as its only `request`.
    PostInStream(PostTransactionRequest),
    /// By StreamTransactions, alone in its `requests`.
    InStream(Box<Change>),
    PlaceHold(PlaceHoldRequest),
    UpdateHold(UpdateHoldRequest),
    CaptureHold(CaptureHoldRequest),
    ReleaseHold(ReleaseHoldRequest),
    Reverse(ReverseTransactionRequest),
}

macro_rules! changes {
    ($($request:ident => $kind:ident),+ $(,)?) => {$(
        impl From<$request> for Change {
            fn from(request: $request) -> Self {
                Self::$kind(request)
            }
        }
    )+};
}
changes! {
    DepositRequest => Deposit,
    WithdrawRequest => Withdraw,
    TransferRequest => Transfer,
    PostTransactionRequest => Post,
    PlaceHoldRequest => PlaceHold,
    UpdateHoldRequest => UpdateHold,
    CaptureHoldRequest => CaptureHold,
    ReleaseHoldRequest => ReleaseHold,
    ReverseTransactionRequest => Reverse,
}

/// The answer to a request that was applied.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer {
    pub transaction: Option<Transaction>,
    pub hold: Option<Hold>,
    pub replayed: bool,
}

macro_rules! answers {
    ($($response:ident { $($effect:ident),+ })+) => {$(
        impl From<$response> for Answer {
            fn from(response: $response) -> Self {
                let mut answer = Self { replayed: response.replayed, ..Self::default() };
                $(answer.$effect = response.$effect;)+
                answer
            }
        }
    )+};
}
answers! {
    DepositResponse { transaction }
    WithdrawResponse { transaction }
    TransferResponse { transaction }
    PostTransactionResponse { transaction }
    PlaceHoldResponse { hold }
    UpdateHoldResponse { hold }
    CaptureHoldResponse { transaction, hold }
    ReleaseHoldResponse { hold }
    ReverseTransactionResponse { transaction }
}

impl Answer {
    /// The answer in the result of a stream, or the error.
    pub fn of(result: StreamedResult) -> Result<Self, Status> {
        let StreamedResult { request_id: _, transaction, hold, error, replayed } = result;
        let answer = Self { transaction, hold, replayed };
        let Some(error) = error else { return Ok(answer) };
        assert_eq!(answer, Self::default(), "{error:?}");
        Err(status_of(&error))
    }

    /// The transaction of a request that has one.
    pub fn transaction(&self) -> &Transaction {
        self.transaction.as_ref().expect("a transaction")
    }
}

/// The final result of a request.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one")]
pub enum RequestResult {
    Applied(Answer),
    Rejected(Status),
}

impl Change {
    pub fn request_id(&self) -> &str {
        match self {
            Self::Deposit(request) => &request.request_id,
            Self::Withdraw(request) => &request.request_id,
            Self::Transfer(request) => &request.request_id,
            Self::Post(request) | Self::PostInBatch(request) | Self::PostInStream(request) => {
                &request.request_id
            }
            Self::InStream(change) => change.request_id(),
            Self::PlaceHold(request) => &request.request_id,
            Self::UpdateHold(request) => &request.request_id,
            Self::CaptureHold(request) => &request.request_id,
            Self::ReleaseHold(request) => &request.request_id,
            Self::Reverse(request) => &request.request_id,
        }
    }

    /// The same request in the `requests` of a stream.
    pub fn in_stream(self) -> Self {
        Self::InStream(Box::new(self))
    }

    /// The request as an element of a stream.
    pub fn streamed(self) -> StreamedRequest {
        let request = match self {
            Self::Deposit(request) => Streamed::Deposit(request),
            Self::Withdraw(request) => Streamed::Withdraw(request),
            Self::Transfer(request) => Streamed::Transfer(request),
            Self::Post(request) | Self::PostInBatch(request) | Self::PostInStream(request) => {
                Streamed::PostTransaction(request)
            }
            Self::InStream(change) => return change.streamed(),
            Self::PlaceHold(request) => Streamed::PlaceHold(request),
            Self::UpdateHold(request) => Streamed::UpdateHold(request),
            Self::CaptureHold(request) => Streamed::CaptureHold(request),
            Self::ReleaseHold(request) => Streamed::ReleaseHold(request),
            Self::Reverse(request) => Streamed::ReverseTransaction(request),
        };
        StreamedRequest { request: Some(request), timeout: None }
    }

    pub async fn send<Transport>(
        &self,
        client: &ServiceClient<Transport>,
        deadline: Duration,
    ) -> Result<Answer, Status>
    where
        Transport: GrpcService<Body, Error: Into<StdError>> + Clone,
        Transport::ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send>,
        Transport::ResponseBody: Send + 'static,
    {
        let answer = match self.clone() {
            Self::Deposit(request) => client.deposit(within(deadline, request)).await?.into(),
            Self::Withdraw(request) => client.withdraw(within(deadline, request)).await?.into(),
            Self::Transfer(request) => client.transfer(within(deadline, request)).await?.into(),
            Self::Post(request) => client.post_transaction(within(deadline, request)).await?.into(),
            Self::PostInBatch(request) => {
                let batch = BatchPostTransactionsRequest { requests: vec![request] };
                let mut answer = client.batch_post_transactions(within(deadline, batch)).await?;
                return posted(answer.results.pop());
            }
            Self::PostInStream(request) => {
                let messages = within(deadline, tokio_stream::iter([one_posting(request)]));
                let mut answers = client.stream_transactions(messages).await?;
                return posted(answers.message().await?.and_then(|response| response.result));
            }
            Self::InStream(change) => {
                let request_id = change.request_id().to_owned();
                let message = in_any_order(vec![change.streamed()]);
                let messages = within(deadline, tokio_stream::iter([message]));
                let mut answers = client.stream_transactions(messages).await?;
                let mut answer = answers.message().await?.expect("one result a request");
                let result = answer.results.pop().expect("one result a request");
                assert_eq!((&result.request_id, answer.results.len()), (&request_id, 0));
                return Answer::of(result);
            }
            Self::PlaceHold(request) => client.place_hold(within(deadline, request)).await?.into(),
            Self::UpdateHold(request) => {
                client.update_hold(within(deadline, request)).await?.into()
            }
            Self::CaptureHold(request) => {
                client.capture_hold(within(deadline, request)).await?.into()
            }
            Self::ReleaseHold(request) => {
                client.release_hold(within(deadline, request)).await?.into()
            }
            Self::Reverse(request) => {
                client.reverse_transaction(within(deadline, request)).await?.into()
            }
        };
        Ok(answer)
    }

    /// Sends it to one server after another until the answer is certain, as the contract asks
    /// callers to do.
    pub async fn settle(&self, clients: &[Client]) -> RequestResult {
        let send = |client| async move { self.send(&client, Duration::from_secs(5)).await };
        match settle(self.request_id(), clients, send).await {
            Ok(answer) => RequestResult::Applied(answer),
            Err(status) => RequestResult::Rejected(status),
        }
    }
}

/// Makes a call that may be repeated, on one client after the other, until its result is definite.
pub async fn settle<T, Call: Future<Output = Result<T, Status>>>(
    name: &str,
    clients: &[Client],
    call: impl Fn(Client) -> Call,
) -> Result<T, Status> {
    let end = tokio::time::Instant::now() + PATIENCE;
    let first = fastrand::usize(..clients.len());
    let mut last = String::new();
    for attempt in 0.. {
        if tokio::time::Instant::now() > end {
            panic!("no result for {name} within {PATIENCE:?}; the last answer: {last}");
        }
        match call(clients[(first + attempt) % clients.len()].clone()).await {
            Err(status) if !is_definite(&status) => last = format!("{status:?}"),
            result => return result,
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(2..40))).await;
    }
    unreachable!("the loop ends by return or panic")
}

fn posted(result: Option<PostTransactionResult>) -> Result<Answer, Status> {
    let PostTransactionResult { result, replayed } = result.expect("one result a request");
    match result.expect("a transaction or an error") {
        Posted::Transaction(it) => Ok(Answer { transaction: Some(it), hold: None, replayed }),
        Posted::Error(error) => Err(status_of(&error)),
    }
}

/// Repeats the requests of the history whose error is not definite, and records their results.
pub async fn settle_the_rest(history: &mut Vec<(Change, RequestResult)>, client: &Client) {
    let is_open =
        |result: &RequestResult| matches!(result, RequestResult::Rejected(it) if !is_definite(it));
    let open: Vec<_> = history.extract_if(.., |(_, result)| is_open(result)).collect();
    for (change, _) in open {
        let result = change.settle(std::slice::from_ref(client)).await;
        history.push((change, result));
    }
}

/// Whether a repeat would get the same error again: a rejection by state or by form.
pub fn is_definite(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
    )
}

/// One request of each kind on this account, in US dollars. All of them can be applied, in any
/// order. Opens the account and a second one.
pub async fn one_of_each_kind(client: &Client, account_id: &str) -> Vec<Change> {
    let other = format!("{account_id}-other");
    open_funded(client, account_id, "100").await;
    open(client, &other).await;
    let transaction = deposited(client, account_id, "5").await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(place(client, hold(account_id, "10")).await.hold_id);
    }
    let legs = [(account_id, "-2"), (&other, "1.50"), (account_id, "0.25")];
    vec![
        Change::Deposit(deposit(account_id, "1")),
        Change::Withdraw(withdrawal(account_id, "1")),
        Change::Transfer(transfer(account_id, &other, "1")),
        Change::Post(posting(&legs)),
        Change::PostInBatch(posting(&legs)),
        Change::PostInStream(posting(&legs)),
        Change::PlaceHold(hold(account_id, "1")),
        Change::CaptureHold(capture_part(&held[0], "4")),
        Change::ReleaseHold(release(&held[1])),
        Change::UpdateHold(hold_update(&held[2], "9")),
        Change::Reverse(reversal(&transaction.transaction_id)),
    ]
}

/// One request of each kind that is rejected by state, with different reasons where possible. The
/// account must have an open hold of this id and less than 1000 US dollars.
pub fn one_of_each_kind_rejected(account_id: &str, hold_id: &str) -> Vec<Change> {
    let too_much = [(account_id, "-1000")];
    vec![
        Change::Deposit(deposit("nobody", "1")),
        Change::Withdraw(withdrawal(account_id, "1000")),
        Change::Transfer(transfer(account_id, "nobody", "1")),
        Change::Post(posting(&too_much)),
        Change::PostInBatch(posting(&too_much)),
        Change::PostInStream(posting(&too_much)),
        Change::PlaceHold(hold(account_id, "1000")),
        Change::UpdateHold(hold_update(hold_id, "1000")),
        Change::CaptureHold(capture_part(hold_id, "1000")),
        Change::ReleaseHold(release("no-such-hold")),
        Change::Reverse(reversal(&new_request_id())),
    ]
}
