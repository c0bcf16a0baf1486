"""The statements of cron walk the indexes that their files name, however long the run history is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from flask_opsjobs.core import sql
from tests.support.engine import Bench

# Rows written directly: 50,000 slots and as many jobs by their writers would take minutes.
FILL = (
    "INSERT INTO opsjobs.cron_slots (entry, slot_at, until_at, result, expression, zone, decided_at, job_id)"
    " SELECT 'e' || n % 50, t, t, CASE WHEN n % 97 = 0 THEN 'missed' ELSE 'ran' END, '* * * * *', 'UTC', t, n"
    " FROM (SELECT n, timestamptz '2026-01-01' + n * interval '1 s' AS t FROM generate_series(1, 50000) n) "
    "AS x",
    "INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at, ended_at, "
    "ended_by, cron_entry) SELECT 'w', 'q', 'q', 'finished', '{}', 1, now(), now(), now(), 'returned', 'e' "
    "|| n % 50 FROM generate_series(1, 50000) n",
    "INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at, cron_entry)"
    " SELECT 'w', 'q', 'q', 'available', '{}', 1, now(), now(), 'e1' FROM generate_series(1, 3) n",
    # Of no entry: others wait for other things.
    "INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at)"
    " SELECT 'w', 'q', 'q', 'deferred', '{}', 1, now(), now() FROM generate_series(1, 5000) n",
    "INSERT INTO opsjobs.loop_runs (loop, process, started_at, last_at, every_seconds)"
    " SELECT CASE WHEN n % 7 = 0 THEN 'cron' ELSE 'loop_' || n % 7 END, 'p', now() - n * interval '1 h',"
    " now() - n * interval '59 min', 1 FROM generate_series(1, 5000) n",
    "ANALYZE opsjobs.loop_runs",
    "ANALYZE opsjobs.cron_slots",
    "ANALYZE opsjobs.jobs",
)
CASES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "list_cron_strips": ("cron_slots_by_entry", {"names": ["e1", "e2"], "most": 20}),
    # Or by entry, where many were missed.
    "list_cron_missed": ("cron_slots_missed", {"entry": "e1", "most": 200}),
    "count_cron_missed": ("cron_slots_missed", {"since": "2026-01-01 00:10:00+00"}),
    "note_cron_job_ends": ("cron_slots_by_job", {"ids": [5], "states": ["finished"], "now": None}),
    "forget_cron_job_ends": ("cron_slots_by_job", {"ids": [5]}),
    "list_unfinished_of_cron": ("jobs_of_cron", {"name": "e1"}),
    "lock_jobs_of_cron": ("jobs_of_cron", {"name": "e1"}),
    "lock_cron_entries_of_jobs": ("jobs_pkey", {"ids": [5]}),
    "list_cron_waiting_behind": ("jobs_of_cron", {}),
    "release_cron_jobs": ("jobs_of_cron", {"names": ["e1"], "now": None}),
    "find_cron_gap": ("loop_runs_latest", {"slot_at": "2026-01-01 00:10:00+00"}),
    "retain_cron_slots": (
        "cron_slots_to_retain",
        {"before": "2026-01-01 00:10:00+00", "limit": 100},
    ),
}


@pytest.fixture
def full(bench: Bench) -> Bench:
    for statement in FILL:
        bench.connection.execute(statement)
    return bench


def test_each_walks_its_index(full: Bench) -> None:
    for name, (index, values) in CASES.items():
        rows = full.connection.execute("EXPLAIN " + sql.load(name), values).fetchall()
        plan = "\n".join(row[0] for row in rows)
        assert index in plan, f"{name}:\n{plan}"
        assert "Seq Scan on jobs" not in plan, f"{name}:\n{plan}"
        assert "Seq Scan on cron_slots" not in plan, f"{name}:\n{plan}"
