"""Two copies of the adopt loop, and the loop against an operator who deletes, at the same moment."""

from __future__ import annotations

from typing import Any

import pytest
from rq import Queue

from flask_opsjobs.actions.operator import Operator
from tests.conftest import MakeBench
from tests.engine.adopted.conftest import Adopter, return_it
from tests.support.engine import Bench, race

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
TIMES = range(4)
# Rows that belong together, one without the other.
HALVES = """SELECT coalesce(j.id, f.job_id, v.job_id) AS id FROM
    (SELECT id FROM opsjobs.jobs WHERE origin = 'rq') j FULL JOIN opsjobs.rq_facts f ON f.job_id = j.id
    FULL JOIN opsjobs.rq_views v ON v.job_id = coalesce(j.id, f.job_id)
    WHERE j.id IS NULL OR f.job_id IS NULL"""


@pytest.mark.parametrize("time", TIMES)
def test_two_that_adopt_make_one_row_of_each_job(
    bench: Bench, make_bench: MakeBench, queue: Queue, time: int
) -> None:
    first, second = Adopter(bench), Adopter(make_bench())
    names = [f"job-{number}" for number in range(40)]
    jobs = [queue.enqueue(return_it, job_id=name) for name in names[:20]]
    for adopter in (first, second):
        adopter.step()
    for job in jobs[:10]:
        job.cancel()
    for job in jobs[10:]:
        job.delete()
    for name in names[20:]:
        queue.enqueue(return_it, job_id=name)
    answers = race(first.step, second.step)
    assert sum(answer.adopted for answer in answers) == 20
    assert sum(answer.unseen for answer in answers) == 10
    states = {name: [row["state"] for row in first.jobs(name)] for name in names}
    expected = [["canceled"]] * 10 + [["unknown"]] * 10 + [["queued"]] * 20
    assert states == dict(zip(names, expected, strict=True))
    assert bench.rows(HALVES) == []


@pytest.mark.parametrize("time", TIMES)
def test_an_adopting_pass_against_a_delete(
    bench: Bench, make_bench: MakeBench, queue: Queue, time: int
) -> None:
    """The jobs that the pass has to change are deleted: whoever comes second finds all changed, or none."""
    adopter, names = Adopter(make_bench()), [f"job-{number}" for number in range(20)]
    jobs = [queue.enqueue(return_it, job_id=name) for name in names]
    adopter.step()
    for job in jobs:
        job.cancel()
    ids = [f"job/{adopter.job(name)['id']}" for name in names]
    _, receipt = race(adopter.step, lambda: Operator(bench.host).run("job.delete", ids, **WHY))
    assert bench.rows(HALVES) == []
    assert len(receipt.done) in (0, 20)
    for _ in range(2):
        adopter.step()
    left = bench.rows("SELECT state FROM opsjobs.jobs WHERE origin = 'rq'")
    assert {row["state"] for row in left} <= {"canceled"}
    if not receipt.done:
        assert len(left) == 20
    assert bench.rows(HALVES) == []
