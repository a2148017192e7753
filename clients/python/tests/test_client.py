from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from processes import EphemeralServer

from passbook import (
    Account,
    AccountChange,
    Client,
    Event,
    Hold,
    Leg,
    Money,
    NewAccount,
    PassbookError,
    Posting,
    RequestOutcome,
    Tls,
    Transaction,
    TransactionResult,
    Verification,
)
from passbook.v1 import (
    account_service_pb2,
    account_service_pb2_grpc,
    events_pb2,
    history_pb2,
    holds_pb2,
    lifecycle_pb2,
    resources_pb2,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRETS = Path(os.environ["PASSBOOK_TEST_SECRETS"])


def usd(value: str) -> Money:
    return Money(value, "USD")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    server = EphemeralServer()
    try:
        with Client(server.address) as client:
            yield client
    finally:
        server.stop()


def test_amounts_keep_all_of_their_digits_and_floats_are_no_amounts() -> None:
    for digits, sent in {
        "12345678901234567890123456.78": "12345678901234567890123456.78",
        "1000000000000000000000000": "1000000000000000000000000",
        "-0.01": "-0.01",
        "100.000": "100",
        "-0.50": "-0.5",
        "0.00": "0",
    }.items():
        assert usd(digits).to_message().value == sent
    assert Money(Decimal("1E+3"), "USD").to_message().value == "1000"
    with pytest.raises(TypeError):
        Money(0.1, "USD")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NaN"):
        usd("NaN")


def test_the_details_of_another_service_say_nothing_of_the_request() -> None:
    status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0])
    metadata = {"outcome": "not_applied"}
    for domain in ("passbook", "proxy.example"):
        info = error_details_pb2.ErrorInfo(reason="FULL", domain=domain, metadata=metadata)
        status.details.add().Pack(info)
    error = PassbookError.of_status(status)
    assert (error.reason, error.outcome_of_call(in_doubt=False)) == ("FULL", "not_applied")
    del status.details[0]
    error = PassbookError.of_status(status)
    assert (error.reason, dict(error.metadata)) == ("", {})
    assert error.outcome_of_call(in_doubt=False) == "unknown"


def test_the_outcome_is_that_of_all_attempts() -> None:
    lost = PassbookError(grpc.StatusCode.UNAVAILABLE, "connection lost")
    shed = PassbookError(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "busy",
        reason="OVERLOADED",
        metadata={"outcome": "not_applied"},
    )
    denied = PassbookError(grpc.StatusCode.PERMISSION_DENIED, "denied", reason="PERMISSION_DENIED")
    rejected = PassbookError(grpc.StatusCode.NOT_FOUND, "nobody", reason="ACCOUNT_NOT_FOUND")
    invalid = PassbookError(
        grpc.StatusCode.INVALID_ARGUMENT, "not set", reason="INVALID_CURRENCY_CODE"
    )
    reused = PassbookError(grpc.StatusCode.INVALID_ARGUMENT, "reused", reason="REQUEST_ID_REUSED")
    for error, alone, in_doubt in (
        (lost, "unknown", "unknown"),
        (shed, "not_applied", "unknown"),
        (denied, None, "unknown"),
        (rejected, None, None),
        (invalid, None, "unknown"),
        (reused, None, None),
    ):
        assert error.outcome_of_call(in_doubt=False) == alone
        assert error.outcome_of_call(in_doubt=True) == in_doubt


def test_without_a_server_the_outcome_is_unknown_and_the_id_is_there() -> None:
    with Client("127.0.0.1:1") as client, pytest.raises(PassbookError) as raised:
        client.deposit("joint", usd("1.00"), timeout=0.2)
    assert raised.value.outcome == "unknown"
    assert raised.value.request_id is not None


def test_changes_of_many_threads_have_their_own_results(client: Client) -> None:
    client.create_account("dave", currency_code="USD")

    def deposit(request_id: str) -> TransactionResult:
        return client.deposit("dave", usd("0.01"), request_id=request_id)

    # Each id twice, at the same time.
    request_ids = [f"dave-{n // 2}" for n in range(200)]
    with ThreadPoolExecutor(32) as threads:
        results = list(threads.map(deposit, request_ids))
    assert [result.transaction.request_id for result in results] == request_ids
    assert sum(result.replayed for result in results) == 100
    assert client.get_account("dave").balance == usd("1.00")


def test_every_change_of_balances_takes_effect_when_it_says(client: Client) -> None:
    client.batch_create_accounts([NewAccount("USD", f"dates:{name}") for name in ("a", "b")])
    a, b, cent = "dates:a", "dates:b", usd("0.01")
    client.deposit(a, usd("10.00"))
    client.place_hold(a, cent, hold_id="dates")
    day = datetime.now(timezone.utc).replace(microsecond=123456) - timedelta(days=1)
    legs = [Leg(a, cent), Leg(b, cent)]
    deposit = client.deposit(a, cent, effective_time=day).transaction
    posting = client.batch_post_transactions([Posting(legs, effective_time=day)])[0]
    assert isinstance(posting, TransactionResult)
    for transaction in (
        deposit,
        client.withdraw(a, cent, effective_time=day).transaction,
        client.transfer(a, b, cent, effective_time=day).transaction,
        client.post_transaction(legs, effective_time=day).transaction,
        posting.transaction,
        client.reverse_transaction(deposit.transaction_id, effective_time=day).transaction,
        client.capture_hold("dates", effective_time=day).transaction,
    ):
        times = [transaction.effective_time, *(it.effective_time for it in transaction.entries)]
        assert set(times) == {day}
        assert transaction.create_time != day
    by_effective_time = list(client.list_entries(a, by_effective_time=True))
    assert [it.sequence for it in by_effective_time] == [2, 3, 4, 5, 6, 7, 8, 1]
    latest = next(client.list_transactions(account_id=a, by_effective_time=True))
    assert latest.effective_time is None
    balance = client.get_balance(a, at_time=day, by_effective_time=True)
    assert (balance.balance, balance.sequence) == (usd("-0.01"), 8)
    listed = client.list_accounts(account_id_prefix="dates:")
    assert [it.account_id for it in listed] == [a, b]


