"""Shows cron: all entries with their slots, one entry with its run history, and the form of an entry."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from flask import Response, request
from markupsafe import Markup
from werkzeug import Response as AnyResponse

from ...actions.domain import Action, BadParams
from ...actions.registry import ACTIONS
from ...audit.queries import list_events_of
from ...audit.verify import find_chain_fault
from ...core.display import Display
from ...core.reading import Reading
from ...core.round_trips import start_reading
from ...cron import queries
from ...cron.actions import ENTRY_PARAMS, actions_of_entry, read_entry
from ...cron.decide_slots import LATE
from ...cron.expression import BadSchedule, read_schedule
from ...cron.lifecycle import CATCH_UPS, MEANINGS, OVERLAPS, RESULTS
from ...cron.queries import CronEntryRow, MissedSlots, SlotRow
from ...jobs.record.options import fault_of_name
from ...lifeline.loop_runs import LoopRow, find_loop
from ...tasks.queries import PausedTask, find_pauses
from ..actions import view as actions
from ..app import access, order, pages, problems
from ..app.host import host, reading
from .slots import Drawn, Picture, make_calendar, make_strip, shape_of

_SHOWN = 50
_TEN = 10


@dataclass(frozen=True)
class EntryView:
    """An entry as the pages show it. `slots` are newest first; `cron_loop` is None when none ever ran.

    `pause` is that of its task, if it is paused.
    """

    entry: CronEntryRow
    slots: Sequence[SlotRow]
    missed: MissedSlots | None
    now: datetime
    cron_loop: LoopRow | None
    pause: PausedTask | None

    @property
    def is_paused(self) -> bool:
        """Whether the next slots will be recorded as paused."""
        return self.entry.state == "paused" or (
            self.entry.state == "active" and self.pause is not None
        )

    @property
    def actions(self) -> Sequence[Action[Any]]:
        """The actions that are legal now, except those with a form of their own."""
        legal = actions_of_entry(self.entry.state, self.entry.origin)
        return [action for action in legal if action.short_name not in ("edit", "catch_up")]

    @property
    def next(self) -> Sequence[datetime]:
        """The next three slots without a result. Empty for a retired entry or an unknown time zone."""
        if self.entry.state == "retired" or self.zone_info is None:
            return []
        # `checked_until` is after now when a clock was stepped back: those slots already have their results.
        return self.entry.schedule.next(max(self.now, self.entry.checked_until), 3)

    @property
    def zone_info(self) -> ZoneInfo | None:
        """Its time zone; None when an update of this machine's time zone data has removed it."""
        try:
            return self.entry.schedule.zone_info
        except ZoneInfoNotFoundError:
            return None

    @property
    def is_placeless(self) -> bool:
        """Whether its time zone is unknown, so that it has no slots."""
        return self.zone_info is None and self.entry.state != "retired"

    @property
    def is_told(self) -> bool:
        """Whether the top of the page has a sentence about it."""
        is_behind = self.missed is not None or self.overdue is not None
        return self.is_placeless or self.is_paused or is_behind

    @property
    def overdue(self) -> datetime | None:
        """The first due slot without a result while a cron loop runs; None when there is none."""
        is_running = self.cron_loop is not None and self.cron_loop.is_running
        if not is_running or self.zone_info is None or self.entry.state == "retired":
            return None
        first = next(self.entry.schedule.slots_after(self.entry.checked_until), None)
        return None if first is None or self.now - first <= LATE else first

    @property
    def last(self) -> SlotRow | None:
        """The newest slot with a job, among `slots`."""
        return next((slot for slot in self.slots if slot.job_id is not None), None)

    @property
    def last_run(self) -> str:
        """The text when `last` is None. Older slots than `slots` are not known."""
        return (
            "none yet"
            if len(self.slots) < queries.STRIP_ROWS
            else f"none in {queries.STRIP_ROWS} slots"
        )

    @property
    def strip(self) -> Picture:
        """Its newest slots, drawn."""
        return make_strip(map(_drawn, self.slots), queries.STRIP_ROWS)


