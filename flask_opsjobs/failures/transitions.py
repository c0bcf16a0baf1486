"""Writes an operator's decisions about failures: resolve and ignore.

Every function runs in the caller's transaction. Call `lock` first: then nobody counts into the failures
until the commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection
from .deploys import Marker


@dataclass(frozen=True)
class FailureForDecision:
    """The columns of a failure that a decision needs, and the deploy that the decision names, if it does."""

    id: int
    task: str
    state: str
    number: int
    decided_at: datetime | None
    decided_by: str | None
    resolved_in: int | None
    resolved_after: int | None
    ignored_until: datetime | None
    ignored_until_number: int | None
    ignored_rate: int | None
    regressed_at: datetime | None
    deploy: Marker | None = None

    @property
    def target(self) -> str:
        """The failure as the target of an action: `failure/7`."""
        return f"failure/{self.id}"

    @property
    def label(self) -> str:
        """The failure for people: its task. Its title may hold values of a payload."""
        return self.task


@dataclass(frozen=True)
class Decided:
    """Who decided, why and when."""

    actor: str
    reason: str
    now: datetime


@dataclass(frozen=True)
class IgnoredUntil:
    """How long a failure is ignored; one of the three is given.

    Until a time, until so many more attempts have failed, or until more than `rate` attempts fail in an hour.
    """

    until: datetime | None = None
    more: int | None = None
    rate: int | None = None


def lock(connection: Connection, ids: Iterable[int]) -> None:
    """Lock these failures in id order."""
    connection.execute(sql.load("lock_failures"), {"ids": list(ids)})


def look(connection: Connection, ids: Iterable[int]) -> list[FailureForDecision]:
    """Those of these failures that exist, in id order. Locks nothing."""
    with connection.cursor(row_factory=class_row(FailureForDecision)) as cursor:
        return cursor.execute(sql.load("look_at_failures"), {"ids": list(ids)}).fetchall()


def resolve(
    connection: Connection,
    ids: Sequence[int],
    who: Decided,
    *,
    resolved_in: int | None = None,
    resolved_after: int | None = None,
) -> None:
    """Resolve failures in a deploy, or in the first one after another.

    With neither the workers that start from now on have the fix.
    """
    parameters = {
        "ids": list(ids),
        **vars(who),
        "resolved_in": resolved_in,
        "resolved_after": resolved_after,
    }
    connection.execute(sql.load("resolve_failures"), parameters)


def ignore(
    connection: Connection,
    ids: Sequence[int],
    who: Decided,
    until: IgnoredUntil,
) -> None:
    """Ignore failures for a while."""
    parameters = {"ids": list(ids), **vars(who), **vars(until)}
    connection.execute(sql.load("ignore_failures"), parameters)
