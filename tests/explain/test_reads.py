"""What an explanation costs and touches:
few small reads of Postgres, one round trip to Redis, and no write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from flask_opsjobs.core.db import Base
from flask_opsjobs.engine.explain_with_redis import (
    explain,
    explain_apart,
    explain_search_apart,
    explain_waiting,
    read_redis_facts,
)
from flask_opsjobs.engine.redis.broker import broker_of
from flask_opsjobs.engine.redis.connections import READS
from flask_opsjobs.explain import queries
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.jobs.rows import Count
from flask_opsjobs.jobs.search.filter import JobFilter
from flask_opsjobs.web.app.host import reading
from tests.explain.conftest import Look
from tests.support.database import Databases
from tests.support.engine import Bench
from tests.support.plans import Plans, app_on
from tests.test_query_plans import fill
from tests.web.rows import make_one_of_each, make_worker

RecordJob = Callable[..., int]


@pytest.fixture(scope="module")
def crowd(databases: Databases) -> Iterator[Flask]:
    """A host on 50,000 jobs: most finished, a backlog of 8,000 on one lane,
    workers of which some are busy.
    """

    def fill_all(session: Session) -> None:
        for _ in range(40):
            make_worker(session, queues=["default"], processes=12)
        fill(
            session,
            queue="default",
            finished=33_000,
            scheduled=8_000,
            available=8_000,
            queued=960,
            started=40,
        )
        session.execute(text("UPDATE opsjobs.workers SET heartbeat_at = now()"))
        session.execute(
            text("UPDATE opsjobs.jobs SET worker_id = id % 40 + 1 WHERE state = 'started'")
        )
        session.execute(text("ANALYZE opsjobs.jobs, opsjobs.workers"))

    # Nobody answers at this Redis.
    with app_on(databases, fill_all, OPSJOBS_REDIS_URL="redis://127.0.0.1:1/0") as app:
        yield app


def _last(session: Session, state: str) -> int:
    found = text("SELECT max(id) FROM opsjobs.jobs WHERE state = :state")
    return int(session.execute(found, {"state": state}).scalar_one())


THE_WAY = {"jobs_pkey", "attempts_pkey", "jobs_due", "jobs_queued", "jobs_started"}


@pytest.mark.parametrize(
    ("state", "indexes", "most"),
    [
        ("finished", {"jobs_pkey"}, 1),
        # The last of the backlog: counting what goes before it stops.
        ("available", THE_WAY, queries.MOST_AHEAD + 1),
        ("scheduled", THE_WAY, queries.MOST_AHEAD + 1),  # due, and not yet staged
        ("queued", THE_WAY - {"jobs_due"}, 1_000),
        ("started", {"jobs_pkey"}, 1),
    ],
)
def test_each_read_walks_its_index_and_stops(
    state: str, indexes: set[str], most: int, crowd: Flask
) -> None:
    host: Host = crowd.extensions["opsjobs"]
    with crowd.test_request_context(), reading() as read:
        job_id = _last(read.session, state)
        with Plans(host.engine) as plans:
            assert explain(host, read.session, job_id, read.now) is not None
    ours = {name for name in plans.indexes if name.startswith(("jobs", "attempts"))}
    assert ours <= indexes
    assert plans.kinds.isdisjoint({"Seq Scan", "Bitmap Heap Scan"})
    assert plans.most_rows <= most


def test_counting_what_goes_before_is_broken_off(crowd: Flask) -> None:
    host: Host = crowd.extensions["opsjobs"]
    with crowd.test_request_context(), reading() as read:
        for job_id, count in (
            (_last(read.session, "available"), Count(queries.MOST_AHEAD, "at_least")),
            (_last(read.session, "available") - 7_990, Count(9)),
        ):
            job = queries.find_job_evidence(read.session, job_id)
            assert job is not None
            seen = queries.find_evidence_of(read.session, job, read.now, host.settings)
            assert seen.ahead == count


@pytest.mark.parametrize(
    ("box", "number", "is_cut", "indexes"),
    [
        ("", 10_000, True, {"jobs_by_state"}),
        ("queue:default", 10_000, True, {"jobs_by_state"}),
        ("state:scheduled", 8_000, False, {"jobs_by_state"}),
        ("task:task_3", 424, False, {"jobs_by_state"}),
        ("tag:tag_100", 17, False, {"jobs_by_state"}),
    ],
)
def test_many_are_explained_by_the_same_few_statements(
    box: str, number: int, is_cut: bool, indexes: set[str], crowd: Flask
) -> None:
    host: Host = crowd.extensions["opsjobs"]
    wanted = JobFilter.from_query([("q", box)])
    with crowd.test_request_context(), reading() as read, Plans(host.engine) as plans:
        found = explain_waiting(host, read.session, wanted, read.now)
    assert (found.number, found.is_cut) == (number, is_cut)
    assert "Redis could not be read" in found.lacking
    ours = {name for name in plans.indexes if name.startswith(("jobs", "attempts"))}
    assert indexes <= ours
    assert ours <= indexes | THE_WAY | {"jobs_by_task"}
    assert "Seq Scan" not in plans.kinds
    # The statements that find the jobs, and those that read what decides.
    assert len(plans.seen) <= 20


def _written(session: Session) -> list[Any]:
    session.rollback()
    return [
        session.execute(text(f"SELECT count(*), sum(xmin::text::bigint) FROM {table}")).one()
        for table in Base.metadata.tables
    ]


@pytest.fixture
def session(host: Host) -> Iterator[Session]:
    with Session(host.engine, expire_on_commit=False) as session:
        yield session


@pytest.fixture
def jobs(session: Session) -> dict[str, Job]:
    return make_one_of_each(session)


def test_an_explanation_of_any_state_writes_nothing(
    host: Host, session: Session, jobs: dict[str, Job], redis_client: Redis
) -> None:
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "schema_version" not in statement:
            assert cursor.connection.read_only, statement
            seen.append(statement)

    ids = [job.id for job in jobs.values()]
    before = _written(session)
    session.rollback()
    event.listen(host.engine, "before_cursor_execute", note)
    for job_id in ids:
        explain_apart(host, job_id)
    explain_search_apart(host, JobFilter())
    event.remove(host.engine, "before_cursor_execute", note)
    assert seen
    assert _written(session) == before
    assert redis_client.keys("*") == []


def _commands(client: Redis) -> dict[str, int]:
    stats: dict[str, Any] = client.info("commandstats")
    return {name.removeprefix("cmdstat_"): int(said["calls"]) for name, said in stats.items()}


@pytest.mark.parametrize("plain", [0, 500])
def test_redis_is_asked_the_same_few_reads_however_much_lies_there(
    bench: Bench, record_job: RecordJob, look: Look, redis_client: Redis, plain: int
) -> None:
    queue = broker_of(bench.host).queue("default")
    for number in range(plain):
        redis_client.rpush(queue.key, f"theirs-{number}")
    job_id = record_job()
    bench.dispatch()
    now = look(job_id).read_at  # connects
    before = _commands(redis_client)
    with Session(bench.host.engine) as session:
        explain(bench.host, session, job_id, now)
    after = _commands(redis_client)
    asked = {name: after[name] - before.get(name, 0) for name in after}
    asked = {name: many for name, many in asked.items() if many and name != "info"}
    assert {name.upper() for name in asked} <= READS
    assert sum(asked.values()) == 6


def test_a_delivery_is_seen_wherever_it_stands(
    bench: Bench, record_job: RecordJob, redis_client: Redis
) -> None:
    first, second = record_job(), record_job()
    bench.dispatch(prefetch=5)
    queue = broker_of(bench.host).queue("default")
    now = bench.row("SELECT now() AS now")["now"]

    def read(job_id: int) -> Any:
        return read_redis_facts(bench.host, "default", f"opsjobs-{job_id}-1", now)

    assert [read(first).position, read(second).position] == [0, 1]
    assert (read(first).queue_length, read(first).rq_status) == (2, "queued")
    redis_client.lmove(queue.key, queue.intermediate_queue_key, "LEFT", "RIGHT")
    assert (read(first).is_intermediate, read(first).position) == (True, None)
    redis_client.delete(queue.intermediate_queue_key)
    assert not read(first).is_there
    registry = queue.started_job_registry.key
    redis_client.zadd(registry, {f"opsjobs-{first}-1:abc": now.timestamp() + 60})
    assert read(first).is_running
    # What expired belongs to a worker that died.
    later = now + timedelta(seconds=61)
    assert not read_redis_facts(bench.host, "default", f"opsjobs-{first}-1", later).is_there


def test_a_wrong_kind_of_key_or_a_wrong_config_is_said_and_not_raised(
    bench: Bench, record_job: RecordJob, redis_client: Redis, client: FlaskClient
) -> None:
    redis_client.set(broker_of(bench.host).queue("default").key, "no list")
    now = bench.row("SELECT now() AS now")["now"]
    facts = read_redis_facts(bench.host, "default", None, now)
    assert not facts.is_reachable
    assert facts.problem == "no answer (ResponseError)"
