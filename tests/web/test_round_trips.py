"""Each page waits for three answers of Postgres at most, and what fails in a batch fails as it did alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from flask import Flask, g
from flask_migrate import Migrate
from sqlalchemy import select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from flask_opsjobs.core.guards import Answering
from flask_opsjobs.core.reading import Reading, execute_with
from flask_opsjobs.core.round_trips import StartedRead, start_guest, start_reading
from flask_opsjobs.doctor.examination import examine
from flask_opsjobs.forensics.registry import KINDS
from flask_opsjobs.host import Host
from flask_opsjobs.install.revisions import find_revisions
from flask_opsjobs.jobs import queries as job_queries
from flask_opsjobs.jobs.lifecycle import STATES
from flask_opsjobs.jobs.models import Job, UniqueLock
from flask_opsjobs.jobs.search import (
    attempt_queries,
    further_queries,
    group_queries,
    hit_queries,
)
from flask_opsjobs.jobs.search.filter import SORTS, JobFilter
from flask_opsjobs.jobs.search.hit_queries import find_hits
from flask_opsjobs.operations.lifecycle import RESULTS
from flask_opsjobs.operations.models import OperationRow
from flask_opsjobs.queues.models import Queue
from flask_opsjobs.web.app.host import reading
from flask_opsjobs.web.app.problems import Problem
from flask_opsjobs.web.app.references import make_reference
from flask_opsjobs.web.app.shell import forget_sources
from flask_opsjobs.web.workflows import run as run_page
from flask_opsjobs.workflows.models import WorkflowRecord
from tests.support.waiting import wait_until
from tests.web.every import SAME_ORIGIN, good, reads, soup
from tests.web.rows import (
    ago,
    make_attempt,
    make_batch,
    make_counted_failure,
    make_deploy,
    make_escalation,
    make_event,
    make_incident,
    make_job,
    make_limited,
    make_limiter,
    make_operation,
    make_run,
    make_signal,
    make_task_hour,
    make_worker,
    paused,
)
from tools.distance import Distance

MOST = 3


@pytest.fixture
def distance(database_url: str) -> Iterator[Distance]:
    """Stands between the app and Postgres."""
    with Distance(make_url(database_url)) as made:
        yield made


@pytest.fixture
def far(distance: Distance, make_app: Callable[..., Flask]) -> Flask:
    """An app that asks Postgres through it."""
    return make_app(SQLALCHEMY_DATABASE_URI=distance.url.render_as_string(hide_password=False))


@pytest.fixture
def requested(app: Flask) -> Iterator[None]:
    """A request of the app, as the readings of pages have one."""
    with app.test_request_context():
        yield


def _read(session: Session, what: str) -> Any:
    return session.execute(text(f"SELECT {what}")).scalar_one()


def _start(read: Reading, *what: str) -> list[StartedRead[Any]]:
    return [start_reading(read.session, _read, each) for each in what]


def _raised(one: StartedRead[Any]) -> BaseException | None:
    """The error of Postgres with which it ended."""
    with pytest.raises(DBAPIError) as raised:
        assert one.value
    return raised.value.orig


def _read_all(*what: str, seconds: float = 5) -> None:
    with reading(seconds) as read:
        for one in _start(read, *what):
            assert one.value is not None


def _count_trips(distance: Distance, far: Flask, path: str, status: int = 200) -> int:
    """How often the page at this path waits."""
    # Some ask on two connections. Far enough away, both answers are awaited at the same time, also on a
    # machine that is busy with other things.
    for distance.seconds in (0, 0, 0.1, 0.3, 0.3):  # the first ones connect
        with far.app_context():
            forget_sources()
        distance.trips = 0
        assert far.test_client().get(path).status_code == status, path
        if distance.trips <= MOST:
            break
    distance.seconds = 0
    return distance.trips


def test_what_postgres_does_not_answer_begins_no_round_trip(distance: Distance) -> None:
    url = distance.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url) as one, psycopg.connect(url) as other:
        one.pgconn.send_flush_request()
        one.pgconn.flush()
        other.execute("SELECT 1")
        before = distance.trips
        one.execute("SELECT 1")
        assert distance.trips == before + 2  # BEGIN is one


@pytest.mark.slow
def test_each_page_waits_for_three_answers_at_most(
    distance: Distance, far: Flask, jobs: dict[str, Job]
) -> None:
    trips: dict[str, int] = {}
    for url, path in reads(jobs):
        number = _count_trips(distance, far, path, good(url))
        trips[url.endpoint] = max(number, trips.get(url.endpoint, 0))
    assert {name: number for name, number in trips.items() if number > MOST} == {}


@pytest.fixture
def migrated(far: Flask, session: Session) -> Flask:
    """The same app with migrations, of which the database has the first."""
    Migrate(far, far.extensions["sqlalchemy"], directory="examples/flask_host/migrations")
    with far.app_context():
        *_, first = find_revisions(far).scripts.walk_revisions()
    session.execute(text("CREATE TABLE alembic_version (version_num text PRIMARY KEY)"))
    session.execute(text(f"INSERT INTO alembic_version VALUES ('{first.revision}')"))
    session.commit()
    return far


def test_the_doctor_waits_for_three_answers_when_nothing_is_broken(
    distance: Distance, migrated: Flask
) -> None:
    assert _count_trips(distance, migrated, "/ops/jobs/doctor") <= MOST


# What people break, so that it is found: by the id of its check.
BREAK = {
    "workflows.ended": "UPDATE opsjobs.workflows SET settled = 1, failed = 1",
    "batches.balance": "UPDATE opsjobs.batches SET enqueued = enqueued + 1",
    "unique_locks.left": "INSERT INTO opsjobs.unique_locks (key, job_id, until, created_at)"
    " VALUES ('key', 900009, 'ended', now())",
    "audit.tail": "UPDATE opsjobs.audit_head SET sequence = sequence - 1",
    "schema.indexes": "DROP INDEX opsjobs.workers_by_start",
    "schema.objects": "ALTER TABLE opsjobs.queues ADD COLUMN note text",
    "lifeline.incidents": "UPDATE opsjobs.incidents SET first_at = now() - interval '2 hours',"
    " opened_at = now() - interval '2 hours'",
}


def test_the_doctor_waits_for_three_answers_however_much_is_broken(
    distance: Distance, migrated: Flask, session: Session, jobs: dict[str, Job]
) -> None:
    make_event(session)
    for statement in BREAK.values():
        session.execute(text(statement))
    session.commit()
    assert _count_trips(distance, migrated, "/ops/jobs/doctor") <= MOST
    with migrated.app_context():
        found = examine(migrated)
    wrong = {one.check.id for state in ("error", "warning") for one in found.in_state(state)}
    assert {*BREAK, "schema.revisions"} <= wrong


def test_a_check_of_the_doctor_whose_statement_fails_takes_no_other_its_answer(
    migrated: Flask, session: Session, jobs: dict[str, Job]
) -> None:
    session.execute(text("ALTER TABLE opsjobs.signals RENAME COLUMN outcome TO gone"))
    session.commit()
    with migrated.app_context():
        results = examine(migrated).results
    silent = {one.check.id for one in results if "no answer" in one.answer.sentence}
    assert silent == {"signals.ambiguous"}


def test_a_batch_that_runs_waits_for_three_answers_at_most(
    distance: Distance, far: Flask, session: Session, jobs: dict[str, Job]
) -> None:
    batch = make_batch(session).id
    for state in jobs:
        session.merge(jobs[state]).batch_id = batch
    session.commit()
    for path in (f"/ops/jobs/batches/{batch}", f"/ops/jobs/batches/{batch}/live"):
        assert _count_trips(distance, far, path) <= MOST, path


def _make_queue(session: Session) -> Iterator[str]:
    """A queue that is paused, with jobs that wait, an operation and a deploy in its charts."""
    session.add(Queue(name="mail", created_at=ago(days=1), **paused()))
    make_job(session, queue="mail")
    make_event(session)
    make_deploy(session)
    make_operation(session, query={"queue": "mail"})
    make_worker(session, queues=["mail"])
    yield from ("queues/mail", "queues/mail?window=day", "live/queues/mail")


def _make_runs(session: Session) -> Iterator[str]:
    """Runs that need help, of which one waits for a signal; and usual times."""
    ended = {"settled": 1, "ended_at": ago(minutes=1)}
    for number in range(3):
        good = {"state": "finished", "finished": 1, "ended_by": "finished"}
        make_run(session, {"a": 900_010 + number}, **ended, **good)
    wait = make_job(session, "deferred", task="opsjobs.wait")
    waiting = make_run(session, {"wait": wait.id})
    make_signal(session)
    make_run(session, {"a": 900_020}, trouble="a step is gone")
    bad = {"state": "failed", "failed": 1, "ended_by": "step", "ended_by_step": "a"}
    newest = make_run(session, {"a": 900_021}, **ended, **bad)
    yield from ("workflows", "workflows?order=usual", "workflows?state=failed", "workflows/live")
    yield f"workflows/{newest.id}/compare"
    yield from (f"workflows/{run.id}" for run in (waiting, newest))


def _make_limiters(session: Session) -> Iterator[str]:
    """A limiter with one bucket, in which only a job waits that is too heavy; one with a lane of old."""
    make_limiter(session, "one", partition_by=None)
    make_limited(session, "", limiter="one", weight=99)
    make_limited(session, "", "started", limiter="one")
    make_limiter(session, "now without", partition_by=None)
    make_limited(session, "42", limiter="now without")
    partition = make_reference(b"only for tests", "now without", "42")
    yield from ("limiters/one", "live/limiters/one", f"limiters/now without?partition={partition}")
    yield from ("limiters/one/simulate", "limiters/one/simulate?live=yes&rate=20")


def _make_incidents(session: Session) -> Iterator[str]:
    """An incident that follows from another one, with jobs that run."""
    cause = make_incident(session, "redis_away")
    started = make_job(session, "started", worker_id=make_worker(session).id)
    make_attempt(session, started, None, progress_done=3)
    facts = {"jobs": [started.id]}
    incident = make_incident(session, "queue_unserved", facts=facts, because_of=cause.id)
    make_event(session, targets=(f"incident/{incident.id}",))
    make_escalation(session, incident)
    make_worker(session, "stopped", started_at=ago(minutes=30))
    make_deploy(session)
    yield from (
        f"lifeline/incidents/{incident.id}",
        f"lifeline/incidents/{incident.id}/live",
    )


def _make_jobs(session: Session) -> Iterator[str]:
    """Jobs that run, are taken and have ended, of tasks with numbers."""
    worker = make_worker(session)
    started = make_job(session, "started", worker_id=worker.id)
    make_attempt(session, started, None, progress_done=3)
    make_job(session, "queued", reserved_by=worker.id)
    make_job(session, "finished")
    make_task_hour(session, started.task)
    yield from ("jobs", "jobs?state=started", "jobs/live", "jobs?task=send_invoice")


def _make_steps(session: Session) -> Iterator[str]:
    """Steps behind others, each behind another one that is held up in its own way."""
    cooldown = {"at": ago(minutes=1), "until": ago(minutes=-5), "by": "anna", "reason": "rest"}
    cooling = {f"cooldown_{name}": value for name, value in cooldown.items()}
    make_limiter(session, "cooling", **cooling)
    gone = make_worker(session, "missing")
    first = {
        "wait": make_job(session, "deferred", task="opsjobs.wait"),
        "limited": make_limited(session, limiter="cooling"),
        "unserved": make_job(session, queue="unserved"),
        "abandoned": make_job(session, "started", worker_id=gone.id),
    }
    for name, job in first.items():
        between, last = (make_job(session, "deferred") for _ in range(2))
        run = make_run(session, {name: job.id, "between": between.id, "last": last.id})
        for each in (job, between, last):
            each.workflow_id = run.id
        session.flush()
        yield from (f"jobs/{last.id}", f"jobs/{last.id}/live", f"jobs/{job.id}")


def _make_waiting(session: Session) -> Iterator[str]:
    """Jobs that wait for a queue, for a worker, for their time, for RQ and for a step."""
    session.add(Queue(name="mail", created_at=ago(days=1), **paused()))
    for state in ("available", "scheduled", "retryable"):
        make_job(session, state, queue="mail")
        make_job(session, state)
    make_job(session, "queued", origin="rq")
    first, last = make_job(session), make_job(session, "deferred")
    run = make_run(session, {"first": first.id, "last": last.id})
    first.workflow_id = last.workflow_id = run.id
    session.flush()
    make_limiter(session, partition_by=None)
    for _ in range(3):
        make_limited(session, "")
    session.flush()
    yield from ("jobs/why", "jobs/why/live", "jobs/why?q=queue:mail", "jobs/why?state=scheduled")
    yield f"workflows/{run.id}"


def _make_failures(session: Session) -> Iterator[str]:
    """A failure of several jobs, beside one that finished."""
    make_job(session, "finished")
    failed = [make_job(session, "failed") for _ in range(3)]
    for job in failed:
        make_attempt(session, job)
    failure = make_counted_failure(session, failed, make_deploy(session))
    make_event(session, action="failure.resolve", targets=(f"failure/{failure.id}",))
    yield from (
        f"lifeline/failures/{failure.id}",
        f"lifeline/failures/{failure.id}?sample={failed[1].id}",
    )


def _make_doomed(session: Session, **values: Any) -> tuple[WorkflowRecord, Job, Job]:
    """A run that failed, the step that ended it, and a step behind it, whose unique lock another job has."""
    cause = make_job(session, "failed")
    make_attempt(session, cause)
    unique = {"unique_key": b"the same call", "unique_until": "ended"}
    doomed = make_job(session, "canceled", ended_by="dependency", **unique)
    lock = {"key": b"the same call", "until": "ended", "created_at": ago(minutes=1)}
    session.merge(UniqueLock(**lock, job_id=make_job(session).id))
    ended = {
        "state": "failed",
        "settled": 2,
        "failed": 1,
        "canceled": 1,
        "ended_at": ago(minutes=1),
    }
    ended |= {"ended_by": "step", "ended_by_step": "cause"}
    run = make_run(session, {"cause": cause.id, "doomed": doomed.id}, **ended, **values)
    cause.workflow_id = doomed.workflow_id = run.id
    session.flush()
    return run, cause, doomed


def _make_operations(session: Session) -> Iterator[str]:
    """An operation that is paused, with a job that is still there, and a draft, also of steps."""
    operation, job = make_operation(session), make_job(session, "failed")
    make_attempt(session, job)
    session.execute(update(OperationRow).where(OperationRow.number == 1).values(job_id=job.id))
    make_event(session, action="operation.pause", targets=(f"operation/{operation.id}",))
    yield from (f"operations/{operation.id}", f"operations/{operation.id}?result=skipped")
    none = dict.fromkeys(("started_at", "handled_at", "paused_at", "code", "says"))
    counts = dict.fromkeys((name for name in RESULTS if name not in ("pending", "asked")), 0)
    draft = make_operation(session, state="draft", targets=6, reason=None, **none, **counts)
    _, *steps = _make_doomed(session)
    for number, each in enumerate((job, *steps), 1):
        row = (OperationRow.operation_id == draft.id, OperationRow.number == number)
        session.execute(update(OperationRow).where(*row).values(job_id=each.id))
    yield f"operations/{draft.id}"


def _make_decisions(session: Session) -> Iterator[str]:
    """Decisions about jobs, an operation and an incident; more than the pages verify."""
    job, operation = make_job(session, "failed"), make_operation(session)
    session.execute(update(OperationRow).where(OperationRow.number == 1).values(job_id=job.id))
    incident = make_incident(session)
    targets = (f"job/{job.id}", f"operation/{operation.id}", f"incident/{incident.id}")
    for _ in range(120):
        last = make_event(session, action="job.retry", targets=targets)
    yield from (f"audit/{last}", f"audit?row={last}", "audit/live", "audit?actor=ops-demo&since=2h")


def _make_actors(session: Session) -> Iterator[str]:
    """A person and the system, who decided about an operation under way and about one that is gone."""
    operation = make_operation(session)
    for actor in (operation.actor, "system"):
        for id in (operation.id, 99_999):
            make_event(session, actor=actor, targets=(f"operation/{id}",))
        yield f"forensics/actor/{actor}"


@pytest.mark.parametrize(
    "make",
    [
        _make_queue,
        _make_runs,
        _make_limiters,
        _make_incidents,
        _make_jobs,
        _make_steps,
        _make_waiting,
        _make_failures,
        _make_operations,
        _make_decisions,
        _make_actors,
    ],
)
def test_long_chains_of_answers_are_short(
    make: Callable[[Session], Iterator[str]], distance: Distance, far: Flask, session: Session
) -> None:
    paths = [f"/ops/jobs/{path}" for path in make(session)]
    session.commit()
    trips = {path: _count_trips(distance, far, path) for path in paths}
    assert max(trips.values()) <= MOST, trips


@pytest.mark.slow
@pytest.mark.parametrize("size", [run_page.LARGE, 5_001])
def test_a_large_run_waits_for_three_answers_at_most(
    size: int,
    distance: Distance,
    far: Flask,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_KEPT", "_LONG_KEPT"):
        monkeypatch.setattr(run_page, name, timedelta())  # each request reads the steps anew
    gone = {f"gone {number}": 910_000 + number for number in range(size)}
    gone_of_failed = {name: number + 10_000 for name, number in gone.items()}
    ended = {"settled": 1, "ended_at": ago(minutes=1)}
    good = {"state": "finished", "finished": 1, "ended_by": "finished"}
    make_run(session, {"a": 900_010}, **ended, **good)
    states = ("failed", "started", "finished", "deferred")
    jobs = {state: make_job(session, state) for state in states}
    jobs["wait"] = make_job(session, "deferred", task="opsjobs.wait")
    run = make_run(session, {**{name: job.id for name, job in jobs.items()}, **gone})
    for job in jobs.values():
        job.workflow_id = run.id
    make_signal(session)
    step, doomed = make_job(session, "failed"), make_job(session, "canceled", ended_by="dependency")
    bad = {"state": "failed", "failed": 1, "ended_by": "step", "ended_by_step": "bad"}
    failed = make_run(
        session, {"bad": step.id, "doomed": doomed.id, **gone_of_failed}, **ended | bad
    )
    step.workflow_id = doomed.workflow_id = failed.id
    session.commit()
    paths = [
        f"workflows/{each}{more}"
        for each in (run.id, failed.id)
        for more in ("", "/live", "?page=2", "/compare")
    ]
    paths += [f"forensics/workflow/{each}" for each in (run.id, failed.id)]
    of_steps = [*(job.id for job in jobs.values()), step.id, doomed.id]
    paths += [f"forensics/step/{id}" for id in of_steps]
    paths += [f"jobs/{id}" for id in of_steps]
    trips = {path: _count_trips(distance, far, f"/ops/jobs/{path}") for path in paths}
    assert {path: number for path, number in trips.items() if number > MOST} == {}


# Searches of Jobs, and of *why* of many.
SEARCHES = (
    "created:<1h",
    "created:-1h..-1m",
    "created:-1h..now started:<1h",
    "created:today",
    "ended:yesterday..today",
    "task:send_invoice created:<1h",
    "task:send_*",
    "queue:mail* created:<1h",
    "task:send_* OR queue:mail",
    "refused",
    "refused nothing",
    "refused state:failed",
    "refused state:retryable queue:default",
    "refused attempts:>=0 created:<1h",
    "refused OR nothing",
    "refused OR tag:eu -task:gone",
    "-refused",
    "nothing",
    "tag:eu",
    "tag:eu state:available",
    "tag:eu queue:default state:failed",
    "tag:eu args.account_id:42 state:failed",
    "tag:eu refused created:<1h",
    "tag:eu refused state:failed",
    "tag:eu OR tag:us state:failed",
    "tag:eu OR tag:us",
    "tag:eu -queue:gone",
    "-tag:us state:available",
    "attempts:>=0",
    "duration:>5s",
    "wait:>1m",
    "wait:>1m due:<1h",
    "memory:>1MB",
    "id:1,2,3",
    "id:1,2,3 priority:0",
    "args.account_id:42",
    "args.account_id:42 wait:>1m",
    "failure:1",
    "failure:1 state:started",
    "failure:1 state:failed refused",
    "death:signal",
    "deploy:v1",
    "deploy:v1 death:signal",
    "incident:1",
    "workflow:1",
    "workflow:a* state:failed",
    "workflow:fulfil_order",
    "workflow:fulfil_order state:available",
    "workflow:fulfil_order step:a",
    "workflow:fulfil_order worker:web-1",
    "workflow:fulfil_order refused",
    "batch:import_prices state:failed",
    "workflow:1 tag:eu state:failed",
    "worker:web-1 tag:eu",
    "batch:1 -queue:gone",
    "batch:1 tag:eu",
    "task:send_* state:failed memory:>1MB",
)


def _make_searched(session: Session) -> None:
    """Two jobs of each state, more than a page of one, and of each that has begun an attempt that failed."""
    worker, deploy = make_worker(session, name="web-1"), make_deploy(session, "v1")
    of_search = {"tags": ["eu"], "error": "refused", "args": {"account_id": 42}}
    failed = []
    for state in STATES:
        for _ in range(30 if state == "failed" else 2):
            has_it = {"worker_id": worker.id} if state == "started" else {}
            job = make_job(session, state, **of_search, **has_it)
            if state in ("failed", "retryable"):
                make_attempt(session, job, deploy_id=deploy.id, death="signal", max_rss_kb=9_999)
                failed.append(job)
            elif state == "started":
                make_attempt(session, job, None, progress_done=3)
    make_counted_failure(session, failed, deploy)
    make_incident(session, facts={"jobs": [job.id for job in failed[:3]]})
    make_run(session, {"a": failed[0].id})
    make_batch(session)
    failed[0].workflow_id = failed[1].batch_id = 1
    make_task_hour(session, failed[0].task)
    session.commit()


def _make_large(monkeypatch: pytest.MonkeyPatch, *, is_common: bool = False) -> None:
    """Let each search stop at its limits; with `is_common`, also read no index of a tag or an argument."""
    if is_common:
        monkeypatch.setattr(hit_queries, "MANY_JOBS", 0)
    for module, name, limit in (
        (hit_queries, "MOST_HITS", 8),
        (hit_queries, "MOST_LISTED", 3),
        (hit_queries, "NEWEST_ERRORS", 20),
        (further_queries, "MOST_NEWEST", 20),
        (attempt_queries, "MOST_ATTEMPTS", 8),
        (group_queries, "MOST_JOBS", 8),
        (job_queries, "CAP", 8),
    ):
        monkeypatch.setattr(module, name, limit)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["small", "large", "common"])
@pytest.mark.parametrize("page", ["jobs", "jobs/why"])
def test_searches_wait_for_three_answers_at_most(
    page: str,
    size: str,
    distance: Distance,
    far: Flask,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _make_searched(session)
    if size != "small":
        _make_large(monkeypatch, is_common=size == "common")
    trips = {
        box: _count_trips(distance, far, f"/ops/jobs/{page}?q={quote(box)}") for box in SEARCHES
    }
    assert not {box: number for box, number in trips.items() if number > MOST}


def test_when_few_of_the_newest_jobs_fit_the_others_are_in_the_same_answer(
    distance: Distance, far: Flask, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    _make_searched(session)
    fitting = [make_job(session, priority=1).id for _ in range(2)]
    for _ in range(10):
        make_job(session, priority=2)
    session.commit()
    _make_large(monkeypatch)
    wanted = JobFilter.from_query([("q", "priority:1")])
    with far.test_request_context(), reading() as read:
        assert read.now
        distance.trips = 0
        found = find_hits(read.session, wanted, ago(), lambda *_: True, 3)
        assert (found.ids, distance.trips) == (fitting[::-1], 1)


@pytest.mark.slow
@pytest.mark.parametrize("is_large", [False, True])
def test_lists_in_an_order_and_their_next_pages_wait_for_three_answers_at_most(
    is_large: bool,
    distance: Distance,
    far: Flask,
    session: Session,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _make_searched(session)
    if is_large:
        for name in ("MOST_HITS", "MOST_LISTED"):
            monkeypatch.setattr(hit_queries, name, 29)  # more than a page
        monkeypatch.setattr(job_queries, "CAP", 8)
    trips = {}
    boxes = ("", "state:failed", "tag:eu", "tag:eu state:failed", "created:<1h", "failure:1")
    for box in (*boxes, "attempts:>=0", "refused"):
        for sort in ("", *SORTS):
            path: Any = f"/ops/jobs/jobs?q={quote(box)}&sort={sort}"
            for rel in ("next", "prev"):
                (link,) = soup(far.test_client().get(path).text).select(f'a[rel="{rel}"]')
                path = link["href"]
                trips[path] = _count_trips(distance, far, path)
    assert not {path: number for path, number in trips.items() if number > MOST}


def test_suggestions_and_searches_with_a_mistake_wait_for_three_answers_at_most(
    distance: Distance, far: Flask, session: Session
) -> None:
    _make_searched(session)
    words = ["", "e", "send", "refused ma", "failure:", "failure:key", "task:", "queue:m", "tag:"]
    words += ["workflow:", "batch:", "deploy:", "worker:", "incident:", "created:"]
    paths = {f"jobs/suggest?q={quote(word)}": 200 for word in words}
    mistakes = ("gone:1", "refused gone:1", "created:never refused nothing", "OR", "limit:7 tag:eu")
    paths |= {f"jobs?q={quote(box)}": 422 for box in mistakes}
    paths |= {f"jobs?q={quote(box)}": 303 for box in ("send_invoice", "refused default", "7")}
    trips = {
        path: _count_trips(distance, far, f"/ops/jobs/{path}", status)
        for path, status in paths.items()
    }
    assert not {path: number for path, number in trips.items() if number > MOST}


@pytest.mark.slow
def test_forensics_of_each_kind_wait_for_three_answers_at_most(
    distance: Distance, far: Flask, session: Session, jobs: dict[str, Job]
) -> None:
    failed = jobs["failed"]
    run, cause, doomed = _make_doomed(session)
    wait, waiter = (make_job(session, "deferred", task=task) for task in ("opsjobs.wait", "note"))
    waiting = make_run(session, {"wait": wait.id, "behind": waiter.id})
    wait.workflow_id = waiter.workflow_id = waiting.id
    for outcome in ("early", "late"):
        make_signal(session, outcome=outcome)
    decided = (f"workflow/{run.id}", f"job/{cause.id}", f"job/{wait.id}")
    make_event(session, targets=decided)
    incidents = [
        make_incident(session, class_, facts=facts).id
        for class_, facts in {
            "workflow_stuck": {"workflow": run.id},
            "wait_overdue": {"workflow": waiting.id, "jobs": [wait.id]},
            "batch_overdue": {"batch": 1},
            "callback_failed": {"jobs": [cause.id, failed.id]},
            "poison": {"jobs": [jobs["retryable"].id]},
        }.items()
    ]
    stopped = {"state": "stopped", "paused_at": None, "ended_at": ago(minutes=5)}
    operation = make_operation(session, **stopped)
    session.commit()
    keys: dict[str, Any] = {
        "job": [*(job.id for job in jobs.values()), cause.id, doomed.id, wait.id, waiter.id],
        "attempt": [f"{id}-1" for id in (failed.id, jobs["started"].id, cause.id)],
        "task": [failed.task, "nothing"],
        "queue": [failed.queue, "nothing"],
        "worker": ["web-1:2202"],
        "cron": ["default"],
        "limiter": ["customer-api"],
        "actor": ["ops-demo"],
        "step": [900_001, 900_002, cause.id, doomed.id, wait.id, waiter.id],
        "incident": [1, 99_999, *incidents],
        "operation": [1, 99_999, operation.id],
        "workflow": [1, 99_999, run.id, waiting.id],
        **{name: [1, 99_999] for name in ("failure", "deploy", "batch")},
    }
    assert keys.keys() == KINDS.keys()
    subjects = [f"{kind}/{key}" for kind in keys for key in keys[kind]]
    trips = {one: _count_trips(distance, far, f"/ops/jobs/forensics/{one}") for one in subjects}
    assert {one: number for one, number in trips.items() if number > MOST} == {}


# The actions of which the preview reads more than rows of its targets, and what they ask for.
DEEP = {
    "job.retry": {},
    "job.skip": {},
    "job.edit": {"queue": "mail", "priority": "", "args": ""},
    "job.run_again": {},
    "workflow.retry": {},
    "workflow.cancel": {},
    "workflow.skip": {"step": "cause", "result": ""},
    "workflow.signal": {"wait": "wait", "payload": ""},
    "workflow.give_signal": {"wait": "wait", "signal": "1"},
    "batch.retry": {},
    "failure.resolve": {"deploy": "next"},
}


@pytest.mark.slow
def test_previews_and_pages_of_what_has_dependents_wait_for_three_answers_at_most(
    distance: Distance, far: Flask, session: Session, jobs: dict[str, Job]
) -> None:
    run, cause, doomed = _make_doomed(session)
    wait, behind = (make_job(session, "deferred", task=task) for task in ("opsjobs.wait", "note"))
    waiting = make_run(session, {"wait": wait.id, "behind": behind.id})
    wait.workflow_id = behind.workflow_id = waiting.id
    parent = make_job(session, "failed", origin="rq")
    make_job(session, "deferred", origin="rq")
    session.commit()
    ids = [cause.id, doomed.id, wait.id, behind.id, parent.id, jobs["failed"].id]
    targets = {
        "job": [f"jobs/{id}" for id in ids],
        "workflow": [f"workflows/{each.id}" for each in (run, waiting)],
        "batch": ["batches/1"],
        "failure": ["lifeline/failures/1"],
    }
    client, paths = far.test_client(), []
    for name, form in DEEP.items():
        domain, _, short = name.partition(".")
        for target in targets[domain]:
            answer = client.post(f"/ops/jobs/{target}/{short}", data=form, headers=SAME_ORIGIN)
            assert answer.status_code in (303, 422), (name, target)
            if answer.status_code == 303:
                paths.append(answer.location)
    back = quote("/ops/jobs/jobs?state=failed")
    answer = client.post(
        "/ops/jobs/jobs/retry",
        data={"job": [cause.id, parent.id], "back": "/ops/jobs/jobs?state=failed"},
        headers=SAME_ORIGIN,
    )
    paths += [answer.location, f"{answer.location}?back={back}"]
    paths += [f"/ops/jobs/jobs/{id}{more}" for id in ids for more in ("", "/live")]
    paths += [f"/ops/jobs/edit/jobs/{id}" for id in ids]
    trips = {path: _count_trips(distance, far, path) for path in paths}
    assert {path: number for path, number in trips.items() if number > MOST} == {}


def test_what_is_started_is_sent_together(distance: Distance, far: Flask) -> None:
    with far.test_request_context():
        with reading() as read:
            assert read.now
        distance.trips = 0
        with reading() as read:
            g.word = "of the request"
            twice = start_reading(
                read.session,
                lambda session: (_read(session, "1"), g.word, _read(session, "2")),
            )
            others = _start(read, "3", "4")
            assert distance.trips == 0
            assert [one.value for one in others] == [3, 4]
            assert distance.trips == 1  # with BEGIN, the settings and the clock
            assert (twice.value, read.now.tzinfo) == ((1, "of the request", 2), read.now.tzinfo)
            assert distance.trips == 2
        assert distance.trips == 2


@pytest.mark.usefixtures("requested")
def test_postgres_executes_what_is_started_before_the_page_waits(session: Session) -> None:
    held = text(
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 900042)"
    )
    with reading() as read:
        (locking,) = _start(read, "pg_try_advisory_xact_lock(900042)")
        wait_until(lambda: session.scalar(held), what="Postgres to execute it")
        assert locking.value


@pytest.mark.usefixtures("requested")
def test_a_page_reads_one_snapshot_and_cannot_write(session: Session) -> None:
    count = "count(*) FROM opsjobs.deploys"
    with reading() as read:
        assert _read(read.session, count) == 0
        make_deploy(session)
        session.commit()
        assert _read(read.session, count) == 0
        settings = ("transaction_isolation", "transaction_read_only")
        shown = _start(read, *(f"current_setting('{name}')" for name in settings))
        assert [one.value for one in shown] == ["repeatable read", "on"]
        (writing,) = _start(read, "nextval('opsjobs.deploys_id_seq')")
        assert isinstance(_raised(writing), psycopg.errors.ReadOnlySqlTransaction)
    assert _read(session, count) == 1


@pytest.mark.usefixtures("requested")
def test_a_page_begins_its_transaction_once() -> None:
    warnings: list[str | None] = []
    with reading() as read:
        driver: Any = read.session.connection().connection.driver_connection
        # Postgres warns of the second BEGIN, when psycopg sends one too.
        driver.add_notice_handler(lambda notice: warnings.append(notice.message_primary))
        assert read.now
    assert warnings == []


def test_a_function_waits_for_the_value_of_another(distance: Distance, far: Flask) -> None:
    def add(session: Session, to: StartedRead[int]) -> int:
        mine = start_reading(session, _read, "40")
        return int(_read(session, f"{to.value} + {mine.value}"))

    with far.test_request_context(), reading() as read:
        assert read.now
        distance.trips = 0
        (two,) = _start(read, "2")
        added = start_reading(read.session, add, two)
        twice = start_reading(
            read.session, lambda session: [_read(session, "1"), _read(session, "2")]
        )
        assert (added.value, twice.value) == (42, [1, 2])
        assert distance.trips == 2


@pytest.mark.usefixtures("requested")
def test_no_statement_of_a_page_is_prepared() -> None:
    with reading() as read:
        for _ in range(20):  # psycopg prepares what it has seen five times
            assert _read(read.session, "1") == 1
        assert _read(read.session, "count(*) FROM pg_prepared_statements") == 0


@pytest.mark.usefixtures("requested")
def test_a_statement_that_fails_ends_all_with_its_error(host: Host) -> None:
    with reading() as read:
        before, bad, after = _start(read, "1", "1 / (random() * 0)::int", "3")
        assert isinstance(_raised(after), psycopg.errors.DivisionByZero)
        assert isinstance(_raised(bad), psycopg.errors.DivisionByZero)
        assert before.value == 1
        (later,) = _start(read, "4")
        assert isinstance(_raised(later), psycopg.errors.DivisionByZero)
    _is_clean(host)


@pytest.mark.usefixtures("requested")
def test_a_statement_that_is_too_slow_in_the_middle_is_said(host: Host) -> None:
    with pytest.raises(Problem) as raised:
        _read_all("1", "pg_sleep(30)", "3", seconds=0.2)
    assert raised.value.title == "Took too long"
    _is_clean(host)


@pytest.mark.usefixtures("requested")
def test_a_connection_that_dies_in_the_middle_is_said_and_not_used_again(host: Host) -> None:
    with pytest.raises(Problem) as raised:
        _read_all("1", "pg_terminate_backend(pg_backend_pid())", "3")
    assert raised.value.title == "Postgres does not answer"
    host.postgres = Answering()  # pages would not ask again at once
    _is_clean(host)


def test_a_network_that_fails_while_an_answer_is_awaited_is_said(
    distance: Distance, far: Flask
) -> None:
    client = far.test_client()
    assert client.get("/ops/jobs/queues").status_code == 200
    distance.cut()
    answer = client.get("/ops/jobs/queues")
    assert (answer.status_code, "Postgres does not answer" in answer.text) == (503, True)
    far.extensions["opsjobs"].postgres = Answering()
    assert client.get("/ops/jobs/queues").status_code == 200


@pytest.mark.usefixtures("requested")
@pytest.mark.parametrize("how", ["1 / (random() * 0)::int", "pg_sleep(30)"])
def test_a_guest_fails_alone(how: str, host: Host) -> None:
    def ask(session: Session) -> list[Any]:
        return [_read(session, "current_setting('statement_timeout')"), _read(session, how)]

    with reading() as read:
        guest = start_guest(read.session, 0.2, ask)
        assert [one.value for one in _start(read, "1", "2")] == [1, 2]
        limit = "current_setting('statement_timeout')"
        assert [one.value for one in _start(read, "3", limit)] == [3, "5s"]
        assert _raised(guest) is not None
        assert [one.value for one in _start(read, "5", limit)] == [5, "5s"]
    _is_clean(host)


@pytest.mark.usefixtures("requested")
def test_what_a_guest_starts_is_a_guest(host: Host) -> None:
    def ask(session: Session) -> Any:
        return start_reading(session, _read, "1 / (random() * 0)::int").value

    with reading() as read:
        guest = start_guest(read.session, 0.2, ask)
        assert [one.value for one in _start(read, "1", "2")] == [1, 2]
        assert isinstance(_raised(guest), psycopg.errors.DivisionByZero)
    _is_clean(host)


@pytest.mark.usefixtures("requested")
def test_a_guest_has_its_own_limit() -> None:
    with reading() as read:
        limit = "current_setting('statement_timeout')"
        guest = start_guest(read.session, 0.2, _read, limit)
        (mine,) = _start(read, limit)
        assert (mine.value, guest.value) == ("5s", "200ms")


@pytest.mark.usefixtures("requested")
def test_settings_hold_for_one_statement_only() -> None:
    asked = select(text("current_setting('enable_bitmapscan')"))

    def with_bitmaps(session: Session) -> str:
        return str(execute_with(session, asked, enable_bitmapscan="on").scalar_one())

    with reading() as read:
        setting = "current_setting('enable_bitmapscan')"
        before = _start(read, setting)[0]
        within = start_reading(read.session, with_bitmaps)
        after = _start(read, setting)[0]
        assert (before.value, within.value, after.value) == ("off", "on", "off")


@pytest.mark.usefixtures("requested")
def test_searches_of_one_snapshot_do_not_mix_what_they_keep(session: Session) -> None:
    batch = make_batch(session)
    old, _, new = (
        make_job(session, created_at=ago(hours=hours), batch_id=batch.id).id for hours in (5, 3, 1)
    )
    session.commit()

    def find(session: Session, created: str) -> Sequence[int]:
        wanted = JobFilter.from_query([("q", f"batch:{batch.name} created:{created}")])
        return find_hits(session, wanted, ago(), lambda *_: True).ids

    with reading() as read:
        # Each keeps the first and the last id of its time, and then waits for the batches of this name.
        found = {
            created: start_reading(read.session, find, created)
            for created in ("-6h..-4h", "-2h..now")
        }
        assert {created: each.value for created, each in found.items()} == {
            "-6h..-4h": [old],
            "-2h..now": [new],
        }


@pytest.mark.usefixtures("requested")
def test_a_page_that_ends_early_ends_what_it_started(host: Host) -> None:
    ended: list[BaseException | None] = []

    def ask(session: Session) -> None:
        try:
            _read(session, "1")
        except DBAPIError as error:
            ended.append(error.orig)

    def end_early() -> None:
        with reading() as read:
            start_reading(read.session, ask)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        end_early()
    (error,) = ended
    assert isinstance(error, psycopg.errors.PipelineAborted)
    _is_clean(host)


@pytest.mark.usefixtures("requested")
def test_what_a_page_that_ends_early_has_sent_is_canceled(host: Host) -> None:
    """The page does not wait until it takes Postgres for silent, and its connection can be used again."""
    backends = []

    def end_early() -> None:
        with reading() as read:
            backends.append(_read(read.session, "pg_backend_pid()"))
            _start(read, "1", "pg_sleep(60)", "2")
            raise ZeroDivisionError

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            end_early()
    _is_clean(host)
    assert len(set(backends)) == 1


@pytest.mark.slow
def test_pages_are_the_same_without_pipelines(
    monkeypatch: pytest.MonkeyPatch, app: Flask, jobs: dict[str, Job]
) -> None:
    monkeypatch.setattr(psycopg.Pipeline, "is_supported", lambda: False)
    monkeypatch.delattr(psycopg.Pipeline, "__enter__")  # none is begun
    for url, path in reads(jobs):
        assert app.test_client().get(path).status_code == good(url), path


@pytest.mark.slow
def test_threads_share_the_few_connections(
    make_app: Callable[..., Flask], jobs: dict[str, Job]
) -> None:
    app = make_app(OPSJOBS_PAGE_CONNECTIONS=3)
    paths = ["", "/queues", f"/jobs/{jobs['failed'].id}", f"/jobs/{jobs['available'].id}"]

    def ask(number: int) -> tuple[int, str]:
        answer = app.test_client().get(f"/ops/jobs{paths[number % len(paths)]}")
        return answer.status_code, str(soup(answer.text).h1)

    alone = [ask(number) for number in range(len(paths))]
    with ThreadPoolExecutor(3) as threads:
        for number, answer in enumerate(threads.map(ask, range(40))):
            assert answer == alone[number % len(paths)]
    with app.test_request_context():
        _is_clean(app.extensions["opsjobs"])


def _is_clean(host: Host) -> None:
    """The next users of the pool find a connection that is in no transaction and in no pipeline."""
    assert host.pages.pool.checkedout() == 0  # type: ignore[attr-defined]
    with host.pages.connect() as connection:
        driver: Any = connection.connection.driver_connection
        assert not driver.autocommit
        (backend,) = connection.exec_driver_sql("SELECT pg_backend_pid()").one()
        assert backend
        assert driver.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        assert driver.info.pipeline_status == psycopg.pq.PipelineStatus.OFF
        assert driver.statements is None
    with reading() as read:
        assert _read(read.session, "7") == 7
