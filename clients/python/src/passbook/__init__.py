"""The client of Passbook, a gRPC account service: exact amounts, exactly once.

>>> from passbook import Client, Money
>>> with Client("127.0.0.1:50051") as client:
...     client.create_account("joint", currency_code="USD")
...     client.deposit("joint", Money("1000.00", "USD"), request_id="salary-2026-11")
"""

from passbook.client import Client
from passbook.errors import PassbookError
from passbook.model import (
    Account,
    AccountAttributes,
    AccountChange,
    Balance,
    BalanceSum,
    CaptureResult,
    Condition,
    Entry,
    Event,
    Events,
    Fault,
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
)
from passbook.servers import Tls

__all__ = [
    "Account",
    "AccountAttributes",
    "AccountChange",
    "Balance",
    "BalanceSum",
    "CaptureResult",
    "Client",
    "Condition",
    "Entry",
    "Event",
    "Events",
    "Fault",
    "Hold",
    "HoldResult",
    "Leg",
    "Money",
    "NewAccount",
    "PassbookError",
    "Posting",
    "RequestOutcome",
    "Tls",
    "Transaction",
    "TransactionResult",
    "Verification",
]
