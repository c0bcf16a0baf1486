"""An operator, and jobs brought to any state by the real engine."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.support.engine import Bench

Reach = Callable[..., int]

_OUTCOMES = {
    "retryable": Outcome(kind="raised", error="Boom", delay_seconds=3600),
    "finished": Outcome(kind="returned"),
    "failed": Outcome(kind="discarded", reason="hopeless"),
    "canceled": Outcome(kind="canceled", reason="no need"),
}


@pytest.fixture
def operator(host: Host) -> Operator:
    return Operator(host)


@pytest.fixture
def reach(bench: Bench, record_job: Callable[..., int]) -> Reach:
    """Records a job and brings it to a state as the engine does; its id."""

    def reach(state: str, **options: Any) -> int:
        if state == "scheduled":
            return record_job(**{"delay": 3600, **options})
        job_id = record_job(**options)
        if state == "deferred":
            # Nothing defers a job yet: written directly.
            bench.rows(
                "UPDATE opsjobs.jobs SET state = 'deferred' WHERE id = %s RETURNING 1", job_id
            )
        if state in ("available", "deferred"):
            return job_id
        bench.dispatch(options.get("queue", "default"), prefetch=100_000)
        if state == "queued":
            return job_id
        bench.claim(job_id)
        if state != "started":
            bench.record(job_id, 1, _OUTCOMES[state])
        assert bench.job(job_id)["state"] == state
        return job_id

    return reach


@pytest.fixture
def exhausted(bench: Bench, record_job: Callable[..., int]) -> Callable[..., int]:
    """Records a job whose only attempt failed; its id."""

    def fail(**options: Any) -> int:
        job_id = record_job(**{"max_attempts": 1, "deadline": timedelta(days=1), **options})
        bench.dispatch(prefetch=100_000)
        bench.claim(job_id)
        bench.record(job_id, 1, Outcome(kind="raised", error="Boom"))
        return job_id

    return fail
