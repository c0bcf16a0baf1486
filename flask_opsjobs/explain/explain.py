"""Explains why a job is not running: finds every reason in the evidence, the deciding one first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from ..batches import reasons as batch_reasons
from ..batches.queries import BatchRow
from ..core.db import OLDEST_SCHEMA, SCHEMA_VERSION
from ..core.words import agree, counted
from ..jobs import reasons as job_reasons
from ..jobs.adopted import reasons as adopted_reasons
from ..jobs.lifecycle import FINAL
from ..lifeline import reasons as lifeline_reasons
from ..lifeline.reasons import needed_loops
from ..limits import reasons as limit_reasons
from ..queues import reasons as queue_reasons
from ..tasks import reasons as task_reasons
from ..workflows import reasons as workflow_reasons
from ..workflows.held_up import how_it_ended, sentence_of
from .evidence import MOST_STEPS, BatchEvidence, Evidence, RunEvidence
from .reason_kinds import (
    REASON_KINDS,
    BatchExplanation,
    Explanation,
    FailedCallback,
    Reason,
    WorkflowExplanation,
    as_text,
)

Finder = Callable[[Evidence], Iterator[Reason]]

FINDERS: Mapping[str, Finder] = {
    "deadline_passed": job_reasons.deadline_passed,
    "cancel_requested": job_reasons.cancel_requested,
    "run_canceling": workflow_reasons.run_canceling,
    "worker_silent": job_reasons.worker_silent,
    "reserved": job_reasons.reserved,
    "step_removed": workflow_reasons.step_removed,
    "step_behind": workflow_reasons.step_behind,
    "step_not_advanced": workflow_reasons.step_not_advanced,
    "wait_open": workflow_reasons.wait_open,
    "map_expanding": workflow_reasons.map_expanding,
    "parent_failed": adopted_reasons.parent_failed,
    "parent_open": adopted_reasons.parent_open,
    "deferred": job_reasons.deferred,
    "scheduled": job_reasons.scheduled,
    "backing_off": job_reasons.backing_off,
    "queue_paused": queue_reasons.queue_paused,
    "queue_draining": queue_reasons.queue_draining,
    "task_paused": task_reasons.task_paused,
    "limit_unknown": limit_reasons.limit_unknown,
    "limit_weight": limit_reasons.limit_weight,
    "redis_away": lifeline_reasons.redis_away,
    "workers_suspended": lifeline_reasons.workers_suspended,
    "no_live_worker": queue_reasons.no_live_worker,
    "no_child": queue_reasons.no_child,
    "delivery_lost": lifeline_reasons.delivery_lost,
    "loop_silent": lifeline_reasons.loop_silent,
    "loop_failing": lifeline_reasons.loop_failing,
    "limit_cooldown": limit_reasons.limit_cooldown,
    "limit_concurrency": limit_reasons.limit_concurrency,
    "limit_tokens": limit_reasons.limit_tokens,
    "limit_behind": limit_reasons.limit_behind,
    "workers_busy": queue_reasons.workers_busy,
    "prefetch_full": queue_reasons.prefetch_full,
    "handed_back": job_reasons.handed_back,
}
# The only ones that a plain RQ job can have.
OF_ADOPTED = ("parent_failed", "parent_open")


def explain_evidence(evidence: Evidence) -> Explanation:
    """Explain why the job is not running, from the evidence alone. Pure."""
    evidence = _with_frontier(evidence)
    reasons = tuple(list_reasons(evidence))
    if evidence.job.is_adopted:
        return _explain_adopted(evidence, reasons)
    lacking = tuple(list_lacking(evidence, reasons))
    return Explanation(
        job_id=evidence.job.id,
        state=evidence.job.state,
        reasons=reasons,
        ruled_out=tuple(_list_ruled_out(evidence, {reason.code for reason in reasons})),
        completeness="partial evidence" if lacking else "complete",
        lacking=lacking,
        read_at=evidence.now,
        says=_summary(evidence, reasons),
    )


def list_reasons(evidence: Evidence) -> Iterator[Reason]:
    """The reasons, the deciding one first: who needs only this one stops there. Pure.

    A plain RQ job has no reason but what it depends on.
    """
    for kind in REASON_KINDS:
        find_reasons = FINDERS.get(kind.code)
        if find_reasons is not None and (not evidence.job.is_adopted or kind.code in OF_ADOPTED):
            yield from find_reasons(evidence)


def _explain_adopted(evidence: Evidence, reasons: tuple[Reason, ...]) -> Explanation:
    """Say of a plain RQ job what it depends on, else that RQ runs it."""
    job = evidence.job
    says = "It is a plain RQ job, which RQ and its workers run."
    if reasons or job.state in FINAL:
        says = _summary(evidence, reasons)
    return Explanation(job.id, job.state, reasons, (), "complete", (), evidence.now, says)


def _with_frontier(evidence: Evidence) -> Evidence:
    """The evidence with the first reason of each step that it waits for in the end."""
    if evidence.step is None or not evidence.step.frontier:
        return evidence
    frontier = [replace(step, says=_first_of(step.evidence)) for step in evidence.step.frontier]
    return replace(evidence, step=replace(evidence.step, frontier=frontier))


def _first_of(evidence: Evidence) -> str:
    found = explain_evidence(evidence)
    if not found.reasons:
        return found.says
    first = found.reasons[0]
    return f"{first.says} It ends at {as_text(first.until)}." if first.until else first.says


def explain_run(run: RunEvidence, now: datetime) -> WorkflowExplanation:
    """Explain why a run has not ended, from the evidence alone. Pure."""
    frontier = {step.name: explain_evidence(step.evidence) for step in run.frontier}
    return WorkflowExplanation(
        workflow_id=run.id,
        name=run.name,
        state=run.state,
        says=_summary_of_run(run),
        trouble=run.trouble,
        removed=tuple(run.removed),
        frontier=frontier,
        read_at=now,
    )


def _summary_of_run(run: RunEvidence) -> str:
    if run.is_final:
        step = f"the step {run.ended_by_step} " if run.ended_by_step else ""
        how = how_it_ended(run.ended_by, run.state_of_step, run.canceled)
        return f"It has ended: {step}{how}.{_say_cancel(run)}"
    left = run.steps - run.settled
    if run.trouble is not None:
        return "It cannot be advanced. The advance loop tries again."
    if run.removed and not run.frontier:
        return "Jobs of its steps were deleted. The advance loop counts those steps as failed."
    if not run.frontier:
        return f"{counted(left, 'step')} wait for the run to be advanced."
    first = run.frontier[0]
    wait = agree(len(run.frontier), "waits", "wait")
    many = f"{MOST_STEPS} or more" if len(run.frontier) == MOST_STEPS else f"{len(run.frontier):,}"
    return (
        f"{sentence_of(first.name, first.waiting, first.doing)}. "
        f"{counted(left, 'step')} of {run.steps:,} left; {many} of them {wait} for no other step."
    )


def _say_cancel(what: RunEvidence | BatchRow) -> str:
    """Who canceled it and why, as one more sentence; empty when nobody did."""
    if what.cancel_requested_by is None:
        return ""
    return f" {what.cancel_requested_by} canceled it: “{what.cancel_reason}”"


def explain_batch_evidence(evidence: BatchEvidence) -> BatchExplanation:
    """Explain why a batch has not ended, from the evidence alone. Pure."""
    batch = evidence.batch
    return BatchExplanation(
        batch_id=batch.id,
        name=batch.name,
        state=batch.state,
        says=_summary_of_batch(evidence),
        trouble=batch.trouble,
        reasons=(*batch_reasons.batch_open(evidence), *batch_reasons.fold_silent(evidence)),
        members={member.job.id: explain_evidence(member) for member in evidence.members},
        callbacks=tuple(
            FailedCallback(each.event, each.end_no, each.job_id, each.state)
            for each in evidence.callbacks
            if each.state is not None
        ),
        read_at=evidence.now,
    )


def _summary_of_batch(evidence: BatchEvidence) -> str:
    batch = evidence.batch
    if batch.is_final:
        numbers = {**batch.ends, "lost": batch.lost}
        ends = [f"{number:,} {word}" for word, number in numbers.items() if number]
        members = f"of {counted(batch.enqueued, 'member')} {', '.join(ends)}"
        canceled = _say_cancel(batch) if batch.state == "canceled" else ""
        return f"It has ended: {members if ends else 'it had no members'}.{canceled}"
    if batch.trouble is not None:
        return "Its members cannot be counted. The fold loop tries again."
    if batch.cancel_requested_at is not None:
        return "It is being canceled: members that wait are ended, and those that run are stopped."
    left = f"{counted(batch.left, 'member')} of {batch.enqueued:,} left."
    if batch.state == "open":
        return f"It is open, so it cannot end. {left}"
    if not evidence.members:
        return "No member is left, and the next fold ends it."
    return left


def list_lacking(evidence: Evidence, reasons: Sequence[Reason]) -> Iterator[str]:
    """What could not be read, in a few words each."""
    if evidence.is_due and evidence.redis is None:
        yield "Redis was not asked"
    elif evidence.is_due and evidence.redis is not None and not evidence.redis.is_reachable:
        yield "Redis could not be read"
    may_be_plain = "no_live_worker" in {reason.code for reason in reasons}
    if evidence.is_abandoned:
        may_be_plain = evidence.worker is not None and evidence.worker.kind == "plain"
    if may_be_plain and not evidence.is_loop_running("observe"):
        yield "plain RQ workers are not seen while the observe loop is silent"


def _summary(evidence: Evidence, reasons: tuple[Reason, ...]) -> str:
    job = evidence.job
    if job.state in FINAL:
        return "It has ended."
    if job.state == "started":
        return _running(evidence)
    if reasons:
        return f"{counted(len(reasons), 'reason')}{', the first one decides' * (len(reasons) > 1)}."
    return "Nothing blocks it. It will go on by itself."


def _running(evidence: Evidence) -> str:
    who, since = evidence.worker, as_text(evidence.job.started_at)
    if who is None:
        return f"It started at {since}, but its worker is no longer known."
    if not who.is_alive:
        return f"It started at {since}, but {who.name} sends no heartbeat."
    return f"It has been running on {who.name} since {since}."


def explain_schema(job_id: int, schema: int, now: datetime) -> Explanation:
    """Explain a job in a schema that is too old for this code: no other reason can be known."""
    state = f"is at version {schema}" if schema else "is missing"
    needs = f"this code needs version {SCHEMA_VERSION}: no worker and no loop starts."
    reason = Reason(
        code="schema_behind",
        says=f"The database's schema {state}, {needs}",
        read={"schema_version": str(schema), "oldest_supported": str(OLDEST_SCHEMA)},
        source="observer",
        read_at=now,
        todo="Run `flask opsjobs install`, then `flask db upgrade`.",
    )
    lacking = ("the job itself cannot be read on this schema",)
    says = "The schema is behind this code."
    return Explanation(job_id, "unknown", (reason,), (), "unknown", lacking, now, says)


def _list_ruled_out(evidence: Evidence, codes: set[str]) -> Iterator[str]:
    """The checks that found no reason. `codes` are the codes of the reasons that were found."""
    if evidence.is_due:
        yield "due"
    if evidence.job.deadline_at is not None and not evidence.is_overdue:
        yield "before its deadline"
    if evidence.is_held_back and not evidence.queue.is_paused:
        yield "queue not paused"
    if evidence.is_held_back and evidence.pause is None:
        yield "task not paused"
    if evidence.is_due:
        yield from _checks_of_a_due_job(evidence, codes)
    if needed := [loop for loop in needed_loops(evidence) if evidence.is_loop_running(loop)]:
        yield f"{', '.join(needed)} loop running"


def _checks_of_a_due_job(evidence: Evidence, codes: set[str]) -> Iterator[str]:
    if (
        evidence.prefetch is not None
        and evidence.job.state != "queued"
        and "prefetch_full" not in codes
    ):
        yield f"prefetch {evidence.prefetch.used:,} of {evidence.prefetch.size:,}"
    if evidence.alive:
        idle = len(evidence.alive) - len(evidence.busy) - len(evidence.childless)
        busy = f", {idle:,} idle" if idle else ""
        yield f"{counted(len(evidence.alive), 'worker')} live{busy}"
    if evidence.redis is None:
        return
    if not evidence.redis.is_reachable and evidence.runs_without_redis:
        yield "Redis does not answer, but its workers take jobs from Postgres"
    elif evidence.redis.is_reachable:
        yield "Redis answers"
        if evidence.redis.is_there and not evidence.is_lost:
            yield "delivery seen"
