"""The pages of failures walk their indexes and stop early, whatever has failed before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from tests.support.plans import Plans, app_on

# By one INSERT each: only plans are asked of these rows. One task has most jobs and most attempts that failed
# with one error.
_FILL = """
INSERT INTO opsjobs.jobs (id, task, queue, lane, state, args, max_attempts, attempt, created_at, due_at,
    started_at, ended_at, ended_by, dispatch_no)
SELECT n, CASE WHEN n % 3 = 0 THEN 'task_' || n % 40 ELSE 'hot' END, 'q', 'q',
    CASE WHEN n % 5 = 0 THEN 'failed' ELSE 'finished' END, '{"n": 1}', 5, 1, now(), now(), now(),
    now() - (50000 - n) * interval '1 s', CASE WHEN n % 5 = 0 THEN 'exhausted' ELSE 'returned' END, 1
FROM generate_series(1, 50000) AS n;
INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker_id, worker, started_at, ended_at, outcome,
    failure_key, is_counted)
SELECT n, 1, 1, 7, 'w', now(), now() - (50000 - n) * interval '1 s',
    CASE WHEN n % 5 = 0 THEN 'raised' ELSE 'returned' END,
    CASE WHEN n % 25 = 0 THEN decode(lpad((n % 97 + 2)::text, 32, '0'), 'hex')
        WHEN n % 5 = 0 THEN decode(lpad('1', 32, '0'), 'hex') END, true
FROM generate_series(1, 50000) AS n;
INSERT INTO opsjobs.failures (id, key, task, title, sample_job_id, sample_dispatch_no, created_at, number,
    first_at, last_at, state, first_deploy, decided_at, decided_by)
SELECT n, decode(lpad(n::text, 32, '0'), 'hex'), CASE WHEN n % 3 = 0 THEN 'task_' || n % 40 ELSE 'hot' END,
    'KeyError', n, 1, now() - n * interval '1 min', 1, now() - n * interval '1 min',
    now() - n * interval '1 min', CASE WHEN n % 2 = 0 THEN 'resolved' ELSE 'open' END, 4000,
    CASE WHEN n % 2 = 0 THEN now() END, CASE WHEN n % 2 = 0 THEN 'ada' END
FROM generate_series(1, 5000) AS n;
INSERT INTO opsjobs.failure_minutes (failure_id, minute, number)
SELECT f, date_trunc('minute', now()) - n * interval '1 min', 1
FROM generate_series(1, 20) AS f, generate_series(1, 2880) AS n;
INSERT INTO opsjobs.failure_hours (failure_id, hour, number)
SELECT f, date_trunc('hour', now()) - n * interval '1 h', 1
FROM generate_series(1, 20) AS f, generate_series(1, 2160) AS n;
INSERT INTO opsjobs.failure_deploys (failure_id, deploy_id, number, first_at, last_at)
SELECT f, n, 1, now(), now() FROM generate_series(1, 20) AS f, generate_series(1, 5000) AS n;
INSERT INTO opsjobs.task_ends (task, quarter, finished)
SELECT t, date_trunc('hour', now()) - n * interval '15 min', 1
FROM unnest(ARRAY['hot', 'task_1', 'task_2']) AS t, generate_series(1, 8640) AS n;
INSERT INTO opsjobs.task_deaths (task, day, death, number)
SELECT 'task_' || t, date_trunc('day', now()) - n * interval '1 d', d, 1
FROM generate_series(1, 100) AS t, generate_series(1, 90) AS n, unnest(ARRAY['signal', 'exited']) AS d;
INSERT INTO opsjobs.deploys (version, at, source)
SELECT 'v' || n, now() - (5000 - n) * interval '1 h', 'command' FROM generate_series(1, 5000) AS n
"""
TABLES = (
    "jobs",
    "attempts",
    "failures",
    "failure_minutes",
    "failure_hours",
    "failure_deploys",
    "task_ends",
    "task_deaths",
    "deploys",
)


def _fill(session: Session) -> None:
    for statement in _FILL.split(";"):
        session.execute(text(statement))
    session.commit()
    session.execute(text(f"ANALYZE {', '.join(f'opsjobs.{table}' for table in TABLES)}"))


@pytest.fixture(scope="module")
def filled(databases: Any) -> Iterator[Flask]:
    """A host with 50,000 attempts, 5,000 failures and their numbers."""
    with app_on(databases, _fill) as app:
        yield app


# By page: the table, the indexes that are walked, and the most rows that one scan may read. 1,000 failures
# of a state are counted.
CASES: dict[tuple[str, str], tuple[set[str], int]] = {
    ("/lifeline/failures", "failures"): ({"failures_by_state"}, 1_001),
    ("/lifeline/failures?task=hot", "failures"): ({"failures_by_state", "failures_by_task"}, 1_001),
    ("/lifeline/failures/1", "failures"): ({"failures_pkey", "failures_by_task"}, 11),
    ("/lifeline/failures/1", "attempts"): ({"attempts_by_failure"}, 200),
    ("/lifeline/failures/1", "failure_minutes"): ({"failure_minutes_pkey"}, 1_440),
    ("/lifeline/failures/1", "failure_hours"): ({"failure_hours_pkey"}, 721),
    ("/lifeline/failures/1", "failure_deploys"): ({"failure_deploys_pkey"}, 8),
    ("/lifeline/failures/1", "task_ends"): ({"task_ends_pkey"}, 2_881),
    ("/lifeline/failures/2", "task_deaths"): ({"task_deaths_pkey"}, 62),
    ("/lifeline/failures/1", "deploys"): ({"deploys_pkey"}, 100),
}


@pytest.mark.parametrize(("path", "table"), CASES)
def test_a_page_walks_its_indexes(filled: Flask, path: str, table: str) -> None:
    indexes, most = CASES[path, table]

    class Seen(Plans):
        about = f"opsjobs.{table}"

    with Seen(filled.extensions["opsjobs"].pages) as plans:
        assert filled.test_client().get(f"/ops/jobs{path}").status_code == 200
    # Statements about this table name others too.
    nodes = [
        node
        for _, found in plans.seen
        for node in found
        if node.get("Relation Name") == table or node.get("Index Name") in indexes
    ]
    assert {node.get("Index Name") for node in nodes} == indexes, plans
    read = [(node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) for node in nodes]
    assert max(read) <= most, plans


def test_the_jobs_of_a_failure_are_read_by_id_and_others_by_task(filled: Flask) -> None:
    with Plans(filled.extensions["opsjobs"].pages) as plans:
        assert filled.test_client().get("/ops/jobs/lifeline/failures/1").status_code == 200
    assert plans.read_whole.isdisjoint(TABLES), plans
    assert {"jobs_pkey", "jobs_by_task"} <= plans.indexes, plans
    nodes = [node for _, found in plans.seen for node in found]
    read = [node["Actual Rows"] for node in nodes if node.get("Index Name") == "jobs_by_task"]
    assert 100 <= sum(read) <= 500, plans
