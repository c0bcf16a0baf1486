"""What changes limits: a declaration at a process's start, a place given back, a rejection kept as evidence."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from .. import sql
from ..audit import transitions as audit
from ..audit.transitions import Decision
from ..db import Connection
from .limit import Limit


@dataclass(frozen=True)
class Rejection:
    """A call that was rejected: by which bucket, for which reason, and what was read."""

    at: datetime
    limiter: str
    partition: str
    worker: str
    weight: int
    code: str
    read: dict[str, Any]


def declare(
    connection: Connection,
    secrets: Sequence[bytes],
    limits: Iterable[Limit],
    process: str,
    now: datetime,
) -> list[str]:
    """Record limiters as this code declares them; the names of those that differ from what was declared before.

    A difference is a decision of the system in the audit. One transaction, committed here.
    """
    words = {limit.name: limit.words for limit in limits}
    if not words:
        return []
    asked = {"limiters": json.dumps(list(words.values())), "process": process, "now": now}
    with connection.transaction():
        rows = connection.execute(sql.load("declare_limiters"), asked).fetchall()
        changed = {name: previous for name, previous in rows if previous is not None}
        if changed:
            audit.append(connection, secrets, _decision(words, changed, process, now))
    return sorted(changed)


def _decision(
    words: dict[str, dict[str, Any]], changed: dict[str, Any], process: str, now: datetime
) -> Decision:
    targets = tuple(f"limiter/{name}" for name in sorted(changed))
    return Decision(
        at=now,
        actor="system",
        via="system",
        action="limiter.declare",
        subject=targets[0] if len(targets) == 1 else f"{len(targets)} limiters",
        targets=targets,
        outcome="done",
        reason=f"{process} started with code that declares it so",
        before={f"limiter/{name}": changed[name] for name in sorted(changed)},
        after={
            f"limiter/{name}": {key: value for key, value in words[name].items() if key != "name"}
            for name in sorted(changed)
        },
    )


def free(connection: Connection, deliveries: Sequence[tuple[int, int]]) -> None:
    """Give back the places of attempts (id, dispatch_no) that have left `started`. Part of the caller's transaction."""
    ids, numbers = [id for id, _ in deliveries], [number for _, number in deliveries]
    connection.execute(sql.load("free_leases"), {"job_ids": ids, "dispatch_nos": numbers})


def reject(connection: Connection, rejections: Iterable[Rejection]) -> None:
    """Keep the evidence of rejected calls. Commits each."""
    for rejection in rejections:
        row = asdict(rejection) | {"read": json.dumps(rejection.read)}
        connection.execute(sql.load("write_limit_rejection"), row)
