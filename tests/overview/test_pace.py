"""The pace in steps: rates a minute, what nobody counted stays unknown, and depth is the most of a step."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from flask_opsjobs.host import Host
from flask_opsjobs.jobs.models import EnqueueCount
from flask_opsjobs.overview.models import Depth, Rollup, RollupPosition
from flask_opsjobs.overview.pace_queries import Pace, find_pace, find_queue_pace

NOW = datetime(2026, 11, 24, 2, 14, 7, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture
def session(host: Host) -> Iterator[Session]:
    with Session(host.engine) as session:
        yield session


def counted(session: Session, start: datetime, end: datetime) -> None:
    """Sets the position; the tests of the loop show how it moves."""
    position = session.get_one(RollupPosition, 1)
    position.counted_from, position.counted_until = start, end
    session.flush()


def at(hour: int, minute: int) -> datetime:
    return NOW.replace(hour=hour, minute=minute, second=0)


def step(pace: Pace, start: datetime) -> object:
    return next(step for step in pace.steps if step.start == start)


def test_before_any_loop_ran_nothing_is_known(session: Session) -> None:
    pace = find_pace(session, "hour", NOW)
    assert len(pace.steps) == 60
    assert pace.ends_a_minute is None
    assert {(s.finished, s.median, s.due) for s in pace.steps} == {(None, None, None)}


def test_an_hour_has_a_step_a_minute(session: Session) -> None:
    counted(session, at(1, 30), at(2, 13))
    for queue, finished in (("", 7), ("mail", 4), ("crm", 3)):
        session.add(
            Rollup(
                minute=at(2, 12), queue=queue, finished=finished, failed=1, runs=[0, 8], waits=[8]
            )
        )
    session.add(Depth(minute=at(2, 12), queue="mail", due=5))
    session.add(Depth(minute=at(2, 12), queue="crm", due=2, is_capped=True))
    session.flush()
    pace = find_pace(session, "hour", NOW)
    assert (pace.steps[0].start, pace.steps[-1].start) == (at(1, 13), at(2, 12))
    last = pace.steps[-1]
    assert (last.finished, last.failed, last.due, last.is_capped) == (7, 1, 7, True)
    assert 0.001 <= (last.median or 0) <= 0.002
    assert 0 < (last.wait or 0) <= 0.001
    # Counted, and nothing ended: 0, and no run time. Not counted: not known.
    known, unknown = step(pace, at(1, 30)), step(pace, at(1, 29))
    assert (known.finished, known.median, known.due) == (0, None, None)  # type: ignore[attr-defined]
    assert (unknown.finished, unknown.due) == (None, None)  # type: ignore[attr-defined]
    assert pace.ends_a_minute == pytest.approx(0.8)


def test_a_day_has_a_step_a_quarter(session: Session) -> None:
    counted(session, NOW - timedelta(days=2), at(2, 13))
    for minute, finished, due in ((46, 30, 9), (59, 60, 4)):
        session.add(Rollup(minute=at(1, minute), queue="", finished=finished))
        session.add(Depth(minute=at(1, minute), queue="mail", due=due))
    session.flush()
    pace = find_pace(session, "day", NOW)
    assert len(pace.steps) == 96
    assert pace.steps[-1].start == at(1, 45)
    assert (pace.steps[-1].finished, pace.steps[-1].due) == (6, 9)


def test_the_window_ends_where_counting_does_but_not_long_ago(session: Session) -> None:
    counted(session, at(1, 0), at(2, 12))
    assert find_pace(session, "hour", NOW).steps[-1].start == at(2, 11)
    counted(session, at(1, 0), at(1, 41))
    pace = find_pace(session, "hour", NOW)
    assert pace.steps[-1].start == at(2, 12)
    assert next(s.start for s in pace.steps if s.finished is None) == at(1, 41)
    assert pace.ends_a_minute is None


def test_a_queue_has_numbers_of_its_own_beside_those_of_the_hour_before(session: Session) -> None:
    counted(session, at(0, 30), at(2, 13))
    for minute, queue, finished in (((2, 12), "mail", 4), ((2, 12), "", 9), ((1, 12), "mail", 2)):
        moment = at(*minute)
        session.add(
            Rollup(minute=moment, queue=queue, finished=finished, failed=1, canceled=2, runs=[0, 8])
        )
    session.add(EnqueueCount(minute=at(2, 12), queue="mail", enqueued=6))
    session.add(Depth(minute=at(2, 12), queue="mail", due=5, is_capped=True))
    session.flush()
    pace = find_queue_pace(session, "mail", "hour", NOW)
    assert (pace.before[0].start, pace.steps[0].start) == (at(0, 13), at(1, 13))
    assert (len(pace.before), len(pace.steps)) == (60, 60)
    last, earlier = pace.steps[-1], pace.before[-1]
    assert (last.enqueued, last.ended, last.finished, last.failed) == (6, 7, 4, 1)
    assert (last.due, last.is_capped) == (5, True)
    assert 0.001 <= (last.median or 0) <= 0.002
    assert (earlier.enqueued, earlier.ended, earlier.due) == (0, 5, None)
    # Before anything was counted nothing is known.
    assert {(step.ended, step.enqueued) for step in pace.before[:17]} == {(None, None)}
    assert pace.before[17].ended == 0


def test_jobs_enqueued_more_than_two_days_ago_are_kept_together_and_not_known(
    session: Session,
) -> None:
    counted(session, NOW - timedelta(days=5), at(2, 13))
    pace = find_queue_pace(session, "mail", "day", NOW)
    assert [step.start for step in pace.before if step.enqueued is None] == [
        at(2, 0) - timedelta(days=2)
    ]
    assert pace.before[0].ended == 0
