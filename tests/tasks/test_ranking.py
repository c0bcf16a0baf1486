"""The numbers of one task are those that the list of all tasks has of it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs.host import Host
from flask_opsjobs.tasks.models import TaskHour
from flask_opsjobs.tasks.queries import DAY, HOUR, TaskNumbers
from flask_opsjobs.tasks.ranking import AGAINST, Hours, TaskRow, find_row, rank_tasks

# Two hours after the clocks of Berlin were set back: 02:00 came twice.
NOW = datetime(2026, 10, 25, 3, 30, tzinfo=UTC)


@pytest.fixture
def session(host: Host) -> Iterator[Session]:
    """A session in Berlin. The task `sync` has other numbers in each of the last nine days' hours."""
    chance = random.Random(17)
    with Session(host.engine) as session:
        session.execute(text("SET LOCAL TimeZone = 'UTC'"))
        for ago in range(9 * 24):
            number = chance.randrange(40)
            hour = TaskHour(
                task="sync",
                hour=NOW.replace(minute=0) - ago * HOUR,
                enqueued=chance.randrange(40),
                finished=number,
                failed=chance.choice((0, 0, 0, 9)),
                canceled=chance.randrange(3),
                waits=[0] * chance.randrange(9) + [number],
                runs=[0] * chance.randrange(15) + [number],
                longest_run=chance.random(),
                peak_kb=chance.randrange(90_000),
            )
            session.add(hour)
        session.flush()
        session.execute(text("SET LOCAL TimeZone = 'Europe/Berlin'"))
        yield session


def _cut(numbers: TaskNumbers | None) -> TaskNumbers | None:
    """The numbers without empty buckets at the ends of histograms, which mean nothing."""

    def cut(histogram: list[int]) -> list[int]:
        while histogram and not histogram[-1]:
            histogram.pop()
        return histogram

    if numbers is None:
        return None
    return replace(numbers, waits=cut(list(numbers.waits)), runs=cut(list(numbers.runs)))


def _told(row: TaskRow) -> TaskRow:
    now = _cut(row.now)
    assert now is not None
    return replace(row, now=now, before=_cut(row.before))


@pytest.mark.parametrize("against", AGAINST)
@pytest.mark.parametrize("span", [HOUR, timedelta(hours=3), DAY, 2 * DAY])
def test_one_task_has_the_numbers_of_its_row_in_the_list(
    session: Session, span: timedelta, against: str
) -> None:
    changes = set()
    for ago in range(30):
        hours = Hours.until(NOW - ago * HOUR, span, against)
        (row,), _ = rank_tasks(session, hours)
        found = find_row(session, "sync", hours)
        assert _told(found) == _told(row), hours
        changes.add(found.change.says)
    assert len(changes) > 3, "the change depends on the hours"
