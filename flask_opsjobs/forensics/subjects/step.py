"""Tells of a step of a workflow, by the id of its job: its attempts, and what it waited for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...core.history import Event
from ...core.round_trips import StartedRead, start_reading
from ...core.words import counted
from ...jobs.history import list_history
from ...jobs.models import Job
from ...jobs.queries import find_job
from ...workflows import queries
from ...workflows.queries import RunInFull, SignalRow, StepInFull, StepRow
from ..backlog import watch_backlog
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
from .by_id import read_id, was_numbered
from .job import (
    JobWithAttempts,
    diagnose_job,
    list_bridges_of_job,
    list_pieces_of_job,
    list_watches_of_job,
    make_table_of_attempts,
    read_stored_job,
    tell_receipts_of_job,
)
from .workflow import list_offered, list_signals_to_give, tell_signal

_MOST_NEIGHBOURS = 20


@dataclass(frozen=True)
class _Found:
    """What is stored of a step. `stored` is None when its job was deleted."""

    run: RunInFull
    step: StepRow
    more: StepInFull
    stored: JobWithAttempts | None
    signals: StartedRead[Sequence[SignalRow]]
    before: Sequence[StepRow]
    after: Sequence[StepRow]


def _tell(inquiry: Inquiry) -> Told | None:
    found = _read(inquiry)
    if found is None:
        return None
    run, step = found.run.row, found.step
    return Told(
        title=f"Step {step.name} of workflow {run.id}",
        state=step.state,
        diagnosis=start_reading(inquiry, _diagnose, found),
        quote=found.stored.job.error if found.stored is not None else None,
        since=run.created_at,
        until=step.ended_at or inquiry.now,
        events=inquiry.start(_list_events, found),
        pieces=inquiry.start(_list_expected, inquiry, found),
        watches=inquiry.start(_list_watches, inquiry, found),
        evidence=[*_make_tables(found)],
        related=[*_relate(found)],
        paths=inquiry.start(_list_paths, inquiry, found),
        left_out=[LeftOut("attempts", before=found.stored.attempts[-1].started_at)]
        if found.stored is not None and found.stored.is_cut
        else [],
        targets=[f"job/{step.id}", f"workflow/{run.id}"],
        offered=list_offered(run, {} if step.is_removed else {step.id: step.state}),
    )


def _read(inquiry: Inquiry) -> _Found | None:
    session, job_id = inquiry.session, int(inquiry.key)
    may_see_operations = inquiry.may("operations.view")
    storing = start_reading(session, read_stored_job, job_id, may_see_operations)
    finding = start_reading(session, queries.find_step, job_id)
    beside = start_reading(session, queries.list_neighbours, job_id, _MOST_NEIGHBOURS)
    finding_run = start_reading(session, queries.find_run, queries.run_of(job_id))
    step = queries.find_step_row(session, job_id)
    more, run = finding.value, finding_run.value
    if step is None or more is None or run is None:
        return None
    waits = [step] if step.kind == "wait" else []
    signals = start_reading(session, queries.list_signals_for, waits)
    return _Found(run, step, more, storing.value, signals, *beside.value)


def _diagnose(inquiry: Inquiry, found: _Found) -> str:
    """What its job's bundle says."""
    if found.stored is not None:
        return diagnose_job(inquiry, found.stored)
    settled = found.step.settled
    return f"Its job was deleted{f'; the step was {settled}' if settled else ''}."


# --- what happened


def _list_events(found: _Found) -> Iterator[Event]:
    yield from _of_step(found)
    yield from _of_job(found)
    yield from map(tell_signal, found.signals.value)


def _of_step(found: _Found) -> Iterator[Event]:
    step = found.step
    if step.opened_at is not None:
        text = f"It began to wait for {' or '.join(step.signals or ())}"
        yield Event(step.opened_at, "deferred", text, "advance")
    if step.released_at is not None:
        text = "Released: all steps that it waits for have ended" if found.before else "Released"
        yield Event(step.released_at, "available", text, "advance")
    for other in found.before:
        if other.ended_at is not None:
            text = f"Step {other.name}, which it waited for, ended: {other.state}"
            subject = f"step/{other.id}"
            yield Event(other.ended_at, other.state, text, "worker", subject=subject)


def _of_job(found: _Found) -> Sequence[Event]:
    stored = found.stored
    if stored is None:
        return ()
    return [*list_history(stored.job, stored.attempts), *tell_receipts_of_job(stored.receipts)]


# --- what should be there


