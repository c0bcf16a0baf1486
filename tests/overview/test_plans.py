"""What the overview reads, and what its loops count, walks indexes on 50,000 jobs and a day of numbers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs.core.db import Connection, connect_apart
from flask_opsjobs.core.reading import Reading
from flask_opsjobs.jobs.lifecycle import FINAL, STATES
from flask_opsjobs.lifeline import integrity, queries
from flask_opsjobs.overview import badges, changes, failure_queries, pace_queries
from flask_opsjobs.overview import queries as overview_queries
from flask_opsjobs.overview.pace_queries import BOUNDS
from tests.support.database import Databases
from tests.support.plans import Plans, app_on, explain, reading_with
from tests.test_query_plans import fill

# By INSERT: only plans are asked of these rows.
_NUMBERS = """
INSERT INTO opsjobs.rollups (minute, queue, finished, runs)
SELECT date_trunc('minute', now()) - m * interval '1 min',
    CASE q WHEN 0 THEN '' ELSE 'queue_' || q END, 5, '{0,0,5}'
FROM generate_series(1, 5000) m, generate_series(0, 7) q;
INSERT INTO opsjobs.depths (minute, queue, due)
SELECT date_trunc('minute', now()) - m * interval '1 min', 'queue_' || q, 5
FROM generate_series(1, 5000) m, generate_series(0, 6) q;
INSERT INTO opsjobs.audit_events (sequence, at, actor, via, action, subject, outcome, canonical, key_id,
    previous_hash, hash)
SELECT n, now() - n * interval '1 s', 'ops', 'page', 'job.retry', 'job/1', 'done', '', '', '', ''
FROM generate_series(1, 20000) n;
UPDATE opsjobs.audit_head SET sequence = 20000, hash = 'x';
INSERT INTO opsjobs.enqueue_counts (minute, queue, enqueued)
SELECT date_trunc('minute', now()) - m * interval '1 min', 'queue_' || q, 5
FROM generate_series(1, 2000) m, generate_series(0, 6) q;
INSERT INTO opsjobs.workers (name, kind, host, pid, queues, state, started_at, heartbeat_at, ended_at)
SELECT 'e' || n, 'pool', 'h', n, '{queue_1}', CASE WHEN n > 5 THEN 'missing' ELSE 'alive' END,
    now() - n * interval '1 h', now(), CASE WHEN n > 5 THEN now() - n * interval '1 h' END
FROM generate_series(1, 2000) n;
INSERT INTO opsjobs.failures (key, task, title, sample_job_id, sample_dispatch_no, created_at, number, jobs,
    job_failed_at, first_at, last_at)
SELECT decode(lpad(to_hex(n), 32, '0'), 'hex'), 'task_' || n % 40, 'KeyError', n, 1,
    now() - n * interval '1 min', 3, 2, now(), now() - n * interval '1 min', now()
FROM generate_series(1, 5000) n;
INSERT INTO opsjobs.failure_hours (failure_id, hour, number)
SELECT id, date_trunc('hour', now()) - h * interval '1 hour', 3
FROM opsjobs.failures, generate_series(0, 30) h;
INSERT INTO opsjobs.incidents (class, subject, fingerprint, severity, state, first_at, opened_at, seen_at,
    resolved_at, resolved_by)
SELECT 'loop_failing', 'loop/' || n, 'loop_failing:loop/' || n, 'warning',
    CASE WHEN n % 100 = 0 THEN 'open' ELSE 'resolved' END, now() - n * interval '3 min',
    now() - n * interval '3 min', now(), CASE WHEN n % 100 <> 0 THEN now() - n * interval '2 min' END,
    CASE WHEN n % 100 <> 0 THEN 'cleared' END
