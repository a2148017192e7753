"""Streams that survive their connections: postings, entries of an account, and events."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import closing
from typing import TYPE_CHECKING, Any

import grpc

from passbook.batches import posting_result
from passbook.calls import Calls, Reconnects
from passbook.errors import PassbookError
from passbook.model import Entry, Events, Posting, TransactionResult
from passbook.v1 import account_service_pb2 as service
from passbook.v1 import events_pb2, history_pb2

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from passbook.servers import Server

IN_FLIGHT_MAX = 1024
"""Requests of a stream without a result: as many as the server reads ahead."""


class _Window:
    """The requests that were taken from the caller and have no result yet, oldest first.

    gRPC takes requests in a thread of its own. After a broken stream, the thread of the old stream
    may still wait for the caller's next request: that request then goes to the new stream.
    """

    def __init__(self, postings: Iterable[Posting]) -> None:
        self._source = iter(postings)
        self._source_is_in_use = False
        self._source_is_at_end = False
        self._source_error: BaseException | None = None
        self._requests: deque[service.PostTransactionRequest] = deque()
        self._changed = threading.Condition()
        self._stream: object = None
        self._sent = 0
        # The oldest requests: a stream that broke may have applied them.
        self._in_doubt = 0

    def open(self) -> Iterator[service.StreamTransactionsRequest]:
        """The requests of a new stream: all without a result, then new ones."""
        stream = object()
        with self._changed:
            self._stream = stream
            self._sent = 0
            self._changed.notify_all()
        requests = iter(lambda: self._next(stream), None)
        return (service.StreamTransactionsRequest(request=request) for request in requests)

    def _next(self, stream: object) -> service.PostTransactionRequest | None:
        while True:
            with self._changed:
                if self._stream is not stream:
                    return None
                if self._sent < len(self._requests):
                    self._sent += 1
                    return self._requests[self._sent - 1]
                if self._source_is_at_end:
                    return None
                if self._source_is_in_use or len(self._requests) >= IN_FLIGHT_MAX:
                    self._changed.wait()
                    continue
                self._source_is_in_use = True
            self._take()

    def _take(self) -> None:
        """Take the caller's next request. The caller's own code runs here, without the lock."""
        request: service.PostTransactionRequest | None = None
        error: BaseException | None = None
        try:
            posting = next(self._source, None)
            # Raises an error for what no message can hold, such as half of a surrogate pair.
            request = None if posting is None else posting.to_message()
        except BaseException as raised:  # noqa: BLE001 (it is raised where results are read)
            error = raised
        with self._changed:
            self._source_is_in_use = False
            if request is None:
                self._source_is_at_end, self._source_error = True, error
            else:
                self._requests.append(request)
            self._changed.notify_all()

    def oldest(self) -> tuple[service.PostTransactionRequest, bool]:
        """The request of the next result, and whether it is in doubt."""
        with self._changed:
            return self._requests[0], self._in_doubt > 0

    def has_result(self) -> None:
        """Say that the oldest request has its result."""
        with self._changed:
            self._requests.popleft()
            self._sent -= 1
            self._in_doubt = max(self._in_doubt - 1, 0)
            self._changed.notify_all()

    def is_complete(self) -> bool:
        """Whether all requests have their results. Raises the error of the caller's requests."""
        with self._changed:
            is_complete = self._source_is_at_end and not self._requests
            if is_complete and self._source_error is not None:
                raise self._source_error
            return is_complete

    def name(self, error: PassbookError) -> None:
        """Give the error that ends the stream the ids of all requests without a result."""
        with self._changed:
            if error is self._source_error:
                return  # Raised by the caller's own code.
            error.request_ids = tuple(request.request_id for request in self._requests)
            error.outcome = "unknown" if self._in_doubt > 0 else "not_applied"

    def close(self, *, in_doubt: bool = False) -> None:
        """End the stream that is open. `in_doubt`: it may have applied what was sent."""
        with self._changed:
            self._stream = None
            if in_doubt:
                self._in_doubt = max(self._in_doubt, self._sent)
            self._changed.notify_all()


def stream_transactions(
    calls: Calls, postings: Iterable[Posting]
) -> Generator[TransactionResult | PassbookError]:
    """See `Client.stream_transactions`."""
    window, reconnects = _Window(postings), Reconnects(calls)
    try:
        while True:
            server, responses = calls.open_stream("StreamTransactions", window.open())
            try:
                for response in _answers(responses, reconnects):
                    request, in_doubt = window.oldest()
                    call = calls.begin_change(
                        "PostTransaction", request, calls.deadline(), in_doubt=in_doubt
                    )
                    result = posting_result(call, response.result)
                    window.has_result()
                    yield result
            except grpc.RpcError as raised:
                error = PassbookError.of_call(raised)
            else:
                error = PassbookError(grpc.StatusCode.UNAVAILABLE, "the server ended the stream")
            finally:
                responses.cancel()
            if window.is_complete():
                return
            window.close(in_doubt=error.leaves_doubt(after_answer=reconnects.is_answered))
            _pass_over(server, error)
            reconnects.pause(error)
    except PassbookError as raised:
        window.name(raised)
        raise
    finally:
        window.close()


def watch_entries(calls: Calls, account_id: str, after_sequence: int) -> Generator[Entry]:
    """See `Client.watch_entries`."""
    request = history_pb2.WatchEntriesRequest(account_id=account_id, after_sequence=after_sequence)
    with closing(_messages(calls, "WatchEntries", request)) as messages:
        for message in messages:
            for entry in message.entries:
                request.after_sequence = entry.sequence
                yield Entry.of(entry)


def watch_events(calls: Calls, request: events_pb2.WatchEventsRequest) -> Generator[Events]:
    """See `Client.watch_events`."""
    with closing(_messages(calls, "WatchEvents", request)) as messages:
        for message in messages:
            request.after_token = message.token
            yield Events.of(message)


def _messages(calls: Calls, method: str, request: Any) -> Generator[Any]:  # noqa: ANN401
    """The messages of a watch. Each new stream has the request as it is then."""
    reconnects = Reconnects(calls)
    while True:
        server, messages = calls.open_stream(method, request)
        try:
            yield from _answers(messages, reconnects)
        except grpc.RpcError as raised:
            error = PassbookError.of_call(raised)
        else:
            error = PassbookError(grpc.StatusCode.UNAVAILABLE, "the server ended the watch")
        finally:
            messages.cancel()
        _pass_over(server, error)
        reconnects.pause(error)


def _answers(stream: Any, reconnects: Reconnects) -> Iterator[Any]:  # noqa: ANN401
    """The messages of a stream."""
    # A server that accepts a stream sends headers at once, among them `x-request-id`. One that
    # denies it sends an error without headers.
    if stream.initial_metadata():
        reconnects.has_answer()
    for message in stream:
        reconnects.has_answer()
        yield message


def _pass_over(server: Server, error: PassbookError) -> None:
    if error.code is grpc.StatusCode.UNAVAILABLE:
        server.pass_over()
