"""Each hot query of a page walks the index it is meant to, on 50,000 rows, whatever was counted before."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from flask_opsjobs.core.reading import Reading
from flask_opsjobs.host import Host
from flask_opsjobs.jobs import queries as job_queries
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.jobs.search import hit_queries
from flask_opsjobs.jobs.search.conditions import is_one_of
from flask_opsjobs.jobs.search.export_queries import batch_of_jobs, list_jobs_in_full
from flask_opsjobs.jobs.search.filter import JobFilter
from flask_opsjobs.jobs.search.queries import list_jobs
from flask_opsjobs.lifeline import loop_runs
from flask_opsjobs.operations.targets import freeze_statement
from flask_opsjobs.overview import queries as overview_queries
from flask_opsjobs.queues import queries as queue_queries
from flask_opsjobs.web.app.host import reading
from flask_opsjobs.workers import queries as worker_queries
from tests.support.database import Databases
from tests.support.plans import Plans, app_on, reading_with

pytestmark = pytest.mark.lane

_FILL = """
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, tags, max_attempts, created_at, due_at,
    dispatched_at, started_at, ended_at, ended_by, error, worker_id)
SELECT 'task_' || n % 40, coalesce(:queue, 'queue_' || n % 7), 'lane', :state,
    jsonb_build_object('account_id', n % 2000, 'is_big', n % 2 = 0, 'note', repeat('x', n % 50)),
    CASE WHEN n % 100 = 0 THEN ARRAY['tag_' || n % 1000] ELSE '{}' END, 5,
    now() - (:many - n) * interval '1 s', now(), now(), now(),
    CASE WHEN :ended_by <> '' THEN now() - (:many - n) * interval '1 s' END, nullif(:ended_by, ''),
    CASE WHEN :state = 'failed' THEN 'ValueError: no' END, CASE WHEN :state = 'started' THEN 1 END
