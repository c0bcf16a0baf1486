"""Reads which things bear a name."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from ..core import sql


def list_named(session: Session, name: str, places: Sequence[str]) -> set[tuple[str, str]]:
    """Kind and key of all that bears exactly this name. `places` are the names of the Redis servers of RQ."""
    names = {"name": name, "places": list(places)}
    rows = session.connection().exec_driver_sql(sql.load("find_named"), names)
    return {(str(kind), str(key)) for kind, key in rows}
