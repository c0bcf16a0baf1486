"""Hears every event in a process: each becomes a line in a file, with what a host could read from it."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

from flask_opsjobs import signals
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.record.task import Task

from .waiting import wait_until

# The rows whose states these events tell, by the fact that holds the id.
_TOLD = {
    "job_ended": ("jobs", "job_id"),
    "workflow_ended": ("workflows", "workflow_id"),
    "batch_ended": ("batches", "batch_id"),
}


def hear(path: Path, dsn: str) -> list[Callable[[], None]]:
    """Hear every event from now on; what stops it again."""
    stops: list[Callable[[], None]] = []
    for kind in signals.EVENTS.values():
        sent = getattr(signals, kind.name)
        receiver = partial(_write, path, dsn, kind)
        sent.connect(receiver, weak=False)
        stops.append(partial(sent.disconnect, receiver))
    return stops


@contextmanager
def hearing(path: Path, dsn: str) -> Iterator[None]:
    """Hear every event of this block."""
    stops = hear(path, dsn)
    try:
        yield
    finally:
        for stop in stops:
            stop()


def heard(path: Path) -> list[dict[str, Any]]:
    """What was heard so far, in all processes."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def connect_bad_receivers(path: Path, how: str) -> None:
    """Connect receivers that raise, sleep or kill their process, each noting in a file that it was called.

    `raises` at every event; `sleeps` for five seconds when a job has ended; `kills` the child of the first
    attempt that starts, and the worker when the first job has ended.
    """
    chosen = ("attempt_started", "job_ended")
    names = {
        "raises": [kind.name for kind in signals.EVENTS.values()],
        "sleeps": chosen[1:],
        "kills": chosen,
    }
    for name in names[how]:
        act = partial(_ACTS[how], path.with_name(f"{path.name}-{name}"))
        getattr(signals, name).connect(act, weak=False)


def _raise(note: Path, _sender: object, /, **_facts: Any) -> None:
    note.touch()
    raise RuntimeError("a receiver of the host")


def _sleep(note: Path, _sender: object, /, **_facts: Any) -> None:
    note.touch()
    end = time.monotonic() + 5
    wait_until(lambda: time.monotonic() >= end)
    Path(f"{note}-left").touch()


def _kill_once(note: Path, _sender: object, /, **_facts: Any) -> None:
    try:
        note.touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


_ACTS: dict[str, Callable[..., None]] = {
    "raises": _raise,
    "sleeps": _sleep,
    "kills": _kill_once,
}


def _write(path: Path, dsn: str, kind: signals.EventKind, sender: object, /, **facts: Any) -> None:
    line = {
        "event": kind.name,
        "pid": os.getpid(),
        "thread": threading.current_thread().name,
        "sender": type(sender).__name__ if isinstance(sender, Host | Task) else repr(sender),
        "names": sorted(facts),
        "facts": {name: repr(value) for name, value in facts.items() if name != "exception"},
        "exception": repr(facts.get("exception")),
        "row": _find_state(dsn, kind.name, facts),
    }
    with path.open("ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\n")


def _find_state(dsn: str, event: str, facts: dict[str, Any]) -> str | None:
    """The state that another connection sees now."""
    if event not in _TOLD:
        return None
    table, fact = _TOLD[event]
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            f"SELECT state FROM opsjobs.{table} WHERE id = %s", [facts[fact]]
        ).fetchone()
    return None if found is None else str(found[0])
