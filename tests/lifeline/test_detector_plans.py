"""Each statement of a detector walks the indexes that it names, on 50,000 jobs in 1,000 lanes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from flask_opsjobs.core.db import Connection
from tests.support import sources
from tests.support.database import Databases
from tests.support.plans import explain

# Only plans are asked of these rows: no writer of ours makes 50,000 of them in a second.
_FILL = """
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, attempt, dispatch_no, created_at,
    due_at, dispatched_at, started_at, ended_at, ended_by, worker_id, limiter, partition, weight, batch_id)
SELECT 'task_' || n % 40, 'queue_' || n % 7,
    'queue_' || n % 7 || CASE WHEN s.state = 'available' THEN '|api|' || n % 1000 ELSE '' END,
    s.state, '{}', 5, 1, 1, now(),
    now() + CASE WHEN s.state = 'scheduled' THEN n ELSE -n END * interval '1 min', now(),
    now() - interval '5 s',
    CASE WHEN s.ended_by IS NOT NULL THEN now() - n * interval '10 s' END, s.ended_by,
    CASE WHEN s.state = 'started' THEN 1 + n % 30 END,
    CASE WHEN s.state = 'available' THEN 'api' END, CASE WHEN s.state = 'available' THEN (n % 1000)::text END,
    CASE WHEN s.state = 'available' THEN 1 END, CASE WHEN n % 50 = 0 THEN 1 + n % 300 END
FROM (VALUES ('finished', 25000, 'returned'), ('failed', 3000, 'exhausted'), ('scheduled', 15000, NULL),
    ('available', 6000, NULL), ('queued', 200, NULL), ('started', 100, NULL)) AS s(state, many, ended_by),
    LATERAL generate_series(1, s.many) AS n;
INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker_id, worker, started_at, ended_at, outcome,
    death)
SELECT id, a, a, 1, 'w' || id % 200, now(), now() - id * interval '1 s', CASE WHEN a = 1 THEN 'died' ELSE
    'returned' END, CASE WHEN a = 1 AND id % 100 = 0 THEN 'signal' END
FROM opsjobs.jobs, generate_series(1, 1 + (id % 20 = 0)::int) AS a;
INSERT INTO opsjobs.workers (name, kind, host, pid, queues, state, started_at, heartbeat_at, ended_at)
SELECT 'w' || n, 'pool', 'h', n, '{default}', CASE WHEN n > 200 THEN 'stopped' ELSE 'alive' END,
    now() - n * interval '10 min', now(), CASE WHEN n > 200 THEN now() END FROM generate_series(1, 3000) n;
INSERT INTO opsjobs.loop_runs (loop, process, started_at, last_at, every_seconds)
SELECT 'loop_' || n % 13, 'p', now(), now() - n * interval '1 min', 1 FROM generate_series(1, 5000) n;
INSERT INTO opsjobs.callbacks (of, of_id, end_no, event, job_id)
SELECT 'batch', n, 0, 'end', n FROM generate_series(1, 10000) n;
INSERT INTO opsjobs.batches (name, state, created_at, closed_at, ended_at)
SELECT 'b', CASE WHEN n > 300 THEN 'finished' ELSE 'running' END, now(), now(),
    CASE WHEN n > 300 THEN now() END FROM generate_series(1, 20000) n;
INSERT INTO opsjobs.incidents (class, subject, fingerprint, severity, state, first_at, opened_at, seen_at,
    resolved_at, resolved_by)
SELECT 'poison', n::text, 'poison:' || n, 'warning', CASE WHEN n > 50 THEN 'resolved' ELSE 'open' END,
    now() - n * interval '1 min', now() - n * interval '1 min', now(),
    CASE WHEN n > 50 THEN now() - n * interval '1 s' END, CASE WHEN n > 50 THEN 'cleared' END
FROM generate_series(1, 20000) n;
INSERT INTO opsjobs.evidence (incident_id, episode, kind, first_at, last_at, source)
SELECT id, 1, 'seen', now() - id * interval '1 min', now() - id * interval '1 min', 'detect'
FROM opsjobs.incidents, generate_series(1, 3);
INSERT INTO opsjobs.escalations (incident_id, episode, event, state, job_id, decided_at, ended_at, why)
SELECT id, 1, 'opened', CASE WHEN id % 100 = 0 THEN 'failed' WHEN id % 1000 = 1 THEN 'pending'
    ELSE 'invoked' END, id, opened_at, CASE WHEN id % 1000 <> 1 THEN opened_at END, 'e'
FROM opsjobs.incidents;
INSERT INTO opsjobs.failures (key, task, title, sample_job_id, sample_dispatch_no, created_at, number, jobs,
    job_failed_at, first_at, last_at, state, decided_at, decided_by)
SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), 'note', 'e', n, 1, now(), 1, 1, now(), now() - interval '1 y',
    now() - n * interval '5 min', CASE WHEN n % 10 = 0 THEN 'open' ELSE 'resolved' END,
    CASE WHEN n % 10 > 0 THEN now() END, CASE WHEN n % 10 > 0 THEN 'ada' END FROM generate_series(1, 20000) n;
INSERT INTO opsjobs.jobs (origin, rq_place, rq_id, rq_created_at, task, queue, lane, state, args,
    max_attempts, created_at, due_at, dispatched_at, started_at, ended_at, ended_by)
SELECT 'rq', 'default', 'rq-' || n, now(), 'f', 'mail', 'mail', s.state, '{}', 1, now(), now(), now(), now(),
    CASE WHEN s.state = 'failed' THEN now() END, CASE WHEN s.state = 'failed' THEN 'exhausted' END
FROM generate_series(1, 10000) n,
    LATERAL (SELECT CASE n % 4 WHEN 0 THEN 'deferred' WHEN 1 THEN 'scheduled' ELSE 'failed' END) AS s(state);
INSERT INTO opsjobs.rq_facts (job_id, depends_on, created_source, changed_at)
SELECT id, CASE WHEN state = 'deferred' THEN ARRAY['rq-2'] ELSE '{}' END, 'rq', now()
FROM opsjobs.jobs WHERE origin = 'rq';
INSERT INTO opsjobs.workflows (name, state, context, shape, steps, settled, finished, created_at, ended_at,
    ended_by)
SELECT 'w', CASE WHEN n % 20 = 0 THEN 'running' ELSE 'finished' END, '{}', '', 1, (n % 20 > 0)::int,
    (n % 20 > 0)::int, now(), CASE WHEN n % 20 > 0 THEN now() END,
    CASE WHEN n % 20 > 0 THEN 'finished' END FROM generate_series(1, 20000) n;
INSERT INTO opsjobs.cron_slots (entry, slot_at, until_at, result, expression, zone, decided_at)
SELECT 'e' || n % 10, now() - n * interval '1 min', now() - n * interval '1 min',
    CASE WHEN n % 200 = 0 THEN 'missed' ELSE 'ran' END, '* * * * *', 'UTC', now()
