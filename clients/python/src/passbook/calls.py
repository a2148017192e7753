"""Attempts of a call: deadlines, repeats and outcomes, by the rules of clients/README.md."""

from __future__ import annotations

import enum
import itertools
import random
import time
from typing import TYPE_CHECKING, Any

import grpc

from passbook.errors import PassbookError
from passbook.servers import Server, Servers, Tls
from passbook.shared_stream import FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BACKOFF_SECONDS = 0.05
"""The most that the pause after the first attempt takes. It doubles with each attempt."""
BACKOFF_MAX_SECONDS = 2.0
OUTAGE_SECONDS_MAX = 60.0
"""How long a stream or a watch looks for a server that answers before it gives up."""


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
        self.servers = Servers(addresses, tls, self.credentials)
        self._share_stream = share_stream
        self._token = token
        self._timeout = timeout

    def close(self) -> None:
        """Close all connections."""
        self.servers.close()

    def credentials(self) -> tuple[tuple[str, str], ...]:
        """The metadata of an attempt."""
        if self._token is None:
            return ()
        token = self._token if isinstance(self._token, str) else self._token()
        return (("authorization", f"Bearer {token}"),)

    def read(self, method: str, request: Any, timeout: float | None = None) -> Any:
        """Make a call that changes nothing."""
        return self._call(method, request, _Repeat.READ, timeout)

    def change(self, method: str, request: Any, timeout: float | None = None) -> Any:
        """Make a change that has an id."""
        return self._call(method, request, _Repeat.CHANGE, timeout)

    def update(self, method: str, request: Any, timeout: float | None = None) -> Any:
        """Make a change that has no id."""
        return self._call(method, request, _Repeat.UPDATE, timeout)

    def _call(self, method: str, request: Any, repeat: _Repeat, timeout: float | None) -> Any:
        """Make a call, and repeat it until it has a result or its time is up."""
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        in_doubt = False
        for attempt in itertools.count(1):
            server = self.servers.select()
            try:
                return self._attempt(server, method, request, deadline)
            except grpc.RpcError as raised:
                error = PassbookError.of_call(raised)
            except PassbookError as raised:
                error = raised
            if error.code is grpc.StatusCode.UNAVAILABLE:
                server.pass_over()
            outcome = None
            if repeat is not _Repeat.READ:
                outcome = error.outcome_of_call(in_doubt=in_doubt)
                in_doubt = outcome == "unknown"
            pause = backoff(attempt) + error.retry_delay
            if (
                error.is_final
                or (repeat is _Repeat.UPDATE and outcome != "not_applied")
                or time.monotonic() + pause >= deadline
            ):
                error.outcome = outcome
                error.request_id = getattr(request, "request_id", None) or None
                raise error
            time.sleep(pause)
        raise AssertionError("unreachable")

    def _attempt(self, server: Server, method: str, request: Any, deadline: float) -> Any:
        if self._share_stream and method in FIELDS:
            result = server.shared_stream.send(FIELDS[method], request, deadline)
            if result is not None:
                return result
        left = max(deadline - time.monotonic(), 0.0)
        return getattr(server.stub, method)(request, timeout=left, metadata=self.credentials())

    def pages(self, method: str, request: Any, timeout: float | None) -> Iterator[Any]:
        """All pages of a list. The timeout is that of each page."""
        while True:
            page = self.read(method, request, timeout)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


class Reconnects:
    """When a stream or a watch that broke is opened again."""

    def __init__(self) -> None:
        self._failures = 0
        self._outage_start = 0.0

    def has_answer(self) -> None:
        """Say that a server has answered, so that there is no outage."""
        self._failures = 0

    def pause(self, error: PassbookError) -> None:
        """Sleep before the next try, or raise the error if it is final or the outage too long."""
        now = time.monotonic()
        if self._failures == 0:
            self._outage_start = now
        if error.is_final or now - self._outage_start > OUTAGE_SECONDS_MAX:
            raise error
        self._failures += 1
        time.sleep(backoff(self._failures) + error.retry_delay)


def backoff(attempt: int) -> float:
    """The pause after an attempt: full jitter, so that clients do not come back all at once."""
    most = min(BACKOFF_SECONDS * 2.0 ** (min(attempt, 10) - 1), BACKOFF_MAX_SECONDS)
    return random.uniform(0.0, most)  # noqa: S311 (no secret)