FROM generate_series(1, 20000) n;
"""
_ANALYZE = """ANALYZE opsjobs.rollups, opsjobs.depths, opsjobs.audit_events, opsjobs.enqueue_counts,
    opsjobs.workers, opsjobs.failures, opsjobs.failure_hours, opsjobs.incidents"""


@pytest.fixture(scope="module")
def module_app(databases: Databases) -> Iterator[Flask]:
    """A host on a database with 50,000 jobs: a big backlog, many failures, most of them finished."""

    def fill_all(session: Session) -> None:
        fill(session, available=8_000, finished=30_000, failed=12_000, queued=60, started=40)
        for statement in (*_NUMBERS.split(";\n"), _ANALYZE):
            if statement.strip():
                session.execute(text(statement))

    with app_on(databases, fill_all) as app:
        engine = app.extensions["opsjobs"].engine
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM opsjobs.jobs"))
        yield app


class EveryPlan(Plans):
    """Every statement that reads a table of ours, not only those about jobs."""

    about = "opsjobs."


@pytest.fixture
def plans(module_app: Flask) -> Iterator[tuple[EveryPlan, Reading]]:
    """A reading as pages have it, with its plans."""
    with reading_with(module_app, EveryPlan) as found:
        yield found


@pytest.mark.slow
def test_single_facts_read_a_bounded_part(plans: tuple[EveryPlan, Reading]) -> None:
    seen, read = plans
    found = overview_queries.find_single_facts(read.session, read.now)
    assert (found.failed.number, found.failed.kind) == (1_000, "at_least")
    assert found.incident_ended_at is not None
    assert seen.indexes >= {
        "jobs_to_retain",
        "jobs_to_stage",
        "jobs_started",
        "incidents_to_retain",
    }
    assert seen.indexes <= {
        "jobs_to_retain",
        "jobs_to_stage",
        "jobs_started",
        "jobs_queued",
        "jobs_by_state",
        "workers_pkey",
        "incidents_to_retain",
    }
    assert seen.most_rows <= 1_001


def test_the_worst_failures_are_ranked_among_the_newest(plans: tuple[EveryPlan, Reading]) -> None:
    seen, read = plans
    found = failure_queries.find_failures(read.session, read.now)
    assert len(found.worst) == failure_queries.MOST_FAILURES
    assert found.open.kind == "at_least"
    assert seen.indexes >= {"failures_by_state", "failure_hours_pkey", "incidents_fingerprint_key"}
    assert seen.kinds.isdisjoint({"Seq Scan", "Bitmap Heap Scan"})
    # A day of hours of five failures is the most that one scan reads; or what is ranked.
    assert seen.most_rows <= 400


def test_open_incidents_walk_an_index(plans: tuple[EveryPlan, Reading]) -> None:
    seen, read = plans
    queries.page_of_open_incidents(read.session, queries.IncidentFilter(), limit=200)
    assert seen.indexes <= {"incidents_active", "incidents_pkey"}
    assert "Seq Scan" not in seen.kinds
    assert seen.most_rows <= 1_001


def test_badges_read_a_bounded_part(plans: tuple[EveryPlan, Reading]) -> None:
    seen, read = plans
    found = badges.find_badges(read.session, read.now, 45)
    assert found["jobs"].number == 1_000
    assert found["queues"].number > 0
    assert seen.indexes >= {"jobs_to_retain", "jobs_due", "jobs_queued"}
    # Retention keeps workers that have ended for a week.
    assert seen.read_whole <= {"workers"}
    assert seen.most_rows <= 2_000


def test_decisions_are_read_from_the_newest(plans: tuple[EveryPlan, Reading]) -> None:
    seen, read = plans
    found = overview_queries.find_resolved(read.session, read.now - timedelta(days=1))
    assert found.count.kind == "at_least"
    assert seen.indexes == {"audit_events_pkey", "audit_head_pkey", "operations_pkey"}
    assert seen.most_rows <= 500


def test_the_look_of_a_poll_reads_nothing_that_grows(plans: tuple[EveryPlan, Reading]) -> None:
    seen, read = plans
    changes.find_changes(read.session.connection(), 45)
    assert seen.indexes >= {"workers_alive", "loop_runs_latest", "incidents_active"}
    # Of 2,000 workers, 20,000 incidents and 50,000 jobs: the live workers, and the incidents that are active.
    assert seen.read_whole == set()
    assert seen.most_rows <= 200


@pytest.mark.parametrize(("window", "minutes"), [("hour", 60), ("day", 1440)])
def test_the_pace_reads_its_window(
    window: str, minutes: int, plans: tuple[EveryPlan, Reading]
) -> None:
    seen, read = plans
    pace_queries.find_pace(read.session, window, read.now)
    assert seen.indexes >= {"rollups_pkey", "depths_pkey"}
    # Index entries of all queues, a row of each minute, of the window and the one before.
    assert seen.most_rows <= 2 * minutes * 8 + 10


@pytest.mark.parametrize(("window", "minutes"), [("hour", 60), ("day", 1440)])
def test_the_pace_of_a_queue_probes_each_minute(
    window: str, minutes: int, plans: tuple[EveryPlan, Reading]
) -> None:
    seen, read = plans
    found = pace_queries.find_queue_pace(read.session, "queue_3", window, read.now)
    assert all(step.due for step in [*found.before, *found.steps][:-1])
    assert seen.indexes >= {"enqueue_counts_pkey", "rollups_pkey", "depths_pkey"}
    assert seen.read_whole <= {"rollup_position"}
    # Two windows of minutes, each of which is one probe.
    assert seen.most_rows <= minutes * 2


def test_the_integrity_check_is_a_row_for_each_queue(plans: tuple[EveryPlan, Reading]) -> None:
    seen, read = plans
    integrity.list_integrity_checks(read.session)
    assert seen.indexes == {"integrity_checks_pkey"}


# --- the loops, on connections of their own


@pytest.fixture
def connection(module_app: Flask) -> Iterator[Connection]:
    connection = connect_apart(module_app.extensions["opsjobs"].engine)
    yield connection
    connection.close()


_LIVE = [state for state in STATES if state not in FINAL]
_CASES: dict[str, tuple[set[str], dict[str, Any]]] = {
    "count_ended_jobs": ({"jobs_to_retain"}, {"states": list(FINAL), "bounds": list(BOUNDS)}),
    "find_first_end": ({"jobs_to_retain"}, {"states": list(FINAL)}),
    "sample_depths": ({"jobs_by_state"}, {"states": _LIVE, "most": 1_000, "queues": ["mail"]}),
    "fold_old_enqueue_counts": ({"enqueue_counts_pkey"}, {"limit": 100}),
    "retain_rollups": ({"rollups_pkey"}, {"limit": 100}),
    "retain_depths": ({"depths_pkey"}, {"limit": 100}),
    "list_unreserved_jobs": ({"jobs_started", "workers_pkey"}, {"limit": 20_000}),
}


@pytest.mark.parametrize("statement", _CASES)
def test_a_statement_of_the_loops_walks_its_index(connection: Connection, statement: str) -> None:
    indexes, parameters = _CASES[statement]
    (now,) = connection.execute("SELECT clock_timestamp()").fetchone() or ()
    minute = now.replace(second=0, microsecond=0)
    values = {
        "start": now - timedelta(minutes=15),
        "end": now,
        "minute": minute,
        "before": now - timedelta(days=1),
        **parameters,
    }
    nodes = explain(connection, statement, values)
    walked = {node.get("Index Name") for node in nodes}
    assert walked & indexes, walked
    scanned = {node.get("Relation Name") for node in nodes if node["Node Type"] == "Seq Scan"}
    assert scanned.isdisjoint({"jobs", "rollups", "depths"})


def test_the_integrity_check_reads_adopted_jobs_by_their_index(connection: Connection) -> None:
    """All jobs are counted; the adopted ones among them must not cost a second walk over all."""
    (now,) = connection.execute("SELECT clock_timestamp()").fetchone() or ()
    nodes = explain(connection, "count_integrity", {"now": now, "live": _LIVE})
    assert "jobs_adopted" in {node.get("Index Name") for node in nodes}