# The columns by which the list can be ordered.
KEYS: order.Keys = {
    "name": lambda row: row.entry.name,
    "schedule": lambda row: row.entry.expression,
    "next": lambda row: next(iter(row.next), None),
    "last": lambda row: row.last and row.last.slot_at,
    "overlap": lambda row: row.entry.overlap,
    "missed": lambda row: sum(slot.result == "missed" for slot in row.slots),
}


def page() -> Response:
    """The document of all entries."""
    made, now, query = _all()
    return pages.page("cron/page.html", "cron", "Cron", now, live=made, query=query)


def live() -> Response:
    """The fragment of it that refreshes."""
    return pages.fragment(_all()[0])


def entry_page(name: str) -> Response:
    """The document of one entry."""
    with reading() as read:
        entry, made = _one(read, name)
    catch_up = None if entry.state == "retired" else ACTIONS["cron.catch_up"]
    return pages.page(
        "cron_entry/page.html", "cron", name, read.now, live=made, name=name, catch_up=catch_up
    )


def entry_live(name: str) -> Response:
    """The fragment of it that refreshes."""
    with reading() as read:
        _, made = _one(read, name)
    return pages.fragment(made)


def new() -> Response:
    """The form of a new entry, with the next ten runs when a schedule is typed."""
    return _form(None, {name: request.values.get(name, "") for name in ("name", *ENTRY_PARAMS)})


def edit(name: str) -> Response:
    """The form of an entry that was made at runtime. It shows arguments, so it needs `payload.view`."""
    with reading() as read:
        entry = _find(read, name)
    access.require(access.PAYLOAD, access.subject())
    if entry.origin == "code":
        raise problems.unreadable(f"{name}: the code declares it, and says when it runs.")
    args = json.dumps({key: one for key, one in entry.args.items() if key not in _redacted(entry)})
    if json.loads(Display(host().display, may_see=True).plain(args)) != json.loads(args):
        raise problems.unreadable(
            f"{name}: the display policy hides a part of its arguments, and this form would save what it "
            "shows. Change the entry in Python: opsjobs.operator.edit_cron(…)."
        )
    typed = {
        **{param: str(getattr(entry, param)) for param in ENTRY_PARAMS},
        "catch_up": str(entry.catch_up_limit or entry.catch_up),
        "args": args,
    }
    return _form(
        entry, typed | {key: value for key, value in request.values.items() if key in typed}
    )


def create() -> AnyResponse:
    """Start `cron.create` with the form's values; the form again, with its faults, when they are invalid."""
    typed = {name: request.form.get(name, "").strip() for name in ("name", *ENTRY_PARAMS)}
    params, name = {param: typed[param] for param in ENTRY_PARAMS}, typed["name"]
    faults = _list_faults(params)
    if fault := fault_of_name("the name", name):
        faults["name"] = fault
    if faults:
        return _form(None, typed, faults, status=422)
    return actions.start(ACTIONS["cron.create"], [f"cron/{name}"], params)


def change(name: str) -> AnyResponse:
    """Start `cron.edit` with the form's values; the form again, with its faults, when they are invalid.

    Needs `payload.view`, because it also replaces arguments.
    """
    access.require(access.PAYLOAD, access.subject())
    typed = {param: request.form.get(param, "").strip() for param in ENTRY_PARAMS}
    if faults := _list_faults(typed):
        with reading() as read:
            entry = _find(read, name)
        return _form(entry, typed, faults, status=422)
    return actions.start(ACTIONS["cron.edit"], [f"cron/{name}"], typed)


def _list_faults(typed: Mapping[str, str]) -> dict[str, str]:
    """The faults of the typed values: sentences by field."""
    faults: dict[str, str] = {}
    try:
        read_entry(host(), typed)
    except BadParams as wrong:
        for param, fault in wrong.faults:
            faults[param] = f"{faults[param]}; {fault}" if param in faults else fault
    return faults