FROM generate_series(1, :many) AS n
"""
_ENDS = {"finished": "returned", "failed": "exhausted", "canceled": "canceled"}


def fill(session: Session, *, queue: str | None = None, **states: int) -> None:
    """So many jobs in each of `states`, by INSERT: 50,000 calls of a writer would take a minute."""
    for state, many in states.items():
        values = {"many": many, "state": state, "ended_by": _ENDS.get(state, ""), "queue": queue}
        session.execute(text(_FILL), values)
    session.execute(text("ANALYZE opsjobs.jobs"))


_fill_mix = partial(
    fill,
    scheduled=12_000,
    finished=36_000,
    canceled=200,
    failed=1_500,
    available=400,
    queued=60,
    started=40,
)


@pytest.fixture(scope="module")
def module_app(databases: Databases) -> Iterator[Flask]:
    """A host on a database with 50,000 jobs, most of them finished, a backlog at the old end."""
    with app_on(databases, _fill_mix) as app:
        yield app


@pytest.fixture
def plans(module_app: Flask) -> Iterator[tuple[Plans, Reading]]:
    """A reading as pages have it, with its plans."""
    with reading_with(module_app, Plans) as plans:
        yield plans


# Filter, index, and how many rows a page of 25 may read at most.
PAGES = [
    ("", {"jobs_pkey"}, 26),
    ("state=finished", {"jobs_by_state"}, 26),
    ("state=failed", {"jobs_by_state"}, 26),
    ("state=scheduled", {"jobs_by_state"}, 26),  # common, and all of them old: not the primary key
    ("state=available", {"jobs_by_state"}, 26),
    ("state=deferred", {"jobs_by_state"}, 0),
    ("queue=queue_3", {"jobs_by_queue"}, 26),
    ("task=task_3", {"jobs_by_task"}, 26),
    ("task=nobody", {"jobs_by_task"}, 0),
    ("queue=queue_3&state=finished", {"jobs_by_queue"}, 1_500),
    ("task=task_3&state=finished", {"jobs_by_task"}, 200),
    ("task=task_3&state=failed", {"jobs_unsuccessful_by_task"}, 26),
    ("task=task_3&queue=queue_3&state=failed", {"jobs_unsuccessful_by_task"}, 50),
    ("task=nobody&state=failed", {"jobs_unsuccessful_by_task"}, 0),
    ("queue=queue_3&state=failed", {"jobs_unsuccessful_by_queue"}, 26),
    ("queue=queue_3&state=canceled", {"jobs_unsuccessful_by_queue"}, 26),
    (
        "created=<2h&queue=queue_3&state=failed",
        {"jobs_pkey", "jobs_unsuccessful_by_queue"},
        500,
    ),
    ("origin=rq", {"jobs_adopted"}, 0),
    ("origin=opsjobs", {"jobs_pkey"}, 26),
    ("created=<2h", {"jobs_pkey"}, 500),
    ("created=>2h", {"jobs_pkey", "jobs_adopted"}, 500),
    ("created=<1m&state=failed", {"jobs_pkey", "jobs_by_state"}, 500),
]


@pytest.mark.parametrize("cursor", ["first", "before", "after"])
@pytest.mark.parametrize(("query", "indexes", "most"), PAGES, ids=[page[0] for page in PAGES])
def test_a_page_walks_one_index_and_stops(
    query: str, indexes: set[str], most: int, cursor: str, plans: tuple[Plans, Reading]
) -> None:
    seen, read = plans
    pairs = [pair.split("=", 1) for pair in query.split("&") if pair]
    wanted = JobFilter.from_query([(name, value) for name, value in pairs])
    where = {} if cursor == "first" else {cursor: 40_000}
    job_queries.page_of_jobs(read.session, wanted, read.now, **where)
    # Of jobs that run, how far they are; of those that are taken, by whom.
    assert seen.indexes == indexes | {"attempts_pkey", "workers_pkey"}
    assert seen.kinds.isdisjoint({"Seq Scan", "Bitmap Heap Scan", "Sort", "Incremental Sort"})
    # A second page is read when `after` turns out to be at the top.
    assert seen.most_rows <= 2 * most + 100


# So many of the newest jobs are examined, in each of two scans at most.
_NEWEST = 10_001
# A search, the indexes it may use, and how many rows it may read:
# its hits, once for the counts, once for the page.
SEARCHES = [
    ("args.account_id:42", {"jobs_args"}, 100),
    ("args.account_id:nobody", {"jobs_args"}, 0),
    ("args.account_id:42 state:failed", {"jobs_args"}, 100),
    ("args.account_id:42 queue:queue_3 task:task_3", {"jobs_args"}, 100),
    ("args.account_id:42 created:<1d", {"jobs_args"}, 100),
    ("args.account_id:42 error:no", {"jobs_args", "jobs_with_error"}, 1_600),
    ("args.is_big:true error:nothing", {"jobs_with_error"}, 1_600),
    ("args.is_big:true", {"jobs_args"}, 30_000),  # half of all: stops at 5,001 of them
    ("args.is_big:true state:failed", {"jobs_args", "jobs_by_state"}, 30_000),
    ("args.is_big:true queue:queue_3", {"jobs_by_queue"}, 8_000),
    ("args.is_big:true attempts:0..3", set(), _NEWEST),
    ("tag:tag_300", {"jobs_tags"}, 100),
    ("tag:tag_300 args.is_big:true", {"jobs_tags", "jobs_args"}, 30_000),
    ("tag:nobody", {"jobs_tags"}, 0),
    ("error:nothing", {"jobs_with_error"}, 1_500),
    ("error:value queue:queue_3", {"jobs_with_error"}, 1_500),
    ("id:40000", set(), 1),
    ("id:40000 state:failed", set(), 1),
    ("id:40000,39999,7", set(), 3),
    # An index finds each tag, argument or id; the rest is examined of their jobs.
    ("tag:tag_300 OR tag:tag_500 OR args.account_id:42", {"jobs_tags", "jobs_args"}, 200),
    ("tag:tag_300 -state:finished attempts:0..3 duration:>1s", {"jobs_tags"}, 200),
    ("failure:1 OR failure:2", {"attempts_by_failure", "failures_pkey"}, _NEWEST),
    ("-queue:queue_3", set(), _NEWEST),
    ("-task:task_3 state:failed", {"jobs_by_state"}, _NEWEST),
    ("queue:queue_3 priority:0..3 wait:>5s", {"jobs_by_queue"}, 8_000),
    ("task:task_3 OR task:task_4 -state:failed", {"jobs_by_task"}, 3_000),
    ("task:task_1*", {"jobs_by_task"}, 14_000),
    ("queue:queue_1 OR queue:queue_2 memory:>5MB", {"jobs_by_queue"}, 16_000),
    ("state:failed OR state:canceled", {"jobs_by_state"}, 1_800),
    ("ended:-30m..now", {"jobs_to_retain"}, 4_000),
    ("ended:-30m..now state:failed", {"jobs_to_retain"}, 4_000),
    ("ended:-90d..now created:>30d", {"jobs_to_retain"}, 30_000),
    ("started:-2d..-1d", {"jobs_adopted"}, _NEWEST),
    ("due:now..+2h state:scheduled", {"jobs_by_state"}, _NEWEST),
    ("no OR nothing", {"jobs_with_error"}, 1_600),
    ("value -queue:queue_3", {"jobs_with_error"}, 1_600),
    ("-value task:task_3", {"jobs_by_task"}, 1_600),
]


@pytest.mark.parametrize("cursor", ["first", "before", "after"])
@pytest.mark.parametrize(("box", "indexes", "most"), SEARCHES, ids=[one[0] for one in SEARCHES])
def test_a_search_reads_its_hits_and_no_more(
    box: str, indexes: set[str], most: int, cursor: str, plans: tuple[Plans, Reading]
) -> None:
    seen, read = plans
    wanted = JobFilter.from_query([("q", box)])
    where = {} if cursor == "first" else {cursor: 40_000}
    assert list_jobs(
        read.session, wanted, read.now, is_shown=lambda error, text: True, **where
    ).page
    # The rows of the page, and an id; of `created:` also whether there are adopted jobs.
    by_id = {"jobs_pkey", "attempts_pkey", "workers_pkey", "jobs_adopted"}
    assert seen.indexes - by_id <= indexes
    assert seen.indexes & indexes or not indexes
    assert "Seq Scan" not in seen.kinds
    assert seen.most_rows <= most + 30, seen


@pytest.mark.parametrize(
    ("box", "indexes", "most"),
    [
        ("args.is_big:true", set(), 2_003),  # half of all: until there are 1,001
        ("args.is_big:true created:>1m", set(), 5_500),  # ids are not in the order of times here
        ("args.account_id:42", {"jobs_args"}, 25),
        ("tag:tag_300", {"jobs_tags"}, 50),
    ],
)
def test_of_a_value_that_many_have_the_newest_jobs_are_read(
    box: str,
    indexes: set[str],
    most: int,
    plans: tuple[Plans, Reading],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hit_queries, "MANY_JOBS", 5_000)
    seen, read = plans
    wanted = JobFilter.from_query([("q", box)])
    assert list_jobs(read.session, wanted, read.now, is_shown=lambda error, text: True).page
    # Walked: of a common value the index is in the plan, for the case that the newest jobs are too few.
    assert seen.walked - {"jobs_pkey", "attempts_pkey", "workers_pkey", "jobs_adopted"} == indexes
    assert "Seq Scan" not in seen.kinds
    assert seen.most_rows <= most + 30, seen


def test_the_attempts_of_a_job_are_looked_up_once_for_all_that_are_wanted(
    plans: tuple[Plans, Reading],
) -> None:
    seen, read = plans
    wanted = JobFilter.from_query(
        [("q", "death:signal OR memory:>5MB OR failure:1 -queue:queue_3")]
    )
    assert list_jobs(read.session, wanted, read.now, is_shown=lambda error, text: True).page
    examining = [statement for statement, _ in seen.seen if "AS examined" in statement]
    assert {statement.count("FROM opsjobs.attempts") for statement in examining} == {1}


@pytest.mark.parametrize("box", ["ended:-30m..now", "queue:queue_1 OR queue:queue_2 wait:>5s"])
def test_what_each_value_needs_is_counted_in_its_index_alone(
    box: str, plans: tuple[Plans, Reading]
) -> None:
    seen, read = plans
    wanted = JobFilter.from_query([("q", box)])
    assert list_jobs(read.session, wanted, read.now, is_shown=lambda error, text: True).page
    examining = [nodes for statement, nodes in seen.seen if "AS examined" in statement]
    scans = [
        [kind for node in nodes if "Index" in (kind := node["Node Type"])] for nodes in examining
    ]
    assert scans
    assert all(sorted(one) == ["Index Only Scan", "Index Only Scan", "Index Scan"] for one in scans)


def test_thousands_of_ids_are_an_array_for_a_filter(plans: tuple[Plans, Reading]) -> None:
    """A text that is cast is read again for each row: 70 times as slow."""
    _, read = plans
    ids = list(range(1, 1_001))
    jobs = select(Job.id).where(is_one_of(Job.id, ids).is_not(True))
    made = jobs.compile(dialect=read.session.get_bind().dialect)
    lines = read.session.connection().exec_driver_sql(f"EXPLAIN {made}", made.params).scalars()
    written = ",".join(map(str, ids))
    assert f"((id = ANY ('{{{written}}}'::bigint[])) IS NOT TRUE)" in "".join(lines)


def test_an_order_that_is_refused_costs_as_much_as_none(plans: tuple[Plans, Reading]) -> None:
    seen, read = plans
    asked = {}
    for sort in (None, "-run"):
        seen.seen.clear()
        wanted = JobFilter(state="finished", sort=sort)
        found = list_jobs(read.session, wanted, read.now, is_shown=lambda error, text: True)
        assert found.is_in_order is (sort is None)
        asked[sort] = [statement for statement, _ in seen.seen]
    assert asked["-run"] == asked[None]


def test_an_order_within_a_state_examines_the_jobs_of_that_state(
    plans: tuple[Plans, Reading],
) -> None:
    seen, read = plans
    wanted = JobFilter(state="failed", sort="-run")
    found = list_jobs(read.session, wanted, read.now, is_shown=lambda error, text: True)
    assert found.is_in_order
    assert len(found.page.rows) == 25
    assert max(_list_examined(seen)) == 1_500, seen


def test_what_a_search_leaves_behind_harms_no_other_read(plans: tuple[Plans, Reading]) -> None:
    seen, read = plans
    wanted = JobFilter.from_query([("q", "tag:tag_300")])
    assert list_jobs(read.session, wanted, read.now, is_shown=lambda error, text: True).page
    seen.seen.clear()
    job_queries.page_of_jobs(read.session, JobFilter(state="failed"), read.now)
    assert seen.indexes == {"jobs_by_state", "attempts_pkey", "workers_pkey"}
    assert "Bitmap Heap Scan" not in seen.kinds


def test_an_export_walks_as_a_page_does(plans: tuple[Plans, Reading]) -> None:
    seen, read = plans
    for query, index in (("state", "failed"), ("queue", "queue_3"), ("origin", "opsjobs")):
        wanted = JobFilter.from_query([(query, index)])
        rows = batch_of_jobs(read.session, wanted, read.now, before=50_000, size=500)
        assert 0 < len(rows) <= 500
        list_jobs_in_full(read.session, wanted, [row.id for row in rows])
    assert seen.indexes == {"jobs_by_state", "jobs_by_queue", "jobs_pkey"}
    assert seen.kinds.isdisjoint({"Seq Scan", "Bitmap Heap Scan", "Sort"})
    assert seen.most_rows <= 5_000


def test_counting_stops(plans: tuple[Plans, Reading]) -> None:
    seen, read = plans
    job_queries.count_jobs_by_state(read.session, JobFilter(), read.now)
    assert seen.indexes == {"jobs_by_state"}
    assert "Seq Scan" not in seen.kinds


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        (JobFilter(queue="queue_3"), "jobs_by_queue"),
        (JobFilter(task="task_3"), "jobs_by_task"),
        (JobFilter(task="task_3", queue="queue_3", state="failed"), "jobs_by_task"),
    ],
)
def test_counting_within_a_filter_walks_its_index(
    wanted: JobFilter, index: str, plans: tuple[Plans, Reading]
) -> None:
    seen, read = plans
    job_queries.count_jobs_by_state(read.session, wanted, read.now)
    assert seen.indexes == {index}
    assert seen.most_rows <= 10_001


def test_the_first_page_s_cost_does_not_grow(plans: tuple[Plans, Reading]) -> None:
    seen, read = plans
    overview_queries.find_overview(read.session, read.now, 45)
    used = {
        "jobs_by_state",  # depth
        "jobs_limited",  # whether a due job has a limiter
        "jobs_to_retain",  # failed jobs without a decision
        "jobs_to_stage",  # the next due
        "jobs_by_queue",  # names of queues
        "jobs_started",  # those that nobody runs any more
        "incidents_to_retain",  # when the last incident ended
        "workers_pkey",
        "task_pauses_pkey",
    }
    assert seen.indexes == used
    assert "Seq Scan" not in seen.kinds
    assert seen.most_rows <= 6 * 10_001


@pytest.mark.parametrize(
    ("read_one", "index"),
    [
        (job_queries.find_job, "jobs_pkey"),
        (lambda session, _: job_queries.list_task_names(session), "jobs_by_task"),
        (lambda session, _: job_queries.find_qualifier(session, "task_3"), "jobs_by_task"),
        (lambda session, _: queue_queries.list_queue_names(session), "jobs_by_queue"),
    ],
    ids=[
        "find_job",
        "list_task_names",
        "find_qualifier",
        "list_queue_names",
    ],
)
def test_small_reads_touch_few_rows(
    read_one: Any, index: str, plans: tuple[Plans, Reading]
) -> None:
    seen, read = plans
    read_one(read.session, 40_000)
    assert seen.indexes == {index}
    assert seen.most_rows <= 50


def test_names_are_complete_and_in_order(plans: tuple[Plans, Reading]) -> None:
    _, read = plans
    assert queue_queries.list_queue_names(read.session) == [f"queue_{n}" for n in range(7)]
    assert job_queries.list_task_names(read.session) == sorted(f"task_{n}" for n in range(40))


def test_workers_and_loops_are_read_by_their_indexes(module_app: Flask) -> None:
    with module_app.test_request_context(), reading() as read:
        assert worker_queries.list_workers(read.session, read.now, 45) == []
        assert loop_runs.list_loops(read.session, read.now) == []


# --- workflows and batches

_GROUPS = (
    """INSERT INTO opsjobs.workflows (id, name, state, context, shape, steps, created_at)
       SELECT n, 'flow_' || n % 3, 'running', '{}', '', 20, now() FROM generate_series(1, 1000) AS n""",
    """INSERT INTO opsjobs.batches (id, name, state, enqueued, created_at, closed_at, meta)
       SELECT n, 'batch_' || n % 2, 'running', 15000, now(), now(), '{}' FROM generate_series(1, 2) AS n""",
    # Jobs 1 to 20,000 are steps of 1,000 runs, all others are members of two batches.
    """UPDATE opsjobs.jobs SET workflow_id = CASE WHEN id <= 20000 THEN 1 + id / 20 END,
           batch_id = CASE WHEN id > 20000 THEN 1 + id % 2 END WHERE id < 50000""",
    """INSERT INTO opsjobs.steps (job_id, workflow_id, name, position, kind, pending)
       SELECT id, 1 + id / 20, 'step ' || id % 20, id % 20, 'job', 0 FROM opsjobs.jobs
       WHERE id BETWEEN 20 AND 19999""",
    """INSERT INTO opsjobs.workers (name, kind, host, pid, queues, state, started_at, heartbeat_at)
       SELECT 'w' || n, 'pool', 'h', n, '{}', 'alive', now(), now() FROM generate_series(1, 2000) AS n""",
    """UPDATE opsjobs.jobs SET worker_id = 1 + id % 500 WHERE state = 'started'""",
    """UPDATE opsjobs.jobs SET reserved_by = 1 + id % 500 WHERE state = 'queued'""",
    """INSERT INTO opsjobs.incidents (class, fingerprint, subject, severity, state, first_at, opened_at,
           seen_at, affected, facts)
       SELECT 'poison', n, 's', 'warning', 'open', now(), now(), now(), 100,
           jsonb_build_object('jobs', (SELECT jsonb_agg(n * 10 + i) FROM generate_series(1, 100) AS i))
       FROM generate_series(1, 2000) AS n""",
    *(
        f"ANALYZE opsjobs.{table}"
        for table in ("workflows", "batches", "jobs", "steps", "workers", "incidents")
    ),
)
_ATTEMPTS = (
    """INSERT INTO opsjobs.attempts (job_id, dispatch_no, attempt, worker, started_at, ended_at, outcome,
           failure_key, death, is_counted, deploy_id)
       SELECT n, 1, 1, 'w', now(), now() - n * interval '1 s', 'raised',
           decode(lpad((n % 5)::text, 32, '0'), 'hex'), CASE WHEN n % 3 = 0 THEN 'signal' END, true, n % 7
       FROM generate_series(1, 50000) AS n""",
    """INSERT INTO opsjobs.failures (id, key, task, title, sample_job_id, sample_dispatch_no, created_at,
           number, first_at, last_at)
       SELECT n, decode(lpad(n::text, 32, '0'), 'hex'), 'task_1', 'KeyError', n, 1, now(), 1, now(), now()
       FROM generate_series(1, 3000) AS n""",
    """INSERT INTO opsjobs.deploys (id, version, at, source)
       SELECT n, 'v' || n, now(), 'command' FROM generate_series(1, 3000) AS n""",
    *(f"ANALYZE opsjobs.{table}" for table in ("attempts", "failures", "deploys")),
)
_OF_GROUPS = [
    ("workflow:7", {"jobs_of_run"}, 50),
    ("workflow:7 state:scheduled error:no", {"jobs_of_run", "jobs_with_error"}, 50),
    ("workflow:flow_1", {"jobs_of_run", "workflows_by_name"}, 2_100),
    ("workflow:flow_1 step:step 3", {"steps_name_key", "workflows_by_name"}, 300),
    (
        "workflow:flow_1 args.account_id:42",
        {"jobs_args", "jobs_of_run", "workflows_by_name"},
        2_100,
    ),
    ("workflow:nobody", {"jobs_of_run", "workflows_by_name"}, 0),
    ("batch:1", {"jobs_of_batch"}, 20_010),
    ("batch:1 state:failed", {"jobs_of_batch"}, 6_100),
    ("batch:batch_1 queue:queue_3", {"jobs_of_batch", "batches_by_name"}, 20_010),
    # Postgres reads the batch's index too when its statistics say that this saves rows of the table.
    ("batch:1 args.account_id:42", {"jobs_args", "jobs_of_batch"}, 20_010),
    ("batch:1 tag:tag_300", {"jobs_tags"}, 100),
    # All queued jobs are read: few are at a time. Either index has them.
    ("worker:w7", {"workers_name_key", "jobs_started", "jobs_queued", "jobs_by_state"}, 6_000),
    # Of each row of jobs there are entries of earlier versions.
    ("incident:7", {"incidents_pkey"}, 200),
    ("incident:7 args.account_id:42", {"incidents_pkey", "jobs_args"}, 1_000),
]


@pytest.fixture(scope="module")
def app_with_groups(databases: Databases) -> Iterator[Flask]:
    """Such a host of its own, whose jobs are steps and members, and of each of which an attempt failed.

    Its rows are changed after they were made, which leaves entries in indexes: other tests would read them.
    """

    def fill_all(session: Session) -> None:
        _fill_mix(session)
        for statement in (*_GROUPS, *_ATTEMPTS):
            session.execute(text(statement))

    with app_on(databases, fill_all) as app:
        yield app


@pytest.mark.parametrize("cursor", ["first", "before"])
@pytest.mark.parametrize(("box", "indexes", "most"), _OF_GROUPS, ids=[one[0] for one in _OF_GROUPS])
def test_a_search_in_what_names_its_jobs_reads_bounded_rows(
    box: str, indexes: set[str], most: int, cursor: str, app_with_groups: Flask
) -> None:
    host: Host = app_with_groups.extensions["opsjobs"]
    with app_with_groups.test_request_context(), reading() as read, Plans(host.pages) as seen:
        seen.about = "opsjobs."
        wanted = JobFilter.from_query([("q", box.replace("step:step 3", 'step:"step 3"'))])
        where = {} if cursor == "first" else {cursor: 40_000}
        assert list_jobs(
            read.session, wanted, read.now, is_shown=lambda error, text: True, **where
        ).page
    # The rows that were listed, and those of the page.
    by_id = {"jobs_pkey", "attempts_pkey", "workers_pkey"}
    assert seen.indexes - by_id <= indexes
    assert seen.walked & indexes
    assert "Seq Scan" not in seen.kinds
    assert seen.most_rows <= most + 30


@pytest.mark.parametrize(
    "box",
    ["workflow:flow_1 args.account_id:42", "batch:batch_1 tag:eu", "workflow:flow_1 batch:batch_1"],
)
def test_names_are_looked_up_once_and_no_filter_reads_what_is_kept(
    box: str, app_with_groups: Flask
) -> None:
    """Postgres would read the text of what is kept again for each row."""
    host: Host = app_with_groups.extensions["opsjobs"]
    wanted = JobFilter.from_query([("q", f"{box} state:failed")])
    with app_with_groups.test_request_context(), reading() as read, Plans(host.pages) as seen:
        seen.about = "opsjobs."
        assert list_jobs(read.session, wanted, read.now, is_shown=lambda error, text: True).page
    statements = [" ".join(statement.split()) for statement, _ in seen.seen]
    for qualifier, table in (("workflow:", "workflows"), ("batch:", "batches")):
        lookups = sum(f"FROM opsjobs.{table} " in each for each in statements)
        assert lookups == (qualifier in box), statements
    filters = re.findall(r"(?:workflow|batch)_id = any\((.{30})", " ".join(statements))
    assert filters
    assert not [one for one in filters if "coalesce" in one.lower()], filters


_OF_ATTEMPTS = [
    ("failure:1", {"failures_pkey", "attempts_by_failure"}, 5_001),
    ("failure:1 state:failed", {"failures_pkey", "attempts_by_failure"}, 5_001),
    ("failure:1 args.account_id:42 tag:eu", {"failures_pkey", "attempts_by_failure"}, 5_001),
    ("failure:1 deploy:v6 death:signal", {"deploys_by_version", "attempts_by_failure"}, 5_001),
    ("failure:2999", {"failures_pkey", "attempts_by_failure"}, 1),
    # One statement finds the failure and its attempts: of none it looks once into their index.
    ("failure:9999", {"failures_pkey", "attempts_by_failure"}, 0),
    ("death:signal", {"attempts_by_death"}, 5_001),
    ("deploy:v6", {"deploys_by_version", "attempts_by_deploy"}, 5_001),
    ("deploy:v6 task:task_3 origin:opsjobs", {"deploys_by_version", "attempts_by_deploy"}, 5_001),
]


@pytest.mark.parametrize(
    ("box", "indexes", "most"), _OF_ATTEMPTS, ids=[one[0] for one in _OF_ATTEMPTS]
)
def test_a_search_by_attempts_reads_bounded_rows(
    box: str, indexes: set[str], most: int, app_with_groups: Flask
) -> None:
    host: Host = app_with_groups.extensions["opsjobs"]
    with app_with_groups.test_request_context(), reading() as read, Plans(host.pages) as seen:
        seen.about = "opsjobs."
        wanted = JobFilter.from_query([("q", box)])
        assert list_jobs(read.session, wanted, read.now, is_shown=lambda error, text: True).page
    by_id = {"jobs_pkey", "attempts_pkey", "workers_pkey", "failures_pkey"}
    assert indexes <= seen.walked
    assert seen.indexes <= indexes | by_id
    assert "Seq Scan" not in seen.kinds
    assert seen.most_rows <= most + 30


@pytest.mark.parametrize(
    ("box", "most"), [("failure:1", 1_000), ("deploy:v6", 1_000), ("-queue:queue_3", 2_001)]
)
def test_of_more_than_can_be_found_a_list_examines_few_jobs(
    box: str, most: int, app_with_groups: Flask
) -> None:
    with reading_with(app_with_groups, Plans) as (seen, read):
        wanted = JobFilter.from_query([("q", box)])
        found = list_jobs(read.session, wanted, read.now, is_shown=lambda error, text: True)
    assert found.searched == hit_queries.Searched(stopped_at_newest_hits=True)
    assert max(_list_examined(seen)) == most, seen


def _list_examined(seen: Plans) -> list[int]:
    """How many rows each scan read of a table itself. An index alone tells whether there are more."""
    return [
        node["Actual Rows"] * node["Actual Loops"]
        for _, nodes in seen.seen
        for node in nodes
        if node["Node Type"] == "Index Scan"
    ]


def test_the_attempts_of_a_job_that_attempts_have_named_are_looked_up_once(
    app_with_groups: Flask,
) -> None:
    """Each of several columns tells whether the job fits."""
    with reading_with(app_with_groups, Plans) as (seen, read):
        wanted = JobFilter.from_query([("q", "failure:1 memory:<5MB")])
        list_jobs(read.session, wanted, read.now, is_shown=lambda error, text: True)
    examining = [nodes for statement, nodes in seen.seen if "AS examined" in statement]
    looked_up = [
        [node["Actual Loops"] for node in nodes if node.get("Index Name") == "attempts_pkey"]
        for nodes in examining
    ]
    assert looked_up
    assert all(len(one) == 1 for one in looked_up), seen


@pytest.mark.parametrize("box", ["failure:1", "failure:1 state:failed", "deploy:v6"])
def test_the_index_of_a_failure_or_a_deploy_has_all_that_is_read(
    box: str, app_with_groups: Flask
) -> None:
    with reading_with(app_with_groups, Plans) as (seen, read):
        seen.about = "opsjobs.attempts"
        wanted = JobFilter.from_query([("q", box)])
        assert list_jobs(read.session, wanted, read.now, is_shown=lambda error, text: True).page
    walked = re.compile("attempts_by_(failure|deploy)")
    nodes = [
        node
        for _, nodes in seen.seen
        for node in nodes
        if walked.fullmatch(node.get("Index Name", ""))
    ]
    assert {node["Node Type"] for node in nodes} == {"Index Only Scan"}, seen


@pytest.mark.parametrize(
    ("box", "indexes"),
    [
        ("worker:w7", {"workers_name_key", "jobs_started"}),
        ("incident:7", {"incidents_pkey", "jobs_pkey"}),
        ("workflow:7", {"jobs_of_run"}),
        ("workflow:7 state:failed", {"jobs_of_run"}),
    ],
)
def test_a_freeze_of_what_is_named_walks_its_indexes(
    box: str, indexes: set[str], app_with_groups: Flask
) -> None:
    host: Host = app_with_groups.extensions["opsjobs"]
    wanted = JobFilter.from_query([("q", box)])
    with app_with_groups.test_request_context(), host.engine.connect() as connection:
        made = freeze_statement(1, wanted, datetime.now(UTC), 1_000_000).compile(
            dialect=connection.dialect, compile_kwargs={"render_postcompile": True}
        )
        plan = connection.exec_driver_sql(f"EXPLAIN {made}", made.construct_params()).scalars()
        text = "\n".join(plan)
    assert indexes <= set(re.findall(r"(?:using|on) (\w+_\w+)", text)), text
    assert "Seq Scan on jobs" not in text
