//! Requests of every kind in a stream, several in one message, whose results come in any order.

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::harness::{
    request::{one_of_each_kind, one_of_each_kind_rejected},
    *,
};

on_both_databases! {
    each_request_has_the_result_of_its_own_rpc,
    what_is_wrong_with_a_request_is_the_error_of_its_result,
    results_come_in_the_order_of_the_requests_and_together,
    a_message_against_the_rules_of_the_stream_ends_it,
}

/// An open stream.
struct Stream {
    messages: mpsc::Sender<StreamTransactionsRequest>,
    responses: Streaming<StreamTransactionsResponse>,
    /// Of the last response.
    results: std::vec::IntoIter<StreamedResult>,
    responses_read: usize,
}

impl Stream {
    async fn open(client: &Client) -> Self {
        let (messages, receiver) = mpsc::channel(8);
        let responses = client.stream_transactions(ReceiverStream::new(receiver)).await;
        let responses = responses.expect("a stream");
        Self { messages, responses, results: Vec::new().into_iter(), responses_read: 0 }
    }

    async fn send(&self, message: StreamTransactionsRequest) {
        self.messages.send(message).await.expect("the stream is open");
    }

    /// The next result, or the error that ends the stream.
    async fn next(&mut self) -> Result<StreamedResult, Status> {
        loop {
            if let Some(result) = self.results.next() {
                return Ok(result);
            }
            let response = self.responses.message().await?.expect("a stream ends with an error");
            assert!(response.result.is_none(), "{response:?}");
            self.results = response.results.into_iter();
            self.responses_read += 1;
        }
    }

    /// The result of this request, which is the next one.
    async fn result_of(&mut self, request_id: &str) -> Result<Answer, Status> {
        let result = self.next().await?;
        assert_eq!(result.request_id, request_id);
        Answer::of(result)
    }
}

fn in_order(requests: Vec<StreamedRequest>) -> StreamTransactionsRequest {
    StreamTransactionsRequest { requests, ..Default::default() }
}

fn streamed(change: impl Into<Change>) -> StreamedRequest {
    change.into().streamed()
}

fn within_ms(milliseconds: i32, change: impl Into<Change>) -> StreamedRequest {
    let timeout = prost_types::Duration { seconds: 0, nanos: milliseconds * 1_000_000 };
    StreamedRequest { timeout: Some(timeout), ..streamed(change) }
}

async fn each_request_has_the_result_of_its_own_rpc(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    let applied = one_of_each_kind(&client, "alice").await;
    let left = place(&client, hold("alice", "1")).await;
    let rejected_ones = one_of_each_kind_rejected("alice", &left.hold_id);
    let mut stream = Stream::open(&client).await;

    let changes = [applied.clone(), rejected_ones].concat();
    let requests = changes.iter().cloned().map(Change::streamed).collect();
    stream.send(in_any_order(requests)).await;

    for _ in 0..changes.len() {
        let result = stream.next().await.expect("a result");
        let request_id = result.request_id.clone();
        let change = changes.iter().find(|it| it.request_id() == request_id);
        let change = change.unwrap_or_else(|| panic!("a result of no request: {result:?}"));
        let again = change.send(&client, PATIENCE).await;
        match (Answer::of(result), again) {
            (Ok(answer), Ok(again)) => {
                assert!(applied.iter().any(|it| it.request_id() == request_id), "{change:?}");
                assert_eq!(again, Answer { replayed: true, ..answer }, "{change:?}");
            }
            (Err(error), Err(again)) => {
                assert_eq!(rejected(&error), rejected(&again), "{change:?}");
            }
            other => panic!("{change:?} has two results: {other:?}"),
        }
    }
}

