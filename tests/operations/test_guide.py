"""The guide *Bulk repairs*: its example runs, and its two recipes for access policies do what they say."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs import ActionRefused, JobFilter, OpsJobs
from tests.operations.conftest import OTHER, RETURNED, SAME, WHY, Operations
from tests.support.policies import AllowAll
from tests.support.sources import ROOT

EXAMPLE, CALENDAR, SECOND_PERSON = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs/operations.md").read_text(), re.M | re.S
)
WAITING = JobFilter(queue="default")


def run(code: str, **names: Any) -> dict[str, Any]:
    """The names that a recipe makes."""
    names["RoleAccess"] = AllowAll
    exec(compile(code, "docs/operations.md", "exec", dont_inherit=True), names)
    return names


def test_its_example(
    operations: Operations, opsjobs: OpsJobs, capsys: pytest.CaptureFixture[str]
) -> None:
    failed, others = operations.fail(3), operations.fail(2, OTHER)
    operations.bench.rows(
        """INSERT INTO opsjobs.failures (id, key, task, title, sample_job_id, sample_dispatch_no,
               created_at, number, first_at, last_at)
           OVERRIDING SYSTEM VALUE VALUES (58, %s, 't', 'Boom', 1, 1, now(), 3, now(), now())
           RETURNING id""",
        SAME,
    )
    run(EXAMPLE, opsjobs=opsjobs)
    operation = operations.operation()
    assert capsys.readouterr().out == f"{operation['id']} 3\n"
    operations.run(RETURNED)
    assert operations.states(failed) == {"finished"}
    assert operations.states(others) == {"failed"}


def test_a_freeze_by_calendar(operations: Operations) -> None:
    recipe = run(CALENDAR)
    policy, now = recipe["HostAccess"](), datetime.now(recipe["HOME"])
    operations.bench.host.access = policy
    operations.enqueue(3)
    past, to_come = now - timedelta(days=1), now + timedelta(days=1)
    recipe["FREEZES"][:] = [(to_come, to_come + timedelta(days=1))]
    started = operations.operator.start("job.cancel", WAITING, **WHY)
    recipe["FREEZES"][:] = [(past, to_come)]
    operations.pass_once()
    assert operations.operation(started.id)["code"] == "most_targets"
    assert not operations.states([1, 2, 3]) & {"canceled"}
    with pytest.raises(ActionRefused, match=r"job\.cancel is frozen now for anna"):
        operations.operator.start("job.cancel", WAITING, **WHY)
    with pytest.raises(ActionRefused, match=r"job\.discard is frozen now for anna"):
        operations.operator.discard(1, **WHY)
    # What protects is not frozen.
    assert operations.operator.pause("default", **WHY).is_done
    assert operations.operator.resume("default", **WHY).is_done
    recipe["FREEZES"][:] = [(past - timedelta(days=1), past)]
    operations.run()
    assert operations.operation(started.id)["state"] == "finished"


def test_a_second_person(operations: Operations, db: Any) -> None:
    recipe = run(SECOND_PERSON, db=db)
    Agreement = recipe["Agreement"]
    db.create_all()
    operations.bench.host.access = recipe["HostAccess"]()
    ids = operations.enqueue(3)
    draft = operations.operator.draft("job.cancel", WAITING, actor="anna")

    def agree(person: str) -> None:
        db.session.merge(Agreement(subject=f"operation/{draft.id}", agreed_by=person))
        db.session.commit()

    def start() -> Any:
        return operations.operator.start_draft(draft.id or 0, **WHY)

    with pytest.raises(ActionRefused) as refused:
        start()
    assert refused.value.code == "unauthorized"
    agree("anna")
    with pytest.raises(ActionRefused):
        start()
    agree("ben")
    assert start().is_done
    operations.run()
    assert operations.states(ids) == {"canceled"}
