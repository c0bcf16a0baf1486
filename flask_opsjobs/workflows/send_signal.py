"""Stores signals: the words of the host that end waits."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from ..core.after_commit import after_commit
from ..core.db import is_id
from ..core.words import show_value
from ..errors import InvalidSignal
from ..host import Host, SignalSent
from ..jobs.record import json_storage
from ..jobs.record.enqueue import AnySession, find_session, join, run_sql, without_values
from ..jobs.record.unique_locks import RunSql
from .faults import LONGEST_NAME


@dataclass(frozen=True, slots=True)
class Signaled:
    """A stored signal. With `conflict` the same `dedupe` was sent before: `id` is the first signal."""

    id: int
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal to send. `run` is the id of the only workflow that it is for, None for any."""

    name: str
    key: str = ""
    payload: Any = None
    dedupe: str | None = None
    run: int | None = None
    by: str = "the application"


def send_signal(host: Host, signal: Signal, session: AnySession | None = None) -> Signaled:
    """Store a signal in the host's transaction; the host commits. A wait takes it after the commit.

    Raises `InvalidSignal` with every fault; then nothing was written.
    """
    session, bind = find_session(host, session)
    with without_values():
        sent = store_signal(partial(run_sql, join(host, session, bind)), host, signal)
    if host.dispatcher is not None and not sent.conflict:
        after_commit(session, host.dispatcher.push, SignalSent(sent.id))
    return sent


def store_signal(run: RunSql, host: Host, signal: Signal) -> Signaled:
    """Store a signal in the caller's transaction. Raises `InvalidSignal` with every fault.

    Of a run that does not exist it is a fault, unless the same `dedupe` was sent before.
    """
    values = {
        "name": signal.name,
        "key": signal.key,
        "run": signal.run,
        "dedupe": signal.dedupe,
        "payload": _dump(signal, host.settings.max_args_bytes),
        "by": signal.by,
        "since": since(host),
    }
    for row in run("insert_signal", values):
        return Signaled(row.id, row.is_duplicate)
    raise InvalidSignal(
        f"the signal cannot be sent: there is no workflow {signal.run}: give as run the id of a workflow "
        "that exists, or leave run out, so that the first wait with this name and key takes the signal"
    )


def _dump(signal: Signal, most_bytes: int) -> str | None:
    """The payload as JSON text. Raises `InvalidSignal` with every fault of the signal."""
    faults = [
        *_faults("name", signal.name),
        *_faults("key", signal.key, is_empty_allowed=True),
    ]
    if signal.dedupe is not None:
        faults += _faults("dedupe", signal.dedupe)
    if not (signal.run is None or is_id(signal.run)):
        faults.append(f"run must be the id of a workflow, got {show_value(signal.run)}")
    raw = b"null"
    try:
        raw = json_storage.dump(signal.payload)
        json_storage.check_readable(raw)
        json_storage.check_keys(signal.payload)
    except json_storage.NotStorable as why:
        faults.append(f"payload {why}")
    if len(raw) > most_bytes:
        faults.append(
            f"payload is {len(raw)} bytes as JSON, more than OPSJOBS_MAX_ARGS_BYTES = {most_bytes}: "
            "store the value elsewhere and send a reference to it"
        )
    if faults:
        raise InvalidSignal("the signal cannot be sent: " + "; ".join(faults))
    return None if signal.payload is None else raw.decode()


def since(host: Host) -> timedelta:
    """How long a wait that has ended makes a signal late."""
    return timedelta(days=host.settings.keep_signals_days)


def _faults(what: str, value: object, *, is_empty_allowed: bool = False) -> list[str]:
    if not isinstance(value, str):
        return [f"{what} must be a text, got {type(value).__name__}"]
    if not value and not is_empty_allowed:
        return [f"{what} is empty"]
    if len(value) > LONGEST_NAME:
        return [f"{what} has {len(value)} characters, at most {LONGEST_NAME} are allowed"]
    if problem := json_storage.complain(value):
        return [f"{what} {problem}"]
    return []
