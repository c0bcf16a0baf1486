"""Reads the keys of subjects whose rows have ids, and tells whether an id was given to a row that is gone."""

from __future__ import annotations

from typing import Any

from sqlalchemy import case, cast, func, select
from sqlalchemy.dialects.postgresql import REGCLASS

from ...actions.domain import read_id_target
from ..bundle import Inquiry


def read_id(key: str) -> str | None:
    """The id in its canonical form; None for a text that is no id."""
    target = read_id_target("id", f"id/{key}")
    return None if target is None else target.partition("/")[2]


def was_numbered(inquiry: Inquiry, column: Any) -> bool:
    """Whether the subject's id is one that Postgres has given. Its row may never have been committed.

    Where the app's role may not read the sequence, the greatest id that is stored tells.
    """
    sequence = f"opsjobs.{column.table.name}_{column.name}_seq"
    last = func.pg_sequence_last_value(cast(sequence, REGCLASS))
    may_read = func.has_sequence_privilege(sequence, "USAGE, SELECT")
    newest = func.greatest(func.max(column), case((may_read, last)))
    return int(inquiry.key) <= (inquiry.session.scalar(select(newest)) or 0)
