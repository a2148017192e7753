"""The client: one method for each call of the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from google.protobuf.empty_pb2 import Empty
from google.protobuf.field_mask_pb2 import FieldMask

from passbook import batches, streams
from passbook.calls import Calls
from passbook.model import (
    Account,
    AccountChange,
    Balance,
    BalanceSum,
    CaptureResult,
    Condition,
    Entry,
    Events,
    Hold,
    HoldResult,
    Leg,
    Money,
    NewAccount,
    Posting,
    RequestOutcome,
    Transaction,
    TransactionResult,
    Verification,
    new_id,
    optional_condition,
    optional_money,
    optional_name,
    optional_timestamp,
    time_basis,
)
from passbook.v1 import account_service_pb2 as service
from passbook.v1 import events_pb2, history_pb2, holds_pb2, lifecycle_pb2

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from typing_extensions import Self

    from passbook.errors import PassbookError
    from passbook.servers import Tls

TIMEOUT_SECONDS = 10.0
"""The default timeout of a call."""


class Client:
    """A client of one or several Passbook servers over one ledger. All threads may share it.

    Every call raises `PassbookError`, or `ValueError` for an argument that cannot be sent, such as
    a text with half of a surrogate pair. `timeout` (seconds) bounds a call with all attempts. A
    change has a `request_id`, which stays the same in all attempts: choose it yourself and store it
    before the call, or the client makes one. `effective_time` is when a change of balances counts
    (its value date), if that is not when it is applied.
    """

    def __init__(
        self,
        servers: str | Sequence[str],
        *,
        token: str | Callable[[], str] | None = None,
        tls: Tls | None = None,
        timeout: float = TIMEOUT_SECONDS,
        share_stream: bool = True,
    ) -> None:
        """Connect to `HOST:PORT`, or to several of them in turn. Connections open on first use.

        `token` goes with every attempt as a bearer token; a function is called for each attempt, in
        a thread of its own. If the function fails, so does the call: UNAUTHENTICATED. If it takes
        longer than the call may: DEADLINE_EXCEEDED. A token without `tls` is for servers on this
        machine only.

        Changes of all threads share one stream to each server, which costs less than a call for
        each. With `share_stream=False`, each is a call of its own.
        """
        self._calls = Calls(servers, tls, token, timeout, share_stream=share_stream)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. Calls that are under way end with CANCELLED and their outcome."""
        self._calls.close()

    # Accounts

    def create_account(
        self,
        account_id: str | None = None,
        *,
        currency_code: str,
        overdraft_limit: Money | None = None,
        unlimited_overdraft: bool = False,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Account:
        """Open an account. The same call again returns the account.

        Without an `account_id`, the client makes one, and an error has it as `account_id`.
        """
        request = service.CreateAccountRequest(
            account_id=account_id or new_id(),
            currency_code=currency_code,
            overdraft_limit=optional_money(overdraft_limit),
            unlimited_overdraft=unlimited_overdraft,
            labels=labels,
        )
        response = self._calls.change("CreateAccount", request, timeout)
        return Account.of(response.account)

    def batch_create_accounts(
        self, accounts: Iterable[NewAccount], *, timeout: float | None = None
    ) -> list[Account | PassbookError]:
        """Open up to 1,000 accounts in one call. Each stands alone; results are in their order.

        An opening without a result yet, which was shed or whose deadline passed, is repeated alone.
        If the whole call fails, its error has all ids: `account_ids`.
        """
        return batches.create_accounts(self._calls, accounts, timeout)

    def get_account(self, account_id: str, *, timeout: float | None = None) -> Account:
        """Return an account as it is now."""
        request = service.GetAccountRequest(account_id=account_id)
        return Account.of(self._calls.read("GetAccount", request, timeout).account)

    def batch_get_accounts(
        self, account_ids: Iterable[str], *, timeout: float | None = None
    ) -> list[Account]:
        """Return up to 1,000 accounts from one snapshot, in the order of their ids here."""
        request = service.BatchGetAccountsRequest(account_ids=account_ids)
        response = self._calls.read("BatchGetAccounts", request, timeout)
        return [Account.of(account) for account in response.accounts]

    def list_accounts(
        self,
        *,
        account_id_prefix: str = "",
        currency_code: str = "",
        state: Literal["open", "frozen", "closed"] | None = None,
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Iterator[Account]:
        """List accounts that match all filters, in byte order of their ids, page by page."""
        request = service.ListAccountsRequest(
            account_id_prefix=account_id_prefix,
            currency_code=currency_code,
            state=optional_name("ACCOUNT_STATE_", state),
            labels=labels,
        )
        for page in self._calls.pages("ListAccounts", request, timeout):
            yield from map(Account.of, page.accounts)

    def sum_balances(
        self,
        *,
        account_id_prefix: str = "",
        currency_code: str = "",
        state: Literal["open", "frozen", "closed"] | None = None,
        labels: Mapping[str, str] | None = None,
        at_time: datetime | None = None,
        timeout: float | None = None,
    ) -> list[BalanceSum]:
        """Sum the accounts that match all filters, by currency, now or at a past time."""
        request = service.SumBalancesRequest(
            account_id_prefix=account_id_prefix,
            currency_code=currency_code,
            state=optional_name("ACCOUNT_STATE_", state),
            labels=labels,
            at_time=optional_timestamp(at_time),
        )
        response = self._calls.read("SumBalances", request, timeout)
        return [BalanceSum.of(message) for message in response.sums]

    def update_account(
        self,
        account_id: str,
        *,
        labels: Mapping[str, str] | None = None,
        overdraft_limit: Money | None = None,
        unlimited_overdraft: bool | None = None,
        expected_version: int | None = None,
        timeout: float | None = None,
    ) -> Account:
        """Change those attributes that are given. `labels` replace all labels."""
        changed = {
            "labels": labels,
            "overdraft_limit": overdraft_limit,
            "unlimited_overdraft": unlimited_overdraft,
        }
        paths = [name for name, value in changed.items() if value is not None]
        request = lifecycle_pb2.UpdateAccountRequest(
            account_id=account_id,
            update_mask=FieldMask(paths=paths),
            labels=labels,
            overdraft_limit=optional_money(overdraft_limit),
            unlimited_overdraft=unlimited_overdraft or False,
            expected_version=expected_version,
        )
        return Account.of(self._calls.update("UpdateAccount", request, timeout).account)

    def freeze_account(
        self,
        account_id: str,
        *,
        reason: str = "",
        expected_version: int | None = None,
        timeout: float | None = None,
    ) -> Account:
        """Freeze an account: money may come in, but not go out."""
        request = lifecycle_pb2.FreezeAccountRequest(
            account_id=account_id, reason=reason, expected_version=expected_version
        )
        return Account.of(self._calls.update("FreezeAccount", request, timeout).account)

    def unfreeze_account(
        self,
        account_id: str,
        *,
        reason: str = "",
        expected_version: int | None = None,
        timeout: float | None = None,
    ) -> Account:
        """Open a frozen account again."""
        request = lifecycle_pb2.UnfreezeAccountRequest(
            account_id=account_id, reason=reason, expected_version=expected_version
        )
        return Account.of(self._calls.update("UnfreezeAccount", request, timeout).account)

    def close_account(
        self,
        account_id: str,
        *,
        reason: str = "",
        expected_version: int | None = None,
        timeout: float | None = None,
    ) -> Account:
        """Close an account permanently. It must have a zero balance and no open holds."""
        request = lifecycle_pb2.CloseAccountRequest(
            account_id=account_id, reason=reason, expected_version=expected_version
        )
        return Account.of(self._calls.update("CloseAccount", request, timeout).account)

    def list_account_changes(
        self, account_id: str, *, timeout: float | None = None
    ) -> Iterator[AccountChange]:
        """List the changes of an account's state and attributes, oldest first, page by page."""
        request = lifecycle_pb2.ListAccountChangesRequest(account_id=account_id)
        for page in self._calls.pages("ListAccountChanges", request, timeout):
            yield from map(AccountChange.of, page.changes)

    # Changes of balances

    def deposit(
        self,
        account_id: str,
        amount: Money,
        *,
        request_id: str | None = None,
        description: str = "",
        labels: Mapping[str, str] | None = None,
        condition: Condition | None = None,
        validate_only: bool = False,
        effective_time: datetime | None = None,
        timeout: float | None = None,
    ) -> TransactionResult:
        """Add money to an account."""
        request = service.DepositRequest(
            request_id=request_id or new_id(),
            account_id=account_id,
            amount=amount.to_message(),
            description=description,
            labels=labels,
            condition=optional_condition(condition),
            validate_only=validate_only,
            effective_time=optional_timestamp(effective_time),
        )
        response = self._calls.change("Deposit", request, timeout)
        return TransactionResult(Transaction.of(response.transaction), response.replayed)

    def withdraw(
        self,
        account_id: str,
        amount: Money,
        *,
        request_id: str | None = None,
        description: str = "",
        labels: Mapping[str, str] | None = None,
        condition: Condition | None = None,
        validate_only: bool = False,
        force: bool = False,
        effective_time: datetime | None = None,
        timeout: float | None = None,
    ) -> TransactionResult:
        """Take money out of an account.

        With `force`, the money is taken although funds lack or the account is frozen.
        """
        request = service.WithdrawRequest(
            request_id=request_id or new_id(),
            account_id=account_id,
            amount=amount.to_message(),
            description=description,
            labels=labels,
            condition=optional_condition(condition),
            validate_only=validate_only,
            force=force,
            effective_time=optional_timestamp(effective_time),
        )
        response = self._calls.change("Withdraw", request, timeout)
        return TransactionResult(Transaction.of(response.transaction), response.replayed)

    def transfer(
        self,
        source_account_id: str,
        destination_account_id: str,
        amount: Money,
        *,
        request_id: str | None = None,
        description: str = "",
        labels: Mapping[str, str] | None = None,
        condition: Condition | None = None,
        validate_only: bool = False,
        force: bool = False,
        effective_time: datetime | None = None,
        timeout: float | None = None,
    ) -> TransactionResult:
        """Move money between two accounts. The condition and `force` are those of the source."""
        request = service.TransferRequest(
            request_id=request_id or new_id(),
            source_account_id=source_account_id,
            destination_account_id=destination_account_id,
            amount=amount.to_message(),
            description=description,
            labels=labels,
            condition=optional_condition(condition),
            validate_only=validate_only,
            force=force,
            effective_time=optional_timestamp(effective_time),
        )
        response = self._calls.change("Transfer", request, timeout)
        return TransactionResult(Transaction.of(response.transaction), response.replayed)

    def post_transaction(
        self,
        legs: Iterable[Leg],
        *,
        request_id: str | None = None,
        description: str = "",
        labels: Mapping[str, str] | None = None,
        validate_only: bool = False,
        force: bool = False,
        require_balanced: bool = False,
        effective_time: datetime | None = None,
        timeout: float | None = None,
    ) -> TransactionResult:
        """Post up to 100 legs on any accounts: all are applied or none is.

        With `require_balanced`, they must sum to zero in each currency.
        """
        request = service.PostTransactionRequest(
            request_id=request_id or new_id(),
            legs=[leg.to_message() for leg in legs],
            description=description,
            labels=labels,
            validate_only=validate_only,
            force=force,
            require_balanced=require_balanced,
            effective_time=optional_timestamp(effective_time),
        )
        response = self._calls.change("PostTransaction", request, timeout)
        return TransactionResult(Transaction.of(response.transaction), response.replayed)

    def batch_post_transactions(
        self, postings: Iterable[Posting], *, timeout: float | None = None
    ) -> list[TransactionResult | PassbookError]:
        """Post up to 1,000 postings in one call. Each stands alone; results are in their order.

        A posting without a result yet, which was shed or whose deadline passed, is repeated alone.
        If the whole call fails, its error has all ids: `request_ids`.
        """
        return batches.post_transactions(self._calls, postings, timeout)

    def stream_transactions(
        self, postings: Iterable[Posting]
    ) -> Generator[TransactionResult | PassbookError]:
        """Post postings one after another and yield their results in the same order.

        Postings are taken only as fast as results are read, at most 1,024 ahead, by another thread.
        A stream that breaks is opened again, and postings without a result are sent again under
        their ids. If no server answers for 60 seconds, the last error is raised. What the iterable
        raises, and the `ValueError` of a posting that cannot be sent, come after the results of the
        postings before.
        """
        return streams.stream_transactions(self._calls, postings)

    def reverse_transaction(
        self,
        transaction_id: str,
        amount: Money | None = None,
        *,
        request_id: str | None = None,
        description: str = "",
        labels: Mapping[str, str] | None = None,
        force: bool = False,
        effective_time: datetime | None = None,
        timeout: float | None = None,
    ) -> TransactionResult:
        """Post the opposite of a transaction: of a part, or of all that is not reversed yet."""
        request = history_pb2.ReverseTransactionRequest(
            request_id=request_id or new_id(),
            transaction_id=transaction_id,
            amount=optional_money(amount),
            description=description,
            labels=labels,
            force=force,
            effective_time=optional_timestamp(effective_time),
        )
        response = self._calls.change("ReverseTransaction", request, timeout)
        return TransactionResult(Transaction.of(response.transaction), response.replayed)

    # Holds

    def place_hold(
        self,
        account_id: str,
        amount: Money,
        *,
        hold_id: str = "",
        request_id: str | None = None,
        expire_time: datetime | None = None,
        description: str = "",
        labels: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> HoldResult:
        """Set an amount aside. Without a name (`hold_id`), the server makes one."""
        request = holds_pb2.PlaceHoldRequest(
            request_id=request_id or new_id(),
            hold_id=hold_id,
            account_id=account_id,
            amount=amount.to_message(),
            expire_time=optional_timestamp(expire_time),
            description=description,
            labels=labels,
        )
        response = self._calls.change("PlaceHold", request, timeout)
        return HoldResult(Hold.of(response.hold), response.replayed)

    def update_hold(
        self,
        hold_id: str,
        amount: Money | None = None,
        *,
        expire_time: datetime | None = None,
        never_expires: bool = False,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> HoldResult:
        """Change the amount or the expire time of a hold. What is not given stays as it is."""
        if never_expires and expire_time is not None:
            raise ValueError("a hold with an expire time expires")
        changed = {
            "amount": amount is not None,
            "expire_time": never_expires or expire_time is not None,
        }
        request = holds_pb2.UpdateHoldRequest(
            request_id=request_id or new_id(),
            hold_id=hold_id,
            update_mask=FieldMask(
                paths=[name for name, is_changed in changed.items() if is_changed]
            ),
            amount=optional_money(amount),
            expire_time=optional_timestamp(expire_time),
        )
        response = self._calls.change("UpdateHold", request, timeout)
        return HoldResult(Hold.of(response.hold), response.replayed)

    def capture_hold(
        self,
        hold_id: str,
        amount: Money | None = None,
        *,
        destination_account_id: str = "",
        keep_open: bool = False,
        allow_excess: bool = False,
        request_id: str | None = None,
        description: str = "",
        labels: Mapping[str, str] | None = None,
        effective_time: datetime | None = None,
        timeout: float | None = None,
    ) -> CaptureResult:
        """Take the money of a hold, all or part of it, and release the rest.

        With `keep_open`, the rest stays held for later captures. With `allow_excess`, the amount
        may exceed the hold, as far as the account has the excess available.
        """
        request = holds_pb2.CaptureHoldRequest(
            request_id=request_id or new_id(),
            hold_id=hold_id,
            amount=optional_money(amount),
            destination_account_id=destination_account_id,
            description=description,
            labels=labels,
            keep_open=keep_open,
            allow_excess=allow_excess,
            effective_time=optional_timestamp(effective_time),
        )
        response = self._calls.change("CaptureHold", request, timeout)
        return CaptureResult(
            Transaction.of(response.transaction), Hold.of(response.hold), response.replayed
        )

    def release_hold(
        self, hold_id: str, *, request_id: str | None = None, timeout: float | None = None
    ) -> HoldResult:
        """Give up a hold."""
        request = holds_pb2.ReleaseHoldRequest(request_id=request_id or new_id(), hold_id=hold_id)
        response = self._calls.change("ReleaseHold", request, timeout)
        return HoldResult(Hold.of(response.hold), response.replayed)

    def get_hold(self, hold_id: str, *, timeout: float | None = None) -> Hold:
        """Return a hold as it is now."""
        request = holds_pb2.GetHoldRequest(hold_id=hold_id)
        return Hold.of(self._calls.read("GetHold", request, timeout).hold)

    def list_holds(
        self,
        account_id: str,
        *,
        state: Literal["open", "captured", "released", "expired"] | None = None,
        timeout: float | None = None,
    ) -> Iterator[Hold]:
        """List the holds of an account, in byte order of their ids, page by page."""
        request = holds_pb2.ListHoldsRequest(
            account_id=account_id, state=optional_name("HOLD_STATE_", state)
        )
        for page in self._calls.pages("ListHolds", request, timeout):
            yield from map(Hold.of, page.holds)

    # The past

    def get_transaction(
        self,
        transaction_id: str | None = None,
        *,
        request_id: str | None = None,
        timeout: float | None = None,
    ) -> Transaction:
        """Return a transaction by its id, or by the id of its request."""
        if (transaction_id is None) == (request_id is None):
            raise ValueError("give the id of the transaction, or that of the request")
        request = service.GetTransactionRequest(
            transaction_id=transaction_id, request_id=request_id
        )
        return Transaction.of(self._calls.read("GetTransaction", request, timeout).transaction)

    def list_transactions(
        self,
        *,
        account_id: str = "",
        kind: Literal["deposit", "withdrawal", "transfer", "posting", "capture", "reversal"]
        | None = None,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        labels: Mapping[str, str] | None = None,
        by_effective_time: bool = False,
        timeout: float | None = None,
    ) -> Iterator[Transaction]:
        """List transactions that match all filters, latest first, page by page.

        With `by_effective_time`, they are selected and sorted by the times at which they take
        effect. This needs an `account_id`.
        """
        request = history_pb2.ListTransactionsRequest(
            account_id=account_id,
            kind=optional_name("TRANSACTION_KIND_", kind),
            start_time=optional_timestamp(start_time),
            end_time=optional_timestamp(end_time),
            labels=labels,
            time_basis=time_basis(by_effective_time=by_effective_time),
        )
        for page in self._calls.pages("ListTransactions", request, timeout):
            yield from map(Transaction.of, page.transactions)

    def list_entries(
        self,
        account_id: str,
        *,
        after_sequence: int = 0,
        start_time: datetime | None = None,
        end_time: datetime | None = None,
        descending: bool = False,
        by_effective_time: bool = False,
        timeout: float | None = None,
    ) -> Iterator[Entry]:
        """List the statement of an account, oldest first, page by page.

        With `by_effective_time`, entries are selected and sorted by the times at which they take
        effect.
        """
        request = service.ListEntriesRequest(
            account_id=account_id,
            after_sequence=after_sequence,
            start_time=optional_timestamp(start_time),
            end_time=optional_timestamp(end_time),
            time_basis=time_basis(by_effective_time=by_effective_time),
        )
        if descending:
            request.order = service.ENTRY_ORDER_DESCENDING
        for page in self._calls.pages("ListEntries", request, timeout):
            yield from map(Entry.of, page.entries)

    def get_balance(
        self,
        account_id: str,
        *,
        at_time: datetime | None = None,
        by_effective_time: bool = False,
        timeout: float | None = None,
    ) -> Balance:
        """Return the balance of an account at a time, or now.

        With `by_effective_time`, it is the sum of all entries that take effect at this time or
        before.
        """
        request = history_pb2.GetBalanceRequest(
            account_id=account_id,
            at_time=optional_timestamp(at_time),
            time_basis=time_basis(by_effective_time=by_effective_time),
        )
        response = self._calls.read("GetBalance", request, timeout)
        return Balance(Money.of(response.balance), response.sequence)

    def watch_entries(self, account_id: str, *, after_sequence: int = 0) -> Generator[Entry]:
        """Yield the entries of an account: first those that exist, then each new one.

        They come in order and without a gap. A watch that breaks continues by itself after the last
        entry. It has no end of its own: stop reading, and close the iterator. It raises final
        errors, and the last error if no server answers for 60 seconds.
        """
        return streams.watch_entries(self._calls, account_id, after_sequence)

    def watch_events(
        self,
        *,
        from_beginning: bool = False,
        from_now: bool = False,
        after_token: str | None = None,
        account_id_prefixes: Iterable[str] = (),
        kinds: Iterable[str] = (),
        currency_code: str = "",
        labels: Mapping[str, str] | None = None,
    ) -> Generator[Events]:
        """Yield everything that happens and matches all filters, with the token behind it.

        Name one start. Each event comes once, and those of an account come in order. `Events`
        without an event are a heartbeat. Store the token together with what the events cause, and
        start again after that token: then each event counts once, whatever breaks. A watch from now
        begins with its first heartbeat, which comes at once with the token of that moment. To read
        only what there is, stop after the first `Events` that have `caught_up`.

        A watch that breaks continues by itself after the last token. It has no end of its own: stop
        reading, and close the iterator. It raises final errors, and the last error if no server
        answers for 60 seconds.
        """
        if [from_beginning, from_now, after_token is not None].count(True) != 1:
            raise ValueError("give one of from_beginning, from_now and after_token")
        request = events_pb2.WatchEventsRequest(
            account_id_prefixes=account_id_prefixes,
            kinds=[f"EVENT_KIND_{kind.upper()}" for kind in kinds],
            currency_code=currency_code,
            labels=labels,
            from_beginning=Empty() if from_beginning else None,
            from_now=Empty() if from_now else None,
            after_token=after_token,
        )
        return streams.watch_events(self._calls, request)

    # Requests

    def get_request_outcome(
        self, request_id: str, *, timeout: float | None = None
    ) -> RequestOutcome:
        """Return what became of a request until now, without applying it."""
        request = history_pb2.GetRequestOutcomeRequest(request_id=request_id)
        response = self._calls.read("GetRequestOutcome", request, timeout)
        return RequestOutcome.of(request_id, response)

    def fence_request(self, request_id: str, *, timeout: float | None = None) -> RequestOutcome:
        """Make sure that a request without a result is never applied; return what became of it."""
        request = history_pb2.FenceRequestRequest(request_id=request_id)
        response = self._calls.change("FenceRequest", request, timeout)
        return RequestOutcome.of(request_id, response)

    def verify_account(self, account_id: str, *, timeout: float | None = None) -> Verification:
        """Recompute an account from all of its entries. Set the timeout to match their number."""
        request = history_pb2.VerifyAccountRequest(account_id=account_id)
        return Verification.of(self._calls.read("VerifyAccount", request, timeout))
