"""A rolling deploy: workers of the older
and of the newer code meet the same jobs, and every job runs once.
"""

from __future__ import annotations

import sys
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from flask_opsjobs.core.db import NEWEST_SCHEMA, OLDEST_SCHEMA, SCHEMA_VERSION
from flask_opsjobs.install import steps
from flask_opsjobs.web.app.shell import NAVIGATION
from tests.engine.site import enqueue, rows, state_of
from tests.support import host as host_module
from tests.support.database import migrate, operations
from tests.support.processes import Child, Children
from tests.support.trackers import read_lines
from tests.support.waiting import wait_until

pytestmark = pytest.mark.slow

# The older code: it has no task `note` yet, or one with another signature.
UNKNOWN_TASK = """
from tests.support import host

def create_app():
    app = host.create_app()
    del app.extensions["opsjobs"].tasks["note"]
    return app
"""
INVALID_ARGS = """
from tests.support import host

def create_app():
    app = host.create_app()
    del app.extensions["opsjobs"].tasks["note"]

    @host.opsjobs.task(name="note")
    def note(path: str) -> None:
        raise AssertionError("called by the older code")

    return app
"""
OLD = {"unknown_task": UNKNOWN_TASK, "invalid_args": INVALID_ARGS}
KINDS = ("kept", "fresh", "plain")
SHOWN = [("kept", "unknown_task"), ("fresh", "invalid_args"), ("plain", "unknown_task")]


@pytest.fixture
def start(children: Children, tmp_path: Path, redis_url: str) -> Any:
    """Starts a worker of a kind, of the code of now or of an older one: `start("fresh", "invalid_args")`."""

    def start(kind: str, older: str | None = None) -> Child:
        app = "tests.support.host"
        if older is not None:
            app = str(tmp_path / f"{older}.py")
            Path(app).write_text(OLD[older])
        if kind == "plain":
            rq = str(Path(sys.executable).with_name("rq"))
            words = ("worker", "--url", redis_url, "default")
            return children.python(rq, *words, env={"FLASK_APP": app})
        fresh = ("--jobs-per-process", "1") if kind == "fresh" else ()
        command = ("--app", app, "opsjobs", "worker", "default")
        # Nothing is taken ahead, so that two workers share even a few short jobs.
        env = {"TEST_CONFIG_OPSJOBS_RESERVE_SECONDS": "0"}
        return children.python("-m", "flask", *command, *fresh, env=env)

    return start


def refusals() -> Counter[str]:
    return Counter(outcome for (outcome,) in rows("SELECT outcome FROM opsjobs.attempts"))


@pytest.mark.parametrize(
    ("kind", "older"),
    [
        pytest.param(*each, marks=() if each in SHOWN else pytest.mark.variants)
        for each in product(KINDS, OLD)
    ],
)
def test_a_job_waits_for_a_worker_of_the_newer_code(
    site: Any, children: Children, start: Any, tmp_path: Path, kind: str, older: str
) -> None:
    """The newer worker starts after the older one has refused the job and is gone."""
    children.flask("opsjobs", "run")
    old = start(kind, older)
    job_id = enqueue(host_module.note, path=str(tmp_path / "notes"), line="once")
    is_handed_back = "SELECT 1 FROM opsjobs.jobs WHERE state = 'scheduled' AND attempt = 0"
    wait_until(lambda: rows(is_handed_back), 60)
    old.terminate(30)
    ((refused_by, error),) = rows("SELECT worker, error FROM opsjobs.attempts")
    words = {"unknown_task": "no task 'note' is declared", "invalid_args": "line"}[older]
    assert words in error
    found = site.extensions["opsjobs"]
    assert found is not None
    reason = host_module.opsjobs.explain(job_id).reasons[-1]
    if reason.code == "handed_back":
        assert (refused_by in reason.says, reason.quote) == (True, error)
    start(kind)
    wait_until(lambda: state_of(job_id) == "finished", 90)
    assert (tmp_path / "notes").read_text() == "once\n"
    job = rows("SELECT attempt, first_handed_back_at, ended_by FROM opsjobs.jobs")
    assert job == [(1, None, "returned")]


