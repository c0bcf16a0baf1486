"""What a job leaves behind in its process: the next job sees nothing of it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.site import enqueue, rows, state_of
from tests.support.leftovers import LEAVE, leave, look
from tests.support.processes import Children
from tests.support.waiting import wait_until

pytestmark = pytest.mark.processes

WORKER = ("-m", "flask", "--app", "tests.support.leftovers", "opsjobs", "worker")
HEARTBEAT = {"TEST_CONFIG_OPSJOBS_HEARTBEAT_SECONDS": "0.2"}


def outputs(job_ids: list[int]) -> list[Any]:
    """The outputs of jobs, when all have finished."""
    wait_until(lambda: all(state_of(job_id) != "available" for job_id in job_ids), 30)
    wait_until(lambda: {state_of(job_id) for job_id in job_ids} == {"finished"}, 30)
    found = dict(rows("SELECT job_id, value FROM opsjobs.outputs"))
    return [found[job_id] for job_id in job_ids]


def test_the_next_job_sees_nothing_of_what_was_left_behind(
    site: object, children: Children
) -> None:
    kinds = [kind for kind in LEAVE if kind != "tracker"]
    before = [enqueue(look, what=kind) for kind in kinds]
    after = [
        job_id for kind in kinds for job_id in (enqueue(leave, what=kind), enqueue(look, what=kind))
    ]
    children.python(*WORKER, env=HEARTBEAT)
    seen_before = {kind: seen[1] for kind, seen in zip(kinds, outputs(before), strict=True)}
    found = outputs(after)
    pairs = dict(zip(kinds, zip(found[::2], found[1::2], strict=True), strict=True))
    assert {kind: seen for kind, (_, (_, seen)) in pairs.items()} == seen_before
    stayed = {kind for kind, (left_by, (pid, _)) in pairs.items() if left_by == pid}
    assert stayed == {"nothing"}
    wait_until(lambda: {kind for kind, _ in left()} >= set(kinds) - {"nothing", "descriptors"}, 5)
    assert ("descriptors", None) in left()


def left() -> set[tuple[str, str | None]]:
    """The kinds of reasons why children left, and whose jobs are to blame, as the heartbeat tells."""
    ((reasons,),) = rows("SELECT left_children FROM opsjobs.workers")
    return {(reason["kind"], reason["task"]) for reason in reasons}
