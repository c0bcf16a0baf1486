"""Retention of failures: numbers go first, then failures that did not happen for long; deploys stay while
they are named.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.lifeline import retention
from tests.support.engine import Bench

_MADE = """
INSERT INTO opsjobs.failures (id, key, task, title, sample_job_id, sample_dispatch_no, created_at, number,
    first_at, last_at, first_deploy, last_deploy)
SELECT days, decode(lpad(days::text, 32, '0'), 'hex'), 't', 'KeyError', 1, 1, now(), 1, at, at, days, days
FROM unnest(%(days)s::int[]) AS days, LATERAL (SELECT now() - days * interval '1 day' AS at) AS ago;
INSERT INTO opsjobs.failure_minutes SELECT id, last_at, 1 FROM opsjobs.failures;
INSERT INTO opsjobs.failure_hours SELECT id, last_at, 1 FROM opsjobs.failures;
INSERT INTO opsjobs.failure_deploys SELECT id, id, 1, last_at, last_at FROM opsjobs.failures;
INSERT INTO opsjobs.task_ends SELECT 't', last_at, 1, 1 FROM opsjobs.failures;
INSERT INTO opsjobs.task_deaths SELECT 't', last_at, 'signal', 1 FROM opsjobs.failures;
INSERT INTO opsjobs.deploys (id, version, at, source)
SELECT 1000 - days, 'v' || days, now() - days * interval '1 day', 'command'
FROM unnest(%(days)s::int[]) AS days
"""


@pytest.fixture
def now(bench: Bench) -> datetime:
    return read_clock(bench.connection)


def make(bench: Bench, *days: int) -> None:
    """A failure that happened so many days ago, with its numbers, and a deploy of that day."""
    for statement in _MADE.split(";"):
        bench.connection.execute(statement, {"days": list(days)})


def ids(bench: Bench, table: str, column: str = "id") -> set[Any]:
    return {row[column] for row in bench.rows(f"SELECT {column} FROM opsjobs.{table}")}


def test_each_kind_is_kept_for_its_days(bench: Bench, now: datetime) -> None:
    make(bench, 1, 3, 29, 31, 89, 91, 399, 401)
    counted = retention.count_retainable(bench.connection, bench.host.settings, now)
    removed = retention.retain(bench.connection, bench.host.settings, now)
    assert removed == counted
    assert {what: number for what, number in removed.items() if number} == {
        "failure_minutes": 7,
        "failure_hours": 5,
        "task_ends": 5,
        "task_deaths": 5,
        "failures": 3,
        "deploys": 1,
    }
    assert ids(bench, "failures") == {1, 3, 29, 31, 89}
    assert ids(bench, "failure_minutes", "failure_id") == {1}
    assert ids(bench, "failure_hours", "failure_id") == {1, 3, 29}
    assert ids(bench, "failure_deploys", "failure_id") == {1, 3, 29, 31, 89}
    assert 1000 - 401 not in ids(bench, "deploys")


@pytest.mark.parametrize(
    "column", ["first_deploy", "last_deploy", "resolved_in", "resolved_after", "regressed_in"]
)
def test_a_deploy_stays_while_a_failure_names_it(bench: Bench, now: datetime, column: str) -> None:
    make(bench, 1, 500)
    bench.connection.execute(
        f"""UPDATE opsjobs.failures SET state = 'resolved', decided_at = now(), decided_by = 'ada',
            {column} = 500 WHERE id = 1"""
    )
    retention.retain(bench.connection, bench.host.settings, now)
    assert ids(bench, "deploys") == {500, 999}


def test_the_newest_deploy_stays(bench: Bench, now: datetime) -> None:
    make(bench, 450, 520)
    settings = replace(bench.host.settings, keep_failed_days=1)
    assert retention.retain(bench.connection, settings, now)["deploys"] == 1
    assert ids(bench, "deploys") == {550}
    late = now + timedelta(days=900)
    assert retention.retain(bench.connection, settings, late)["deploys"] == 0