def _form(
    entry: CronEntryRow | None,
    typed: Mapping[str, str],
    faults: Mapping[str, str] = {},
    *,
    status: int = 200,
) -> Response:
    now = datetime.now(UTC)
    runs, words = [], ""
    if typed["expression"].strip():
        try:
            schedule = read_schedule(typed["expression"], typed["zone"].strip() or "UTC")
            runs, words = schedule.next(now, _TEN), schedule.words
        except BadSchedule as wrong:
            faults = {**dict(wrong.faults), **faults}
    return pages.document(
        "cron_form/page.html",
        "cron",
        "New cron entry" if entry is None else f"Edit {entry.name}",
        now,
        status=status,
        entry=entry,
        typed=typed,
        faults=faults,
        runs=runs,
        words=words,
        tasks=sorted(host().tasks),
        overlaps=OVERLAPS,
        catch_ups=CATCH_UPS,
        action=ACTIONS["cron.create" if entry is None else "cron.edit"],
    )


def _all() -> tuple[Markup, datetime, Mapping[str, str]]:
    asked = order.read_order(KEYS, texts=("name", "schedule", "next", "overlap"))
    with reading() as read:
        missing = start_reading(read.session, queries.list_missed_lately, read.now)
        looking = start_reading(read.session, find_loop, read.now, "cron")
        entries = queries.list_entries(read.session)
        pausing = start_reading(read.session, find_pauses, {entry.task for entry in entries})
        strips = queries.list_strips(read.session, [entry.name for entry in entries])
        missed, cron_loop, pauses = missing.value, looking.value, pausing.value
        rows = [
            EntryView(
                entry,
                strips[entry.name],
                missed.get(entry.name),
                read.now,
                cron_loop,
                pauses.get(entry.task),
            )
            for entry in entries
        ]
    made = pages.part(
        "cron/_live.html",
        read.now,
        rows=asked.apply(rows, KEYS),
        order=asked,
        is_cut=len(rows) >= queries.MOST_ENTRIES,
        cron_loop=cron_loop,
        results=RESULTS,
        shape_of=shape_of,
    )
    return made, read.now, asked.all_query


def _one(read: Reading, name: str) -> tuple[CronEntryRow, Markup]:
    entry = _find(read, name)
    events = fault = None
    if access.may("audit.view"):
        events = start_reading(read.session, list_events_of, f"cron/{name}")
        fault = start_reading(read.session, find_chain_fault)
    missing = start_reading(read.session, queries.list_missed_lately, read.now)
    looking = start_reading(read.session, find_loop, read.now, "cron")
    pausing = start_reading(read.session, find_pauses, [entry.task])
    slots = queries.list_slots(read.session, name, read.now)
    missed, pause = missing.value.get(name), pausing.value.get(entry.task)
    cron_loop = looking.value
    row = EntryView(entry, slots[: queries.STRIP_ROWS], missed, read.now, cron_loop, pause)
    zone = row.zone_info or ZoneInfo("UTC")
    return entry, pages.part(
        "cron_entry/_live.html",
        read.now,
        row=row,
        cron_loop=row.cron_loop,
        slots=slots[:_SHOWN],
        calendar=make_calendar(map(_drawn, slots), read.now.astimezone(zone).date(), zone),
        is_cut=len(slots) >= queries.MOST_HISTORY_ROWS,
        offsets=[slot.astimezone(zone) for slot in row.next],
        results=RESULTS,
        shape_of=shape_of,
        meaning=MEANINGS[entry.state],
        overlaps=OVERLAPS,
        catch_ups=CATCH_UPS,
        edit=ACTIONS["cron.edit"],
        redacted=_redacted(entry),
        events=events,
        chain_fault=fault,
    )


def _redacted(entry: CronEntryRow) -> Collection[str]:
    """The task's redacted parameters. An entry made before they were declared so still has their values."""
    declared = host().tasks.get(entry.task)
    return declared.redact if declared else ()


def _find(read: Reading, name: str) -> CronEntryRow:
    found = queries.find_entry(read.session, name)
    if found is None:
        clean = Display(host().display, may_see=True).clean
        known = [clean(one.name) for one in queries.list_entries(read.session)]
        raise problems.no_such_entry(name, known)
    return found


def _drawn(slot: SlotRow) -> Any:
    return Drawn(slot.result, slot.slot_at, slot.until_at, slot.slots)
