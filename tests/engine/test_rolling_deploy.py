"""A rolling deploy: workers of the older
and of the newer code meet the same jobs, and every job runs once.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.engine.site import enqueue, rows, state_of
from tests.support import host as host_module
from tests.support.processes import Child, Children
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


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("older", OLD)
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
    lines = [f"line {number}" for number in range(60)]
    for line in lines:
        host_module.note.enqueue(path=str(path), line=line)
    host_module.db.session.commit()

    def share_one_more() -> bool:
        # The newer one may run all 60 before the older one has looked: then what comes next is for both.
        lines.append(f"line {len(lines)}")
        enqueue(host_module.note, path=str(path), line=lines[-1])
        return min(refusals()[each] for each in ("not_run", "returned")) >= 10

    wait_until(share_one_more, 60, every=0.05)
    old.terminate(30)
    unfinished = "SELECT 1 FROM opsjobs.jobs WHERE state <> 'finished'"
    wait_until(lambda: not rows(unfinished), 300, what="all jobs to finish")
    assert sorted(path.read_text().splitlines()) == sorted(lines)
    assert rows("SELECT DISTINCT attempt, first_handed_back_at FROM opsjobs.jobs") == [(1, None)]
