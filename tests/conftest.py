"""The fixtures of every test: servers for the session, and a database, an app and a clock for each test.

Postgres and Valkey come from their wheels. Set `OPSJOBS_TEST_DATABASE_URL` or `OPSJOBS_TEST_REDIS_URL`
to use others: the database's role must be allowed to create databases, and Redis' database is emptied.
"""

from __future__ import annotations

import contextvars
import faulthandler
import gc
import json
import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from flask_sqlalchemy import SQLAlchemy
from hypothesis import HealthCheck, settings
from redis import Connection as RedisConnection
from redis import ConnectionError as RedisConnectionError
from redis import Redis
from redis import TimeoutError as RedisTimeoutError
from sqlalchemy.engine import make_url

from flask_opsjobs import OpsJobs, signals
from flask_opsjobs.engine.redis.broker import Broker, broker_of
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.testing.postgres import TemporaryPostgres
from flask_opsjobs.testing.valkey import Valkey
from tests.docs.proofs import Proofs, list_proofs, read_rows
from tests.support.browser import launched
from tests.support.clock import Clock
from tests.support.compiled import App, compile_once
from tests.support.database import Administrator, Databases, MigratedPostgres
from tests.support.engine import Bench
from tests.support.lanes import Lanes, mark_processes, slow_first, take_few_cases
from tests.support.once import take_first_turn, wait_for_first_turn
from tests.support.open_connections import name_the_opener
from tests.support.pgbouncer import MISSING, PgBouncer
from tests.support.policies import AllowAll, ShowAll
from tests.support.processes import Children
from tests.support.serving import served
from tests.support.sessions import KeptSessions

