"""A job as the engine leaves it, and the question why it is not running."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.explain_with_redis import explain, explain_waiting
from flask_opsjobs.explain.reason_kinds import Explanation, Reason
from flask_opsjobs.explain.waiting import WaitingExplanation
from flask_opsjobs.jobs.lifecycle import WAITING
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.jobs.search.filter import JobFilter
from flask_opsjobs.jobs.search.waiting_queries import find_waiting
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
            require_same_for_many(bench, session, now)
        assert found is not None
        return found

    return look


def require_same_for_many(bench: Bench, session: Session, now: datetime) -> WaitingExplanation:
    """Explain all jobs that wait together, and require that each group is what each job says of itself."""
    ids = session.scalars(select(Job.id).where(Job.state.in_(WAITING))).all()
    alone: dict[str | None, list[Reason | None]] = {}
    for job_id in ids:
        found = explain(bench.host, session, job_id, now)
        assert found is not None
        first = found.reasons[0] if found.reasons else None
        alone.setdefault(first.code if first else None, []).append(first)
    many = explain_waiting(bench.host, session, JobFilter(), now)
    assert many.number == len(ids)
    assert not many.is_cut
    numbers = Counter[str | None]()
    for group in many.groups:
        numbers[group.code] += group.number
    assert numbers == {code: len(reasons) for code, reasons in alone.items()}
    for code, reasons in alone.items():
        groups = [group for group in many.groups if group.code == code]
        untils = [reason.until for reason in reasons if reason and reason.until]
        assert min((each.until for each in groups if each.until), default=None) == min(
            untils, default=None
        )
        if len(groups) == 1 and len(untils) == len(reasons):
            assert groups[0].last_until == max(untils)
        if len(groups) == 1 and len({reason and reason.by for reason in reasons}) == 1:
            assert groups[0].by == (reasons[0] and reasons[0].by)
    for group in many.groups:
        one = explain(bench.host, session, group.example, now)
        assert one is not None
        assert (one.reasons[0].code if one.reasons else None) == group.code
        if group.search is not None:
            hits = find_waiting(session, group.search, now, lambda *_: True)
            assert len(hits.ids) == group.number, group.search.box
    return many


def codes(found: Explanation) -> list[str]:
    """The codes of its reasons, in order."""
    return [reason.code for reason in found.reasons]
