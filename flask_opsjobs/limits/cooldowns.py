"""What an operator decides about limiters: that all of one, or one of its partitions, starts nothing for a while.

Every function is part of the caller's transaction. `lock` first, then `look`: the writes trust what that saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from .. import sql
from ..db import Connection

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


def lock(connection: Connection, parts: Iterable[Part]) -> None:
    """Lock the limiters that these belong to, in the order of their names."""
    names = sorted({limiter for limiter, _ in parts})
    connection.execute(sql.load("lock_limiters"), {"limiters": names})


def look(connection: Connection, parts: Iterable[Part]) -> dict[Part, Cooldown]:
    """How these cool down; those whose limiter some process has declared. Locks nothing."""
    with connection.cursor(row_factory=class_row(Cooldown)) as cursor:
        cursor.execute(sql.load("look_at_cooldowns"), _asked(list(parts)))
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
    _write(connection, parts, now, decided)


def clear(connection: Connection, parts: Sequence[Part], now: datetime) -> None:
    """End the cooldown of these."""
    _write(connection, parts, now, dict.fromkeys(("at", "until", "actor", "reason")))


def _write(
    connection: Connection, parts: Sequence[Part], now: datetime, decided: dict[str, Any]
) -> None:
    whole = [limiter for limiter, partition in parts if partition is None]
    some = [part for part in parts if part[1] is not None]
    if whole:
        connection.execute(sql.load("cool_down_limiters"), {"limiters": whole, **decided})
    if some:
        asked = {**_asked(some), "now": now, **decided}
        connection.execute(sql.load("cool_down_buckets"), asked)


def _asked(parts: Sequence[Part]) -> dict[str, Any]:
    return {
        "limiters": [limiter for limiter, _ in parts],
        "partitions": [partition for _, partition in parts],
    }
