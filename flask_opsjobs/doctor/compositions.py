"""Checks the invariants of workflows, batches, signals, leases and unique locks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from ..batches.checks import BrokenBatch, check_batches
from ..core import sql
from ..core.db import Connection
from ..core.words import agree, counted
from ..workflows.checks import BrokenInvariant, checks
from .check import ERROR, WARNING, CheckAnswer, CheckContext, DoctorCheck, error, ok, warning
from .incidents import driver_connection, look_for

Broken = TypeVar("Broken", BrokenInvariant, BrokenBatch)

_WHY = "Somebody wrote to the tables of opsjobs, or it is a bug of ours."

# By check, the codes of the invariants of runs.
_OF_RUNS = {
    "workflows.pending": ("pending", "released_early"),
    "workflows.settled": ("settled", "not_settled", "not_passed_on", "removed"),
    "workflows.ended": ("counts", "ended"),
    "workflows.overlooked": ("not_released",),
    "workflows.callbacks": ("callback",),
}


@dataclass(frozen=True)
class _Examined(Generic[Broken]):
    """How many runs or batches were examined, and what is broken in them."""

    number: int
    broken: Sequence[Broken]


def _runs(check: str, context: CheckContext) -> CheckAnswer:
    found = _examine(context, "runs", "list_runs_to_examine", checks, "run")
    broken = [each for each in found.broken if each.code in _OF_RUNS[check]]
    if not broken:
        return ok(
            "It holds for the newest runs and for those that have not ended.",
            f"{counted(found.number, 'run')} of at most 1,000 steps {agree(found.number, 'was', 'were')} "
            "examined.",
        )
    first = broken[0]
    place = f" at step {first.step}" if first.step else ""
    return error(
        f"Workflow {first.run} is not consistent{place}: {first.says}.",
        f"{counted(len(broken), 'such fault')} in all. {_WHY}",
        run=f"flask opsjobs why workflow/{first.run}",
    )


def _batches(context: CheckContext) -> CheckAnswer:
    found = _examine(context, "batches", "list_batches_to_examine", check_batches, "batch")
    broken = found.broken
    if not broken:
        return ok(
            "The counts of the newest batches agree with their members.",
            f"{counted(found.number, 'batch', 'batches')} of at most 5,000 members "
            f"{agree(found.number, 'was', 'were')} examined.",
        )
    return error(
        f"Batch {broken[0].batch} is not consistent: {broken[0].says}.",
        f"{counted(len(broken), 'such fault')} in all. {_WHY}",
        run=f"flask opsjobs why batch/{broken[0].batch}",
    )


def _examine(
    context: CheckContext,
    what: str,
    statement: str,
    look: Callable[[Connection, Sequence[int]], Sequence[Broken]],
    key: str,
) -> _Examined[Broken]:
    """What is broken of what the statement lists; in a second look what was so in the first one too."""

    def read() -> _Examined[Broken]:
        with context.reading() as read:
            connection = driver_connection(read)
            if what not in context.before:
                ids = [row[0] for row in connection.execute(sql.load(statement))]
                return _Examined(len(ids), look(connection, ids))
            before: _Examined[Broken] = context.before[what].value
            again = look(connection, sorted({getattr(each, key) for each in before.broken}))
            return _Examined(before.number, [each for each in again if each in before.broken])

    return context.once(what, read)


def _ambiguous(context: CheckContext) -> CheckAnswer:
    with context.reading() as read:
        row = driver_connection(read).execute(sql.load("find_ambiguous_signal")).fetchone()
    if row is None:
        return ok("No signal waits for a person to choose its wait.")
    return warning(
        f"Signal {row[0]} ({row[1]}) fits several open waits, so none has taken it.",
        "A person chooses on the page of the signals.",
        run="flask opsjobs workflow give-signal",
    )


def _unique_locks(context: CheckContext) -> CheckAnswer:
    with context.reading() as read:
        row = driver_connection(read).execute(sql.load("find_broken_unique_lock")).fetchone()
    if row is None:
        return ok("No unique lock outlives its job.")
    id_, state = row
    return error(
        f"Job {id_} {f'is {state}' if state else 'is gone'}, and its unique lock is still there.",
        f"The same call enqueues nothing while the lock is there. {_WHY}",
        run=f'psql -c "SELECT * FROM opsjobs.unique_locks WHERE job_id = {id_}"',
    )


_leases = look_for(
    "lease_leaked",
    "Each lease belongs to an attempt that runs.",
    "flask opsjobs incidents",
)


def _run_check(id_: str, asks: str) -> DoctorCheck:
    return DoctorCheck(
        id_, (ERROR,), asks, partial(_runs, id_), needs=_IF_CURRENT, looks_twice=True
    )


_IF_CURRENT = ("schema.version",)

CHECKS = (
    _run_check("workflows.pending", "each step waits for as many edges as its row says"),
    _run_check(
        "workflows.settled", "each step settled as its job ended, and told the steps behind it"
    ),
    _run_check("workflows.ended", "a run has ended when all its steps have settled"),
    _run_check("workflows.overlooked", "no step that waits for nothing is left unreleased"),
    _run_check("workflows.callbacks", "the application was told of each end of a run"),
    DoctorCheck(
        "batches.balance",
        (ERROR,),
        "the counts of a batch agree with its members, and the application was told of its end",
        _batches,
        needs=_IF_CURRENT,
        looks_twice=True,
    ),
    DoctorCheck(
        "signals.ambiguous",
        (WARNING,),
        "no signal fits several open waits",
        _ambiguous,
        needs=_IF_CURRENT,
    ),
    DoctorCheck(
        "leases.leaked",
        (WARNING,),
        "no lease is kept by an attempt that does not run",
        _leases,
        needs=_IF_CURRENT,
    ),
    DoctorCheck(
        "unique_locks.left",
        (ERROR,),
        "no unique lock is left by a job that has ended or is gone",
        _unique_locks,
        needs=_IF_CURRENT,
    ),
)
