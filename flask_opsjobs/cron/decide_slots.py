"""Decides every due slot of a cron entry: writes its result, and enqueues its job if it runs.

`decide_by_time` is pure: it decides by time alone whether a slot runs, is caught up, or was missed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Protocol
from zoneinfo import ZoneInfoNotFoundError

import psycopg

from ..core.db import Connection
from ..core.words import moment
from ..host import Host
from ..jobs.record.declaration import TaskDeclaration
from ..jobs.record.enqueue import Enqueued, enqueue_detached, say_call_fault, say_same_call
from . import transitions
from .declaration import MOST_CAUGHT_UP
from .queries import CronEntryRow
from .transitions import Slot, Unfinished

_log = logging.getLogger("flask_opsjobs.cron")
# The most slots that one transaction decides: a week of minutes.
MOST_SLOTS = 10_080
# How long a slot waits for a process that knows its task. During a deploy two versions of the code run at
# once.
PATIENCE = timedelta(minutes=10)
# A slot is late when its job is enqueued more than this after it. A late slot that catch-up does not run is
# missed.
LATE = timedelta(seconds=60)

# The actor in the history of jobs that are stopped because the next slot has come.
_ACTOR = "system:cron"


class StopJobs(Protocol):
    """Cancels waiting jobs, and asks for started ones to be stopped.

    `endings.stop` implements it. This folder must not import `endings`, so the caller passes it.
    """

    def __call__(
        self,
        connection: Connection,
        jobs: Mapping[int, str],
        actor: str,
        reason: str,
        now: datetime,
        /,
    ) -> None:
        """Stop these jobs: their states by id. The caller has locked them, and commits."""
        ...


@dataclass
class SlotReport:
    """Collects what deciding slots did: slots by result, enqueued jobs, lanes to dispatch, and stopped jobs.

    `has_more`: more slots than one transaction decides are due. `is_put_off`: a slot was left for another
    process.
    """

    results: dict[str, int] = field(default_factory=dict)
    lanes: set[tuple[str, str]] = field(default_factory=set)
    stopped: list[Unfinished] = field(default_factory=list)
    enqueued: list[tuple[TaskDeclaration, Enqueued]] = field(default_factory=list)
    troubled: set[str] = field(default_factory=set)
    has_more: bool = False
    is_put_off: bool = False

    def add(self, other: SlotReport) -> None:
        """Add the report of another entry, once its transaction is committed."""
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
    stop: StopJobs
    now: datetime

    def decide_all(self, name: str, report: SlotReport) -> CronEntryRow | None:
        """Decide all slots of an entry up to now, however many, before an operator changes it."""
        while True:
            part = SlotReport()
            entry = self.decide_to_change(name, part)
            report.add(replace(part, has_more=False))
            if not part.has_more:
                return entry

    def decide_to_change(self, name: str, report: SlotReport) -> CronEntryRow | None:
        """Decide slots of an entry that is to change. While `report.has_more`, it must not change yet.

        When this machine no longer knows the entry's zone, its slots cannot be computed and get no results,
        so that an operator or newer code can still give the entry another zone.
        """
        try:
            return self.decide(name, report, is_patient=False)
        except ZoneInfoNotFoundError as error:
            _log.error("cron entry %s changes without results for its last slots: %s", name, error)
            return transitions.read(self.connection, [name]).get(name)

    def decide(
        self, name: str, report: SlotReport, *, is_patient: bool = True
    ) -> CronEntryRow | None:
        """Decide the slots of one entry up to now, adding to `report`. Returns the locked entry, or None.

        Locks the jobs that the entry may have to stop, then the entry. The caller commits. `is_patient`: a
        slot whose task this process does not know is left for up to ten minutes to a process that knows it.
        """
        entry = transitions.lock_to_decide(self.connection, [name]).get(name)
        if entry is None or entry.state == "retired":
            return entry
        slots = entry.schedule.slots_between(entry.checked_until, self.now, MOST_SLOTS + 1)
        if not slots or (is_patient and self._is_put_off(entry, slots, report)):
            return entry
        paused_at = min(filter(None, (entry.paused_at, entry.task_paused_at)), default=None)
        if len(slots) > MOST_SLOTS:
            # Leave as many slots for the next pass as catch-up can run at most, so no slot of this pass has
            # to run.
            report.has_more = True
            slots = slots[: MOST_SLOTS - MOST_CAUGHT_UP]
            groups = decide_by_time(
                slots, self.now, paused_at=paused_at, catch_up="none", limit=None
            )
            until = slots[-1]
        else:
            groups = decide_by_time(
                slots,
                self.now,
                paused_at=paused_at,
                catch_up=entry.catch_up,
                limit=entry.catch_up_limit,
            )
            until = self.now
        for group in groups:
            for slot in self._results_of(entry, group, report):
                transitions.write_result(self.connection, entry, slot, self.now)
                report.results[slot.result] = report.results.get(slot.result, 0) + slot.slots
        transitions.move_on(self.connection, entry.name, until)
        return entry

    def run(
        self,
        entry: CronEntryRow,
        slot_at: datetime,
        result: str,
        report: SlotReport,
        *,
        by: str | None = None,
        is_behind: bool = False,
    ) -> Slot:
        """Enqueue a job for a slot of a locked entry, whatever its overlap policy. Returns the row to write.

        `is_behind`: the job waits until the other jobs of the entry have ended. When the job cannot be
        enqueued, the row says why, and the slot is not tried again: the same fault would still exist in the
        next pass.
        """
        task = self.host.tasks.get(entry.task)
        if task is None:
            return Slot(slot_at, "missed", _unknown(entry))
        try:
            made, lane = enqueue_detached(
                self.connection,
                self.host,
                task,
                entry.args,
                cron_entry=entry.name,
                is_deferred=is_behind,
            )
        except psycopg.Error:
            raise
        except Exception as error:
            return Slot(slot_at, "missed", say_call_fault(f"cron entry {entry.name}", error))
        if made.conflict:
            return Slot(slot_at, "skipped_overlap", say_same_call(made.id))
        report.enqueued.append((task, made))
        if not is_behind:
            report.lanes.add((lane, task.declared.queue))
        return Slot(slot_at, result, job_id=made.id, decided_by=by)

    def _is_put_off(
        self, entry: CronEntryRow, slots: Sequence[datetime], report: SlotReport
    ) -> bool:
        """Whether to leave the slots to a process that knows the task.

        The wait of `PATIENCE` begins at the first slot, or when a cron loop ran again after it.
        """
        if entry.task in self.host.tasks or entry.is_paused or entry.task_paused_at:
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
            # Write each row before the next slot runs: the next slot may cancel this job, and then updates
            # its row.
            return (
                self._run_or_skip_by_overlap(entry, slot, "ran", report) for slot in group.slots
            )
        first, last = group.slots[0], group.slots[-1]
        why = self._why_missed(entry, first) if group.kind == "missed" else _why_paused(entry)
        return [Slot(first, group.kind, why, until_at=last, slots=len(group.slots))]

    def _catch_up(
        self, entry: CronEntryRow, slots: Sequence[datetime], report: SlotReport
    ) -> list[Slot]:
        """Run missed slots: the first under the overlap policy, the others behind it, except with `allow`."""
        results: list[Slot] = []
        for slot in slots:
            if entry.overlap != "allow" and results and results[-1].result == "late":
                results.append(self.run(entry, slot, "late", report, is_behind=True))
            else:
                results.append(self._run_or_skip_by_overlap(entry, slot, "late", report))
        return results

    def _run_or_skip_by_overlap(
        self, entry: CronEntryRow, slot_at: datetime, result: str, report: SlotReport
    ) -> Slot:
        """Run or skip the slot, as the entry's overlap policy says."""
        before = (
            []
            if entry.overlap == "allow"
            else transitions.list_unfinished(self.connection, entry.name)
        )
        if not before:
            return self.run(entry, slot_at, result, report)
        if entry.overlap == "cancel_previous":
            # Enqueue first: if the new job cannot be enqueued, the job before it must not be canceled.
            slot = self.run(entry, slot_at, result, report)
            if slot.job_id is not None:
                why = f"the next slot of cron entry {entry.name} has come"
                states = {job.id: job.state for job in before}
                self.stop(self.connection, states, _ACTOR, why, self.now)
                report.stopped += before
            return slot
        if entry.overlap == "queue_one":
            behind = [job for job in before if job.state == "deferred"]
            if not behind:
                return self.run(entry, slot_at, "queued_behind", report, is_behind=True)
            return Slot(slot_at, "skipped_overlap", f"job {behind[0].id} already waits to run next")
        return Slot(slot_at, "skipped_overlap", f"job {before[0].id} had not ended")

    def _why_missed(self, entry: CronEntryRow, slot_at: datetime) -> str:
        if entry.task not in self.host.tasks:
            return _unknown(entry)
        since, until = transitions.find_gap(self.connection, slot_at)
        since, until = since or entry.checked_until, until or self.now
        if since >= slot_at:
            return "the cron loop was running, but did not reach this slot in time"
        return f"the cron loop did not run from {moment(since)} to {moment(until)}"


