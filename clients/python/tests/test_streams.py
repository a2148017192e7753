"""Streams that end in every way, against a server that says what a test needs."""

from __future__ import annotations

import itertools
import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from fake_server import (
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
    deposit,
    deposits_of,
    end,
    entry,
    lose,
    streamed,
    token_of,
    transaction_of,
)

from passbook import Client, Money, PassbookError, Posting, TransactionResult, shared_stream
from passbook.v1 import account_service_pb2 as service
from passbook.v1 import events_pb2, history_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.rpc import status_pb2

CENT = Money("0.01", "USD")


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


BREAKS = [(lose, "unknown"), (lambda context: end(context, SHUTTING_DOWN), "not_applied")]


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


class Shared:
    """A server with a shared stream that a test ends, and its counts."""

    def __init__(self, stream: Callable[[Any, Any], Iterator[Any]], alone: Any = deposit) -> None:  # noqa: ANN401
        self.streams = 0
        self.alone = 0
        self._stream = stream
        self._alone = alone
        self.server = FakeServer(StreamTransactions=self._count_stream, Deposit=self._count_alone)

    def _count_stream(self, messages: Any, context: Any) -> Iterator[Any]:  # noqa: ANN401
        self.streams += 1
        return self._stream(messages, context)

    def _count_alone(self, request: Any, context: Any) -> Any:  # noqa: ANN401
        self.alone += 1
        return self._alone(request, context)


def ending(error: status_pb2.Status, *, after: int = 0) -> Callable[[Any, Any], Iterator[Any]]:
    """Streams that end with this error at the first request after so many results of the first."""
    numbers = itertools.count(1)

    def stream(messages: Any, context: Any) -> Iterator[Any]:  # noqa: ANN401
        requests = deposits_of(messages)
        if next(numbers) == 1:
            yield from map(streamed, itertools.islice(requests, after))
        next(requests)
        end(context, error)

    return stream


def test_a_wrong_token_is_an_error_at_once_and_the_next_call_tries_the_stream_again() -> None:
    shared = Shared(always(WRONG_TOKEN), always(WRONG_TOKEN))
    with shared.server as server, Client(server.address, token="wrong") as client:  # noqa: S106
        for calls in (1, 2):
            with pytest.raises(PassbookError) as raised:
                client.deposit("joint", CENT)
            assert raised.value.code is grpc.StatusCode.UNAUTHENTICATED
            assert raised.value.outcome is None
            assert (shared.streams, shared.alone) == (calls, calls)


def test_after_a_final_error_of_the_stream_each_request_goes_alone_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = Shared(ending(TOO_LARGE))
    with shared.server as server, Client(server.address) as client:

        def post(number: int) -> str:
            return client.deposit("joint", CENT, request_id=f"id-{number}").transaction.request_id

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(post, range(8))) == [f"id-{number}" for number in range(8)]
        assert post(8) == "id-8"
        assert (shared.streams, shared.alone) == (1, 9)
    monkeypatch.setattr(shared_stream, "ALONE_SECONDS", 0.0)
    shared = Shared(ending(TOO_LARGE))
    with shared.server as server, Client(server.address) as client:
        for calls in (1, 2):
            client.deposit("joint", CENT)
            assert (shared.streams, shared.alone) == (calls, calls)


@pytest.mark.parametrize(
    ("error", "answers", "outcome"),
    [
        (TOO_LARGE, 0, "not_applied"),
        (WRONG_TOKEN, 0, "not_applied"),
        (WRONG_TOKEN, 1, "unknown"),
        (LIMIT_OF_LIBRARY, 0, "unknown"),
        (LIMIT_OF_LIBRARY, 1, "unknown"),
    ],
)
def test_a_request_that_the_stream_has_sent_goes_alone_in_doubt(
    error: status_pb2.Status, answers: int, outcome: str
) -> None:
    shared = Shared(ending(error, after=answers), always(SHED_FOR_AN_HOUR))
    with shared.server as server, Client(server.address) as client:
        for _ in range(answers):
            client.deposit("joint", CENT)
        with pytest.raises(PassbookError) as raised:
            client.deposit("joint", CENT)
    assert raised.value.outcome == outcome


