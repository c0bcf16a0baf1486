"""The read-only transaction in which a page reads: our own, never the host's session."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg
from sqlalchemy import exc, func, select
from sqlalchemy.orm import Session

from ..errors import SchemaBehind
from . import _problems
from ._host import host

# Every read of ours walks an index and stops. A plan that reads a whole table, or collects a whole
# state before it starts, is never what a page needs, whatever old statistics say; nor is the plan for
# any value that a prepared statement would get after its fifth run.
_PLANS = {
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "plan_cache_mode": "force_custom_plan",
}


@dataclass(frozen=True)
class Reading:
    """A session that can only read, and Postgres' time at its start."""

    session: Session
    now: datetime


@contextmanager
def reading() -> Iterator[Reading]:
    """One transaction, read-only, on one snapshot, so that the numbers of a page agree.

    Raises `Problem` when the schema is behind, the database away, or a statement too slow.
    """
    seconds = host().settings.page_timeout_seconds
    try:
        host().require_schema()
        with _transaction(seconds) as found:
            yield found
    except SchemaBehind as behind:
        raise _problems.schema_behind(str(behind)) from behind
    except exc.TimeoutError as full:  # the pool's, not Postgres'
        raise _problems.database_away() from full
    except exc.DBAPIError as error:
        if isinstance(error.orig, psycopg.errors.QueryCanceled):
            raise _problems.too_slow(seconds) from error
        if isinstance(error, exc.OperationalError) or error.connection_invalidated:
            raise _problems.database_away() from error
        if isinstance(error.orig, psycopg.errors.UndefinedTable):  # downgraded while we run
            raise _problems.schema_behind("the database's schema 'opsjobs' is gone") from error
        raise


@contextmanager
def _transaction(seconds: float) -> Iterator[Reading]:
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    with host().engine.connect().execution_options(**options) as connection:
        # SET LOCAL, as functions: all of them in one round trip, gone with the transaction.
        chosen = {"statement_timeout": f"{int(seconds * 1000)}", **_PLANS}
        wanted = [func.set_config(name, value, True) for name, value in chosen.items()]
        now = connection.execute(select(func.clock_timestamp(), *wanted)).one()[0]
        with Session(connection, autoflush=False) as session:
            yield Reading(session, now)
