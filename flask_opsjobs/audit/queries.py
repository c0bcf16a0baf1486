"""Reads the audit: pages of a list, one decision, the decisions on one target, and the chain to verify.

Only rows 1 to the head are shown: other rows are outside the chain, which `verify.find_chain_fault` reports.
A list reads one index in order and stops when the page is full. With several conditions, or a text, it reads
at most the next `WINDOW` events of that index and tells the reader. Texts are returned as stored: pages,
commands and exports pass them through the display policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Executable,
    Result,
    Select,
    Text,
    and_,
    bindparam,
    func,
    literal,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.orm import Session, aliased

from ..core import sql
from ..core.reading import execute_with
from .filter import AuditFilter
from .models import AuditEvent, AuditHead, AuditPending


@dataclass(frozen=True)
class EventRow:
    """One decision as stored, without its canonical text. It has not passed the display policy yet."""

    sequence: int
    at: datetime
    actor: str
    via: str
    action: str
    subject: str
    targets: Sequence[str]
    permission: str | None
    reason: str | None
    outcome: str
    code: str | None
    request_id: str | None
    preview_id: int | None
    previewed_at: datetime | None
    before: Any
    after: Any
    key_id: str
    previous_hash: bytes
    hash: bytes


@dataclass(frozen=True)
class EventPage:
    """A page of events, newest first. `older` and `newer` are where the neighbouring pages begin, or None.

    `looked_at` is how many events were searched when the search stopped before the end; else None.
    """

    rows: Sequence[EventRow]
    older: int | None
    newer: int | None
    looked_at: int | None = None


@dataclass(frozen=True)
class Head:
    """The head of the chain, and the rows outside rows 1 to the head. Read in one snapshot.

    `outside` counts these rows, up to 2,000. `behind` is the first of them after the head, `lowest` the
    lowest of all.
    """

    sequence: int
    hash: bytes
    outside: int
    behind: int | None
    lowest: int | None


@dataclass(frozen=True)
class Link:
    """One row with all that its hash covers.

    `columns` are its columns as JSON, in the form of the canonical text.
    """

    sequence: int
    columns: str
    canonical: str
    key_id: str
    previous_hash: bytes
    hash: bytes


WINDOW = 2_000
# The sequence of the head. Without a head every row may belong to the chain, and pages show a warning.
_LAST_OF_CHAIN = func.coalesce(
    select(AuditHead.sequence).where(AuditHead.id == 1).scalar_subquery(),
    literal(2**63 - 2, BigInteger),
)
_NAMES = 100
# With this many decisions on one target, reading all of them to find the newest is too slow.
_MANY = 200
# The conditions on one column, in the order in which their indexes are chosen: a request has few events, and
# actor and action select fewer than the two outcomes. The index of the targets comes after the first, that of
# the time after it: a range of time may be long ago, where another index leads only page by page.
_COLUMNS = ("request_id", "actor", "action", "outcome")

# No index has this order, so the planner reads the index of the targets. With an ordinary order it would read
# all decisions from the newest down to find a target that few of them name.
_UNORDERED: ColumnElement[int] = AuditEvent.sequence + 0
_ROW: tuple[Any, ...] = tuple(getattr(AuditEvent, name) for name in EventRow.__dataclass_fields__)


def as_stored(text: str) -> str:
    """Return the text unchanged, for callers that need no display policy."""
    return text


def page_of_events(
    session: Session,
    wanted: AuditFilter,
    now: datetime,
    *,
    before: int | None = None,
    after: int | None = None,
    shown: Callable[[str], str] = as_stored,
) -> EventPage:
    """A page of the newest matching events, or of those older than `before`, or just newer than `after`.

    The spans of the filter end `now`. With a range of time the order is that of the times, which differs from
    that of the sequences where a clock was set back. `shown` is the display policy for texts: a search does
    not find what it hides.
    """
    is_down, is_narrow = after is None, _is_narrow(wanted)
    most = WINDOW if is_narrow else wanted.limit + 1
    if is_narrow:
        scanned, fitting = _scan(session, wanted, now, before, after, most)
        rows = _take(session, fitting, wanted, shown)
    else:
        # All events of the index match, so their rows are read in the same statement.
        found = _walk_index(session, _ROW, wanted, wanted.times(now), before, after, most)
        rows = [EventRow(*row) for row in found]
        scanned = [row.sequence for row in rows]
    has_more, rows = len(rows) > wanted.limit, rows[: wanted.limit]
    is_cut = not has_more and len(scanned) == most
    beyond = rows[-1].sequence if has_more else scanned[-1] if is_cut else None
    looked_at = most if is_cut else None
    if is_down:
        newer = before and (rows[0].sequence if rows else scanned[0] if scanned else before - 1)
        return EventPage(rows, beyond, newer, looked_at)
    if beyond is None:  # the newest page: fill it
        return page_of_events(session, wanted, now, shown=shown)
    older = rows[0].sequence if rows else (after or 0) + 1
    return EventPage(rows[::-1], older, beyond, looked_at)


def find_event(session: Session, sequence: int) -> EventRow | None:
    """The event with this sequence, or None when the chain has none."""
    within = AuditEvent.sequence.between(1, _LAST_OF_CHAIN)
    wanted = select(*_ROW).where(AuditEvent.sequence == sequence, within)
    row = session.execute(wanted).one_or_none()
    return None if row is None else EventRow(*row)


def list_events_of(session: Session, target: str, limit: int = 20) -> Sequence[EventRow]:
    """The last `limit` decisions on one target, such as `job/42`, newest first. Notes are not among them.

    For a target with very many decisions, the newest `WINDOW` decisions of the audit are read first. If they
    do not fill the list, all decisions on the target are read and sorted, by the same statement.
    """
    if "\0" in target:  # Postgres stores none
        return ()
    found = _execute_with_bitmaps(session, _select_events_of(limit), {"targets": [target]})
    rows = [EventRow(*row) for row in found]
    return sorted(rows, key=lambda row: row.sequence, reverse=True)


@cache
def _select_events_of(limit: int) -> CompoundSelect[*tuple[Any, ...]]:
    # Made once, as the next one: many pages ask for it, and to make it takes longer than to send it.
    asked = bindparam("targets", type_=ARRAY(Text))
    is_listed = and_(_UNORDERED.between(1, _LAST_OF_CHAIN), AuditEvent.action != "note.add")
    of_target = and_(AuditEvent.targets.contains(asked), is_listed)
    some = select(AuditEvent.sequence).where(of_target).limit(_MANY).subquery()
    is_common = select(func.count()).select_from(some).scalar_subquery() == _MANY
    newest_first = select(*_ROW).where(is_listed, is_common).order_by(AuditEvent.sequence.desc())
    recent = newest_first.limit(WINDOW).subquery()
    conditions = recent.c.targets.contains(asked)
    newest = select(recent).where(conditions).order_by(recent.c.sequence.desc()).limit(limit)
    among = newest.cte("among_newest")
    is_full = select(func.count()).select_from(among).scalar_subquery() == limit
    every = select(*_ROW).where(of_target, ~is_full).order_by(_UNORDERED.desc()).limit(limit)
    return union_all(select(among).where(is_full), select(every.subquery()))


def list_newest_of(session: Session, actions: Sequence[str], limit: int = 10) -> Sequence[EventRow]:
    """The last `limit` decisions by these actions, newest first, also those that were refused."""
    rows = session.execute(_select_newest_of(limit), {"actions": list(actions)})
    return [EventRow(*row) for row in rows]


@cache
def _select_newest_of(limit: int) -> Select[*tuple[Any, ...]]:
    given = bindparam("actions", type_=ARRAY(Text))
    asked = func.unnest(given).table_valued("action", name="asked")
    names = asked.render_derived()
    # In the order of the index of the actions, which alone tells when there is none of an action.
    place = tuple_(AuditEvent.action, AuditEvent.sequence)
    of_action = place.between(tuple_(names.c.action, 1), tuple_(names.c.action, _LAST_OF_CHAIN))
    in_order = (
        select(*_ROW)
        .where(of_action)
        .order_by(AuditEvent.action.desc(), AuditEvent.sequence.desc())
    )
    newest = in_order.limit(limit).lateral()
    of_all = select(newest).select_from(names).join(newest, true())
    return of_all.order_by(newest.c.sequence.desc()).limit(limit)


def list_actors(session: Session) -> list[str]:
    """The actors of all decisions, sorted, at most 100."""
    rows = session.connection().exec_driver_sql(sql.load("list_audit_actors"), {"limit": _NAMES})
    return list(rows.scalars())


def list_actions(session: Session) -> list[str]:
    """The actions of all decisions, sorted, at most 100."""
    rows = session.connection().exec_driver_sql(sql.load("list_audit_actions"), {"limit": _NAMES})
    return list(rows.scalars())


def find_head(session: Session) -> Head | None:
    """The head of the chain; None when its row is gone."""
    row = session.connection().exec_driver_sql(sql.load("find_audit_head")).one_or_none()
    return None if row is None else Head(row[0], bytes(row[1]), *row[2:])


def count_pending(session: Session) -> int:
    """How many rescues wait to be appended, since the audit could not be written when they happened."""
    return session.scalar(select(func.count()).select_from(AuditPending)) or 0


def list_links(session: Session, after: int, limit: int) -> list[Link]:
    """The next `limit` rows of the chain after a sequence, oldest first, with the values in their hashes."""
    params = {"after": after, "limit": limit}
    rows = session.connection().exec_driver_sql(sql.load("list_audit_links"), params)
    return [Link(*row) for row in rows]


def _lead(wanted: AuditFilter) -> str | None:
    """The condition whose index is read: a column, `targets` or `at`; None for the order of sequences."""
    if wanted.request_id:
        return "request_id"
    if wanted.targets:
        return "targets"
    if wanted.since or wanted.until:
        return "at"
    return next((name for name in _COLUMNS if getattr(wanted, name)), None)


def _is_narrow(wanted: AuditFilter) -> bool:
    """Whether there is a condition besides the one whose index is read."""
    is_timed = bool(wanted.since or wanted.until)
    given = [bool(wanted.targets), is_timed, *(bool(getattr(wanted, name)) for name in _COLUMNS)]
    return wanted.text is not None or sum(given) > 1


def _scan(
    session: Session,
    wanted: AuditFilter,
    now: datetime,
    before: int | None,
    after: int | None,
    most: int,
) -> tuple[list[int], list[int]]:
    """The next sequences of the index, at most `most`, and those that match as far as SQL can tell."""
    since, until = wanted.times(now)
    conditions: list[ColumnElement[bool]] = [
        getattr(AuditEvent, name) == value for name in _COLUMNS if (value := getattr(wanted, name))
    ]
    if wanted.targets:
        conditions.append(AuditEvent.targets.contains(wanted.targets))
    if since is not None:
        conditions.append(AuditEvent.at >= since)
    if until is not None:
        conditions.append(AuditEvent.at < until)
    if wanted.text:
        conditions.append(func.strpos(func.lower(_searched()), wanted.text.lower()) > 0)
    columns = (AuditEvent.sequence, and_(true(), *conditions))
    found = _walk_index(session, columns, wanted, (since, until), before, after, most)
    return [sequence for sequence, _ in found], [sequence for sequence, is_fit in found if is_fit]


def _walk_index(
    session: Session,
    columns: tuple[Any, ...],
    wanted: AuditFilter,
    times: tuple[datetime | None, datetime | None],
    before: int | None,
    after: int | None,
    most: int,
) -> Sequence[Any]:
    """These columns of the next events of the index, at most `most`."""
    statement = select(*columns)
    lead = _lead(wanted)
    if lead == "at":
        statement = _walk_times(statement, *times, before, after)
    else:
        below = _LAST_OF_CHAIN + 1
        below = below if before is None else func.least(literal(before, BigInteger), below)
        statement = _walk(statement, lead, wanted, below, after)
    execute = _execute_with_bitmaps if lead == "targets" else Session.execute
    return execute(session, statement.limit(most)).all()


def _walk(
    statement: Select[*tuple[Any, ...]],
    lead: str | None,
    wanted: AuditFilter,
    below: ColumnElement[int],
    after: int | None,
) -> Select[*tuple[Any, ...]]:
    """The statement along the index of the lead, in the order of sequences."""
    keys: list[ColumnElement[Any]] = [AuditEvent.sequence.expression]
    low: list[ColumnElement[Any]] = [literal((after or 0) + 1, BigInteger)]
    high: list[ColumnElement[Any]] = [below]
    if lead == "targets":
        statement = statement.where(AuditEvent.targets.contains(wanted.targets))
        keys = [_UNORDERED]
    elif lead:
        # A range of one value instead of an equality: with an equality the planner might read the primary key
        # in order and skip all other rows.
        keys.insert(0, getattr(AuditEvent, lead).expression)
        for bound in (low, high):
            bound.insert(0, literal(getattr(wanted, lead), Text))
    within = (tuple_(*keys) >= tuple_(*low), tuple_(*keys) < tuple_(*high))
    return statement.where(*within).order_by(
        *(key.desc() if after is None else key for key in keys)
    )


def _walk_times(
    statement: Select[*tuple[Any, ...]],
    since: datetime | None,
    until: datetime | None,
    before: int | None,
    after: int | None,
) -> Select[*tuple[Any, ...]]:
    """The statement along the index of the times. `before` and `after` are events, whose times are read."""
    keys = (AuditEvent.at.expression, AuditEvent.sequence.expression)
    statement = statement.where(_UNORDERED.between(1, _LAST_OF_CHAIN))
    if since is not None:
        statement = statement.where(AuditEvent.at >= since)
    if until is not None:
        statement = statement.where(AuditEvent.at < until)
    if before is not None:
        statement = statement.where(tuple_(*keys) < tuple_(_time_of(before), before))
    if after is not None:
        statement = statement.where(tuple_(*keys) > tuple_(_time_of(after), after))
    return statement.order_by(*(key.desc() if after is None else key for key in keys))


def _time_of(sequence: int) -> ColumnElement[datetime]:
    event = aliased(AuditEvent)
    return select(event.at).where(event.sequence == sequence).scalar_subquery()


def _searched() -> ColumnElement[str]:
    """The texts that are searched, one per line."""
    targets = func.array_to_string(AuditEvent.targets, "\n")
    return func.concat_ws("\n", AuditEvent.subject, targets, AuditEvent.reason)


def _take(
    session: Session, sequences: list[int], wanted: AuditFilter, shown: Callable[[str], str]
) -> list[EventRow]:
    """The first events of these that match as they are shown.

    One more than a page shows that there is more.
    """
    taken: list[EventRow] = []
    size = wanted.limit + 1
    for start in range(0, len(sequences), size):
        chosen = sequences[start : start + size]
        found = session.execute(select(*_ROW).where(AuditEvent.sequence.in_(chosen)))
        by_sequence = {row.sequence: EventRow(*row) for row in found}
        rows = [by_sequence[sequence] for sequence in chosen if sequence in by_sequence]
        taken += [row for row in rows if wanted.text is None or _says(row, wanted.text, shown)]
        if len(taken) >= size:
            break
    return taken[:size]


def _says(row: EventRow, text: str, shown: Callable[[str], str]) -> bool:
    texts = (row.subject, *row.targets, row.reason or "")
    return any(text.lower() in shown(one).lower() for one in texts)


def _execute_with_bitmaps(
    session: Session, statement: Executable, params: Mapping[str, Any] | None = None
) -> Result[*tuple[Any, ...]]:
    """Let the planner use the GIN index of the targets: pages forbid it otherwise (`enable_bitmapscan`)."""
    return execute_with(session, statement, params, enable_bitmapscan="on")
