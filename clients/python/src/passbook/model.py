"""The values that calls take and return. All are immutable."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp

from passbook.errors import PassbookError
from passbook.v1 import account_service_pb2 as service
from passbook.v1 import events_pb2, history_pb2, holds_pb2, lifecycle_pb2, resources_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

Labels = dict[str, str]


def new_id() -> str:
    """An id for a request or an account."""
    return str(uuid.uuid4())


@dataclass(frozen=True, slots=True)
class Money:
    """An exact amount of one currency: `Money("100.00", "USD")`."""

    value: Decimal
    currency_code: str

    def __init__(self, value: Decimal | str | int, currency_code: str) -> None:
        if isinstance(value, float):
            raise TypeError(f"an amount is a Decimal, a str or an int, not the float {value}")
        decimal = Decimal(value)
        if not decimal.is_finite():
            raise ValueError(f"{value} is not an amount")
        object.__setattr__(self, "value", decimal)
        object.__setattr__(self, "currency_code", currency_code)

    def __str__(self) -> str:
        return f"{self.value:f} {self.currency_code}"

    def to_message(self) -> resources_pb2.Money:
        """The amount in the contract's form, without zeros at the end of its decimals."""
        value = f"{self.value:f}"
        if "." in value:
            value = value.rstrip("0").rstrip(".")
        return resources_pb2.Money(currency_code=self.currency_code, value=value)

    @classmethod
    def of(cls, message: resources_pb2.Money) -> Money:
        """The amount of a message."""
        return cls(message.value, message.currency_code)


def optional_money(money: Money | None) -> resources_pb2.Money | None:
    """The message of an amount that may be absent."""
    return None if money is None else money.to_message()


def optional_timestamp(time: datetime | None) -> Timestamp | None:
    """The message of a time that may be absent. A time without a zone is an error."""
    if time is None:
        return None
    if time.tzinfo is None:
        raise ValueError(f"{time} has no time zone")
    message = Timestamp()
    message.FromDatetime(time)
    return message


def optional_name(prefix: str, name: str | None) -> str | None:
    """The value of an enum that may be absent, by the name that this package gives it."""
    return None if name is None else f"{prefix}{name.upper()}"


def time_basis(*, by_effective_time: bool) -> resources_pb2.TimeBasis:
    """The time by which a query selects and sorts."""
    if by_effective_time:
        return resources_pb2.TIME_BASIS_EFFECTIVE_TIME
    return resources_pb2.TIME_BASIS_UNSPECIFIED


def _time(message: Timestamp) -> datetime:
    return message.ToDatetime(tzinfo=timezone.utc)


def _name(enum: EnumTypeWrapper, number: int, prefix: str) -> str:
    """The name of a value, or its number as text if it is newer than this client."""
    if number not in enum.values():
        return str(number)
    return enum.Name(number).removeprefix(prefix).lower()


@dataclass(frozen=True, slots=True)
class Condition:
    """What must be true of an account for a request to be applied. Only what is set is checked."""

    expected_version: int | None = None
    """The account's version before the change."""
    min_balance_after: Money | None = None
    max_balance_after: Money | None = None

    def to_message(self) -> resources_pb2.Condition:
        """The condition in the contract's form."""
        return resources_pb2.Condition(
            expected_version=self.expected_version,
            min_balance_after=optional_money(self.min_balance_after),
            max_balance_after=optional_money(self.max_balance_after),
        )


def optional_condition(condition: Condition | None) -> resources_pb2.Condition | None:
    """The message of a condition that may be absent."""
    return None if condition is None else condition.to_message()


@dataclass(frozen=True, slots=True)
class Leg:
    """One element of a posting: an account, and a signed amount that it receives."""

    account_id: str
    amount: Money
    condition: Condition | None = None

    def to_message(self) -> service.Leg:
        """The leg in the contract's form."""
        return service.Leg(
            account_id=self.account_id,
            amount=self.amount.to_message(),
            condition=optional_condition(self.condition),
        )


