"""Decides and applies an operator's actions on cron entries."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg

from .. import endings
from ..actions.domain import (
    Action,
    BadParams,
    ChangedMeanwhile,
    NothingWritten,
    Request,
    cannot,
    exact,
    make_item,
    make_skip,
    name_in,
    read_whole,
    say_cannot,
    whole,
)
from ..actions.effects import AnnounceStop, Dispatch, Effect
from ..actions.shapes import Change, Item, Skip
from ..core.db import Connection
from ..host import Host
from ..jobs.record.enqueue import find_same_call, say_call_fault, say_same_call
from . import queries, transitions
from .code_sync import wanted_of
from .decide_slots import SlotDecider, SlotReport
from .declaration import BadEntry, EntryDeclaration, list_faults, make_entry
from .lifecycle import ABSENT, sources_of
from .queries import CronEntryRow

_TARGET = re.compile(r"cron/[A-Za-z0-9_.:\-]{1,200}")
_MOST_AT_ONCE = 100
# The parameters of a cron entry, in the order of its form.
ENTRY_PARAMS = ("task", "expression", "zone", "overlap", "catch_up", "args")


@dataclass(frozen=True)
class CronForDecision:
    """A cron entry, or a name that is free (`entry` is None), and what only some decisions need.

    `fault` is the skip's code and the sentence why its task cannot be enqueued now. `unfinished` is the
    oldest job of it that has not ended. `missed` are the slots to catch up.
    """

    name: str
    entry: CronEntryRow | None
    fault: tuple[str, str] | None = None
    unfinished: int | None = None
    missed: tuple[datetime, ...] | None = None

    @property
    def target(self) -> str:
        """The entry as the target of an action."""
        return f"cron/{self.name}"

    @property
    def label(self) -> str:
        """The entry for people: its name."""
        return self.name

    @property
    def state(self) -> str:
        """The state of the entry; `absent` when the name is free."""
        return ABSENT if self.entry is None else self.entry.state

    @property
    def stored(self) -> CronEntryRow:
        """The entry, where the state says that there is one."""
        assert self.entry is not None
        return self.entry


# --- targets and rows


def read_target(text: str) -> str | None:
    """The target unchanged, such as `cron/nightly_sync`; None when the text is not a target."""
    # A browser would resolve an address that ends in `.` or `..` to another page.
    return text if _TARGET.fullmatch(text) and text not in ("cron/.", "cron/..") else None


def lock_rows(connection: Connection, _request: Request, targets: Collection[str]) -> None:
    """Lock these entries until the commit, and the jobs that a decision may have to stop."""
    transitions.lock_to_decide(connection, list(map(name_in, targets)))


def find_rows(
    connection: Connection, request: Request, targets: Collection[str]
) -> dict[str, CronForDecision]:
    """The entries of these names, and the free names when the action needs a free one."""
    found = transitions.read(connection, list(map(name_in, targets)))
    rows = {
        target: CronForDecision(name_in(target), found.get(name_in(target))) for target in targets
    }
    return {
        target: row
        for target, row in rows.items()
        if row.entry is not None or ABSENT in request.action.sources
    }


def say_unknown(target: str) -> str:
    """The sentence about an entry that does not exist."""
    return (
        f"there is no cron entry {name_in(target)}: declare it with @opsjobs.cron and start "
        "`flask opsjobs run`, or name one that `flask opsjobs cron list` lists"
    )


def forbid(row: CronForDecision, request: Request) -> Skip | None:
    """Why the entry's state forbids the action; None when it allows it."""
    if row.state in request.action.sources:
        return None
    if already := _say_already(row.stored, request.action.short_name):
        return make_skip(row, "already", already)
    return cannot(row, request, f"it is {row.state}")


def _say_already(entry: CronEntryRow, short_name: str) -> str | None:
    """The sentence about an entry that is already as the action would make it; None about any other."""
    if short_name == "create":
        way_out = "edit it, or take" if entry.origin == "runtime" else "take"
        return f"there is a cron entry {entry.name} already, {entry.state}: {way_out} another name"
    if short_name == "pause" and entry.is_paused:
        return f"cron entry {entry.name} is paused already, by {entry.paused_by}"
    if short_name == "resume" and entry.state == "active":
        return f"cron entry {entry.name} is active already"
    return None


