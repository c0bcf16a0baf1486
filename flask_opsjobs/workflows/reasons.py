"""Finds the reasons in the workflow of a step: steps before it, a signal, a run that is canceled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..explain.evidence import MOST_STEPS, Evidence, StepEvidence
from ..explain.reason_kinds import Reason, make_reason
from ..jobs.lifecycle import FINAL


def run_canceling(evidence: Evidence) -> Iterator[Reason]:
    """The run is being canceled, and the step has not ended yet."""
    step, job = evidence.step, evidence.job
    if step is None or step.run_state != "canceling" or job.state in FINAL:
        return
    if job.cancel_requested_at is not None:
        return  # `cancel_requested` says so already
    yield make_reason(
        evidence,
        "run_canceling",
        f"Its workflow {step.run} is being canceled.",
        "The next advance of the workflow ends it, or asks its worker to stop it.",
        source="operator",
        read=_read(step),
        by=step.cancel_requested_by,
        quote=step.cancel_reason,
        since=step.cancel_requested_at,
    )


def step_removed(evidence: Evidence) -> Iterator[Reason]:
    """The job of a step before it was deleted by SQL: that step is lost."""
    step = evidence.step
    if step is None or not step.removed or not _waits_as_step(evidence):
        return
    one = len(step.removed) == 1
    yield make_reason(
        evidence,
        "step_removed",
        f"It waits for {_steps(step.removed)}, but {'its job was' if one else 'their jobs were'} deleted.",
        "The advance loop finds this and counts such a step as failed.",
        source="inferred",
        read={**_read(step), "removed": ", ".join(step.removed)},
    )


def step_behind(evidence: Evidence) -> Iterator[Reason]:
    """Steps before it have not ended."""
    step = evidence.step
    if step is None or not step.before or not _waits_as_step(evidence):
        return
    first = [f"Step {each.name}: {each.says}" for each in step.frontier]
    yield make_reason(
        evidence,
        "step_behind",
        " ".join([f"It waits for {_steps(step.before)}.", *first]),
        "It is released when they have ended. Help the steps that wait for no other step.",
        source="inferred",
        read={
            **_read(step),
            "pending": step.pending,
            "frontier": ", ".join(
                f"{each.name} is job/{each.evidence.job.id}, {each.evidence.job.state}"
                for each in step.frontier
            )
            or None,
        },
        since=evidence.job.created_at,
    )


def step_not_advanced(evidence: Evidence) -> Iterator[Reason]:
    """All steps before it have ended, and no `advance` has passed their ends on yet."""
    step = evidence.step
    if step is None or step.run_state == "canceling" or not evidence.is_not_advanced:
        return
    yield make_reason(
        evidence,
        "step_not_advanced",
        "All steps before it have ended, but their ends have not been passed on to it yet.",
        "The next advance of the workflow releases it, or ends it.",
        source="inferred",
        read={**_read(step), "pending": step.pending},
        quote=step.trouble,
    )


def wait_open(evidence: Evidence) -> Iterator[Reason]:
    """It waits for a signal."""
    step, job = evidence.step, evidence.job
    if step is None or not step.is_open_wait or not _waits_as_step(evidence):
        return
    key = f" with the key {step.key}" if step.key else ""
    yield make_reason(
        evidence,
        "wait_open",
        f"It waits for the signal {' or '.join(step.signals or ())}{key}." + _seen(step),
        "Give one of them to this wait: choose it on the page of the workflow."
        if step.signals_seen and "early" not in step.signals_seen
        else "Send the signal with `opsjobs.signal` or `flask opsjobs signal`.",
        source="host",
        read={
            **_read(step),
            "signal": ", ".join(step.signals or ()),
            "key": step.key or None,
            "signals_seen": sum(step.signals_seen.values()),
        },
        since=step.opened_at,
        until=job.deadline_at,
    )


def _seen(step: StepEvidence) -> str:
    """What came for this wait: nothing, or signals that it takes, that nobody may take, or that are late."""
    sentences = []
    if number := step.signals_seen.get("ambiguous", 0):
        sentences.append(f" {_came(number)}, but several waits could take it, so none of them did.")
    elif "early" in step.signals_seen:
        sentences.append(
            " Its signal has come, and the next advance of the workflow ends the wait."
        )
    if number := step.signals_seen.get("late", 0):
        sentences.append(
            f" {_came(number)} late for an earlier wait, and this wait does not take it."
        )
    return "".join(sentences)


def _came(number: int) -> str:
    return "1 signal came" if number == 1 else f"{number:,} signals came"


def map_expanding(evidence: Evidence) -> Iterator[Reason]:
    """A worker runs the job of a map."""
    step, job = evidence.step, evidence.job
    if step is None or step.kind != "map" or job.state != "started" or evidence.is_abandoned:
        return
    yield make_reason(
        evidence,
        "map_expanding",
        "It reads its list, and adds a step for each element.",
        "Its steps become available when it has added them all.",
        source="worker",
        read={**_read(step), "worker": evidence.worker and evidence.worker.name},
        since=job.started_at,
    )


def _waits_as_step(evidence: Evidence) -> bool:
    step = evidence.step
    is_canceling = step is not None and step.run_state == "canceling"
    return evidence.job.state == "deferred" and not evidence.is_overdue and not is_canceling


def _read(step: StepEvidence) -> dict[str, object]:
    return {"workflow": f"workflow/{step.run}", "workflow_state": step.run_state, "step": step.name}


def _steps(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"step {names[0]}"
    if len(names) > MOST_STEPS:
        names = [*names[:MOST_STEPS], "others"]
    return f"steps {', '.join(names[:-1])} and {names[-1]}"
