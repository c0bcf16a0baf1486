"""Tells of a job: what its rows, its attempts, operations and RQ say, and why it does not run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from ...actions.domain import name_in
from ...core.history import Event
from ...core.round_trips import StartedRead, start_reading
from ...core.words import counted
from ...cron.queries import find_slot_of
from ...engine.adopted.places import name_place
from ...engine.explain_with_redis import explain_job
from ...engine.redis.broker import rq_id
from ...explain.evidence import JobEvidence
from ...explain.queries import find_job_evidence
from ...failures.queries import FailureRow, list_failures_of_job
from ...jobs import actions as job_actions
from ...jobs.adopted.queries import AdoptedRow, find_adopted
from ...jobs.history import list_history, outcome_of, source_of
from ...jobs.lifecycle import ENDED_BY, FINAL
from ...jobs.queries import find_job, find_relations, has_newer_job, holder_of, list_attempts
from ...jobs.rows import AttemptRow, JobInFull
from ...operations.queries import ReceiptOfJob, list_receipts_of_job
from ...workers.queries import WorkerRow, find_worker
from ...workflows.queries import find_step_of
from ..bundle import (
    Column,
    EvidenceTable,
    Expected,
    Inquiry,
    Kind,
    LeftOut,
    Path,
    Related,
    TableRow,
    Told,
    WatchedSpan,
)
from ..paths import bridge

# `list_attempts` reads so many.
_MOST_ATTEMPTS = 50


@dataclass(frozen=True)
class JobWithAttempts:
    """A job with what is stored of it. `attempts` are the last ones, the newest first.

    `deciding` are the columns that decide why it waits.
    """

    job: JobInFull
    attempts: Sequence[AttemptRow]
    rq: AdoptedRow | None
    worker: WorkerRow | None
    receipts: Sequence[ReceiptOfJob]
    deciding: JobEvidence | None

    @property
    def is_with_worker(self) -> bool:
        """Whether a worker runs it, or has taken it."""
        return self.job.state == "started" or self.job.reserved_by is not None

    @property
    def is_cut(self) -> bool:
        """Whether it has older attempts than were read."""
        return len(self.attempts) == _MOST_ATTEMPTS


def read_stored_job(
    session: Session, job_id: int, may_see_operations: bool
) -> JobWithAttempts | None:
    """The job with its attempts; None when it has no row."""
    attempts = start_reading(session, list_attempts, job_id)
    adopted = start_reading(session, find_adopted, job_id)
    receipts = start_reading(session, list_receipts_of_job, job_id) if may_see_operations else None
    deciding = start_reading(session, find_job_evidence, job_id)
    holding = start_reading(session, find_worker, holder_of(job_id))
    job = find_job(session, job_id)
    if job is None:
        return None
    return JobWithAttempts(
        job,
        attempts.value,
        adopted.value if job.origin == "rq" else None,
        holding.value,
        receipts.value if receipts else (),
        deciding.value,
    )


def _read_key(key: str) -> str | None:
    target = job_actions.read_target(f"job/{key}")
    return None if target is None else name_in(target)


def _tell(inquiry: Inquiry) -> Told | None:
    session, job_id = inquiry.session, int(inquiry.key)
    failures = start_reading(session, list_failures_of_job, job_id)
    origins = inquiry.start(_list_origins, session, job_id)
    stored = read_stored_job(session, job_id, inquiry.may("operations.view"))
    if stored is None:
        return _tell_gone(inquiry)
    job = stored.job
    return Told(
        title=f"Job {job.id}",
        state=job.state,
        diagnosis=start_reading(inquiry, diagnose_job, stored),
        quote=job.error,
        since=_find_begin(stored),
        until=job.ended_at or inquiry.now,
        events=[
            *list_history(job, stored.attempts, stored.rq),
            *tell_receipts_of_job(stored.receipts),
            *_tell_heartbeat(stored),
        ],
        pieces=list(list_pieces_of_job(stored)),
        watches=list(list_watches_of_job(stored, inquiry.now)),
        evidence=[make_table_of_attempts(stored)] if stored.attempts else [],
        related=inquiry.start(_list_related, inquiry, stored, failures, origins),
        paths=list(list_bridges_of_job(inquiry, stored)),
        left_out=[LeftOut("attempts", before=stored.attempts[-1].started_at)]
        if stored.is_cut
        else [],
    )


def _find_begin(stored: JobWithAttempts) -> datetime:
    begins = [stored.job.created_at, *(attempt.started_at for attempt in stored.attempts)]
    return min(begins)


# --- in one sentence


def diagnose_job(inquiry: Inquiry, stored: JobWithAttempts) -> str:
    """What is the matter with it."""
    job = stored.job
    if job.state not in FINAL and stored.deciding is not None:
        return _say_why(inquiry, stored.deciding)
    how = ENDED_BY[job.ended_by or ""]
    word = "Nobody saw its end" if job.state == "unknown" else f"It {_ENDS[job.state]}"
    tries = f" after {len(stored.attempts)} attempts" if len(stored.attempts) > 1 else ""
    if stored.is_cut:
        tries = f" after more than {_MOST_ATTEMPTS} attempts"
    return f"{word}{tries}: {how}."


_ENDS = {"finished": "finished", "failed": "failed", "canceled": "was canceled"}


def _say_why(inquiry: Inquiry, job: JobEvidence) -> str:
    why = explain_job(inquiry.host, inquiry.session, job, inquiry.now, names_partition=False)
    if not why.reasons:
        return why.says
    first = why.reasons[0]
    quote = f" {first.by or 'it says'}: “{first.quote}”" if first.quote else ""
    return f"{first.says}{quote}"


# --- its events


def tell_receipts_of_job(receipts: Sequence[ReceiptOfJob]) -> Iterator[Event]:
    """What operations did to it."""
    for receipt in receipts:
        if receipt.at is None:
            continue
        action = receipt.action.partition(".")[2].replace("_", " ")
        again = f", as job {receipt.new_job_id}" if receipt.new_job_id else ""
        result = receipt.result.replace("_", " ")
        text = f"Operation {receipt.operation_id}, {action}: {result}{again}"
        is_ = "refused" if receipt.result == "skipped" else "seen"
        subject = f"operation/{receipt.operation_id}"
        yield Event(
            receipt.at, is_, text, "loop operate", label=receipt.says or None, subject=subject
        )


def _tell_heartbeat(stored: JobWithAttempts) -> Iterator[Event]:
    """The last sign of the worker that has it now: what came after it nobody knows."""
    worker = stored.worker
    if worker is None or worker.kind != "pool":
        return
    subject = f"worker/{worker.name}"
    yield Event(
        worker.heartbeat_at, "seen", f"Last heartbeat of {worker.name}", "worker", subject=subject
    )
    if worker.ended_at is not None:
        how = "counted as missing" if worker.state == "missing" else "stopped"
        source = "loop watch" if worker.state == "missing" else "worker"
        text = f"{worker.name} {how}"
        yield Event(worker.ended_at, worker.state, text, source, subject=subject)


# --- what should be known


def list_pieces_of_job(stored: JobWithAttempts) -> Iterator[Expected]:
    """What should be known of a job that has a row."""
    if stored.rq is not None:
        yield from _pieces_of_adopted(stored, stored.rq)
    else:
        yield from _pieces_of_dispatches(stored)
    for attempt in stored.attempts:
        if attempt.outcome == "lost":
            yield Expected(
                f"How attempt {attempt.number} ended: its worker was lost, and its last lines of log",
                is_found=False,
                since=attempt.started_at,
                until=attempt.ended_at,
            )


def _pieces_of_dispatches(stored: JobWithAttempts) -> Iterator[Expected]:
    """Each dispatch is followed by an attempt; of one that was taken back nobody notes the time."""
    job = stored.job
    begun = {attempt.dispatch_no for attempt in stored.attempts}
    first = min(begun) if stored.is_cut else 1
    # The last one may still wait, or the job ended while it waited.
    last = job.dispatch_no
    is_open = job.state == "queued" or (job.state in FINAL and last not in begun)
    taken_back = [
        number for number in range(max(first, last - 1_000), last + 1) if number not in begun
    ]
    if is_open and last in taken_back:
        taken_back.remove(last)
    if taken_back:
        named = ", ".join(map(str, taken_back[:5])) + (" and more" if len(taken_back) > 5 else "")
        word = "dispatch" if len(taken_back) == 1 else "dispatches"
        yield Expected(f"When and why {word} {named} ended without an attempt", is_found=False)


def _pieces_of_adopted(stored: JobWithAttempts, rq: AdoptedRow) -> Iterator[Expected]:
    job = stored.job
    if job.state == "unknown":
        yield Expected(
            "How it ended: RQ's record of it was gone before anybody looked",
            is_found=False,
            since=rq.ended_after,
            until=job.ended_at,
        )
    known = {attempt.number for attempt in stored.attempts}
    missing = job.attempt - len(known)
    if missing > 0 and not stored.is_cut:
        yield Expected(
            f"The first {missing} of its {job.attempt} attempts: RQ keeps the last ten",
            is_found=False,
            is_removed=True,
        )


def list_watches_of_job(stored: JobWithAttempts, now: datetime) -> Iterator[WatchedSpan]:
    """When a loop alone could have seen what became of it."""
    job, worker = stored.job, stored.worker
    if stored.rq is not None:
        yield from _watches_of_adopted(job, stored.rq, now)
    elif stored.is_with_worker and worker is not None:
        yield WatchedSpan(
            "watch",
            f"Whether {worker.name} still has it is not known.",
            min(worker.heartbeat_at, now),
            now,
        )
    elif job.state == "queued" and job.dispatched_at is not None:
        yield WatchedSpan(
            "recall",
            "Where its delivery was is not known.",
            job.dispatched_at,
            now,
            needs=("redis_away",),
        )


def _watches_of_adopted(job: JobInFull, rq: AdoptedRow, now: datetime) -> Iterator[WatchedSpan]:
    """The loop that looks into RQ sees what no worker of ours reports."""
    says = "What RQ did with it is not known."
    if job.ended_at is None:
        known = (job.created_at, job.dispatched_at, job.started_at)
        since = max(moment for moment in known if moment is not None)
        yield WatchedSpan("adopt", says, since, now, needs=("redis_away",))
    elif rq.ended_after is not None:
        yield WatchedSpan("adopt", says, rq.ended_after, job.ended_at, needs=("redis_away",))


# --- its evidence


def make_table_of_attempts(stored: JobWithAttempts) -> EvidenceTable:
    """The attempts, newest first."""
    return EvidenceTable(
        "Attempts",
        (
            Column("attempt", "number"),
            Column("end"),
            Column("worker"),
            Column("began", "moment"),
            Column("ran", "seconds"),
            Column("peak memory", "bytes"),
            Column("cause of death"),
            Column("error", "payload"),
            Column("reported by"),
        ),
        [_row_of(stored.job, attempt) for attempt in stored.attempts],
    )


def _row_of(job: JobInFull, attempt: AttemptRow) -> TableRow:
    seconds = (
        None
        if attempt.ended_at is None
        else (attempt.ended_at - attempt.started_at).total_seconds()
    )
    pid = f", process {attempt.pid}" if attempt.pid else ""
    return TableRow(
        (
            attempt.number,
            outcome_of(attempt, job).text,
            f"{attempt.worker}{pid}",
            attempt.started_at,
            seconds,
            None if attempt.max_rss_kb is None else attempt.max_rss_kb * 1024,
            attempt.cause_of_death,
            None if attempt.cause_of_death else attempt.error,
            source_of(attempt),
        ),
        f"attempt/{job.id}-{attempt.dispatch_no}",
    )


# --- what belongs to it


def _list_related(
    inquiry: Inquiry,
    stored: JobWithAttempts,
    failures: StartedRead[Sequence[FailureRow]],
    origins: StartedRead[Sequence[Related]],
) -> Iterator[Related]:
    job = stored.job
    relations = find_relations(inquiry.session, job)
    yield Related("Task", job.task, f"task/{job.task}")
    yield Related("Queue", job.queue, f"queue/{job.queue}")
    if stored.worker is not None:
        name = stored.worker.name
        yield Related("Worker", name, f"worker/{name}", stored.worker.state)
    if job.limiter is not None:
        yield Related("Limiter", job.limiter, f"limiter/{job.limiter}")
    for failure in failures.value:
        says = f"{failure.state}: {counted(failure.number, 'attempt')} of {failure.task}"
        yield Related("Failure", str(failure.id), f"failure/{failure.id}", says)
    yield from origins.value
    if job.batch_id is not None:
        yield Related("Batch", str(job.batch_id), f"batch/{job.batch_id}")
    if job.run_again_from is not None:
        says = relations.run_again_from or "deleted"
        yield Related("Run again from", str(job.run_again_from), f"job/{job.run_again_from}", says)
    for copy, state in relations.run_again_as:
        yield Related("Run again as", str(copy), f"job/{copy}", state)


def _list_origins(session: Session, job_id: int) -> Iterator[Related]:
    """The step and the cron slot that it is for, which are stored also when the job is deleted."""
    finding_slot = start_reading(session, find_slot_of, job_id)
    step = find_step_of(session, job_id)
    if step is not None:
        run = f"workflow/{step.workflow_id}"
        yield Related("Step", step.name, f"step/{job_id}", f"of {step.workflow}")
        yield Related("Workflow", str(step.workflow_id), run, step.workflow_state)
    slot = finding_slot.value
    if slot is not None:
        yield Related("Cron entry", slot.entry, f"cron/{slot.entry}")


def list_bridges_of_job(inquiry: Inquiry, stored: JobWithAttempts) -> Iterator[Path]:
    """What RQ has of it now."""
    job = stored.job
    if stored.rq is not None and job.state not in FINAL:
        yield bridge(
            inquiry, stored.rq.rq_place, stored.rq.rq_id, f"RQ says {stored.rq.rq_status}."
        )
    elif job.state == "queued" and job.reserved_by is None:
        place = name_place(inquiry.host, job.queue)
        yield bridge(inquiry, place, rq_id(job.id, job.dispatch_no), "It is its delivery.")


# --- a job whose row is gone


def _tell_gone(inquiry: Inquiry) -> Told | None:
    """What others tell of a job without a row; None when nobody does, and the id was never given out."""
    session, job_id = inquiry.session, int(inquiry.key)
    may_see_operations = inquiry.may("operations.view")
    listing = start_reading(session, list_receipts_of_job, job_id) if may_see_operations else None
    numbering = start_reading(session, has_newer_job, job_id)
    finding_origins = inquiry.start(_list_origins, session, job_id)
    slot = find_slot_of(session, job_id)
    receipts, related = listing.value if listing else (), finding_origins.value
    events = list(tell_receipts_of_job(receipts))
    if slot is not None:
        entry = f"cron/{slot.entry}"
        text = f"Enqueued for a slot of {slot.entry}"
        events.append(Event(slot.decided_at, "available", text, "loop cron", subject=entry))
        if slot.ended_at is not None and slot.job_state is not None:
            text = slot.job_state.capitalize()
            events.append(
                Event(slot.ended_at, slot.job_state, text, "run history of cron", subject=entry)
            )
    if not (receipts or related or numbering.value):
        return None
    times = [event.at for event in events]
    return Told(
        title=f"Job {job_id}",
        state=None,
        diagnosis="Its row is removed, or was never committed. Others recorded what is below.",
        since=min(times, default=inquiry.now),
        until=max(times, default=inquiry.now),
        events=events,
        pieces=[
            Expected("Its row and its attempts: they are removed", is_found=False, is_removed=True)
        ],
        related=related,
        is_gone=True,
    )


KIND = Kind("job", "jobs.view", _read_key, _tell)
