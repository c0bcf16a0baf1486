"""The bundle of each kind walks the indexes that it names, on tables as a busy host has them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs.forensics.find import find_bundle
from flask_opsjobs.forensics.names import find_subjects
from tests.support.database import Databases
from tests.support.plans import Plans, app_on, reading_with

# By one INSERT each: the real writers would take minutes. Only plans are asked of these rows.
_FILL = """
INSERT INTO opsjobs.workers (name, kind, host, pid, queues, state, started_at, heartbeat_at, ended_at)
SELECT 'worker_' || n, 'pool', 'h', n, '{queue_1}', CASE WHEN n > 2990 THEN 'alive' ELSE 'stopped' END,
    now() - (3000 - n) * interval '3 min', now(), CASE WHEN n > 2990 THEN NULL ELSE now() - interval '1
    h' END
FROM generate_series(1, 3000) n;
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, attempt, dispatch_no, created_at,
    due_at, dispatched_at, started_at, ended_at, ended_by, error, worker_id, limiter, partition, weight)
SELECT 'task_' || n % 40, 'queue_' || n % 7, 'lane', s, '{}', 5, 1, 1,
    now() - (30000 - n) * interval '9 s', now(), now(), now(), CASE WHEN s <> 'started' THEN now() -
    (30000 - n) * interval '1 s' END,
    CASE s WHEN 'finished' THEN 'returned' WHEN 'failed' THEN 'exhausted' END,
    CASE WHEN s = 'failed' THEN 'ValueError: no' END, CASE WHEN s = 'started' THEN 2995 END,
    'api', 'p' || n % 50, 1
FROM generate_series(1, 30000) n, LATERAL (SELECT CASE WHEN n > 29900 THEN 'started'
    WHEN n % 9 = 0 THEN 'failed' ELSE 'finished' END) AS of(s);
INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker, worker_id, started_at, ended_at,
    outcome,
    failure_key)
SELECT id, 1, 1, 'worker_2995', 2995, started_at, ended_at,
    CASE state WHEN 'finished' THEN 'returned' WHEN 'failed' THEN 'raised' END,
    CASE WHEN state = 'failed' THEN decode(lpad(to_hex(id % 500), 32, '0'), 'hex') END
FROM opsjobs.jobs;
INSERT INTO opsjobs.failures (key, task, title, sample_job_id, sample_dispatch_no, created_at, number,
    first_at,
    last_at)
SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), 'task_' || n % 40, 'ValueError', 9, 1, now(), 1, now(),
    now()
FROM generate_series(0, 3000) n;
INSERT INTO opsjobs.cron_entries (name, origin, task, expression, zone, overlap, catch_up, args,
    checked_until,
    created_at, created_by)
SELECT 'entry_' || n, 'code', 'task_1', '* * * * *', 'UTC', 'allow', 'none', '{}', now(), now(), 'code'
FROM generate_series(1, 50) n;
INSERT INTO opsjobs.cron_slots (entry, slot_at, until_at, result, expression, zone, decided_at, job_id)
SELECT 'entry_' || n % 50, now() - n * interval '1 min', now() - n * interval '1 min', 'ran', '* * * *
    *', 'UTC',
    now() - n * interval '1 min', n
FROM generate_series(1, 30000) n;
INSERT INTO opsjobs.limiters (name, rate, per_seconds, burst, when_full, declared_at, declared_by)
SELECT name, 10, 60, 5, 'hold', now() - interval '3 d', 'worker-1' FROM unnest('{api,other}'::text[]) AS
    name;
INSERT INTO opsjobs.limit_minutes (limiter, minute, admitted)
SELECT CASE WHEN n % 40 = 0 THEN 'api' ELSE 'other' END, date_trunc('minute', now()) - n * interval '1
    min', n
FROM generate_series(1, 30000) n;
INSERT INTO opsjobs.limit_rejections (at, limiter, partition, task, weight, code)
SELECT now(), CASE WHEN n % 40 = 0 THEN 'api' ELSE 'other' END, 'p', 'task_1', 1, 'limit_tokens'
FROM generate_series(1, 20000) n;
INSERT INTO opsjobs.incidents (class, subject, fingerprint, severity, state, episode, first_at, opened_at,
    seen_at, facts, resolved_at, resolved_by)
SELECT 'loop_failing', 'loop/' || n, 'loop_failing:loop/' || n, 'warning', 'resolved', 1,
    now() - n * interval '3 min', now() - n * interval '3 min', now(),
    '{"loop": "x", "process": "p", "failed": 5, "error": "e"}', now() - n * interval '2 min', 'cleared'
FROM generate_series(1, 20000) n;
INSERT INTO opsjobs.evidence (incident_id, episode, kind, first_at, last_at, source)
SELECT id, 1, 'opened', opened_at, opened_at, 'detect' FROM opsjobs.incidents;
INSERT INTO opsjobs.loop_runs (loop, process, started_at, last_at, every_seconds)
SELECT 'loop_' || n % 7, 'p', now() - n * interval '10 min', now() - n * interval '10 min', 1
FROM generate_series(1, 20000) n;
INSERT INTO opsjobs.operations (state, action, actor, via, is_trusted, reason, targets, created_at,
    expires_at,
    started_at, ended_at)
