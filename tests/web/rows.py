"""Rows of every state, written by ORM: pages must show each of them, and shapes no writer of ours would
leave behind (markup, secrets, the far past) are asked for by name. What the real writers write is shown
by `tests/browser/`, which runs jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from flask_opsjobs.escalations.models import EscalationRecord
from flask_opsjobs.failures.models import (
    Deploy,
    Failure,
    FailureDeploy,
    FailureHour,
    FailureMinute,
    TaskDeath,
    TaskEnd,
)
from flask_opsjobs.jobs.adopted.models import RqFacts
from flask_opsjobs.jobs.lifecycle import FINAL, STATES
from flask_opsjobs.jobs.models import Attempt, Job, Output
from flask_opsjobs.lifeline.detectors import detector_of
from flask_opsjobs.lifeline.finding import fingerprint_of
from flask_opsjobs.lifeline.models import EvidenceRecord, IncidentRecord, IntegrityCheck, LoopRun
from flask_opsjobs.limits.models import Lease, Limiter
from flask_opsjobs.operations.lifecycle import RESULTS
from flask_opsjobs.operations.models import Operation, OperationRow
from flask_opsjobs.overview.models import Depth
from flask_opsjobs.queues.models import Queue
from flask_opsjobs.tasks.models import TaskHour, TaskMinute, TaskPause
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
    "adopt",
    "retain",
    "roll_up",
    "check_integrity",
    "detect",
    "escalate",
)
# Lets every preview expire at once: its `created_at` is signed, and Postgres' clock is not a test's to move.
EXPIRE_PREVIEWS = (
    """UPDATE opsjobs.previews SET expires_at = created_at + interval '1 microsecond'"""
)
ENDS = {"finished": "returned", "failed": "exhausted", "canceled": "canceled", "unknown": "unseen"}
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


_PAUSE = {
    "paused_at": ago(hours=1),
    "paused_by": "anna",
    "paused_reason": "the vendor is away",
}


def clock(moment: datetime | None) -> str:
    """The time of day as pages show it: with the day, when that is not today."""
    assert moment is not None
    moment = moment.astimezone(UTC)
    is_today = moment.date() == datetime.now(UTC).date()
    return f"{moment:%H:%M:%S}" if is_today else f"{moment:%Y-%m-%d %H:%M:%S}"


def paused() -> dict[str, Any]:
    """The columns of a queue that somebody paused."""
    return {"is_paused": True, **_PAUSE}


def make_pause(task: str) -> TaskPause:
    """The row of a task that somebody paused."""
    return TaskPause(task=task, **_PAUSE)


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
    if values.get("origin") == "rq" or state == "unknown":
        defaults |= {"origin": "rq", "rq_place": "default", "rq_id": f"rq-job-{next(_numbers)}"}
    merged = defaults | values
    return Job(**merged | {"lane": merged.get("lane", merged["queue"])})


def _flushed(session: Session, row: T) -> T:
    session.add(row)
    session.flush()
    return row


def make_chain(session: Session, parent_state: str = "failed") -> tuple[Job, Job]:
    """Two plain RQ jobs: a parent of a state, and one that waits for it and for a job that is gone."""
    parent = make_job(session, parent_state, origin="rq")
    child = make_job(session, "deferred", origin="rq")
    for job, parents in ((parent, []), (child, [str(parent.rq_id), "gone"])):
        facts = RqFacts(
            job_id=job.id, depends_on=parents, created_source="rq", changed_at=ago(minutes=1)
        )
        _flushed(session, facts)
    return parent, child


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
    failed, finished = values.pop("failed", 2), values.pop("finished", 7)
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
    for end, ended_by, number in (
        ("finished", "returned", finished),
        ("failed", "exhausted", failed),
    ):
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
        "version": "0.1",
        "deploy_version": "2026.11.3",
        "queues": ["default"],
        "state": state,
        "started_at": ago(hours=3),
        "heartbeat_at": ago(seconds=2) if state == "alive" else ago(minutes=2),
        "rss_kb": 84_000,
        "ended_at": ago(minutes=1) if state in ("missing", "stopped") else None,
    }
    return Worker(**defaults | values)


def make_deploy(session: Session, version: str = "2026.11.3", **values: Any) -> Deploy:
    """A deploy marker, flushed."""
    defaults: dict[str, Any] = {"version": version, "at": ago(minutes=20), "source": "command"}
    return _flushed(session, Deploy(**defaults | values))


def make_failure(session: Session, task: str = "send_invoice", **values: Any) -> Failure:
    """An open failure by which two jobs failed, with one attempt in this hour, flushed; `values` win."""
    number = next(_numbers)
    defaults: dict[str, Any] = {
        "key": number.to_bytes(16, "big"),
        "task": task,
        "type": "builtins.KeyError",
        "title": "KeyError: 'signature'",
        "sample_job_id": number,
        "sample_dispatch_no": 1,
        "created_at": ago(days=3),
        "number": 3,
        "jobs": 2,
        "job_failed_at": ago(minutes=2),
        "first_at": ago(days=3),
        "last_at": ago(minutes=2),
    }
    failure = _flushed(session, Failure(**defaults | values))
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    session.add(FailureHour(failure_id=failure.id, hour=hour, number=1))
    session.flush()
    return failure


def make_loops(session: Session, **values: Any) -> None:
    """Every loop, running, flushed."""
    session.add_all(_loops(**values))
    session.flush()


def _loops(**values: Any) -> list[LoopRun]:
    defaults: dict[str, Any] = {
        "process": "web-1:17",
        "started_at": ago(hours=3),
        # Before the time as of which a test reads pages, also when that is the begin of this minute.
        "last_at": ago(minutes=1),
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


def make_entry_of(
    session: Session,
    name: str,
    task: str,
    at: datetime,
    slots: Sequence[Slot] = (),
    *,
    expression: str = "*/10 * * * *",
    overlap: str = "skip",
) -> None:
    """A cron entry of a task, whose slots from `at` on have no result yet, by its writers. Not committed."""
    connection: Any = session.connection().connection.driver_connection
    schedule = Schedule(expression, "Europe/Paris")
    entry = EntryDeclaration(name, task, schedule, overlap, "all", 3, {"account_id": 42})
    cron_transitions.create(connection, entry, "runtime", "ops-demo", at)
    (row,) = cron_transitions.read(connection, [name]).values()
    for slot in slots:
        cron_transitions.write_result(connection, row, slot, datetime.now(UTC))


def make_entry(session: Session, job: Job) -> None:
    """A cron entry named as the queue of `job`, which runs for one of its slots, by its writers.

    Not committed.
    """
    then = ago(hours=2).replace(minute=0, second=0, microsecond=0)
    slots = (
        Slot(then, "ran", job_id=job.id),
        Slot(
            then + timedelta(minutes=10),
            "missed",
            "the cron loop did not run",
            until_at=then + timedelta(minutes=30),
            slots=3,
        ),
        Slot(then + timedelta(minutes=40), "skipped_overlap", f"job {job.id} had not ended"),
    )
    make_entry_of(session, job.queue, "send_invoice", then, slots)
    connection: Any = session.connection().connection.driver_connection
    cron_transitions.pause(
        connection, job.queue, "ops-demo", "the vendor times out", ago(minutes=5)
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


# The facts of one incident of each class whose words the tests read.
FACTS: dict[str, dict[str, Any]] = {
    "loop_failing": {"loop": "stage", "process": "web-1:17", "failed": 5, "error": "KeyError: 'x'"},
    "loop_silent": {"loop": "cron", "process": "web-1:17", "last_at": "2026-11-25T14:00:00+00:00"},
    "queue_unserved": {"queue": "reports", "number": 2, "due_at": "2026-11-25T14:00:00+00:00"},
    "worker_missing": {
        "worker": "web-1:7",
        "kind": "pool",
        "host": "web-1",
        "last_at": "2026-11-25T14:00:00+00:00",
        "jobs": [],
        "has_more_jobs": False,
        "is_deploy": False,
    },
    "redis_away": {"place": "default", "why": "Connection refused", "has_plain_workers": False},
}


def make_escalation(
    session: Session, incident: IncidentRecord, state: str = "invoked", **values: Any
) -> EscalationRecord:
    """What the escalation policy was told about an incident, flushed; `values` win."""
    job_id = None if state == "unconfigured" else 900_003
    defaults: dict[str, Any] = {
        "incident_id": incident.id,
        "episode": incident.episode,
        "event": "opened",
        "state": state,
        "job_id": job_id,
        "decided_at": ago(minutes=8),
        "ended_at": None if state == "pending" else ago(minutes=7),
        "reference": "OPS-1421" if state == "invoked" else None,
        "why": "URLError: the pager does not answer" if state == "failed" else None,
    }
    return _flushed(session, EscalationRecord(**defaults | values))


def make_incident(
    session: Session,
    class_: str = "loop_failing",
    state: str = "open",
    *,
    reason: str = "known to all of us",
    **values: Any,
) -> IncidentRecord:
    """An incident with two rows of evidence, flushed; `values` win. `reason` is of its acknowledgement."""
    facts = {**FACTS.get(class_, {}), **values.pop("facts", {})}
    subject = values.get("subject", f"loop/{facts.get('loop', next(_numbers))}")
    defaults: dict[str, Any] = {
        "class_": class_,
        "subject": subject,
        "fingerprint": fingerprint_of(class_, subject),
        "severity": detector_of(class_).severity,
        "state": state,
        # Far from 512 s and 1,024 s, from which on its drawing has another step.
        "first_at": ago(minutes=12),
        "opened_at": ago(minutes=12),
        "seen_at": ago(seconds=3),
        "facts": facts,
    }
    if state == "acknowledged":
        defaults |= {
            "acknowledged_by": "k.lind",
            "acknowledged_at": ago(minutes=5),
            "acknowledged_until": ago(hours=-2),
            "acknowledged_reason": reason,
            "acknowledged_severity": defaults["severity"],
            "acknowledged_affected": 0,
        }
    if state == "resolved":
        defaults |= {"resolved_at": ago(minutes=1), "resolved_by": "cleared"}
    incident = _flushed(session, IncidentRecord(**defaults | values))
    for kind, source, seen in (
        ("opened", "detect", {"severity": incident.severity, "affected": 0}),
        ("pass_failed", "loop_runs", {"error": "KeyError: 'x'", "process": "web-1:17"}),
    ):
        evidence = EvidenceRecord(
            incident_id=incident.id,
            episode=incident.episode,
            kind=kind,
            first_at=incident.opened_at,
            last_at=incident.seen_at,
            source=source,
            facts=seen,
        )
        session.add(evidence)
    session.flush()
    return incident


def make_operation(session: Session, **values: Any) -> Operation:
    """An operation that is paused, with a receipt of each result but `asked`, flushed; `values` win.

    Its jobs are removed.
    """
    results = [result for result in RESULTS if result not in ("pending", "asked")]
    defaults: dict[str, Any] = {
        "state": "paused",
        "action": "job.retry",
        "actor": "l.brandt",
        "via": "page",
        "is_trusted": False,
        "query": {"state": "failed", "failure": "1"},
        "reason": "Vendor confirms the API is back, OPS-2291",
        "targets": 640,
        "stage": 2,
        **dict.fromkeys(results, 1),
        "created_at": ago(minutes=20),
        "expires_at": ago(minutes=5),
        "started_at": ago(minutes=19),
        "handled_at": ago(minutes=6),
        "paused_at": ago(minutes=5),
        "code": "redis_away",
        "says": "Redis does not answer: see incident 1",
    }
    operation = _flushed(session, Operation(**defaults | values))
    for number, result in enumerate(results, 1):
        is_skipped = result == "skipped"
        row = OperationRow(
            operation_id=operation.id,
            number=number,
            job_id=900_100 + number,
            queue="default",
            origin="opsjobs",
            state="failed",
            dispatch_no=1,
            attempt=1,
            result=result,
            code="changed" if is_skipped else None,
            says="it was failed after 1 attempts when it was frozen, and is finished after 2"
            if is_skipped
            else None,
            at=ago(minutes=7),
            proven_at=None if result in ("done", "skipped") else ago(minutes=6),
        )
        session.add(row)
    session.flush()
    return operation


def make_counted_failure(
    session: Session, jobs: Sequence[Job] = (), deploy: Deploy | None = None, **values: Any
) -> Failure:
    """A failure of the latest attempts of these jobs, the last one is its sample; counted, and flushed."""
    number = next(_numbers)
    last = jobs[-1] if jobs else None
    at = ago(minutes=15)
    defaults: dict[str, Any] = {
        "key": number.to_bytes(16, "big"),
        "task": "send_invoice" if last is None else last.task,
        "type": "GatewayTimeout",
        "title": "GatewayTimeout: no answer",
        "raised_in": "_post in billing/gateway.py",
        "sample_job_id": 1 if last is None else last.id,
        "sample_dispatch_no": 1 if last is None else last.dispatch_no,
        "created_at": at,
        "number": max(1, len(jobs)),
        "jobs": sum(job.state == "failed" for job in jobs),
        "first_at": at,
        "last_at": at,
        "first_deploy": deploy and deploy.id,
        "last_deploy": deploy and deploy.id,
    }
    merged = defaults | values
    merged.setdefault("job_failed_at", merged["last_at"] if merged["jobs"] else None)
    failure = _flushed(session, Failure(**merged))
    for job in jobs:
        attempt = session.get_one(Attempt, (job.id, job.dispatch_no))
        attempt.failure_key, attempt.is_counted = failure.key, True
    minute = failure.last_at.replace(second=0, microsecond=0)
    hour = minute.replace(minute=0)
    counts = {"failure_id": failure.id, "number": failure.number}
    session.add_all([FailureMinute(minute=minute, **counts), FailureHour(hour=hour, **counts)])
    if deploy is not None:
        spans = {"first_at": failure.first_at, "last_at": failure.last_at}
        session.add(FailureDeploy(deploy_id=deploy.id, **counts, **spans))
    session.flush()
    return failure


def make_task_hour(
    session: Session, task: str, *, minute: datetime | None = None, **values: Any
) -> None:
    """What a task did in a minute, and in its hour, flushed: 28 finished in 128 to 256 ms, and 3 failed."""
    minute = minute or ago(minutes=40).replace(second=0, microsecond=0)
    counts: dict[str, Any] = {
        "enqueued": 33,
        "finished": 28,
        "failed": 3,
        "waits": [0, 0, 0, 31],
        "runs": [0, 0, 0, 0, 0, 0, 0, 0, 31],
        "longest_run": 0.25,
        "peak_kb": 90_112,
    }
    counts |= values
    session.add(TaskMinute(task=task, minute=minute, **counts))
    session.add(TaskHour(task=task, hour=minute.replace(minute=0), **counts))
    session.flush()


def make_numbers_of_task(session: Session, task: str, **values: Any) -> None:
    """Ends of a task in the last hour, and a death for want of memory, flushed."""
    minute = ago(minutes=40).replace(second=0, microsecond=0)
    quarter = minute.replace(minute=minute.minute // 15 * 15)
    session.add(TaskEnd(task=task, quarter=quarter, finished=28, failed=3))
    make_task_hour(session, task, minute=minute)
    day = minute.replace(hour=0, minute=0)
    death: dict[str, Any] = {"death": "out_of_memory", "number": 2, "peak_kb": 498_000}
    session.add(TaskDeath(task=task, day=day, **death | {"limit_kb": 524_288} | values))
    session.flush()


def make_one_of_each(session: Session) -> dict[str, Job]:
    """A job of every state with attempts, an output, two workers, the loops,
    a paused queue, a batch, an incident, a failure and a decision.
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
            make_pause("paused task"),
            Depth(minute=minute, queue="default", due=3),
        ]
    )
    session.flush()
    make_entry(session, jobs["queued"])
    # Its jobs are removed: the tests of other pages count jobs.
    make_run(session, {"fetch": 900_001, "wait": 900_002}, on_end={"task": "report"})
    make_signal(session)
    make_event(session)
    make_escalation(session, make_incident(session))
    make_operation(session)
    make_counted_failure(session, [jobs["retryable"], failed], make_deploy(session))
    make_numbers_of_task(session, failed.task)
    session.commit()
    return jobs