def list_facts(row: CronForDecision, _now: datetime) -> dict[str, Any]:
    """The facts that a plan for the entry depends on.

    Leaves out `checked_until`, which moves with every slot.
    """
    if row.entry is None:
        return {"state": ABSENT}
    facts = _facts_of(row.entry)
    if row.missed is not None:
        facts["missed"] = [slot.isoformat() for slot in row.missed]
    return facts


def _facts_of(entry: CronEntryRow) -> dict[str, Any]:
    return {
        "state": entry.state,
        "origin": entry.origin,
        **wanted_of(entry).params,
        "paused_at": exact(entry.paused_at),
        "paused_by": entry.paused_by,
    }


# --- writes: the slots of an entry that are due now are decided first

_Results = list[Effect | Item]


@dataclass(frozen=True)
class _Writing:
    """A request whose entries are written, and the report of the due slots that were decided before."""

    connection: Connection
    request: Request
    decider: SlotDecider
    report: SlotReport


# Writes one entry. Returns the item of the receipt when it says more than the plan.
_Write = Callable[[_Writing, CronForDecision], Item | None]


def _after_due_slots(
    write: _Write,
) -> Callable[[Connection, Request, Sequence[CronForDecision]], _Results]:
    """An `apply` that decides the due slots of each entry and then calls `write` with it."""

    def apply(
        connection: Connection, request: Request, rows: Sequence[CronForDecision]
    ) -> _Results:
        report = SlotReport()
        decider = SlotDecider(connection, request.host, endings.stop, request.now)
        writing = _Writing(connection, request, decider, report)
        results: _Results = []
        for row in rows:
            current = decider.decide_all(row.name, report)
            assert current is not None  # locked and planned
            item = write(writing, replace(row, entry=current))
            results += [] if item is None else [item]
        results += [AnnounceStop(job.queue, job.worker) for job in report.stopped if job.worker]
        if report.lanes:
            results.append(Dispatch(tuple(sorted(report.lanes))))
        return results

    return apply


# --- pause and resume


def _decide_pause(row: CronForDecision, _request: Request) -> Item | Skip:
    return make_item(row, Change("state", row.state, "paused"))


def _write_pause(writing: _Writing, row: CronForDecision) -> None:
    request = writing.request
    transitions.pause(writing.connection, row.name, request.actor, request.reason, request.now)


def _decide_resume(row: CronForDecision, _request: Request) -> Item | Skip:
    return make_item(row, Change("state", row.state, "active"))


def _write_resume(writing: _Writing, row: CronForDecision) -> None:
    transitions.resume(writing.connection, row.name)


# --- run now and catch up


def _read_call(
    connection: Connection, request: Request, rows: dict[str, CronForDecision]
) -> dict[str, CronForDecision]:
    """The entries with what decides whether their call can be enqueued now."""
    found = {}
    for target, row in rows.items():
        fault = _find_call_fault(connection, request.host, row.stored)
        unfinished = [] if fault else transitions.list_unfinished(connection, row.name)
        oldest = unfinished[0].id if unfinished else None
        found[target] = replace(row, fault=fault, unfinished=oldest)
    return found


def _find_call_fault(
    connection: Connection, host: Host, entry: CronEntryRow
) -> tuple[str, str] | None:
    """The skip's code and the sentence why the entry's task cannot be enqueued now; None when it can be."""
    task = host.tasks.get(entry.task)
    if task is None:
        return "illegal", f"there is no task {entry.task} in this application"
    try:
        same = find_same_call(connection, host, task, entry.args)
    except psycopg.Error:
        raise
    except Exception as error:
        return "illegal", say_call_fault(f"cron entry {entry.name}", error)
    return None if same is None else ("already", say_same_call(same))


def _decide_run_now(row: CronForDecision, request: Request) -> Item | Skip:
    if row.fault:
        return _skip_faulty(row, request)
    change = Change("job", None, f"a new one of {row.stored.task}")
    return make_item(row, change, note=_say_both(row))


def _skip_faulty(row: CronForDecision, request: Request) -> Skip:
    code, fault = row.fault or ("", "")
    return cannot(row, request, fault, code)


def _say_both(row: CronForDecision) -> str | None:
    if row.unfinished is None:
        return None
    return f"job {row.unfinished} of the entry has not ended: both will run"


def _write_run_now(writing: _Writing, row: CronForDecision) -> Item:
    return _run(writing, row, [writing.request.now])


def _read_count(request: Request) -> dict[str, Any]:
    """The number of missed slots to catch up."""
    return {"count": read_whole(request.params["count"], _MOST_AT_ONCE, "count is {}")}


