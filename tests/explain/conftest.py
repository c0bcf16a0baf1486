"""A job as the engine leaves it, and the question why it is not running."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.explain_with_redis import explain
from flask_opsjobs.explain.reason_kinds import Explanation
from flask_opsjobs.lifeline import loop_runs
from flask_opsjobs.loops import LOOPS
from flask_opsjobs.workers import transitions as workers
from tests.support.engine import Bench

Look = Callable[..., Explanation]


def wake_loops(bench: Bench, now: datetime, *but: str, error: str | None = None) -> None:
    """Note a pass of every loop as each pass does, without making it:
    a pass of dispatch would move the job on.
    """
    for loop in LOOPS:
        if loop.name not in but:
            every = loop.every_seconds(bench.host.settings)
            note = loop_runs.Note(loop.name, "here-1", every, 0.01, "nothing to do", error)
            loop_runs.note_pass(bench.connection, None, note, now)


@pytest.fixture
def look(bench: Bench) -> Look:
    """Explains a job, with all loops running but those named; `later` moves the time that is passed in.

    The bench's worker sends a heartbeat then, unless told otherwise, and says nothing of its speed.
    """

    def look(
        job_id: int, *silent: str, error: str | None = None, heartbeats: bool = True, **later: float
    ) -> Explanation:
        now = read_clock(bench.connection) + timedelta(**later)
        wake_loops(bench, now, *silent, error=error)
        if heartbeats:
            workers.record_heartbeat(
                bench.connection, bench.worker_id, workers.HeartbeatReport(1), now
            )
        with Session(bench.host.engine) as session:
            found = explain(bench.host, session, job_id, now)
        assert found is not None
        return found

    return look


def codes(found: Explanation) -> list[str]:
    """The codes of its reasons, in order."""
    return [reason.code for reason in found.reasons]
