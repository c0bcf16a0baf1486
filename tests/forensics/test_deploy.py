"""The bundle of a deploy: its workers, and the failures that began in it or came back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from flask_opsjobs.failures import deploys
from flask_opsjobs.lifeline.retention import WORKER_DAYS
from flask_opsjobs.workers import transitions as workers
from tests.conftest import MakeBench
from tests.failures.conftest import FailureBench
from tests.support.engine import Bench

from .conftest import WHY, Story, texts


@pytest.fixture
def failing(bench: Bench, make_bench: MakeBench, record_job: Callable[..., int]) -> FailureBench:
    """Workers whose jobs fail."""
    return FailureBench(bench, make_bench, record_job)


def _mark(failing: FailureBench, version: str) -> int:
    marker, _ = deploys.mark(failing.bench.connection, version, failing.now, actor="ci")
    return marker.id


def test_a_deploy_is_told_with_its_workers_and_failures(
    story: Story, failing: FailureBench
) -> None:
    first = _mark(failing, "1.0")
    old = failing.start_worker(first)
    failing.fail("a", on=old)
    failing.count()
    (known,) = failing.failures()
    story.operator.resolve_failure(known["id"], "next", **WHY)
    second = _mark(failing, "1.1")
    new = failing.start_worker(second)
    failing.fail("a", on=new)
    failing.fail("b", on=new)
    workers.stop(new.connection, new.worker_id, failing.now)
    failing.count()
    born = next(row for row in failing.failures() if row["id"] != known["id"])
    found = story.ask(f"deploy/{second}")
    assert sorted(texts(found)) == sorted(
        [
            "Deploy 1.1",
            f"{new.name} started with it",
            f"{new.name} stopped",
            f"Failure {known['id']}: {known['title']}, failed in it first here",
            f"Failure {known['id']}: {known['title']}, came back although it was resolved",
            f"Failure {born['id']}: {born['title']}, failed for the first time ever",
        ]
    )
    assert (found.completeness, found.lacking) == ("complete", [])
    assert found.diagnosis == "0 workers run it; 1 failure is new in it, 1 came back."
    assert {(one.how, one.subject) for one in found.related} == {
        ("Failure that came back", f"failure/{known['id']}"),
        ("New failure", f"failure/{born['id']}"),
        ("Marked by", "actor/ci"),
    }
    # The one before ends with it: its worker still runs.
    found = story.ask(f"deploy/{first}")
    assert found.diagnosis == "1 worker runs it; 1 failure is new in it."
    assert [
        (event.is_, event.text) for event in found.timeline.events if event.is_ == "deploy"
    ] == [
        ("deploy", "Deploy 1.1"),
        ("deploy", "Deploy 1.0"),
    ]


@pytest.mark.parametrize(
    ("loop", "lacks"),
    [
        (
            "roll_up",
            "Attempts that failed since are not counted, so a new failure would not be seen.",
        ),
        ("watch", "When one of its workers vanished is not known."),
    ],
)
def test_what_a_loop_did_not_see(
    story: Story, failing: FailureBench, loop: str, lacks: str
) -> None:
    deploy = _mark(failing, "1.0")
    failing.start_worker(deploy)
    story.later(60, without=(loop,))
    found = story.ask(f"deploy/{deploy}")
    assert found.completeness == "partial evidence"
    assert [lack.says for lack in found.lacking] == [lacks]
    story.later(10)
    # Who is counted later is counted. When a worker vanished meanwhile is never known.
    after = {"roll_up": "complete", "watch": "partial evidence"}
    assert story.ask(f"deploy/{deploy}").completeness == after[loop]


def test_after_retention_and_without_any_row(story: Story, failing: FailureBench) -> None:
    deploy = _mark(failing, "1.0")
    found = story.ask(f"deploy/{deploy}", after=timedelta(days=WORKER_DAYS, minutes=1))
    assert found.completeness == "history unavailable"
    assert any("its workers that ended earlier" in lack.says for lack in found.lacking)
    _mark(failing, "1.1")  # the newest one is kept
    rows = "SELECT 1 FROM opsjobs.deploys WHERE id = %s"
    story.retain_until(lambda: not failing.bench.rows(rows, deploy), days=1_000)
    assert story.ask(f"deploy/{deploy}").completeness == "history unavailable"
    assert story.ask("deploy/999").completeness == "unknown"
