"""Attempts of a call: deadlines, repeats and outcomes, by the rules of clients/README.md."""

from __future__ import annotations

import enum
import random
import threading
import time
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, Any

import grpc

from passbook.errors import PassbookError
from passbook.servers import Server, Servers, Tls, require_tls
from passbook.shared_stream import FIELDS, NotStreamedError
from passbook.v1 import account_service_pb2 as service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BACKOFF_SECONDS = 0.05
"""The most that the pause after the first attempt takes. It doubles with each attempt."""
BACKOFF_MAX_SECONDS = 2.0
OUTAGE_SECONDS_MAX = 60.0
"""How long a stream or a watch looks for a server that answers before it gives up."""
TIMEOUT_SECONDS_MAX = 365 * 24 * 60 * 60.0
"""A longer timeout is as good as none."""

_CLOSED = grpc.StatusCode.CANCELLED

Metadata = tuple[tuple[str, str], ...]


class _Repeat(enum.Enum):
    """What a call is, which decides when it is repeated."""

    READ = enum.auto()
    """Always safe to repeat."""
    CHANGE = enum.auto()
    """A change under an id: safe to repeat under the same id."""
    UPDATE = enum.auto()
    """A change without an id: a late repeat could undo what another caller has changed."""


class Calls:
    """Makes calls on several servers, with the token."""

    def __init__(
        self,
        addresses: str | Sequence[str],
        tls: Tls | None,
        token: str | Callable[[], str] | None,
        timeout: float,
        *,
        share_stream: bool,
    ) -> None:
        addresses = [addresses] if isinstance(addresses, str) else list(addresses)
        if token is not None and tls is None:
            require_tls(addresses)
        self.servers = Servers(addresses, tls, self.credentials)
        self.share_stream = share_stream
        self.closed = threading.Event()
        self._token = token
        self._timeout = timeout

    def close(self) -> None:
        """Close all connections. Nothing is sent any more."""
        self.closed.set()
        self.servers.close()

    def check_open(self) -> None:
        """Raise the error of an attempt that begins after the client was closed."""
        if self.closed.is_set():
            message = "it was closed before the attempt"
            raise PassbookError(_CLOSED, message, metadata={"outcome": "not_applied"})

    def open_stream(self, method: str, requests: Any) -> tuple[Server, Any]:
        """Open a stream on the next server."""
        self.check_open()
        server = self.servers.select()
        metadata = self.credentials()
        try:
            return server, getattr(server.stub, method)(requests, metadata=metadata)
        except ValueError:
            self.check_open()  # The channel was closed meanwhile.
            raise

    def closed_error(self, error: PassbookError) -> PassbookError:
        """The error of what ends with this error, after the client was closed."""
        return PassbookError(_CLOSED, f"the client is closed: {error.message}")

    def credentials(self, deadline: float | None = None) -> Metadata:
        """The metadata of an attempt, whose token function may take until the deadline.

        Without one, of a stream: a function that takes longer than the default timeout has failed,
        or else a shared stream would keep the calls of all threads waiting for it.
        """
        if self._token is None:
            return ()
        if isinstance(self._token, str):
            token = self._token
        elif deadline is None:
            token = _ask(self._token, self.deadline(), grpc.StatusCode.UNAUTHENTICATED)
        else:
            token = _ask(self._token, deadline, grpc.StatusCode.DEADLINE_EXCEEDED)
        return (("authorization", f"Bearer {token}"),)

    def read(self, method: str, request: Any, timeout: float | None = None) -> Any:
        """Make a call that changes nothing."""
        return Call(self, method, request, _Repeat.READ, self.deadline(timeout)).run()

    def change(self, method: str, request: Any, timeout: float | None = None) -> Any:
        """Make a change that has an id."""
        return self.begin_change(method, request, self.deadline(timeout)).run()

    def update(self, method: str, request: Any, timeout: float | None = None) -> Any:
        """Make a change that has no id."""
        return Call(self, method, request, _Repeat.UPDATE, self.deadline(timeout)).run()

    def begin_change(
        self, method: str, request: Any, deadline: float, *, in_doubt: bool = False
    ) -> Call:
        """A change that has an id, before its first attempt.

        `in_doubt`: a batch or a stream that had the request may have applied it.
        """
        return Call(self, method, request, _Repeat.CHANGE, deadline, in_doubt=in_doubt)

    def deadline(self, timeout: float | None = None) -> float:
        """When a call that begins now has to end, by the monotonic clock."""
        timeout = self._timeout if timeout is None else timeout
        # The thread that sends for all could not write an infinite one, nor one that is no number.
        return time.monotonic() + max(0.0, min(timeout, TIMEOUT_SECONDS_MAX))

    def pages(self, method: str, request: Any, timeout: float | None) -> Iterator[Any]:
        """All pages of a list. The timeout is that of each page."""
        while True:
            page = self.read(method, request, timeout)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


