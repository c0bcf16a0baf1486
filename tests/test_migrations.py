"""The numbered steps: they make exactly the models' tables, undo themselves, and grant what is asked."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import Connection, create_engine, event, make_url, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.pool import NullPool

from flask_opsjobs import tables
from flask_opsjobs.core import db
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.errors import ConfigError, MigrationBlocked, SchemaBehind
from flask_opsjobs.install import indexes, manifest, steps, turns
from flask_opsjobs.workers import transitions as workers
from tests.support.database import Databases, migrate, operations
from tests.support.waiting import wait_until
from tools.manifest import operations_for, written

# What Postgres keeps of the schema, each thing in its own normal form. The version's table is the runner's,
# not a model's.
CATALOG = {
    # A number may be kept as 5 or as '5'::smallint.
    "columns": r"""
        SELECT table_name, column_name, ordinal_position, data_type, udt_name, is_nullable,
               regexp_replace(column_default, '^''(-?\d+)''::[a-z ]+$', '\1'),
               is_identity, identity_generation
        FROM information_schema.columns WHERE table_schema = 'opsjobs'
          AND table_name <> 'schema_version'""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'opsjobs'::regnamespace AND contype <> 'n'
          AND conrelid::regclass::text <> 'opsjobs.schema_version'""",
    # The function of a trigger belongs to no model.
    "functions": r"""
        SELECT proname, regexp_replace(pg_get_functiondef(oid), '\s+', ' ', 'g') FROM pg_proc
        WHERE pronamespace = 'opsjobs'::regnamespace AND prorettype <> 'trigger'::regtype""",
    "indexes": """
        SELECT tablename, indexname, indexdef FROM pg_indexes
        WHERE schemaname = 'opsjobs' AND tablename <> 'schema_version'""",
}


@pytest.fixture
def connection(empty_database_url: str) -> Iterator[Connection]:
    """A connection to an empty database."""
    engine = create_engine(empty_database_url, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


@pytest.fixture
def migrated(database_url: str) -> Iterator[Connection]:
    """A connection to a database that all steps have made, for what does not change its schema."""
    engine = create_engine(database_url, poolclass=NullPool)
    with engine.connect() as connection:
        yield connection


def catalog(connection: Connection) -> dict[str, set[tuple[Any, ...]]]:
    """Everything that defines our tables, comparable between databases."""
    return {
        name: {tuple(row) for row in connection.execute(text(query))}
        for name, query in CATALOG.items()
    }


@pytest.mark.lane
def test_up_down_up(connection: Connection) -> None:
    migrate(connection)
    first = catalog(connection)
    assert steps.version(connection) == steps.latest() == db.SCHEMA_VERSION

    # One after the other, as `flask db downgrade base` does in a host that took each step when it came.
    for number in reversed(range(steps.latest())):
        steps.downgrade(operations(connection), to=number)
    assert steps.version(connection) == 0
    assert connection.scalar(text("SELECT to_regnamespace('opsjobs')")) is None

    migrate(connection)
    assert catalog(connection) == first
    connection.commit()


def test_up_and_down_again_do_nothing(connection: Connection) -> None:
    steps.downgrade(operations(connection), to=0)
    migrate(connection)
    connection.execute(text("INSERT INTO opsjobs.queues VALUES ('mail', false, 5, now())"))
    migrate(connection)
    assert connection.scalar(text("SELECT count(*) FROM opsjobs.queues")) == 1
    applied = connection.execute(text("SELECT version FROM opsjobs.schema_version"))
    assert list(applied.scalars()) == list(range(1, steps.latest() + 1))


@pytest.mark.lane
def test_the_steps_make_what_the_models_say(connection: Connection, databases: Databases) -> None:
    migrate(connection)
    url = databases.empty()
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as other:
        other.execute(text("CREATE SCHEMA opsjobs"))
        tables.metadata.create_all(other)
        assert catalog(connection) == catalog(other)
    databases.drop(url)


def test_autogenerate_sees_no_change(connection: Connection) -> None:
    migrate(connection)
    context = MigrationContext.configure(
        connection,
        opts={
            "include_schemas": True,
            "include_object": lambda _object, name, *_rest: name != "schema_version",
            "include_name": lambda name, kind, _parents: kind != "schema" or name == "opsjobs",
            "compare_type": True,
            "compare_server_default": True,
        },
    )
    assert compare_metadata(context, tables.metadata) == []


def test_every_index_names_its_query(migrated: Connection) -> None:
    silent = migrated.execute(
        text("""
            SELECT indexrelid::regclass::text FROM pg_index
            JOIN pg_class ON pg_class.oid = indexrelid
            WHERE relnamespace = 'opsjobs'::regnamespace
              AND obj_description(indexrelid, 'pg_class') IS NULL
              AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)""")
    )
    assert list(silent) == []


def test_every_foreign_key_to_jobs_is_indexed(migrated: Connection) -> None:
    """Pitfall: without one, deleting 100 jobs takes a second."""
    bare = migrated.execute(
        text("""
            SELECT conname FROM pg_constraint AS fk
            WHERE contype = 'f' AND confrelid = 'opsjobs.jobs'::regclass AND NOT EXISTS (
                SELECT FROM pg_index WHERE indrelid = fk.conrelid AND indkey[0] = fk.conkey[1])""")
    )
    assert list(bare) == []


AN_END = "state = 'finished', ended_at = now(), ended_by = "
UNSEEN = "state = 'unknown', ended_at = now()"
A_LOCK = "unique_key = 'k', unique_until = "


@pytest.mark.parametrize(
    ("illegal", "legal"),
    [
        ("origin = 'celery'", "origin = 'rq', state = 'deferred'"),
        ("origin = 'rq'", "origin = 'rq', state = 'scheduled'"),
        (f"{UNSEEN}, ended_by = 'unseen'", f"{UNSEEN}, ended_by = 'unseen', origin = 'rq'"),
        (f"{UNSEEN}, ended_by = 'returned', origin = 'rq'", f"{AN_END}'returned'"),
        (f"{AN_END}'unseen', origin = 'rq'", f"{AN_END}'canceled', origin = 'rq'"),
        ("state = 'running'", "state = 'deferred'"),
        (f"{AN_END}'luck'", f"{AN_END}'returned'"),
        ("state = 'finished'", f"{AN_END}'discarded'"),
        ("ended_at = now(), ended_by = 'returned'", f"{AN_END}'skipped'"),
        ("state = 'finished', ended_at = now()", f"{AN_END}'signaled'"),
        ("state = 'queued'", "state = 'queued', dispatched_at = now()"),
        ("state = 'started'", "state = 'started', started_at = now()"),
        ("reserved_by = 1", "reserved_by = 1, state = 'queued', dispatched_at = now()"),
        ("priority = 10", "priority = 9"),
        ("priority = -1", "priority = 0"),
        ("attempt = -1", "attempt = 0"),
        ("max_attempts = 0", "max_attempts = 1"),
        ("dispatch_no = -1", "dispatch_no = 0"),
        ("failed_deliveries = -1", "failed_deliveries = 0"),
        ("lost_reservations = -1", "lost_reservations = 0"),
        ("timeout_seconds = 0", "timeout_seconds = 1"),
        (f"{A_LOCK}'later'", f"{A_LOCK}'ended'"),
        ("unique_until = 'forever'", f"{A_LOCK}'forever'"),
        (
            "cancel_requested_at = now(), cancel_requested_by = 'ada'",
            "cancel_requested_at = now(), cancel_requested_by = 'ada', cancel_reason = 'no use'",
        ),
        (
            "cancel_requested_at = now(), cancel_reason = 'no use'",
            "cancel_requested_at = now(), cancel_requested_by = 'ada', cancel_reason = 'no use'",
        ),
        ("limiter = 'api', partition = ''", "limiter = 'api', partition = '', weight = 1"),
        ("limiter = 'api', weight = 1", "limiter = 'api', partition = '', weight = 2"),
        ("limiter = 'api', partition = '', weight = 0", "limiter = NULL, weight = NULL"),
    ],
)
def test_a_row_that_no_code_may_write_is_refused(
    migrated: Connection, illegal: str, legal: str
) -> None:
    migrated.execute(
        text("""INSERT INTO opsjobs.jobs
                    (task, queue, lane, state, args, max_attempts, created_at, due_at)
                VALUES ('w', 'q', 'q', 'available', '{}', 1, now(), now())""")
    )
    with (
        pytest.raises(IntegrityError, match="jobs_is_legal_check"),
        migrated.begin_nested(),
    ):
        migrated.execute(text(f"UPDATE opsjobs.jobs SET {illegal}"))
    migrated.execute(text(f"UPDATE opsjobs.jobs SET {legal}"))


def test_jobs_vacuums_early(migrated: Connection) -> None:
    options = migrated.scalar(
        text("SELECT reloptions FROM pg_class WHERE oid = 'opsjobs.jobs'::regclass")
    )
    assert "autovacuum_vacuum_scale_factor=0.02" in options


def test_a_version_of_the_future_is_refused(connection: Connection) -> None:
    with pytest.raises(SchemaBehind, match="schema version 99 of opsjobs is unknown"):
        steps.upgrade(operations(connection), to=99)
    migrate(connection)
    connection.execute(text("INSERT INTO opsjobs.schema_version (version) VALUES (99)"))
    with pytest.raises(SchemaBehind, match="install the release that wrote this revision"):
        steps.downgrade(operations(connection), to=0)


def test_a_downgrade_keeps_what_a_host_put_into_our_schema(connection: Connection) -> None:
    migrate(connection)
    connection.execute(text("CREATE TABLE opsjobs.of_the_host (id int)"))
    with pytest.raises(Exception, match="cannot drop schema opsjobs"):
        steps.downgrade(operations(connection), to=0)


@pytest.mark.parametrize("direction", ["upgrade", "downgrade"])
def test_a_script_can_be_written_without_a_database(direction: str) -> None:
    script = io.StringIO()
    options = {"as_sql": True, "output_buffer": script}
    op = Operations(MigrationContext.configure(dialect_name="postgresql", opts=options))
    if direction == "upgrade":
        steps.upgrade(op, since=0, to=1)
        assert "INSERT INTO opsjobs.schema_version (version) VALUES (1)" in script.getvalue()
    else:
        steps.downgrade(op, since=1, to=0)
        assert "DROP TABLE opsjobs.schema_version;\n\nDROP SCHEMA opsjobs;" in script.getvalue()
    assert "opsjobs.jobs" in script.getvalue()


def test_the_app_role_may_use_the_tables_and_nothing_else(
    connection: Connection, databases: Databases
) -> None:
    role = f"app {connection.engine.url.database}"
    connection.execute(text(f'CREATE ROLE "{role}"'))
    steps.upgrade(operations_for(connection, role), to=steps.latest())
    connection.execute(text(f'SET ROLE "{role}"'))
    connection.execute(text("SELECT max(version) FROM opsjobs.schema_version"))
    connection.execute(
        text("""INSERT INTO opsjobs.jobs
                    (task, queue, lane, state, args, max_attempts, created_at, due_at)
                VALUES ('w', 'q', 'q', 'available', '{}', 1, now(), now())""")
    )
    # As `enqueue` of a unique task does, before it inserts.
    connection.execute(text("SELECT nextval('opsjobs.jobs_id_seq')"))
    connection.execute(text("UPDATE opsjobs.jobs SET priority = 1"))
    connection.execute(text("DELETE FROM opsjobs.jobs"))
    with pytest.raises(Exception, match="permission denied"), connection.begin_nested():
        connection.execute(text("DELETE FROM opsjobs.schema_version"))
    with pytest.raises(Exception, match="must be owner"), connection.begin_nested():
        connection.execute(text("DROP TABLE opsjobs.jobs"))
    connection.rollback()


@pytest.mark.lane
def test_the_manifest_is_what_the_steps_make(connection: Connection) -> None:
    """When it is not, run `make manifest`."""
    assert written(connection) == manifest.manifest_path().read_text()


def test_an_app_role_that_does_not_exist_is_named(connection: Connection) -> None:
    with pytest.raises(ConfigError, match=r"OPSJOBS_APP_ROLE = 'nobody': .* no such role"):
        steps.upgrade(operations_for(connection, "nobody"), to=1)


def test_the_app_role_is_read_from_the_apps_config(connection: Connection) -> None:
    app = Flask("host")
    app.config["OPSJOBS_APP_ROLE"] = "nobody"
    with app.app_context(), pytest.raises(ConfigError, match="OPSJOBS_APP_ROLE = 'nobody'"):
        migrate(connection)


# --- the steps stay as they are

# The first half of the hash of each step's statements, without regard to white space.
PINNED = {
    1: "506baba93045772a6a152f7f7f04e874",
    2: "45b9596c651d1091fe75475c9b9028b3",
    3: "257c111d934e1c1134e90856e44850ee",
    4: "6c73fb1f2501a3ce04a05e420366d062",
    5: "06ec4461a7b88e10f97eb35237783ac8",
    6: "a28108b80a1e0b252e4bc7139e273ed7",
    7: "cb5e9730c173024aff5eae414d1ad0a6",
    8: "52d70c7d4a183574eb9f83f6ac8d3cb3",
    9: "bd739b80cf3bb1b50fc7c1106f1477f0",
    10: "3f86d0fb598880cd2453520b0e4d23c2",
    11: "71dba189055ff792d0772ba9fe86ec1f",
    12: "eef35f49493942925a908a239d744d6d",
    13: "23bff1258ab007b2a14d7eb13a6eb3d5",
    14: "33f5cc04157a1ba0f4c9df55f96a5644",
    15: "0033a49810cbac9339b56a9c2ab3101e",
    16: "d178b0a30fe25184d85f89d0f290a812",
    17: "ade4cfbb9db3790bfde1297aca038660",
    18: "f81a20ab6a5f84ef73f89fa659244d5a",
    19: "edf2c029604e382dd18bdc9657ed27ad",
    20: "aa0dae0c9cda48afbb766856d8082d18",
    21: "680469493463c3f3c2f300f6545f97d0",
    22: "20e759783852b92eb059b1580e2583a6",
    23: "0fd199d4d05f5fda76a00f3f405d5392",
    24: "4377f5819cd87c9fc574b802eac73ab4",
    25: "33998236111b85b218bdd726f7dd3262",
    26: "55dc7336c6de84a5a276c58ce5560f78",
    27: "cae03772b4f51f232be467f30e2828d2",
}


class Recorder:
    """Alembic's `op` that notes the statements of a step, with the grants to an app's role."""

    def __init__(self) -> None:
        self.statements: list[str] = []
        config = Config()
        config.attributes["opsjobs_app_role"] = "app"
        environment = EnvironmentContext(config, ScriptDirectory("."))
        options = {"as_sql": True, "output_buffer": io.StringIO()}
        self._context = MigrationContext.configure(
            dialect_name="postgresql", environment_context=environment, opts=options
        )

    def get_context(self) -> MigrationContext:
        return self._context

    def execute(self, statement: str) -> None:
        self.statements.append(" ".join(statement.split()))


def hash_of(number: int) -> str:
    """The hash of what a step does, in both directions, and of its indexes."""
    step, op = steps._step(number), Recorder()
    step.upgrade(op)
    indexes.create(op, step.INDEXES)
    step.downgrade(op)
    return hashlib.sha256("\n".join(op.statements).encode()).hexdigest()[:32]


@pytest.mark.parametrize("number", range(1, steps.latest() + 1))
def test_a_step_never_changes(number: int) -> None:
    assert hash_of(number) == PINNED[number], (
        f"schema step {number} has changed, but databases of hosts have run it already. Restore it, and "
        f"write what you need as a new step, migrations/v{steps.latest() + 1:03}_<what it adds>.py "
        "(CONTRIBUTING.md, A migration). Only a step that is in no release may change: then pin its new hash "
        "here"
    )


# --- a downgrade


def test_a_downgrade_says_what_it_loses(
    connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    migrate(connection)
    columns = (
        "task, queue, lane, state, origin, args, max_attempts, created_at, due_at, traceparent"
    )
    for origin, state, trace in (("rq", "deferred", "NULL"), ("opsjobs", "available", "'00-1'")):
        values = f"'w', 'q', 'q', '{state}', '{origin}', '{{}}', 1, now(), now(), {trace}"
        connection.execute(text(f"INSERT INTO opsjobs.jobs ({columns}) VALUES ({values})"))
    connection.execute(
        text("INSERT INTO opsjobs.deploys (version, at, source) VALUES ('1', now(), 'worker')")
    )
    steps.downgrade(operations(connection), to=9)
    assert capsys.readouterr().err.splitlines() == [
        "This downgrade of the schema opsjobs loses:",
        "    opsjobs.jobs.traceparent: 1 row",
        "    opsjobs.deploys: 1 row",
        "    opsjobs.jobs where origin = 'rq': 1 row",
    ]


def test_a_downgrade_names_a_table_that_goes_once(
    connection: Connection, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not also its columns, which earlier steps of the way back drop."""
    migrate(connection)
    columns = (
        "task, queue, lane, state, origin, args, max_attempts, created_at, due_at, traceparent"
    )
    values = "'w', 'q', 'q', 'deferred', 'rq', '{}', 1, now(), now(), '00-1'"
    connection.execute(text(f"INSERT INTO opsjobs.jobs ({columns}) VALUES ({values})"))
    steps.downgrade(operations(connection), to=0)
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if "opsjobs.jobs" in line] == ["    opsjobs.jobs: 1 row"]


