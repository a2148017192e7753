"""The servers that a client knows, each with one connection."""

from __future__ import annotations

import ipaddress
import itertools
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import grpc

from passbook.shared_stream import Credentials, SharedStream
from passbook.v1 import account_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Sequence

PASS_OVER_SECONDS = 1.0
"""How long a server that has answered UNAVAILABLE is passed over."""

_OPTIONS: tuple[tuple[str, int | str], ...] = (
    # A restarted server is found within a second, not within two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # In spite of its name: how long an attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", 5_000),
    # A connection without a peer is found also while a watch waits for entries.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # The client repeats requests itself: it knows which ones.
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True)
class Tls:
    """TLS, and mutual TLS if there is a certificate of the client. All files are in PEM."""

    authorities: bytes | None = None
    """Those that issue the servers' certificates. Default: those that come with grpcio."""
    certificate: bytes | None = None
    """The certificate of the client, with its chain."""
    key: bytes | None = None
    """The private key of the client's certificate."""
    server_name: str | None = None
    """The name in the servers' certificates, if it differs from the host of the address."""


class Server:
    """One server and the connection to it, which is opened on first use and reopened when lost."""

    def __init__(self, address: str, tls: Tls | None, credentials: Credentials) -> None:
        options = list(_OPTIONS)
        if _is_loopback(address):
            # A proxy of the environment (`http_proxy`) could be another machine.
            options.append(("grpc.enable_http_proxy", 0))
        if tls is None:
            self.channel = grpc.insecure_channel(address, options)
        else:
            if tls.server_name is not None:
                options.append(("grpc.ssl_target_name_override", tls.server_name))
            security = grpc.ssl_channel_credentials(tls.authorities, tls.key, tls.certificate)
            self.channel = grpc.secure_channel(address, security, options)
        self.stub = account_service_pb2_grpc.AccountServiceStub(self.channel)
        self.shared_stream = SharedStream(self.stub, credentials)
        self._passed_over_until = 0.0

    def pass_over(self) -> None:
        """Prefer other servers for a while."""
        self._passed_over_until = time.monotonic() + PASS_OVER_SECONDS

    @property
    def is_preferred(self) -> bool:
        """Whether calls may go to this server while others are left."""
        return time.monotonic() >= self._passed_over_until


def require_tls(addresses: Sequence[str]) -> None:
    """Raise an error if a token without TLS would go to another machine."""
    for address in addresses:
        if not _is_loopback(address):
            raise ValueError(f"a token for {address} needs TLS: anyone on the way could read it")


def _is_loopback(address: str) -> bool:
    try:
        host = urlsplit(f"//{address}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # The name of a host, or no address.
        return False


class Servers:
    """Selects servers in turn."""

    def __init__(self, addresses: Sequence[str], tls: Tls | None, credentials: Credentials) -> None:
        if not addresses:
            raise ValueError("a client needs the address of at least one server")
        self._all = [Server(address, tls, credentials) for address in addresses]
        self._turns = itertools.cycle(self._all)
        self._lock = threading.Lock()

    def select(self) -> Server:
        """The next server that is not passed over, or the next one if all are."""
        with self._lock:
            candidates = [next(self._turns) for _ in self._all]
            selected = next((server for server in candidates if server.is_preferred), candidates[0])
            # The next call begins with the server after the selected one.
            while next(self._turns) is not selected:
                pass
            return selected

    def close(self) -> None:
        """Close all connections."""
        for server in self._all:
            server.channel.close()