async fn what_is_wrong_with_a_request_is_the_error_of_its_result(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let mut stream = Stream::open(&client).await;
    let long_id = "é".repeat(60);
    let long = DepositRequest { request_id: long_id, ..deposit("alice", "1") };
    let (invalid, late, too_much) =
        (deposit("alice", "0"), deposit("alice", "1"), withdrawal("alice", "9"));
    let (late_id, last) = (late.request_id.clone(), deposit("alice", "1"));

    stream.send(in_order(vec![StreamedRequest::default(), streamed(long)])).await;
    stream.send(in_order(vec![streamed(invalid.clone()), within_ms(-1, late)])).await;
    stream.send(StreamTransactionsRequest::default()).await;
    stream.send(in_order(vec![streamed(too_much.clone()), streamed(last.clone())])).await;

    must_fail(stream.result_of("").await, Reason::InvalidRequests);
    must_fail(stream.result_of("").await, Reason::InvalidRequestId);
    must_fail(stream.result_of(&invalid.request_id).await, Reason::InvalidAmount);
    let status = must_fail(stream.result_of(&late_id).await, Reason::DeadlineExceeded);
    assert_eq!(outcome(&status), "not_applied");
    let empty = stream.responses.message().await.expect("open").expect("open");
    let empty = empty.result.expect("the result of no `requests`");
    assert_reason(&error(&empty), Reason::InvalidRequests);
    must_fail(stream.result_of(&too_much.request_id).await, Reason::InsufficientFunds);
    stream.result_of(&last.request_id).await.expect("applied");
    assert_eq!(balance(&client, "alice").await, "1.00");
}

/// A message may have more requests than the stream may have in flight.
async fn results_come_in_the_order_of_the_requests_and_together(kind: Kind) {
    const REQUESTS: usize = 1000;
    let queue = ["--queue-capacity", "256"];
    let (_database, _server, client) = start_server_with(kind, &queue).await;
    open(&client, "alice").await;
    let mut stream = Stream::open(&client).await;
    let deposits: Vec<_> = (0..REQUESTS).map(|_| deposit("alice", "1")).collect();

    stream.send(in_order(deposits.iter().cloned().map(streamed).collect())).await;

    for (number, deposit) in deposits.iter().enumerate() {
        let answer = stream.result_of(&deposit.request_id).await.expect("applied");
        assert_eq!(answer.transaction().entries[0].sequence, number as i64 + 1);
    }
    assert!(stream.responses_read < REQUESTS / 2, "{} responses", stream.responses_read);
}

async fn a_message_against_the_rules_of_the_stream_ends_it(kind: Kind) {
    let (_database, _server, client) = start_server(kind).await;
    open(&client, "alice").await;
    let requests = |count| (0..count).map(|_| streamed(deposit("alice", "1"))).collect();
    let with_order =
        |result_order: i32| StreamTransactionsRequest { result_order, ..in_order(requests(1)) };
    let wrong_ones = [
        (in_order(requests(1001)), "requests"),
        (with_order(ResultOrder::AsRequested.into()), "result_order"),
        (with_order(7), "result_order"),
    ];
    for (number, (wrong, field)) in wrong_ones.into_iter().enumerate() {
        let mut stream = Stream::open(&client).await;
        let first = deposit("alice", "1");
        // The order of the first message is that of the stream. It needs no request.
        stream.send(in_any_order(Vec::new())).await;
        stream.send(in_order(vec![streamed(first.clone())])).await;
        stream.send(wrong).await;

        stream.result_of(&first.request_id).await.expect("applied");
        let status = must_fail(stream.next().await, Reason::InvalidRequests);
        assert_eq!(fields(&status), [field], "{status:?}");
        assert_eq!(balance(&client, "alice").await, format!("{}.00", number + 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_behind_a_locked_row_delays_no_other() {
    let (database, _server, client) = start_server(Kind::Postgres).await;
    open_all(&client, &["locked", "free"]).await;
    let session = database.lock_account("locked").await;
    let mut stream = Stream::open(&client).await;
    let (waiting, late) = (deposit("locked", "1"), deposit("locked", "1"));
    let others: Vec<_> = (0..100).map(|_| deposit("free", "1")).collect();
    let mut requests = vec![streamed(waiting.clone()), within_ms(300, late.clone())];
    requests.extend(others.iter().cloned().map(streamed));

    stream.send(in_any_order(requests)).await;

    for _ in 0..=others.len() {
        let result = stream.next().await.expect("a result");
        if result.request_id == late.request_id {
            assert_eq!(outcome(&Answer::of(result).expect_err("late")), "not_applied");
        } else {
            assert!(others.iter().any(|it| it.request_id == result.request_id), "{result:?}");
            Answer::of(result).expect("applied");
        }
    }
    session.close().await.expect("the lock is released");
    stream.result_of(&waiting.request_id).await.expect("applied");
    assert_eq!(balance(&client, "locked").await, "1.00");
}
