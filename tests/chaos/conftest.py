"""A whole site for chaos tests: own servers, worker and loop processes,
and a host that enqueues in the test.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import text

from flask_opsjobs.core.db import SpareConnections, connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.loops.loop import Loop, Runner
from flask_opsjobs.testing.postgres import TemporaryPostgres
from flask_opsjobs.testing.valkey import Valkey
from tests.support import host as host_module
from tests.support.database import Administrator, Databases
from tests.support.processes import Child, Children
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chaos

# Heartbeats, lateness and recalls fast enough for a test; the proportions are those of production.
HASTE = {
    "OPSJOBS_HEARTBEAT_SECONDS": 0.3,
    "OPSJOBS_LATE_SECONDS": 1.2,
    "OPSJOBS_MISSING_SECONDS": 2.5,
    "OPSJOBS_RECALL_SECONDS": 1.0,
}
# What a worker does only after a part of these times comes after each test.
CALM = {"OPSJOBS_LATE_SECONDS": 300, "OPSJOBS_MISSING_SECONDS": 600}

MOVING_LOOPS = """
import sys
from flask_opsjobs.loops import LOOPS
from flask_opsjobs.loops.process import LoopsProcess
from tests.support.host import create_app
app = create_app()
moving = ("dispatch", "stage", "advance", "fold", "expire", "watch", "recall", "observe")
loops = [loop for loop in LOOPS if loop.name in moving]
sys.exit(LoopsProcess(app.extensions["opsjobs"], loops, surround=app.app_context).run())
"""


class Site:
    """What an operator would have, with everything in reach of a kill."""

    def __init__(
        self,
        app: Flask,
        children: Children,
        postgres: TemporaryPostgres,
        valkey: Valkey,
        database_url: str,
    ) -> None:
        self.app = app
        self.postgres = postgres
        self.valkey = valkey
        self.database_url = database_url
        self._children = children
        # To look at the database again and again: each new session costs the server a process.
        self._looking = SpareConnections(app.extensions["opsjobs"].engine)
        self._config = {
            "SQLALCHEMY_DATABASE_URI": database_url,
            "OPSJOBS_REDIS_URL": valkey.url,
            **HASTE,
        }

    def worker(self, *words: str, **config: Any) -> Child:
        """Start a worker; returns when it listens."""
        child = self._children.flask("opsjobs", "worker", *words, **{**self._config, **config})
        child.wait_for("listens to", 30)
        return child

    @property
    def _environ(self) -> dict[str, str]:
        return {f"TEST_CONFIG_{key}": json.dumps(value) for key, value in self._config.items()}

    def python(self, code: str, *words: str) -> Child:
        """Start Python code that makes the host's app itself; `words` are its `sys.argv[1:]`."""
        return self._children.python("-c", code, *words, env=self._environ)

    def command(self, *words: str, **config: Any) -> Child:
        """Start a command of ours."""
        return self._children.flask("opsjobs", *words, **{**self._config, **config})

    def plain_worker(self, *queues: str, app: str = "tests.support.host") -> Child:
        """Start a worker of RQ's own."""
        env = {**self._environ, "FLASK_APP": app}
        rq = str(Path(sys.executable).with_name("rq"))
        return self._children.python(rq, "worker", "--url", self.valkey.url, *queues, env=env)

    def loops(self, **config: Any) -> Child:
        """Start the loops."""
        return self._children.flask("opsjobs", "run", **{**self._config, **config})

    def moving_loops(self) -> Child:
        """Start the loops that move jobs. The others look, count and clean up, which costs more."""
        return self.python(MOVING_LOOPS)

    def rows(self, statement: str, *values: Any) -> list[Any]:
        """The rows of a query, on a connection beside the host's; none while Postgres is away."""
        try:
            with self._looking.one() as connection:
                return connection.execute(statement, values).fetchall()
        except psycopg.Error:
            return []

    def end(self) -> None:
        """Kill all of its processes that still run."""
        self._children.end()

    def close(self) -> None:
        """Leave the database."""
        self._looking.close()

    def states(self) -> dict[str, int]:
        """How many managed jobs are in each state. Plain RQ jobs have rows too."""
        return dict(
            self.rows(
                "SELECT state, count(*) FROM opsjobs.jobs WHERE origin = 'opsjobs' GROUP BY state"
            )
        )

    def wait_until_all(self, state: str, count: int, timeout: float = 60) -> None:
        """Wait until all managed jobs are in `state`, `count` of them."""
        wait_until(
            lambda: self.states() == {state: count},
            timeout,
            what=lambda: f"all {count} jobs {state}: at last {self.states()}",
        )

    def assert_unharmed(self, jobs: Collection[int]) -> None:
        """Of these jobs none was lost, none began after its end was recorded, and no good one was exhausted.

        They are calls of `witness`: what the function itself wrote is compared with the recorded end.
        """
        engine = self.app.extensions["opsjobs"].engine
        with closing(connect_apart(engine)) as connection:

            def ask(statement: str) -> list[Any]:
                return connection.execute(statement, {"jobs": list(jobs)}).fetchall()

            kept = "FROM opsjobs.jobs WHERE id = ANY (%(jobs)s)"
            assert ask(f"SELECT count(*) {kept}") == [(len(jobs),)], "0 lost: each has a row"
            assert ask(f"SELECT id, state, ended_by {kept} AND state <> 'finished'") == []
            began = "FROM public.begun b JOIN opsjobs.jobs j ON j.id = b.job_id"
            assert ask(f"SELECT count(DISTINCT id) {began} WHERE id = ANY (%(jobs)s)") == [
                (len(jobs),)
            ], "0 lost: each has begun"
            late = ask(f"SELECT id, at - ended_at {began} WHERE at > ended_at")
            assert late == [], "0 begun after their end was recorded"
            assert ask("SELECT id FROM opsjobs.jobs WHERE ended_by = 'exhausted'") == []


