"""The guide *From rq-dashboard in ten minutes*: its files are written, its commands typed, in order."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from redis import Redis
from rq import Queue
from sqlalchemy.engine import make_url

from tests.support.processes import Child
from tests.support.sources import ROOT
from tests.support.waiting import wait_until

from .conftest import Newcomer

pytestmark = [pytest.mark.slow, pytest.mark.processes]

GUIDE = (ROOT / "docs/from-rq-dashboard.md").read_text()
_BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", re.M | re.S)
PAY = """
from app import app
with app.test_client() as client:
    for order in {orders}:
        print(client.post(f"/orders/{{order}}/pay").status_code)
"""
BY_NAME = """
from app import app, rq
with app.app_context():
    {call}
"""
PAGE = """
from app import app
print(app.test_client().get("/ops/jobs/jobs?{query}").text)
"""


class Reader(Newcomer):
    """Somebody who follows the guide."""

    def reads(self, heading: str) -> list[tuple[str, str]]:
        """The blocks of a section, each with its language."""
        _, begin, text = f"## \n{GUIDE}".partition(f"\n## {heading}\n" if heading else "## \n")
        assert begin, heading
        return _BLOCK.findall(text.partition("\n## ")[0])

    def follows(self, heading: str) -> None:
        """Write the files of a section and type its commands, in their order."""
        for language, block in self.reads(heading):
            if language == "python":
                self._write(block)
                continue
            for command in re.findall(r"^\$ flask (.+)$", block, re.M):
                self.does(*command.split())

    def _write(self, block: str) -> None:
        """Into the file that its first line names: all of it, at its end, or instead of a view."""
        name, _, where = block.splitlines()[0].removeprefix("# ").partition(", ")
        path = self.folder / name
        before = path.read_text() if where else ""
        if where.startswith("instead of "):
            view = where.removeprefix("instead of ")
            before, found = re.subn(
                rf"@app[^\n]*\ndef {view}\(.*?\n(?=\n\n|\Z)", "", before, flags=re.S
            )
            assert found == 1, where
        path.write_text(f"{before}\n\n{block}")

    def pays(self, *orders: int) -> None:
        """Ask the app to pay these orders."""
        said = self.runs(PAY.format(orders=list(orders)))
        assert said.split() == ["202"] * len(orders)

    def sees(self, query: str) -> str:
        """The page of jobs for a search."""
        return self.runs(PAGE.format(query=query))


@pytest.fixture
def reader(tmp_path: Path, site: Path, empty_database_url: str, redis_url: str) -> Reader:
    """Somebody with an empty folder, an empty database and an empty Redis."""
    folder = tmp_path / "shop"
    folder.mkdir()
    env = {
        "PYTHONPATH": str(site),
        "FLASK_SECRET_KEY": "only for tests",
        # The worker of Flask-RQ starts `flask rq` again by the command line, which a warm command has not.
        "FLASK_APP": "app",
        "FLASK_SQLALCHEMY_DATABASE_URI": empty_database_url,
        "FLASK_RQ_CONNECTION": redis_url,
    }
    return Reader(folder, env)


@pytest.fixture
def rows(empty_database_url: str) -> Iterator[Callable[[str], list[tuple[Any, ...]]]]:
    """The rows of a query in the reader's database."""
    url = make_url(empty_database_url).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as session:
        yield lambda query: session.execute(query.encode()).fetchall()


@pytest.fixture
def run_loops(reader: Reader, tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Starts `flask opsjobs run`, as the guide says."""
    started: list[Child] = []

    def run() -> None:
        ((language, block),) = reader.reads("See your jobs")
        assert (language, block) == ("console", "$ flask opsjobs run\n")
        words, site = [sys.executable, "-m", "flask", "opsjobs", "run"], reader.env["PYTHONPATH"]
        log = tmp_path / "loops"
        started.append(Child(words, log, reader.env, warm=site, folder=reader.folder))

    yield run
    for child in started:
        child.kill_all()


def test_a_reader_gets_where_the_guide_says(
    reader: Reader,
    rows: Callable[[str], list[tuple[Any, ...]]],
    run_loops: Callable[[], None],
    redis_client: Redis,
) -> None:
    states = "SELECT origin, state, count(*) FROM opsjobs.jobs GROUP BY 1, 2 ORDER BY 1, 2"
    reader.follows("")
    reader.pays(1, 0)
    reader.does("rq", "worker", "--burst")
    reader.pays(2)

    reader.follows("Install")
    run_loops()
    seen = [("rq", "failed", 1), ("rq", "finished", 1), ("rq", "queued", 1)]
    wait_until(lambda: rows(states) == seen, 60, what="all plain jobs have rows")
    assert reader.sees("origin=rq").count("shop_mail.send_receipt") >= 3
    assert "there is no order 0" in reader.sees("origin=rq&state=failed")

    reader.follows("Turn one function into a task")
    reader.pays(3)
    # Both kinds run: the plain job named the function before it became a task.
    reader.follows("Choose your workers")
    ended = [("opsjobs", "finished", 1), ("rq", "failed", 1), ("rq", "finished", 2)]
    wait_until(lambda: rows(states) == ended, 60, what="the task and the plain job have ended")
    # By its name the task still goes through RQ, also on a worker of ours.
    ((call,),) = [re.findall(r"^`(rq\.queue\.enqueue\(.+\))`", GUIDE, re.M)]
    reader.runs(BY_NAME.format(call=call))
    reader.does("opsjobs", "worker", "--burst")
    queue = Queue(connection=redis_client)
    assert (queue.count, queue.finished_job_registry.count) == (0, 3)


def test_a_reader_can_go_back(
    reader: Reader, rows: Callable[[str], list[tuple[Any, ...]]], redis_client: Redis
) -> None:
    reader.follows("")
    before = reader.files()
    reader.pays(1, 2)
    reader.follows("Install")
    reader.does("opsjobs", "restore", "--dry-run")
    reader.follows("Go back")
    for name, text in before.items():
        (reader.folder / name).write_text(text)
    assert rows("SELECT count(*) FROM pg_namespace WHERE nspname = 'opsjobs'") == [(0,)]
    assert Queue(connection=redis_client).count == 2
    reader.does("rq", "worker", "--burst")
    assert Queue(connection=redis_client).finished_job_registry.count == 2
