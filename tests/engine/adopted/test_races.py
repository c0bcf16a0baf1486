"""Two copies of the adopt loop, and the loop against an operator who deletes, at the same moment."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from rq import Queue

from flask_opsjobs.actions.domain import Request
from flask_opsjobs.actions.execution import execute_request
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.registry import ACTIONS
from flask_opsjobs.actions.shapes import Receipt
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.adopted.read_jobs import read_jobs
from flask_opsjobs.engine.dispatch.after_commit import run_effects
from flask_opsjobs.jobs.adopted.merge import Moment
from flask_opsjobs.jobs.adopted.transitions import write_look
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
ADOPTED = "SELECT * FROM opsjobs.jobs WHERE origin = 'rq'"


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
    """Jobs that the pass reads whole are deleted: none comes back, whoever is first."""
    adopter, names = Adopter(make_bench()), [f"job-{number}" for number in range(20)]
    ids = adopt_canceled(adopter, queue, names)
    adopter.memory.note_again(name.encode() for name in names)
    _, receipt = race(adopter.step, lambda: Operator(bench.host).run("job.delete", ids, **WHY))
    assert len(receipt.done) == 20
    assert bench.rows(ADOPTED) == []
    for _ in range(2):
        adopter.step()
    assert bench.rows(ADOPTED) == bench.rows(HALVES) == []
    for name in names:
        queue.enqueue(return_it, job_id=name)
    adopter.step()
    assert [row["state"] for row in bench.rows(ADOPTED)] == ["queued"] * 20


def test_a_job_that_was_read_before_its_deletion_does_not_come_back(
    adopter: Adopter, queue: Queue
) -> None:
    bench = adopter.bench
    ids = adopt_canceled(adopter, queue, ["one", "two"])
    adopter.memory.note_again([b"one", b"two"])
    looked_at = adopter.now
    seen, gone = read_jobs(queue.connection, adopter.memory, adopter.memory.take(2), adopter.hides)
    Operator(bench.host).run("job.delete", ids[:1], **WHY)
    moment = Moment(looked_at, adopter.now, looked_at)
    written = write_look(bench.connection, "default", list(seen.values()), gone, moment)
    assert (written.adopted, written.overtaken) == (0, ["one"])
    adopter.memory.note_again([b"one"])
    adopter.step()
    assert adopter.jobs("one") == []
    assert [row["state"] for row in adopter.jobs("two")] == ["canceled"]
    # The id of a deleted job is another job's now.
    queue.enqueue(return_it, job_id="one")
    adopter.step()
    assert [row["state"] for row in adopter.jobs("one")] == ["queued"]


def test_a_job_does_not_come_back_before_rq_is_asked_to_delete_it(
    adopter: Adopter, queue: Queue
) -> None:
    bench = adopter.bench
    (target,) = adopt_canceled(adopter, queue, ["one"])
    receipt = commit_delete(bench, target)
    adopter.memory.note_again([b"one"])
    adopter.step()
    assert adopter.jobs("one") == []  # RQ still has it
    assert run_effects(bench.host, bench.connection, receipt.effects) == []
    for _ in range(2):
        adopter.step(after=61)
    assert adopter.jobs("one") == []


def test_a_job_comes_back_that_rq_was_not_asked_to_delete(adopter: Adopter, queue: Queue) -> None:
    """As after Redis did not answer: the operator sees that it is still there, and may ask again."""
    bench = adopter.bench
    (target,) = adopt_canceled(adopter, queue, ["one"])
    assert commit_delete(bench, target).is_done
    adopter.memory.note_again([b"one"])
    adopter.step()
    assert adopter.jobs("one") == []
    adopter.step(after=61)
    assert [row["state"] for row in adopter.jobs("one")] == ["canceled"]


def commit_delete(bench: Bench, target: str) -> Receipt:
    """Delete a job as an operator who is stopped right after the commit: RQ is not asked yet."""
    now = read_clock(bench.connection)
    request = Request(
        bench.host, ACTIONS["job.delete"], (target,), {}, **WHY, via="python", now=now
    )
    return execute_request(bench.connection, request)


def adopt_canceled(adopter: Adopter, queue: Queue, names: Sequence[str]) -> list[str]:
    """Adopt jobs of these ids that were canceled in RQ; return the targets of their rows."""
    for name in names:
        queue.enqueue(return_it, job_id=name).cancel()
    adopter.step()
    return [f"job/{adopter.job(name)['id']}" for name in names]