@pytest.mark.parametrize("ahead", [-1, 0, 1, None])
def test_a_downgrade_is_refused_while_a_worker_knows_a_newer_schema(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, ahead: int | None
) -> None:
    """Its code is older by a step, as new as this one, newer by a step, or not known yet."""
    migrate(connection)
    session: Any = connection.connection.driver_connection
    now = read_clock(session)
    process = workers.WorkerProcess(
        name="web-1", host="web", pid=1, version="0.1.0", queues=["mail"], processes=1
    )
    worker = workers.register(session, process, now)
    if ahead is not None:
        monkeypatch.setattr(workers, "SCHEMA_VERSION", steps.latest() + ahead)
        workers.record_heartbeat(session, worker, workers.HeartbeatReport(1), now)
    if ahead == -1:
        with pytest.raises(MigrationBlocked, match="because worker web-1 sent a heartbeat just"):
            steps.downgrade(operations(connection), to=steps.latest() - 2)
    else:
        with pytest.raises(MigrationBlocked, match="because worker web-1 sent a heartbeat just"):
            steps.downgrade(operations(connection), to=steps.latest() - 1)
        assert steps.version(connection) == steps.latest()
        workers.stop(session, worker, now)
    steps.downgrade(operations(connection), to=steps.latest() - 1)
    assert steps.version(connection) == steps.latest() - 1