def _why_paused(entry: CronEntryRow) -> str | None:
    if entry.is_paused:
        return entry.paused_reason
    return f"{entry.task_paused_by} paused the task {entry.task}: {entry.task_paused_reason}"


def _unknown(entry: CronEntryRow) -> str:
    return f"no task {entry.task} is declared where the loops run"


@dataclass(frozen=True)
class SlotGroup:
    """Neighbouring slots of one kind. Each `due` or `late` slot runs; `missed` and `paused` slots do not."""

    kind: str
    slots: Sequence[datetime]


def decide_by_time(
    slots: Sequence[datetime],
    now: datetime,
    *,
    paused_at: datetime | None,
    catch_up: str,
    limit: int | None,
) -> list[SlotGroup]:
    """Group the slots, in order, by what happens to them. `slots` are all slots up to `now` without a result.

    Slots from `paused_at` on are paused. Of the earlier slots that are older than a minute, `catch_up` runs
    the last one (`latest`), the last `limit` (`all`), or none. `latest` runs none either when a regular slot
    is due now: no extra job is needed.
    """
    kinds = [_kind(slot, now, paused_at) for slot in slots]
    old = [at for at, kind in enumerate(kinds) if kind == "old"]
    for at in old:
        kinds[at] = "missed"
    if catch_up == "all":
        caught_up = old[-(limit or 0) :] if limit else []
    else:
        caught_up = old[-1:] if catch_up == "latest" and "due" not in kinds else []
    for at in caught_up:
        kinds[at] = "late"
    return list(_grouped(slots, kinds))


def _kind(slot: datetime, now: datetime, paused_at: datetime | None) -> str:
    if paused_at is not None and slot >= paused_at:
        return "paused"
    return "old" if now - slot > LATE else "due"


def _grouped(slots: Sequence[datetime], kinds: Sequence[str]) -> Iterator[SlotGroup]:
    for kind, pairs in groupby(zip(slots, kinds, strict=True), key=lambda pair: pair[1]):
        yield SlotGroup(kind, [slot for slot, _ in pairs])
