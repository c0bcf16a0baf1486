"""Decides and applies an operator's actions on cron entries."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from .. import endings
from ..actions.catalog import Action
from ..actions.effects import Dispatch, Effect, RequestHeartbeat
from ..actions.shapes import Change, Item
from ..actions.target_plan import (
    ChangedMeanwhile,
    Decided,
    NothingWritten,
    TargetPlan,
    Written,
    do,
    illegal,
    leave,
)
from ..core.db import Connection
from ..host import Host
from . import action_params as cron_params
from . import queries, transitions
from .action_changes import changes_of, facts_of_entry
from .decide_slots import SlotDecider, SlotReport
from .declaration import EntryDeclaration
from .expression import Schedule
from .lifecycle import ABSENT
from .queries import CronEntryRow

_TARGET = re.compile(r"cron/[A-Za-z0-9_.:\-]{1,200}")


def read_target(text: str) -> str | None:
    """The target unchanged, such as `cron/nightly_sync`; None when the text is not a target."""
    # A browser would resolve an address that ends in `.` or `..` to another page.
    return text if _TARGET.fullmatch(text) and text not in ("cron/.", "cron/..") else None


def read_params(host: Host, action: Action, given: Mapping[str, Any]) -> dict[str, Any]:
    """The action's parameters in canonical values. Raises `ValueError` with what is allowed.

    Values of redacted arguments are dropped here, so neither a plan nor its preview holds them.
    """
    if action.short_name == "catch_up":
        return {"count": cron_params.read_count(given["count"])}
    return cron_params.read_entry(host, given) if action.params else {}


def decide(
    connection: Connection,
    host: Host,
    action: Action,
    targets: Sequence[str],
    decided: Decided,
    *,
    lock: bool,
) -> list[TargetPlan]:
    """Plan the action for each of these entries.

    With `lock` nobody else changes them until the caller commits.
    """
    names = {target: target.partition("/")[2] for target in targets}
    if lock:
        transitions.lock_to_decide(connection, list(names.values()))
    found = transitions.look(connection, list(names.values()))
    return [
        _decide_one(connection, host, action, target, found.get(name), decided)
        for target, name in names.items()
    ]


def apply(
    connection: Connection,
    host: Host,
    action: Action,
    target_plans: Sequence[TargetPlan],
    decided: Decided,
) -> Written:
    """Apply the plans to entries that the caller has locked. Slots that are due now are decided first."""
    report = SlotReport()
    decider = SlotDecider(connection, host, endings.stop, decided.now)
    items = [_write(decider, action, target_plan, decided, report) for target_plan in target_plans]
    names = [target_plan.target.partition("/")[2] for target_plan in target_plans]
    entries = transitions.look(connection, names)
    after = {
        f"cron/{name}": facts_of_entry(entries[name]) if name in entries else None for name in names
    }
    effects: list[Effect] = [
        RequestHeartbeat(job.queue, job.worker) for job in report.stopped if job.worker
    ]
    if report.lanes:
        effects.append(Dispatch(tuple(sorted(report.lanes))))
    return Written(tuple(items), after, tuple(effects))


def _decide_one(
    connection: Connection,
    host: Host,
    action: Action,
    target: str,
    entry: CronEntryRow | None,
    decided: Decided,
) -> TargetPlan:
    name = target.partition("/")[2]
    if action.short_name == "create":
        if entry is not None:
            way_out = "edit it, or take" if entry.origin == "runtime" else "take"
            sentence = (
                f"there is a cron entry {name} already, {entry.state}: {way_out} another name"
            )
            return leave(target, name, facts_of_entry(entry), "already", sentence)
        return do(target, name, {"state": ABSENT}, None, *changes_of(None, decided.params))
    if entry is None:
        return leave(target, None, {}, "not_found", f"there is no cron entry {name}")
    facts = facts_of_entry(entry)
    if entry.state not in action.sources:
        return _not_now(action, target, entry, facts)
    if action.short_name in ("edit", "delete") and entry.origin == "code":
        why = "the code declares it; pause it here, or change the code"
        if entry.state == "retired":
            why = "the code declared it and no longer does; its run history stays"
        return leave(target, name, facts, "illegal", f"cannot {action.on(f'cron {name}')}: {why}")
    if action.short_name in ("run_now", "catch_up"):
        return _judge_run(connection, host, action, target, entry, decided)
    if action.short_name == "edit":
        changes = changes_of(entry, decided.params)
        if not changes:
            return leave(
                target, name, facts, "already", f"cron entry {name} already has these values"
            )
        return do(target, name, facts, entry, *changes)
    after = {"pause": "paused", "resume": "active", "delete": None}[action.short_name]
    return do(target, name, facts, entry, Change("state", entry.state, after))


def _judge_run(
    connection: Connection,
    host: Host,
    action: Action,
    target: str,
    entry: CronEntryRow,
    decided: Decided,
) -> TargetPlan:
    facts = facts_of_entry(entry)
    if found := cron_params.find_call_fault(connection, host, entry):
        code, fault = found
        return leave(target, entry.name, facts, code, f"cannot {_on(action, target)}: {fault}")
    before = transitions.list_unfinished(connection, entry.name)
    note = f"job {before[0].id} of the entry has not ended: both will run" if before else None
    if action.short_name == "run_now":
        change = Change("job", None, f"a new one of {entry.task}")
        return do(target, entry.name, facts, entry, change, note=note)
    # All missed slots make the same call. If the task is unique, only one job of it can exist.
    is_unique = host.tasks[entry.task].declared.unique is not None
    count = 1 if is_unique else decided.params["count"]
    slots = queries.list_missed(connection, entry.name, count)
    if not slots:
        sentence = (
            f"every missed slot of cron entry {entry.name} has been caught up, or there was none"
        )
        return leave(target, entry.name, facts, "already", sentence)
    facts["missed"] = [slot.isoformat() for slot in slots]
    news = "1 new job" if len(slots) == 1 else f"{len(slots)} new jobs"
    change = Change("missed slots", str(len(slots)), f"{news} of {entry.task}")
    if count < decided.params["count"]:
        note = "; ".join(
            filter(None, (note, "its calls are unique: only the last slot gets a job"))
        )
    return do(target, entry.name, facts, entry, change, note=note)


def _not_now(action: Action, target: str, entry: CronEntryRow, facts: dict[str, Any]) -> TargetPlan:
    if action.short_name == "pause" and entry.is_paused:
        sentence = f"cron entry {entry.name} is paused already, by {entry.paused_by}"
        return leave(target, entry.name, facts, "already", sentence)
    if action.short_name == "resume" and entry.state == "active":
        return leave(
            target, entry.name, facts, "already", f"cron entry {entry.name} is active already"
        )
    return illegal(action, target, entry.name, facts, entry.state)


def _write(
    decider: SlotDecider,
    action: Action,
    target_plan: TargetPlan,
    decided: Decided,
    report: SlotReport,
) -> Item:
    assert target_plan.item is not None
    connection, name, now = decider.connection, target_plan.target.partition("/")[2], decided.now
    if action.short_name == "create":
        wanted = _entry(name, decided.params)
        if not transitions.create(connection, wanted, "runtime", decided.actor, now):
            # There was no row to lock, so another process could create an entry of that name meanwhile.
            raise ChangedMeanwhile
        return target_plan.item
    entry = decider.decide_all(name, report)
    assert entry is not None  # locked and planned
    if action.short_name == "delete":
        transitions.delete(connection, [name])
        return target_plan.item
    if action.short_name == "pause":
        transitions.pause(connection, name, decided.actor, decided.reason, now)
    elif action.short_name == "resume":
        transitions.resume(connection, name)
    elif action.short_name == "edit":
        transitions.change(connection, _entry(name, decided.params), "runtime", now)
    else:
        slots = [now]
        if action.short_name == "catch_up":
            # Use the slots that were planned and shown. Deciding the due slots may just have added newer
            # missed ones.
            slots = [datetime.fromisoformat(slot) for slot in target_plan.facts["missed"]]
        return _run(decider, action, entry, target_plan.item, slots, decided, report)
    return target_plan.item


def _run(
    decider: SlotDecider,
    action: Action,
    entry: CronEntryRow,
    item: Item,
    slots: Sequence[datetime],
    decided: Decided,
    report: SlotReport,
) -> Item:
    """Enqueue a job manually for each of these slots. Returns the item with what really happened."""
    has_run = any(task.name == entry.task for task, _ in report.enqueued)
    ids: list[int] = []
    notes: dict[str, None] = {}
    for slot_at in slots:
        slot = decider.run(entry, slot_at, "manual", report, by=decided.actor)
        if slot.job_id is None:
            notes[slot.why or ""] = None
            # A slot that was due just now may have enqueued the same unique call: then that is the requested
            # job.
            if not ids and not has_run:
                # The plan found no same call, so another transaction has enqueued it since.
                is_rival = slot.result == "skipped_overlap"
                sentence = f"cannot {_on(action, item.target)}: {slot.why}"
                raise ChangedMeanwhile if is_rival else NothingWritten(sentence)
            continue
        ids.append(slot.job_id)
        transitions.write_result(
            decider.connection, entry, replace(slot, why=decided.reason), decided.now
        )
    changes = tuple(Change("new job", None, f"job/{id}") for id in ids)
    return replace(item, changes=changes, note="; ".join(notes) or item.note)


def _on(action: Action, target: str) -> str:
    return action.on(target.replace("/", " ", 1))


def _entry(name: str, params: Mapping[str, Any]) -> EntryDeclaration:
    schedule = Schedule(params["expression"], params["zone"])
    limit = params["catch_up"] if isinstance(params["catch_up"], int) else None
    word = "all" if limit is not None else params["catch_up"]
    return EntryDeclaration(
        name, params["task"], schedule, params["overlap"], word, limit, params["args"]
    )
