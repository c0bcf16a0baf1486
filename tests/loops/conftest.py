"""Fixtures of the loops' tests: the engine's, and running jobs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.engine import Bench

StartJob = Callable[..., int]


@pytest.fixture
def start_job(record_job: Callable[..., int]) -> StartJob:
    """Records a job and has the engine hand it out and claim it; its id."""

    def start(bench: Bench, **options: object) -> int:
        job_id = record_job(**options)
        bench.dispatch(prefetch=1000)
        bench.claim(job_id)
        assert bench.job(job_id)["state"] == "started"
        return job_id

    return start