@dataclass(frozen=True, slots=True)
class Posting:
    """A request of one or more legs: all are applied or none is."""

    legs: tuple[Leg, ...] | list[Leg]
    request_id: str = field(default_factory=new_id)
    description: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    validate_only: bool = False
    force: bool = False
    effective_time: datetime | None = None
    """When it counts, if that is not when it is applied."""
    require_balanced: bool = False
    """Reject it with UNBALANCED unless the amounts sum to zero in each currency."""

    def __post_init__(self) -> None:
        if not self.request_id:
            object.__setattr__(self, "request_id", new_id())

    def to_message(self) -> service.PostTransactionRequest:
        """The posting in the contract's form."""
        return service.PostTransactionRequest(
            request_id=self.request_id,
            legs=[leg.to_message() for leg in self.legs],
            description=self.description,
            labels=self.labels,
            validate_only=self.validate_only,
            force=self.force,
            effective_time=optional_timestamp(self.effective_time),
            require_balanced=self.require_balanced,
        )


@dataclass(frozen=True, slots=True)
class NewAccount:
    """An account to open."""

    currency_code: str
    account_id: str = field(default_factory=new_id)
    overdraft_limit: Money | None = None
    unlimited_overdraft: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The server would make an id in each attempt, and a repeat would open a second account.
        if not self.account_id:
            object.__setattr__(self, "account_id", new_id())

    def to_message(self) -> service.CreateAccountRequest:
        """The request that opens the account."""
        return service.CreateAccountRequest(
            account_id=self.account_id,
            currency_code=self.currency_code,
            overdraft_limit=optional_money(self.overdraft_limit),
            unlimited_overdraft=self.unlimited_overdraft,
            labels=self.labels,
        )


@dataclass(frozen=True, slots=True)
class Account:
    """One account. docs/glossary.md defines the terms."""

    account_id: str
    currency_code: str
    balance: Money
    held: Money
    available: Money
    overdraft_limit: Money
    unlimited_overdraft: bool
    state: str
    """`open`, `frozen` or `closed`."""
    sequence: int
    version: int
    labels: Labels
    create_time: datetime
    update_time: datetime
    created_by: str

    @classmethod
    def of(cls, message: resources_pb2.Account) -> Account:
        """The account of a message."""
        return cls(
            account_id=message.account_id,
            currency_code=message.currency_code,
            balance=Money.of(message.balance),
            held=Money.of(message.held),
            available=Money.of(message.available),
            overdraft_limit=Money.of(message.overdraft_limit),
            unlimited_overdraft=message.unlimited_overdraft,
            state=_name(resources_pb2.AccountState, message.state, "ACCOUNT_STATE_"),
            sequence=message.sequence,
            version=message.version,
            labels=dict(message.labels),
            create_time=_time(message.create_time),
            update_time=_time(message.update_time),
            created_by=message.created_by,
        )


@dataclass(frozen=True, slots=True)
class AccountAttributes:
    """The attributes of an account that can be changed."""

    state: str
    overdraft_limit: Money
    unlimited_overdraft: bool
    labels: Labels

    @classmethod
    def of(cls, message: lifecycle_pb2.AccountAttributes) -> AccountAttributes:
        """The attributes of a message."""
        return cls(
            state=_name(resources_pb2.AccountState, message.state, "ACCOUNT_STATE_"),
            overdraft_limit=Money.of(message.overdraft_limit),
            unlimited_overdraft=message.unlimited_overdraft,
            labels=dict(message.labels),
        )


