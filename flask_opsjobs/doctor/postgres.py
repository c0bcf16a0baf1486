"""Checks Postgres: whether it answers, its version, the clocks, connections, transactions and vacuum."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool

from ..core import sql
from ..core.db import say_cause
from ..core.words import counted, span
from ..engine.redis.broker import broker_of
from ..engine.redis.clocks import read_redis_clocks
from ..host import MOST_ACTIONS
from ..install import database
from .check import ERROR, WARNING, CheckAnswer, CheckContext, DoctorCheck, error, ok, warning

# How far clocks may differ.
_CLOCK_WARNING_SECONDS, _CLOCK_ERROR_SECONDS = 2.0, 30.0
_LONG_SECONDS = 600.0
# Dead rows are many when there are so many, and more than live ones.
_MANY_DEAD = 100_000
# Postgres stops writing at 2,147 million.
_OLD_TRANSACTIONS = 1_000_000_000


def _reachable(context: CheckContext) -> CheckAnswer:
    try:
        _find_clock_offset(context)
    except DBAPIError as fault:
        run = _pg_isready(context.host.engine)
        return error("Postgres does not answer.", f"{say_cause(fault)}.", run)
    return ok("Postgres answers.")


# How `pg_isready` takes what psycopg gets of the URL. A password is not among them.
_OPTIONS = {"host": "-h", "port": "-p", "user": "-U", "dbname": "-d"}


def _pg_isready(engine: Engine) -> str:
    """The command that asks the server of this engine; what the URL leaves out, libpq decides there too."""
    _, given = engine.dialect.create_connect_args(engine.url)
    options = [[option, f"{given[name]}"] for name, option in _OPTIONS.items() if given.get(name)]
    return shlex.join(["pg_isready", *chain.from_iterable(options)])


def _version(context: CheckContext) -> CheckAnswer:
    with context.reading() as read:
        number = database.read_postgres_version(read.session.connection())
    if old := database.say_too_old(number):
        return error(f"{old}.")
    return ok(f"PostgreSQL {number // 10_000} is supported.")


def _clock(context: CheckContext) -> CheckAnswer:
    offsets = sorted(_clock_offsets(context), key=lambda found: -abs(found[1]))
    name, offset = offsets[0]
    if abs(offset) < _CLOCK_WARNING_SECONDS:
        return ok("The clocks of the app, of Postgres and of Redis agree.")
    answer = error if abs(offset) >= _CLOCK_ERROR_SECONDS else warning
    how = "ahead of" if offset > 0 else "behind"
    return answer(
        f"The clock of {name} is {abs(offset):.1f} s {how} this machine's.",
        "Jobs become due by the clock of Postgres; start times, heartbeats and pages use the others too.",
        run="timedatectl timesync-status",
    )


def _clock_offsets(context: CheckContext) -> Iterator[tuple[str, float]]:
    """By how many seconds the clock of each server is ahead of this machine's, at least.

    The time of the call does not count: it is not known when the server read its clock.
    """
    yield "Postgres", _find_clock_offset(context)
    before = datetime.now(UTC)
    for address, now in read_redis_clocks(broker_of(context.host).connections, context.queues):
        yield f"Redis {address}", _ahead(now, before)
        before = datetime.now(UTC)


def _find_clock_offset(context: CheckContext) -> float:
    """That of Postgres. The check that asks Redis too gets it from the one that asks only Postgres."""

    def read() -> float:
        before = datetime.now(UTC)
        with context.reading() as read:
            now = read.session.scalar(select(func.clock_timestamp()))
        assert now is not None
        return _ahead(now, before)

    return context.once("clock", read)


def _ahead(there: datetime, before: datetime) -> float:
    after = datetime.now(UTC)
    if before <= there <= after:
        return 0.0
    return (there - (before if there < before else after)).total_seconds()


def _connections(context: CheckContext) -> CheckAnswer:
    with context.reading() as read:
        row = _row(read.session.connection(), "examine_connections")
    need = _of_this_app(context) + row["of_workers"] + row["of_loops"]
    if row["free"] < need:
        return warning(
            f"{counted(row['free'], 'connection')} to Postgres may still be opened, and all processes "
            f"together need {need}.",
            f"max_connections is {row['most']}; {row['used']} are in use. In a deploy old and new processes "
            "run at the same time.",
            run='psql -c "SELECT usename, application_name, count(*) FROM pg_stat_activity GROUP BY 1, 2"',
        )
    return ok("Enough connections to Postgres are free.", f"{row['free']} are free, {need} needed.")


def _of_this_app(context: CheckContext) -> int:
    """How many connections one web process of the app may open."""
    pool = context.host.engine.pool
    most = pool.size() + max(pool._max_overflow, 0) if isinstance(pool, QueuePool) else 1
    return most + context.host.settings.page_connections + MOST_ACTIONS


def _long_transaction(context: CheckContext) -> CheckAnswer:
    with context.reading() as read:
        row = _row(read.session.connection(), "find_long_transaction", longest=_LONG_SECONDS)
    if not row:
        return ok("No transaction is open for more than 10 minutes.")
    return warning(
        f"A transaction of {row['name']} is open for {span(row['seconds'])}.",
        f"Its state is {row['state']}, its pid {row['pid']}. It keeps dead rows, so all tables grow.",
        run=f'psql -c "SELECT pid, state, query FROM pg_stat_activity WHERE pid = {row["pid"]}"',
    )


def _vacuum(context: CheckContext) -> CheckAnswer:
    with context.reading() as read:
        row = _row(read.session.connection(), "examine_vacuum")
    if row and row["age"] > _OLD_TRANSACTIONS:
        return warning(
            f"The oldest row of the database may be {row['age']:,} transactions old.",
            "Postgres stops accepting writes at 2,147,483,648: let vacuum freeze the tables.",
            run="vacuumdb --freeze --analyze",
        )
    if row and row["dead"] > max(_MANY_DEAD, row["live"]):
        return warning(
            f"The table {row['table']} has {row['dead']:,} dead rows and {row['live']:,} live ones.",
            "Autovacuum does not keep up: an open transaction holds it back, or its settings do.",
            run=f"vacuumdb --analyze --table opsjobs.{row['table']}",
        )
    return ok("Vacuum keeps up.")


def _row(connection: Any, statement: str, **values: Any) -> dict[str, Any]:
    """The first row of a statement by its columns; empty when there is none."""
    found = connection.exec_driver_sql(sql.load(statement), values or None).mappings().first()
    return dict(found) if found else {}


_IF_REACHABLE = ("postgres.reachable",)
_IF_CURRENT = ("schema.version",)

CHECKS = (
    DoctorCheck("postgres.reachable", (ERROR,), "Postgres answers", _reachable, gives="Postgres"),
    DoctorCheck(
        "postgres.version", (ERROR,), "PostgreSQL is 15 or newer", _version, needs=_IF_REACHABLE
    ),
    DoctorCheck(
        "postgres.clock",
        (WARNING, ERROR),
        "the clocks of the app, of Postgres and of Redis differ by less than 2 s, at most by 30 s",
        _clock,
        needs=_IF_REACHABLE,
    ),
    DoctorCheck(
        "postgres.connections",
        (WARNING,),
        "as many connections are free as all processes together need",
        _connections,
        needs=_IF_CURRENT,
    ),
    DoctorCheck(
        "postgres.long_transaction",
        (WARNING,),
        "no transaction is open for more than 10 minutes",
        _long_transaction,
        needs=_IF_REACHABLE,
    ),
    DoctorCheck(
        "postgres.vacuum",
        (WARNING,),
        "no table of ours has more than 100,000 dead rows and more dead than live ones, and no row is older "
        "than 1,000,000,000 transactions",
        _vacuum,
        needs=_IF_CURRENT,
    ),
)
