"""Each statement of limits walks the index it names,
with 1,000 partitions and 50,000 jobs; a full lane is a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from flask_opsjobs.core.db import Connection
from flask_opsjobs.core.sql import _FILES
from tests.support.database import Databases
from tests.support.plans import explain

# By one INSERT: 50,000 calls of the real writers would take a minute. Only plans are asked of these rows.
_JOBS = """
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at, dispatched_at,
    dispatch_no, limiter, partition, weight)
SELECT 'w', 'default', 'default|api|' || n % %(lanes)s, %(state)s, '{}', 5, now(), now() + n * interval '1 s',
    now(),
    1, 'api', (n % %(lanes)s)::text, 1
FROM generate_series(1, %(many)s) AS n
""".replace("n %", "n %%").replace("%%(", "%(")
_OTHERS = """
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at,
    ended_at, ended_by)
SELECT 'w', 'default', 'default', 'finished', '{}', 5, now(), now(), now(), 'returned'
FROM generate_series(1, 20000);
INSERT INTO opsjobs.limiters (name, rate, per_seconds, burst, concurrency, when_full,
    declared_at, declared_by)
VALUES ('api', 10, 60, 10, 10, 'hold', now(), 'test');
INSERT INTO opsjobs.buckets (limiter, partition, tokens, refilled_at, last_used_at)
SELECT 'api', n::text, 0, now(), now() FROM generate_series(0, 5000) n;
INSERT INTO opsjobs.leases (job_id, dispatch_no, limiter, partition, weight, taken_at)
SELECT n, 1, 'api', (n % 1000)::text, 1, now() FROM generate_series(1, 5000) n;
INSERT INTO opsjobs.limit_minutes (limiter, minute)
SELECT 'l' || n % 10, date_trunc('minute', now()) - n * interval '1 min'
FROM generate_series(1, 20000) n;
INSERT INTO opsjobs.limit_rejections (at, limiter, partition, task, weight, code)
SELECT now() - n * interval '1 min', 'l' || n % 10, '', 'w', 1, 'limit_tokens'
FROM generate_series(1, 20000) n;
"""


@pytest.fixture(scope="module")
def big(databases: Databases) -> Iterator[Connection]:
    """A connection to that database."""
    with databases.connection() as connection:
        connection.execute(_JOBS, {"state": "available", "many": 30_000, "lanes": 1_000})
        connection.execute(_JOBS, {"state": "queued", "many": 200, "lanes": 100})
        for statement in _OTHERS.split(";"):
            connection.execute(statement)
        for table in ("jobs", "buckets", "leases", "limiters", "limit_minutes", "limit_rejections"):
            connection.execute(f"VACUUM ANALYZE opsjobs.{table}")
        yield connection


_PLAIN = """
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at)
SELECT 'w', 'default', 'default', 'available', '{}', 5, now(), now() FROM generate_series(1, 5000)
"""
_ONE = {"limiters": ["api"], "partitions": ["7"], "queues": [None], "with_waiting": True}
_MANY = {
    "limiters": ["api"] * 1_000,
    "partitions": [str(n) for n in range(1_000)],
    "queues": ["default"] * 1_000,
    "with_waiting": False,
}
_DISPATCH = {
    "lane": "default|api|7",
    "queue": "default",
    "prefetch": 1_000,
    "late_seconds": 45,
    "room": 3,
    "most": 10,
    "number": None,
}
CASES: dict[str, tuple[str, set[str], dict[str, Any]]] = {
    "one": ("read_buckets", {"buckets_pkey", "leases_by_bucket", "jobs_limited"}, _ONE),
    "many": ("read_buckets", {"leases_by_bucket", "jobs_limited"}, _MANY),
    "walk": ("find_due_lanes", {"jobs_due"}, {}),
    "walk limited": (
        "find_due_limited_lanes",
        {"jobs_limited", "jobs_due"},
        {"queues": ["default"]},
    ),
    "dispatch": ("dispatch_lane", {"jobs_due", "jobs_queued"}, _DISPATCH),
    "pick": (
        "pick_limited_jobs",
        {"jobs_due", "queues_pkey"},
        {"lane": "default|api|7", "queue": "default", "limiter": "api", "number": 4},
    ),
    "lock": ("lock_bucket", {"buckets_pkey"}, {"limiter": "api", "partition": "7"}),
    "set back": ("set_buckets_back", {"buckets_pkey"}, {"limiters": ["api"], "partitions": ["7"]}),
    "free": ("free_leases", {"leases_pkey"}, {"job_ids": [1, 2], "dispatch_nos": [1, 1]}),
    "recall": ("recall_limited_job", {"jobs_pkey"}, {"id": 30_100, "dispatch_no": 1}),
    "minutes": ("retain_limit_minutes", {"limit_minutes_to_retain"}, {"limit": 20}),
    "rejections": ("retain_limit_rejections", {"limit_rejections_to_retain"}, {"limit": 20}),
    "claim": (
        "claim_limited_jobs",
        {"jobs_pkey", "buckets_pkey"},
        {
            "ids": [30_100],
            "waits": [0.0],
            "worker_id": 1,
            "worker": "e",
            "tokens": 1.0,
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_it_walks_its_indexes(big: Connection, case: str) -> None:
    statement, indexes, parameters = CASES[case]
    (now,) = big.execute("SELECT clock_timestamp()").fetchone() or (None,)
    assert now is not None
    values = {"now": now, "before": now - timedelta(hours=80), **parameters}
    nodes = explain(big, statement, values)
    assert indexes <= {node.get("Index Name") for node in nodes}
    walked = {node.get("Relation Name") for node in nodes if node["Node Type"] == "Seq Scan"}
    assert walked.isdisjoint({"jobs", "leases", "limit_minutes", "limit_rejections"})
    said = _FILES[statement].read_text()
    assert all(index in said for index in indexes)


def test_a_walk_over_full_lanes_reads_a_row_of_each(big: Connection) -> None:
    nodes = explain(big, "find_due_lanes", {})
    read = sum(
        node["Actual Rows"] * node["Actual Loops"]
        for node in nodes
        if node.get("Index Name") == "jobs_due"
    )
    assert read <= 1_010, "of 30,000 that wait"


def test_a_walk_over_limited_lanes_reads_a_row_of_each_and_none_without_a_limiter(
    big: Connection,
) -> None:
    """A lane without a limiter may begin with many rows that were taken and cannot be vacuumed yet."""
    with psycopg.connect(big.info.dsn) as other, other.transaction(force_rollback=True):
        other.execute(_PLAIN)
        other.execute("ANALYZE opsjobs.jobs")
        nodes = explain(other, "find_due_limited_lanes", {"queues": ["default"]})
    read = {
        index: sum(
            node["Actual Rows"] * node["Actual Loops"]
            for node in nodes
            if node.get("Index Name") == index
        )
        for index in ("jobs_limited", "jobs_due")
    }
    assert read["jobs_limited"] <= 1_010, "of 30,200 that wait"
    assert read["jobs_due"] == 1_000


def test_a_dispatch_of_a_limited_lane_locks_no_more_than_its_room(big: Connection) -> None:
    (now,) = big.execute("SELECT clock_timestamp()").fetchone() or (None,)
    nodes = explain(big, "dispatch_lane", {**_DISPATCH, "now": now})
    (locks,) = [node for node in nodes if node["Node Type"] == "LockRows"]
    assert locks["Actual Rows"] <= 3
