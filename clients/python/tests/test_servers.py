"""Connections that are slow, and servers that hang."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from fake_server import FakeServer, deposit
from proxy import Proxy

from passbook import Client, Money, PassbookError, servers

if TYPE_CHECKING:
    import pytest

CENT = Money("0.01", "USD")


def test_a_connection_may_take_seconds() -> None:
    with (
        FakeServer(Deposit=deposit) as server,
        Proxy(server.address) as proxy,
        Client(proxy.address, share_stream=False) as client,
    ):
        proxy.delay = 2.0
        assert client.deposit("joint", CENT, timeout=8.0).transaction.request_id


def test_a_server_that_hangs_loses_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    # All times of this, but a tenth of them.
    scaled = ("keepalive_time", "keepalive_timeout", "ping_timeout", "min_reconnect")
    options = [
        (name, int(value) // 10 if any(it in name for it in scaled) else value)
        for name, value in servers._OPTIONS  # noqa: SLF001
    ]
    monkeypatch.setattr(servers, "_OPTIONS", tuple(options))
    with (
        FakeServer(Deposit=deposit) as server,
        Proxy(server.address) as proxy,
        Client([server.address, proxy.address], timeout=0.5, share_stream=False) as client,
    ):
        for _ in range(4):
            client.deposit("joint", CENT)
        proxy.may_pass.clear()
        # Until the keepalive and the attempt to connect again have failed, calls wait for it.
        end = time.monotonic() + 3.0
        while time.monotonic() < end:
            with suppress(PassbookError):
                client.deposit("joint", CENT)
            time.sleep(0.05)
        for _ in range(6):
            client.deposit("joint", CENT)