@dataclass(frozen=True, slots=True)
class AccountChange:
    """One change of an account's state or attributes."""

    account_id: str
    version: int
    kind: str
    """`updated`, `frozen`, `unfrozen` or `closed`."""
    reason: str
    before: AccountAttributes
    after: AccountAttributes
    create_time: datetime
    created_by: str

    @classmethod
    def of(cls, message: lifecycle_pb2.AccountChange) -> AccountChange:
        """The change of a message."""
        return cls(
            account_id=message.account_id,
            version=message.version,
            kind=_name(lifecycle_pb2.AccountChangeKind, message.kind, "ACCOUNT_CHANGE_KIND_"),
            reason=message.reason,
            before=AccountAttributes.of(message.before),
            after=AccountAttributes.of(message.after),
            create_time=_time(message.create_time),
            created_by=message.created_by,
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of an account's statement."""

    account_id: str
    sequence: int
    transaction_id: str
    amount: Money
    balance_after: Money
    create_time: datetime | None
    """None in a dry run."""
    effective_time: datetime | None
    """When it counts, if that is not its `create_time`."""
    hash: bytes

    @classmethod
    def of(cls, message: resources_pb2.Entry) -> Entry:
        """The entry of a message."""
        return cls(
            account_id=message.account_id,
            sequence=message.sequence,
            transaction_id=message.transaction_id,
            amount=Money.of(message.amount),
            balance_after=Money.of(message.balance_after),
            create_time=_time(message.create_time) if message.HasField("create_time") else None,
            effective_time=(
                _time(message.effective_time) if message.HasField("effective_time") else None
            ),
            hash=message.hash,
        )


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one applied request did to balances."""

    transaction_id: str
    """Empty in a dry run."""
    request_id: str
    kind: str
    """`deposit`, `withdrawal`, `transfer`, `posting`, `capture` or `reversal`."""
    entries: tuple[Entry, ...]
    description: str
    labels: Labels
    create_time: datetime | None
    """None in a dry run."""
    reverses_transaction_id: str
    reversed_by_transaction_id: str
    """Of the latest reversal of all or a part of this transaction."""
    reversed_amount: Money | None
    """The sum of the reversals, if only a part was reversed."""
    created_by: str
    forced: bool
    effective_time: datetime | None
    """When it counts, if that is not its `create_time`."""

    @classmethod
    def of(cls, message: resources_pb2.Transaction) -> Transaction:
        """The transaction of a message."""
        has_reversed = message.HasField("reversed_amount")
        return cls(
            transaction_id=message.transaction_id,
            request_id=message.request_id,
            kind=_name(resources_pb2.TransactionKind, message.kind, "TRANSACTION_KIND_"),
            entries=tuple(Entry.of(entry) for entry in message.entries),
            description=message.description,
            labels=dict(message.labels),
            create_time=_time(message.create_time) if message.HasField("create_time") else None,
            reverses_transaction_id=message.reverses_transaction_id,
            reversed_by_transaction_id=message.reversed_by_transaction_id,
            reversed_amount=Money.of(message.reversed_amount) if has_reversed else None,
            created_by=message.created_by,
            forced=message.forced,
            effective_time=(
                _time(message.effective_time) if message.HasField("effective_time") else None
            ),
        )


@dataclass(frozen=True, slots=True)
class Hold:
    """An amount that is set aside on an account."""

    hold_id: str
    account_id: str
    amount: Money
    state: str
    """`open`, `captured`, `released` or `expired`."""
    expire_time: datetime | None
    captured_amount: Money | None
    transaction_id: str
    """Of the latest capture."""
    description: str
    labels: Labels
    create_time: datetime
    update_time: datetime
    request_id: str
    created_by: str
    ended_by: str

    @classmethod
    def of(cls, message: holds_pb2.Hold) -> Hold:
        """The hold of a message."""
        has_captured = message.HasField("captured_amount")
        return cls(
            hold_id=message.hold_id,
            account_id=message.account_id,
            amount=Money.of(message.amount),
            state=_name(holds_pb2.HoldState, message.state, "HOLD_STATE_"),
            expire_time=_time(message.expire_time) if message.HasField("expire_time") else None,
            captured_amount=Money.of(message.captured_amount) if has_captured else None,
            transaction_id=message.transaction_id,
            description=message.description,
            labels=dict(message.labels),
            create_time=_time(message.create_time),
            update_time=_time(message.update_time),
            request_id=message.request_id,
            created_by=message.created_by,
            ended_by=message.ended_by,
        )


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the ledger, with what it concerns as that was right after it."""

    kind: str
    """Such as `transaction`, `hold_placed` or `account_opened`: the enum `EventKind`."""
    transaction: Transaction | None
    hold: Hold | None
    account: Account | None
    account_change: AccountChange | None

    @classmethod
    def of(cls, message: events_pb2.Event) -> Event:
        """The event of a message."""
        has = message.HasField
        return cls(
            kind=_name(events_pb2.EventKind, message.kind, "EVENT_KIND_"),
            transaction=Transaction.of(message.transaction) if has("transaction") else None,
            hold=Hold.of(message.hold) if has("hold") else None,
            account=Account.of(message.account) if has("account") else None,
            account_change=(
                AccountChange.of(message.account_change) if has("account_change") else None
            ),
        )


@dataclass(frozen=True, slots=True)
class Events:
    """The next events of a watch. Without an event: a heartbeat."""

    events: tuple[Event, ...]
    token: str
    """The position behind these events: start again after it."""
    delayed_since: datetime | None
    """Since when the watch waits for a server that hangs in a database transaction."""
    caught_up: bool
    """Whether all events that match and were committed when the stream began have come. After a
    broken connection, the next stream says it anew."""

    @classmethod
    def of(cls, message: events_pb2.WatchEventsResponse) -> Events:
        """The events of a message."""
        is_delayed = message.HasField("delayed_since")
        return cls(
            events=tuple(Event.of(event) for event in message.events),
            token=message.token,
            delayed_since=_time(message.delayed_since) if is_delayed else None,
            caught_up=message.caught_up,
        )


@dataclass(frozen=True, slots=True)
class TransactionResult:
    """The result of a request that was applied."""

    transaction: Transaction
    replayed: bool
    """Whether the result was stored before under this request id."""


@dataclass(frozen=True, slots=True)
class HoldResult:
    """The result of placing, updating or releasing a hold."""

    hold: Hold
    replayed: bool


@dataclass(frozen=True, slots=True)
class CaptureResult:
    """The result of capturing a hold."""

    transaction: Transaction
    hold: Hold
    replayed: bool


@dataclass(frozen=True, slots=True)
class Balance:
    """The balance of an account at a time."""

    balance: Money
    sequence: int
    """The sequence of the latest entry in the balance."""


@dataclass(frozen=True, slots=True)
class BalanceSum:
    """The sum of all accounts of one currency that match."""

    currency_code: str
    account_count: int
    balance: Money
    held: Money | None
    """None in a sum of a past time."""
    available: Money | None
    """None in a sum of a past time."""

    @classmethod
    def of(cls, message: service.BalanceSum) -> BalanceSum:
        """The sum of a message."""
        return cls(
            currency_code=message.currency_code,
            account_count=message.account_count,
            balance=Money.of(message.balance),
            held=Money.of(message.held) if message.HasField("held") else None,
            available=Money.of(message.available) if message.HasField("available") else None,
        )


@dataclass(frozen=True, slots=True)
class RequestOutcome:
    """What became of a request."""

    outcome: str
    """`applied`, `rejected` or `not_seen`."""
    transaction: Transaction | None
    hold: Hold | None
    error: PassbookError | None
    """The rejection, as the caller got it."""
    fenced: bool
    """Whether no request with this id is ever applied. If the outcome is `not_seen` and this is
    False, the request can still be on its way."""

    @classmethod
    def of(
        cls,
        request_id: str,
        message: history_pb2.GetRequestOutcomeResponse | history_pb2.FenceRequestResponse,
    ) -> RequestOutcome:
        """The outcome of a message."""
        error = None
        if message.HasField("error"):
            error = PassbookError.of_status(message.error)
            error.request_id = request_id
        has_transaction, has_hold = message.HasField("transaction"), message.HasField("hold")
        return cls(
            outcome=_name(history_pb2.RequestOutcome, message.outcome, "REQUEST_OUTCOME_"),
            transaction=Transaction.of(message.transaction) if has_transaction else None,
            hold=Hold.of(message.hold) if has_hold else None,
            error=error,
            fenced=message.fenced,
        )


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in the stored data."""

    account_id: str
    sequence: int
    """Of the wrong entry. 0: the account itself is wrong."""
    kind: str
    """Such as `wrong_sum`: the enum `VerificationFaultKind`."""
    description: str


@dataclass(frozen=True, slots=True)
class Verification:
    """An account, recomputed from its entries."""

    valid: bool
    entries_verified: int
    fault: Fault | None
    """The first fault."""

    @classmethod
    def of(cls, message: history_pb2.VerifyAccountResponse) -> Verification:
        """The verification of a message."""
        fault = None
        if message.HasField("fault"):
            kinds = history_pb2.VerificationFaultKind
            fault = Fault(
                account_id=message.fault.account_id,
                sequence=message.fault.sequence,
                kind=_name(kinds, message.fault.kind, "VERIFICATION_FAULT_KIND_"),
                description=message.fault.description,
            )
        return cls(message.valid, message.entries_verified, fault)