def _read_missed(
    connection: Connection, request: Request, rows: dict[str, CronForDecision]
) -> dict[str, CronForDecision]:
    """The entries as `_read_call` reads them, with the missed slots of those whose call can be enqueued."""
    found = _read_call(connection, request, rows)
    for target, row in found.items():
        if row.fault is None:
            count = _count_of(row.stored, request)
            missed = queries.list_missed(connection, row.name, count)
            found[target] = replace(row, missed=tuple(missed) or None)
    return found


def _count_of(entry: CronEntryRow, request: Request) -> int:
    # All missed slots make the same call. If the task is unique, only one job of it can exist.
    is_unique = request.host.tasks[entry.task].declared.unique is not None
    return 1 if is_unique else int(request.params["count"])


def _decide_catch_up(row: CronForDecision, request: Request) -> Item | Skip:
    if row.fault:
        return _skip_faulty(row, request)
    if row.missed is None:
        sentence = (
            f"every missed slot of cron entry {row.name} has been caught up, or there was none"
        )
        return make_skip(row, "already", sentence)
    number, note = len(row.missed), _say_both(row)
    news = "1 new job" if number == 1 else f"{number} new jobs"
    change = Change("missed slots", str(number), f"{news} of {row.stored.task}")
    if _count_of(row.stored, request) < request.params["count"]:
        unique = "its calls are unique: only the last slot gets a job"
        note = f"{note}; {unique}" if note else unique
    return make_item(row, change, note=note)


def _write_catch_up(writing: _Writing, row: CronForDecision) -> Item:
    # Use the slots that were planned and shown. Deciding the due slots may just have added newer missed ones.
    return _run(writing, row, row.missed or ())


def _run(writing: _Writing, row: CronForDecision, slots: Sequence[datetime]) -> Item:
    """Enqueue a job manually for each of these slots. Returns the item with what really happened."""
    entry, request = row.stored, writing.request
    has_run = any(task.name == entry.task for task, _ in writing.report.enqueued)
    ids: list[int] = []
    notes: dict[str, None] = {}
    for slot_at in slots:
        slot = writing.decider.run(entry, slot_at, "manual", writing.report, by=request.actor)
        if slot.job_id is None:
            notes[slot.why or ""] = None
            # A slot that was due just now may have enqueued the same unique call: then that is the requested
            # job.
            if not ids and not has_run:
                # The plan found no same call, so another transaction has enqueued it since.
                is_rival = slot.result == "skipped_overlap"
                sentence = say_cannot(request.action, row.target, slot.why or "")
                raise ChangedMeanwhile if is_rival else NothingWritten(sentence)
            continue
        ids.append(slot.job_id)
        manual = replace(slot, why=request.reason)
        transitions.write_result(writing.connection, entry, manual, request.now)
    changes = [Change("new job", None, f"job/{id}") for id in ids]
    return make_item(row, *changes, note="; ".join(notes) or None)


# --- create, edit and delete


def read_entry(host: Host, given: Mapping[str, Any]) -> dict[str, Any]:
    """The task, schedule, policies and arguments as they are stored. Raises `BadParams` with every fault.

    Values of redacted arguments are dropped here, so neither a plan nor its preview holds them.
    """
    faults = []
    name = given["task"]
    task = host.tasks.get(name) if isinstance(name, str) else None
    if task is None:
        faults.append(("task", f"there is no task {name!r} in this application"))
    args = given["args"]
    if isinstance(args, str):
        try:
            args = json.loads(args or "{}")
        except ValueError as wrong:
            faults.append(("args", f"args is not JSON: {wrong}"))
        except RecursionError:
            faults.append(("args", "args is nested too deeply"))
    policies = {
        param: usual if given[param] in (None, "") else given[param]
        for param, usual in (("zone", "UTC"), ("overlap", "skip"), ("catch_up", "none"))
    }
    number = whole(policies["catch_up"])
    policies["catch_up"] = policies["catch_up"] if number is None else number
    if task is None or faults:
        # Without a task or readable arguments, the arguments cannot be checked.
        raise BadParams([*faults, *list_faults(given["expression"], **policies)])
    try:
        entry = make_entry(task, given["expression"], args=args, name="new", **policies)
    except BadEntry as wrong:
        raise BadParams(wrong.faults) from None
    return entry.params


def _read_entry(request: Request) -> dict[str, Any]:
    return read_entry(request.host, request.params)