class Passes:
    """Makes passes of loops in this process, one loop after the other."""

    def __init__(self, site: Site, *loops: Loop) -> None:
        host = site.app.extensions["opsjobs"]
        self._connection = connect_apart(host.engine)
        self._runners = [Runner(loop, host, "calm") for loop in loops]

    def make(self, after: timedelta = timedelta()) -> None:
        """Make a pass of each, as if it were so much later."""
        for runner in self._runners:
            while runner.run_once(self._connection, read_clock(self._connection) + after):
                pass
            assert runner.last_error is None

    def close(self) -> None:
        """Leave the database."""
        self._connection.close()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`--times 2` makes each of these tests twice."""
    times = metafunc.config.getoption("times")
    if times > 1:
        metafunc.fixturenames.append("repetition")
        metafunc.parametrize("repetition", range(1, times + 1))


@pytest.fixture
def administrator(own_database_url: str) -> Iterator[Administrator]:
    """Makes the site's database read-only, or refuses its recorders, and undoes it."""
    administrator = Administrator(own_database_url)
    yield administrator
    administrator.close()


@contextmanager
def made_site(
    children: Children, postgres: TemporaryPostgres, valkey: Valkey, database_url: str
) -> Iterator[Site]:
    """A site without any process yet, on these servers."""
    app = host_module.create_app(
        SQLALCHEMY_DATABASE_URI=database_url, OPSJOBS_REDIS_URL=valkey.url, **HASTE
    )
    with app.app_context():
        host_module.db.session.execute(text(host_module.BEGUN))
        host_module.db.session.commit()
    found = Site(app, children, postgres, valkey, database_url)
    yield found
    found.close()
    with app.app_context():
        host_module.db.engine.dispose()
    app.extensions["opsjobs"].spare.close()
    app.extensions["opsjobs"].pages.dispose()


@pytest.fixture
def site(
    children: Children, own_postgres: TemporaryPostgres, own_database_url: str, own_valkey: Valkey
) -> Iterator[Site]:
    """A site without any process yet."""
    with made_site(children, own_postgres, own_valkey, own_database_url) as site:
        yield site


@contextmanager
def site_on(postgres: TemporaryPostgres, databases: Databases, folder: Path) -> Iterator[Site]:
    """A site in a new database of a server that is kept, with a Valkey of its own."""
    url = databases.migrated()
    with Valkey() as valkey:
        text = url.render_as_string(hide_password=False)
        children = Children(folder, {"TEST_DATABASE_URL": text, "TEST_REDIS_URL": valkey.url})
        with made_site(children, postgres, valkey, text) as site:
            yield site
            children.end()
    databases.drop(url)


@pytest.fixture(scope="session")
def kept_postgres() -> Iterator[TemporaryPostgres]:
    """A durable Postgres that no test kills."""
    with TemporaryPostgres(durable=True) as postgres:
        yield postgres


@pytest.fixture(scope="session")
def kept_databases(kept_postgres: TemporaryPostgres) -> Databases:
    """The databases on it."""
    return Databases(kept_postgres.url())


@pytest.fixture
def new_site(
    tmp_path: Path, kept_postgres: TemporaryPostgres, kept_databases: Databases
) -> Iterator[Site]:
    """A site in a new database, without any process yet, for a test that kills no server."""
    with site_on(kept_postgres, kept_databases, tmp_path) as site:
        yield site


@pytest.fixture(scope="module")
def shared_site(
    tmp_path_factory: pytest.TempPathFactory,
    kept_postgres: TemporaryPostgres,
    kept_databases: Databases,
) -> Iterator[Site]:
    """A site for all tests of a module: they kill no server."""
    with site_on(kept_postgres, kept_databases, tmp_path_factory.mktemp("site")) as site:
        yield site
