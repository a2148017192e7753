"""Batches: one call for many requests, and a call of its own for each that has no result."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from passbook.errors import PassbookError
from passbook.model import Account, NewAccount, Posting, Transaction, TransactionResult
from passbook.v1 import account_service_pb2 as service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from passbook.calls import Call, Calls

REPEATS_MAX = 64
"""Requests of a batch that are repeated at the same time."""

Result = TypeVar("Result")


def post_transactions(
    calls: Calls, postings: Iterable[Posting], timeout: float | None
) -> list[TransactionResult | PassbookError]:
    """See `Client.batch_post_transactions`."""
    requests = [posting.to_message() for posting in postings]
    batch = service.BatchPostTransactionsRequest(requests=requests)
    return _make(calls, batch, "PostTransaction", posting_result, timeout)


def create_accounts(
    calls: Calls, accounts: Iterable[NewAccount], timeout: float | None
) -> list[Account | PassbookError]:
    """See `Client.batch_create_accounts`."""
    requests = [account.to_message() for account in accounts]
    batch = service.BatchCreateAccountsRequest(requests=requests)
    return _make(calls, batch, "CreateAccount", _account_result, timeout)


def posting_result(call: Call, result: Any) -> TransactionResult | PassbookError:  # noqa: ANN401
    """The result of a posting, of which a batch or a stream has returned this."""
    try:
        posted = call.complete(result)
    except PassbookError as error:
        return error
    return TransactionResult(Transaction.of(posted.transaction), posted.replayed)


def _account_result(call: Call, result: Any) -> Account | PassbookError:  # noqa: ANN401
    try:
        return Account.of(call.complete(result).account)
    except PassbookError as error:
        return error


def _make(
    calls: Calls,
    batch: Any,  # noqa: ANN401
    method: str,
    result_of: Callable[[Call, Any], Result],
    timeout: float | None,
) -> list[Result]:
    """Make the call of a batch, whose requests `method` takes alone. All have one deadline."""
    deadline = calls.deadline(timeout)
    whole = calls.begin_change(f"Batch{method}s", batch, deadline)
    response = whole.run()
    elements = [
        (calls.begin_change(method, request, deadline, in_doubt=whole.in_doubt), result)
        for request, result in zip(batch.requests, response.results, strict=True)
    ]
    with ThreadPoolExecutor(REPEATS_MAX) as threads:
        repeats = [
            threads.submit(result_of, call, result) if result.HasField("error") else None
            for call, result in elements
        ]
        return [
            result_of(call, result) if repeat is None else repeat.result()
            for (call, result), repeat in zip(elements, repeats, strict=True)
        ]
