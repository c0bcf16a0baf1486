"""A job that raises the memory of its process tells how far; the ones beside it tell nothing."""

from __future__ import annotations

from typing import Any

from tests.engine.site import enqueue, rows, state_of
from tests.support import host as host_module
from tests.support.processes import Children
from tests.support.waiting import wait_until


def test_a_job_that_takes_much_memory_says_so(site: Any, children: Children) -> None:
    ids = [enqueue(host_module.fill, megabytes=size) for size in (0, 80, 1)]
    children.flask("opsjobs", "worker", "default", "--processes", "1")
    wait_until(lambda: [state_of(job_id) for job_id in ids] == ["finished"] * 3, 60)
    few, much, none = (
        rows("SELECT max_rss_kb FROM opsjobs.attempts WHERE job_id = :id", id=job_id)[0][0]
        for job_id in ids
    )
    assert much > 80 * 1024
    assert none is None
    assert few is None or few < much
    ((peak,),) = rows("SELECT max(peak_kb) FROM opsjobs.task_end_deltas")
    assert peak == much
