"""Metrics: what each says, that counters never fall, and what a scrape costs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import event
from sqlalchemy.orm import Session

from flask_opsjobs import OpsJobs
from flask_opsjobs.core.reading import PAGE_PLANS, read_clock, read_snapshot
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.perform.outcomes import Outcome
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.lifeline import retention
from flask_opsjobs.lifeline.integrity import count_rows
from flask_opsjobs.loops import check_integrity, roll_up
from flask_opsjobs.loops.loop import Loop, Runner
from flask_opsjobs.telemetry import queries
from flask_opsjobs.telemetry.metrics import METRICS, OTHERS
from flask_opsjobs.telemetry.prometheus import PrometheusCollector, exposition
from flask_opsjobs.workers import transitions as workers
from tests.overview.test_plans import EveryPlan
from tests.support.database import Databases
from tests.support.engine import Bench
from tests.support.plans import app_on
from tests.telemetry.reading import Samples, parse, value, values
from tests.test_query_plans import fill

RecordJob = Callable[..., int]


@pytest.fixture
def scrape(host: Host) -> Callable[[], Samples]:
    collector = PrometheusCollector(host)
    return lambda: parse(exposition(collector))


@pytest.fixture
def now(bench: Bench) -> datetime:
    return read_clock(bench.connection)


def run(bench: Bench, loop: Loop, at: datetime) -> None:
    """Passes of a loop as of `at`, until there is nothing more to do."""
    runner = Runner(loop, bench.host, "one")
    while runner.run_once(bench.connection, at):
        pass
    assert runner.last_error is None


def end(bench: Bench, record_job: RecordJob, kind: str, **options: Any) -> int:
    job_id = record_job(max_attempts=1, **options)
    bench.dispatch(options.get("queue", "default"), prefetch=1_000)
    bench.claim(job_id)
    bench.record(job_id, 1, Outcome(kind))
    return job_id


_PAUSE_NOTE = "INSERT INTO opsjobs.task_pauses VALUES ('note', now(), 'anna', 'it is wrong')"


@pytest.mark.lane
def test_an_exposition_has_every_metric_with_its_labels(
    bench: Bench,
    record_job: RecordJob,
    opsjobs: OpsJobs,
    scrape: Callable[[], Samples],
    now: datetime,
) -> None:
    opsjobs.operator.pause("default", actor="ops-demo", reason="the bank is away")
    opsjobs.operator.resume("default", actor="ops-demo", reason="the bank is back")
    bench.connection.execute(_PAUSE_NOTE)
    bench.connection.execute(
        "INSERT INTO opsjobs.limiters (name, rate, per_seconds, burst, when_full, declared_at, declared_by)"
        " VALUES ('api', 10, 1, 10, 'hold', now(), 'a test')"
    )
    record_job()
    run(bench, roll_up.LOOP, now)
    run(bench, check_integrity.LOOP, now)
    found: dict[str, set[frozenset[str]]] = {}
    for name, labels in scrape():
        found.setdefault(name, set()).add(frozenset(dict(labels)))
    for metric in METRICS:
        names = frozenset(metric.labels)
        match metric.kind:
            case "histogram":
                assert found.pop(f"{metric.name}_bucket") == {names | {"le"}}
                assert found.pop(f"{metric.name}_sum") == {names}
                assert found.pop(f"{metric.name}_count") == {names}
            case "summary":
                assert found.pop(f"{metric.name}_sum") == {names}
                assert found.pop(f"{metric.name}_count") == {names}
            case _:
                assert found.pop(metric.name) == {names}
    assert found == {}


def test_a_paused_task_is_named_and_its_due_jobs_are_not_the_oldest(
    bench: Bench, record_job: RecordJob, scrape: Callable[[], Samples]
) -> None:
    record_job()
    bench.connection.execute("UPDATE opsjobs.jobs SET due_at = now() - interval '90 s'")
    assert value(scrape(), "opsjobs_oldest_due_seconds", queue="default") >= 90
    bench.connection.execute(_PAUSE_NOTE)
    found = scrape()
    assert values(found, "opsjobs_task_paused", "task") == {"note": 1}
    assert value(found, "opsjobs_oldest_due_seconds", queue="default") == 0


def test_jobs_are_counted_by_state_and_by_the_status_of_rq(
    bench: Bench, record_job: RecordJob, scrape: Callable[[], Samples], now: datetime
) -> None:
    for kind in ("returned", "returned", "raised", "canceled"):
        end(bench, record_job, kind)
    record_job(delay=60)
    record_job(queue="mail")
    due = record_job()
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET due_at = now() - interval '90 s' WHERE id = %s", [due]
    )
    run(bench, check_integrity.LOOP, now + timedelta(minutes=1))
    found = scrape()
    states = values(found, "opsjobs_jobs", "state", queue="default")
    assert {state: number for state, number in states.items() if number} == {
        "finished": 2,
        "failed": 1,
        "canceled": 1,
        "scheduled": 1,
        "available": 1,
    }
    assert values(found, "rq_jobs", "status", queue="mail") == {
        **dict.fromkeys(("started", "finished", "failed", "deferred", "scheduled", "canceled"), 0),
        "queued": 1,
    }
    assert 90 <= value(found, "opsjobs_oldest_due_seconds", queue="default") < 150
    assert value(found, "opsjobs_integrity_difference", queue="default") == 0
    bench.connection.execute("DELETE FROM opsjobs.jobs WHERE id = %s", [due])
    run(bench, check_integrity.LOOP, now + timedelta(minutes=2))
    assert value(scrape(), "opsjobs_integrity_difference", queue="default") == 1


def test_a_state_with_many_jobs_is_counted_by_the_integrity_check(
    bench: Bench,
    note: Task,
    db: SQLAlchemy,
    scrape: Callable[[], Samples],
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queries, "_MOST_LIVE", 10)
    note.enqueue_many({"text": ""} for _ in range(30))
    note.options(queue="mail").enqueue_many({"text": ""} for _ in range(5))
    db.session.commit()
    run(bench, check_integrity.LOOP, now)
    found = values(scrape(), "opsjobs_jobs", "queue", state="available")
    assert found == {"default": 30, "mail": 5}


def test_workers_are_counted_and_listen(
    bench: Bench, record_job: RecordJob, scrape: Callable[[], Samples], now: datetime
) -> None:
    record_job()
    report = workers.HeartbeatReport(
        1, reserved=["7-1"], jobs_finished=3, jobs_failed=1, work_seconds=2.5
    )
    workers.record_heartbeat(bench.connection, bench.worker_id, report, now)
    found = scrape()
    assert value(found, "opsjobs_workers", state="alive", kind="pool") == 1
    assert value(found, "opsjobs_queue_listeners", queue="default") == 1
    assert value(found, "rq_workers", name="worker-1", state="busy", queues="default") == 1
    done = {
        name: value(found, f"rq_workers_{name}_total", name="worker-1", queues="default")
        for name in ("success", "failed", "working_time")
    }
    assert done == {"success": 3, "failed": 1, "working_time": 2.5}
    bench.connection.execute("UPDATE opsjobs.workers SET heartbeat_at = now() - interval '1 min'")
    found = scrape()
    assert value(found, "opsjobs_workers", state="late", kind="pool") == 1
    assert value(found, "opsjobs_queue_listeners", queue="default") == 0
    assert values(found, "rq_workers", "name") == {}, "only live ones"


def test_tokens_are_those_of_now(
    bench: Bench, opsjobs: OpsJobs, scrape: Callable[[], Samples]
) -> None:
    bench.connection.execute(
        "INSERT INTO opsjobs.limiters"
        " (name, rate, per_seconds, burst, partition_by, when_full, declared_at, declared_by)"
        " VALUES ('full', 1, 3600, 5, NULL, 'hold', now(), 'a test'),"
        " ('used', 1, 3600, 5, NULL, 'hold', now(), 'a test'),"
        " ('parted', 1, 3600, 5, 'the customer', 'hold', now(), 'a test')"
    )
    bench.connection.execute(
        "INSERT INTO opsjobs.buckets (limiter, partition, tokens, refilled_at, last_used_at)"
        " VALUES ('used', '', 1, now() - interval '2 hours', now())"
    )
    found = values(scrape(), "opsjobs_limiter_tokens", "limiter")
    assert found == pytest.approx({"full": 5, "used": 3}, abs=0.1)


def _counters(samples: Samples) -> Samples:
    """The series of counters and histograms, without those that end with their worker."""
    counted = {
        metric.name
        for metric in METRICS
        if metric.kind in ("counter", "histogram") and "name" not in metric.labels
    }
    return {
        (name, labels): number
        for (name, labels), number in samples.items()
        if name in counted or name.rpartition("_")[0] in counted
    }


@pytest.mark.slow
def test_a_counter_never_falls_over_forty_days_of_retention(
    bench: Bench,
    record_job: RecordJob,
    scrape: Callable[[], Samples],
    now: datetime,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A day in one pass, not a quarter of an hour: 4,000 passes would tell no more.
    monkeypatch.setattr(roll_up, "_MOST_MINUTES", 1_500)
    last: Samples = {}
    removed = 0
    for day in range(41):
        at = now + timedelta(days=day)
        ids = [end(bench, record_job, kind) for kind in ("returned", "raised")]
        bench.connection.execute(
            "UPDATE opsjobs.jobs SET due_at = %(at)s, started_at = %(at)s, ended_at = %(at)s"
            " WHERE id = ANY (%(ids)s)",
            {"at": at, "ids": ids},
        )
        bench.connection.execute(
            "INSERT INTO opsjobs.cron_slots (entry, slot_at, until_at, result, expression, zone, decided_at)"
            " VALUES ('sync', %(at)s, %(at)s, 'ran', '* * * * *', 'UTC', %(at)s)",
            {"at": at},
        )
        run(bench, roll_up.LOOP, at + timedelta(minutes=3))
        removed += sum(
            retention.retain(
                bench.connection, bench.host.settings, at + timedelta(minutes=4)
            ).values()
        )
        found = _counters(scrape())
        assert last.keys() <= found.keys()
        assert {key: number for key, number in last.items() if found[key] < number} == {}
        last = found
    assert removed > 50, "rollups, depths and jobs were removed meanwhile"
    assert value(last, "opsjobs_jobs_enqueued_total", queue="default") == 82
    ended = values(last, "opsjobs_jobs_ended_total", "state", queue="default")
    assert ended == {"finished": 41, "failed": 41, "canceled": 0}
    assert value(last, "opsjobs_job_run_seconds_count", queue="default") == 82
    assert value(last, "opsjobs_cron_slots_total", result="ran") == 41


@pytest.mark.slow
def test_two_hundred_of_a_thousand_queues_are_named(
    bench: Bench, note: Task, db: SQLAlchemy, scrape: Callable[[], Samples], now: datetime
) -> None:
    bench.connection.execute(
        "INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at)"
        " SELECT 'note', 'queue-' || n, 'queue-' || n, 'available', '{}', 1, now(), now()"
        " FROM generate_series(1, 1000) AS n"
    )
    bench.connection.execute(
        "INSERT INTO opsjobs.job_count_deltas (at, queue, enqueued)"
        " SELECT now(), 'queue-' || n, 1 FROM generate_series(1, 1000) AS n"
    )
    # Before the first pass of the loops, and after.
    for loops in ((), (roll_up.LOOP, check_integrity.LOOP)):
        for loop in loops:
            run(bench, loop, now)
        found = scrape()
        for metric in METRICS:
            if "queue" in metric.labels and metric.name in {name for name, _ in found}:
                of_queue = values(found, metric.name, "queue")
                assert len(of_queue.keys() - {OTHERS}) <= 200, metric.name
        available = values(found, "opsjobs_jobs", "queue", state="available")
        assert (len(available), available[OTHERS]) == (201, 800)
    enqueued = values(found, "opsjobs_jobs_enqueued_total", "queue")
    assert (len(enqueued), enqueued[OTHERS]) == (201, 800)
    assert enqueued.keys() == available.keys()


@pytest.mark.slow
def test_the_text_is_that_of_the_library_and_takes_less_time(
    bench: Bench, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Byte for byte, with 200 queues whose names need every escape, and with small and large numbers."""
    bench.connection.execute(
        "INSERT INTO opsjobs.queue_totals"
        " (queue, enqueued, finished, waits, runs, wait_seconds, run_seconds)"
        " SELECT %s || n, n, 1000003 * n, ARRAY[n, 0, 3, 1234567], array_fill(n, ARRAY[32]), n / 7.0, n * 1e6"
        " FROM generate_series(1, 200) AS n",
        ['\\ " \n ü'],
    )
    collector = PrometheusCollector(host)
    spent = _processor_seconds(lambda: exposition(collector))
    print(f"a scrape of 200 queues takes {spent * 1000:.0f} ms of a processor")
    found = collector.read()
    monkeypatch.setattr(collector, "read", lambda: found)
    registry = CollectorRegistry()
    registry.register(collector)
    text = exposition(collector)
    assert text == generate_latest(registry)
    assert text.count(b"\n") > 13_000
    assert spent < _processor_seconds(lambda: generate_latest(registry)) / 2


