"""Decides every due slot of an entry: its result, and its job where it runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from zoneinfo import ZoneInfoNotFoundError

import psycopg

from ..core.db import Connection
from ..core.words import moment
from ..errors import InvalidArgs
from ..host import Host
from ..jobs.record.enqueue import Enqueued
from ..jobs.record.enqueue_detached import enqueue_detached
from ..jobs.record.task import Task
from . import transitions
from .declaration import MOST_CAUGHT_UP
from .entry_row import CronEntryRow
from .timing import SlotGroup, decide_by_time
from .transitions import Slot, Unfinished

_log = logging.getLogger("flask_opsjobs.cron")
# At most so many slots are decided in one transaction: a week of minutes.
MOST_SLOTS = 10_080
# So long a slot waits for a process that knows its task: a deploy has two versions of code at once.
PATIENCE = timedelta(minutes=10)

# Cancels jobs that wait and asks for those that run to be stopped: (connection, jobs, reason, now).
Stop = Callable[[Connection, Sequence[Unfinished], str, datetime], None]


@dataclass
class SlotReport:
    """Counts the decided slots by result, and keeps the lanes to dispatch, the jobs to stop, and what is left."""

    results: dict[str, int] = field(default_factory=dict)
    lanes: set[tuple[str, str]] = field(default_factory=set)
    stopped: list[Unfinished] = field(default_factory=list)
    enqueued: list[tuple[Task, Enqueued]] = field(default_factory=list)
    troubled: set[str] = field(default_factory=set)
    has_more: bool = False
    is_put_off: bool = False

    def add(self, other: SlotReport) -> None:
        """Add the report of another entry, once that is committed."""
        for result, slots in other.results.items():
            self.results[result] = self.results.get(result, 0) + slots
        self.lanes |= other.lanes
        self.stopped += other.stopped
        self.enqueued += other.enqueued
        self.has_more |= other.has_more
        self.is_put_off |= other.is_put_off


@dataclass(frozen=True)
class SlotDecider:
    """Decides the due slots of entries, in the caller's transaction."""

    connection: Connection
    host: Host
    stop: Stop
    now: datetime

    def decide_all(self, name: str, report: SlotReport) -> CronEntryRow | None:
        """As `decide`, and leaves nothing for a later pass: who changes an entry calls this first.

        A zone that this machine does not know any more leaves slots that nobody can name. It must not keep an operator,
        or newer code, from giving the entry another.
        """
        while True:
            part = SlotReport()
            try:
                entry = self.decide(name, part, is_patient=False)
            except ZoneInfoNotFoundError as error:
                _log.error(
                    "cron entry %s changes without results for its last slots: %s", name, error
                )
                return transitions.look(self.connection, [name]).get(name)
            report.add(replace(part, has_more=False))
            if not part.has_more:
                return entry

    def decide(
        self, name: str, report: SlotReport, *, is_patient: bool = True
    ) -> CronEntryRow | None:
        """Decide the slots of one entry up to now, adding to `report`. Returns the locked entry; None when it is gone.

        Locks the entry, and before it the jobs that it may have to stop. `is_patient`: a slot whose task this process
        does not know is left to one that does, for a while.
        """
        entry = transitions.lock_to_decide(self.connection, [name]).get(name)
        if entry is None or entry.state == "retired":
            return entry
        slots = entry.schedule.slots_between(entry.checked_until, self.now, MOST_SLOTS + 1)
        if not slots or (is_patient and self._is_put_off(entry, slots, report)):
            return entry
        if len(slots) > MOST_SLOTS:
            # As many are left for the next time as catch-up might run, so none of these is to run.
            report.has_more = True
            slots = slots[: MOST_SLOTS - MOST_CAUGHT_UP]
            groups = decide_by_time(
                slots, self.now, paused_at=entry.paused_at, catch_up="none", limit=None
            )
            until = slots[-1]
        else:
            groups = decide_by_time(slots, self.now, paused_at=entry.paused_at, catch_up=entry.catch_up,
                               limit=entry.catch_up_limit)  # fmt: skip
            until = self.now
        for group in groups:
            for slot in self._results_of(entry, group, report):
                transitions.write_result(self.connection, entry, slot, self.now)
                report.results[slot.result] = report.results.get(slot.result, 0) + slot.slots
        transitions.move_on(self.connection, entry.name, until)
        return entry

    def run(
        self, entry: CronEntryRow, slot_at: datetime, result: str, report: SlotReport,
        *, by: str | None = None, is_behind: bool = False,
    ) -> Slot:  # fmt: skip
        """Enqueue a job for a slot of a locked entry, whatever its overlap policy says; the row that tells of it.

        `is_behind`: it waits until the other jobs of the entry have ended. What keeps the job from being enqueued is
        the slot's result too: it would still be there in the next pass.
        """
        task = self.host.tasks.get(entry.task)
        if task is None:
            return Slot(slot_at, "missed", _unknown(entry))
        try:
            made, lane = enqueue_detached(
                self.connection, self.host, task, entry.args, cron_entry=entry.name, is_deferred=is_behind
            )  # fmt: skip
        except InvalidArgs as wrong:
            return Slot(slot_at, "missed", f"its arguments do not fit: {wrong}")
        except psycopg.Error:
            raise
        except Exception as error:
            # Of the host's own, such as what computes a unique key. Only its class: the text may quote a value.
            _log.exception("cron entry %s: its job could not be enqueued", entry.name)
            return Slot(slot_at, "missed", f"enqueuing its job raised {type(error).__name__}")
        if made.conflict:
            return Slot(slot_at, "skipped_overlap", f"job {made.id} is the same unique call")
        report.enqueued.append((task, made))
        if not is_behind:
            report.lanes.add((lane, task.declared.queue))
        return Slot(slot_at, result, job_id=made.id, decided_by=by)

    def _is_put_off(
        self, entry: CronEntryRow, slots: Sequence[datetime], report: SlotReport
    ) -> bool:
        """Whether to leave it to a process that knows the task, for a while: since the slot, or since any process
        was there again to see it."""
        if entry.task in self.host.tasks or entry.is_paused:
            return False
        last, again = transitions.find_gap(self.connection, slots[0])
        seen = slots[0] if last is not None and last >= slots[0] else again or self.now
        report.is_put_off |= (put_off := self.now - seen <= PATIENCE)
        return put_off

    def _results_of(
        self, entry: CronEntryRow, group: SlotGroup, report: SlotReport
    ) -> Iterable[Slot]:
        if group.kind == "late":
            return self._catch_up(entry, group.slots, report)
        if group.kind == "due":
            # One by one, each written before the next is run: which may cancel its job, and tells its row so.
            return (self._run_in_turn(entry, slot, "ran", report) for slot in group.slots)
        first, last = group.slots[0], group.slots[-1]
        why = self._why_missed(entry, first) if group.kind == "missed" else entry.paused_reason
        return [Slot(first, group.kind, why, until_at=last, slots=len(group.slots))]

    def _catch_up(
        self, entry: CronEntryRow, slots: Sequence[datetime], report: SlotReport
    ) -> list[Slot]:
        """What is made up for: the first slot as any other, the rest behind it, so that none is beside another."""
        results: list[Slot] = []
        for slot in slots:
            if entry.overlap != "allow" and results and results[-1].result == "late":
                results.append(self.run(entry, slot, "late", report, is_behind=True))
            else:
                results.append(self._run_in_turn(entry, slot, "late", report))
        return results

    def _run_in_turn(
        self, entry: CronEntryRow, slot_at: datetime, result: str, report: SlotReport
    ) -> Slot:
        """The slot as the overlap policy has it."""
        before = (
            []
            if entry.overlap == "allow"
            else transitions.list_unfinished(self.connection, entry.name)
        )
        if not before:
            return self.run(entry, slot_at, result, report)
        if entry.overlap == "cancel_previous":
            # Enqueued first: what cannot be enqueued must not cost the job before it as well.
            slot = self.run(entry, slot_at, result, report)
            if slot.job_id is not None:
                why = f"the next slot of cron entry {entry.name} has come"
                self.stop(self.connection, before, why, self.now)
                report.stopped += before
            return slot
        if entry.overlap == "queue_one":
            behind = [job for job in before if job.state == "deferred"]
            if not behind:
                return self.run(entry, slot_at, "queued_behind", report, is_behind=True)
            return Slot(slot_at, "skipped_overlap", f"job {behind[0].id} waits already to run next")
        return Slot(slot_at, "skipped_overlap", f"job {before[0].id} had not ended")

    def _why_missed(self, entry: CronEntryRow, slot_at: datetime) -> str:
        if entry.task not in self.host.tasks:
            return _unknown(entry)
        since, until = transitions.find_gap(self.connection, slot_at)
        since, until = since or entry.checked_until, until or self.now
        if since >= slot_at:
            return "a scheduler ran, and did not come to it in time"
        return f"no scheduler ran from {moment(since)} to {moment(until)}"


def _unknown(entry: CronEntryRow) -> str:
    return f"no task {entry.task} is declared where the loops run"
