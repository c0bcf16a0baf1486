"""Rows of every state, written by ORM: pages must show each of them, and shapes no writer of ours would
leave behind (markup, secrets, the far past) are asked for by name. What the real writers write is shown
by `tests/browser/`, which runs jobs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from typing import Any, TypeVar

from sqlalchemy import null
from sqlalchemy.orm import Session

from flask_opsjobs.audit import transitions as audit_transitions
from flask_opsjobs.audit.transitions import Decision
from flask_opsjobs.batches.models import BatchEnds, BatchRecord
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
from flask_opsjobs.workflows.models import EdgeRecord, SignalRecord, StepRecord, WorkflowRecord

T = TypeVar("T")

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
    return _flushed(session, _job(state, **values))


def _job(state: str, **values: Any) -> Job:
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
    return Job(**merged | {"lane": merged.get("lane", merged["queue"])})


def _flushed(session: Session, row: T) -> T:
    session.add(row)
    session.flush()
    return row


def make_attempt(
    session: Session, job: Job, outcome: str | None = "raised", **values: Any
) -> Attempt:
    """An attempt of `job`, flushed: its latest unless `dispatch_no` says another."""
    return _flushed(session, _attempt(job, outcome, **values))


def _attempt(job: Job, outcome: str | None = "raised", **values: Any) -> Attempt:
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
    return Attempt(**defaults | values)


def make_output(session: Session, job: Job, value: Any, **values: Any) -> Output:
    """What `job` returned, flushed."""
    return _flushed(session, _output(job, value, **values))


def _output(job: Job, value: Any, **values: Any) -> Output:
    # An output that was not kept has no value at all, not JSON's null.
    stored = null() if "omitted" in values else value
    defaults = {"value": stored, "size_bytes": 120, "created_at": ago(minutes=10)}
    return Output(job_id=job.id, **defaults | values)


def make_batch(session: Session, state: str = "running", **values: Any) -> BatchRecord:
    """A batch in `state` with two failed and seven finished of ten members, flushed; `values` win."""
    is_final = state not in ("open", "running")
    defaults: dict[str, Any] = {
        "name": "import_prices",
        "state": state,
        "enqueued": 10,
        "created_at": ago(minutes=10),
        "closed_at": None if state == "open" else ago(minutes=9),
        "ended_at": ago(minutes=1) if is_final else None,
        "end_no": int(is_final),
        "meta": {"file": "march.csv"},
    }
    batch = _flushed(session, BatchRecord(**defaults | values))
    for end, ended_by, number in (("finished", "returned", 7), ("failed", "exhausted", 2)):
        row = BatchEnds(batch_id=batch.id, state=end, ended_by=ended_by, number=number)
        _flushed(session, row)
    return batch


def make_worker(session: Session, state: str = "alive", **values: Any) -> Worker:
    """A worker, flushed."""
    return _flushed(session, _worker(state, **values))


def _worker(state: str = "alive", **values: Any) -> Worker:
    number = next(_numbers)
    defaults: dict[str, Any] = {
        "name": f"web-1:{2200 + number}",
        "kind": "pool",
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
    return Worker(**defaults | values)


def make_loops(session: Session, **values: Any) -> None:
    """Every loop, running, flushed."""
    session.add_all(_loops(**values))
    session.flush()


def _loops(**values: Any) -> list[LoopRun]:
    defaults: dict[str, Any] = {
        "process": "web-1:17",
        "started_at": ago(hours=3),
        "last_at": datetime.now(UTC),
        "every_seconds": 600,
        "took_seconds": 0.014,
        "report": "dispatched 61",
    }
    return [LoopRun(**defaults | {"loop": name} | values) for name in LOOPS]


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
    return _flushed(session, _integrity_check(**values))


def _integrity_check(**values: Any) -> IntegrityCheck:
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
    return IntegrityCheck(**defaults | values)


def make_limiter(session: Session, name: str = "customer-api", **values: Any) -> Limiter:
    """A limiter as its first process declared it, flushed."""
    return _flushed(session, _limiter(name, **values))


def _limiter(name: str = "customer-api", **values: Any) -> Limiter:
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
    return Limiter(name=name, **defaults | values)


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


def make_run(session: Session, jobs: Mapping[str, int], **values: Any) -> WorkflowRecord:
    """A run whose steps are these jobs, by name, each after the one before it; flushed.

    A step called `wait` is an open wait. A step whose job does not exist was removed.
    """
    defaults: dict[str, Any] = {
        "name": "fulfil_order",
        "state": "running",
        "context": {"order_id": 1042},
        "shape": b"",
        "steps": len(jobs),
        "created_at": ago(minutes=11),
    }
    run = _flushed(session, WorkflowRecord(**defaults | values))
    ids = list(jobs.values())
    for position, (name, id) in enumerate(jobs.items()):
        is_wait = name == "wait"
        step: dict[str, Any] = {
            "job_id": id,
            "workflow_id": run.id,
            "name": name,
            "position": position,
            "kind": "wait" if is_wait else "job",
            "pending": 0 if position == 0 or is_wait else 1,
            "signals": ["payment"] if is_wait else None,
            "key": "order-1042" if is_wait else "",
            "opened_at": ago(hours=26) if is_wait else None,
            "released_at": ago(minutes=10) if position == 0 or is_wait else None,
        }
        session.add(StepRecord(**step))
    session.add_all(
        EdgeRecord(from_id=source, to_id=target, on_failure="cancel")
        for source, target in pairwise(ids)
    )
    session.flush()
    return run


def make_signal(session: Session, **values: Any) -> SignalRecord:
    """A signal that is for several open waits, flushed."""
    defaults: dict[str, Any] = {
        "name": "payment",
        "key": "order-1042",
        "payload": {"amount": 990},
        "at": ago(minutes=3),
        "by": "web-1",
        "outcome": "ambiguous",
    }
    return _flushed(session, SignalRecord(**defaults | values))


def make_one_of_each(session: Session) -> dict[str, Job]:
    """A job of every state with attempts, an output, two workers, the loops,
    a paused queue, a batch and a decision.
    """
    more: dict[str, dict[str, Any]] = {"failed": {"dispatch_no": 2, "attempt": 2}}
    jobs = {state: _job(state, **more.get(state, {})) for state in STATES}
    session.add_all(jobs.values())
    session.flush()
    failed, started = jobs["failed"], jobs["started"]
    worker = _worker(reserved=[f"{started.id}-1"])
    session.add_all([worker, _worker("missing")])
    session.flush()
    started.worker_id = worker.id
    failed.batch_id = make_batch(session, "failed").id
    died = {"dispatch_no": 1, "attempt": 1, "cause_of_death": "signal 9"}
    progress = {"progress_done": 3, "progress_total": 9, "progress_note": "on it"}
    minute = ago(minutes=5).replace(second=0, microsecond=0)
    # At once, since a statement for each row costs more than the row.
    session.add_all(
        [
            _attempt(failed, "died", **died),
            _attempt(failed, traceback=TRACEBACK, log_tail="no answer for 30 s"),
            _attempt(jobs["retryable"]),
            _attempt(jobs["finished"], "returned"),
            _attempt(started, None, **progress),
            _output(jobs["finished"], {"pages": 14}),
            *_loops(),
            _integrity_check(),
            _limiter(),
            Queue(name="paused one", created_at=ago(days=1), **paused()),
            Depth(minute=minute, queue="default", due=3),
        ]
    )
    session.flush()
    make_entry(session, jobs["queued"])
    # Its jobs are removed: the tests of other pages count jobs.
    make_run(session, {"fetch": 900_001, "wait": 900_002}, on_end={"task": "report"})
    make_signal(session)
    make_event(session)
    session.commit()
    return jobs
