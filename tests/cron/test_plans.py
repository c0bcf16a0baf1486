"""Each hot statement of cron walks the index it names, with 50,000 jobs and as many slots."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from flask_opsjobs import sql
from flask_opsjobs.db import Connection
from tests.lifeline.test_plans import plan

# By one INSERT: 50,000 slots of the real writer would take minutes. Only plans are asked of these rows.
_FILL = (
    # One of 250 of an entry waits; other things' jobs are deferred too, and are not cron's to read.
    """
INSERT INTO opsjobs.jobs (worker, queue, line, state, args, max_attempts, created_at, due_at, ended_at, ended_by,
    cron_entry)
SELECT 'worker', 'default', 'default',
    CASE WHEN n % 500 = 0 THEN 'available' WHEN n % 10 = 1 THEN 'deferred' ELSE 'finished' END, '{}', 5, now(), now(),
    CASE WHEN n % 500 > 0 AND n % 10 <> 1 THEN now() END,
    CASE WHEN n % 500 > 0 AND n % 10 <> 1 THEN 'returned' END,
    CASE WHEN n % 2 = 0 THEN 'entry_' || n % 7 END
FROM generate_series(1, 50000) AS n
""",
    """
INSERT INTO opsjobs.cron_slots (entry, slot_at, until_at, fate, expression, zone, decided_at, job_id, result, ended_at)
SELECT 'entry_' || n % 7, now() - n * interval '1 min', now() - n * interval '1 min', 'ran', '* * * * *', 'UTC',
    now() - n * interval '1 min', n, 'finished', now()
FROM generate_series(1, 50000) AS n
""",
    """
INSERT INTO opsjobs.cron_entries (name, origin, worker, expression, zone, overlap, catch_up, args, checked_until,
    created_at, created_by)
SELECT 'entry_' || n, 'code', 'worker', '* * * * *', 'UTC', 'skip', 'none', '{}', now(), now(), 'code'
FROM generate_series(0, 2000) AS n
""",
    """
INSERT INTO opsjobs.loop_runs (loop, process, started_at, last_at, every_seconds)
SELECT CASE WHEN n % 7 = 0 THEN 'cron' ELSE 'loop_' || n % 7 END, 'p', now() - n * interval '1 h',
    now() - n * interval '59 min', 1
FROM generate_series(1, 5000) AS n
""",
)


@pytest.fixture(scope="module")
def big(databases: Any) -> Iterator[Connection]:
    """A connection to a database with 50,000 jobs and slots."""
    url = databases.migrated()
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(plain, autocommit=True) as connection:
        for statement in _FILL:
            connection.execute(statement)
        for table in ("jobs", "cron_slots", "cron_entries", "loop_runs"):
            connection.execute(f"VACUUM ANALYZE opsjobs.{table}")
        yield connection
    databases.drop(url)


_NOW = datetime.now(UTC)
_CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "list_unfinished_of_cron": ("jobs_of_cron", {"name": "entry_3"}),
    "lock_jobs_of_cron": ("jobs_of_cron", {"name": "entry_3"}),
    "list_cron_waiting_behind": ("jobs_of_cron", {}),
    "release_cron_jobs": ("jobs_of_cron", {"names": ["entry_3"], "now": _NOW}),
    "lock_cron_entries": ("cron_entries_pkey", {"names": ["entry_3"]}),
    "note_cron_results": ("cron_slots_by_job", {"ids": [1, 2], "states": ["failed"] * 2, "now": _NOW}),
    "retain_cron_slots": ("cron_slots_to_retain", {"before": _NOW - timedelta(days=30), "limit": 100}),
    "find_cron_gap": ("loop_runs_latest", {"slot_at": _NOW - timedelta(days=3)}),
    "move_cron_entry_on": ("cron_entries_pkey", {"name": "entry_3", "until": _NOW}),
}  # fmt: skip


@pytest.mark.parametrize("statement", _CASES)
def test_it_walks_its_index(big: Connection, statement: str) -> None:
    index, parameters = _CASES[statement]
    nodes = plan(big, statement, parameters)
    assert index in {node.get("Index Name") for node in nodes}, json.dumps(nodes)
    walked = {node.get("Relation Name") for node in nodes if node["Node Type"] == "Seq Scan"}
    assert walked.isdisjoint({"jobs", "cron_slots", "cron_entries"})
    assert index in (sql._FOLDER / f"{statement}.sql").read_text()


def test_finding_who_waits_reads_only_what_has_not_ended(big: Connection) -> None:
    nodes = plan(big, "list_cron_waiting_behind", {})
    read = [node for node in nodes if node.get("Relation Name") == "jobs"]
    assert sum(node["Actual Rows"] + node.get("Rows Removed by Filter", 0) for node in read) <= 100
