"""Server processes for tests."""

from __future__ import annotations

import json
import os
import signal
import subprocess


class ServerProcess:
    """A `passbook serve` on the ledger of PASSBOOK_DATABASE_URL."""

    def __init__(self) -> None:
        self.address = "127.0.0.1:0"
        self.start()

    def start(self) -> None:
        """Start the server, at the address that it had before, and wait until it is ready."""
        self._process = _serve("--listen", self.address)
        line = _first_line(self._process)
        self.address = line.removeprefix("ready: listening on ").partition(",")[0]

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self._process.kill()
        self._process.communicate()

    def restart(self) -> None:
        self.kill()
        self.start()

    def pause(self) -> None:
        """Stop the process, and wait until it has stopped."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)


class EphemeralServer:
    """A `passbook serve --ephemeral`: a ledger that is gone at the end."""

    def __init__(self, *arguments: str) -> None:
        self._process = _serve("--ephemeral", *arguments)
        self.address: str = json.loads(_first_line(self._process))["address"]

    def stop(self) -> None:
        self._process.terminate()
        self._process.communicate()


def _serve(*arguments: str) -> subprocess.Popen[str]:
    environment = dict(os.environ)
    if "--ephemeral" in arguments:
        environment.pop("PASSBOOK_DATABASE_URL", None)
    command = [os.environ["PASSBOOK_TEST_BIN"], "--log", "error", "serve", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def _first_line(process: subprocess.Popen[str]) -> str:
    if process.stdout is None or not (line := process.stdout.readline()):
        raise RuntimeError("the server has not started")
    return line.strip()
