"""Streams that survive their connections: postings, entries of an account, and events."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import closing
from typing import TYPE_CHECKING, Any

import grpc

from passbook.calls import Calls, Reconnects
from passbook.errors import PassbookError
from passbook.model import Account, Entry, Events, Posting, Transaction, TransactionResult
from passbook.v1 import account_service_pb2 as service
from passbook.v1 import events_pb2, history_pb2

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from passbook.servers import Server

IN_FLIGHT_MAX = 1024
"""Requests of a stream without a result: as many as the server reads ahead."""


def result_of(
    calls: Calls, request: service.PostTransactionRequest, result: service.PostTransactionResult
) -> TransactionResult | PassbookError:
    """The result of one request of a batch or a stream. One without a result is repeated alone."""
    if result.HasField("transaction"):
        return TransactionResult(Transaction.of(result.transaction), result.replayed)
    error = PassbookError.of_status(result.error)
    if error.is_without_result:
        return post_alone(calls, request)
    error.request_id = request.request_id
    return error


def account_of(
    calls: Calls, request: service.CreateAccountRequest, result: service.CreateAccountResult
) -> Account | PassbookError:
    """The result of one opening of a batch. One without a result is repeated alone."""
    if result.HasField("account"):
        return Account.of(result.account)
    error = PassbookError.of_status(result.error)
    if not error.is_without_result:
        return error
    try:
        return Account.of(calls.change("CreateAccount", request).account)
    except PassbookError as raised:
        return raised


def post_alone(
    calls: Calls, request: service.PostTransactionRequest
) -> TransactionResult | PassbookError:
    """The result of a posting in a call of its own."""
    try:
        response = calls.change("PostTransaction", request)
    except PassbookError as error:
        return error
    return TransactionResult(Transaction.of(response.transaction), response.replayed)


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
        posting: Posting | None = None
        error: BaseException | None = None
        try:
            posting = next(self._source, None)
        except BaseException as raised:  # noqa: BLE001 (it is raised where results are read)
            error = raised
        with self._changed:
            self._source_is_in_use = False
            if posting is None:
                self._source_is_at_end, self._source_error = True, error
            else:
                self._requests.append(posting.to_message())
            self._changed.notify_all()

    def oldest(self) -> service.PostTransactionRequest:
        """The request of the next result."""
        with self._changed:
            return self._requests[0]

    def has_result(self) -> None:
        """Say that the oldest request has its result."""
        with self._changed:
            self._requests.popleft()
            self._sent -= 1
            self._changed.notify_all()

    def is_complete(self) -> bool:
        """Whether all requests have their results. Raises the error of the caller's requests."""
        with self._changed:
            is_complete = self._source_is_at_end and not self._requests
            if is_complete and self._source_error is not None:
                raise self._source_error
            return is_complete

    def close(self) -> None:
        """End the stream that is open."""
        with self._changed:
            self._stream = None
            self._changed.notify_all()


def stream_transactions(
    calls: Calls, postings: Iterable[Posting]
) -> Generator[TransactionResult | PassbookError]:
    """See `Client.stream_transactions`."""
    window, reconnects = _Window(postings), Reconnects()
    try:
        while True:
            server = calls.servers.select()
            responses = server.stub.StreamTransactions(window.open(), metadata=calls.credentials())
            try:
                _await_answer(responses, reconnects)
                for response in responses:
                    request = window.oldest()
                    result = result_of(calls, request, response.result)
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
            _pass_over(server, error)
            reconnects.pause(error)
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
    reconnects = Reconnects()
    while True:
        server = calls.servers.select()
        messages = getattr(server.stub, method)(request, metadata=calls.credentials())
        try:
            _await_answer(messages, reconnects)
            yield from messages
        except grpc.RpcError as raised:
            error = PassbookError.of_call(raised)
        else:
            error = PassbookError(grpc.StatusCode.UNAVAILABLE, "the server ended the watch")
        finally:
            messages.cancel()
        _pass_over(server, error)
        reconnects.pause(error)


def _await_answer(stream: grpc.Call, reconnects: Reconnects) -> None:
    """Wait for the headers of a stream, which come before its first message, or for its end."""
    stream.initial_metadata()
    if stream.is_active():
        reconnects.has_answer()


def _pass_over(server: Server, error: PassbookError) -> None:
    if error.code is grpc.StatusCode.UNAVAILABLE:
        server.pass_over()
