"""Fills a database with as many jobs as asked, in constant memory: copies of jobs that production wrote.

The production writers record and end a thousand jobs a second here, so a million would take a quarter of an
hour and ten million three. So they make a few hundred (`bench_pages_sample`), and Postgres copies these in
bulk: each copy has an id, an account and a number of its own in arguments, errors, logs and tags, lies
somewhere in the last thirty days, and took another time. Every other column stays as production left it, and
`require_like_sample` compares what is filled. How often each task, state and end occurs is said in the tables
below.

Indexes are taken away, built anew from their own definitions, and then the last `LATE` rows pass through
them, so that they are as a busy database has them. Counter rows are summed per minute, queue and task from
the rows, and so are the ends of each task. No unique locks are made: pages do not read them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg

from flask_opsjobs.core import sql
from tools.bench_pages import composition
from tools.bench_pages.sample import ACCOUNT, NUMBER

Connection = psycopg.Connection[Any]

TASKS = {
    "process_invoice": 300,
    "send_receipt": 300,
    "deliver_webhook": 200,
    "resize_avatar": 100,
    "sync_customer": 50,
    "send_reminder": 30,
    "import_bank_file": 10,
    "render_report": 6,
    "rebuild_search": 4,
}
# Of a thousand jobs that ended.
ENDS = {"returned": 960, "exhausted": 30, "discarded": 4, "deadline": 1, "canceled": 5}
# How many live jobs there are, whatever the size of the table.
LIVE = {"available": 3_000, "queued": 400, "started": 8, "scheduled": 5_000, "retryable": 600}
DAYS, ACCOUNTS = 30, 5_000
LATE, CHUNK, SLOTS = 50_000, 100_000, 10_000

TABLES = {"jobs": "id", "attempts": "job_id", "outputs": "job_id"}

# One line for each copy: whose copy it is, when it was enqueued, and how much longer it took.
_COPIES = """
    FROM generate_series(%(low)s::bigint, %(high)s::bigint) AS n
    CROSS JOIN LATERAL (SELECT
        abs(hashint8extended(n, 1)) AS chance, abs(hashint8extended(n, 2)) %% {ACCOUNTS} AS account,
        CASE WHEN n <= %(final)s THEN abs(hashint8extended(n, 3)) %% {SLOTS}
             ELSE {SLOTS} + n - %(final)s END AS slot,
        CASE WHEN n <= %(final)s THEN %(now)s - interval '{DAYS} d' * (1 - n / %(final)s::float8)
             ELSE %(now)s - interval '2 h' * ((%(last)s - n) / %(live)s::float8) END AS created) AS c
    JOIN sample.picks p USING (slot) JOIN sample.jobs j ON j.id = p.job_id
    CROSS JOIN LATERAL (SELECT CASE WHEN j.ended_at IS NULL THEN 1 ELSE
        least(1 + 200 * power(c.chance %% 1000 / 1000.0, 4)::float8,
              extract(epoch FROM %(now)s - created)::float8
              / greatest(extract(epoch FROM j.ended_at - j.created_at)::float8, 1e-6)) END AS longer) AS l