# A host's database may have any time zone. Processes that tests start have it too.
os.environ.setdefault("PGTZ", "Asia/Kathmandu")
_turn = take_first_turn()
name_the_opener()
# A fact that an event does not declare fails the test.
signals.is_strict = True
# A machine with other work draws examples slowly, which says nothing about the code.
settings.register_profile(
    "busy", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")

# --- options


def pytest_addoption(parser: pytest.Parser) -> None:
    if pytest.version_tuple < (9,):
        # pyproject.toml sets it. pytest 8, on which a lane runs, does not know it.
        parser.addini("faulthandler_exit_on_timeout", "Ignored.", type="bool")
    parser.addoption(
        "--times", type=int, default=1, help="Make each test of tests/chaos so many times."
    )
    parser.addoption(
        "--graphs", type=int, default=40, help="Make so many random workflows in tests/chaos."
    )
    parser.addoption(
        "--pool-jobs", type=int, default=1500, help="Run so many jobs in tests/chaos/test_pool.py."
    )
    parser.addoption(
        "--restore-jobs",
        type=int,
        default=2000,
        help="Record so many jobs in tests/chaos/test_restore.py; a hundredth of them is in Redis.",
    )
    parser.addoption(
        "--operation-jobs",
        type=int,
        default=600,
        help="Let so many jobs be changed in tests/operations/test_killed.py.",
    )
    parser.addoption(
        "--audit-rows",
        type=int,
        default=2000,
        help="Let so many decisions be verified and exported in tests/audit/test_memory.py.",
    )
    parser.addoption(
        "--searches",
        type=int,
        default=60,
        help="Compare so many searches with the oracle in tests/jobs; 300 search 20,000 jobs.",
    )
    parser.addoption(
        "--bridge-jobs",
        type=int,
        default=5000,
        help="Let so many jobs be in the registry of which tests/bridge/test_pages.py reads a page.",
    )
    parser.addoption(
        "--migrated-rows",
        type=int,
        default=20_000,
        help="Run each migration step on so many jobs in tests/test_migrations.py.",
    )
    parser.addoption(
        "--upgrade-jobs",
        type=int,
        default=10,
        help="Enqueue so many jobs in each part of an upgrade in tests/upgrade.",
    )
    parser.addoption(
        "--soak-minutes",
        type=int,
        default=0,
        help="Let a worker run for so long in tests/chaos/test_soak.py.",
    )
    parser.addoption(
        "--chaos-jobs",
        type=int,
        default=640,
        help="Run so many jobs of all kinds in tests/chaos/test_chaos_run.py: each fault strikes once.",
    )
    parser.addoption(
        "--seed",
        type=int,
        help="The seed of the first of these workflows, and of tests/chaos/test_chaos_run.py.",
    )
    parser.addoption(
        "--fail-slow", action="store_true", help="Fail when an unmarked test takes over 20 s."
    )
    parser.addoption(
        "--few-cases", action="store_true", help="Of a test with many cases, make two."
    )
    parser.addoption(
        "--proofs",
        action="store_true",
        help="Fail when a promise of docs/support.toml was not shown: for a run of all tests.",
    )
    parser.addoption(
        "--prometheus",
        action="store_true",
        help="Let Debian's Prometheus, which must be installed, scrape a host and answer the boards.",
    )
    parser.addoption(
        "--faketime",
        action="store_true",
        help="Start a Valkey whose clock Debian's libfaketime sets off; it is installed when it is missing.",
    )
    parser.addoption(
        "--web-servers",
        action="store_true",
        help="Serve a host by gunicorn behind nginx, which must be installed.",
    )
    parser.addoption(
        "--variants",
        action="store_true",
        help="Make also the variants of a test whose code path another one of its variants shows.",
    )
    parser.addoption("--rq-suite", action="store_true", help="Make RQ's own tests on our worker.")
    parser.addoption(
        "--pgbouncer",
        choices=["prepared", "unprepared"],
        help="Reach Postgres through PgBouncer in transaction mode: one that knows prepared statements, "
        "or one that does not, with prepare_threshold=None in the app's engine options.",
    )


def pytest_configure(config: pytest.Config) -> None:
    compile_once()
    config.pluginmanager.register(Lanes(fail_slow=config.getoption("fail_slow")))
    if config.getoption("proofs"):
        config.pluginmanager.register(Proofs())
    kept = KeptSessions()
    config.pluginmanager.register(kept, "kept_sessions")
    if config.getoption("pgbouncer") is None:
        kept.start()
    if config.getoption("pgbouncer") == "unprepared":
        # Every app of the tests takes it from there, in child processes too.
        os.environ["TEST_CONFIG_SQLALCHEMY_ENGINE_OPTIONS"] = json.dumps(
            {"connect_args": {"prepare_threshold": None}}
        )


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Spare the garbage collector what is kept for the whole run: all modules and all tests.

    What a test leaves, such as an app, it looks for less often than Python would.
    One process collects before the others: where no test has been compiled yet, each would compile all.
    """
    gc.disable()
    try:
        wait_for_first_turn(_turn)
        return (yield)
    finally:
        os.close(_turn)
        gc.freeze()
        gc.set_threshold(10_000, 10, 10)
        gc.enable()


# Tests with one of these marks are made only when the option of that name is given.
_ASKED_FOR = ("rq_suite", "prometheus", "faketime", "web_servers", "variants")


# What a test calls its number when it is made again and again, with other chances each time, and how often
# `make check` makes it.
_AGAIN, _OFTEN = ("time", "turn", "seed"), 3


def _is_again(item: pytest.Item) -> bool:
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return any(isinstance(params.get(name), int) and params[name] >= _OFTEN for name in _AGAIN)


def _is_unasked(item: pytest.Item, mark: str) -> bool:
    return mark in item.keywords and not item.config.getoption(mark)


# Before `-m` chooses among the marks.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what starts processes and what shows a promise, and skip what is made only when it is asked for
    or what a lane cannot make.
    """
    lane = config.getoption("pgbouncer")
    proofs = list_proofs(read_rows())
    for item in items:
        mark_processes(item)
        if not proofs.isdisjoint((item.nodeid, item.nodeid.partition("[")[0])):
            item.add_marker(pytest.mark.promise)
        if _is_again(item):
            item.add_marker(pytest.mark.variants)
        fixtures = getattr(item, "fixturenames", ())
        if name := next((each for each in _ASKED_FOR if _is_unasked(item, each)), None):
            item.add_marker(pytest.mark.skip(reason=f"asked for by --{name.replace('_', '-')}"))
        elif lane and (item.get_closest_marker("sessions") or "administrator" in fixtures):
            item.add_marker(pytest.mark.skip(reason="needs sessions of Postgres of its own"))
        elif lane and MISSING:
            item.add_marker(pytest.mark.skip(reason=MISSING))
    if config.getoption("few_cases"):
        take_few_cases(config, items)
    slow_first(items)


# --- reports


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, Any]:
    """What a test logged may hold half characters on purpose;
    a report that passes between processes may not.
    """
    report = yield
    report.sections = [
        (title, said.encode("utf-8", "backslashreplace").decode())
        for title, said in report.sections
    ]
    return report


# --- forms of a test


@pytest.fixture
def jobs_of_pool(request: pytest.FixtureRequest) -> int:
    """How many jobs a test of the pool has: few in each run of the tests, 20,000 with `--pool-jobs 20000`."""
    number: int = request.config.getoption("pool_jobs")
    if number >= 20_000:
        faulthandler.cancel_dump_traceback_later()  # it ends a test after five minutes
    return number


@pytest.fixture
def is_long(jobs_of_pool: int) -> bool:
    """Whether the long forms are asked for: on a quiet machine, with the figures that must be shown."""
    return jobs_of_pool >= 20_000


# --- servers, once for the session


