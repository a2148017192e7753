"""Shared streams that end in every way, on a server that says what a test needs."""

from __future__ import annotations

import itertools
import math
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from fake_server import (
    BREAKS,
    LIMIT_OF_LIBRARY,
    SHED_FOR_AN_HOUR,
    TOO_LARGE,
    WRONG_TOKEN,
    FakeServer,
    always,
    deposit,
    deposits_of,
    end,
    streamed,
)

from passbook import Client, Money, PassbookError, shared_stream
from passbook.v1 import account_service_pb2 as service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.rpc import status_pb2

CENT = Money("0.01", "USD")


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