def _processor_seconds(act: Callable[[], object]) -> float:
    """What it takes of the processor, the least of five times."""
    spent = []
    for _ in range(5):
        began = time.process_time()
        act()
        spent.append(time.process_time() - began)
    return min(spent)


def test_a_registry_of_the_host_takes_the_collector(db: SQLAlchemy, opsjobs: OpsJobs) -> None:
    registry = CollectorRegistry()
    registry.register(opsjobs.prometheus_collector())
    assert registry.get_sample_value("opsjobs_up") == 1
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(opsjobs.prometheus_collector())


# --- what a scrape costs


@pytest.fixture(scope="module")
def module_app(databases: Databases) -> Iterator[Flask]:
    """A host on a database with 50,000 jobs, most of them finished, and a backlog."""

    def _fill(session: Session) -> None:
        fill(
            session,
            finished=42_000,
            failed=1_500,
            scheduled=4_000,
            available=2_000,
            queued=60,
            started=40,
        )

    with app_on(databases, _fill) as app:
        host: Host = app.extensions["opsjobs"]
        bench = Bench(host)
        now = read_clock(bench.connection)
        run(bench, roll_up.LOOP, now)
        assert count_rows(bench.connection, now)
        bench.close()
        yield app


def test_a_scrape_is_at_most_twelve_statements_that_walk_indexes(module_app: Flask) -> None:
    host: Host = module_app.extensions["opsjobs"]
    statements: list[str] = []

    def note_statement(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(host.pages, "before_cursor_execute", note_statement)
    first = parse(exposition(PrometheusCollector(host)))
    assert value(first, "opsjobs_up") == 1
    assert len(statements) <= 12, statements
    statements.clear()
    parse(exposition(PrometheusCollector(host)))
    event.remove(host.pages, "before_cursor_execute", note_statement)
    # The snapshot's settings, and the eight of telemetry/queries.py. The first one reads the schema too.
    assert len(statements) == 9, statements
    with (
        read_snapshot(host.pages.connect(), 60, PAGE_PLANS) as read,
        EveryPlan(host.pages) as plans,
    ):
        queries.find_values(read.session, read.now, host.settings)
    assert {"jobs_due", "jobs_by_state", "integrity_checks_pkey"} <= plans.indexes
    assert "jobs" not in plans.read_whole
    # At most 1,001 jobs of each live state, those that its limit lets it read.
    assert plans.most_rows <= 6 * 1_001
