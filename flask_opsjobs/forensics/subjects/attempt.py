"""Tells of one attempt of a job, such as `attempt/42-3`: the run that began with dispatch 3 of job 42."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime

from sqlalchemy.orm import Session

from ...core.db import LARGEST_ID
from ...core.history import Event
from ...core.round_trips import start_reading
from ...core.words import moment, took
from ...jobs.history import outcome_of, source_of, tell_attempts
from ...jobs.lifecycle import DEATHS
from ...jobs.queries import find_job, find_log, find_traceback, has_newer_job
from ...jobs.rows import AttemptRow
from ...workers.queries import WorkerRow
from ..bundle import (
    Column,
    EvidenceTable,
    Expected,
    Inquiry,
    Kind,
    Related,
    TableRow,
    Told,
    WatchedSpan,
)
from .job import read_stored_job

_KEY = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")


def _read_key(key: str) -> str | None:
    match = _KEY.fullmatch(key)
    if match is None or max(int(match[1]), int(match[2])) > LARGEST_ID:
        return None
    return f"{int(match[1])}-{int(match[2])}"


def _split(key: str) -> tuple[int, int]:
    job_id, dispatch_no = key.split("-")
    return int(job_id), int(dispatch_no)


def _tell(inquiry: Inquiry) -> Told | None:
    job_id, dispatch_no = _split(inquiry.key)
    texts = start_reading(inquiry.session, _read_texts, job_id, dispatch_no)
    stored = read_stored_job(inquiry.session, job_id, may_see_operations=False)
    attempts = (
        [each for each in stored.attempts if each.dispatch_no == dispatch_no] if stored else ()
    )
    if stored is None or not attempts:
        return None
    (attempt,) = attempts
    job = stored.job
    worker = stored.worker if attempt.ended_at is None else None
    events = list(tell_attempts(job, [attempt]))
    if worker is not None:
        text = f"Last heartbeat of {worker.name}"
        subject = f"worker/{worker.name}"
        events.append(Event(worker.heartbeat_at, "seen", text, "worker", subject=subject))
    return Told(
        title=f"Attempt {attempt.number} of job {job_id}",
        state=outcome_of(attempt, job).text,
        diagnosis=_diagnose(attempt),
        quote=attempt.error,
        since=attempt.started_at,
        until=attempt.ended_at or inquiry.now,
        events=events,
        pieces=list(_list_pieces(attempt)),
        watches=list(_list_watches(attempt, worker, inquiry.now)),
        evidence=[_make_facts(attempt), _make_texts(attempt, texts.value)],
        related=[
            Related("Job", str(job_id), f"job/{job_id}", job.state),
            Related("Task", job.task, f"task/{job.task}"),
            Related("Worker", attempt.worker, f"worker/{attempt.worker}"),
        ],
        targets=[f"job/{job_id}"],
    )


def _diagnose(attempt: AttemptRow) -> str:
    if attempt.outcome is None:
        return f"It runs on {attempt.worker} since {moment(attempt.started_at)}."
    ran = took(((attempt.ended_at or attempt.started_at) - attempt.started_at).total_seconds())
    if attempt.death is not None:
        return f"It died after {ran}: {DEATHS[attempt.death]}."
    return f"It ended after {ran}: {attempt.outcome.replace('_', ' ')}."


def _list_pieces(attempt: AttemptRow) -> Iterator[Expected]:
    if attempt.outcome == "lost":
        yield Expected(
            "How it ended, and its last lines of log: its worker was lost",
            is_found=False,
            since=attempt.started_at,
            until=attempt.ended_at,
        )
    elif attempt.death == "unknown":
        yield Expected(
            "How it ended: nobody saw it",
            is_found=False,
            since=attempt.ended_after,
            until=attempt.ended_at,
        )


def _list_watches(
    attempt: AttemptRow, worker: WorkerRow | None, now: datetime
) -> Iterator[WatchedSpan]:
    if attempt.ended_at is None and worker is not None and worker.kind == "pool":
        says = f"Whether {worker.name} still runs it is not known."
        yield WatchedSpan("watch", says, min(worker.heartbeat_at, now), now)
    elif attempt.ended_at is None:
        says = "Whether it still runs is not known."
        yield WatchedSpan("adopt", says, attempt.started_at, now, needs=("redis_away",))
    elif attempt.outcome == "lost":
        says = "When its worker was lost is not known."
        yield WatchedSpan("watch", says, attempt.started_at, attempt.ended_at)


def _make_facts(attempt: AttemptRow) -> EvidenceTable:
    facts = {
        "dispatch": str(attempt.dispatch_no),
        "worker": attempt.worker,
        "process": None if attempt.pid is None else str(attempt.pid),
        "RQ's execution": attempt.execution_id,
        "cause of death": attempt.cause_of_death,
        **{
            f"death: {name.replace('_', ' ')}": str(value)
            for name, value in sorted((attempt.death_facts or {}).items())
        },
        "peak memory in kB": None if attempt.max_rss_kb is None else f"{attempt.max_rss_kb:,}",
        "progress": _say_progress(attempt),
        "reported by": source_of(attempt),
    }
    rows = [TableRow((name, value)) for name, value in facts.items() if value]
    return EvidenceTable("What is recorded", (Column("what"), Column("value")), rows)


def _say_progress(attempt: AttemptRow) -> str | None:
    if attempt.progress_done is None:
        return None
    total = "" if attempt.progress_total is None else f" of {attempt.progress_total:,}"
    return f"{attempt.progress_done:,}{total}"


def _read_texts(session: Session, job_id: int, number: int) -> dict[str, str | None]:
    """The long texts of an attempt, which lists of attempts leave out."""
    log = start_reading(session, find_log, job_id, number)
    return {"traceback": find_traceback(session, job_id, number), "log": log.value}


def _make_texts(attempt: AttemptRow, long: Mapping[str, str | None]) -> EvidenceTable:
    """What it said itself: all of it is payload."""
    texts = {"progress note": attempt.progress_note, "error": attempt.error, **long}
    rows = [TableRow((name, text)) for name, text in texts.items() if text]
    columns = (Column("what"), Column("text", "payload", shows_end=True))
    return EvidenceTable("What it said", columns, rows)


def _was_there(inquiry: Inquiry) -> bool:
    """Whether the job's id was given out once, and the job is gone: then its attempts are gone with it."""
    job_id, _ = _split(inquiry.key)
    numbering = start_reading(inquiry.session, has_newer_job, job_id)
    is_stored = find_job(inquiry.session, job_id) is not None
    return not is_stored and numbering.value


KIND = Kind("attempt", "jobs.view", _read_key, _tell, _was_there)
