"""Attempts of calls and of the requests in batches, on a server that says what a test needs."""

from __future__ import annotations

import itertools
import threading
import time
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from fake_server import (
    IN_DOUBT,
    LATE,
    LOST_FOR_AN_HOUR,
    REJECTED,
    REUSED,
    SHED,
    SHED_FOR_AN_HOUR,
    WRONG_AMOUNT,
    WRONG_AMOUNT_NOT_APPLIED,
    WRONG_BALANCE,
    WRONG_CURRENCY,
    WRONG_TOKEN,
    FakeServer,
    account_of,
    always,
    deposit,
    deposits_of,
    end,
    lose,
    streamed,
    token_of,
    transaction_of,
)

from passbook import (
    Client,
    Money,
    NewAccount,
    PassbookError,
    Posting,
    Tls,
    TransactionResult,
    batches,
)
from passbook.v1 import account_service_pb2 as service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from google.rpc import status_pb2

CENT = Money("0.01", "USD")


def posting_error(client: Client) -> PassbookError:
    """The error of a batch of one posting."""
    (error,) = client.batch_post_transactions([Posting([], request_id="one")])
    assert isinstance(error, PassbookError)
    assert (error.request_id, error.account_id) == ("one", None)
    return error


def opening_error(client: Client) -> PassbookError:
    """The error of a batch of one opening."""
    (error,) = client.batch_create_accounts([NewAccount("USD", "joint")])
    assert isinstance(error, PassbookError)
    assert (error.request_id, error.account_id) == (None, "joint")
    return error


def batches_of(error: status_pb2.Status) -> dict[str, Callable[[Any, Any], Any]]:
    """Batches whose elements have this error."""

    def post(request: service.BatchPostTransactionsRequest, _: object) -> Any:  # noqa: ANN401
        results = [service.PostTransactionResult(error=error) for _ in request.requests]
        return service.BatchPostTransactionsResponse(results=results)

    def create(request: service.BatchCreateAccountsRequest, _: object) -> Any:  # noqa: ANN401
        results = [service.CreateAccountResult(error=error) for _ in request.requests]
        return service.BatchCreateAccountsResponse(results=results)

    return {"BatchPostTransactions": post, "BatchCreateAccounts": create}


def singles(error: status_pb2.Status) -> dict[str, Callable[[Any, Any], Any]]:
    """Calls that end with this error."""
    return {"PostTransaction": always(error), "CreateAccount": always(error)}


@pytest.mark.parametrize("call", [posting_error, opening_error])
@pytest.mark.parametrize(
    ("first", "then", "outcome"),
    [
        (IN_DOUBT, SHED_FOR_AN_HOUR, "unknown"),
        (IN_DOUBT, WRONG_TOKEN, "unknown"),
        (LATE, SHED_FOR_AN_HOUR, "unknown"),
        (LATE, WRONG_CURRENCY, "unknown"),
        (LATE, WRONG_AMOUNT, "unknown"),
        (LATE, WRONG_BALANCE, None),
        (LATE, REUSED, None),
        (SHED, SHED_FOR_AN_HOUR, "not_applied"),
        (SHED, WRONG_TOKEN, None),
        (REJECTED, SHED_FOR_AN_HOUR, None),
    ],
)
def test_the_outcome_of_an_element_of_a_batch_is_that_of_all_attempts(
    call: Callable[[Client], PassbookError],
    first: status_pb2.Status,
    then: status_pb2.Status,
    outcome: str | None,
) -> None:
    with (
        FakeServer(**batches_of(first), **singles(then)) as server,
        Client(server.address, share_stream=False) as client,
    ):
        assert call(client).outcome == outcome


@pytest.mark.parametrize("call", [posting_error, opening_error])
@pytest.mark.parametrize(
    ("element", "outcome"),
    [
        (SHED, "unknown"),
        (WRONG_CURRENCY, "unknown"),
        (WRONG_AMOUNT, "unknown"),
        (WRONG_BALANCE, None),
        (REJECTED, None),
    ],
)
def test_a_batch_whose_connection_was_lost_leaves_its_elements_in_doubt(
    call: Callable[[Client], PassbookError], element: status_pb2.Status, outcome: str | None
) -> None:
    attempts = itertools.count(1)

    def second(method: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        return lambda request, context: (
            lose(context) if next(attempts) == 1 else method(request, context)
        )

    methods = {name: second(method) for name, method in batches_of(element).items()}
    with (
        FakeServer(**methods, **singles(SHED_FOR_AN_HOUR)) as server,
        Client(server.address, share_stream=False) as client,
    ):
        assert call(client).outcome == outcome
    assert next(attempts) == 3


def test_a_batch_has_one_deadline_with_all_repeats() -> None:
    left: list[float] = []

    def post(_: object, context: Any) -> None:  # noqa: ANN401
        left.append(context.time_remaining())
        end(context, SHED)

    with (
        FakeServer(**batches_of(SHED) | {"PostTransaction": post}) as server,
        Client(server.address, timeout=2.0, share_stream=False) as client,
    ):
        begin = time.monotonic()
        results = client.batch_post_transactions([Posting([]) for _ in range(4)], timeout=0.5)
        assert time.monotonic() - begin < 2.0
    assert {type(result) for result in results} == {PassbookError}
    assert len(left) > 4
    assert max(left) <= 0.5


def test_elements_of_a_batch_are_repeated_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "REPEATS_MAX", 4)
    # Passes four at a time, and none alone.
    together = threading.Barrier(4)
    under_way, most, lock = 0, 0, threading.Lock()

    def post(request: service.PostTransactionRequest, _: object) -> Any:  # noqa: ANN401
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        together.wait(5)
        time.sleep(0.05)  # More than four would meet here.
        with lock:
            under_way -= 1
        return service.PostTransactionResponse(transaction=transaction_of(request))

    postings = [Posting([], request_id=f"id-{n}") for n in range(16)]
    with (
        FakeServer(**batches_of(SHED) | {"PostTransaction": post}) as server,
        Client(server.address, share_stream=False) as client,
    ):
        results = client.batch_post_transactions(postings)
    posted = [it.transaction.request_id for it in results if isinstance(it, TransactionResult)]
    assert posted == [posting.request_id for posting in postings]
    assert most == 4