def test_a_downgrade_is_refused_while_loops_run(connection: Connection) -> None:
    migrate(connection)
    columns = "loop, process, started_at, last_at, every_seconds"
    values = "'dispatch', 'web-2', now(), now(), 1"
    connection.execute(text(f"INSERT INTO opsjobs.loop_runs ({columns}) VALUES ({values})"))
    refused = "because the process web-2 of the loops sent a heartbeat just now"
    with pytest.raises(MigrationBlocked, match=refused):
        steps.downgrade(operations(connection), to=steps.latest() - 1)
    connection.execute(text("UPDATE opsjobs.loop_runs SET last_at = now() - interval '46 s'"))
    steps.downgrade(operations(connection), to=steps.latest() - 1)
    assert steps.version(connection) == steps.latest() - 1


# --- a live host

LOCK = "LOCK TABLE opsjobs.jobs IN ACCESS SHARE MODE"


@pytest.fixture
def other(connection: Connection) -> Iterator[Connection]:
    """A second session of the same database."""
    with connection.engine.connect() as other:
        yield other


def test_a_step_does_not_wait_for_a_locked_table(
    connection: Connection, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "sleep", lambda _seconds: None)
    migrate(connection, to=1)
    connection.execute(text("SET lock_timeout = '20ms'"))
    connection.commit()
    other.execute(text(LOCK))
    with pytest.raises(
        MigrationBlocked, match="another transaction keeps one of its tables locked"
    ):
        migrate(connection, to=2)
    connection.rollback()
    assert steps.version(connection) == 1

    other.rollback()
    migrate(connection, to=2)
    assert steps.version(connection) == 2


