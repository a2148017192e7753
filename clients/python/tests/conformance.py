"""The conformance story of clients/CONFORMANCE.md. The numbers are those of its steps."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from itertools import islice
from typing import TYPE_CHECKING

import grpc
from processes import ServerProcess

from passbook import (
    Client,
    Entry,
    Event,
    Events,
    Leg,
    Money,
    NewAccount,
    PassbookError,
    Posting,
    TransactionResult,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

CALLERS = 16
PAYMENTS = 1000
STREAMED = 500


def usd(value: str | Decimal) -> Money:
    return Money(value, "USD")


def eur(value: str) -> Money:
    return Money(value, "EUR")


def check(what: str, actual: object, expected: object) -> None:
    if actual != expected:
        raise AssertionError(f"{what}: {actual!r:.500}, and not {expected!r:.500}")


def error_of(call: Callable[[], object]) -> PassbookError:
    try:
        result = call()
    except PassbookError as error:
        return error
    raise AssertionError(f"applied, and not an error: {result}")


class Story:
    """What the steps share."""

    def __init__(self, a: ServerProcess, b: ServerProcess, stack: ExitStack) -> None:
        self.a, self.b = a, b
        self.client = stack.enter_context(Client([a.address, b.address]))
        self.only_a = stack.enter_context(Client(a.address))
        self.only_b = stack.enter_context(Client(b.address))
        self.joint = Decimal("875.00")
        self.request_ids: Counter[str] = Counter()
        self.watched: list[Entry] = []
        self.events: list[Event] = []
        self.middle: tuple[int, str] | None = None

    def open(self, account_id: str) -> None:
        self.client.create_account(account_id, currency_code="USD")

    def balance(self, account_id: str) -> Decimal:
        return self.client.get_account(account_id).balance.value

    def joint_account(self) -> None:
        self.open("joint")
        self.client.deposit("joint", usd("1000.00"))
        with ThreadPoolExecutor() as threads:
            running = [
                threads.submit(
                    lambda: [self.only_a.deposit("joint", usd("100.00")) for _ in range(10)]
                ),
                threads.submit(
                    lambda: [self.only_b.withdraw("joint", usd("100.00")) for _ in range(10)]
                ),
            ]
        for side in running:
            side.result()
        account = self.client.get_account("joint")
        check("balance", (account.balance, account.sequence), (usd("1000.00"), 21))

    def exact_amounts(self) -> None:
        self.open("vault")
        for amount in ("12345678901234567890123.45", "0.10", "0.20"):
            self.client.deposit("vault", usd(amount))
        check("balance", self.balance("vault"), Decimal("12345678901234567890123.75"))

    def rejection(self) -> None:
        def rent() -> TransactionResult:
            return self.client.withdraw("joint", usd("1000.01"), request_id="rent")

        error = error_of(rent)
        check("code", error.code, grpc.StatusCode.FAILED_PRECONDITION)
        check("reason", error.reason, "INSUFFICIENT_FUNDS")
        check("outcome and id", (error.outcome, error.request_id), (None, "rent"))
        check("available", error.metadata["available"], "1000.00")
        check("required", error.metadata["required"], "1000.01")
        self.client.deposit("joint", usd("50.00"))
        error = error_of(rent)
        check("reason", error.reason, "INSUFFICIENT_FUNDS")
        check("available", error.metadata["available"], "1000.00")
        self.client.withdraw("joint", usd("50.00"))

    def replay(self) -> None:
        day_ago = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(days=1)

        def bonus(amount: str) -> TransactionResult:
            return self.client.deposit(
                "joint", usd(amount), request_id="bonus", effective_time=day_ago
            )

        first, again = bonus("25.00"), bonus("25.00")
        check("replayed", (first.replayed, again.replayed), (False, True))
        check("id", again.transaction.transaction_id, first.transaction.transaction_id)
        check("effective time", first.transaction.entries[0].effective_time, day_ago)
        error = error_of(lambda: bonus("26.00"))
        check("reason", error.reason, "REQUEST_ID_REUSED")
        check("balance", self.balance("joint"), Decimal("1025.00"))

    def hold(self) -> None:
        self.open("shop")
        self.client.place_hold("joint", usd("100.00"), hold_id="trip")
        self.client.update_hold("trip", usd("200.00"))
        check("available", self.client.get_account("joint").available, usd("825.00"))
        captured = self.client.capture_hold(
            "trip", usd("100.00"), destination_account_id="shop", keep_open=True
        )
        check("state", captured.hold.state, "open")
        check("available", self.client.get_account("joint").available, usd("825.00"))
        captured = self.client.capture_hold("trip", usd("50.00"), destination_account_id="shop")
        check("state", captured.hold.state, "captured")
        check("captured", captured.hold.captured_amount, usd("150.00"))
        error = error_of(lambda: self.client.release_hold("trip"))
        check("error", (error.reason, error.metadata["state"]), ("HOLD_NOT_OPEN", "captured"))
        account = self.client.get_account("joint")
        check("joint", (account.balance, account.available), (usd("875.00"), usd("875.00")))
        check("shop", self.balance("shop"), Decimal("150.00"))

    def many_accounts(self) -> None:
        pools = [f"pool-{number}" for number in range(1, 101)]
        accounts = [NewAccount("EUR", account_id) for account_id in [*pools, "joint"]]
        *opened, exists = self.client.batch_create_accounts(accounts)
        check("accounts", [getattr(result, "account_id", result) for result in opened], pools)
        check("error", getattr(exists, "reason", exists), "ACCOUNT_EXISTS")
        self.client.deposit("pool-1", eur("10.00"))
        transaction = self.client.withdraw("pool-1", eur("25.00"), force=True).transaction
        check("forced", transaction.forced, True)
        check("balance", transaction.entries[0].balance_after, eur("-15.00"))
        self.client.reverse_transaction(transaction.transaction_id, eur("5.00"))
        listed = self.client.list_accounts(account_id_prefix="pool-")
        check("listed", [account.account_id for account in listed], sorted(pools))
        sums = self.client.sum_balances(account_id_prefix="pool-")
        check("sums", [(it.account_count, it.balance) for it in sums], [(100, eur("-10.00"))])
        before = self.client.get_account("pool-1").create_time - timedelta(days=1)
        sums = self.client.sum_balances(account_id_prefix="pool-", at_time=before)
        check("sums a day before", sums, [])

    def deadline(self) -> None:
        self.a.pause()
        self.b.pause()
        try:
            error = error_of(lambda: self.client.deposit("joint", usd("10.00"), timeout=0.3))
        finally:
            self.a.resume()
            self.b.resume()
        check("code", error.code, grpc.StatusCode.DEADLINE_EXCEEDED)
        check("outcome", error.outcome, "unknown")
        if error.request_id is None:
            raise AssertionError("the error has no request id")
        request_id = error.request_id
        fence = self.client.fence_request(request_id)
        if fence.outcome == "applied":
            self.joint += 10
            check(
                "replayed",
                self.client.deposit("joint", usd("10.00"), request_id=request_id).replayed,
                True,
            )
        else:
            check("fence", (fence.outcome, fence.fenced), ("not_seen", True))
            error = error_of(
                lambda: self.client.deposit("joint", usd("10.00"), request_id=request_id)
            )
            check("reason", error.reason, "REQUEST_FENCED")
        check("outcome", self.client.get_request_outcome(request_id).outcome, fence.outcome)
        check("joint", self.balance("joint"), self.joint)

    def payments(self) -> None:
        self.open("wallet")
        self.client.deposit("wallet", usd("10000.00"))
        self.open("till")
        threads = ThreadPoolExecutor(2)
        self.watching = [threads.submit(self.watch), threads.submit(self.watch_events)]
        done = threading.Semaphore(0)

        def pay(cents: int) -> None:
            amount = usd(Decimal(cents).scaleb(-2))
            request_id = f"pay-{cents}" if cents % 2 == 0 else None
            timeout = 0.01 if cents % 50 == 0 else None
            try:
                paid = self.client.transfer(
                    "wallet", "till", amount, request_id=request_id, timeout=timeout
                )
            except PassbookError as error:
                if error.outcome is None or timeout is None:
                    raise
                paid = self.client.transfer("wallet", "till", amount, request_id=error.request_id)
            self.request_ids[paid.transaction.request_id] += 1
            done.release()

        with ThreadPoolExecutor(CALLERS) as callers:
            running = [callers.submit(pay, cents) for cents in range(1, PAYMENTS + 1)]
            for kills in range(9):
                for _ in range(100):
                    if not done.acquire(timeout=60):
                        break
                (self.a, self.b)[kills % 2].restart()
        for payment in running:
            payment.result()

    def watch(self) -> None:
        with closing(self.client.watch_entries("till")) as entries:
            self.watched.extend(islice(entries, PAYMENTS + STREAMED - 1))

    def watch_events(self) -> None:
        last = PAYMENTS + STREAMED - 1
        with closing(self.events_of_till(from_beginning=True)) as watch:
            for message in watch:
                self.events.extend(message.events)
                if self.middle is None and len(self.events) >= PAYMENTS // 2:
                    self.middle = (len(self.events), message.token)
                if len(self.events) >= last:
                    break
        if self.middle is None:
            raise AssertionError("the events have no middle")
        first, token = self.middle
        again: list[Event] = []
        with closing(self.events_of_till(after_token=token)) as watch:
            for message in watch:
                again.extend(message.events)
                if message.caught_up:
                    break
        check("events after the token", again, self.events[first:])

    def events_of_till(
        self, *, from_beginning: bool = False, after_token: str | None = None
    ) -> Generator[Events]:
        return self.client.watch_events(
            from_beginning=from_beginning,
            after_token=after_token,
            account_id_prefixes=["till"],
            kinds=["transaction"],
        )

    def stream(self) -> None:
        def postings() -> Iterator[Posting]:
            for n in range(1, STREAMED + 1):
                to = "nobody" if n == 250 else "till"
                legs = [Leg("wallet", usd("-0.01")), Leg(to, usd("0.01"))]
                yield Posting(legs, request_id=f"stream-{n}")

        results = 0
        for results, result in enumerate(self.only_a.stream_transactions(postings()), start=1):
            if isinstance(result, PassbookError):
                check(
                    "error", (result.request_id, result.reason), ("stream-250", "ACCOUNT_NOT_FOUND")
                )
            else:
                check("order", result.transaction.request_id, f"stream-{results}")
                self.request_ids[result.transaction.request_id] += 1
            if results == 200:
                self.a.restart()
        check("results", results, STREAMED)

    def watches_are_complete(self) -> None:
        for watching in self.watching:
            watching.result(timeout=60)
        sequences = [entry.sequence for entry in self.watched]
        check("sequences", sequences, list(range(1, PAYMENTS + STREAMED)))
        transactions = [event.transaction for event in self.events]
        of_events = [entry for it in transactions if it for entry in it.entries]
        of_till = [entry for entry in of_events if entry.account_id == "till"]
        check("entries of the events", of_till, self.watched)

    def end(self) -> None:
        entries = list(self.client.list_entries("till"))
        check("entries", entries, self.watched)
        request_ids = Counter(
            transaction.request_id
            for transaction in self.client.list_transactions(account_id="till")
        )
        check("request ids", request_ids, self.request_ids)
        check("each once", set(request_ids.values()), {1})
        expected = {f"pay-{cents}" for cents in range(2, PAYMENTS + 1, 2)}
        expected |= {f"stream-{n}" for n in range(1, STREAMED + 1) if n != 250}
        check("missing ids", expected - request_ids.keys(), set())
        check("number of payments", request_ids.total(), PAYMENTS + STREAMED - 1)
        for account_id, balance in {
            "till": Decimal("5009.99"),
            "wallet": Decimal("4990.01"),
            "shop": Decimal("150.00"),
            "joint": self.joint,
            "vault": Decimal("12345678901234567890123.75"),
        }.items():
            check(account_id, self.balance(account_id), balance)
            verification = self.client.verify_account(account_id)
            check(f"fault of {account_id}", verification.fault, None)

    def steps(self) -> list[tuple[str, Callable[[], None]]]:
        return [
            ("the joint account", self.joint_account),
            ("exact amounts", self.exact_amounts),
            ("a rejection", self.rejection),
            ("a replay", self.replay),
            ("a hold", self.hold),
            ("many accounts", self.many_accounts),
            ("a deadline", self.deadline),
            ("a thousand payments", self.payments),
            ("a stream", self.stream),
            ("the watches", self.watches_are_complete),
            ("the end", self.end),
        ]


def main() -> None:
    with ExitStack() as stack:
        servers = []
        for _ in range(2):
            servers.append(ServerProcess())
            stack.callback(servers[-1].kill)
        story = Story(servers[0], servers[1], stack)
        for number, (name, step) in enumerate(story.steps(), start=1):
            step()
            print(f"{number}. {name}: passed", flush=True)


if __name__ == "__main__":
    main()