class Call:
    """One request with all of its attempts, until there is a result or time is up."""

    def __init__(
        self,
        calls: Calls,
        method: str,
        request: Any,
        repeat: _Repeat,
        deadline: float,
        *,
        in_doubt: bool = False,
    ) -> None:
        self.in_doubt = in_doubt
        """Whether an attempt that has ended may have been applied."""
        self._calls = calls
        self._method = method
        self._request = request
        self._repeat = repeat
        self._deadline = deadline
        self._attempts = 0

    def run(self) -> Any:
        """Make attempts, and return the response of the first one that has a result."""
        while True:
            server = self._calls.servers.select()
            try:
                return self._attempt(server)
            except grpc.RpcError as raised:
                error = PassbookError.of_call(raised)
            except PassbookError as raised:
                error = raised
            if error.code is grpc.StatusCode.UNAVAILABLE:
                server.pass_over()
            self._pause(error, is_time_up=error.code is grpc.StatusCode.DEADLINE_EXCEEDED)

    def complete(self, result: Any) -> Any:
        """Return the result that a batch or a stream has for the request.

        If that is an error, it ended the first attempt, and the next ones are calls of their own.
        """
        if not result.HasField("error"):
            return result
        self._pause(PassbookError.of_status(result.error), is_time_up=False)
        return self.run()

    def _attempt(self, server: Server) -> Any:
        self._calls.check_open()
        if self._calls.share_stream and self._method in FIELDS:
            try:
                return server.shared_stream.send(
                    FIELDS[self._method], self._request, self._deadline
                )
            except NotStreamedError as raised:
                self.in_doubt = self.in_doubt or raised.in_doubt
        metadata = self._calls.credentials(self._deadline)
        left = max(self._deadline - time.monotonic(), 0.0)
        method = getattr(server.stub, self._method)
        try:
            return method(self._request, timeout=left, metadata=metadata)
        except ValueError:
            self._calls.check_open()  # The channel was closed meanwhile.
            raise

    def _pause(self, error: PassbookError, *, is_time_up: bool) -> None:
        """Sleep until the next attempt, or raise the error if it is that of the call."""
        outcome = None
        if self._repeat is not _Repeat.READ:
            outcome = error.outcome_of_call(in_doubt=self.in_doubt)
            self.in_doubt = outcome == "unknown"
        self._attempts += 1
        pause = backoff(self._attempts) + error.retry_delay
        is_closed = self._calls.closed.is_set()
        if is_closed and not error.is_final:
            error = self._calls.closed_error(error)
        if (
            is_time_up
            or is_closed
            or error.is_final
            or (self._repeat is _Repeat.UPDATE and outcome != "not_applied")
            or time.monotonic() + pause >= self._deadline
        ):
            error.outcome = outcome
            self._name(error)
            raise error
        self._calls.closed.wait(pause)

    def _name(self, error: PassbookError) -> None:
        """Give the error of the call the ids with which a repeat makes sure."""
        request = self._request
        error.request_id = getattr(request, "request_id", None) or None
        if isinstance(request, service.CreateAccountRequest):
            error.account_id = request.account_id
        elif isinstance(request, service.BatchPostTransactionsRequest):
            error.request_ids = tuple(it.request_id for it in request.requests)
        elif isinstance(request, service.BatchCreateAccountsRequest):
            error.account_ids = tuple(it.account_id for it in request.requests)


class Reconnects:
    """When a stream or a watch that broke is opened again."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self.is_answered = False
        """Whether a server has answered the stream that is open."""
        self._failures = 0
        self._outage_start = 0.0

    def has_answer(self) -> None:
        """Say that a server has answered, so that there is no outage."""
        self.is_answered = True
        self._failures = 0

    def pause(self, error: PassbookError) -> None:
        """Sleep before the next try, or raise the error if it is final or the outage too long."""
        now = time.monotonic()
        if self._failures == 0:
            self._outage_start = now
        # A token that expires ends an open stream. The next stream has a new token. If that is not
        # valid either, the server denies the stream before it answers.
        has_expired = error.code is grpc.StatusCode.UNAUTHENTICATED and self.is_answered
        is_final = error.is_final and not has_expired
        if is_final or now - self._outage_start > OUTAGE_SECONDS_MAX:
            raise error
        self.is_answered = False
        self._failures += 1
        if self._calls.closed.wait(backoff(self._failures) + error.retry_delay):
            raise self._calls.closed_error(error)


def backoff(attempt: int) -> float:
    """The pause after an attempt: full jitter, so that clients do not come back all at once."""
    most = min(BACKOFF_SECONDS * 2.0 ** (min(attempt, 10) - 1), BACKOFF_MAX_SECONDS)
    return random.uniform(0.0, most)  # noqa: S311 (no secret)


def _ask(token: Callable[[], str], deadline: float, late: grpc.StatusCode) -> str:
    """The token of a function, or an error with the code `late` if it takes too long.

    The function runs in a thread of its own, which it may keep for as long as it likes.
    """
    answer: Future[str] = Future()

    def ask() -> None:
        try:
            answer.set_result(token())
        except BaseException as raised:  # noqa: BLE001 (it is raised where the token is needed)
            answer.set_exception(raised)

    metadata = {"outcome": "not_applied"}
    try:
        threading.Thread(target=ask, daemon=True).start()
        if wait([answer], max(deadline - time.monotonic(), 0.0)).done:
            return answer.result()
    except Exception as raised:
        message = f"there is no token: {raised}"
        raise PassbookError(grpc.StatusCode.UNAUTHENTICATED, message, metadata=metadata) from raised
    raise PassbookError(late, "the token function takes too long", metadata=metadata)