def _list_changes(before: Mapping[str, Any], params: Mapping[str, Any]) -> list[Change]:
    """The values in `params` that differ from those before."""
    return [
        Change(name, _words(before.get(name)), _words(value))
        for name, value in params.items()
        if name not in before or before[name] != value
    ]


def _words(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) else json.dumps(value)


def _decide_create(row: CronForDecision, request: Request) -> Item | Skip:
    return make_item(row, *_list_changes({}, request.params))


def _apply_create(
    connection: Connection, request: Request, rows: Sequence[CronForDecision]
) -> _Results:
    for row in rows:
        wanted = EntryDeclaration.from_params(row.name, request.params)
        if not transitions.create(connection, wanted, "runtime", request.actor, request.now):
            # There was no row to lock, so another process could create an entry of that name meanwhile.
            raise ChangedMeanwhile
    return []


def _skip_declared(row: CronForDecision, request: Request) -> Skip | None:
    """Why an entry that code declares cannot be edited or deleted; None for one that was made at runtime."""
    if row.stored.origin != "code":
        return None
    why = "the code declares it; pause it here, or change the code"
    if row.state == "retired":
        why = "the code declared it and no longer does; its run history stays"
    return cannot(row, request, why)


def _decide_edit(row: CronForDecision, request: Request) -> Item | Skip:
    if declared := _skip_declared(row, request):
        return declared
    changes = _list_changes(_facts_of(row.stored), request.params)
    if not changes:
        return make_skip(row, "already", f"cron entry {row.name} already has these values")
    return make_item(row, *changes)


def _write_edit(writing: _Writing, row: CronForDecision) -> None:
    wanted = EntryDeclaration.from_params(row.name, writing.request.params)
    transitions.change(writing.connection, wanted, "runtime", writing.request.now)


def _decide_delete(row: CronForDecision, request: Request) -> Item | Skip:
    return _skip_declared(row, request) or make_item(row, Change("state", row.state, None))


def _write_delete(writing: _Writing, row: CronForDecision) -> None:
    transitions.delete(writing.connection, [row.name])


# In the order of their buttons.
ACTIONS: tuple[Action[CronForDecision], ...] = (
    Action(
        name="cron.pause",
        title="Pause",
        sources=sources_of("pause"),
        risk="The next slots do not run; they are recorded as paused. Running jobs continue.",
        decide=_decide_pause,
        apply=_after_due_slots(_write_pause),
    ),
    Action(
        name="cron.resume",
        title="Resume",
        sources=sources_of("resume"),
        risk="The next slots run again. Slots that came during the pause do not run.",
        decide=_decide_resume,
        apply=_after_due_slots(_write_resume),
    ),
    Action(
        name="cron.run_now",
        title="Run now",
        phrase="run {} now",
        sources=sources_of("run_now"),
        risk="A job of the entry is enqueued at once, even if another is running.",
        read_more=_read_call,
        decide=_decide_run_now,
        apply=_after_due_slots(_write_run_now),
    ),
    Action(
        name="cron.catch_up",
        title="Catch up",
        phrase="catch {} up",
        sources=sources_of("catch_up"),
        risk="Each missed slot gets a job, all at once. These jobs may run at the same time.",
        params=("count",),
        read_params=_read_count,
        read_more=_read_missed,
        decide=_decide_catch_up,
        apply=_after_due_slots(_write_catch_up),
    ),
    Action(
        name="cron.create",
        title="Create",
        sources=sources_of("create"),
        risk="The entry runs by itself, from its next slot on.",
        params=ENTRY_PARAMS,
        read_params=_read_entry,
        decide=_decide_create,
        apply=_apply_create,
    ),
    Action(
        name="cron.edit",
        title="Edit",
        sources=sources_of("edit"),
        risk="The change applies from now on. Earlier slots keep their results.",
        params=ENTRY_PARAMS,
        read_params=_read_entry,
        decide=_decide_edit,
        apply=_after_due_slots(_write_edit),
    ),
    Action(
        name="cron.delete",
        title="Delete",
        sources=sources_of("delete"),
        risk="The entry does not run any more. Its run history stays.",
        decide=_decide_delete,
        apply=_after_due_slots(_write_delete),
    ),
)


def actions_of_entry(state: str, origin: str) -> tuple[Action[CronForDecision], ...]:
    """The actions on an entry in this state; one that code declares is neither edited nor deleted."""
    return tuple(
        action
        for action in ACTIONS
        if state in action.sources
        and (origin == "runtime" or action.short_name not in ("edit", "delete"))
    )