def test_a_batch_has_a_result_for_each_posting(client: Client) -> None:
    client.create_account("alice", currency_code="USD")
    applied, rejected = client.batch_post_transactions(
        [Posting([Leg("alice", usd("5.00"))]), Posting([Leg("nobody", usd("5.00"))])]
    )
    assert isinstance(applied, TransactionResult)
    assert isinstance(rejected, PassbookError)
    assert rejected.reason == "ACCOUNT_NOT_FOUND"


def test_a_stream_takes_postings_only_as_fast_as_results_are_read(client: Client) -> None:
    client.create_account("bob", currency_code="USD")
    taken = 0

    def postings() -> Iterator[Posting]:
        nonlocal taken
        while True:
            taken += 1
            yield Posting([Leg("bob", usd("0.01"))])

    results = client.stream_transactions(postings())
    for read, result in enumerate(itertools.islice(results, 50), start=1):
        assert isinstance(result, TransactionResult)
        assert taken <= read + 1025
    results.close()


def test_an_error_of_the_caller_s_postings_is_raised_after_the_results(client: Client) -> None:
    client.create_account("carol", currency_code="USD")

    def postings() -> Iterator[Posting]:
        yield Posting([Leg("carol", usd("0.01"))])
        raise LookupError("no more")

    results = client.stream_transactions(postings())
    assert isinstance(next(results), TransactionResult)
    with pytest.raises(LookupError):
        next(results)


def test_tokens_tls_and_mutual_tls() -> None:
    def secret(name: str) -> bytes:
        return (SECRETS / name).read_bytes()

    token = secret("token").decode().strip()
    tls = Tls(authorities=secret("ca.crt"), server_name="server.test")
    mutual = Tls(
        authorities=secret("ca.crt"),
        server_name="server.test",
        certificate=secret("client.crt"),
        key=secret("client.key"),
    )
    server = EphemeralServer("--config", str(SECRETS / "passbook.toml"))
    try:
        with Client(server.address, tls=tls, token=token) as client:
            assert client.create_account(currency_code="USD").created_by == "billing"
        with Client(server.address, tls=tls, token=lambda: token) as client:
            assert client.create_account(currency_code="USD").created_by == "billing"
        with Client(server.address, tls=mutual) as client:
            assert client.create_account(currency_code="USD").created_by == "dns:client.test"
        with Client(server.address, tls=tls) as client, pytest.raises(PassbookError) as raised:
            client.create_account(currency_code="USD")
        assert raised.value.code is grpc.StatusCode.UNAUTHENTICATED
    finally:
        server.stop()


def test_the_service_config_for_other_programs_is_understood() -> None:
    server = EphemeralServer()
    config = (Path(__file__).parents[2] / "service_config.json").read_text()
    try:
        with grpc.insecure_channel(server.address, [("grpc.service_config", config)]) as channel:
            stub = account_service_pb2_grpc.AccountServiceStub(channel)
            request = account_service_pb2.CreateAccountRequest(currency_code="USD")
            assert stub.CreateAccount(request).account.currency_code == "USD"
    finally:
        server.stop()


def test_a_value_that_is_newer_than_the_client_is_its_number() -> None:
    newer: Any = 99
    zero = resources_pb2.Money(currency_code="USD", value="0.00")
    account = resources_pb2.Account(
        state=newer, balance=zero, held=zero, available=zero, overdraft_limit=zero
    )
    assert Account.of(account).state == "99"
    account.state = resources_pb2.ACCOUNT_STATE_FROZEN
    assert Account.of(account).state == "frozen"
    attributes = lifecycle_pb2.AccountAttributes(state=newer, overdraft_limit=zero)
    change = lifecycle_pb2.AccountChange(kind=newer, before=attributes, after=attributes)
    assert (AccountChange.of(change).kind, AccountChange.of(change).after.state) == ("99", "99")
    assert Transaction.of(resources_pb2.Transaction(kind=newer)).kind == "99"
    assert Hold.of(holds_pb2.Hold(state=newer, amount=zero)).state == "99"
    assert Event.of(events_pb2.Event(kind=newer)).kind == "99"
    outcome = history_pb2.GetRequestOutcomeResponse(outcome=newer)
    assert RequestOutcome.of("one", outcome).outcome == "99"
    fault = history_pb2.VerifyAccountResponse(fault=history_pb2.VerificationFault(kind=newer))
    found = Verification.of(fault).fault
    assert found is not None
    assert found.kind == "99"
