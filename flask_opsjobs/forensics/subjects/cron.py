"""Tells of a cron entry: its slots with their results and jobs, and who paused it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from ...actions.domain import name_in
from ...core.history import Event
from ...core.round_trips import start_reading
from ...core.words import counted, moment
from ...cron import actions as cron_actions
from ...cron.lifecycle import RESULTS
from ...cron.queries import CronEntryRow, SlotRow, find_entry, list_newest_slots
from ..bundle import (
    Column,
    EvidenceTable,
    Expected,
    Inquiry,
    Kind,
    LeftOut,
    Related,
    TableRow,
    Told,
    WatchedSpan,
)

_MOST_SLOTS = 100


def _read_key(key: str) -> str | None:
    target = cron_actions.read_target(f"cron/{key}")
    return None if target is None else name_in(target)


def _tell(inquiry: Inquiry) -> Told | None:
    finding = start_reading(inquiry.session, find_entry, inquiry.key)
    slots = list_newest_slots(inquiry.session, inquiry.key, _MOST_SLOTS)
    entry = finding.value
    if entry is None:
        return _tell_gone(inquiry, slots) if slots else None
    is_cut = len(slots) == _MOST_SLOTS
    since = slots[-1].decided_at if is_cut else entry.created_at
    return Told(
        title=f"Cron entry {entry.name}",
        state=entry.state,
        diagnosis=_diagnose(entry, slots, inquiry.now),
        since=since,
        until=inquiry.now,
        events=[*_of_entry(entry, since), *_of_slots(slots)],
        watches=list(_list_watches(entry, inquiry.now)),
        evidence=[_make_facts(entry), _make_slots(slots)],
        related=[Related("Task", entry.task, f"task/{entry.task}")],
        left_out=[LeftOut("slots", before=since)] if is_cut else [],
    )


def _diagnose(entry: CronEntryRow, slots: Sequence[SlotRow], now: datetime) -> str:
    if entry.paused_at is not None:
        return f"{entry.paused_by} paused it at {moment(entry.paused_at)}: “{entry.paused_reason}”"
    if entry.retired_at is not None:
        return f"The code no longer declares it since {moment(entry.retired_at)}."
    last = "None of its slots has come yet."
    if slots:
        last = f"Its last slot, {moment(slots[0].slot_at)}: {_say_result(slots[0])}."
    coming = entry.schedule.next(max(now, entry.checked_until), 1)
    return f"{last} The next one is at {moment(coming[0])}." if coming else last


def _say_result(slot: SlotRow) -> str:
    says = RESULTS[slot.result].word
    if slot.job_id is not None:
        end = slot.job_state or "has not ended"
        says += f", job {slot.job_id} {end}"
    return says


def _of_entry(entry: CronEntryRow, since: datetime) -> Iterator[Event]:
    """What its row tells; who paused and resumed it the audit tells."""
    if entry.created_at >= since:
        yield Event(
            entry.created_at,
            "seen",
            f"Created: {entry.expression} in {entry.zone}",
            entry.created_by,
        )
    if entry.changed_at is not None and entry.changed_at >= since:
        text = f"Changed: {entry.expression} in {entry.zone}"
        yield Event(entry.changed_at, "seen", text, "loop cron")
    if entry.retired_at is not None and entry.retired_at >= since:
        yield Event(entry.retired_at, "retired", "The code no longer declares it", "loop cron")


def _of_slots(slots: Sequence[SlotRow]) -> Iterator[Event]:
    for slot in slots:
        subject = None if slot.job_id is None else f"job/{slot.job_id}"
        if slot.job_state is not None and slot.ended_at is not None:
            text = f"Job {slot.job_id} ended: {slot.job_state}"
            yield Event(slot.ended_at, slot.job_state, text, "run history", subject=subject)
        word = RESULTS[slot.result].word
        what = f"Slot {moment(slot.slot_at)}"
        if slot.slots > 1:
            what = f"{counted(slot.slots, 'slot')} from {moment(slot.slot_at)} to {moment(slot.until_at)}"
        by = f" by {slot.decided_by}" if slot.decided_by else ""
        job = f", job {slot.job_id}" if slot.job_id is not None else ""
        source = "operator" if slot.decided_by else "loop cron"
        yield Event(
            slot.decided_at,
            slot.result,
            f"{what}: {word}{by}{job}",
            source,
            label=slot.why,
            subject=subject,
        )


def _list_watches(entry: CronEntryRow, now: datetime) -> Iterator[WatchedSpan]:
    """Every slot up to `checked_until` has its result; later ones only the loop can give."""
    if entry.retired_at is None:
        since = min(entry.checked_until, now)
        says = "What becomes of its slots is not decided."
        yield WatchedSpan("cron", says, since, now)


def _make_facts(entry: CronEntryRow) -> EvidenceTable:
    facts = {
        "expression": f"{entry.expression} in {entry.zone}",
        "task": entry.task,
        "declared by": "the code" if entry.origin == "code" else entry.created_by,
        "while a job has not ended": entry.overlap.replace("_", " "),
        "slots missed run afterwards": entry.catch_up,
        "decided until": moment(entry.checked_until),
    }
    rows = [TableRow(pair) for pair in facts.items()]
    return EvidenceTable("What it is", (Column("what"), Column("value")), rows)


def _make_slots(slots: Sequence[SlotRow]) -> EvidenceTable:
    columns = (
        Column("slot", "moment"),
        Column("result"),
        Column("job"),
        Column("its end"),
        Column("took", "seconds"),
    )
    rows = [
        TableRow(
            (
                slot.slot_at,
                RESULTS[slot.result].word,
                None if slot.job_id is None else str(slot.job_id),
                slot.job_state,
                slot.took_seconds,
            ),
            None if slot.job_id is None else f"job/{slot.job_id}",
        )
        for slot in slots[:20]
    ]
    return EvidenceTable("Its last slots", columns, rows)


def _tell_gone(inquiry: Inquiry, slots: Sequence[SlotRow]) -> Told:
    """What its run history tells, which outlives it."""
    return Told(
        title=f"Cron entry {inquiry.key}",
        state=None,
        diagnosis="The entry is deleted. Its run history is below.",
        since=slots[-1].decided_at,
        until=slots[0].decided_at,
        events=list(_of_slots(slots)),
        pieces=[Expected("The entry itself: it is deleted", is_found=False, is_removed=True)],
        evidence=[_make_slots(slots)],
        left_out=[LeftOut("slots", before=slots[-1].decided_at)]
        if len(slots) == _MOST_SLOTS
        else [],
        is_gone=True,
    )


KIND = Kind("cron", "cron.view", _read_key, _tell)
