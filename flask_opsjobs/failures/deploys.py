"""Marks deploys: by a command, or by the first worker that starts with a new version.

The ids of the markers are in the order of their commits. This order counts, whatever the clock said.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row

from ..core import sql
from ..core.db import Connection
from ..errors import InvalidDeploy
from ..jobs.record.json_storage import complain
from .lifecycle import NEXT, THIS
from .models import LONGEST_NOTE, LONGEST_VERSION

_LONGEST_ACTOR = 200


@dataclass(frozen=True)
class Marker:
    """A deploy marker as it is stored."""

    id: int
    version: str
    at: datetime
    source: str
    actor: str | None
    note: str | None


def mark(
    connection: Connection,
    version: str,
    now: datetime,
    *,
    actor: str | None = None,
    note: str | None = None,
) -> tuple[Marker, bool]:
    """Mark that this version is being deployed; return the marker, and whether it is new. Commits.

    When the newest marker has this version already, such as one of a worker that was faster, it stays, and
    gets the actor and the note. Raises `InvalidDeploy` for a text that cannot be stored.
    """
    require_legal(version, actor, note)
    with connection.transaction():
        connection.execute(sql.load("lock_deploys"))
        newest = find_newest(connection)
        if newest is not None and newest.version == version:
            parameters = {"id": newest.id, "actor": actor, "note": note}
            return _one(connection, "sign_deploy", parameters), False
        return _insert(connection, version, now, "command", actor, note), True


def find_or_mark(connection: Connection, version: str | None, now: datetime) -> int | None:
    """Return the id of the deploy that a worker of this version runs; mark it when it is new. Commits.

    A worker without a version runs the newest deploy, or None before the first one.
    """
    found = find_newest(connection, version)
    if found is not None or version is None:
        return None if found is None else found.id
    with connection.transaction():
        connection.execute(sql.load("lock_deploys"))
        # Another worker of this version may have been faster.
        found = find_newest(connection, version)
        return (found or _insert(connection, version, now, "worker", None, None)).id


def is_version(text: str) -> bool:
    """Whether it can be the version of a deploy: short, printable, without spaces around it."""
    is_plain = text.isprintable() and text == text.strip()
    return is_plain and 1 <= len(text) <= LONGEST_VERSION


def require_legal(version: str, actor: str | None, note: str | None) -> None:
    """Raise `InvalidDeploy` unless all of them can be stored and shown."""
    if not is_version(version):
        raise InvalidDeploy(
            f"the deploy cannot be marked: a version is printable text of 1 to {LONGEST_VERSION} characters "
            f"without spaces around it, and this one has {len(version):,}"
        )
    if version in (THIS, NEXT):
        raise InvalidDeploy(
            f"the deploy cannot be marked: no version is called {version!r}, because failures are resolved "
            f"in {THIS!r} deploy or in the {NEXT!r} one"
        )
    for what, text, longest in (
        ("an actor", actor, _LONGEST_ACTOR),
        ("a note", note, LONGEST_NOTE),
    ):
        if text is not None and len(text) > longest:
            raise InvalidDeploy(
                f"the deploy cannot be marked: {what} has at most {longest:,} characters, and this one has "
                f"{len(text):,}"
            )
        if text is not None and (why := complain(text)) is not None:
            raise InvalidDeploy(f"the deploy cannot be marked: {what} {why}")


def find_newest(connection: Connection, version: str | None = None) -> Marker | None:
    """Return the newest deploy, or the newest one of a version; None when there is none."""
    with connection.cursor(row_factory=class_row(Marker)) as cursor:
        return cursor.execute(sql.load("find_newest_deploy"), {"version": version}).fetchone()


def _insert(
    connection: Connection,
    version: str,
    now: datetime,
    source: str,
    actor: str | None,
    note: str | None,
) -> Marker:
    parameters = {"version": version, "now": now, "source": source, "actor": actor, "note": note}
    return _one(connection, "insert_deploy", parameters)


def _one(connection: Connection, statement: str, parameters: dict[str, Any]) -> Marker:
    with connection.cursor(row_factory=class_row(Marker)) as cursor:
        found = cursor.execute(sql.load(statement), parameters).fetchone()
    assert found is not None
    return found