@pytest.fixture(scope="session")
def databases(pytestconfig: pytest.Config) -> Iterator[Databases]:
    """Makes databases on the session's Postgres: `.empty()` and `.migrated()` give URLs, `.drop(url)`."""
    given = os.environ.get("OPSJOBS_TEST_DATABASE_URL")
    with ExitStack() as stack:
        url = make_url(given) if given else stack.enter_context(TemporaryPostgres()).url()
        kept: Any = pytestconfig.pluginmanager.get_plugin("kept_sessions")
        databases = Databases(
            url.set(drivername="postgresql+psycopg"), kept=None if given else kept
        )
        stack.callback(databases.close)
        yield databases


@pytest.fixture(scope="session")
def _redis_url() -> Iterator[str]:
    given = os.environ.get("OPSJOBS_TEST_REDIS_URL")
    if given:
        yield given
        return
    # Each test process empties its own; so a lane on another server gives a program, not an address.
    program = os.environ.get("OPSJOBS_TEST_REDIS_PROGRAM")
    with Valkey(program=Path(program) if program else None) as server:
        yield server.url


@pytest.fixture(scope="session")
def _redis(_redis_url: str) -> Iterator[Redis]:
    """A client that is kept, since a new one costs more than what it is asked."""
    with Redis.from_url(_redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def _pooler(request: pytest.FixtureRequest, databases: Databases) -> Iterator[PgBouncer | None]:
    lane = request.config.getoption("pgbouncer")
    if lane is None:
        yield None
        return
    pooler = PgBouncer(databases.server, max_prepared_statements=200 if lane == "prepared" else 0)
    yield pooler
    pooler.close()


# --- a place for each test


@pytest.fixture
def database_url(
    request: pytest.FixtureRequest, databases: Databases, _pooler: PgBouncer | None
) -> Iterator[str]:
    """SQLAlchemy's URL of a new database with our schema."""
    url = databases.migrated()
    given = url if _pooler is None else _pooler.through(url)
    yield given.render_as_string(hide_password=False)
    databases.drop(url, by_name="processes" in request.node.keywords)


@pytest.fixture
def administrator(database_url: str) -> Iterator[Administrator]:
    """Makes the test's database read-only, or refuses its recorders, and undoes it."""
    administrator = Administrator(database_url)
    yield administrator
    administrator.close()


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """SQLAlchemy's URL of a new database without our schema."""
    url = databases.empty()
    yield url.render_as_string(hide_password=False)
    databases.drop(url)


@pytest.fixture
def redis_url(_redis_url: str, _redis: Redis) -> str:
    """The URL of an empty Redis database."""
    _redis.flushdb()
    return _redis_url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[Redis]:
    """A client of that database."""
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def clock() -> Clock:
    """A clock that only the test moves: pass `clock.now` where a time is taken."""
    return Clock()


# --- the host's app

MakeApp = Callable[..., Flask]


class _Client(FlaskClient):
    """Asks in a context of its own, as a server would: never in the test's, which would share its session."""

    def open(self, *args: Any, **kwargs: Any) -> Any:
        return contextvars.Context().run(super().open, *args, **kwargs)


@pytest.fixture
def make_app(request: pytest.FixtureRequest, redis_url: str) -> MakeApp:
    """Makes a host: `make_app(OPSJOBS_PREFETCH=3, access=…, display=…, opsjobs=…)`.

    It stands on the test's database and Redis unless the config says another. `TESTING`, so nothing
    is dispatched at commit.
    """

    def make(
        *,
        access: Any = None,
        display: Any = None,
        escalation: Any = None,
        opsjobs: OpsJobs | None = None,
        **config: Any,
    ) -> Flask:
        app = App("host")
        app.test_client_class = _Client
        if "SQLALCHEMY_DATABASE_URI" not in config:
            config["SQLALCHEMY_DATABASE_URI"] = request.getfixturevalue("database_url")
        app.config.update(TESTING=True, SECRET_KEY="only for tests", OPSJOBS_REDIS_URL=redis_url)
        app.config.from_prefixed_env("TEST_CONFIG")
        app.config.update(config)
        SQLAlchemy(app)
        request.getfixturevalue("_closing").callback(_close, app)
        opsjobs = opsjobs or OpsJobs()
        opsjobs.init_app(
            app,
            access=access or AllowAll(),
            display=display or ShowAll(),
            escalation=escalation,
        )
        return app

    return make


@pytest.fixture
def _closing() -> Iterator[ExitStack]:
    """Closes apps. It is asked for after the database of an app, so that it ends before that is dropped."""
    with ExitStack() as stack:
        yield stack


def _close(app: Flask) -> None:
    with app.app_context():
        for engine in app.extensions["sqlalchemy"].engines.values():
            engine.dispose()
    if "opsjobs" in app.extensions:
        host: Host = app.extensions["opsjobs"]
        host.spare.close()
        host.pages.dispose()
        broker_of(host).connections.close()


@pytest.fixture
def opsjobs() -> OpsJobs:
    """The extension of `app`; declare tasks on it."""
    return OpsJobs()


@pytest.fixture
def app(make_app: MakeApp, opsjobs: OpsJobs) -> Flask:
    """A host that allows and shows everything."""
    return make_app(opsjobs=opsjobs)


@pytest.fixture
def host(app: Flask) -> Host:
    """What the extension knows of `app`: settings, engine, tasks, policies, broker."""
    found: Host = app.extensions["opsjobs"]
    return found


@pytest.fixture
def db(app: Flask) -> Iterator[SQLAlchemy]:
    """The host's SQLAlchemy, with an app context pushed for the test, so that `db.session` works."""
    found: SQLAlchemy = app.extensions["sqlalchemy"]
    with app.app_context():
        yield found


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Asks `app` for pages."""
    return app.test_client()


# --- the engine, step by step

MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(host: Host) -> Iterator[MakeBench]:
    """Makes engines, each on a connection and with a worker of its own."""
    made: list[Bench] = []

    def make(name: str | None = None, **options: Any) -> Bench:
        made.append(Bench(host, name or f"worker-{len(made) + 1}", **options))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """One engine."""
    return make_bench()


@pytest.fixture
def note(opsjobs: OpsJobs) -> Task:
    """A task with nothing special."""

    def note(text: str = "") -> None:
        """Takes a text."""

    return opsjobs.task(note)


@pytest.fixture
def record_job(note: Task, db: SQLAlchemy) -> Callable[..., int]:
    """Records a job as a host does, and commits; its id."""

    def record(task: Task = note, *, text: str = "", **options: Any) -> int:
        enqueued = (
            task.options(**options).enqueue(text=text) if options else task.enqueue(text=text)
        )
        db.session.commit()
        return enqueued.id

    return record


# --- processes


@pytest.fixture
def children(tmp_path: Path, database_url: str, redis_url: str) -> Iterator[Children]:
    """Starts `children.flask("opsjobs", "worker", …)` on this test's database and Redis;
    kills all at the end.
    """
    env = {"TEST_DATABASE_URL": database_url, "TEST_REDIS_URL": redis_url}
    children = Children(tmp_path, env)
    yield children
    children.end()


@pytest.fixture
def live_url(app: Flask) -> Iterator[str]:
    """The root URL of `app`, answering over HTTP in a thread."""
    with served(app) as url:
        yield url


# --- servers that a test may kill


@pytest.fixture
def own_postgres() -> Iterator[MigratedPostgres]:
    """A durable Postgres for one test: `.kill()`, `.start()`, `.stop()`, `.freeze()`, `.thaw()`."""
    with MigratedPostgres() as server:
        yield server


@pytest.fixture
def own_database_url(own_postgres: MigratedPostgres) -> str:
    """SQLAlchemy's URL of a database with our schema on `own_postgres`."""
    return own_postgres.migrated


@pytest.fixture
def own_valkey() -> Iterator[Valkey]:
    """A Valkey for one test: `.kill()`, `.start()`, `.freeze()`, `.thaw()`, `.flushall()`;
    its `.url` stays.
    """
    with Valkey() as server:
        yield server


@pytest.fixture
def redis_waits(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """For how many seconds at most this process has waited in vain for a Redis, each time."""
    found: list[float | None] = []

    def note(name: str, limit: str) -> None:
        call = getattr(RedisConnection, name)

        def note_failure(connection: RedisConnection, *words: Any, **options: Any) -> Any:
            try:
                return call(connection, *words, **options)
            except (OSError, RedisConnectionError, RedisTimeoutError):
                found.append(getattr(connection, limit))
                raise

        monkeypatch.setattr(RedisConnection, name, note_failure)

    note("_connect", "socket_connect_timeout")
    note("read_response", "socket_timeout")
    return found


@pytest.fixture
def away(make_app: Any, own_valkey: Valkey, opsjobs: Any, note: Any) -> Broker:
    """The broker of a Redis that a test kills or freezes."""
    app = make_app(opsjobs=opsjobs, OPSJOBS_REDIS_URL=own_valkey.url)
    broker: Broker = app.extensions["opsjobs"].broker
    return broker


# --- a browser


@pytest.fixture(scope="module")
def _browser() -> Iterator[Any]:
    """Chromium for one module; for the whole folder in tests/browser."""
    with launched() as browser:
        yield browser


@pytest.fixture
def page(_browser: Any, live_url: str) -> Iterator[Any]:
    """A Playwright page in a fresh browser context, with `live_url` as its base:
    `page.goto("/ops/jobs/")`.
    """
    context = _browser.new_context(base_url=live_url)
    context.set_default_timeout(10_000)
    yield context.new_page()
    context.close()
