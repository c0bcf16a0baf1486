"""Creates the indexes of schema steps and validates their constraints, without blocking tables in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def create_missing(op: Any, indexes: Indexes) -> None:
    """Create those of the indexes that are missing or invalid, without blocking writes to their tables.

    `CREATE INDEX CONCURRENTLY` cannot run in a transaction: commits what alembic has done so far. When it is
    interrupted, the next call goes on. In a transaction that alembic must not commit, because the host began
    it, the indexes are created there, and block writes until its end.
    """
    context = op.get_context()
    valid = {} if context.as_sql else {name: _is_valid(op, name) for name in indexes}
    missing = {name: index for name, index in indexes.items() if not valid.get(name)}
    if not missing:
        return
    if not context.as_sql and not _may_commit(context):
        create(op, missing)
        return
    with context.autocommit_block():
        for name, (columns, query) in missing.items():
            if valid.get(name) is False:
                op.execute(f"DROP INDEX CONCURRENTLY opsjobs.{name}")
            _create(op, name, columns, query, how="CONCURRENTLY ")


def validate_constraints(op: Any) -> None:
    """Validate the constraints that steps added, as `create_missing` creates indexes."""
    context = op.get_context()
    if context.as_sql or op.get_bind().exec_driver_sql(_FIND_UNCHECKED).scalar():
        if not context.as_sql and not _may_commit(context):
            op.execute(VALIDATE)
            return
        with context.autocommit_block():
            op.execute(VALIDATE)


def _create(op: Any, name: str, columns: str, query: str, how: str = "") -> None:
    is_unique = columns.startswith("UNIQUE ")
    table, _, rest = columns.removeprefix("UNIQUE ").partition(" ")
    kind = "UNIQUE INDEX" if is_unique else "INDEX"
    op.execute(f"CREATE {kind} {how}{name} ON opsjobs.{table} {rest}")
    op.execute(f"COMMENT ON INDEX opsjobs.{name} IS '{query}'")


def _is_valid(op: Any, name: str) -> bool | None:
    """None when there is no such index."""
    is_valid: bool | None = op.get_bind().exec_driver_sql(_FIND, (name,)).scalar()
    return is_valid


def _may_commit(context: Any) -> bool:
    """Whether alembic began the transaction itself. It has no public name for that."""
    return getattr(context, "_transaction", None) is not None
