"""Shows the list of batches, and the page of one batch with its members and callbacks."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from flask import Response
from markupsafe import Markup

from ...actions.domain import Action
from ...audit.queries import list_events_of
from ...audit.verify import find_chain_fault
from ...batches import actions as batch_actions
from ...batches import queries
from ...batches.lifecycle import MEANINGS, STATES
from ...batches.queries import MEMBER_STATES, BatchRow, FailureKind, MemberRow
from ...core.display import Display
from ...core.paging import cut_page
from ...core.reading import Reading
from ...core.round_trips import start_reading
from ...core.words import without_variables
from ...engine.explain_with_redis import explain_stored_batch
from ...explain.queries import find_stored_batch
from ...jobs.lifecycle import ENDED_BY
from ...jobs.rows import Count
from ...jobs.search.filter import JobFilter
from ...jobs.search.terms import LONGEST
from ..app import access, order, pages, problems, references
from ..app.display import PageDisplay
from ..app.host import host, reading

# The width of a bar of parts, in units of the drawing.
_BAR = 1000
# What parts an error into texts that all errors of its kind have: a variable part, a mark of the display
# policy, and what a search cannot hold.
_VARIABLE = re.compile(r'…|\[hidden[^\[\]\n]*\]|["\x00-\x1f\x7f]')
# The words and the shape of the chip of each state; the others are states of jobs too.
CHIPS = {
    "open": ("waiting", "open", "scheduled"),
    "running": ("started", "running", "started"),
    "finished": ("finished", "finished", "finished"),
    "failed": ("failed", "failed", "failed"),
    "canceled": ("canceled", "canceled", "canceled"),
}


@dataclass(frozen=True)
class BatchView:
    """A batch as the pages show it. `is_running` says in a list whether a member is being run now."""

    row: BatchRow
    now: datetime
    has_failed_callback: bool = False
    is_running: bool = False

    @property
    def chip(self) -> tuple[str, str, str]:
        """The status, the word and the shape of its state."""
        return CHIPS[self.row.state]

    @property
    def bar(self) -> Sequence[tuple[str, int, float, float]]:
        """The parts of its bar: state, number, where it begins, and its width."""
        most = max(self.row.enqueued, self.row.ended, 1)
        parts, begin = [], 0.0
        for state, number in self.row.ends.items():
            width = _BAR * number / most
            parts.append((state, number, round(begin, 2), round(width, 2)))
            begin += width
        return parts

    @property
    def seconds(self) -> float | None:
        """How long it took; None before it has ended."""
        end = self.row.ended_at
        return None if end is None else (end - self.row.created_at).total_seconds()

    @property
    def rate(self) -> float | None:
        """How many members ended in a second, on average.

        None when nothing has ended or nothing is left, and when the batch has ended once: then its pace is
        not known.
        """
        row, seconds = self.row, (self.now - self.row.created_at).total_seconds()
        if not row.left or row.is_final or row.end_no or not row.ended or seconds <= 0:
            return None
        return row.ended / seconds

    @property
    def pace(self) -> str:
        """The rate in words: `21 a second`, `0.4 a minute`; empty when it is unknown."""
        if self.rate is None:
            return ""
        units = ((1, "a second"), (60, "a minute"), (3600, "an hour"))
        factor, unit = next((one for one in units if self.rate * one[0] >= 0.1), units[-1])
        number = self.rate * factor
        return f"{number:,.{0 if number >= 10 else 1}f} {unit}"

    @property
    def seconds_left(self) -> float | None:
        """How long it takes at this pace until the last member has ended; None when that is unknown."""
        if self.rate is None or self.row.state != "running" or self.row.cancel_requested_at:
            return None
        return self.row.left / self.rate

    @property
    def actions(self) -> Sequence[Action[Any]]:
        """The actions that are legal now and can change something."""
        return batch_actions.actions_of_batch(self.row)


# So many of the newest batches are ordered by a column, and a page has so many of them.
_MOST_ORDERED = 1_000
ROWS = queries.MOST_BATCHES
KEYS: order.Keys = {
    "name": lambda row: row.name,
    "state": lambda row: row.state,
    "ended": lambda row: row.ended / max(row.enqueued, 1),
    "failed": lambda row: row.ends["failed"],
    "took": lambda row: ((row.ended_at or datetime.now(UTC)) - row.created_at).total_seconds(),
}


def page() -> Response:
    """The document of all batches."""
    query = _read_list_query()
    with reading() as read:
        made = _list(read, query)
    return pages.page("batches/page.html", "batches", "Batches", read.now, live=made, query=query)


def live() -> Response:
    """The fragment of it that refreshes."""
    query = _read_list_query()
    with reading() as read:
        made = _list(read, query)
    return pages.fragment(made)


def batch_page(batch_id: str) -> Response:
    """The document of one batch."""
    query = _read_query(MEMBER_STATES)
    with reading() as read:
        batch, made = _one(read, batch_id, query)
    title = f"Batch {batch.row.id}"
    return pages.page(
        "batch/page.html", "batches", title, read.now, live=made, query=query, batch=batch
    )


def batch_live(batch_id: str) -> Response:
    """The fragment of it that refreshes."""
    query = _read_query(MEMBER_STATES)
    with reading() as read:
        _, made = _one(read, batch_id, query)
    return pages.fragment(made)


def _read_list_query() -> Mapping[str, str]:
    return {**_read_query(STATES), **_read_order().sort}


def _read_order(query: Mapping[str, str] = {}) -> order.ListOrder:
    return order.read_order(KEYS, query, texts=("name", "state"))


def _read_query(states: Sequence[str]) -> Mapping[str, str]:
    """The state and the id before which a page of a list begins, as the address has them."""
    query = references.read_list_query({"state": states}, "before")
    before = query.get("before")
    if before is not None and not (before.isascii() and before.isdigit() and len(before) < 19):
        raise problems.unreadable(f"before: {before[:40]!r} is no id.")
    return query


def _before(query: Mapping[str, str]) -> int | None:
    return int(query["before"]) if "before" in query else None


def _list(read: Reading, query: Mapping[str, str]) -> Markup:
    state = query.get("state")
    asked = _read_order({"state": state} if state else {})
    before = _before(query)
    is_cut = False
    if asked.column is None:
        rows, has_older = queries.page_of_batches(read.session, state=state, before=before)
    else:
        newest, is_cut = queries.page_of_batches(read.session, state=state, limit=_MOST_ORDERED)
        ordered = asked.apply(newest, KEYS)
        begin, end = cut_page([row.id for row in ordered], ROWS, before=before)
        rows, has_older = ordered[begin:end], end < len(ordered)
    return pages.part(
        "batches/_live.html",
        read.now,
        batches=_views(read, rows),
        has_older=has_older,
        state=state,
        states=STATES,
        is_first="before" not in query,
        order=asked,
        cut_at=_MOST_ORDERED if is_cut else None,
    )


def _views(read: Reading, rows: Sequence[BatchRow]) -> Sequence[BatchView]:
    ids = [row.id for row in rows]
    failing = start_reading(read.session, queries.find_batches_with_failed_callback, ids)
    running = queries.find_batches_with_running_member(read.session, ids)
    failed = failing.value
    return [BatchView(row, read.now, row.id in failed, row.id in running) for row in rows]


def _one(read: Reading, batch_id: str, query: Mapping[str, str]) -> tuple[BatchView, Markup]:
    target = batch_actions.read_target(f"batch/{batch_id}")
    if target is None:
        raise problems.no_such_row("batch", batch_id)
    state, id = query.get("state"), int(target.removeprefix("batch/"))
    # They need more than one answer, so they do not wait for the batch.
    others = start_reading(read, _list_others, id)
    stored = find_stored_batch(read.session, id)
    if stored is None:
        raise problems.no_such_row("batch", batch_id)
    batch, row = BatchView(stored.batch, read.now), stored.batch
    why, running, events, fault = None, Count(0), None, None
    if access.may("audit.view"):
        events = start_reading(read.session, list_events_of, f"batch/{id}")
        fault = start_reading(read.session, find_chain_fault)
    failures = (
        start_reading(read.session, queries.group_failures, id) if row.ends["failed"] else None
    )
    counting = start_reading(read.session, queries.count_running_members, id)
    listing = start_reading(
        read.session, queries.list_members, id, state=state, before=_before(query)
    )
    if not row.is_final:
        why = explain_stored_batch(host(), read.session, stored, read.now)
        running = counting.value
    members, has_older = listing.value
    return batch, pages.part(
        "batch/_live.html",
        read.now,
        batch=batch,
        meaning=MEANINGS[batch.row.state],
        meta=json.dumps(batch.row.meta),
        members=members,
        has_older=has_older,
        state=state,
        states=MEMBER_STATES,
        is_first="before" not in query,
        callbacks=stored.callbacks,
        why=why,
        running=running,
        # They were counted a second later than those that have ended.
        waiting=max(0, row.left - running.number),
        failures=failures,
        ended_by=ENDED_BY,
        search_of=partial(_search_of, id),
        display_of=partial(_display_of, id),
        redacted_of=_redacted_of,
        others=others,
        events=events,
        chain_fault=fault,
    )


def _list_others(read: Reading, id: int) -> Sequence[BatchView]:
    return _views(read, queries.list_other_batches(read.session, id))


def _search_of(id: int, group: FailureKind) -> JobFilter:
    """The search for failed members whose errors have the longest text that those of this group share.

    Without `payload.view` errors cannot be searched: then it finds all failed members.
    """
    wanted = JobFilter(state="failed", batch=id)
    if group.error is None or not access.may("payload.view", None):
        return wanted
    display = Display(host().display, may_see=True)
    first = next(iter(display.start(group.error, LONGEST).splitlines()), "")
    parts = (part.strip() for part in _VARIABLE.split(without_variables(first)))
    shared = max((part for part in parts if part in group.error), key=len, default="")
    return wanted.but(error=shared or None)


def _display_of(id: int, member: MemberRow) -> PageDisplay:
    """The display policy for the arguments and the error of a member: payload of the batch and of the job."""
    may_see = access.may_see_payload(f"batch/{id}", f"job/{member.id}")
    return PageDisplay(host().display, may_see=may_see)


def _redacted_of(member: MemberRow) -> Collection[str]:
    """The parameters of its task whose values are never stored."""
    task = host().tasks.get(member.task)
    return task.redact if task else ()
