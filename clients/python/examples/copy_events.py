"""Copies all events of a ledger into a file of JSON Lines, each exactly once.

    python copy_events.py events.jsonl 127.0.0.1:50051 127.0.0.1:50052

A line has the events of one message and the token behind them, so one write stores both. When the
program starts, it cuts off a line that was not written to its end, and resumes after the token of
the last line. Another system can be fed in the same way if it stores the token in the transaction
that stores the events.
"""

import json
import os
import sys
from contextlib import closing
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from passbook import Client


def as_json(value: object) -> str:
    """The form of what JSON does not have."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, datetime):
        return value.isoformat()
    # An exact amount.
    return str(value)


def copy(path: Path, servers: list[str]) -> None:
    """Append new events to the file, until the program is stopped."""
    path.touch()
    with path.open("rb+") as file, Client(servers) as client:
        token, end = None, 0
        for line in file:
            if not line.endswith(b"\n"):
                break
            token, end = json.loads(line)["token"], end + len(line)
        file.seek(end)
        file.truncate()
        with closing(client.watch_events(from_beginning=token is None, after_token=token)) as watch:
            for message in watch:
                if message.events:
                    file.write(json.dumps(asdict(message), default=as_json).encode() + b"\n")
                    file.flush()
                    os.fsync(file.fileno())


if __name__ == "__main__":
    copy(Path(sys.argv[1]), sys.argv[2:])
