"""The bundle of a subject with 100,000 events is bounded, walks named indexes, and says what it left out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs.forensics.find import MOST_EVENTS, find_bundle
from tests.support.database import Databases
from tests.support.plans import Plans, app_on, reading_with

# By one INSERT each: the real writers would take minutes. 20,000 jobs are the steps of one run and the
# members of one batch, and failed five times each in one way, but for every hundredth.
_FILL = """
INSERT INTO opsjobs.deploys (version, at, source)
SELECT 'v' || n, now() - (300 - n) * interval '1 h', 'command' FROM generate_series(1, 300) n;
INSERT INTO opsjobs.workers (name, kind, host, pid, queues, state, started_at, heartbeat_at, ended_at,
    deploy_id)
SELECT 'worker_' || n, 'pool', 'h', n, '{mail}', CASE WHEN n > 2990 THEN 'alive' ELSE 'stopped' END,
    now() - (3000 - n) * interval '6 min', now(), CASE WHEN n <= 2990 THEN now() END, 1 + n / 10
FROM generate_series(1, 2999) n;
INSERT INTO opsjobs.workflows (name, state, context, shape, steps, settled, failed, created_at, ended_at,
    end_no, ended_by, ended_by_step)
SELECT 'import', 'failed', '{}', '', steps, steps, steps, now() - interval '2 days', now(), 1, 'step',
    'step 1'
FROM generate_series(1, 3000) n, LATERAL (SELECT CASE n WHEN 1 THEN 20000 ELSE 1 END) AS of(steps);
INSERT INTO opsjobs.batches (name, state, enqueued, created_at, closed_at, ended_at, end_no, first_failed_at)
SELECT 'import', 'failed', 20000, now() - interval '2 days', now(), now(), 1, now() - interval '1 day'
FROM generate_series(1, 3000) n;
INSERT INTO opsjobs.batch_ends (batch_id, state, ended_by, number)
VALUES (1, 'failed', 'exhausted', 19800), (1, 'finished', 'returned', 200);
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, attempt, dispatch_no, created_at,
    due_at, dispatched_at, started_at, ended_at, ended_by, error, workflow_id, batch_id)
SELECT 'import_row', 'mail', 'mail', s, '{}', 5, 5, 5, now() - interval '2 days', now(), now(), now(),
    now() - (20000 - n) * interval '1 s', CASE s WHEN 'failed' THEN 'exhausted' ELSE 'returned' END,
    CASE s WHEN 'failed' THEN 'ValueError: no' END, 1, 1
FROM generate_series(1, 20000) n,
    LATERAL (SELECT CASE n % 100 WHEN 0 THEN 'finished' ELSE 'failed' END) AS of(s);
INSERT INTO opsjobs.steps (job_id, workflow_id, name, position, kind, pending, settled, settled_at,
    released_at)
SELECT id, 1, 'step ' || id, id, 'job', 0, state, ended_at, created_at FROM opsjobs.jobs;
INSERT INTO opsjobs.edges (from_id, to_id, on_failure)
SELECT id, id + 1, 'continue' FROM opsjobs.jobs WHERE id < 20000;
INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker, worker_id, started_at, ended_at, outcome,
    failure_key, deploy_id, is_counted)
SELECT id, n, n, 'worker_2995', 2995, ended_at - (6 - n) * interval '1 min',
    ended_at - (5 - n) * interval '1 min', 'raised', decode(lpad('1', 32, '0'), 'hex'), 300, true
FROM opsjobs.jobs, generate_series(1, 5) n;
INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker, worker_id, started_at, ended_at, outcome)
SELECT 1, n, n, 'worker_2995', 2995, now() - (100001 - n) * interval '1 s',
    now() - (100000 - n) * interval '1 s', 'snoozed'
FROM generate_series(6, 100000) n;
UPDATE opsjobs.jobs SET dispatch_no = 100000 WHERE id = 1;
INSERT INTO opsjobs.failures (key, task, title, sample_job_id, sample_dispatch_no, created_at, number, jobs,
    job_failed_at, first_at, last_at, first_deploy, last_deploy)
SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), 'task_' || n % 40, 'ValueError', 9, 1, now(), 100000, 1,
    now(), now() - interval '1 day', now() - n * interval '1 s', 299, 300
FROM generate_series(1, 3000) n;
INSERT INTO opsjobs.failure_deploys (failure_id, deploy_id, number, first_at, last_at)
SELECT id, d, 1, first_at, last_at FROM opsjobs.failures, generate_series(291, 300) d;
INSERT INTO opsjobs.failure_hours (failure_id, hour, number)
SELECT id, date_trunc('hour', now()) - n * interval '1 h', 1 FROM opsjobs.failures, generate_series(1, 10) n;
INSERT INTO opsjobs.operations (state, action, actor, via, is_trusted, reason, targets, done, skipped,
    created_at, expires_at, started_at, handled_at, ended_at)
