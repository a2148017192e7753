"""Postings and watches whose streams end in every way, on a server that says what a test needs."""

from __future__ import annotations

import itertools
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from fake_server import (
    BREAKS,
    IN_DOUBT,
    LATE,
    LIMIT_OF_LIBRARY,
    SHED,
    SHED_FOR_AN_HOUR,
    SHUTTING_DOWN,
    TOO_LARGE,
    WRONG_TOKEN,
    FakeServer,
    always,
    end,
    entry,
    lose,
    token_of,
    transaction_of,
)

from passbook import Client, PassbookError, Posting, TransactionResult
from passbook.v1 import account_service_pb2 as service
from passbook.v1 import events_pb2, history_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.rpc import status_pb2


def error_of_stream(client: Client) -> PassbookError:
    """The error of a stream of one posting."""
    (error,) = client.stream_transactions([Posting([], request_id="one")])
    assert isinstance(error, PassbookError)
    assert error.request_id == "one"
    return error


@pytest.mark.parametrize(
    ("first", "then", "outcome"),
    [
        (IN_DOUBT, SHED_FOR_AN_HOUR, "unknown"),
        (IN_DOUBT, WRONG_TOKEN, "unknown"),
        (LATE, SHED_FOR_AN_HOUR, "unknown"),
        (SHED, SHED_FOR_AN_HOUR, "not_applied"),
        (SHED, WRONG_TOKEN, None),
    ],
)
def test_the_outcome_of_an_element_of_a_stream_is_that_of_all_attempts(
    first: status_pb2.Status, then: status_pb2.Status, outcome: str | None
) -> None:
    def stream(messages: Any, _: object) -> Iterator[Any]:  # noqa: ANN401
        for _ in messages:
            result = service.PostTransactionResult(error=first)
            yield service.StreamTransactionsResponse(result=result)

    with (
        FakeServer(StreamTransactions=stream, PostTransaction=always(then)) as server,
        Client(server.address, share_stream=False) as client,
    ):
        assert error_of_stream(client).outcome == outcome


@pytest.mark.parametrize(("break_off", "outcome"), BREAKS)
def test_a_stream_that_broke_leaves_what_was_sent_in_doubt(
    break_off: Callable[[Any], Any], outcome: str
) -> None:
    streams = itertools.count(1)

    def stream(messages: Any, context: Any) -> Iterator[Any]:  # noqa: ANN401
        number = next(streams)
        for _ in messages:
            if number == 1:
                break_off(context)
            result = service.PostTransactionResult(error=SHED)
            yield service.StreamTransactionsResponse(result=result)

    with (
        FakeServer(StreamTransactions=stream, PostTransaction=always(SHED_FOR_AN_HOUR)) as server,
        Client(server.address, share_stream=False) as client,
    ):
        assert error_of_stream(client).outcome == outcome
    assert next(streams) == 3


def test_only_what_was_sent_on_the_broken_stream_is_in_doubt() -> None:
    streams = itertools.count(1)
    may_continue = threading.Event()

    def stream(messages: Any, context: Any) -> Iterator[Any]:  # noqa: ANN401
        number = next(streams)
        for _ in messages:
            if number == 1:
                lose(context)
            may_continue.set()
            result = service.PostTransactionResult(error=SHED)
            yield service.StreamTransactionsResponse(result=result)

    def postings() -> Iterator[Posting]:
        yield Posting([])
        may_continue.wait(5)
        yield Posting([])

    with (
        FakeServer(StreamTransactions=stream, PostTransaction=always(SHED_FOR_AN_HOUR)) as server,
        Client(server.address, share_stream=False) as client,
    ):
        results = list(client.stream_transactions(postings()))
    outcomes = [getattr(result, "outcome", result) for result in results]
    assert outcomes == ["unknown", "not_applied"]


@pytest.mark.parametrize(
    ("ends", "outcome"),
    [
        ([LIMIT_OF_LIBRARY], "unknown"),
        ([TOO_LARGE], "not_applied"),
        ([WRONG_TOKEN], "not_applied"),
        # The doubt of an earlier stream stays.
        ([IN_DOUBT, WRONG_TOKEN], "unknown"),
        ([SHUTTING_DOWN, WRONG_TOKEN], "not_applied"),
    ],
)
def test_the_error_of_a_stream_has_the_ids_that_have_no_result(
    ends: list[status_pb2.Status], outcome: str
) -> None:
    streams = 0

    def stream(messages: Any, context: Any) -> Iterator[Any]:  # noqa: ANN401
        nonlocal streams
        streams += 1
        if streams == 1 and ends[0] is not WRONG_TOKEN:
            posted = next(messages).request
            result = service.PostTransactionResult(transaction=transaction_of(posted))
            yield service.StreamTransactionsResponse(result=result)
            next(messages)
            next(messages)
        end(context, ends[streams - 1])

    postings = [Posting([], request_id=it) for it in ("one", "two", "three")]
    with FakeServer(StreamTransactions=stream) as server, Client(server.address) as client:
        results = client.stream_transactions(postings)
        if ends[0] is not WRONG_TOKEN:
            assert isinstance(next(results), TransactionResult)
        with pytest.raises(PassbookError) as raised:
            next(results)
    left = raised.value.request_ids
    assert raised.value.outcome == outcome
    if ends[0] is WRONG_TOKEN:
        assert left == ("one", "two", "three")[: len(left)]
    else:
        assert left == ("two", "three")
        assert str(raised.value).endswith(f"(outcome {outcome}, 2 request_ids: two, three)")


