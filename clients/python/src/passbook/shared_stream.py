"""One stream to a server for the concurrent changes of a client.

While one message is on its way, the next one gathers the changes that wait. Results come in any
order, so a change that waits for a locked row delays no other.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.duration_pb2 import Duration

from passbook.errors import PassbookError
from passbook.v1 import account_service_pb2 as service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from passbook.v1.account_service_pb2_grpc import AccountServiceStub

Credentials = Callable[[], tuple[tuple[str, str], ...]]
"""Makes the metadata of an attempt."""

FIELDS = {
    "Deposit": "deposit",
    "Withdraw": "withdraw",
    "Transfer": "transfer",
    "PostTransaction": "post_transaction",
    "ReverseTransaction": "reverse_transaction",
    "PlaceHold": "place_hold",
    "UpdateHold": "update_hold",
    "CaptureHold": "capture_hold",
    "ReleaseHold": "release_hold",
}
"""The methods that a stream takes, with the field of each request."""

REQUESTS_MAX = 1000
"""Requests in one message: the limit of the server."""
BYTES_MAX = 256 * 1024
"""Bytes of one message: far below a server's limit of 1 MiB, which an operator may have lowered."""
STREAMED_BYTES_MAX = 64 * 1024
"""A longer request is a call of its own."""
REQUEST_ID_BYTES_MAX = 64
ALONE_SECONDS = 60.0
"""How long requests are calls of their own after a server did not take the stream."""


class NotStreamedError(Exception):
    """The request needs a call of its own. `in_doubt`: the stream may have applied it already."""

    def __init__(self, *, in_doubt: bool) -> None:
        super().__init__(in_doubt)
        self.in_doubt = in_doubt


class _Change:
    def __init__(self, field: str, request: Any, deadline: float) -> None:  # noqa: ANN401
        self.request_id: str = request.request_id
        self.deadline = deadline
        self.size = request.ByteSize()
        self.is_sent = False
        self.done = threading.Event()
        self.result: service.StreamedResult | None = None
        self.error: PassbookError | NotStreamedError | None = None
        self._field = field
        self._request = request

    def to_message(self) -> service.StreamedRequest:
        timeout = Duration()
        timeout.FromNanoseconds(max(int((self.deadline - time.monotonic()) * 1e9), 1))
        message = service.StreamedRequest(timeout=timeout)
        getattr(message, self._field).CopyFrom(self._request)
        return message


class SharedStream:
    """The stream, which is opened with the first change and opened again when it breaks."""

    def __init__(self, stub: AccountServiceStub, credentials: Credentials) -> None:
        self._stub = stub
        self._credentials = credentials
        self._changed = threading.Condition()
        self._alone_until = time.monotonic()
        self._stream: object = None
        self._has_answered = False
        self._waiting: deque[_Change] = deque()
        self._in_flight: dict[str, _Change] = {}

    def send(self, field: str, request: Any, deadline: float) -> Any:  # noqa: ANN401
        """Send a change and wait for its result.

        Raises `NotStreamedError` if the server does not take the stream, if the request is too
        large, or if a change with the same id is under way: results are matched by id.
        """
        change = _Change(field, request, deadline)
        with self._changed:
            if (
                time.monotonic() < self._alone_until
                or change.size > STREAMED_BYTES_MAX
                or change.request_id in self._in_flight
                or len(change.request_id.encode()) > REQUEST_ID_BYTES_MAX
            ):
                raise NotStreamedError(in_doubt=False)
            self._in_flight[change.request_id] = change
            self._waiting.append(change)
            if self._stream is None:
                self._stream = object()
                self._has_answered = False
                threading.Thread(target=self._receive, args=(self._stream,), daemon=True).start()
            self._changed.notify()
        if not change.done.wait(max(deadline - time.monotonic(), 0.0)):
            self._give_up(change)
        if change.error is not None:
            raise change.error
        return change.result

    def _give_up(self, change: _Change) -> None:
        """End a change whose time is up.

        If it was sent, its id stays in use until its result comes: that result must not be taken
        for the result of a repeat.
        """
        with self._changed:
            if change.done.is_set():
                return
            if not change.is_sent:
                self._waiting.remove(change)
                del self._in_flight[change.request_id]
        change.error = _error(
            grpc.StatusCode.DEADLINE_EXCEEDED, "time is up", in_doubt=change.is_sent
        )

    def _receive(self, stream: object) -> None:
        """Open the stream and hand out its results until it ends."""
        try:
            responses = self._stub.StreamTransactions(
                self._messages(stream), metadata=self._credentials()
            )
            for response in responses:
                self._complete(response.results)
            error = PassbookError(grpc.StatusCode.UNAVAILABLE, "the server ended the stream")
        except grpc.RpcError as raised:
            error = PassbookError.of_call(raised)
        except PassbookError as raised:  # A token function that fails.
            error = raised
        except Exception as raised:  # noqa: BLE001 (a closed channel)
            error = PassbookError(grpc.StatusCode.UNKNOWN, str(raised))
        self._end(error)

    def _messages(self, stream: object) -> Iterator[service.StreamTransactionsRequest]:
        """The messages of a stream. gRPC asks for the next one when it has sent the one before."""
        order = service.RESULT_ORDER_AS_COMPLETED
        while True:
            with self._changed:
                while self._stream is stream and not self._waiting:
                    self._changed.wait()
                if self._stream is not stream:
                    return
                changes = [self._waiting.popleft()]
                size = changes[0].size
                while (
                    self._waiting
                    and len(changes) < REQUESTS_MAX
                    and size + self._waiting[0].size <= BYTES_MAX
                ):
                    changes.append(self._waiting.popleft())
                    size += changes[-1].size
                for change in changes:
                    change.is_sent = True
            yield service.StreamTransactionsRequest(
                requests=[change.to_message() for change in changes], result_order=order
            )

    def _complete(self, results: Any) -> None:  # noqa: ANN401 (a repeated field)
        for result in results:
            with self._changed:
                self._has_answered = True
                change = self._in_flight.pop(result.request_id, None)
                if change is None:
                    continue
                if result.HasField("error"):
                    change.error = PassbookError.of_status(result.error)
                else:
                    change.result = result
                change.done.set()

    def _end(self, error: PassbookError) -> None:
        """End all changes without a result: they are repeated, on any server.

        If the error is final, it is about the stream or about one request in it: each request goes
        alone, and gets a result of its own.
        """
        with self._changed:
            self._stream = None
            # After a token that has expired, the next stream has a new one.
            if error.is_final and error.code is not grpc.StatusCode.UNAUTHENTICATED:
                self._alone_until = time.monotonic() + ALONE_SECONDS
            # What the stream's error says is about the stream, and not about its requests.
            code = grpc.StatusCode.UNAVAILABLE
            if error.code is not code:
                code = grpc.StatusCode.ABORTED
            leaves_doubt = error.leaves_doubt(after_answer=self._has_answered)
            for change in self._in_flight.values():
                in_doubt = change.is_sent and leaves_doubt
                if error.is_final:
                    change.error = NotStreamedError(in_doubt=in_doubt)
                else:
                    change.error = _error(
                        code,
                        f"the stream ended: {error}",
                        in_doubt=in_doubt,
                        retry_delay=error.retry_delay,
                    )
                change.done.set()
            self._in_flight.clear()
            self._waiting.clear()
            self._changed.notify_all()


def _error(
    code: grpc.StatusCode, message: str, *, in_doubt: bool, retry_delay: float = 0.0
) -> PassbookError:
    metadata = {} if in_doubt else {"outcome": "not_applied"}
    return PassbookError(code, message, metadata=metadata, retry_delay=retry_delay)
