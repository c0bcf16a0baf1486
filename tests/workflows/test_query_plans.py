"""Each query of the pages of workflows walks the index it is meant to, on 50,000 runs, and stops early."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs.core.reading import Reading
from flask_opsjobs.overview.badges import find_badges
from flask_opsjobs.workflows import queries
from tests.support.database import Databases
from tests.support.plans import Plans, app_on, reading_with

RUNS = 50_000
# By one INSERT each: the real writers would take minutes. Only plans are asked of these rows. Each run has
# two steps, a job and a wait behind it.
_FILL = """
INSERT INTO opsjobs.workflows (id, name, state, context, shape, steps, settled, finished, created_at,
    ended_at, ended_by)
SELECT n, 'name_' || n % 40, state, '{}', '', 2, CASE state WHEN 'running' THEN 0 ELSE 2 END,
    CASE state WHEN 'running' THEN 0 ELSE 2 END, now() - interval '2 days',
    CASE WHEN state <> 'running' THEN now() - (50000 - n) * interval '1 min' END,
    CASE state WHEN 'finished' THEN 'finished' WHEN 'failed' THEN 'step' END
FROM generate_series(1, 50000) AS n,
    LATERAL (SELECT CASE WHEN n % 50 = 0 THEN 'failed' WHEN n % 5 = 0 THEN 'running'
        ELSE 'finished' END) s (state);
INSERT INTO opsjobs.jobs (id, task, queue, lane, state, args, max_attempts, created_at, due_at, ended_at,
    ended_by, workflow_id)
SELECT w.id * 2 + k, CASE k WHEN 0 THEN 'call' ELSE 'opsjobs.wait' END, 'q', 'q',
    CASE WHEN w.state <> 'running' THEN 'finished' WHEN k = 0 THEN 'available' ELSE 'deferred' END, '{}', 1,
    now(), now(), CASE WHEN w.state <> 'running' THEN now() END,
    CASE WHEN w.state <> 'running' THEN 'returned' END, w.id
FROM opsjobs.workflows w, generate_series(0, 1) AS k;
INSERT INTO opsjobs.steps (job_id, workflow_id, name, position, kind, pending, settled, settled_at, signals,
    key, opened_at, released_at)
SELECT w.id * 2 + k, w.id, 'step_' || k, k, CASE k WHEN 0 THEN 'job' ELSE 'wait' END, 0,
    CASE WHEN w.state <> 'running' THEN 'finished' END, CASE WHEN w.state <> 'running' THEN now() END,
    CASE k WHEN 1 THEN '{payment}'::text[] END, 'order-' || w.id, CASE k WHEN 1 THEN now() END, now()
FROM opsjobs.workflows w, generate_series(0, 1) AS k;
INSERT INTO opsjobs.edges (from_id, to_id, on_failure)
SELECT id * 2, id * 2 + 1, 'cancel' FROM opsjobs.workflows;
INSERT INTO opsjobs.signals (name, key, at, by, outcome, taken_by, taken_at)
SELECT 'payment', 'order-' || n, now(), 'host', CASE WHEN n % 5000 = 0 THEN 'ambiguous' ELSE 'taken' END,
    CASE WHEN n % 5000 <> 0 THEN n * 2 + 1 END, CASE WHEN n % 5000 <> 0 THEN now() END