def test_the_error_of_a_token_that_a_stream_lacks_has_ids_too() -> None:
    tokens = itertools.count(1)

    def token() -> str:
        if next(tokens) == 1:
            return "first"
        raise OSError

    def stream(messages: Any, context: Any) -> Iterator[Any]:  # noqa: ANN401
        next(messages)
        yield from ()
        lose(context)

    with (
        FakeServer(StreamTransactions=stream) as server,
        Client(server.address, token=token) as client,
        pytest.raises(PassbookError) as raised,
    ):
        list(client.stream_transactions([Posting([], request_id="one")]))
    assert raised.value.code is grpc.StatusCode.UNAUTHENTICATED
    assert (raised.value.request_ids, raised.value.outcome) == (("one",), "unknown")


def test_an_error_of_the_caller_s_own_requests_stays_as_it_is() -> None:
    own = PassbookError(grpc.StatusCode.ABORTED, "of the caller")

    def stream(messages: Any, _: object) -> Iterator[Any]:  # noqa: ANN401
        yield from (service.StreamTransactionsResponse() for _ in messages)

    def postings() -> Iterator[Posting]:
        yield from ()
        raise own

    with FakeServer(StreamTransactions=stream) as server, Client(server.address) as client:
        with pytest.raises(PassbookError) as raised:
            list(client.stream_transactions(postings()))
        assert raised.value is own
        assert (own.request_ids, own.outcome) == ((), None)


def test_a_watch_goes_on_with_a_new_token() -> None:
    numbers = itertools.count(1)
    tokens: list[str] = []

    def watch_entries(request: history_pb2.WatchEntriesRequest, context: Any) -> Iterator[Any]:  # noqa: ANN401
        tokens.append(token_of(context))
        yield history_pb2.WatchEntriesResponse(entries=[entry(request.after_sequence + 1)])
        end(context, WRONG_TOKEN)

    def watch_events(request: events_pb2.WatchEventsRequest, context: Any) -> Iterator[Any]:  # noqa: ANN401
        tokens.append(token_of(context))
        yield events_pb2.WatchEventsResponse(token=request.after_token + "+")
        end(context, WRONG_TOKEN)

    with (
        FakeServer(WatchEntries=watch_entries, WatchEvents=watch_events) as server,
        Client(server.address, token=lambda: f"token-{next(numbers)}") as client,
    ):
        with closing(client.watch_entries("joint")) as entries:
            assert [it.sequence for it in itertools.islice(entries, 3)] == [1, 2, 3]
        with closing(client.watch_events(from_beginning=True)) as events:
            assert [it.token for it in itertools.islice(events, 3)] == ["+", "++", "+++"]
    assert tokens == [f"token-{number}" for number in range(1, 7)]


def test_a_stream_of_postings_goes_on_with_a_new_token() -> None:
    numbers = itertools.count(1)
    tokens: list[str] = []

    def stream(messages: Any, context: Any) -> Iterator[Any]:  # noqa: ANN401
        tokens.append(token_of(context))
        # The second stream is idle until its token expires.
        context.send_initial_metadata((("x-request-id", "one"),))
        if len(tokens) != 2:
            posted = next(messages).request
            result = service.PostTransactionResult(transaction=transaction_of(posted))
            yield service.StreamTransactionsResponse(result=result)
        end(context, WRONG_TOKEN)

    postings = [Posting([], request_id=f"id-{n}") for n in range(3)]
    with (
        FakeServer(StreamTransactions=stream) as server,
        Client(server.address, token=lambda: f"token-{next(numbers)}") as client,
    ):
        results = list(client.stream_transactions(postings))
    posted = [it.transaction.request_id for it in results if isinstance(it, TransactionResult)]
    assert posted == ["id-0", "id-1", "id-2"]
    assert tokens == ["token-1", "token-2", "token-3", "token-4"]


@pytest.mark.parametrize("accepted", [0, 1])
def test_a_token_that_is_denied_before_the_first_answer_is_final(accepted: int) -> None:
    streams = 0

    def watch(_: object, context: Any) -> Iterator[Any]:  # noqa: ANN401
        nonlocal streams
        streams += 1
        if streams <= accepted:
            yield history_pb2.WatchEntriesResponse(entries=[entry(streams)])
        end(context, WRONG_TOKEN)

    with (
        FakeServer(WatchEntries=watch, StreamTransactions=always(WRONG_TOKEN)) as server,
        Client(server.address, token="old") as client,  # noqa: S106
    ):
        with pytest.raises(PassbookError) as raised:
            list(client.watch_entries("joint"))
        assert raised.value.code is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(PassbookError) as raised:
            list(client.stream_transactions([Posting([])]))
        assert raised.value.code is grpc.StatusCode.UNAUTHENTICATED
    assert streams == accepted + 1


def test_a_posting_that_no_message_can_hold_is_an_error_of_the_caller() -> None:
    posted: list[str] = []

    def stream(messages: Any, _: object) -> Iterator[Any]:  # noqa: ANN401
        for message in messages:
            posted.append(message.request.request_id)
            result = service.PostTransactionResult(transaction=transaction_of(message.request))
            yield service.StreamTransactionsResponse(result=result)

    postings = [Posting([], request_id=it) for it in ("first", "\ud83d", "last")]
    with FakeServer(StreamTransactions=stream) as server, Client(server.address) as client:
        results = client.stream_transactions(postings)
        first = next(results)
        assert isinstance(first, TransactionResult)
        with pytest.raises(ValueError, match="surrogate"):
            next(results)
    assert posted == ["first"]
