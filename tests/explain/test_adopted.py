"""Adopted jobs that wait behind others: who holds them up, for ever or not, and what helps."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.job import Dependency, JobStatus
from rq.job import Job as RQJob
from sqlalchemy.orm import Session

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.jobs.adopted.chain_queries import find_dependents, find_parents
from tests.explain.conftest import Look, codes
from tests.support.engine import Bench
from tests.support.plain import adopt_row, fail_plain, take_plain

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
ENDS_UNSEEN = {"ended_by": "unseen"}


@pytest.fixture
def queue(redis_client: Redis) -> Queue:
    return Queue("default", connection=redis_client)


def adopt(bench: Bench, job: RQJob, state: str, **columns: Any) -> int:
    """A row with RQ's facts, as the adopting loop makes it."""
    job_id = adopt_row(bench, job, state, **columns)
    bench.rows(
        """INSERT INTO opsjobs.rq_facts (job_id, depends_on, allows_failure, created_source, changed_at)
           VALUES (%s, %s, %s, 'rq', now()) RETURNING 1""",
        job_id,
        job._dependency_ids,
        bool(job.allow_dependency_failures),
    )
    return job_id


@pytest.mark.parametrize(
    ("state", "allows_failure", "code", "helps"),
    [
        ("started", False, "parent_open", None),
        ("failed", False, "parent_failed", "job.retry"),
        ("failed", True, None, None),
        ("canceled", False, "parent_failed", "job.retry"),
        ("canceled", True, "parent_failed", "job.retry"),
        ("unknown", False, "parent_failed", "job.cancel"),
        ("gone", True, "parent_failed", "job.cancel"),
        ("finished", False, None, None),
    ],
)
def test_a_job_behind_a_parent_is_explained(
    bench: Bench,
    look: Look,
    queue: Queue,
    state: str,
    allows_failure: bool,
    code: str | None,
    helps: str | None,
) -> None:
    parent = queue.enqueue(take_plain)
    after = Dependency([parent], allow_failure=allows_failure)
    job_id = adopt(bench, queue.enqueue(take_plain, depends_on=after), "deferred")
    parent_id = None
    if state != "gone":
        unseen = ENDS_UNSEEN | {"ended_at": parent.created_at} if state == "unknown" else {}
        parent_id = adopt(bench, parent, state, **unseen)
    found = look(job_id)
    assert codes(found) == ([code] if code else [])
    for reason in found.reasons:
        assert reason.action == helps
        named = f"RQ job {parent.id}" if parent_id is None else f"job {parent_id}"
        assert reason.says.startswith(f"It depends on {named}, which ")
        if helps is not None:
            assert reason.target == f"job/{parent_id if helps == 'job.retry' else job_id}"


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("queued", "It is a plain RQ job, which RQ and its workers run."),
        ("finished", "It has ended."),
    ],
)
def test_a_job_that_waits_for_no_other_is_run_by_rq(
    bench: Bench, look: Look, queue: Queue, state: str, says: str
) -> None:
    found = look(adopt(bench, queue.enqueue(take_plain), state))
    assert (found.reasons, found.says) == ((), says)


def test_the_repairs_help(bench: Bench, look: Look, queue: Queue) -> None:
    parent = queue.enqueue(fail_plain)
    child = queue.enqueue(take_plain, depends_on=parent)
    SimpleWorker([queue], connection=queue.connection).work(burst=True, logging_level="CRITICAL")
    adopt(bench, parent, "failed")
    child_id = adopt(bench, child, "deferred")
    assert (parent.get_status(), child.get_status()) == (JobStatus.FAILED, JobStatus.DEFERRED)
    (reason,) = look(child_id).reasons
    operator = Operator(bench.host)
    assert operator.run(str(reason.action), [str(reason.target)], **WHY).is_done
    assert parent.get_status() is JobStatus.QUEUED
    assert operator.cancel(child_id, **WHY).is_done
    assert child.get_status() is JobStatus.CANCELED


def test_a_chain_is_found_in_both_directions(bench: Bench, queue: Queue) -> None:
    first = queue.enqueue(take_plain, job_id="first")
    second = queue.enqueue(take_plain, depends_on=[first], job_id="second")
    third = queue.enqueue(take_plain, depends_on=[first, second], job_id="third")
    ids = [adopt(bench, first, "queued"), adopt(bench, second, "deferred")]
    ids.append(adopt(bench, third, "deferred"))
    with Session(bench.host.engine) as session:
        parents = find_parents(session, ids[2])
        assert [(one.rq_id, one.id, one.state) for one in parents] == [
            ("first", ids[0], "queued"),
            ("second", ids[1], "deferred"),
        ]
        assert [one.id for one in find_dependents(session, ids[0])] == ids[1:]
        assert find_dependents(session, ids[2]) == []


def test_an_id_that_was_used_before_names_the_newest_job(bench: Bench, queue: Queue) -> None:
    old = queue.enqueue(take_plain, job_id="daily")
    adopt(bench, old, "failed")
    old.delete()
    new = queue.enqueue(take_plain, job_id="daily")
    new_id = adopt(bench, new, "queued")
    child_id = adopt(bench, queue.enqueue(take_plain, depends_on=new), "deferred")
    with Session(bench.host.engine) as session:
        (parent,) = find_parents(session, child_id)
    assert (parent.id, parent.state) == (new_id, "queued")
