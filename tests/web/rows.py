"""Rows of every state, written by ORM: pages must show each of them, and shapes no writer of ours would
leave behind (markup, secrets, the far past) are asked for by name. What the real writers write is shown
by `tests/browser/`, which runs jobs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from sqlalchemy import null
from sqlalchemy.orm import Session

from flask_opsjobs.audit import transitions as audit_transitions
from flask_opsjobs.audit.transitions import Decision
from flask_opsjobs.cron import transitions as cron_transitions
from flask_opsjobs.cron.declaration import EntryDeclaration
from flask_opsjobs.cron.expression import Schedule
from flask_opsjobs.cron.transitions import Slot
from flask_opsjobs.jobs.lifecycle import FINAL, STATES
from flask_opsjobs.jobs.models import Attempt, Job, Output
from flask_opsjobs.lifeline.models import IntegrityCheck, LoopRun
from flask_opsjobs.limits.models import Lease, Limiter
from flask_opsjobs.overview.models import Depth
from flask_opsjobs.queues.models import Queue
from flask_opsjobs.workers.models import Worker

LOOPS = (
    "dispatch",
    "stage",
    "cron",
    "expire",
    "watch",
    "recall",
    "observe",
    "retain",
    "roll_up",
    "check_integrity",
)
# Lets every preview expire at once: its `created_at` is signed, and Postgres' clock is not a test's to move.
EXPIRE_PREVIEWS = (
    """UPDATE opsjobs.previews SET expires_at = created_at + interval '1 microsecond'"""
)
ENDS = {"finished": "returned", "failed": "exhausted", "canceled": "canceled"}
TRACEBACK = """Traceback (most recent call last):
  File "/app/flask_opsjobs/jobs/perform/perform.py", line 80, in perform
    value = task.function(**args)
  File "/app/billing/tasks.py", line 41, in process_invoice
    receipt = gateway.charge(account, invoice)
  File "/venv/lib/python3.11/site-packages/requests/api.py", line 59, in post
    return request("post", url)
  File "/venv/lib/python3.11/site-packages/urllib3/pool.py", line 9, in open
    raise self._error
  File "/app/billing/gateway.py", line 64, in _post
    raise GatewayTimeout("customer-api did not answer in 30 s") from e
billing.gateway.GatewayTimeout: customer-api did not answer in 30 s
"""

_numbers = count(1)


def ago(**duration: float) -> datetime:
    """A moment in the past, by the words of `timedelta`."""
    return datetime.now(UTC) - timedelta(**duration)


def paused() -> dict[str, Any]:
    """The columns of a queue that somebody paused."""
    return {
        "is_paused": True,
        "paused_at": ago(hours=1),
        "paused_by": "anna",
        "paused_reason": "the vendor is away",
    }


def make_job(session: Session, state: str = "available", **values: Any) -> Job:
    """A job in `state` with all that state demands, flushed; `values` win."""
    then = ago(minutes=20)
    has_run = state in ("started", "retryable", *FINAL)
    defaults: dict[str, Any] = {
        "task": "send_invoice",
        "queue": "default",
        "state": state,
        "args": {"account_id": 42},
        "attempt": int(has_run),
        "max_attempts": 5,
        "created_at": then,
        "due_at": then + timedelta(hours=1 if state in ("scheduled", "retryable") else 0),
        "dispatch_no": int(has_run or state == "queued"),
        "dispatched_at": then if has_run or state == "queued" else None,
        "started_at": then if has_run else None,
        "ended_at": then + timedelta(minutes=10) if state in FINAL else None,
        "ended_by": ENDS.get(state),
        "error": "GatewayTimeout: no answer" if state in ("failed", "retryable") else None,
    }
    merged = defaults | values
    job = Job(**merged | {"lane": merged.get("lane", merged["queue"])})
    session.add(job)
    session.flush()
    return job


def make_attempt(
    session: Session, job: Job, outcome: str | None = "raised", **values: Any
) -> Attempt:
    """An attempt of `job`, flushed: its latest unless `dispatch_no` says another."""
    defaults: dict[str, Any] = {
        "job_id": job.id,
        "dispatch_no": job.dispatch_no,
        "attempt": max(1, job.attempt),
        "worker": "web-1:2207",
        "started_at": ago(minutes=20),
        "ended_at": None if outcome is None else ago(minutes=15),
        "outcome": outcome,
        "error": "GatewayTimeout: no answer" if outcome in ("raised", "timed_out") else None,
    }
    attempt = Attempt(**defaults | values)
    session.add(attempt)
    session.flush()
    return attempt


def make_output(session: Session, job: Job, value: Any, **values: Any) -> Output:
    """What `job` returned, flushed."""
    # An output that was not kept has no value at all, not JSON's null.
    stored = null() if "omitted" in values else value
    defaults = {"value": stored, "size_bytes": 120, "created_at": ago(minutes=10)}
    output = Output(job_id=job.id, **defaults | values)
    session.add(output)
    session.flush()
    return output


def make_worker(session: Session, state: str = "alive", **values: Any) -> Worker:
    """A worker, flushed."""
    number = next(_numbers)
    defaults: dict[str, Any] = {
        "name": f"web-1:{2200 + number}",
        "kind": "forking",
        "host": "web-1",
        "pid": 2200 + number,
        "version": "2026.11.3",
        "queues": ["default"],
        "state": state,
        "started_at": ago(hours=3),
        "heartbeat_at": ago(seconds=2) if state == "alive" else ago(minutes=2),
        "rss_kb": 84_000,
        "ended_at": ago(minutes=1) if state in ("missing", "stopped") else None,
    }
    worker = Worker(**defaults | values)
    session.add(worker)
    session.flush()
    return worker


def make_loops(session: Session, **values: Any) -> None:
    """Every loop, awake, flushed."""
    for name in LOOPS:
        defaults: dict[str, Any] = {
            "loop": name,
            "process": "web-1:17",
            "started_at": ago(hours=3),
            "last_at": datetime.now(UTC),
            "every_seconds": 600,
            "took_seconds": 0.014,
            "report": "dispatched 61",
        }
        session.add(LoopRun(**defaults | values))
    session.flush()


def make_event(session: Session, **changes: Any) -> int:
    """A decision in the audit, by its writer, signed as the tests' hosts do; its sequence. Not committed."""
    decided: dict[str, Any] = {
        "at": datetime.now(UTC),
        "actor": "ops-demo",
        "via": "page",
        "action": "queue.pause",
        "subject": "queue/mail",
        "targets": ("queue/mail",),
        "outcome": "done",
        "permission": "queue.pause",
        "reason": "the vendor times out",
        "request_id": "b20e-5d17",
        "preview_id": 7,
        "previewed_at": ago(seconds=26),
        "before": {"queue/mail": {"is_paused": False, "prefetch": 40}},
        "after": {"queue/mail": {"is_paused": True, "prefetch": 40}},
    }
    session.flush()
    connection: Any = session.connection().connection.driver_connection
    return audit_transitions.append(connection, (b"only for tests",), Decision(**decided | changes))