SELECT 'finished', 'job.cancel', 'anna', 'page', false, 'why', 10 * part, 9 * part, part, now(), now(), now(),
    now(), now()
FROM generate_series(1, 1000) n, LATERAL (SELECT CASE n WHEN 1 THEN 10000 ELSE 0 END) AS of(part);
INSERT INTO opsjobs.operation_rows (operation_id, number, job_id, queue, origin, state, dispatch_no, attempt,
    result, code, at)
SELECT 1, n, n, 'mail', 'opsjobs', 'failed', 1, 1, CASE n % 10 WHEN 0 THEN 'skipped' ELSE 'done' END,
    CASE n % 10 WHEN 0 THEN 'illegal' END, now()
FROM generate_series(1, 100000) n;
INSERT INTO opsjobs.audit_events (sequence, at, actor, via, action, subject, targets, outcome, canonical,
    key_id, previous_hash, hash)
SELECT n, now() - (101000 - n) * interval '1 s', CASE WHEN n > 100000 THEN 'bob' ELSE 'anna' END, 'page',
    'job.retry', 'job/' || n % 20000, ARRAY['job/' || n % 20000], 'done', '', 'k', '', ''
FROM generate_series(1, 101000) n;
UPDATE opsjobs.audit_head SET sequence = 101000;
SELECT gin_clean_pending_list('opsjobs.audit_by_target');
ANALYZE
"""
# Subject, the indexes of its own, how many rows a scan may read at most, and what its timeline leaves out.
LARGE = [
    (
        "failure/1",
        {"failures_pkey", "attempts_by_failure", "failure_deploys_pkey", "failure_hours_pkey"},
        1_000,
        "attempts of older jobs",
    ),
    (
        "deploy/299",
        {"deploys_pkey", "workers_by_start", "failures_to_retain", "failure_deploys_pkey"},
        1_000,
        "failures beyond the 500 that happened last",
    ),
    ("operation/1", {"operations_pkey", "operation_rows_pkey"}, 10_000, "receipts"),
    ("actor/anna", {"audit_by_actor", "audit_events_pkey"}, 1_000, "decisions"),
    (
        "workflow/1",
        {"workflows_pkey", "jobs_of_run", "steps_pkey", "steps_name_key", "attempts_pkey"},
        1_000,
        "steps that tell less",
    ),
    (
        "step/1",
        {"steps_pkey", "jobs_pkey", "attempts_pkey", "edges_pkey", "edges_by_target"},
        1_000,
        "attempts",
    ),
    (
        "batch/1",
        {"batches_pkey", "batch_ends_pkey", "jobs_of_batch"},
        1_000,
        "older failed members",
    ),
]


class _EveryPlan(Plans):
    about = "opsjobs."


def _fill(session: Session) -> None:
    for statement in _FILL.split(";"):
        session.execute(text(statement))


@pytest.fixture(scope="module")
def busy_app(databases: Databases) -> Iterator[Flask]:
    """A host on such a database."""
    with app_on(databases, _fill) as app:
        yield app


@pytest.mark.parametrize(("subject", "indexes", "most", "left_out"), LARGE)
def test_a_large_subject_is_told_within_bounds(
    busy_app: Flask, subject: str, indexes: set[str], most: int, left_out: str
) -> None:
    with reading_with(busy_app, _EveryPlan) as (plans, read):
        found = find_bundle(busy_app.extensions["opsjobs"], read, subject)
    assert indexes <= plans.indexes, plans
    assert plans.read_whole == set(), plans
    assert plans.most_rows <= most, plans
    assert 50 < len(found.timeline.events) <= MOST_EVENTS
    assert left_out in {row.what for row in found.timeline.left_out}
    assert all(len(table.rows) <= 50 for table in found.evidence)


@pytest.mark.parametrize("subject", [row[0] for row in LARGE])
def test_its_page_and_its_exports_are_small(busy_app: Flask, subject: str) -> None:
    client = busy_app.test_client()
    page = client.get(f"/ops/jobs/forensics/{subject}")
    assert page.status_code == 200, page.text
    assert len(page.data) < 400_000
    for form in ("md", "html", "json"):
        file = client.get(f"/ops/jobs/export/forensics/{subject}?format={form}")
        assert file.status_code == 200, file.text
        assert 2_000 < len(file.data) < 400_000
