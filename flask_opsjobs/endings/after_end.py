"""Lists who is told that attempts and jobs have ended, in order, in the transaction that ends them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from ..core.db import Connection
from ..cron import transitions as cron_transitions
from ..jobs import transitions as job_transitions
from ..jobs.lifecycle import FINAL
from ..jobs.perform.outcomes import RETURNED, Outcome
from ..jobs.record import unique_locks
from ..limits import transitions as limits


class EndedAttempt(NamedTuple):
    """An outcome to write.

    `id` and `dispatch_no` are its fence: the row must still have this dispatch number. `began` and `ended`
    are when its function did so in the process `pid`, by `steady_seconds`; None when that is not known.
    `attempt` is its number.
    """

    id: int
    dispatch_no: int
    worker_id: int | None
    worker: str
    outcome: Outcome
    pid: int | None = None
    began: float | None = None
    ended: float | None = None
    attempt: int | None = None

    @property
    def is_plain(self) -> bool:
        """Return whether the function returned, and nothing else is to be written."""
        return self.outcome is RETURNED and self.began is not None and self.ended is not None

    @property
    def seconds(self) -> float | None:
        """Return how long its function ran, if that is known."""
        return None if self.began is None or self.ended is None else self.ended - self.began


class MovedJob(NamedTuple):
    """A job whose attempt ended, or that ended while it waited, and its new state.

    `is_not_run`: a worker had claimed it but did not call its function. `lost_attempt` is the attempt that
    was lost with its worker, if one was.
    """

    id: int
    dispatch_no: int
    state: str
    ended_by: str | None
    task: str
    queue: str
    lane: str
    is_unique: bool
    is_limited: bool = False
    cron_entry: str | None = None
    workflow_id: int | None = None
    batch_id: int | None = None
    is_not_run: bool = False
    lost_attempt: int | None = None

    @property
    def key(self) -> tuple[int, int]:
        """Return the delivery of the ended attempt: (job id, dispatch number)."""
        return self.id, self.dispatch_no

    @property
    def is_final(self) -> bool:
        """Return whether the job will not run again by itself."""
        return self.state in FINAL


# Gets all jobs of one statement, whose rows are locked, and the time of the end. When it raises, nothing has
# ended.
AfterEnd = Callable[[Connection, Sequence[MovedJob], datetime], None]


def release_unique_locks(connection: Connection, ended: Sequence[MovedJob], _now: datetime) -> None:
    """Let the same call be enqueued again, once its job will not run again."""
    if unique := [job.id for job in ended if job.is_unique and job.is_final]:
        unique_locks.release(connection, unique)


def free_leases(connection: Connection, ended: Sequence[MovedJob], _now: datetime) -> None:
    """Give the places of attempts back to their limiters."""
    if limited := [job.key for job in ended if job.is_limited and not job.is_not_run]:
        limits.free(connection, limited)


def give_back_tokens(connection: Connection, ended: Sequence[MovedJob], now: datetime) -> None:
    """Give places and tokens back of attempts whose function was not called."""
    if not_run := [job.key for job in ended if job.is_limited and job.is_not_run]:
        limits.give_back(connection, not_run, now)


def trim_hand_backs(connection: Connection, ended: Sequence[MovedJob], _now: datetime) -> None:
    """Keep only the newest of the attempts in which a job was handed back."""
    if handed_back := [job.key for job in ended if job.is_not_run and not job.is_final]:
        job_transitions.trim_hand_backs(connection, handed_back)


def note_cron_slots(connection: Connection, ended: Sequence[MovedJob], now: datetime) -> None:
    """Record in the run history of cron entries how their jobs ended."""
    states = {job.id: job.state for job in ended if job.cron_entry is not None and job.is_final}
    if states:
        cron_transitions.note_job_ends(connection, states, now)


def release_cron_jobs(connection: Connection, ended: Sequence[MovedJob], now: datetime) -> None:
    """Make the next job of a cron entry available, when it waited for these."""
    names = {job.cron_entry for job in ended if job.cron_entry is not None and job.is_final}
    if names:
        cron_transitions.release(connection, names, now)


# Decision 34 gives the reason for each place.
AFTER_END: tuple[AfterEnd, ...] = (
    release_unique_locks,
    free_leases,
    give_back_tokens,
    trim_hand_backs,
    note_cron_slots,
    release_cron_jobs,
)
