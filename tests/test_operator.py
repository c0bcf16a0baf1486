"""The door itself: the actions of Python, its connections, and what follows a commit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from flask import Flask

from flask_opsjobs import OpsJobs
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.actions.planning import find_preview
from flask_opsjobs.engine.redis.broker import Broker
from flask_opsjobs.engine.redis.connections import RedisConnections
from flask_opsjobs.errors import ActionRefused, EngineUnavailable, SchemaBehind
from flask_opsjobs.host import Host
from tests.support.engine import Bench

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
RecordJob = Callable[..., int]


def test_the_extension_has_it(opsjobs: OpsJobs, record_job: RecordJob, bench: Bench) -> None:
    job_id = record_job(delay=60)
    receipt = opsjobs.operator.cancel(job_id, **WHY)
    assert receipt.is_done
    assert bench.row("SELECT via FROM opsjobs.audit_events")["via"] == "python"


def test_an_action_takes_one_or_several(
    opsjobs: OpsJobs, record_job: RecordJob, bench: Bench
) -> None:
    ids = [record_job(delay=60) for _ in range(3)]
    assert len(opsjobs.operator.discard(ids, **WHY).done) == 3
    assert opsjobs.operator.retry(iter(ids[:2]), **WHY).is_done
    assert bench.job(ids[1])["state"] == "available"
    assert opsjobs.operator.pause(["default"], **WHY).is_done


def test_a_refusal_raises_with_its_receipt(opsjobs: OpsJobs, record_job: RecordJob) -> None:
    job_id = record_job()
    with pytest.raises(ActionRefused, match=f"cannot retry job {job_id}: it is available") as told:
        opsjobs.operator.retry(job_id, **WHY)
    assert told.value.code == "illegal"
    assert told.value.receipt.audit_sequence == 1
    with pytest.raises(ActionRefused, match="at least 8 characters"):
        opsjobs.operator.cancel(job_id, actor="anna", reason="no")
    with pytest.raises(ActionRefused, match="needs an actor"):
        opsjobs.operator.cancel(job_id, actor=" ", reason=WHY["reason"])


def test_it_stands_on_a_transaction_of_its_own(
    opsjobs: OpsJobs, record_job: RecordJob, bench: Bench, db: Any
) -> None:
    """What the host has not committed is neither seen nor ended by it, and its rollback undoes nothing."""
    job_id = record_job(delay=60)
    with db.session.begin():
        db.session.connection().exec_driver_sql("CREATE TABLE public.mine (x int)")
        opsjobs.operator.cancel(job_id, **WHY)
        db.session.rollback()
    assert bench.job(job_id)["state"] == "canceled"
    assert bench.row("SELECT to_regclass('public.mine') AS mine")["mine"] is None


def test_without_the_schema_it_says_so(make_app: Any, empty_database_url: str) -> None:
    app: Flask = make_app(SQLALCHEMY_DATABASE_URI=empty_database_url)
    with pytest.raises(SchemaBehind, match="flask db upgrade"):
        Operator(app.extensions["opsjobs"]).cancel(1, **WHY)


def test_a_restart_of_postgres_is_not_noticed(
    host: Host, record_job: RecordJob, bench: Bench
) -> None:
    job_id = record_job(delay=60)
    operator = Operator(host)
    operator.plan("job.cancel", [f"job/{job_id}"], actor="anna")
    ended = bench.rows(
        """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
           WHERE datname = current_database() AND pid <> pg_backend_pid()"""
    )
    assert ended
    assert operator.cancel(job_id, **WHY).is_done


def test_postgres_being_away_is_an_error_of_ours(
    make_app: Any, own_postgres: Any, own_database_url: str
) -> None:
    app: Flask = make_app(SQLALCHEMY_DATABASE_URI=own_database_url)
    operator = Operator(app.extensions["opsjobs"])
    assert operator.plan("job.cancel", ["job/1"], actor="anna").skipped
    own_postgres.kill()
    with pytest.raises(EngineUnavailable, match="Postgres did not answer"):
        operator.run("job.cancel", ["job/1"], **WHY)


def test_an_effect_that_fails_is_said_and_fails_nothing(
    app: Flask, host: Host, record_job: RecordJob, bench: Bench, own_valkey: Any, db: Any
) -> None:
    job_id = record_job()
    bench.dispatch(prefetch=1)
    operator = Operator(host)
    preview = operator.preview("job.cancel", [f"job/{job_id}"], actor="anna", via="page")
    own_valkey.kill()
    host.broker = Broker(RedisConnections(app, own_valkey.url))
    receipt = operator.execute(preview.id, preview.token, **WHY)
    assert receipt.is_done
    assert receipt.says == (
        f"Cancel job {job_id}: done; Redis was not told: "
        "a worker that takes such a delivery refuses it"
    )
    assert bench.job(job_id)["state"] == "canceled"
    found = find_preview(db.session, host.secrets, preview.id, "anna")
    assert found is not None
    assert found.receipt == receipt


def test_due_jobs_are_dispatched_right_away(
    make_app: Any, opsjobs: OpsJobs, redis_client: Any, database_url: str
) -> None:
    app = make_app(opsjobs=opsjobs, TESTING=False)

    @opsjobs.task
    def note(text: str = "") -> None:
        """Takes a text."""

    with app.app_context():
        enqueued = note.options(delay=60).enqueue()
        app.extensions["sqlalchemy"].session.commit()
        opsjobs.operator.discard(enqueued.id, **WHY)
        assert not redis_client.keys("*opsjobs-*")
        opsjobs.operator.retry(enqueued.id, **WHY)
    assert redis_client.keys(f"*opsjobs-{enqueued.id}-1")


def test_the_log_hears_of_each_decision(
    opsjobs: OpsJobs, record_job: RecordJob, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = record_job(delay=60)
    with caplog.at_level("INFO", logger="flask_opsjobs.audit"):
        opsjobs.operator.cancel(job_id, **WHY)
    assert "audit head 1:" in caplog.text


def test_an_audit_that_cannot_be_written_stops_the_action(
    opsjobs: OpsJobs, record_job: RecordJob, bench: Bench
) -> None:
    job_id = record_job(delay=60)
    bench.rows("DELETE FROM opsjobs.audit_head RETURNING 1")
    with pytest.raises(Exception, match="audit_head"):
        opsjobs.operator.cancel(job_id, **WHY)
    assert bench.job(job_id)["state"] == "scheduled"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        bench.rows("TRUNCATE opsjobs.audit_events")