FROM generate_series(1, 50000) AS n;
INSERT INTO opsjobs.callbacks (of, of_id, end_no, event, job_id)
SELECT 'workflow', id, 1, 'end', id FROM opsjobs.workflows;
ANALYZE opsjobs.workflows, opsjobs.jobs, opsjobs.steps, opsjobs.edges, opsjobs.signals, opsjobs.callbacks
"""


class RunPlans(Plans):
    """Every statement about one of our tables."""

    about = "opsjobs."


@pytest.fixture(scope="module")
def module_app(databases: Databases) -> Iterator[Flask]:
    """A host on a database with 50,000 runs."""

    def fill(session: Session) -> None:
        for statement in _FILL.split(";\n"):
            session.execute(text(statement))

    with app_on(databases, fill) as app:
        yield app


@pytest.fixture
def plans(module_app: Flask) -> Iterator[tuple[Plans, Reading]]:
    """A reading as pages have it, with its plans."""
    with reading_with(module_app, RunPlans) as plans:
        yield plans


def check(plans: Plans, indexes: set[str], most: int) -> None:
    assert plans.indexes == indexes, plans
    assert plans.most_rows <= most, plans
    assert not plans.kinds & {"Seq Scan", "Bitmap Heap Scan"}, plans


@pytest.mark.parametrize("cursor", ["first", "before", "after"])
@pytest.mark.parametrize(
    ("wanted", "index", "most"),
    [
        ({}, "workflows_pkey", 26),
        ({"state": "failed"}, "workflows_by_state", 26),
        ({"state": "running"}, "workflows_by_state", 26),
        ({"state": "canceled"}, "workflows_by_state", 0),
        ({"name": "name_3"}, "workflows_by_name", 26),
        ({"name": "nobody"}, "workflows_by_name", 0),
        ({"name": "name_10", "state": "failed"}, "workflows_by_name", 1_250),
    ],
    ids=str,
)
def test_a_page_of_runs(
    wanted: dict[str, Any], index: str, most: int, cursor: str, plans: tuple[Plans, Reading]
) -> None:
    seen, read = plans
    place: dict[str, Any] = {} if cursor == "first" else {cursor: 25_000}
    queries.page_of_runs(read.session, **wanted, **place)
    check(seen, {index}, most)


def test_what_needs_a_person(plans: tuple[Plans, Reading]) -> None:
    seen, read = plans
    queries.list_runs_that_need_help(read.session, read.now)
    indexes = {
        "workflows_with_trouble",
        "signals_by_outcome",
        "steps_waits_left",
        "steps_open_waits_of_run",
        "workflows_to_retain",
        "workflows_pkey",
    }
    check(seen, indexes, 1_000)


def test_the_badge_counts_them_by_the_same_indexes(plans: tuple[Plans, Reading]) -> None:
    seen, read = plans
    badge = find_badges(read.session, read.now, 45)["workflows"]
    assert badge.number > 0
    indexes = {"signals_by_outcome", "steps_waits_left", "steps_open_waits_of_run"}
    assert seen.indexes >= indexes | {"workflows_with_trouble", "workflows_to_retain"}, seen
    assert seen.most_rows <= 1_000, seen


def test_what_holds_the_runs_of_a_page_up(plans: tuple[Plans, Reading]) -> None:
    seen, read = plans
    runs = queries.page_of_runs(read.session, state="running").rows
    seen.seen.clear()
    assert len(queries.find_what_holds_up(read.session, runs)) == 25
    indexes = {"jobs_of_run", "jobs_pkey", "steps_open_waits_of_run", "steps_pkey", "edges_pkey"}
    check(seen, indexes, 50)


def test_how_long_runs_usually_take(plans: tuple[Plans, Reading]) -> None:
    seen, read = plans
    assert len(queries.find_usual_seconds(read.session, ["name_1", "name_2"])) == 2
    check(seen, {"workflows_by_name"}, 100)


def test_the_last_run_of_a_name_that_finished(plans: tuple[Plans, Reading]) -> None:
    seen, read = plans
    run = queries.page_of_runs(read.session, name="name_3").rows[0]
    seen.seen.clear()
    queries.find_last_good(read.session, run)
    check(seen, {"workflows_by_name"}, 200)


def test_the_counts_of_the_tabs(plans: tuple[Plans, Reading]) -> None:
    seen, read = plans
    queries.count_runs_by_state(read.session)
    check(seen, {"workflows_by_state"}, 2 * 10_001 + 10_000)


def test_one_run(plans: tuple[Plans, Reading]) -> None:
    seen, read = plans
    run = queries.page_of_runs(read.session, state="running").rows[0].id
    seen.seen.clear()
    assert queries.find_run(read.session, run)
    steps = queries.list_steps(read.session, run)
    assert len(steps) == 2
    assert len(queries.list_edges(read.session, run)) == 1
    assert queries.find_step(read.session, steps[0].id)
    assert len(queries.list_callbacks(read.session, run)) == 1
    queries.list_signals_for(read.session, steps)
    check(
        seen,
        {
            "workflows_pkey",
            "steps_name_key",
            "steps_pkey",
            "edges_by_target",
            "jobs_pkey",
            "outputs_pkey",
            "callbacks_pkey",
            "signals_taken_by_key",
            "signals_to_match",
            "signals_by_outcome",
            "signals_pkey",
        },
        2,
    )


@pytest.mark.parametrize(
    ("outcome", "indexes"),
    [
        (None, {"signals_pkey", "steps_pkey"}),
        ("taken", {"signals_by_outcome", "steps_pkey"}),
        ("ambiguous", {"signals_by_outcome", "steps_pkey"}),
    ],
)
def test_a_page_of_signals(
    outcome: str | None, indexes: set[str], plans: tuple[Plans, Reading]
) -> None:
    seen, read = plans
    queries.page_of_signals(read.session, outcome=outcome)
    check(seen, indexes, 26)


def test_the_counts_of_signals(plans: tuple[Plans, Reading]) -> None:
    seen, read = plans
    queries.count_signals_by_outcome(read.session)
    check(seen, {"signals_by_outcome"}, 10_001 + 10)


def test_the_run_of_a_callback(plans: tuple[Plans, Reading]) -> None:
    seen, read = plans
    assert queries.find_run_of_callback(read.session, 7) == (7, 1)
    check(seen, {"callbacks_by_job"}, 1)


def test_the_attempts_of_steps(plans: tuple[Plans, Reading]) -> None:
    seen, read = plans
    queries.list_attempts_of_steps(read.session, [2, 3])
    check(seen, {"attempts_pkey"}, 2)