@pytest.mark.parametrize(
    ("of_host", "of_step"), [("0", "500ms"), ("10s", "500ms"), ("20ms", "20ms")]
)
def test_a_shorter_lock_timeout_of_the_host_holds_and_each_is_back_afterwards(
    connection: Connection, of_host: str, of_step: str
) -> None:
    connection.execute(text(f"SET LOCAL lock_timeout = '{of_host}'"))
    op = operations(connection)
    with steps._short_lock_waits(op):
        assert connection.scalar(text("SHOW lock_timeout")) == of_step
    assert connection.scalar(text("SHOW lock_timeout")) == of_host


def test_a_longer_lock_timeout_of_the_host_makes_no_try_longer(
    connection: Connection, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "sleep", lambda _seconds: None)
    monkeypatch.setattr(steps, "_TRIES", 1)
    migrate(connection, to=1)
    connection.execute(text("SET lock_timeout = '1h'"))
    connection.commit()
    other.execute(text(LOCK))
    with pytest.raises(MigrationBlocked, match="keeps one of its tables locked"):
        migrate(connection, to=2)
    connection.rollback()
    assert connection.scalar(text("SHOW lock_timeout")) == "1h"


def test_of_two_upgrades_at_once_the_second_waits_and_does_nothing(
    connection: Connection, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one is committed while the second one waits."""
    migrate(connection, to=7)
    connection.commit()
    context = MigrationContext.configure(other)
    migrate(connection, to=8)
    waits: list[float] = []

    def commit_the_first(seconds: float) -> None:
        waits.append(seconds)
        connection.commit()

    monkeypatch.setattr(turns, "sleep", commit_the_first)
    with context.begin_transaction():
        steps.upgrade(Operations(context), to=8)
    assert len(waits) == 1
    assert steps.version(connection) == 8


# Two commands in one process have no `op` of their own, so it is given. The step has no indexes: their
# creation would wait for the transaction of the other command.
REVISION = """
from flask_opsjobs.install import steps
revision, down_revision = "ours", None
def upgrade(op): steps.upgrade(op, to=24)
"""


@contextmanager
def command(
    connection: Connection, scripts: ScriptDirectory, hook: Callable[[], object] = bool
) -> Iterator[None]:
    """`flask db upgrade`, committed after the block. It calls the `hook` when it has read its heads."""

    def list_revisions(heads: Any, _context: MigrationContext) -> Any:
        hook()
        return scripts._upgrade_revs("head", heads)

    environment = EnvironmentContext(Config(), scripts, fn=list_revisions)
    environment.configure(connection=connection)
    context = environment.get_context()
    with context.begin_transaction():
        context.run_migrations(op=Operations(context))
        yield


@pytest.mark.parametrize("moment", ["before its turn", "while it waits", "between its turns"])
def test_a_command_says_that_another_one_has_noted_its_revision(
    connection: Connection,
    other: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    moment: str,
) -> None:
    """It has read by then which revisions are applied, so Alembic would fail with words of its own."""
    (tmp_path / "versions").mkdir()
    (tmp_path / "versions/ours.py").write_text(REVISION)
    scripts = ScriptDirectory(str(tmp_path))
    migrate(connection, to=23)
    MigrationContext.configure(connection)._ensure_version_table()
    connection.commit()
    first = ExitStack()

    def run_the_first() -> None:
        with first:
            first.enter_context(command(connection, scripts))

    complete = indexes.complete
    hook: Callable[[], object] = bool
    if moment == "before its turn":
        hook = run_the_first
    elif moment == "while it waits":
        first.enter_context(command(connection, scripts))
        monkeypatch.setattr(turns, "sleep", lambda _seconds: first.close())
    else:

        def wait_for_the_first(*values: Any) -> None:
            monkeypatch.setattr(indexes, "complete", complete)
            run_the_first()
            complete(*values)

        monkeypatch.setattr(indexes, "complete", wait_for_the_first)
    blocked = pytest.raises(MigrationBlocked, match="another `flask db upgrade` has run at the")
    with blocked, command(other, scripts, hook):
        pass
    other.rollback()
    assert MigrationContext.configure(other).get_current_heads() == ("ours",)
    with command(other, scripts):
        assert steps.version(other) == 24


def test_missing_indexes_wait_while_another_migration_creates_some(
    connection: Connection, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(connection)
    connection.execute(text("DROP INDEX opsjobs.jobs_args"))
    connection.commit()
    other.exec_driver_sql(turns._INDEXES)
    found: list[object] = []

    def end_the_other(_seconds: float) -> None:
        found.append(other.scalar(text("SELECT to_regclass('opsjobs.jobs_args')")))
        other.rollback()

    monkeypatch.setattr(turns, "sleep", end_the_other)
    upgrade_in_transaction_of_alembic(connection, to=steps.latest())
    found.append(connection.scalar(text("SELECT to_regclass('opsjobs.jobs_args')")))
    assert found == [None, "opsjobs.jobs_args"]


def test_who_waits_to_create_indexes_keeps_no_transaction_and_then_no_snapshot(
    connection: Connection, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever creates some would wait for it, and it for them; and later it for itself."""
    connection.exec_driver_sql(turns._INDEXES)
    looks: list[list[object]] = []
    snapshots = """
        SELECT backend_xmin FROM pg_stat_activity
        WHERE datname = current_database() AND xact_start IS NOT NULL AND pid <> pg_backend_pid()
    """

    def look(_seconds: float) -> None:
        looks.append([*connection.exec_driver_sql(snapshots).scalars()])
        if len(looks) == 10:
            connection.rollback()

    monkeypatch.setattr(turns, "sleep", look)
    with turns.turn_of_indexes(other):
        looks.append([*connection.exec_driver_sql(snapshots).scalars()])
    assert looks == [[]] * 10 + [[None]]


def test_two_upgrades_race_over_all_steps(connection: Connection, empty_database_url: str) -> None:
    migrate(connection, to=4)
    connection.commit()
    ready = threading.Barrier(2)

    def race() -> None:
        engine = create_engine(empty_database_url, poolclass=NullPool)
        with engine.connect() as one:
            ready.wait()
            upgrade_in_transaction_of_alembic(one, to=steps.latest())

    with ThreadPoolExecutor() as threads:
        for done in [threads.submit(race), threads.submit(race)]:
            done.result()
    assert connection.scalar(text("SELECT count(*) FROM opsjobs.schema_version")) == steps.latest()
    bad = "SELECT FROM pg_index WHERE NOT indisvalid"
    assert list(connection.execute(text(bad))) == []
    ended = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert connection.scalar(text(ended)) == 0


def test_what_waits_too_long_for_another_migration_says_so(
    connection: Connection, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(turns, "_MOST_SECONDS", 0)
    migrate(connection)
    with pytest.raises(MigrationBlocked, match="another migration of the schema opsjobs has run"):
        migrate(other)
    with pytest.raises(MigrationBlocked, match="another migration of the schema opsjobs has run"):
        steps.downgrade(operations(other), to=0)


def upgrade_in_transaction_of_alembic(connection: Connection, to: int) -> None:
    """Upgrade as `flask db upgrade` does: alembic begins and ends the transaction."""
    context = MigrationContext.configure(connection)
    with context.begin_transaction():
        steps.upgrade(Operations(context), to=to)


def test_indexes_on_tables_in_use_come_last_and_do_not_block_writes(connection: Connection) -> None:
    migrate(connection, to=1)
    connection.commit()
    statements: list[tuple[str, bool]] = []

    @event.listens_for(connection.engine, "before_cursor_execute")
    def note(conn: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if "INDEX" in statement and "COMMENT" not in statement:
            is_autocommit = conn.connection.driver_connection.autocommit
            statements.append((statement.partition(" ON ")[0], is_autocommit))

    upgrade_in_transaction_of_alembic(connection, to=2)
    assert statements == [
        (f"CREATE INDEX CONCURRENTLY {name}", True) for name in steps._step(2).INDEXES
    ]
    assert steps.version(connection) == 2


def test_an_interrupted_index_is_created_again(
    connection: Connection, databases: Databases
) -> None:
    migrate(connection)
    whole = catalog(connection)
    connection.execute(text("DROP INDEX opsjobs.jobs_args"))
    connection.execute(
        text(
            "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'opsjobs.jobs_tags'::regclass"
        )
    )
    connection.commit()
    upgrade_in_transaction_of_alembic(connection, to=steps.latest())
    assert catalog(connection) == whole
    invalid = connection.execute(
        text("SELECT indexrelid::regclass FROM pg_index WHERE NOT indisvalid")
    )
    assert list(invalid) == []


def test_indexes_are_created_in_a_transaction_that_the_host_began(connection: Connection) -> None:
    migrate(connection, to=1)
    migrate(connection)
    assert connection.scalar(text("SELECT to_regclass('opsjobs.jobs_args')")) == "opsjobs.jobs_args"
    connection.rollback()
    assert steps.version(connection) == 0


ROWS = (
    """
    INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at, attempt,
        started_at, ended_at, ended_by)
    SELECT 'send', 'mail', 'mail', 'finished', jsonb_build_object('number', number), 3, now(), now(), 1,
        now(), now(), 'returned' FROM generate_series(1, %s) AS number""",
    """
    INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker, started_at, ended_at, outcome)
    SELECT id, 1, 1, 'web-1', now(), now(), 'returned' FROM opsjobs.jobs""",
    "ANALYZE opsjobs.jobs, opsjobs.attempts",
)
WRITES = (
    """
    INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at)
    VALUES ('send', 'mail', 'mail', 'available', '{}', 3, now(), now()) RETURNING id""",
    """
    UPDATE opsjobs.jobs SET state = 'started', started_at = now(), attempt = 1, dispatch_no = 1
    WHERE id = %s""",
    """
    INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker, started_at)
    VALUES (%s, 1, 1, 'web-1', now())""",
)


class Writer(threading.Thread):
    """Enqueues and begins jobs until it is told to stop, and notes how long the slowest statement took."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        dsn = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        self._session = psycopg.connect(dsn, autocommit=True)
        self._is_over = threading.Event()
        self.written, self.slowest = 0, 0.0

    def run(self) -> None:
        job: tuple[Any, ...] | None = None
        while not self._is_over.is_set():
            for statement in WRITES:
                begun = time.monotonic()
                cursor = self._session.execute(statement, job if "%s" in statement else None)
                self.slowest = max(self.slowest, time.monotonic() - begun)
                job = cursor.fetchone() if cursor.description else job
            self.written += 1

    def write_more(self) -> None:
        """Return when it has written again; fail when a statement of it has failed."""
        before = self.written
        wait_until(lambda: self.written > before or not self.is_alive(), 60)
        assert self.is_alive()

    def stop(self) -> None:
        self._is_over.set()
        self.join()
        self._session.close()


@pytest.mark.slow
def test_no_step_lets_a_writer_wait(
    connection: Connection, empty_database_url: str, pytestconfig: pytest.Config
) -> None:
    """Each step on many rows, beside one who writes; the steps and their longest waits are printed."""
    rows: int = pytestconfig.getoption("migrated_rows")
    migrate(connection, to=1)
    connection.exec_driver_sql(ROWS[0], (rows,))
    for statement in ROWS[1:]:
        connection.exec_driver_sql(statement)
    connection.commit()
    waits = {}
    for number in range(2, steps.latest() + 1):
        writer = Writer(empty_database_url)
        writer.start()
        writer.write_more()
        upgrade_in_transaction_of_alembic(connection, to=number)
        writer.write_more()
        writer.stop()
        waits[number] = writer.slowest
    for number, wait in waits.items():
        print(f"step {number} on {rows:,} jobs: a writer waited at most {wait * 1000:.0f} ms")
    assert max(waits.values()) <= 3


def test_a_constraint_is_validated_after_it_was_added(connection: Connection) -> None:
    migrate(connection, to=7)
    connection.commit()
    upgrade_in_transaction_of_alembic(connection, to=8)
    unchecked = connection.execute(text("SELECT conname FROM pg_constraint WHERE NOT convalidated"))
    assert list(unchecked) == []


def test_a_blocked_step_is_tried_again(
    connection: Connection, other: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is free when the step comes back; what it had locked was free meanwhile."""
    migrate(connection, to=7)
    connection.execute(text("SET lock_timeout = '20ms'"))
    connection.commit()
    other.execute(text(LOCK))
    pauses: list[float] = []

    def let_go(seconds: float) -> None:
        pauses.append(seconds)
        other.rollback()

    monkeypatch.setattr(steps, "sleep", let_go)
    migrate(connection, to=8)
    assert steps.version(connection) == 8
    assert len(pauses) == 1
