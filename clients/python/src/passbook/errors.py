"""The error of a call, and what it means for the request."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

import grpc
from google.rpc import error_details_pb2, status_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Outcome = Literal["not_applied", "unknown"]

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_RESULT_CODES = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
    }
)
_DENIED_CODES = frozenset(
    {
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.UNIMPLEMENTED,
    }
)
_DOMAIN = "passbook"
"""Of the ErrorInfo in errors of Passbook."""
_TOO_LARGE_REASONS = frozenset({"REQUEST_TOO_LARGE", "RESPONSE_TOO_LARGE"})

_IDS_IN_TEXT_MAX = 10
"""Ids of a batch in the text of its error."""


class PassbookError(Exception):
    """A call that has no successful result."""

    code: grpc.StatusCode
    """The code of gRPC."""
    reason: str
    """Why, such as `INSUFFICIENT_FUNDS`: the enum `ErrorReason`. Empty if no service answered."""
    message: str
    """For developers, in English."""
    metadata: Mapping[str, str]
    """The values behind the reason, such as `available` and `required`."""
    outcome: Outcome | None
    """Of a change without a result: whether it is `not_applied` or `unknown`. None: the error is
    final, nothing was applied, and a repeat has no other result; or the call was a read."""
    request_id: str | None
    """The id of the request. After `unknown`, repeat the call with this id, or fence it."""
    account_id: str | None
    """The id of the account that was to be opened. After `unknown`, open it again with this id."""
    request_ids: tuple[str, ...]
    """The ids in a batch of postings that has failed as a whole, or in a stream that has ended
    before their results. Each has this outcome."""
    account_ids: tuple[str, ...]
    """The ids in a batch of openings that has failed as a whole. Each has this outcome."""
    retry_delay: float
    """Seconds to wait before a repeat, if the server asks for a delay."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] = MappingProxyType({}),
        retry_delay: float = 0.0,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = metadata
        self.retry_delay = retry_delay
        self.outcome = None
        self.request_id = None
        self.account_id = None
        self.request_ids = ()
        self.account_ids = ()

    def __str__(self) -> str:
        parts = [self.code.name, self.reason, self.message]
        text = ": ".join(part for part in parts if part)
        notes = [f"outcome {self.outcome}"] if self.outcome else []
        if self.request_id:
            notes.append(f"request_id {self.request_id}")
        if self.account_id:
            notes.append(f"account_id {self.account_id}")
        if self.request_ids:
            notes.append(f"{len(self.request_ids)} request_ids: {_first(self.request_ids)}")
        if self.account_ids:
            notes.append(f"{len(self.account_ids)} account_ids: {_first(self.account_ids)}")
        return f"{text} ({', '.join(notes)})" if notes else text

    @classmethod
    def of_call(cls, error: grpc.RpcError) -> PassbookError:
        """The error of an attempt, from its status and trailers."""
        if not isinstance(error, grpc.Call):
            return cls(grpc.StatusCode.UNKNOWN, str(error))
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin" and isinstance(value, bytes):
                return cls.of_status(status_pb2.Status.FromString(value))
        return cls(error.code(), error.details() or "")

    @classmethod
    def of_status(cls, status: status_pb2.Status) -> PassbookError:
        """The error of a `google.rpc.Status`, which results of batches and streams also have."""
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        found = error_details_pb2.ErrorInfo()
        delay = 0.0
        for detail in status.details:
            # That of another service, such as a proxy, says nothing of the request.
            if detail.Unpack(found) and found.domain == _DOMAIN:
                info.CopyFrom(found)
            if detail.Unpack(retry):
                delay = retry.retry_delay.ToTimedelta().total_seconds()
        return cls(
            _CODES.get(status.code, grpc.StatusCode.UNKNOWN),
            status.message,
            reason=info.reason,
            metadata=MappingProxyType(dict(info.metadata)),
            retry_delay=delay,
        )

    @property
    def is_final(self) -> bool:
        """Whether another attempt would end in the same way."""
        return (
            self._is_result
            or self.code in _DENIED_CODES
            or self.reason in _TOO_LARGE_REASONS
            # A limit of the library, such as the size of a message.
            or (self.code is grpc.StatusCode.RESOURCE_EXHAUSTED and not self.reason)
        )

    def leaves_doubt(self, *, after_answer: bool = False) -> bool:
        """Whether a request may have been applied by an attempt that ended with this error.

        `after_answer`: the error ended a stream that had answered before. A server that denies a
        call or a new stream has not looked at a request.
        """
        if self.metadata.get("outcome") == "not_applied":
            return False
        return after_answer or self.code not in _DENIED_CODES

    def outcome_of_call(self, *, in_doubt: bool) -> Outcome | None:
        """The outcome of a change whose last attempt ended with this error.

        `in_doubt`: an earlier attempt may have been applied.
        """
        # A server that finds a request invalid does not look for its record. The earlier attempt
        # may have been on a server with other settings, where the request was valid. Whatever
        # outcome the error has is that of the last attempt.
        if self._is_result and not (in_doubt and self._is_invalid):
            return None
        if in_doubt or self.leaves_doubt():
            return "unknown"
        return "not_applied" if self.metadata.get("outcome") == "not_applied" else None

    @property
    def _is_result(self) -> bool:
        """Whether the error is what became of the request: invalid, or rejected by state."""
        return self.code in _RESULT_CODES or self.reason == "VERSION_MISMATCH"

    @property
    def _is_invalid(self) -> bool:
        """Whether the server found a field invalid before it looked for a stored result.

        An amount and a time can be out of range by themselves: then the error names their field.
        """
        if self.code is grpc.StatusCode.INVALID_ARGUMENT:
            return self.reason != "REQUEST_ID_REUSED"
        return self.code is grpc.StatusCode.OUT_OF_RANGE and "field" in self.metadata


def _first(ids: Sequence[str]) -> str:
    """The first ids, and how many more there are."""
    more = len(ids) - _IDS_IN_TEXT_MAX
    text = ", ".join(ids[:_IDS_IN_TEXT_MAX])
    return f"{text} and {more} more" if more > 0 else text
