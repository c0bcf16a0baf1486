"""The reads of the limiters' pages walk the indexes they name, and stop, whatever waits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs.core.db import Connection
from flask_opsjobs.core.reading import PAGE_PLANS
from flask_opsjobs.core.sql import _FILES
from tests.limits.test_plans import big  # noqa: F401
from tests.support.plans import explain

_ALL = {"name": None, "limit": 100, "most": 1_000}
_LIMITER = {"limiter": "api"}
# Statement, indexes, values, and the most rows that a scan of jobs may read.
CASES: dict[str, tuple[str, set[str], dict[str, Any], int]] = {
    "list": ("list_limiters", {"limiters_pkey", "jobs_limited", "buckets_cooling"}, _ALL, 2_200),
    "hot": (
        "list_hot_partitions",
        {"jobs_limited"},
        {**_LIMITER, "limit": 10, "most": 1_000, "walked": 2_000, "rough": 20, "counted": 100},
        1_000 * 25 + 100 * 60,
    ),
    "holders": (
        "list_holders",
        {"leases_by_bucket", "jobs_pkey"},
        {**_LIMITER, "partition": None, "limit": 25},
        25,
    ),
    "holders of one": (
        "list_holders",
        {"leases_by_bucket", "jobs_pkey"},
        {**_LIMITER, "partition": "7", "limit": 25},
        25,
    ),
    "waiters": (
        "list_waiters",
        {"jobs_by_queue", "jobs_due"},
        {**_LIMITER, "partition": "7", "limit": 10, "heaviest": 4},
        15,
    ),
    "count": ("count_waiters", {"jobs_limited"}, {**_LIMITER, "partition": "7", "most": 20}, 20),
    "decisions of cooldowns": (
        "find_cooldowns",
        {"limiters_pkey", "buckets_cooling"},
        {"limiters": ["api", "api"], "partitions": ["7", "8"]},
        0,
    ),
    "ahead": (
        "count_ahead",
        {"limiters_pkey", "jobs_due"},
        {"lanes": ["default|api|7"], "limiters": ["api"], "most": [5], "ids": [1]},
        5 + 1,
    ),
    "cooldowns": (
        "read_cooldowns",
        {"limiters_pkey", "buckets_pkey"},
        {"limiters": ["api", "api"], "partitions": [None, "7"]},
        0,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_page_s_read_walks_its_indexes_and_stops(big: Connection, case: str) -> None:  # noqa: F811
    statement, indexes, parameters, most = CASES[case]
    row = big.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    values = {"now": row[0], "since": row[0] - timedelta(hours=1), **parameters}
    with big.transaction(force_rollback=True):
        # As pages read.
        for setting, value in PAGE_PLANS.items():
            big.execute(f"SET LOCAL {setting} = '{value}'")
        nodes = explain(big, statement, values)
    assert indexes <= {node.get("Index Name") for node in nodes}
    assert not [node for node in nodes if node["Node Type"] == "Seq Scan"]
    read = [
        node["Actual Rows"] * node["Actual Loops"]
        for node in nodes
        if str(node.get("Index Name")).startswith("jobs_")
    ]
    assert sum(read) <= most
    said = _FILES[statement].read_text()
    assert all(index in said for index in indexes)
