"""The bundles of a workflow and of its steps, compared with what its tasks and its host did."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.testing import perform_due
from flask_opsjobs.workflows.queries import list_steps
from tests.support.engine import Bench

from .conftest import WHY, Story, actions, texts


class Flow:
    """A workflow whose tasks note each call: `fetch`, then `bill`, then a wait, then `notify`."""

    def __init__(self, opsjobs: OpsJobs, db: SQLAlchemy) -> None:
        self.opsjobs, self.db = opsjobs, db
        self.calls: list[str] = []
        self.broken: set[str] = set()

        @opsjobs.task(max_attempts=1)
        def work(name: str) -> None:
            self.calls.append(name)
            if name in self.broken:
                raise ValueError(f"{name} is broken")

        self.task = work

    def start(self) -> int:
        """Start a run, and let it go on as far as it can; its id."""
        flow = self.opsjobs.workflow("billing")
        fetch = flow.step("fetch", self.task, name="fetch")
        bill = flow.step("bill", self.task, after=fetch, name="bill")
        approved = flow.wait("approved", signal="approved", after=bill)
        flow.step("notify", self.task, after=approved, name="notify")
        run = flow.start()
        self.commit()
        return run.id

    def commit(self) -> None:
        """Commit, and perform what is due."""
        self.db.session.commit()
        perform_due()


@pytest.fixture
def flow(opsjobs: OpsJobs, db: SQLAlchemy) -> Flow:
    return Flow(opsjobs, db)


def _step(story: Story, run: int, name: str) -> str:
    """The subject of a step."""
    with Session(story.bench.host.engine) as session:
        return f"step/{next(step.id for step in list_steps(session, run) if step.name == name)}"


def test_a_run_is_told_step_by_step(story: Story, flow: Flow) -> None:
    run = flow.start()
    found = story.ask(f"workflow/{run}")
    assert (found.completeness, found.lacking, found.state) == ("complete", [], "running")
    assert found.diagnosis.startswith("notify waits for approved, which has waited for the signal")
    assert "workflow.signal" in actions(found)
    assert [one.subject for one in found.related if one.how == "Held up by"] == [
        _step(story, run, "approved")
    ]
    flow.opsjobs.signal("approved", key="")
    flow.commit()
    found = story.ask(f"workflow/{run}")
    assert flow.calls == ["fetch", "bill", "notify"]
    assert texts(found) == [
        "Started with 4 steps",
        "Step fetch was released",
        *_ran("fetch"),
        "Step bill was released",
        *_ran("bill"),
        "Step approved was released",
        "Step approved began to wait for approved",
        "Signal approved came: it ended a wait",
        "Step approved finished: a signal arrived",
        "Step notify was released",
        *_ran("notify"),
        "Finished: all steps that must finish have finished",
    ]
    assert (found.completeness, found.lacking, found.state) == ("complete", [], "finished")
    # As its steps say.
    bill = story.ask(_step(story, run, "bill"))
    assert texts(bill) == [
        "Enqueued",
        "Step fetch, which it waited for, ended: finished",
        "Released: all steps that it waits for have ended",
        "Queued, dispatch 1",
        "Attempt 1 begun by inline",
        "Attempt 1 ended, returned",
        "Finished: the function returned",
    ]
    assert (bill.completeness, bill.lacking) == ("complete", [])
    assert {(one.how, one.subject) for one in bill.related} >= {
        ("Workflow", f"workflow/{run}"),
        ("Waits for", _step(story, run, "fetch")),
        ("Waited for by", _step(story, run, "approved")),
    }


def _ran(step: str) -> list[str]:
    return [f"Step {step}: attempt 1 began", f"Step {step} finished: the function returned"]


def test_what_a_retry_overwrote_is_not_known(story: Story, flow: Flow) -> None:
    flow.broken = {"bill"}
    run = flow.start()
    found = story.ask(f"workflow/{run}")
    assert (found.completeness, found.state) == ("complete", "failed")
    assert "the step bill failed, so 2 steps were canceled" in found.diagnosis
    bill = _step(story, run, "bill")
    assert actions(found)[:2] == ["workflow.retry", "job.retry"]
    assert ("Ended by", bill) in {(one.how, one.subject) for one in found.related}
    story.operator.retry_workflow(run, **WHY)
    flow.broken.clear()
    flow.commit()
    assert flow.calls == ["fetch", "bill", "bill"]
    found = story.ask(f"workflow/{run}")
    assert found.completeness == "partial evidence"
    assert [lack.says for lack in found.lacking] == [
        "when it ended before it was reopened: only its last end is stored"
    ]
    assert [text for text in texts(found) if "bill" in text or "retry" in text] == [
        "Step bill was released",
        "Step bill: attempt 1 began",
        "Step bill: attempt 1 ended: raised",
        "ops-demo: retry",
        "Step bill: attempt 2 began",
        "Step bill finished: the function returned",
    ]
    # The attempts of bill tell it whole; nothing tells that approved was canceled and waits again.
    assert story.ask(bill).completeness == "complete"
    waits = story.ask(_step(story, run, "approved"))
    assert waits.completeness == "partial evidence"
    assert actions(waits)[-1] == "workflow.signal"


def test_while_nobody_advances_it_what_came_is_not_seen(story: Story, flow: Flow) -> None:
    run = flow.start()
    story.later(60, without=("advance",))
    for subject in (f"workflow/{run}", _step(story, run, "approved")):
        found = story.ask(subject)
        assert found.completeness == "partial evidence"
        (blind,) = [event for event in found.timeline.events if event.is_ == "blind"]
        assert blind.text.startswith("The loop advance did not run.")
        assert blind.until is None
    story.later(10)
    assert story.ask(f"workflow/{run}").completeness == "complete"


def test_of_a_run_that_was_removed_its_decisions_tell(
    story: Story, flow: Flow, bench: Bench
) -> None:
    flow.broken = {"bill"}
    run = flow.start()
    other = flow.start()
    fetch = _step(story, run, "fetch")
    story.operator.retry_workflow(run, **WHY)
    flow.commit()
    # A step whose job is gone stays in its run until that is removed.
    bench.connection.execute("DELETE FROM opsjobs.jobs WHERE id = %s", [int(fetch[5:])])
    assert story.ask(fetch).completeness == "history unavailable"
    found = story.ask(f"workflow/{run}")
    assert found.completeness == "history unavailable"
    assert [lack.says for lack in found.lacking if lack.is_removed] == [
        "the job of step fetch: it was deleted"
    ]
    story.retain_until(lambda: not bench.rows("SELECT 1 FROM opsjobs.workflows"))
    for subject, log in ((f"workflow/{run}", ["ops-demo: retry"]), (f"workflow/{other}", [])):
        found = story.ask(subject)
        assert (found.completeness, texts(found)) == ("history unavailable", log)
    assert story.ask(fetch).completeness == "history unavailable"


@pytest.mark.parametrize("subject", ["workflow/999", "step/999"])
def test_nothing_is_known(story: Story, subject: str) -> None:
    assert story.ask(subject).completeness == "unknown"


def test_a_job_that_is_no_step_is_not_known_as_one(
    story: Story, record_job: Callable[..., int]
) -> None:
    job = record_job()
    found = story.ask(f"step/{job}")
    assert found.completeness == "unknown"
    assert found.diagnosis == f"Job {job} is no step of a workflow: look at job/{job} instead."
    assert [each.subject for each in found.related] == [f"job/{job}"]
