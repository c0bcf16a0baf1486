"""Creates the indexes of schema steps and validates their constraints, without blocking tables in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import turns

# name: (what it indexes, such as "jobs (queue, id)" or "UNIQUE jobs (rq_id)", and the query that it is for).
Indexes = Mapping[str, tuple[str, str]]

# An index whose creation was interrupted stays, and is invalid.
_FIND = """
    SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE c.relnamespace = 'opsjobs'::regnamespace AND c.relname = %s
"""


# A CHECK is added as NOT VALID, so that no table is locked while all its rows are read. This reads them
# while others write.
VALIDATE = """
DO $$
DECLARE
    unchecked record;
BEGIN
    FOR unchecked IN SELECT conrelid::regclass AS of, conname FROM pg_constraint
        WHERE connamespace = 'opsjobs'::regnamespace AND NOT convalidated
    LOOP
        EXECUTE format('ALTER TABLE %s VALIDATE CONSTRAINT %I', unchecked.of, unchecked.conname);
    END LOOP;
END $$
"""
_FIND_UNCHECKED = """
    SELECT EXISTS (SELECT FROM pg_constraint
        WHERE connamespace = 'opsjobs'::regnamespace AND NOT convalidated)
"""


def create(op: Any, indexes: Indexes) -> None:
    """Create the indexes in alembic's transaction: for tables that no other session sees yet."""
    for name, (columns, query) in indexes.items():
        _create(op, name, columns, query)


def unlock(op: Any) -> None:
    """Commit what alembic has done so far, if it began the transaction: the steps keep no table locked."""
    if _may_commit(op.get_context()):
        with op.get_context().autocommit_block():
            pass


def complete(op: Any, indexes: Indexes) -> None:
    """Create those of the indexes that are missing or invalid, and validate the constraints of steps.

    Neither blocks writes to the tables. `CREATE INDEX CONCURRENTLY` cannot run in a transaction: commits what
    alembic has done so far. When it is interrupted, the next call goes on. In a transaction that alembic must
    not commit, because the host began it, all is done there, and blocks writes until its end.
    """
    context = op.get_context()
    if context.as_sql:
        with context.autocommit_block():
            _complete(op, dict.fromkeys(indexes), indexes)
    elif (missing := _find_missing(op, indexes)) or _has_unchecked(op):
        if not _may_commit(context):
            create(op, {name: indexes[name] for name in missing})
            op.execute(VALIDATE)
        else:
            with context.autocommit_block(), turns.turn_of_indexes(op.get_bind()):
                _complete(op, _find_missing(op, indexes), indexes)


def _complete(op: Any, missing: Mapping[str, bool | None], indexes: Indexes) -> None:
    for name, is_valid in missing.items():
        if is_valid is False:
            op.execute(f"DROP INDEX CONCURRENTLY opsjobs.{name}")
        _create(op, name, *indexes[name], how="CONCURRENTLY ")
    op.execute(VALIDATE)


def _create(op: Any, name: str, columns: str, query: str, how: str = "") -> None:
    is_unique = columns.startswith("UNIQUE ")
    table, _, rest = columns.removeprefix("UNIQUE ").partition(" ")
    kind = "UNIQUE INDEX" if is_unique else "INDEX"
    op.execute(f"CREATE {kind} {how}{name} ON opsjobs.{table} {rest}")
    op.execute(f"COMMENT ON INDEX opsjobs.{name} IS '{query}'")


def _find_missing(op: Any, indexes: Indexes) -> dict[str, bool | None]:
    """The names of those that are not there, with None, and of those that are invalid, with False."""
    found = {name: op.get_bind().exec_driver_sql(_FIND, (name,)).scalar() for name in indexes}
    return {name: is_valid for name, is_valid in found.items() if not is_valid}


def _has_unchecked(op: Any) -> bool:
    return bool(op.get_bind().exec_driver_sql(_FIND_UNCHECKED).scalar())


def _may_commit(context: Any) -> bool:
    """Whether alembic began the transaction itself. It has no public name for that."""
    return getattr(context, "_transaction", None) is not None
