"""Every arrow from every state, read from the lifecycle: what may not move stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs import endings
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core import sql
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.dispatch.dispatch import recall
from flask_opsjobs.jobs.lifecycle import ARROWS, FINAL, MANAGED_STATES, sources_of
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.support.engine import Bench

RecordJob = Callable[..., int]
REFUSED = Outcome(kind="not_run", error="not here", ended_by="unknown_task")


def stage(bench: Bench, _job_id: int) -> None:
    bench.connection.execute(
        sql.load("stage_jobs"), {"now": read_clock(bench.connection), "limit": 10}
    )


def expire(bench: Bench, _job_id: int) -> None:
    endings.expire(bench.connection, read_clock(bench.connection) + timedelta(days=2))


def rescue(bench: Bench, _job_id: int) -> None:
    now = read_clock(bench.connection)
    endings.rescue(bench.connection, [bench.worker_id], now, "vanished")


def operate(action: str) -> Callable[[Bench, int], Any]:
    def act(bench: Bench, job_id: int) -> None:
        Operator(bench.host).run(
            f"job.{action}", [f"job/{job_id}"], actor="anna", reason="it is a test"
        )

    return act


# The arrows that have a writer; release has none yet. An operator's delete and run_again, and a cancel of
# what runs, do not move the job: tests/actions/test_every_action.py has them.
ACTIONS_BY_NAME: dict[str, Callable[[Bench, int], Any]] = {
    "stage": stage,
    "dispatch": lambda bench, _job_id: bench.dispatch(),
    "claim": lambda bench, job_id: bench.claim(job_id),
    "recall": lambda bench, job_id: recall(bench.connection, [(job_id, 1)]),
    "finish": lambda bench, job_id: bench.record(job_id, 1, Outcome(kind="returned")),
    "fail": lambda bench, job_id: bench.record(job_id, 1, Outcome(kind="raised", error="Boom")),
    "snooze": lambda bench, job_id: bench.record(job_id, 1, Outcome(kind="snoozed")),
    "hand_back": lambda bench, job_id: bench.record(job_id, 1, REFUSED),
    "expire": expire,
    "rescue": rescue,
    **{action: operate(action) for action in ("cancel", "discard", "retry")},
}


def put(bench: Bench, job_id: int, state: str) -> None:
    # Written directly: every state under the number of one delivery, which no real writer would leave.
    bench.connection.execute(
        """UPDATE opsjobs.jobs SET state = %(state)s, dispatch_no = 1, attempt = 1, worker_id = %(worker)s,
               dispatched_at = created_at, started_at = created_at, due_at = created_at,
               ended_at = CASE WHEN %(final)s THEN clock_timestamp() END,
               ended_by = CASE WHEN %(final)s THEN 'canceled' END WHERE id = %(id)s""",
        {
            "state": state,
            "final": state in FINAL,
            "worker": bench.worker_id,
            "id": job_id,
        },
    )


@pytest.mark.parametrize("state", MANAGED_STATES)
@pytest.mark.parametrize("action", ACTIONS_BY_NAME)
def test_each_arrow_leaves_only_its_sources(
    bench: Bench, record_job: RecordJob, action: str, state: str
) -> None:
    job_id = record_job(deadline=timedelta(days=1))
    put(bench, job_id, state)
    before = bench.job(job_id)
    ACTIONS_BY_NAME[action](bench, job_id)
    after = bench.job(job_id)
    if (action, state) == ("cancel", "started"):
        assert (after["state"], after["cancel_requested_by"]) == ("started", "anna")
    elif state in sources_of(action):
        (arrow,) = [arrow for arrow in ARROWS if arrow.name == action]
        assert after["state"] in arrow.targets
    else:
        assert after == before