def test_an_empty_id_is_none_and_stays_the_same_in_all_attempts() -> None:
    ids: list[str] = []

    def lose_first(context: Any, id_: str) -> None:  # noqa: ANN401
        ids.append(id_)
        if len(ids) == 1:
            lose(context)

    def create(request: service.CreateAccountRequest, context: Any) -> Any:  # noqa: ANN401
        lose_first(context, request.account_id)
        return service.CreateAccountResponse(account=account_of(request))

    def post(request: service.PostTransactionRequest, context: Any) -> Any:  # noqa: ANN401
        lose_first(context, request.request_id)
        return service.PostTransactionResponse(transaction=transaction_of(request))

    methods = batches_of(SHED) | {"CreateAccount": create, "PostTransaction": post}
    with (
        FakeServer(**methods) as server,
        Client(server.address, share_stream=False) as client,
    ):
        calls: list[Callable[[], object]] = [
            lambda: client.create_account("", currency_code="USD"),
            lambda: client.batch_create_accounts([NewAccount("USD", "")]),
            lambda: client.post_transaction([], request_id=""),
            lambda: client.batch_post_transactions([Posting([], request_id="")]),
        ]
        for call in calls:
            ids.clear()
            call()
            assert len(ids) == 2
            assert ids[0]
            assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        (WRONG_CURRENCY, "unknown"),
        (WRONG_AMOUNT, "unknown"),
        # The outcome is that of the last attempt. The error does not say that it has looked.
        (WRONG_AMOUNT_NOT_APPLIED, "unknown"),
        (WRONG_BALANCE, None),
        (REUSED, None),
        (REJECTED, None),
    ],
)
def test_after_doubt_only_the_record_is_certain(
    last: status_pb2.Status, outcome: str | None
) -> None:
    attempts = itertools.count(1)

    def deposit_twice(_: object, context: Any) -> None:  # noqa: ANN401
        end(context, IN_DOUBT if next(attempts) == 1 else last)

    with (
        FakeServer(Deposit=deposit_twice) as server,
        Client(server.address, share_stream=False) as client,
        pytest.raises(PassbookError) as raised,
    ):
        client.deposit("joint", CENT)
    assert raised.value.outcome == outcome
    assert next(attempts) == 3


def test_without_doubt_an_invalid_request_was_not_applied() -> None:
    with (
        FakeServer(Deposit=always(WRONG_AMOUNT)) as server,
        Client(server.address, share_stream=False) as client,
        pytest.raises(PassbookError) as raised,
    ):
        client.deposit("joint", CENT)
    assert raised.value.outcome is None


@pytest.mark.parametrize("count", [2, 12])
def test_the_error_of_a_lost_batch_has_the_ids_of_its_elements(count: int) -> None:
    methods = {
        name: always(LOST_FOR_AN_HOUR) for name in ("BatchPostTransactions", "BatchCreateAccounts")
    }
    ids = tuple(f"id-{n}" for n in range(count))
    text = {2: "id-0, id-1)", 12: "id-8, id-9 and 2 more)"}[count]
    with FakeServer(**methods) as server, Client(server.address) as client:
        with pytest.raises(PassbookError) as raised:
            client.batch_post_transactions([Posting([], request_id=it) for it in ids])
        error = raised.value
        assert (error.outcome, error.request_id) == ("unknown", None)
        assert (error.request_ids, error.account_ids) == (ids, ())
        assert f"{count} request_ids: id-0, id-1" in str(error)
        assert str(error).endswith(text)
        with pytest.raises(PassbookError) as raised:
            client.batch_create_accounts([NewAccount("USD", it) for it in ids])
        error = raised.value
        assert (error.outcome, error.account_id) == ("unknown", None)
        assert (error.request_ids, error.account_ids) == ((), ids)
        assert str(error).endswith(text)


