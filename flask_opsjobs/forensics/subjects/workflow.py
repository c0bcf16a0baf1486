"""Tells of a workflow, one run of it: its steps with their attempts, its signals, ends and callbacks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from ...actions.registry import ACTIONS
from ...core.history import Event
from ...core.round_trips import StartedRead, start_reading
from ...core.words import counted
from ...explain.explain import explain_run
from ...explain.queries import find_run_evidence
from ...jobs.actions import actions_of_job
from ...jobs.lifecycle import ENDED_BY as ENDED_BY_OF_JOB
from ...workflows import queries
from ...workflows.actions import actions_of_run
from ...workflows.held_up import doing_of
from ...workflows.lifecycle import ENDED_BY, OUTCOMES
from ...workflows.models import WorkflowRecord
from ...workflows.queries import (
    Attempt,
    CallbackRow,
    HeldUpBy,
    RunInFull,
    RunRow,
    SignalRow,
    StepRow,
)
from ..backlog import expect_earlier_ends, watch_backlog
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
from ..paths import make_path
from .by_id import read_id, was_numbered

# Of a larger run, the steps are read that tell most.
MOST_STEPS = 100
_MOST_SHOWN = 50
# Who ends a step, by ended_by: else its worker.
_BY_OPERATOR = ("canceled", "discarded", "skipped")
_BY_ADVANCE = ("dependency", "result_missing", "too_large", "deadline")
# By signals.outcome, its look in a timeline.
_LOOKS = {"early": "waiting", "taken": "finished", "ambiguous": "failed"}


@dataclass(frozen=True)
class _Found:
    """What is stored of a run. `cause` is the step that ended it, `held` the one that holds it up."""

    run: RunInFull
    listing: StartedRead[Sequence[StepRow]]
    attempts: StartedRead[Mapping[int, Sequence[Attempt]]]
    signals: StartedRead[Sequence[SignalRow]]
    callbacks: Sequence[CallbackRow]
    cause: StepRow | None
    held: HeldUpBy | None

    @property
    def row(self) -> RunRow:
        """The run as lists show it."""
        return self.run.row

    @property
    def steps(self) -> Sequence[StepRow]:
        """Its steps; of a large run, those that tell most."""
        return self.listing.value


def _tell(inquiry: Inquiry) -> Told | None:
    found = _read(inquiry.session, int(inquiry.key))
    if found is None:
        return None
    row, cause, held = found.row, found.cause, found.held
    helped = {cause.id: cause.state} if cause is not None and not cause.is_removed else {}
    helped |= {held.id: held.state} if held is not None else {}
    calls = [each.created_at for each in found.callbacks if each.created_at is not None]
    return Told(
        title=f"Workflow {row.id}: {row.name}",
        state=row.state,
        diagnosis=start_reading(inquiry, _diagnose, row),
        since=row.created_at,
        until=inquiry.now if row.ended_at is None else max([row.ended_at, *calls]),
        events=inquiry.start(_list_events, found),
        pieces=inquiry.start(_list_expected, found),
        watches=inquiry.start(_list_watches, inquiry, row),
        evidence=inquiry.start(_make_tables, found),
        related=inquiry.start(_relate, inquiry, found),
        paths=inquiry.start(_list_paths, inquiry, found),
        left_out=inquiry.start(_leave_out, found),
        targets=[f"job/{id}" for id in helped],
        offered=list_offered(row, helped),
    )


def _read(session: Session, id: int) -> _Found | None:
    calling = start_reading(session, queries.list_callbacks, id)
    causing = start_reading(session, queries.find_step_that_ended, id)
    holding = start_reading(session, queries.find_frontiers, [id])
    run = queries.find_run(session, id)
    if run is None:
        return None
    is_small = run.row.steps <= MOST_STEPS
    listing = (
        start_reading(session, queries.list_steps, id)
        if is_small
        else start_reading(session, queries.list_telling_steps, id, MOST_STEPS)
    )
    return _Found(
        run,
        listing,
        start_reading(session, _list_attempts, listing),
        start_reading(session, _list_signals, listing),
        calling.value,
        causing.value,
        holding.value.get(id) if run.row.is_open else None,
    )


def _list_attempts(
    session: Session, listing: StartedRead[Sequence[StepRow]]
) -> Mapping[int, Sequence[Attempt]]:
    return queries.list_attempts_of_steps(session, [step.id for step in listing.value])


def _list_signals(session: Session, listing: StartedRead[Sequence[StepRow]]) -> Sequence[SignalRow]:
    waits = [step for step in listing.value if step.kind == "wait"]
    return queries.list_signals_for(session, waits)


def _diagnose(inquiry: Inquiry, row: RunRow) -> str:
    """What `flask opsjobs why` says of it, and what it cannot be advanced for."""
    evidence = find_run_evidence(inquiry.session, row.id, inquiry.now, inquiry.host.settings)
    says = "" if evidence is None else explain_run(evidence, inquiry.now).says
    return f"{says} {row.trouble}" if row.trouble else says


# --- what happened


def _list_events(found: _Found) -> Iterator[Event]:
    yield from _of_steps(found)
    yield from map(tell_signal, found.signals.value)
    yield from _of_run(found)


def _of_run(found: _Found) -> Iterator[Event]:
    row = found.row
    again = found.run.run_again_from
    text = f"Started with {counted(row.steps, 'step')}"
    text += f", to run workflow {again} again" if again else ""
    yield Event(row.created_at, "available", text, "operator" if again else "host")
    if row.cancel_requested_at is not None:
        text = f"{row.cancel_requested_by or 'somebody'} asked to cancel it"
        yield Event(row.cancel_requested_at, "canceled", text, "operator", label=row.cancel_reason)
    if row.ended_at is not None:
        text = f"{row.state.capitalize()}: {ENDED_BY[row.ended_by or '']}"
        yield Event(row.ended_at, row.state, text, "advance")
    for callback in found.callbacks:
        if callback.created_at is not None:
            text = f"Job {callback.job_id} was enqueued, to report end {callback.end_no}"
            subject = f"job/{callback.job_id}"
            yield Event(callback.created_at, "available", text, "advance", subject=subject)


def _of_steps(found: _Found) -> Iterator[Event]:
    for step in found.steps:
        subject = f"step/{step.id}"
        attempts = found.attempts.value.get(step.id, ())
        if step.ended_at is not None:
            how = ENDED_BY_OF_JOB[step.ended_by or ""]
            text = f"Step {step.name} " + (
                "was canceled" if how == step.state else f"{step.state}: {how}"
            )
            yield Event(step.ended_at, step.state, text, _ender(step), subject=subject)
        for number, (started_at, ended_at, outcome) in enumerate(attempts, 1):
            text = f"Step {step.name}: attempt {number}"
            # The end of the last attempt is the end of the step, which is told above.
            if ended_at is not None and ended_at != step.ended_at:
                ended = f"{text} ended: {outcome}"
                yield Event(ended_at, "retryable", ended, "worker", subject=subject)
            yield Event(started_at, "started", f"{text} began", "worker", subject=subject)
        if step.opened_at is not None:
            signals = " or ".join(step.signals or ())
            text = f"Step {step.name} began to wait for {signals}"
            yield Event(step.opened_at, "deferred", text, "advance", subject=subject)
        if step.released_at is not None:
            text = f"Step {step.name} was released"
            yield Event(step.released_at, "available", text, "advance", subject=subject)


def _ender(step: StepRow) -> str:
    """Who ended a step."""
    if step.ended_by in _BY_OPERATOR:
        return "operator"
    return "advance" if step.kind == "wait" or step.ended_by in _BY_ADVANCE else "worker"


def tell_signal(signal: SignalRow) -> Event:
    """A signal, when it came, and what became of it."""
    times = f", and {counted(signal.duplicates, 'duplicate')} later" if signal.duplicates else ""
    return Event(
        signal.at,
        _LOOKS.get(signal.outcome, "late"),
        f"Signal {signal.name} came: {OUTCOMES[signal.outcome]}{times}",
        signal.by,
        subject=f"step/{signal.taken_by}" if signal.taken_by else None,
    )


def _leave_out(found: _Found) -> Iterator[LeftOut]:
    rest = found.row.steps - len(found.steps)
    if rest > 0 and len(found.steps) == MOST_STEPS:
        yield LeftOut("steps that tell less", number=rest)


# --- what should be there


def _list_expected(found: _Found) -> Iterator[Expected]:
    row = found.row
    for step in found.steps:
        if step.is_removed:
            yield Expected(
                f"the job of step {step.name}: it was deleted", is_found=False, is_removed=True
            )
    taken = {signal.taken_by for signal in found.signals.value}
    for step in found.steps:
        if step.ended_by == "signaled" and step.id not in taken:
            yield Expected(
                f"the signal that ended step {step.name}: it was removed",
                is_found=False,
                is_removed=True,
                since=step.opened_at,
                until=step.ended_at,
            )
    for callback in found.callbacks:
        if callback.state is None:
            yield Expected(
                f"the job that reported end {callback.end_no}: it was deleted",
                is_found=False,
                is_removed=True,
            )
    yield from expect_earlier_ends(row, found.callbacks)


def _list_watches(inquiry: Inquiry, row: RunRow) -> Iterator[WatchedSpan]:
    if row.is_open:
        lacks = "Steps that ended, signals that came and deadlines that passed may wait to be seen."
        yield watch_backlog(inquiry, "advance", lacks, row.created_at)


# --- evidence, and what is related


def _make_tables(found: _Found) -> Iterator[EvidenceTable]:
    row = found.row
    ends = {"finished": row.finished, "failed": row.failed, "canceled": row.canceled}
    left = row.steps - row.settled
    yield EvidenceTable(
        "Steps by state",
        [Column("state"), Column("steps", "number")],
        [
            TableRow([name, number])
            for name, number in {**ends, "not ended": left}.items()
            if number
        ],
    )
    rest = row.steps - min(len(found.steps), _MOST_SHOWN)
    yield EvidenceTable(
        "Steps",
        [
            Column("step"),
            Column("kind"),
            Column("state"),
            Column("attempts"),
            Column("released", "moment"),
            Column("ended", "moment"),
        ],
        [
            TableRow(
                [
                    step.name,
                    step.kind,
                    step.state,
                    f"{step.attempt} of {step.max_attempts}" if step.max_attempts else None,
                    step.released_at,
                    step.ended_at,
                ],
                f"step/{step.id}",
            )
            for step in found.steps[:_MOST_SHOWN]
        ],
        LeftOut("steps", number=rest) if rest > 0 else None,
    )


def _relate(inquiry: Inquiry, found: _Found) -> Iterator[Related]:
    row = found.row
    if found.cause is not None:
        yield Related("Ended by", f"step {found.cause.name}", f"step/{found.cause.id}")
    if found.held is not None:
        says = str(doing_of(found.held, inquiry.now))
        yield Related("Held up by", f"step {found.held.name}", f"step/{found.held.id}", says)
    if found.run.run_again_from is not None:
        again = found.run.run_again_from
        yield Related("It runs again", f"workflow {again}", f"workflow/{again}")
    if row.state == "failed" and (good := queries.find_last_good(inquiry.session, row)):
        says = f"finished, {counted(good.steps, 'step')}"
        yield Related("Last run that finished", f"workflow {good.id}", f"workflow/{good.id}", says)
    for callback in found.callbacks[:1]:
        says = f"reports end {callback.end_no}: {callback.state or 'deleted'}"
        yield Related("Callback", f"job {callback.job_id}", f"job/{callback.job_id}", says)
    tasks = dict.fromkeys(step.task for step in found.steps if step.task and step.kind != "wait")
    for task in list(tasks)[:10]:
        yield Related("Task", task, f"task/{task}")
    if row.cancel_requested_by is not None:
        by = row.cancel_requested_by
        yield Related("Canceled by", by, f"actor/{by}")


def _list_paths(inquiry: Inquiry, found: _Found) -> Iterator[Path]:
    """The signals that may be given to the wait that is open longest."""
    waits = [step for step in found.steps if step.is_open_wait]
    for wait in sorted(waits, key=lambda wait: wait.opened_at or inquiry.now)[:1]:
        yield from list_signals_to_give(inquiry, found.row, wait, found.signals.value)


def list_offered(run: RunRow, steps: Mapping[int, str]) -> Mapping[str, Sequence[str]]:
    """The actions that pages offer for a run, and when it is large for jobs of its steps, in these states."""
    found = {f"workflow/{run.id}": [each.name for each in actions_of_run(run)]}
    if run.steps > MOST_STEPS:
        for id, state in steps.items():
            found[f"job/{id}"] = [each.name for each in actions_of_job("opsjobs", state)]
    return found


def list_signals_to_give(
    inquiry: Inquiry, run: RunRow, wait: StepRow, signals: Sequence[SignalRow]
) -> Iterator[Path]:
    """The actions that end an open wait of a run: a signal that came already is given, or a new one sent."""
    target = f"workflow/{run.id}"
    if run.state not in ACTIONS["workflow.signal"].sources:
        return
    for signal in signals:
        if signal.taken_by is None and signal.is_for(wait, run.id):
            title = f"Give the {signal.outcome} signal {signal.id} to the wait {wait.name}"
            yield make_path(inquiry, "workflow.give_signal", target, title)
    yield make_path(inquiry, "workflow.signal", target, f"Signal the wait {wait.name}")


def _was_there(inquiry: Inquiry) -> bool:
    return was_numbered(inquiry, WorkflowRecord.id)


KIND = Kind("workflow", "workflows.view", read_id, _tell, _was_there)
