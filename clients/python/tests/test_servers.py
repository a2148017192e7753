"""Connections that are slow, and servers that hang."""

from __future__ import annotations

from fake_server import FakeServer, deposit
from proxy import Proxy

from passbook import Client, Money

CENT = Money("0.01", "USD")


def test_a_connection_may_take_seconds() -> None:
    with (
        FakeServer(Deposit=deposit) as server,
        Proxy(server.address) as proxy,
        Client(proxy.address, share_stream=False) as client,
    ):
        proxy.delay = 2.0
        assert client.deposit("joint", CENT, timeout=8.0).transaction.request_id