def test_the_error_of_an_opening_has_the_id_that_the_client_made() -> None:
    opened: list[str] = []

    def create(request: service.CreateAccountRequest, context: Any) -> Any:  # noqa: ANN401
        opened.append(request.account_id)
        if len(opened) == 1:
            end(context, LATE)
        return service.CreateAccountResponse(account=account_of(request))

    with FakeServer(CreateAccount=create) as server, Client(server.address) as client:
        with pytest.raises(PassbookError) as raised:
            client.create_account(currency_code="USD")
        error = raised.value
        assert (error.outcome, error.account_id) == ("unknown", opened[0])
        assert opened[0] in str(error)
        account = client.create_account(error.account_id, currency_code="USD")
    assert opened == [account.account_id] * 2


@pytest.mark.parametrize("share_stream", [True, False])
# The error of another service is not that of the server.
@pytest.mark.parametrize("error_class", [LookupError, grpc.RpcError])
def test_a_token_function_that_fails_ends_the_call_and_is_asked_again(
    error_class: type[Exception],
    share_stream: bool,  # noqa: FBT001
) -> None:
    has_token = False
    tokens: list[str] = []

    def token() -> str:
        if not has_token:
            raise error_class("the vault is sealed")
        return "good"

    def stream(messages: Any, context: Any) -> Iterator[Any]:  # noqa: ANN401
        tokens.append(token_of(context))
        yield from map(streamed, deposits_of(messages))

    def deposit_alone(request: Any, context: Any) -> Any:  # noqa: ANN401
        tokens.append(token_of(context))
        return deposit(request, context)

    with (
        FakeServer(StreamTransactions=stream, Deposit=deposit_alone) as server,
        Client(server.address, token=token, share_stream=share_stream) as client,
    ):
        with pytest.raises(PassbookError, match="the vault is sealed") as raised:
            client.deposit("joint", CENT, request_id="one")
        error = raised.value
        assert error.code is grpc.StatusCode.UNAUTHENTICATED
        assert (error.outcome, error.request_id) == ("not_applied", "one")
        with pytest.raises(PassbookError) as raised:
            client.get_account("joint")
        assert raised.value.outcome is None
        with pytest.raises(PassbookError):
            next(client.watch_entries("joint"))
        has_token = True
        assert client.deposit("joint", CENT).transaction.request_id
    assert tokens == ["good"]


@pytest.mark.parametrize("share_stream", [True, False])
def test_a_token_function_that_takes_too_long_ends_the_call_in_time(
    share_stream: bool,  # noqa: FBT001
) -> None:
    takes_long = True
    may_return = threading.Event()

    def token() -> str:
        if takes_long:
            may_return.wait(10)
        return "good"

    def stream(messages: Any, _: object) -> Iterator[Any]:  # noqa: ANN401
        yield from map(streamed, deposits_of(messages))

    with (
        FakeServer(StreamTransactions=stream, Deposit=deposit) as server,
        Client(server.address, token=token, timeout=0.2, share_stream=share_stream) as client,
    ):
        begin = time.monotonic()
        with pytest.raises(PassbookError) as raised:
            client.deposit("joint", CENT)
        error = raised.value
        assert (error.code, error.outcome) == (grpc.StatusCode.DEADLINE_EXCEEDED, "not_applied")
        with pytest.raises(PassbookError) as raised:
            client.get_account("joint")
        assert raised.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        with pytest.raises(PassbookError) as raised:
            next(client.watch_entries("joint"))
        assert raised.value.code is grpc.StatusCode.UNAUTHENTICATED
        # The next call asks again, although the function has not returned from the first ones.
        takes_long = False
        client.deposit("joint", CENT, timeout=5.0)
        assert time.monotonic() - begin < 3.0
        may_return.set()


def test_a_token_needs_tls_on_the_way_to_another_machine() -> None:
    for address in (
        "203.0.113.1:50051",
        "10.0.0.1:50051",
        "passbook.example:50051",
        "localhost.example:50051",
        "127.0.0.1.example:50051",
        "[2001:db8::1]:50051",
        "::1:50051",
        "[::1:50051",
        "dns:///203.0.113.1:50051",
        "unix:passbook",
    ):
        for token in ("secret", lambda: "secret"):
            with pytest.raises(ValueError, match="needs TLS") as raised:
                Client(["127.0.0.1:50051", address], token=token)
            assert "secret" not in str(raised.value)
        Client(address, token="secret", tls=Tls()).close()  # noqa: S106
        Client(address).close()
    for address in ("127.0.0.1:50051", "127.8.9.1:50051", "[::1]:50051", "localhost:50051"):
        Client(address, token="secret").close()  # noqa: S106


def test_a_token_for_this_machine_does_not_go_to_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("grpc_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_grpc_proxy", "example.com")
    with (
        FakeServer(Deposit=deposit) as server,
        Client(server.address, token="good", share_stream=False) as client,  # noqa: S106
    ):
        client.deposit("joint", CENT, timeout=5.0)
