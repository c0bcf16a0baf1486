"""Writes limits: declarations at the start of a process, returned leases, rejections, cooldowns."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from .. import signals
from ..audit import transitions as audit
from ..audit.transitions import Decision
from ..core import sql
from ..core.db import Connection
from .limit import Limit


@dataclass(frozen=True)
class Rejection:
    """A rejected call: the bucket, the code of the reason, and the values that were read."""

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
    """Store limiters as this code declares them; returns the names of those whose declaration changed.

    A change is audited as a decision of the system. Runs in one transaction, committed here.
    """
    stored = {limit.name: limit.stored for limit in limits}
    if not stored:
        return []
    parameters = {"limiters": json.dumps(list(stored.values())), "process": process, "now": now}
    with connection.transaction():
        rows = connection.execute(sql.load("declare_limiters"), parameters).fetchall()
        changed = {name: previous for name, previous in rows if previous is not None}
        if changed:
            audit.append(connection, secrets, _decision(stored, changed, process, now))
    return sorted(changed)


def _decision(
    stored: dict[str, dict[str, Any]], changed: dict[str, Any], process: str, now: datetime
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
            f"limiter/{name}": {key: value for key, value in stored[name].items() if key != "name"}
            for name in sorted(changed)
        },
    )


def free(connection: Connection, deliveries: Sequence[tuple[int, int]]) -> None:
    """Give back the places of attempts (id, dispatch_no) that left `started`, in the caller's transaction."""
    ids, numbers = [id for id, _ in deliveries], [number for _, number in deliveries]
    connection.execute(sql.load("free_leases"), {"job_ids": ids, "dispatch_nos": numbers})


def give_back(connection: Connection, deliveries: Sequence[tuple[int, int]], now: datetime) -> None:
    """Give back the places and tokens of attempts (id, dispatch_no) whose function was not called.

    Runs in the caller's transaction.
    """
    ids, numbers = [id for id, _ in deliveries], [number for _, number in deliveries]
    parameters = {"job_ids": ids, "dispatch_nos": numbers, "now": now}
    connection.execute(sql.load("give_back_tokens"), parameters)


def reject(connection: Connection, rejections: Iterable[Rejection]) -> None:
    """Store the evidence of rejected calls, and commit each."""
    for rejection in rejections:
        row = asdict(rejection) | {"read": json.dumps(rejection.read)}
        connection.execute(sql.load("write_limit_rejection"), row)
        signals.send(
            signals.limiter_rejected,
            limiter=rejection.limiter,
            task=rejection.task,
            code=rejection.code,
        )


# --- cooldowns: call `lock_limiters`, then `read_cooldowns`: the writes rely on what it returned

# A limiter's name and one of its partitions: None for the whole limiter, '' for the one with an empty name.
Part = tuple[str, str | None]


@dataclass(frozen=True)
class Cooldown:
    """The columns of a limiter or of a partition that a decision needs."""

    limiter: str
    partition: str | None
    is_partitioned: bool
    cooldown_at: datetime | None
    cooldown_until: datetime | None
    cooldown_by: str | None

    @property
    def target(self) -> str:
        """The limiter or partition as the target of an action."""
        return f"limiter/{self.label}"

    @property
    def label(self) -> str:
        """The limiter or partition for people: `api`, `api/42`."""
        return self.limiter if self.partition is None else f"{self.limiter}/{self.partition}"

    @property
    def part(self) -> Part:
        """The limiter and the partition."""
        return self.limiter, self.partition

    def is_cooling(self, now: datetime) -> bool:
        """Whether the cooldown lasts beyond `now`."""
        return self.cooldown_until is not None and self.cooldown_until > now


def lock_limiters(connection: Connection, parts: Iterable[Part]) -> None:
    """Lock the limiters of these parts, in the order of their names, until the caller's transaction ends."""
    names = sorted({limiter for limiter, _ in parts})
    connection.execute(sql.load("lock_limiters"), {"limiters": names})


def read_cooldowns(connection: Connection, parts: Iterable[Part]) -> dict[Part, Cooldown]:
    """The cooldowns of these parts, without those of limiters that no process has declared. Locks nothing."""
    with connection.cursor(row_factory=class_row(Cooldown)) as cursor:
        cursor.execute(sql.load("read_cooldowns"), _parts(list(parts)))
        return {found.part: found for found in cursor}


def cool_down(
    connection: Connection,
    parts: Sequence[Part],
    until: datetime,
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    """Set a cooldown: these parts start no job before `until`. Jobs that have started continue."""
    decided = {"at": now, "until": until, "actor": actor, "reason": reason}
    _write_cooldown(connection, parts, now, decided)
    for limiter in dict.fromkeys(limiter for limiter, _ in parts):
        signals.send(signals.limiter_cooled, limiter=limiter, until=until)


def clear_cooldown(connection: Connection, parts: Sequence[Part], now: datetime) -> None:
    """End the cooldown of these parts."""
    _write_cooldown(connection, parts, now, dict.fromkeys(("at", "until", "actor", "reason")))


def _write_cooldown(
    connection: Connection, parts: Sequence[Part], now: datetime, decided: dict[str, Any]
) -> None:
    whole = [limiter for limiter, partition in parts if partition is None]
    some = [part for part in parts if part[1] is not None]
    if whole:
        connection.execute(sql.load("cool_down_limiters"), {"limiters": whole, **decided})
    if some:
        parameters = {**_parts(some), "now": now, **decided}
        connection.execute(sql.load("cool_down_buckets"), parameters)


def _parts(parts: Sequence[Part]) -> dict[str, Any]:
    return {
        "limiters": [limiter for limiter, _ in parts],
        "partitions": [partition for _, partition in parts],
    }