@pytest.mark.parametrize(("break_off", "outcome"), BREAKS)
def test_a_shared_stream_that_broke_leaves_what_was_sent_in_doubt(
    break_off: Callable[[Any], Any], outcome: str
) -> None:
    def stream(messages: Any, context: Any) -> Iterator[Any]:  # noqa: ANN401
        for request in deposits_of(messages):
            if shared.streams == 1:
                break_off(context)
            result = service.StreamedResult(request_id=request.request_id, error=SHED_FOR_AN_HOUR)
            yield service.StreamTransactionsResponse(results=[result])

    shared = Shared(stream)
    with shared.server as server, Client(server.address) as client:
        with pytest.raises(PassbookError) as raised:
            client.deposit("joint", CENT)
        assert raised.value.outcome == outcome
        assert (shared.streams, shared.alone) == (2, 0)


def test_the_delay_that_a_shared_stream_asks_for_is_kept() -> None:
    shared = Shared(ending(SHED_FOR_AN_HOUR))
    with shared.server as server, Client(server.address) as client:
        with pytest.raises(PassbookError) as raised:
            client.deposit("joint", CENT)
        assert raised.value.outcome == "not_applied"
        assert (shared.streams, shared.alone) == (1, 0)


def test_a_large_request_goes_alone_and_does_not_end_the_stream_of_others() -> None:
    shared = Shared(lambda messages, _: map(streamed, deposits_of(messages)))
    with shared.server as server, Client(server.address) as client:
        client.deposit("joint", CENT)
        client.deposit("joint", CENT, description="x" * 65_000)
        assert (shared.streams, shared.alone) == (1, 0)
        client.deposit("joint", CENT, description="x" * 66_000)
        client.deposit("joint", CENT)
        assert (shared.streams, shared.alone) == (1, 1)


def test_a_text_that_is_no_unicode_ends_no_stream() -> None:
    shared = Shared(lambda messages, _: map(streamed, deposits_of(messages)))
    with shared.server as server, Client(server.address) as client:
        client.deposit("joint", CENT)
        with pytest.raises(ValueError, match="surrogate"):
            client.deposit("joint", CENT, description="half of a pair: \ud83d")
        with pytest.raises(ValueError, match="surrogate"):
            client.deposit("joint", CENT, request_id="\ude00")
        client.deposit("joint", CENT)
        assert (shared.streams, shared.alone) == (1, 0)


@pytest.mark.parametrize("timeout", [math.inf, math.nan, 1e300])
def test_a_timeout_that_is_no_time_ends_no_stream(timeout: float) -> None:
    shared = Shared(lambda messages, _: map(streamed, deposits_of(messages)))
    with shared.server as server, Client(server.address) as client:
        client.deposit("joint", CENT)
        # The time of one that is no number is up at once.
        with suppress(PassbookError):
            client.deposit("joint", CENT, timeout=timeout)
        client.deposit("joint", CENT)
        assert (shared.streams, shared.alone) == (1, 0)


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


def test_a_message_is_far_smaller_than_a_server_s_limit() -> None:
    sizes: list[int] = []

    def stream(messages: Any, _: object) -> Iterator[Any]:  # noqa: ANN401
        for message in messages:
            sizes.append(message.ByteSize())
            yield from map(streamed, deposits_of([message]))

    def slow_token() -> str:
        time.sleep(0.3)  # Meanwhile all requests wait for the stream.
        return "good"

    shared = Shared(stream)
    with (
        shared.server as server,
        Client(server.address, token=slow_token) as client,
        ThreadPoolExecutor(12) as threads,
    ):
        description = "x" * 60_000
        for posted in [
            threads.submit(client.deposit, "joint", CENT, description=description)
            for _ in range(12)
        ]:
            posted.result()
    assert shared.alone == 0
    assert 100_000 < max(sizes) < 257 * 1024
