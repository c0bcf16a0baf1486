"""Writes the audit row of a restore: who ran it, why, and what it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ...audit import transitions as audit_transitions
from ...audit.transitions import Decision
from ...core.db import Connection
from ...host import Host
from .restore import Restored

# A restore may end many plain jobs. Its audit row lists this many of each Redis, and the number of all.
_MOST_NAMED = 100


@dataclass(frozen=True)
class Asker:
    """Who runs a restore in a shell, and why."""

    actor: str
    reason: str


def audit_restore(
    host: Host, connection: Connection, asker: Asker, done: Restored, now: datetime
) -> None:
    """Record what `restore` did. Commits."""
    named = [job.id for jobs in done.found.plain.values() for job in jobs[:_MOST_NAMED]]
    after = {
        "recalled": done.recalled,
        "removed": done.removed,
        "dispatched": done.dispatched,
        "unknown": done.unknown,
    }
    _append(
        host, connection, _decide(asker, now, targets=[f"job/{id}" for id in named], after=after)
    )


def audit_removal(
    host: Host, connection: Connection, asker: Asker, removed: Mapping[str, int], now: datetime
) -> None:
    """Record what `restore --after-postgres` did. Commits."""
    targets = [f"queue/{queue}" for queue in sorted(removed)]
    _append(
        host, connection, _decide(asker, now, targets=targets, after={"removed": dict(removed)})
    )


def audit_refusal(host: Host, connection: Connection, asker: Asker, now: datetime) -> None:
    """Record that `restore --after-postgres` was refused, because workers run. Commits."""
    _append(host, connection, _decide(asker, now, outcome="refused", code="workers_alive"))


def _decide(
    asker: Asker, now: datetime, *, targets: list[str] | None = None, **more: Any
) -> Decision:
    return Decision(
        at=now,
        actor=asker.actor,
        via="cli",
        action="restore",
        subject="Redis",
        targets=tuple(targets or ()),
        reason=asker.reason,
        **{"outcome": "done", **more},
    )


def _append(host: Host, connection: Connection, decision: Decision) -> None:
    """Append the row, or keep it for later: a restore happens also when the audit cannot be written."""
    log_heads: list[Callable[[], None]] = []
    with connection.transaction():
        audit_transitions.append_or_keep(
            connection, host.secrets, decision, after_commit=log_heads.append
        )
    for log_head in log_heads:
        log_head()
