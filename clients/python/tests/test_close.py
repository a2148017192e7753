"""What is under way when a client is closed, on a server that says what a test needs."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from fake_server import (
    IN_DOUBT,
    SHED,
    FakeServer,
    always,
    deposits_of,
    end,
    entry,
    transaction_of,
)

from passbook import Client, Money, PassbookError, Posting
from passbook.v1 import account_service_pb2 as service
from passbook.v1 import events_pb2, history_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.rpc import status_pb2

CENT = Money("0.01", "USD")


@pytest.mark.parametrize("share_stream", [False, True])
@pytest.mark.parametrize(("error", "outcome"), [(IN_DOUBT, "unknown"), (SHED, "not_applied")])
def test_close_ends_a_change_between_two_attempts(
    error: status_pb2.Status, outcome: str, *, share_stream: bool
) -> None:
    attempts = 0
    has_attempts = threading.Event()

    def count() -> None:
        nonlocal attempts
        attempts += 1
        if attempts == 3:
            has_attempts.set()

    def deposit(_: object, context: Any) -> None:  # noqa: ANN401
        count()
        end(context, error)

    def stream(messages: Any, _: object) -> Iterator[Any]:  # noqa: ANN401
        for request in deposits_of(messages):
            count()
            result = service.StreamedResult(request_id=request.request_id, error=error)
            yield service.StreamTransactionsResponse(results=[result])

    with (
        FakeServer(Deposit=deposit, StreamTransactions=stream) as server,
        ThreadPoolExecutor(1) as threads,
    ):
        client = Client(server.address, share_stream=share_stream)
        call = threads.submit(client.deposit, "joint", CENT, request_id="one", timeout=30.0)
        assert has_attempts.wait(10)
        begin = time.monotonic()
        client.close()
        with pytest.raises(PassbookError) as raised:
            call.result(10)
        assert time.monotonic() - begin < 1.0
        # An attempt that is under way at that moment is in doubt.
        assert raised.value.outcome in {outcome, "unknown"}
        assert raised.value.code is grpc.StatusCode.CANCELLED
        assert raised.value.request_id == "one"
        before = attempts
        time.sleep(0.3)
        assert attempts == before


@pytest.mark.parametrize("share_stream", [False, True])
def test_close_ends_an_attempt_that_is_under_way(*, share_stream: bool) -> None:
    is_there, may_end = threading.Event(), threading.Event()

    def deposit(_: object, context: Any) -> None:  # noqa: ANN401
        is_there.set()
        may_end.wait(10)
        end(context, SHED)

    def stream(messages: Any, _: object) -> Iterator[Any]:  # noqa: ANN401
        for _ in deposits_of(messages):
            is_there.set()
            may_end.wait(10)
        yield from ()

    with (
        FakeServer(Deposit=deposit, StreamTransactions=stream) as server,
        ThreadPoolExecutor(1) as threads,
    ):
        client = Client(server.address, share_stream=share_stream)
        call = threads.submit(client.deposit, "joint", CENT, request_id="one")
        assert is_there.wait(10)
        client.close()
        with pytest.raises(PassbookError) as raised:
            call.result(5)
        may_end.set()
    assert raised.value.code is grpc.StatusCode.CANCELLED
    assert (raised.value.outcome, raised.value.request_id) == ("unknown", "one")


@pytest.mark.parametrize("share_stream", [False, True])
def test_a_closed_client_sends_nothing(*, share_stream: bool) -> None:
    with FakeServer(Deposit=always(SHED)) as server:
        client = Client(server.address, share_stream=share_stream)
        client.close()
        with pytest.raises(PassbookError) as raised:
            client.deposit("joint", CENT)
        assert raised.value.code is grpc.StatusCode.CANCELLED
        assert raised.value.outcome == "not_applied"
        with pytest.raises(PassbookError) as raised:
            client.get_account("joint")
        assert (raised.value.code, raised.value.outcome) == (grpc.StatusCode.CANCELLED, None)


STREAMS: dict[str, Callable[[Client], Iterator[object]]] = {
    "entries": lambda client: client.watch_entries("joint"),
    "events": lambda client: client.watch_events(from_beginning=True),
    "postings": lambda client: client.stream_transactions(
        Posting([], request_id=it) for it in ("one", "two")
    ),
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("is_broken", [False, True])
def test_close_ends_a_stream(name: str, *, is_broken: bool) -> None:
    may_end, has_failed, streams = threading.Event(), threading.Event(), itertools.count(1)

    def stream(requests: Any, context: Any) -> Iterator[Any]:  # noqa: ANN401
        if next(streams) > 1:
            has_failed.set()
            end(context, SHED)
        if name == "postings":
            result = service.PostTransactionResult(
                transaction=transaction_of(next(requests).request)
            )
            yield service.StreamTransactionsResponse(result=result)
            next(requests)
        elif name == "entries":
            yield history_pb2.WatchEntriesResponse(entries=[entry(1)])
        else:
            yield events_pb2.WatchEventsResponse(token="token")  # noqa: S106
        if is_broken:
            end(context, SHED)
        may_end.wait(10)

    with (
        FakeServer(WatchEntries=stream, WatchEvents=stream, StreamTransactions=stream) as server,
        ThreadPoolExecutor(1) as threads,
    ):
        client = Client(server.address)
        results = STREAMS[name](client)
        next(results)
        last = threads.submit(next, results)
        if is_broken:
            assert has_failed.wait(10)
        else:
            time.sleep(0.2)
        begin = time.monotonic()
        client.close()
        with pytest.raises(PassbookError) as raised:
            last.result(10)
        may_end.set()
        assert time.monotonic() - begin < 1.0
        assert raised.value.code is grpc.StatusCode.CANCELLED
        if name == "postings":
            assert raised.value.request_ids == ("two",)
            assert raised.value.outcome in {"not_applied", "unknown"}
        with pytest.raises(PassbookError) as raised:
            next(STREAMS[name](client))
        assert raised.value.code is grpc.StatusCode.CANCELLED