@pytest.mark.parametrize(("kind", "older"), [("kept", "unknown_task"), ("fresh", "invalid_args")])
def test_a_batch_is_finished_while_an_old_and_a_new_worker_take_from_one_queue(
    site: Any, children: Children, start: Any, tmp_path: Path, kind: str, older: str
) -> None:
    """The older one leaves at the end of the deploy, when each of the two has had its share."""
    old, new = start(kind, older), start(kind)
    for worker in (old, new):
        worker.wait_for("listens to", 60)
    children.flask("opsjobs", "run")
    path = tmp_path / "notes"
    lines = [f"line {number}" for number in range(30)]
    for line in lines:
        host_module.note.enqueue(path=str(path), line=line)
    host_module.db.session.commit()

    def share_one_more() -> bool:
        # The newer one may run all 30 before the older one has looked: then what comes next is for both.
        lines.append(f"line {len(lines)}")
        enqueue(host_module.note, path=str(path), line=lines[-1])
        return min(refusals()[each] for each in ("not_run", "returned")) >= 10

    wait_until(share_one_more, 60, every=0.05)
    old.terminate(30)
    unfinished = "SELECT 1 FROM opsjobs.jobs WHERE state <> 'finished'"
    wait_until(lambda: not rows(unfinished), 300, what="all jobs to finish")
    assert sorted(path.read_text().splitlines()) == sorted(lines)
    assert rows("SELECT DISTINCT attempt, first_handed_back_at FROM opsjobs.jobs") == [(1, None)]


PAGES = [each.endpoint for each in NAVIGATION if each.endpoint not in ("overview", "rq")]


def _serves(site: Any, children: Children, note: Path) -> None:
    """A worker that starts now performs new jobs and one that runs again, and pages answer.

    It makes spans, which link to where the job was enqueued.
    """
    spans = note.with_suffix(".spans")
    worker = children.flask("opsjobs", "worker", "default", SPANS_TO=str(spans))
    path = str(note)
    once = enqueue(host_module.note, path=path, line="once")
    wait_until(lambda: state_of(once) == "finished", 60)
    for name in ("job.run_again", "job.delete"):
        host_module.opsjobs.operator.run(
            name, [f"job/{once}"], actor="ada", reason="asked for again", authorize=False
        )
    wait_until(lambda: note.read_text() == "once\nonce\n", 60)
    client = site.test_client()
    for page in ("", *PAGES):
        assert client.get(f"/ops/jobs/{page}").status_code == 200, page
    assert worker.terminate(60) == 0
    processed = [span for span in read_lines(spans) if span["name"] == "process default"]
    assert [bool(span["links"]) for span in processed] == [True] * 2


def test_code_and_schema_may_be_one_step_apart(
    site: Any, children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code first, then the schema; then the next schema first, of which this code knows nothing."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider())
    with host_module.db.engine.begin() as connection:
        steps.downgrade(operations(connection), to=OLDEST_SCHEMA)
    loops = children.flask("opsjobs", "run")
    _serves(site, children, tmp_path / "code first")
    with host_module.db.engine.begin() as connection:
        migrate(connection)
    _serves(site, children, tmp_path / "both")
    with host_module.db.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE opsjobs.jobs ADD COLUMN next_step text")
        connection.exec_driver_sql(
            f"INSERT INTO opsjobs.schema_version (version) VALUES ({NEWEST_SCHEMA})"
        )
    _serves(site, children, tmp_path / "schema first")
    assert rows("SELECT max(version) FROM opsjobs.schema_version") == [(SCHEMA_VERSION + 1,)]
    assert rows("SELECT loop FROM opsjobs.loop_runs WHERE failed_in_a_row > 0") == []
    assert loops.terminate(60) == 0