def make_entry(session: Session, job: Job) -> None:
    """A cron entry named as the queue of `job`, which runs for one of its slots, by its writers.

    Not committed.
    """
    connection: Any = session.connection().connection.driver_connection
    entry = EntryDeclaration(
        job.queue,
        "send_invoice",
        Schedule("*/10 * * * *", "Europe/Paris"),
        "skip",
        "all",
        3,
        {"account_id": 42},
    )
    then = ago(hours=2).replace(minute=0, second=0, microsecond=0)
    cron_transitions.create(connection, entry, "runtime", "ops-demo", then)
    (row,) = cron_transitions.read(connection, [entry.name]).values()
    for slot in (
        Slot(then, "ran", job_id=job.id),
        Slot(
            then + timedelta(minutes=10),
            "missed",
            "the cron loop did not run",
            until_at=then + timedelta(minutes=30),
            slots=3,
        ),
        Slot(then + timedelta(minutes=40), "skipped_overlap", f"job {job.id} had not ended"),
    ):
        cron_transitions.write_result(connection, row, slot, datetime.now(UTC))
    cron_transitions.pause(
        connection, entry.name, "ops-demo", "the vendor times out", ago(minutes=5)
    )


def make_integrity_check(session: Session, **values: Any) -> IntegrityCheck:
    """The integrity check of a queue as counted a moment ago, without difference, flushed."""
    defaults: dict[str, Any] = {
        "queue": "default",
        "counted_at": ago(seconds=5),
        "took_seconds": 0.01,
        "enqueued": 9,
        "deleted": 0,
        "stored": 9,
        "waiting": 4,
        "queued": 1,
        "started": 1,
        "compared_at": ago(seconds=2),
    }
    check = IntegrityCheck(**defaults | values)
    session.add(check)
    session.flush()
    return check


def make_limiter(session: Session, name: str = "customer-api", **values: Any) -> Limiter:
    """A limiter as its first process declared it, flushed."""
    defaults: dict[str, Any] = {
        "rate": 10,
        "per_seconds": 60,
        "burst": 5,
        "concurrency": 3,
        "partition_by": "account_id",
        "weight_by": "1",
        "when_full": "hold",
        "declared_at": ago(days=2),
        "declared_by": "web-1:17",
    }
    limiter = Limiter(name=name, **defaults | values)
    session.add(limiter)
    session.flush()
    return limiter


def make_limited(
    session: Session, partition: str = "42", state: str = "available", **values: Any
) -> Job:
    """A job that waits in a lane of the limiter, or holds a place of it, flushed."""
    limiter = values.pop("limiter", "customer-api")
    job = make_job(
        session,
        state,
        lane=f"default|{limiter}|{partition}",
        limiter=limiter,
        partition=partition,
        **{"weight": 1, **values},
    )
    if state == "started":
        lease = {"limiter": limiter, "partition": partition, "weight": job.weight}
        session.add(
            Lease(job_id=job.id, dispatch_no=job.dispatch_no, taken_at=ago(minutes=20), **lease)
        )
        session.flush()
    return job


def make_one_of_each(session: Session) -> dict[str, Job]:
    """A job of every state with attempts, an output, two workers, the loops,
    a paused queue and a decision.
    """
    jobs = {state: make_job(session, state) for state in STATES}
    jobs["failed"].dispatch_no, jobs["failed"].attempt = 2, 2
    make_attempt(
        session, jobs["failed"], "died", dispatch_no=1, attempt=1, cause_of_death="signal 9"
    )
    make_attempt(session, jobs["failed"], traceback=TRACEBACK, log_tail="no answer for 30 s")
    make_attempt(session, jobs["retryable"])
    make_attempt(session, jobs["finished"], "returned")
    make_output(session, jobs["finished"], {"pages": 14})
    worker = make_worker(session, reserved=[f"{jobs['started'].id}-1"])
    make_worker(session, "missing")
    jobs["started"].worker_id = worker.id
    make_attempt(
        session, jobs["started"], None, progress_done=3, progress_total=9, progress_note="on it"
    )
    make_loops(session)
    make_integrity_check(session)
    make_entry(session, jobs["queued"])
    make_limiter(session)
    session.add(Queue(name="paused one", created_at=ago(days=1), **paused()))
    make_event(session)
    session.add(
        Depth(minute=ago(minutes=5).replace(second=0, microsecond=0), queue="default", due=3)
    )
    session.commit()
    return jobs
