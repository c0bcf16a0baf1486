"""Settling an entry: every slot that has come since the last look gets its fate, and its job where it runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ..db import Connection
from ..errors import InvalidArgs
from ..host import Host
from ..jobs.enqueue_apart import enqueue_apart
from . import transitions
from .ledger import Share, share_out
from .transitions import Slot, Standing, Unfinished

# So many slots are looked at in one transaction: a week of minutes.
MOST_SLOTS = 10_080
# So long a slot waits for a process that knows its worker: a deploy has two versions of code at once.
PATIENCE = timedelta(minutes=10)

# Cancels jobs that wait and asks for those that run to be stopped: (connection, jobs, reason, now).
Stop = Callable[[Connection, Sequence[Unfinished], str, datetime], None]


@dataclass
class Settled:
    """What came of it: how many slots of each fate, the lines to dispatch, the jobs that are to stop, what is left."""

    fates: dict[str, int] = field(default_factory=dict)
    lines: set[tuple[str, str]] = field(default_factory=set)
    stopped: list[Unfinished] = field(default_factory=list)
    has_more: bool = False
    is_put_off: bool = False


@dataclass(frozen=True)
class Settling:
    """One settling on its way, in the caller's transaction. `asleep_since` is when a scheduler was last awake."""

    connection: Connection
    host: Host
    stop: Stop
    now: datetime
    asleep_since: datetime | None = None

    def settle(self, name: str, into: Settled) -> Standing | None:
        """Settle one entry up to now, adding to `into`; the entry as it was locked, None when it is gone.

        Locks the entry, and before it the jobs that it may have to stop.
        """
        entry = transitions.look(self.connection, [name]).get(name)
        if entry is not None and entry.overlap == "cancel_previous":
            transitions.lock_jobs(self.connection, name)
        entry = transitions.lock(self.connection, [name]).get(name)
        if entry is None or entry.state == "retired":
            return entry
        slots = entry.schedule.slots_between(entry.checked_until, self.now, MOST_SLOTS + 1)
        if not slots or self._is_put_off(entry, slots, into):
            return entry
        if len(slots) > MOST_SLOTS:
            # More follow, so none of these is the last one, which catch-up might run.
            into.has_more = True
            slots = slots[:MOST_SLOTS]
            shares = share_out(
                slots, self.now, paused_at=entry.paused_at, catch_up="none", limit=None
            )
            until = slots[-1]
        else:
            shares = share_out(slots, self.now, paused_at=entry.paused_at, catch_up=entry.catch_up,
                               limit=entry.catch_up_limit)  # fmt: skip
            until = self.now
        for share in shares:
            for slot in self._fates_of(entry, share, into):
                transitions.decide(self.connection, entry, slot, self.now)
                into.fates[slot.fate] = into.fates.get(slot.fate, 0) + slot.slots
        transitions.move_on(self.connection, entry.name, until)
        return entry

    def run(
        self, entry: Standing, slot_at: datetime, fate: str, into: Settled, *, by: str | None = None
    ) -> Slot:
        """Record a job for a slot of a locked entry, whatever its overlap policy says; the row that tells of it."""
        worker = self.host.workers.get(entry.worker)
        if worker is None:
            why = f"no worker {entry.worker} is declared where the loops run"
            return Slot(slot_at, "missed", why)
        is_deferred = fate == "queued_behind"
        try:
            made = enqueue_apart(
                self.connection, self.host, worker, entry.args, cron_entry=entry.name, is_deferred=is_deferred
            )  # fmt: skip
        except InvalidArgs as wrong:
            return Slot(slot_at, "missed", f"its arguments do not fit: {wrong}")
        if made.conflict:
            return Slot(slot_at, "skipped_overlap", f"job {made.id} is the same unique call")
        if not is_deferred:
            into.lines.add((worker.declared.line, worker.declared.queue))
        return Slot(slot_at, fate, job_id=made.id, decided_by=by)

    def _is_put_off(self, entry: Standing, slots: Sequence[datetime], into: Settled) -> bool:
        """Whether to leave it to a process that knows the worker, for a while."""
        is_known = entry.worker in self.host.workers or entry.is_paused
        into.is_put_off |= (put_off := not is_known and self.now - slots[0] <= PATIENCE)
        return put_off

    def _fates_of(self, entry: Standing, share: Share, into: Settled) -> list[Slot]:
        if share.kind in ("due", "late"):
            fate = "ran" if share.kind == "due" else "late"
            return [self._run_in_turn(entry, slot, fate, into) for slot in share.slots]
        first, last = share.slots[0], share.slots[-1]
        why = self._why_missed(entry) if share.kind == "missed" else entry.paused_reason
        return [Slot(first, share.kind, why, until_at=last, slots=len(share.slots))]

    def _run_in_turn(self, entry: Standing, slot_at: datetime, fate: str, into: Settled) -> Slot:
        """The slot as the overlap policy has it."""
        before = (
            []
            if entry.overlap == "allow"
            else transitions.list_unfinished(self.connection, entry.name)
        )
        if not before:
            return self.run(entry, slot_at, fate, into)
        if entry.overlap == "cancel_previous":
            self.stop(
                self.connection,
                before,
                f"the next slot of cron entry {entry.name} has come",
                self.now,
            )
            into.stopped += before
            return self.run(entry, slot_at, fate, into)
        if entry.overlap == "queue_one":
            behind = [job for job in before if job.state == "deferred"]
            if not behind:
                return self.run(entry, slot_at, "queued_behind", into)
            return Slot(slot_at, "skipped_overlap", f"job {behind[0].id} waits already to run next")
        return Slot(slot_at, "skipped_overlap", f"job {before[0].id} had not ended")

    def _why_missed(self, entry: Standing) -> str:
        since = max(entry.checked_until, self.asleep_since or entry.checked_until)
        return f"no scheduler ran from {_moment(since)} to {_moment(self.now)}"


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
