"""Changes jobs of an operation, each judged and changed under its lock as a single target is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .. import signals
from ..actions import planning
from ..actions.domain import ChangedMeanwhile, NothingWritten, Request, name_in
from ..actions.effects import AskRq, Effect
from ..actions.registry import DOMAINS
from ..actions.shapes import Item, Plan
from ..core.db import Connection
from ..errors import EngineUnavailable
from ..jobs.lifecycle import FINAL
from ..jobs.transitions import JobForDecision
from .transitions import FrozenJob, RowReceipt

# A round is repeated only when another transaction took the same unique lock at the same moment.
_MOST_ROUNDS = 10


@dataclass(frozen=True)
class Changed:
    """What became of a chunk: a receipt for each row, how many had drifted, what must follow the commit."""

    receipts: Sequence[RowReceipt]
    drifted: int = 0
    effects: Sequence[Effect] = ()


def change_jobs(connection: Connection, request: Request, rows: Sequence[FrozenJob]) -> Changed:
    """Change the jobs of these rows in the caller's transaction, and tell what became of each.

    The targets of the request are not used. When the jobs cannot be written together, only the first one is
    changed: the caller comes back for the others in a new transaction, so that locks keep their order.
    """
    asked = replace(request, targets=tuple(row.target for row in rows))
    for _ in range(_MOST_ROUNDS):
        try:
            with signals.once_committed(), connection.transaction():
                return _change(connection, asked, rows)
        except ChangedMeanwhile:
            continue
        except NothingWritten as met:
            if len(rows) == 1:
                return Changed([RowReceipt(rows[0].number, "skipped", "illegal", str(met))])
            return change_jobs(connection, request, rows[:1])
    if len(rows) == 1:
        raise EngineUnavailable(f"{rows[0].target} kept colliding with other transactions")
    return change_jobs(connection, request, rows[:1])


def _change(connection: Connection, request: Request, rows: Sequence[FrozenJob]) -> Changed:
    domain = DOMAINS[request.action.domain]
    plan, jobs = planning.decide_targets(connection, request, domain, lock=True)
    frozen = {row.target: row for row in rows}
    drifted = {target for target, row in frozen.items() if _has_drifted(row, jobs.get(target))} - {
        skip.target for skip in plan.skipped if skip.code == "unauthorized"
    }
    targets = [item.target for item in plan.items if item.target not in drifted]
    results = request.action.apply(connection, request, [jobs[target] for target in targets])
    effects = [result for result in results if not isinstance(result, Item)]
    made = {result.target: result for result in results if isinstance(result, Item)}
    asked = {effect.job for effect in effects if isinstance(effect, AskRq)}
    receipts = [
        *_receipts_of_done(frozen, targets, made, asked),
        *_receipts_of_drifted(frozen, plan, jobs, drifted),
        *(
            RowReceipt(frozen[skip.target].number, "skipped", skip.code, skip.says)
            for skip in plan.skipped
        ),
    ]
    return Changed(receipts, len(drifted), list(dict.fromkeys(effects)))


def _has_drifted(row: FrozenJob, job: JobForDecision | None) -> bool:
    """Whether more has happened to the job since it was frozen than a move between waiting states."""
    if job is None or job.attempt != row.attempt:
        return True
    was_or_is_final = row.state in FINAL or job.state in FINAL
    return was_or_is_final and (job.state, job.dispatch_no) != (row.state, row.dispatch_no)


def _receipts_of_done(
    frozen: Mapping[str, FrozenJob],
    targets: Iterable[str],
    made: Mapping[str, Item],
    asked: set[int],
) -> Iterable[RowReceipt]:
    for target in targets:
        row = frozen[target]
        new = made[target].facts.get("run_again_as") if target in made else None
        yield RowReceipt(
            row.number,
            "asked" if row.job_id in asked else "done",
            new_job_id=None if new is None else int(name_in(new)),
        )


def _receipts_of_drifted(
    frozen: Mapping[str, FrozenJob],
    plan: Plan,
    jobs: Mapping[str, JobForDecision],
    drifted: set[str],
) -> Iterable[RowReceipt]:
    """The receipts of jobs that could be changed, if they were still what was frozen."""
    for item in plan.items:
        if item.target in drifted:
            row, job = frozen[item.target], jobs[item.target]
            says = (
                f"it was {row.state} after {row.attempt} attempts when it was frozen, "
                f"and is {job.state} after {job.attempt}"
            )
            yield RowReceipt(row.number, "skipped", "changed", says)
