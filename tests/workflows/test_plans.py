"""Each statement of runs walks the indexes it names and reads little, among 60,000 steps of 1,504 runs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs.core.db import Connection
from flask_opsjobs.core.sql import _FILES
from tests.support.database import Databases
from tests.support.past_runs import CANCELED, CHAIN, READY, WIDE, fill
from tests.support.plans import Nodes, explain, explain_prepared

NOW = datetime.now(UTC)
RUN = 1_010  # one of those that run: its step 10 is an open wait, and its signal has come
FIRST = (RUN - 1) * 20 + 1  # the id of its first step
WAITING = list(range(FIRST + 10, FIRST + 20))
MANY = list(range(50_001, 50_101))
_SIGNAL = {"name": "payment", "key": f"order-{RUN}", "run": None}

Explain = Callable[[Connection, str, dict[str, Any]], Nodes]

# (statement, indexes, or each of two that serve as well, the most rows that a scan may read, parameters)
CASES: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "lock": ("lock_workflow", "workflows_pkey", 1, {"id": RUN, "now": NOW, "patience": "100ms"}),
    "settle": (
        "settle_steps",
        "workflow_end_events_by_run steps_pkey jobs_pkey edges_pkey workflows_pkey",
        10,
        {"id": RUN, "now": NOW, "limit": 1_000},
    ),
    "lost steps": (
        "append_hints_of_lost_steps",
        "workflows_by_state steps_name_key jobs_pkey",
        1_020,  # before version 18, Postgres rounds the rows of each of the 51 runs that were read
        {"run": RUN, "name": "step 19", "limit": 1_000},
    ),
    "lost steps, in a large run": (
        "append_hints_of_lost_steps",
        "workflows_by_state steps_name_key jobs_pkey",
        1_000,
        {"run": CHAIN, "name": "step 15000", "limit": 1_000},
    ),
    "doom, the end of a run": (
        "find_doomed_steps",
        "edges_pkey steps_pkey jobs_pkey|jobs_by_state",
        30,
        {"unfinished": [FIRST + 9], "causes": [FIRST + 9], "limit": 1_000},
    ),
    "doom, a chain of 10,000": (
        "find_doomed_steps",
        "edges_pkey steps_pkey jobs_pkey|jobs_by_state",
        1_100,
        {"unfinished": [40_001], "causes": [40_001], "limit": 1_000},
    ),
    "note causes": (
        "note_causes",
        "steps_pkey",
        1_000,
        {"ids": MANY, "causes": [40_001] * 100},
    ),
    "cancel behind": (
        "end_waiting_jobs",
        "jobs_pkey",
        1_000,
        {
            "ids": MANY,
            "sources": ["deferred"],
            "state": "canceled",
            "ended_by": "dependency",
            "reason": "why",
            "now": NOW,
        },
    ),
    "list to release, none": (
        "list_steps_to_release",
        "steps_overlooked",
        0,
        {"id": CHAIN, "limit": 1_000},
    ),
    "list to release, many": (
        "list_steps_to_release",
        "steps_overlooked",
        5_100,
        {"id": READY, "limit": 1_000},
    ),
    "open": ("open_waits", "steps_pkey jobs_pkey", 1, {"ids": [FIRST + 14], "now": NOW}),
    "match, a signal came": (
        "match_signals",
        "steps_open_waits_of_run signals_to_match jobs_pkey",
        2,
        {"id": RUN, "now": NOW, "limit": 1_000},
    ),
    "match, no open wait": (
        "match_signals",
        "steps_open_waits_of_run",
        0,
        {"id": WIDE, "now": NOW, "limit": 1_000},
    ),
    "signals of a wait": (
        "count_signals_of_wait",
        "steps_pkey signals_to_match signals_by_outcome",
        1_000,
        {"id": FIRST + 9, "most": 1_000},
    ),
    "take": (
        "take_signal",
        "signals_pkey jobs_pkey",
        1,
        {"signal": 1, "wait": FIRST + 9, "now": NOW, "outcomes": ["early"]},
    ),
    "results": ("read_results_of_steps", "steps_pkey outputs_pkey jobs_pkey", 20, {"ids": WAITING}),
    "results of a map": (
        "read_results_of_steps",
        "steps_of_map outputs_pkey",
        10_000,
        {"ids": [40_000]},
    ),
    "release one": (
        "release_steps",
        "steps_pkey jobs_pkey",
        1,
        {"ids": [FIRST + 10], "taking": [], "args": [], "now": NOW},
    ),
    "release many": (
        "release_steps",
        "steps_pkey jobs_pkey",
        1_000,
        {"ids": MANY, "taking": MANY, "args": ["{}"] * 100, "now": NOW},
    ),
    "runs": (
        "list_runs_to_advance",
        "workflow_end_events_by_run steps_overlooked workflows_by_state workflows_with_trouble"
        " signals_to_match",
        1_600,
        {"limit": 100, "after": 0},
    ),
    "stop": ("list_steps_to_stop", "jobs_of_run", 5_100, {"id": CANCELED, "limit": 1_000}),
    "stop, none left": ("list_steps_to_stop", "jobs_of_run", 1, {"id": WIDE, "limit": 1_000}),
    "end, not yet": (
        "end_workflow",
        "workflows_pkey",
        1,
        {"id": WIDE, "now": NOW, "deadline": "d"},
    ),
    "trouble": ("note_trouble", "workflows_pkey", 1, {"id": RUN, "trouble": "why"}),
    "hints": ("append_hints", "", 1, {"id": RUN, "ids": [FIRST]}),
    "expire": ("expire_workflows", "workflows_deadlines", 10, {"now": NOW}),
    "ambiguous": ("note_ambiguous_signals", "signals_pkey", 2, {"ids": [20_001, 20_002]}),
    "runs of a signal": ("list_runs_of_signal", "steps_waits_left", 2, {**_SIGNAL, "limit": 100}),
    "insert signal": (
        "insert_signal",
        "steps_waits steps_waits_left",
        2,
        {**_SIGNAL, "dedupe": "e", "payload": "null", "by": "host", "since": "30 days"},
    ),
    "insert signal for a run": (
        "insert_signal",
        "steps_waits steps_waits_left workflows_pkey signals_dedupe",
        2,
        {
            **_SIGNAL,
            "run": RUN,
            "dedupe": "e",
            "payload": "null",
            "by": "host",
            "since": "30 days",
        },
    ),
    "late": (
        "note_late_signal",
        "steps_waits steps_waits_left",
        2,
        {**_SIGNAL, "id": 20_001, "since": "30 days"},
    ),
    "late, none is awaited": (
        "unmark_late_signals",
        "signals_by_outcome",
        0,
        {"most": 100, "since": NOW - timedelta(days=3)},
    ),
    "count signals": (
        "count_signals",
        "signals_by_outcome",
        10_001 + 710,  # of 20,000 that were taken, and all that are early
        {"most": 10_001},
    ),
    "lock signal": ("lock_signal", "signals_pkey", 1, {"id": 20_001}),
    "look at a signal": ("look_at_signal", "signals_pkey", 1, {"id": 20_001}),
    "read signal": ("read_signal", "signals_pkey", 1, {"id": 20_001}),
    "reopen, a chain": (
        "find_steps_to_reopen",
        "edges_pkey edges_by_target jobs_pkey",
        30,
        {"ids": [FIRST + 9]},
    ),
    "reopen": (
        "reopen_steps",
        "steps_pkey workflows_pkey",
        20,
        {"ids": WAITING, "run": RUN, "now": NOW},
    ),
    "count pending": (
        "count_pending",
        "steps_pkey edges_pkey edges_by_target",
        60,
        {"ids": WAITING},
    ),
    "defer again": ("defer_jobs_again", "jobs_pkey steps_pkey", 20, {"ids": WAITING}),
    "hints of sources": (
        "append_hints_of_sources",
        "edges_by_target steps_pkey",
        30,
        {"ids": WAITING, "run": RUN},
    ),
    "skip": (
        "skip_steps",
        "jobs_pkey",
        10,
        {"ids": WAITING, "sources": ["deferred"], "now": NOW, "reason": "why", "result": "1"},
    ),
    "lock many": ("lock_workflows", "workflows_pkey", 3, {"ids": [7, 8, RUN]}),
    "look at runs": ("look_at_workflows", "workflows_pkey", 3, {"ids": [7, 8, RUN]}),
    "look at a step": (
        "look_at_steps",
        "steps_name_key jobs_pkey",
        1,
        {"run": RUN, "name": "step 7", "limit": 1_000},
    ),
    "look at all": (
        "look_at_steps",
        "steps_name_key jobs_pkey",
        20,
        {"run": RUN, "name": None, "limit": 1_000},
    ),
    "culprits": (
        "find_culprits",
        "edges_by_target jobs_pkey steps_pkey",
        10,
        {"ids": WAITING},
    ),
    "doomed, a chain": (
        "list_doomed_steps",
        "edges_pkey edges_by_target jobs_pkey steps_pkey",
        30,
        {"ids": [FIRST + 9], "now": NOW},
    ),
    "unique locks": (
        "list_unique_locks_of_steps",
        "jobs_pkey",
        10,
        {"ids": WAITING, "now": NOW},
    ),
    "cancel": (
        "cancel_workflows",
        "workflows_pkey",
        1,
        {"ids": [RUN], "sources": ["running"], "now": NOW, "actor": "ops", "reason": "why"},
    ),
    "workers to stop": (
        "list_workers_to_stop",
        "jobs_of_run",
        250,  # PostgreSQL 15 also looks up which jobs are queued or started, of which there are few
        {"ids": [1_009]},
    ),
    "unique until ended": ("list_unique_until_ended", "jobs_pkey", 10, {"ids": WAITING}),
    "run of a map": ("lock_run_of_map", "steps_pkey workflows_pkey", 1, {"id": 30_001}),
    "read a map": ("read_map", "jobs_pkey steps_pkey", 1, {"id": 30_001, "dispatch_no": 1}),
    "forget": ("forget_end_events", "workflow_end_events_by_run workflows_pkey", 1, {"id": RUN}),
    "members": (
        "add_members",
        "edges_pkey steps_pkey workflows_pkey",
        2,
        {"id": FIRST + 9, "members": [70_001, 70_002], "run": RUN, "now": NOW},
    ),
    "attempts": ("list_attempts_of_steps", "attempts_pkey", 0, {"ids": MANY, "most": 20}),
    "run of a job": ("find_workflow_of_job", "steps_pkey workflows_pkey", 1, {"id": FIRST}),
    "checks of a run": ("check_workflows", "steps_name_key jobs_pkey", 60, {"ids": [RUN]}),
    "open run of a key": ("find_open_workflow", "", 1, {"name": "n", "unique_key": "k"}),
}

# These read what was named, and the name or the runs may be missing: without a look at the parameters
# Postgres makes a poor plan, and so it looks at them each time.
LOOKS_EACH_TIME = ("look at a step", "checks of a run")
# No plan to speak of: they only insert.
ONLY_INSERT = {
    "insert_workflow",
    "copy_jobs_of_steps",
    "copy_steps",
    "copy_edges",
    "copy_members",
    "count_jobs_of_steps",
    "reserve_job_ids",
    "enqueue_callback",
}
# Shown by tests/workflows/test_start_races.py.
ELSEWHERE = {"take_locks_of_steps", "list_steps_without_lock"}
# Shown by tests/workflows/test_query_plans.py.
OF_PAGES = {"count_runs", "list_frontiers", "list_usual_seconds", "read_runs_that_need_help"}
# They end or move jobs of any kind: tests/lifeline, tests/actions and tests/engine show their plans.
OLDER = {
    "count_failed_deliveries",
    "expire_jobs",
    "finish_jobs",
    "give_back_jobs",
    "rescue_jobs",
    "rescue_reserved_jobs",
    "retry_or_end_jobs",
}
# Parts of other statements.
PARTS = {
    "append_task_ends",
    "append_workflow_end_events",
    "is_signal_late",
    "limit_turn",
    "list_runs_that_need_help",
}


@pytest.fixture(scope="module")
def many(databases: Databases) -> Iterator[Connection]:
    """A connection to a database with these runs."""
    with databases.connection() as connection:
        fill(connection)
        yield connection


@pytest.mark.parametrize("how", [explain, explain_prepared])
@pytest.mark.parametrize("case", CASES)
def test_it_walks_its_indexes_and_reads_little(many: Connection, case: str, how: Explain) -> None:
    if how is explain_prepared and case in LOOKS_EACH_TIME:
        return
    statement, indexes, most, parameters = CASES[case]
    nodes = how(many, statement, parameters)
    used = {node.get("Index Name") for node in nodes}
    assert [names for names in indexes.split() if not used & set(names.split("|"))] == []
    walked = {node.get("Relation Name") for node in nodes if node["Node Type"] == "Seq Scan"}
    assert walked <= {"workers"}
    assert rows_read(nodes) <= most


def test_headers_name_the_indexes() -> None:
    for statement, indexes, _, _ in CASES.values():
        said = _FILES[statement].read_text()
        assert [index for index in re.split(r"[ |]", indexes) if index not in said] == [], statement


def test_no_statement_is_left_out() -> None:
    domains = {name: path.parts[-3] for name, path in _FILES.items()}
    ours = {name for name in _FILES if domains[name] in ("workflows", "endings")} - OLDER
    ours -= {name for name in ours if "batch" in name} | {"list_members_to_stop"}  # of batches
    shown = {statement for statement, _, _, _ in CASES.values()}
    assert ours - shown == ONLY_INSERT | ELSEWHERE | OF_PAGES | PARTS


@pytest.mark.parametrize("how", [explain, explain_prepared])
def test_many_steps_that_did_not_finish_do_not_read_all_edges_at_each_depth(
    many: Connection, how: Explain
) -> None:
    """A chain is as deep as it is long. Postgres expects each depth to be ten times as wide as the first."""
    ids = [*range(1, 1_000), 40_001]  # behind all but the last, everything has settled
    causes = {"unfinished": ids, "causes": ids, "limit": 1_000}
    assert rows_read(how(many, "find_doomed_steps", causes)) <= 4_000
    with many.transaction(force_rollback=True):
        many.execute(
            "UPDATE opsjobs.jobs SET state = 'canceled', ended_at = now(), ended_by = 'dependency'"
            " WHERE id BETWEEN 40002 AND 41000"
        )
        nodes = how(many, "find_steps_to_reopen", {"ids": ids})
        assert rows_read(nodes) <= 6_000
        nodes = how(many, "list_doomed_steps", {"ids": ids, "now": NOW})
        assert rows_read(nodes) <= 9_000
        nodes = how(many, "find_culprits", {"ids": list(range(40_902, 41_001))})
        assert rows_read(nodes) <= 99 * 1_000


def test_many_end_events_of_one_run_are_not_read_to_find_it(many: Connection) -> None:
    with many.transaction(force_rollback=True):
        many.execute(
            "INSERT INTO opsjobs.workflow_end_events SELECT %s, ARRAY[30000 + n %% 10000]"
            " FROM generate_series(1, 100000) AS n",
            [WIDE],
        )
        many.execute("ANALYZE opsjobs.workflow_end_events")
        for how in (explain, explain_prepared):
            nodes = how(many, "list_runs_to_advance", {"limit": 100, "after": 0})
            assert rows_read(nodes, "workflow_end_events") <= 110
            nodes = how(many, "settle_steps", {"id": WIDE, "now": NOW, "limit": 1_000})
            assert max(rows_read(nodes, table) for table in ("steps", "jobs", "edges")) <= 1_000


def test_many_waits_and_signals_without_a_key_are_not_compared_with_each_other(
    many: Connection,
) -> None:
    """Each run has an open wait without a key, and signals came for runs that do not wait for them yet."""
    with many.transaction(force_rollback=True):
        many.execute(
            "INSERT INTO opsjobs.steps (job_id, workflow_id, name, position, kind, pending, signals,"
            " opened_at, released_at) SELECT 100000 + n, n, 'approve', 99, 'wait', 0, '{approve}',"
            " now(), now() FROM generate_series(1, 1500) AS n"
        )
        many.execute(
            "INSERT INTO opsjobs.signals (name, run, at, by, outcome)"
            " SELECT 'approve', 5000 + n, now(), 'host', 'early' FROM generate_series(1, 2000) AS n"
        )
        many.execute("ANALYZE opsjobs.steps")
        many.execute("ANALYZE opsjobs.signals")
        for how in (explain, explain_prepared):
            nodes = how(many, "list_runs_to_advance", {"limit": 100, "after": 0})
            assert rows_read(nodes) <= 2 * 2_000, "not 1,500 times 2,000"


def test_of_many_late_signals_the_newest_are_looked_at(many: Connection) -> None:
    """A wait was reopened for two of them."""
    with many.transaction(force_rollback=True):
        many.execute(
            "INSERT INTO opsjobs.signals (name, key, at, by, outcome)"
            " SELECT 'payment', 'order-' || n, now() + interval '1 h', 'host', 'late'"
            " FROM generate_series(1, 20000) AS n"
        )
        many.execute(
            "UPDATE opsjobs.signals SET key = 'order-' || %s WHERE outcome = 'late'"
            " AND id > (SELECT max(id) - 2 FROM opsjobs.signals)",
            [RUN],
        )
        many.execute("ANALYZE opsjobs.signals")
        for how in (explain, explain_prepared):
            values = {"most": 100, "since": NOW - timedelta(days=3)}
            nodes = how(many, "unmark_late_signals", values)
            assert rows_read(nodes) <= 1_000, "not all 20,000"


def test_the_end_of_a_run_reads_each_of_its_steps_once(many: Connection) -> None:
    """It costs 10 to 20 ms for 50,000 steps."""
    with many.transaction(force_rollback=True):
        many.execute(
            "UPDATE opsjobs.workflows SET settled = 10000, finished = 9999, failed = 1 WHERE id = %s",
            [WIDE],
        )
        many.execute(
            "UPDATE opsjobs.steps SET settled = 'failed', settled_at = now() WHERE job_id = 40000"
        )
        for how in (explain, explain_prepared):
            nodes = how(many, "end_workflow", {"id": WIDE, "now": NOW, "deadline": "d"})
            assert rows_read(nodes, "steps") == 10_000
            assert rows_read(nodes, "jobs") <= 1


def rows_read(nodes: Nodes, table: str | None = None) -> int:
    """The most rows that any scan read of a table, or of any, those that it threw away included."""
    return max(
        (
            int(
                (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            )
            for node in nodes
            if "Scan" in node["Node Type"]
            and (node.get("Relation Name") == table if table else _reads_a_table(node))
        ),
        default=0,
    )


def _reads_a_table(node: dict[str, Any]) -> bool:
    return "Relation Name" in node or "Index Name" in node