def _list_expected(inquiry: Inquiry, found: _Found) -> Iterator[Expected]:
    step, stored = found.step, found.stored
    yield Expected(
        "its job, with attempts, error and result: it was deleted",
        is_found=stored is not None,
        is_removed=True,
        since=found.run.row.created_at,
    )
    if stored is None:
        return
    yield from list_pieces_of_job(stored)
    yield Expected(
        "the signal that ended it: it was removed",
        is_found=step.ended_by != "signaled"
        or any(each.taken_by == step.id for each in found.signals.value),
        is_removed=True,
        since=step.opened_at,
        until=step.ended_at,
    )

    yield Expected(
        "whether it was canceled when its workflow ended before: only its last end is stored",
        is_found=not _may_have_been_canceled(inquiry, found),
        since=found.run.row.created_at,
    )


def _may_have_been_canceled(inquiry: Inquiry, found: _Found) -> bool:
    """Whether its workflow was reopened, and nothing tells that the step was released before that.

    A step that was canceled because of one before it has no attempt of that time, and its end is overwritten.
    """
    row, released_at = found.run.row, found.step.released_at
    earlier = row.end_no - (row.ended_at is not None)
    if earlier < 1 or not found.before or _has_run_twice(found):
        return False
    ends = queries.list_callbacks(inquiry.session, row.id)
    times = [each.created_at for each in ends if each.created_at and each.end_no <= earlier]
    return released_at is None or len(times) < earlier or released_at > min(times)


def _has_run_twice(found: _Found) -> bool:
    return found.stored is not None and len(found.stored.attempts) > 1


def _list_watches(inquiry: Inquiry, found: _Found) -> Iterator[WatchedSpan]:
    step = found.step
    if found.stored is not None:
        yield from list_watches_of_job(found.stored, inquiry.now)
    if step.state == "deferred":
        lacks = "Whether it may run, or has timed out, is not looked at."
        yield watch_backlog(inquiry, "advance", lacks, found.run.row.created_at)
    elif step.ended_at is not None and step.settled is None:
        lacks = "Its end is not passed on to the steps that wait for it."
        yield watch_backlog(inquiry, "advance", lacks, step.ended_at)


# --- evidence, and what is related


def _make_tables(found: _Found) -> Iterator[EvidenceTable]:
    if found.stored is not None and found.stored.attempts:
        yield make_table_of_attempts(found.stored)
    neighbours = [("waited for", each) for each in found.before]
    neighbours += [("waits for it", each) for each in found.after]
    if neighbours:
        yield EvidenceTable(
            "The steps beside it",
            [Column("step"), Column("how"), Column("state"), Column("ended", "moment")],
            [
                TableRow([step.name, how, step.state, step.ended_at], f"step/{step.id}")
                for how, step in neighbours
            ],
            LeftOut("more such steps")
            if _MOST_NEIGHBOURS in (len(found.before), len(found.after))
            else None,
        )


def _relate(found: _Found) -> Iterator[Related]:
    run, step = found.run.row, found.step
    says = f"{run.state}, {counted(run.steps, 'step')}"
    yield Related("Workflow", f"{run.id} {run.name}", f"workflow/{run.id}", says)
    if found.stored is not None:
        job = found.stored.job
        yield Related("Job", str(step.id), f"job/{step.id}", job.state)
        yield Related("Task", job.task, f"task/{job.task}")
        yield Related("Queue", job.queue, f"queue/{job.queue}")
    if found.more.settled_by is not None:
        because = f"step/{found.more.settled_by}"
        yield Related("Canceled because of", because.replace("/", " "), because)
    if step.map_of is not None:
        yield Related("Added by the map", f"step {step.map_of}", f"step/{step.map_of}")
    for how, steps in (("Waits for", found.before), ("Waited for by", found.after)):
        for other in steps:
            yield Related(how, f"step {other.name}", f"step/{other.id}", other.state)


def _list_paths(inquiry: Inquiry, found: _Found) -> Iterator[Path]:
    if found.step.is_open_wait:
        yield from list_signals_to_give(inquiry, found.run.row, found.step, found.signals.value)
    if found.stored is not None:
        yield from list_bridges_of_job(inquiry, found.stored)


def _was_there(inquiry: Inquiry) -> bool:
    """Whether a job with its id was there and is gone: nobody can say that it was no step."""
    numbering = start_reading(inquiry, was_numbered, Job.id)
    is_there = find_job(inquiry.session, int(inquiry.key)) is not None
    return not is_there and numbering.value


def _find_other(inquiry: Inquiry) -> tuple[str, Related] | None:
    """The job with its id, which belongs to no workflow."""
    job = find_job(inquiry.session, int(inquiry.key)) if inquiry.may("jobs.view") else None
    if job is None:
        return None
    says = f"Job {job.id} is no step of a workflow: look at job/{job.id} instead."
    return says, Related("Job", str(job.id), f"job/{job.id}", job.state)


KIND = Kind("step", "workflows.view", read_id, _tell, _was_there, _find_other)