SELECT 'finished', 'job.retry', 'anna', 'page', false, 'why', 0, now(), now(), now(), now()
FROM generate_series(1, 1000);
INSERT INTO opsjobs.operation_rows (operation_id, number, job_id, queue, origin, state, dispatch_no,
    attempt,
    result, at)
SELECT 1 + n % 1000, n, n, 'q', 'opsjobs', 'failed', 1, 1, 'done', now() FROM generate_series(1, 30000) n;
INSERT INTO opsjobs.deploys (version, at, source)
SELECT 'v' || n, now() - (300 - n) * interval '1 h', 'command' FROM generate_series(1, 300) n;
INSERT INTO opsjobs.task_ends (task, quarter, finished)
SELECT 'task_' || t, date_bin('15 min', now(), '2000-01-01') - n * interval '15 min', 5
FROM generate_series(1, 1000) n, generate_series(1, 40) t;
INSERT INTO opsjobs.enqueue_counts (minute, queue, enqueued)
SELECT date_trunc('minute', now()) - n * interval '1 min', 'queue_' || q, n
FROM generate_series(1, 2000) n, generate_series(1, 7) q;
INSERT INTO opsjobs.rollups (minute, queue, finished) SELECT minute, queue, 1 FROM opsjobs.enqueue_counts;
INSERT INTO opsjobs.depths (minute, queue, due) SELECT minute, queue, 1 FROM opsjobs.enqueue_counts;
INSERT INTO opsjobs.audit_events (sequence, at, actor, via, action, subject, targets, outcome, canonical,
    key_id,
    previous_hash, hash)
SELECT n, now(), 'anna', 'page', 'job.retry', 'job/' || n, ARRAY['job/' || n], 'done', '', 'k', '', ''
FROM generate_series(1, 30000) n;
UPDATE opsjobs.audit_head SET sequence = 30000;
ANALYZE
"""
# What a bundle may read whole: a few rows, however busy the host is. Workers that have ended are kept a week.
_SMALL = {
    *("audit_head", "cron_entries", "limiters", "queues", "rollup_position", "integrity_checks"),
    "workers",
}


class _EveryPlan(Plans):
    about = "opsjobs."


def _fill(session: Session) -> None:
    for statement in _FILL.split(";"):
        session.execute(text(statement))


@pytest.fixture(scope="module")
def busy_app(databases: Databases) -> Iterator[Flask]:
    """A host on a database that is busy with everything."""
    with app_on(databases, _fill) as app:
        yield app


# What every bundle reads, whatever its kind.
_LINES = {"audit_by_target", "operations_pkey", "incidents_fingerprint_key"}
_WATCHED = {"loop_runs_latest", "incidents_by_class"}
# Subject, the indexes of its own, and how many rows a scan may read at most.
KINDS = [
    (
        "job/900",  # failed
        {
            "jobs_pkey",
            "attempts_pkey",
            "failures_key_key",
            "operation_rows_of_job",
            "jobs_run_again",
        },
        400,
    ),
    ("job/29950", {"jobs_pkey", "attempts_pkey", "workers_pkey", *_WATCHED}, 400),
    ("attempt/900-1", {"jobs_pkey", "attempts_pkey"}, 400),
    (
        "task/task_9",
        {"jobs_by_task", "jobs_unsuccessful_by_task", "task_ends_pkey", *_WATCHED},
        400,
    ),
    (
        "queue/queue_1",
        {"jobs_by_queue", "rollups_pkey", "depths_pkey", "enqueue_counts_pkey"},
        3_100,
    ),
    ("worker/worker_2995", {"workers_name_key", *_WATCHED}, 400),
    ("cron/entry_7", {"cron_entries_pkey", "cron_slots_by_entry", *_WATCHED}, 400),
    ("limiter/api", {"limit_minutes_pkey", "limit_rejections_by_limiter", *_WATCHED}, 2_100),
    ("incident/500", {"incidents_pkey", "evidence_of_incident"}, 3_100),
]


@pytest.mark.parametrize(("subject", "indexes", "most"), KINDS)
def test_a_bundle_walks_its_indexes(
    subject: str, indexes: set[str], most: int, busy_app: Flask
) -> None:
    with reading_with(busy_app, _EveryPlan) as (plans, read):
        found = find_bundle(busy_app.extensions["opsjobs"], read, subject)
    assert found.title
    assert indexes <= plans.indexes, plans
    assert plans.read_whole <= _SMALL, plans
    assert plans.most_rows <= most, plans


def test_a_name_is_found_by_the_indexes_of_names(busy_app: Flask) -> None:
    host = busy_app.extensions["opsjobs"]
    with reading_with(busy_app, _EveryPlan) as (plans, read):
        found = find_subjects(host, read.session, "queue_1")
        assert find_subjects(host, read.session, "task_9") == ["task/task_9"]
        assert find_subjects(host, read.session, "nothing") == []
    assert "queue/queue_1" in found
    assert {
        "jobs_by_task",
        "jobs_by_queue",
        "workers_name_key",
        "deploys_by_version",
        "audit_by_actor",
        "workflows_by_name",
        "batches_by_name",
    } <= plans.indexes, plans
    assert plans.read_whole <= _SMALL, plans
    assert plans.most_rows <= 50, plans  # all limiters, and all cron entries
