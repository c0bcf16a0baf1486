"""Writes limits: declarations when a process starts, returned leases, rejections, an operator's cooldown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from ..audit import transitions as audit
from ..audit.transitions import Decision
from ..core import sql
from ..core.db import Connection
from .limit import Limit


@dataclass(frozen=True)
class Rejection:
    """A call that was rejected: by which bucket, for which reason, and what was read."""

    at: datetime
    limiter: str
    partition: str
    task: str
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


def give_back(connection: Connection, deliveries: Sequence[tuple[int, int]], now: datetime) -> None:
    """Give back the places and tokens of attempts (id, dispatch_no) that called nothing. Part of the transaction."""
    ids, numbers = [id for id, _ in deliveries], [number for _, number in deliveries]
    asked = {"job_ids": ids, "dispatch_nos": numbers, "now": now}
    connection.execute(sql.load("give_back_tokens"), asked)


def reject(connection: Connection, rejections: Iterable[Rejection]) -> None:
    """Keep the evidence of rejected calls. Commits each."""
    for rejection in rejections:
        row = asdict(rejection) | {"read": json.dumps(rejection.read)}
        connection.execute(sql.load("write_limit_rejection"), row)


# --- cooldowns: `lock_limiters` first, then `look_at_cooldowns`: the writes trust what that saw

# A limiter's name and a partition of it; None for all of it, '' for the one without a name.
Part = tuple[str, str | None]


@dataclass(frozen=True)
class Cooldown:
    """A limiter, or a partition of it, as a decision about it is made."""

    limiter: str
    partition: str | None
    is_partitioned: bool
    cooldown_at: datetime | None
    cooldown_until: datetime | None
    cooldown_by: str | None

    @property
    def part(self) -> Part:
        """Which it is."""
        return self.limiter, self.partition

    def is_cooling(self, now: datetime) -> bool:
        """Whether it starts nothing now."""
        return self.cooldown_until is not None and self.cooldown_until > now


def lock_limiters(connection: Connection, parts: Iterable[Part]) -> None:
    """Lock the limiters that these belong to, in the order of their names."""
    names = sorted({limiter for limiter, _ in parts})
    connection.execute(sql.load("lock_limiters"), {"limiters": names})


def look_at_cooldowns(connection: Connection, parts: Iterable[Part]) -> dict[Part, Cooldown]:
    """How these cool down; those whose limiter some process has declared. Locks nothing."""
    with connection.cursor(row_factory=class_row(Cooldown)) as cursor:
        cursor.execute(sql.load("look_at_cooldowns"), _parts(list(parts)))
        return {found.part: found for found in cursor}


def cool_down(
    connection: Connection,
    parts: Sequence[Part],
    until: datetime,
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    """Let these start nothing until then. What has started goes on."""
    decided = {"at": now, "until": until, "actor": actor, "reason": reason}
    _write_cooldown(connection, parts, now, decided)


def clear(connection: Connection, parts: Sequence[Part], now: datetime) -> None:
    """End the cooldown of these."""
    _write_cooldown(connection, parts, now, dict.fromkeys(("at", "until", "actor", "reason")))


def _write_cooldown(
    connection: Connection, parts: Sequence[Part], now: datetime, decided: dict[str, Any]
) -> None:
    whole = [limiter for limiter, partition in parts if partition is None]
    some = [part for part in parts if part[1] is not None]
    if whole:
        connection.execute(sql.load("cool_down_limiters"), {"limiters": whole, **decided})
    if some:
        asked = {**_parts(some), "now": now, **decided}
        connection.execute(sql.load("cool_down_buckets"), asked)


def _parts(parts: Sequence[Part]) -> dict[str, Any]:
    return {
        "limiters": [limiter for limiter, _ in parts],
        "partitions": [partition for _, partition in parts],
    }
