"""Functions and payloads of plain RQ jobs, for tests that enqueue them past us."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from typing import Any

from rq import Retry, Worker
from rq.job import Job as RQJob

from .engine import Bench
from .waiting import wait_until


def note_plain(path: str, line: str = "ran") -> str:
    """Appends a line to a file, in one write."""
    with open(path, "ab", buffering=0) as file:
        file.write(f"{line}\n".encode())
    return line


def fail_plain(message: str = "on purpose") -> None:
    raise RuntimeError(message)


def hold_plain(gate: str) -> None:
    """Runs until somebody makes the file `gate`; says that it has begun by making `gate + ".begun"`."""
    Path(gate + ".begun").touch()
    wait_until(Path(gate).exists, 60, what=gate)


def die_plain() -> None:
    """SIGKILLs its own process."""
    logging.getLogger(__name__).warning("about to die")
    os.kill(os.getpid(), signal.SIGKILL)


def take_plain(*_values: Any, **_named: Any) -> None:
    """Takes anything."""


class ForgottenSoon(Worker):
    """RQ's own worker, of which RQ's keys expire after a second, not after a minute and a half."""

    def heartbeat(self, _timeout: int | None = None, pipeline: Any = None) -> None:
        super().heartbeat(1, pipeline)

    def get_heartbeat_ttl(self, *_: Any, **_named: Any) -> int:
        return 1


class Canary:
    """An object whose unpickling writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "it ran")


def adopt_row(bench: Bench, job: RQJob, state: str, **columns: Any) -> int:
    """A row of `jobs` for a plain job, in any state, as the adopting loop makes it. Returns its id."""
    ended = {"finished": "returned", "failed": "exhausted", "canceled": "canceled"}.get(state)
    values = {
        "origin": "rq",
        "rq_place": "default",
        "rq_id": job.id,
        "rq_created_at": job.created_at,
        "task": "tests.support.plain.take_plain",
        "queue": job.origin,
        "lane": job.origin,
        "state": state,
        "args": "{}",
        "max_attempts": 1,
        "created_at": job.created_at,
        "due_at": job.created_at,
        "dispatched_at": job.created_at,
        "started_at": job.created_at,
        "ended_at": job.created_at if ended else None,
        "ended_by": ended,
        **columns,
    }
    names, marks = ", ".join(values), ", ".join(["%s"] * len(values))
    statement = f"INSERT INTO opsjobs.jobs ({names}) VALUES ({marks}) RETURNING id"
    return int(bench.row(statement, *values.values())["id"])


def log_plain(line: str) -> None:
    """Logs a warning."""
    logging.getLogger(__name__).warning(line)


def outlast_plain() -> None:
    """Runs for longer than any limit of a test."""
    wait_until(lambda: False, 60)


def retry_plain(seconds: int = 3600) -> Retry:
    """Asks RQ to run it again after so many seconds, once."""
    return Retry(max=1, interval=seconds)
