"""Measures a pass of the detect loop for the bench, over many jobs, 1,000 lanes and 200 workers."""

from __future__ import annotations

import os
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import closing
from datetime import timedelta
from typing import TYPE_CHECKING
from unittest.mock import patch

from flask_opsjobs.core.db import Connection, connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.lifeline.finding import Detector
from flask_opsjobs.lifeline.incidents import Applied
from flask_opsjobs.loops import Pass, detect
from flask_opsjobs.loops.loop import Runner

if TYPE_CHECKING:
    from tools.bench.__main__ import Bench

PASSES = 60
# Only the rows that a detector reads matter, so they are made in bulk, without their indexes.
_FILL = """
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, attempt, dispatch_no, created_at,
    due_at, dispatched_at, started_at, ended_at, ended_by, worker_id, reserved_by, limiter, partition, weight)
SELECT 'task_' || n % 40, 'queue_' || n % 20,
    'queue_' || n % 20 || CASE WHEN s.state = 'available' THEN '|api|' || n % 1000 ELSE '' END,
    s.state, '{}', 5, 1, 1, at.at, at.at,
    CASE WHEN s.state <> 'scheduled' THEN at.at END, CASE WHEN s.state <> 'scheduled' THEN at.at END,
    CASE WHEN s.ended_by IS NOT NULL THEN at.at END, s.ended_by,
    CASE WHEN s.state = 'started' THEN 1 + n % 200 END, NULL,
    CASE WHEN s.state = 'available' THEN 'api' END, CASE WHEN s.state = 'available' THEN (n % 1000)::text END,
    CASE WHEN s.state = 'available' THEN 1 END
FROM (VALUES ('finished', 0.95, 'returned'), ('failed', 0.03, 'exhausted'), ('scheduled', 0.015, NULL),
    ('available', 0.004, NULL), ('started', 0.0002, NULL)) AS s(state, share, ended_by),
    LATERAL generate_series(1, (s.share * %(jobs)s)::bigint) AS n,
    LATERAL (SELECT now() + CASE WHEN s.state = 'scheduled' THEN 1 ELSE -1 END
        * n / (s.share * %(jobs)s) * interval '7 days' AS at) AS at;
INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker_id, worker, started_at, ended_at, outcome)
SELECT id, a, a, 1 + id % 200, 'w' || id % 200, ended_at, ended_at, CASE state WHEN 'failed' THEN 'raised'
    ELSE 'returned' END FROM opsjobs.jobs, generate_series(1, 1 + (id % 10 = 0)::int) AS a
WHERE ended_at IS NOT NULL;
INSERT INTO opsjobs.workers (name, kind, host, pid, queues, state, started_at, heartbeat_at, heartbeat_no,
    reserved)
SELECT 'w' || n, 'pool', 'h', n, ARRAY['queue_' || n % 20], 'alive', now() - interval '1 day',
    now() + interval '1 hour', 1, (SELECT coalesce(array_agg(id || '-1'), '{}') FROM opsjobs.jobs
        WHERE state = 'started' AND worker_id = n) FROM generate_series(1, 200) n;
INSERT INTO opsjobs.rollups (minute, queue, finished, waits)
SELECT date_trunc('minute', now()) - m * interval '1 min', 'queue_' || q, 5, '{1,2}'
FROM generate_series(1, 10000) m, generate_series(0, 19) q
"""


def measure(bench: Bench, jobs: int) -> None:
    """Print the time of a pass, and which detectors take most of it."""
    url = bench.databases.migrated()
    os.environ.update(bench.env(url))
    from tools.bench.host import create_app

    app = create_app()
    with app.app_context(), closing(connect_apart(app.extensions["opsjobs"].engine)) as connection:
        _fill(connection, jobs)
        runner = Runner(detect.LOOP, app.extensions["opsjobs"])
        took: dict[str, list[float]] = defaultdict(list)
        now, passes = read_clock(connection), []
        for _ in range(PASSES):
            now += timedelta(seconds=5)
            with patch.object(detect, "_apart", _timed(took)):
                began = time.perf_counter()
                runner.run_once(connection, now)
                passes.append((time.perf_counter() - began) * 1000)
    bench.databases.drop(url)
    print(f"a detecting pass over {jobs:,} jobs, 1,000 lanes and 200 workers, ms")
    print(f"  p50 {statistics.median(passes):.1f}   p95 {_p95(passes):.1f}   (aim of p95: ≤ 50)")
    _print_slowest({name: statistics.median(times) for name, times in took.items()})


def _fill(connection: Connection, jobs: int) -> None:
    connection.execute("SET synchronous_commit = off; SET session_replication_role = replica")
    names = (
        "SELECT indexdef, indexname FROM pg_indexes WHERE schemaname = 'opsjobs' AND tablename = %s"
    )
    found = [
        row
        for table in ("jobs", "attempts")
        for row in connection.execute(names, [table]).fetchall()
        if not row[1].endswith("_pkey")
    ]
    for _, name in found:
        connection.execute(f"DROP INDEX opsjobs.{name}")
    for statement in _FILL.replace("%(jobs)s", str(jobs)).split(";"):
        connection.execute(statement)
    for definition, _ in found:
        connection.execute(definition)
    connection.execute("VACUUM ANALYZE")


def _timed(
    took: dict[str, list[float]],
) -> Callable[[Pass, Detector, Callable[[], Applied]], Applied]:
    apart = detect._apart

    def run(context: Pass, detector: Detector, look: Callable[[], Applied]) -> Applied:
        began = time.perf_counter()
        try:
            return apart(context, detector, look)
        finally:
            took[detector.class_].append((time.perf_counter() - began) * 1000)

    return run


def _p95(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.95)]


def _print_slowest(took: Mapping[str, float]) -> None:
    for name in sorted(took, key=took.__getitem__, reverse=True)[:8]:
        print(f"  {name:30}{took[name]:8.1f}")
