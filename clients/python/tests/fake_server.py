"""A server that answers with what a test says."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from passbook.v1 import account_service_pb2 as service
from passbook.v1 import account_service_pb2_grpc, resources_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from google.protobuf.message import Message
    from typing_extensions import Self

THREADS = 32


class FakeServer:
    """Runs until the end of the `with` statement. Each method is a function of the test."""

    def __init__(self, **methods: Callable[[Any, Any], Any]) -> None:
        servicer = account_service_pb2_grpc.AccountServiceServicer()
        for name, method in methods.items():
            setattr(servicer, name, method)
        self._server = grpc.server(ThreadPoolExecutor(THREADS))
        account_service_pb2_grpc.add_AccountServiceServicer_to_server(servicer, self._server)
        self.address = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()


def status(
    code: grpc.StatusCode, reason: str, outcome: str = "", *details: Message, field: str = ""
) -> status_pb2.Status:
    """An error as a server makes it."""
    named = {"outcome": outcome, "field": field}
    metadata = {name: value for name, value in named.items() if value}
    info = error_details_pb2.ErrorInfo(reason=reason, domain="passbook", metadata=metadata)
    made = status_pb2.Status(code=code.value[0], message="a test")
    for detail in (info, *details):
        made.details.add().Pack(detail)
    return made


HOUR = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=3600))
SHED = status(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "not_applied")
# The pause would end after the call's deadline, so that this error ends the call.
SHED_FOR_AN_HOUR = status(grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "not_applied", HOUR)
IN_DOUBT = status(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", "unknown")
# The same, and the end of the call.
LOST_FOR_AN_HOUR = status(grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", "unknown", HOUR)
LATE = status(grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", "unknown")
REJECTED = status(grpc.StatusCode.FAILED_PRECONDITION, "ACCOUNT_CLOSED")
WRONG_CURRENCY = status(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_CURRENCY_CODE")
# The amount is too much for this server's settings, and the balance for any server.
WRONG_AMOUNT = status(grpc.StatusCode.OUT_OF_RANGE, "BALANCE_OUT_OF_RANGE", field="amount")
WRONG_AMOUNT_NOT_APPLIED = status(
    grpc.StatusCode.OUT_OF_RANGE, "BALANCE_OUT_OF_RANGE", "not_applied", field="amount"
)
WRONG_BALANCE = status(grpc.StatusCode.OUT_OF_RANGE, "BALANCE_OUT_OF_RANGE")
WRONG_TOKEN = status(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
TOO_LARGE = status(grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE", "not_applied")
SHUTTING_DOWN = status(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN", "not_applied")
LIMIT_OF_LIBRARY = status_pb2.Status(code=grpc.StatusCode.RESOURCE_EXHAUSTED.value[0])
REUSED = status(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


def end(context: Any, error: status_pb2.Status) -> NoReturn:  # noqa: ANN401
    """End a call with an error of Passbook."""
    details = ("grpc-status-details-bin", error.SerializeToString())
    context.set_trailing_metadata((details,))
    code = next(code for code in grpc.StatusCode if code.value[0] == error.code)
    context.abort(code, error.message)
    raise AssertionError("unreachable")


def lose(context: Any) -> NoReturn:  # noqa: ANN401
    """End a call as a lost connection does: no service has answered."""
    context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")
    raise AssertionError("unreachable")


BREAKS = [(lose, "unknown"), (lambda context: end(context, SHUTTING_DOWN), "not_applied")]
"""How a server breaks a stream off, and the outcome of what was sent."""


def always(error: status_pb2.Status) -> Callable[[Any, Any], Any]:
    """A method that ends each call with this error."""
    return lambda _, context: end(context, error)


def token_of(context: Any) -> str:  # noqa: ANN401
    """The token that came with a call."""
    authorization: str = dict(context.invocation_metadata())["authorization"]
    return authorization.removeprefix("Bearer ")


ZERO = resources_pb2.Money(currency_code="USD", value="0.00")


def account_of(request: service.CreateAccountRequest) -> resources_pb2.Account:
    """The account that a request has opened."""
    account_id = request.account_id
    return resources_pb2.Account(
        account_id=account_id, balance=ZERO, held=ZERO, available=ZERO, overdraft_limit=ZERO
    )


def entry(sequence: int) -> resources_pb2.Entry:
    """An entry of any account."""
    return resources_pb2.Entry(sequence=sequence, amount=ZERO, balance_after=ZERO)


def transaction_of(request: Any) -> resources_pb2.Transaction:  # noqa: ANN401
    """The transaction of a request that was applied."""
    return resources_pb2.Transaction(request_id=request.request_id)


def deposit(request: service.DepositRequest, _: object) -> service.DepositResponse:
    """Apply a deposit."""
    return service.DepositResponse(transaction=transaction_of(request))


def deposits_of(messages: Iterable[service.StreamTransactionsRequest]) -> Iterator[Any]:
    """The deposits of a stream."""
    for message in messages:
        for element in message.requests:
            yield element.deposit


def streamed(request: Any) -> service.StreamTransactionsResponse:  # noqa: ANN401
    """The result of a request that a shared stream has applied."""
    result = service.StreamedResult(
        request_id=request.request_id, transaction=transaction_of(request)
    )
    return service.StreamTransactionsResponse(results=[result])
