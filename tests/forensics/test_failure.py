"""The bundle of a failure: its attempts, deploys and decisions, and what is not known of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.failures import deploys
from flask_opsjobs.host import Host
from tests.conftest import MakeBench
from tests.failures.conftest import FailureBench
from tests.support.engine import Bench

from .conftest import WHY, Story, actions, texts


@pytest.fixture
def failing(
    bench: Bench, make_bench: MakeBench, record_job: Callable[..., int], host: Host
) -> FailureBench:
    """Workers whose jobs fail."""
    return FailureBench(bench, make_bench, record_job)


def _subject(failing: FailureBench) -> str:
    return f"failure/{failing.failure()['id']}"


def test_a_failure_is_told_from_its_first_attempt_to_its_return(
    story: Story, failing: FailureBench
) -> None:
    log = []
    for version in ("1.0", "1.1"):
        marker, _ = deploys.mark(failing.bench.connection, version, failing.now, actor="ci")
        worker = failing.start_worker(marker.id)
        log.append(f"Deploy {version}")
        for _ in range(2):
            job = failing.fail(on=worker)
            log.append(f"Attempt 1 of job {job} failed on {worker.name}")
        failing.count()
        if version == "1.0":
            story.operator.run(
                "failure.resolve", [_subject(failing)], params={"deploy": "next"}, **WHY
            )
            log.append("ops-demo: resolve")
    log.append("It failed again in deploy 1.1, although it was resolved")
    found = story.ask(_subject(failing))
    # The first deploy was before the failure began.
    assert sorted(texts(found)) == sorted(log[1:])
    assert (found.completeness, found.lacking) == ("complete", [])
    assert found.state == "regressed"
    assert found.diagnosis.startswith("It was resolved, and failed again in deploy 1.1. 4 attempts")
    by_deploy = found.evidence[0].rows
    assert [list(row.cells)[::2][:2] for row in by_deploy] == [["1.1", 2], ["1.0", 2]]
    related = {(one.how, one.name) for one in found.related}
    assert {("First in", "deploy 1.0"), ("Regressed in", "deploy 1.1")} <= related
    assert actions(found) == ["failure.resolve", "failure.ignore"]
    assert [path.owner for path in found.paths][-1] == "host-owned follow-up"


def test_while_nobody_counts_a_return_would_not_be_seen(
    story: Story, failing: FailureBench
) -> None:
    failing.fail()
    failing.count()
    story.later(60, without=("roll_up",))
    found = story.ask(_subject(failing))
    assert found.completeness == "partial evidence"
    (lack,) = found.lacking
    assert "a regression would not be seen" in lack.says
    # When it runs again, it finds all that happened before.
    story.later(10)
    assert story.ask(_subject(failing)).completeness == "complete"


def test_without_its_first_jobs_its_history_is_unavailable(
    story: Story, failing: FailureBench
) -> None:
    first, last = failing.fail(), failing.fail()
    failing.count()
    Operator(story.bench.host).run("job.delete", [f"job/{first}"], **WHY)
    found = story.ask(_subject(failing))
    assert found.completeness == "history unavailable"
    assert [lack.says for lack in found.lacking] == ["its first attempts: their jobs were removed"]
    assert texts(found) == [
        "The first attempt failed so",
        f"Attempt 1 of job {last} failed on {failing.bench.name}",
    ]


def test_after_retention_and_without_any_row(story: Story, failing: FailureBench) -> None:
    failing.fail()
    failing.count()
    subject = _subject(failing)
    story.retain_until(lambda: not failing.failures())
    assert story.ask(subject).completeness == "history unavailable"
    assert story.ask("failure/999").completeness == "unknown"
