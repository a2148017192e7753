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
BYTES_MAX = 512 * 1024
"""Bytes of one message: half of the server's default limit. A longer request is sent alone."""
REQUEST_ID_BYTES_MAX = 64

_UNUSABLE_CODES = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNIMPLEMENTED)


class _Change:
    def __init__(self, field: str, request: Any, deadline: float) -> None:  # noqa: ANN401
        self.request_id: str = request.request_id
        self.deadline = deadline
        self.size = request.ByteSize()
        self.done = threading.Event()
        self.result: service.StreamedResult | None = None
        self.error: PassbookError | None = None
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
        self._is_usable = True
        self._stream: object = None
        self._waiting: deque[_Change] = deque()
        self._in_flight: dict[str, _Change] = {}

    def send(self, field: str, request: Any, deadline: float) -> service.StreamedResult | None:  # noqa: ANN401
        """Send a change and wait for its result. None: it needs a call of its own.

        That is so if the server takes no streams from this caller, or if a change with the same id
        is under way: results are matched by id.
        """
        change = _Change(field, request, deadline)
        with self._changed:
            if (
                not self._is_usable
                or change.request_id in self._in_flight
                or len(change.request_id.encode()) > REQUEST_ID_BYTES_MAX
            ):
                return None
            self._in_flight[change.request_id] = change
            self._waiting.append(change)
            if self._stream is None:
                self._stream = object()
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
            was_sent = change not in self._waiting
            if not was_sent:
                self._waiting.remove(change)
                del self._in_flight[change.request_id]
        change.error = _error(grpc.StatusCode.DEADLINE_EXCEEDED, "time is up", was_sent=was_sent)

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
        except Exception as raised:  # noqa: BLE001 (a token function that fails, a closed channel)
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
            yield service.StreamTransactionsRequest(
                requests=[change.to_message() for change in changes], result_order=order
            )

    def _complete(self, results: Any) -> None:  # noqa: ANN401 (a repeated field)
        for result in results:
            with self._changed:
                change = self._in_flight.pop(result.request_id, None)
                if change is None:
                    continue
                if result.HasField("error"):
                    change.error = PassbookError.of_status(result.error)
                else:
                    change.result = result
                change.done.set()

    def _end(self, error: PassbookError) -> None:
        """End all changes without a result: they are repeated, on any server."""
        with self._changed:
            self._stream = None
            if error.code in _UNUSABLE_CODES:
                self._is_usable = False
            # What the stream's error says is about the stream, and not about its requests.
            code = grpc.StatusCode.UNAVAILABLE
            if error.code is not code:
                code = grpc.StatusCode.ABORTED
            for change in self._in_flight.values():
                was_sent = change not in self._waiting
                change.error = _error(code, f"the stream ended: {error}", was_sent=was_sent)
                change.done.set()
            self._in_flight.clear()
            self._waiting.clear()
            self._changed.notify_all()


def _error(code: grpc.StatusCode, message: str, *, was_sent: bool) -> PassbookError:
    metadata = {} if was_sent else {"outcome": "not_applied"}
    return PassbookError(code, message, metadata=metadata)