""".format(**globals())
_MOMENT = "c.created + (s.{0} - j.created_at) * l.longer"
_MARKED = (
    f"replace(replace(s.{{0}}::text, '{ACCOUNT}', c.account::text), '{NUMBER}', n::text)::{{1}}"
)


def fill(connection: Connection, rows: int) -> None:
    """Make `rows` jobs out of those in the tables, which are replaced. `connection` is in autocommit."""
    live = sum(LIVE.values())
    assert rows > 10 * live, f"at least {10 * live:,} rows, else most of them would be live"
    connection.execute("SET synchronous_commit = off; SET maintenance_work_mem = '512MB'")
    connection.execute("SET session_replication_role = replica")  # no check of each foreign key
    _set_aside(connection)
    _choose(connection)
    (now,) = _one(connection, "SELECT clock_timestamp()")
    known = {"final": rows - live, "last": rows, "live": live, "now": now}
    with _without_indexes(connection):
        _copy(connection, known, 1, rows - LATE)
    connection.execute(f"VACUUM {_names()}")
    _copy(connection, known, rows - LATE + 1, rows)
    connection.execute("SELECT setval(pg_get_serial_sequence('opsjobs.jobs', 'id'), %s)", [rows])
    connection.execute(
        "INSERT INTO opsjobs.job_count_deltas (at, queue, task, enqueued) "
        "SELECT date_trunc('minute', created_at), queue, task, count(*) FROM opsjobs.jobs GROUP BY 1, 2, 3"
    )
    moved = "FROM (SELECT *, NULL::bigint AS peak_kb FROM opsjobs.jobs) AS moved"
    connection.execute(sql.load("append_task_ends").replace("FROM moved", moved))
    connection.execute("RESET session_replication_role; ANALYZE")


def require_like_sample(connection: Connection) -> None:
    """Return when, by state, the copies have the same columns filled never,
    at times and always as production left.
    """
    for table, key in TABLES.items():
        made, copied = (_filled(connection, schema, table, key) for schema in ("sample", "opsjobs"))
        differs = {
            place: (made.get(place), copied.get(place))
            for place in made.keys() | copied.keys()
            if made.get(place) != copied.get(place)
        }
        assert not differs, f"the copies of {table} are not as production writes them: {differs}"


def _filled(
    connection: Connection, schema: str, table: str, key: str
) -> Mapping[tuple[str, str], str]:
    """By state and column whether it is filled, of the newest rows: all live ones are among them."""
    columns = _columns(connection, table).keys() - composition.columns(1).keys()
    counts = ", ".join(f"count(t.{column})" for column in columns)
    statement = (
        f"SELECT j.state, count(*), {counts} FROM {schema}.{table} t JOIN {schema}.jobs j ON j.id = t.{key} "
        f"WHERE j.id > (SELECT max(id) - 200000 FROM {schema}.jobs) GROUP BY 1"
    )
    return {
        (state, column): "never" if not number else "always" if number == total else "at times"
        for state, total, *numbers in connection.execute(statement).fetchall()
        for column, number in zip(columns, numbers, strict=True)
    }


def _set_aside(connection: Connection) -> None:
    connection.execute("CREATE SCHEMA sample")
    for table in TABLES:
        connection.execute(f"CREATE TABLE sample.{table} AS TABLE opsjobs.{table}")
    connection.execute("ALTER TABLE sample.jobs ADD PRIMARY KEY (id)")
    connection.execute(
        f"TRUNCATE {_names()}, opsjobs.unique_locks, opsjobs.job_count_deltas, opsjobs.enqueue_counts, "
        "opsjobs.task_end_deltas, opsjobs.task_minutes, opsjobs.task_hours"
    )


def _choose(connection: Connection) -> None:
    """Which sample each slot stands for: final jobs find one by chance, live ones in turn."""
    finals = connection.execute(
        "SELECT id, ended_by, task, count(*) OVER (PARTITION BY ended_by, task) "
        "FROM sample.jobs WHERE ended_at IS NOT NULL ORDER BY id"
    ).fetchall()
    chances = random.Random(1)
    weights = _weights(finals)
    ids = [row[0] for row in finals]
    picks = [*ids, *chances.choices(ids, weights, k=SLOTS - len(ids))]
    chances.shuffle(picks)
    connection.execute("CREATE TABLE sample.picks (slot bigint PRIMARY KEY, job_id bigint)")
    live = list(_live(connection))
    chances.shuffle(live)
    with connection.cursor() as cursor:
        rows = [*enumerate(picks), *enumerate(live, SLOTS + 1)]
        cursor.executemany("INSERT INTO sample.picks VALUES (%s, %s)", rows)
    connection.execute("ANALYZE sample.jobs, sample.picks")


def _weights(finals: Sequence[Any]) -> list[float]:
    """Ends in the shares of `ENDS`, within each its tasks in the shares of `TASKS`."""
    ends: dict[str, float] = {}
    for _, end, task, alike in finals:
        ends[end] = ends.get(end, 0) + TASKS[task] / alike
    return [ENDS[end] / ends[end] * TASKS[task] / alike for _, end, task, alike in finals]


def _live(connection: Connection) -> Iterator[int]:
    for state, number in LIVE.items():
        ids = connection.execute("SELECT id FROM sample.jobs WHERE state = %s", [state]).fetchall()
        yield from (ids[turn % len(ids)][0] for turn in range(number))


@contextmanager
def _without_indexes(connection: Connection) -> Iterator[None]:
    """Take away what is not a key, and build it anew."""
    found = connection.execute(
        "SELECT indexrelid::regclass::text, pg_get_indexdef(indexrelid) FROM pg_index "
        "WHERE NOT indisprimary AND indrelid = ANY(%s::regclass[])",
        [[f"opsjobs.{table}" for table in TABLES]],
    ).fetchall()
    for name, _ in found:
        connection.execute(f"DROP INDEX {name}")
    yield
    for _, definition in found:
        connection.execute(definition)


def _copy(connection: Connection, known: Mapping[str, Any], low: int, high: int) -> None:
    belongs = composition.columns(known["last"])
    statements = [_statement(connection, table, key, belongs) for table, key in TABLES.items()]
    for start in range(low, high + 1, CHUNK):
        chosen = {**known, "low": start, "high": min(high, start + CHUNK - 1)}
        for statement in statements:
            connection.execute(statement, chosen)


def _statement(connection: Connection, table: str, key: str, belongs: Mapping[str, str]) -> str:
    """Copies the rows of one table for a range of ids."""
    columns = _columns(connection, table)
    values = [
        "n"
        if column == key
        else belongs[column]
        if column in belongs
        else _value(column, kind).format(column, kind)
        for column, kind in columns.items()
    ]
    return (
        f"INSERT INTO opsjobs.{table} ({', '.join(columns)}) SELECT {', '.join(values)} {_COPIES} "
        f"JOIN sample.{table} s ON s.{key} = j.id ORDER BY n"
    )


def _value(column: str, kind: str) -> str:
    if kind == "timestamp with time zone":
        return _MOMENT
    is_marked = kind in ("jsonb", "text[]") or column in (
        *("error", "ended_reason"),
        *("traceback", "log_tail"),
    )
    return _MARKED if is_marked else "s.{0}"


def _columns(connection: Connection, table: str) -> dict[str, str]:
    return dict(
        connection.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER "
            "BY attnum",
            [f"opsjobs.{table}"],
        ).fetchall()
    )


def _names() -> str:
    return ", ".join(f"opsjobs.{table}" for table in TABLES)


def _one(connection: Connection, statement: str) -> tuple[Any, ...]:
    found = connection.execute(statement).fetchone()
    assert found is not None
    return tuple(found)