FROM generate_series(1, 20000) n;
INSERT INTO opsjobs.rollups (minute, queue, finished, waits)
SELECT date_trunc('minute', now()) - m * interval '1 min', 'queue_' || q, 5, '{1,2}'
FROM generate_series(1, 1500) m, generate_series(0, 19) q
"""
# Tables that grow with the jobs: no detector reads one of them whole.
_LARGE = {
    "jobs",
    "attempts",
    "callbacks",
    "batches",
    "incidents",
    "evidence",
    "escalations",
    "cron_slots",
    "rollups",
    "failures",
    "rq_facts",
    "workflows",
}
_IDS = {"ids": [1, 2, 3]}
# By statement, indexes that it walks, and its parameters.
_CASES: dict[str, tuple[set[str], dict[str, Any]]] = {
    "detect_failed_escalations": ({"escalations_ended"}, {}),
    "detect_failed_callbacks": ({"jobs_to_retain", "callbacks_by_job"}, {}),
    "detect_failures": (set(), {"has_regressed": False}),
    "detect_failing_loops": ({"loop_runs_latest"}, {"grace_seconds": 5, "passes": 5}),
    "detect_jobs_held_by_nobody": ({"jobs_started"}, {"heartbeat_seconds": 10}),
    "detect_leaked_leases": (set(), {}),
    "detect_missed_slots": ({"cron_slots_missed"}, {}),
    "detect_missing_code": ({"jobs_to_stage", "jobs_to_retain"}, {}),
    "detect_missing_workers": ({"jobs_started"}, {}),
    "detect_overdue_batches": ({"batches_by_state", "jobs_of_batch"}, {}),
    "detect_overdue_waits": (set(), {}),
    "detect_poison": ({"attempts_by_death", "jobs_pkey"}, {}),
    "detect_retry_storms": ({"attempts_repeated", "jobs_to_retain"}, {}),
    "detect_silent_loops": ({"loop_runs_latest"}, {"grace_seconds": 5}),
    "detect_starving_lanes": ({"jobs_due"}, {}),
    "detect_stuck_dependents": (
        {"jobs_adopted", "rq_facts_pkey", "rq_facts_depends_on", "jobs_of_rq"},
        {"ids": list(range(50_000, 50_200)), "most_behind": 2_000},
    ),
    "detect_stopped_operations": (set(), {}),
    "detect_stuck_workflows": (set(), {}),
    "detect_unserved_queues": ({"jobs_due", "jobs_queued"}, {"late_seconds": 45}),
    "list_incidents_to_escalate": (
        {
            "incidents_active",
            "incidents_to_retain",
            "escalations_event_key",
            "evidence_of_incident",
        },
        {"severities": ["critical"], "remind_after": 3600.0, "flap_within": 3600.0},
    ),
    "settle_escalations": ({"escalations_pending", "jobs_pkey"}, {}),
    "retain_escalations": ({"escalations_ended"}, {"limit": 20}),
    "read_escalation": ({"escalations_pkey", "incidents_pkey"}, {"id": 7}),
    "find_newest_pass": ({"loop_runs_latest"}, {}),
    "list_latest_loop_runs": ({"loop_runs_latest"}, {"grace_seconds": 5}),
    "list_loop_stretches": ({"loop_runs_latest"}, {"since": "2026-11-25"}),
    "list_classes_at_work": ({"incidents_active"}, {}),
    "list_next_plain_jobs": ({"jobs_open_of_rq"}, {"place": "", "after": 0}),
    "list_runs_to_check": ({"workflows_by_state"}, {"after": 0, "steps": 300}),
    "list_started_adopted": (
        {"jobs_by_state", "attempts_pkey"},
        {"place": "default", "after": 0},
    ),
    "sum_waits_of_queues": ({"rollups_pkey"}, {"queues": ["queue_1"]}),
    "lock_incidents_of_class": (
        {"incidents_active", "incidents_fingerprint_key"},
        {"class": "poison", "fingerprints": ["poison:1", "poison:19999"]},
    ),
    "find_hiding_incident": ({"incidents_active"}, {"classes": ["poison", "redis_away"]}),
    "look_at_incidents": ({"incidents_pkey"}, _IDS),
    "lock_incidents": ({"incidents_pkey"}, _IDS),
    "count_missed_passes": ({"incidents_pkey"}, _IDS),
    "lapse_acknowledgements": ({"incidents_pkey"}, _IDS),
    "resolve_incidents": ({"incidents_pkey"}, {**_IDS, "bys": ["cleared"] * 3}),
    "retain_incidents": ({"incidents_to_retain"}, {"limit": 20}),
    "retain_evidence": ({"evidence_to_retain"}, {}),
    "keep_evidence": (
        {"evidence_of_incident"},
        {
            "incidents": [1, 2],
            "episodes": [1, 1],
            "kinds": ["seen", "other"],
            "sources": ["detect", "detect"],
            "facts": ["{}", "{}"],
            "audit_sequences": [None, 7],
        },
    ),
    "fold_evidence": (
        {"evidence_of_incident"},
        {"incidents": [1, 2], "episodes": [1, 1], "first": 20, "newest": 80},
    ),
}


@pytest.fixture(scope="module")
def filled(databases: Databases) -> Iterator[Connection]:
    """A connection to a database with 50,000 jobs and their surroundings."""
    with databases.connection() as connection:
        for statement in _FILL.split(";"):
            connection.execute(statement)
        connection.execute("VACUUM ANALYZE")
        yield connection


@pytest.mark.parametrize("statement", _CASES)
def test_it_walks_its_indexes(filled: Connection, statement: str) -> None:
    indexes, parameters = _CASES[statement]
    (now,) = filled.execute("SELECT clock_timestamp()").fetchone() or ()
    values = {
        "now": now,
        "before": now - timedelta(hours=5),
        "limit": 200,
        "ats": [now, now],
        **parameters,
    }
    nodes = explain(filled, statement, values)
    walked = {node.get("Index Name") for node in nodes}
    whole = {node.get("Relation Name") for node in nodes if node["Node Type"] == "Seq Scan"}
    assert indexes <= walked, sorted(map(str, walked))
    assert whole.isdisjoint(_LARGE)
    header = " ".join(
        line for line in _path(statement).read_text().splitlines() if line.startswith("--")
    )
    assert all(index in header for index in indexes)


def _path(statement: str) -> Path:
    (found,) = sources.ROOT.glob(f"flask_opsjobs/*/sql/{statement}.sql")
    return found


def test_each_statement_of_a_detector_is_in_the_table() -> None:
    names = {path.stem for path in sources.files("flask_opsjobs", "detect_*.sql")}
    assert names <= _CASES.keys()


def test_each_statement_of_a_detector_is_bounded() -> None:
    found = [
        path.name
        for path in sources.files("flask_opsjobs", "detect_*.sql")
        if "LIMIT %(limit)s" not in path.read_text()
    ]
    assert found == []
