"""Tells of an actor: what a person, or the system, decided and was refused, and the operations of theirs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from ...audit.filter import LIMITS, AuditFilter, BadAuditFilter
from ...audit.history import tell_decision
from ...audit.queries import EventRow, count_pending, page_of_events
from ...core.history import Event
from ...core.round_trips import StartedRead, start_reading
from ...core.words import counted
from ...operations.queries import (
    MOST_OPERATIONS,
    ListedOperation,
    find_operation,
)
from ..backlog import watch_backlog
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
from ..lines import list_operations

MOST_DECISIONS = LIMITS[-1]
_SYSTEM = "system"


def _read_key(key: str) -> str | None:
    """The name, as the audit can be asked for it."""
    try:
        return AuditFilter.from_query({"actor": key}).actor if key == key.strip() else None
    except BadAuditFilter:
        return None


def _tell(inquiry: Inquiry) -> Told | None:
    wanted = AuditFilter(actor=inquiry.key, limit=MOST_DECISIONS)
    listing = start_reading(inquiry, list_operations)
    watches = inquiry.start(_list_watches, inquiry, listing)
    page = page_of_events(inquiry.session, wanted, inquiry.now)
    newest = listing.value
    operations = _of_actor(inquiry, newest)
    if not page.rows and not operations:
        return None
    times = [row.at for row in page.rows] + [row.created_at for row in operations]
    return Told(
        title=f"Actor {inquiry.key}",
        state=None,
        diagnosis=_diagnose(page.rows, operations, has_more=page.older is not None),
        since=min(times),
        until=inquiry.now,
        events=[*_of_decisions(page.rows), *_of_drafts(operations)],
        pieces=inquiry.start(_list_expected, inquiry, page.rows),
        watches=watches,
        evidence=[_make_table(page.rows)],
        related=[*_relate(page.rows, operations)],
        left_out=[*_leave_out(inquiry, page.rows, newest, has_more=page.older is not None)],
    )


def _of_actor(inquiry: Inquiry, newest: Sequence[ListedOperation]) -> Sequence[ListedOperation]:
    return [row for row in newest if row.actor == inquiry.key]


def _diagnose(
    rows: Sequence[EventRow], operations: Sequence[ListedOperation], *, has_more: bool
) -> str:
    if not rows:
        return f"No decision; {counted(len(operations), 'draft')} of an operation."
    refused = sum(row.outcome == "refused" for row in rows)
    number = counted(len(rows), "decision", more="+" if has_more else "")
    parts = [f"{refused:,} of them refused"] if refused else []
    running = sum(row.is_open for row in operations)
    parts += [f"{counted(running, 'operation')} under way"] if running else []
    last = f"the last is {rows[0].action} of {rows[0].subject}"
    return f"{', '.join([number, *parts])}; {last}."


# --- what happened


def _of_decisions(rows: Sequence[EventRow]) -> Iterator[Event]:
    for row in rows:
        told = tell_decision(row)
        target = row.targets[0] if row.targets else None
        yield Event(
            told.at,
            told.is_,
            f"{row.action} of {row.subject}{f', refused ({row.code})' if row.code else ''}",
            told.source,
            label=told.label,
            audit=told.audit,
            subject=target,
        )


def _of_drafts(operations: Sequence[ListedOperation]) -> Iterator[Event]:
    """Drafts are no decisions: the audit has what became of them."""
    for row in operations:
        text = f"Drafted operation {row.id}: {row.action} of {counted(row.targets, 'job')}"
        yield Event(row.created_at, "waiting", text, "operator", subject=f"operation/{row.id}")


def _leave_out(
    inquiry: Inquiry,
    rows: Sequence[EventRow],
    newest: Sequence[ListedOperation],
    *,
    has_more: bool,
) -> Iterator[LeftOut]:
    if has_more:
        yield LeftOut("decisions", before=rows[-1].at)
    if not inquiry.may("operations.view"):
        yield LeftOut("operations, which need operations.view")
    elif len(newest) == MOST_OPERATIONS:
        yield LeftOut(f"operations before the newest {MOST_OPERATIONS} of all actors")


# --- what should be there


def _list_expected(inquiry: Inquiry, rows: Sequence[EventRow]) -> Iterator[Expected]:
    may_see = inquiry.may("operations.view")
    keys = [target.partition("/")[2] for target in _operations_in(rows)] if may_see else []
    finding = {key: start_reading(inquiry.session, find_operation, int(key)) for key in keys}
    if inquiry.key == _SYSTEM:
        waiting = count_pending(inquiry.session)
        yield Expected(
            f"{counted(waiting, 'decision')} that could not be written to the audit yet",
            is_found=not waiting,
        )
    for key, operation in finding.items():
        yield Expected(
            f"what operation {key} did: it was removed",
            is_found=operation.value is not None,
            is_removed=True,
        )


def _operations_in(rows: Sequence[EventRow]) -> Sequence[str]:
    """The operations that these decisions are about, each once."""
    targets = (target for row in rows if row.outcome == "done" for target in row.targets)
    return list(dict.fromkeys(each for each in targets if each.startswith("operation/")))


def _list_watches(
    inquiry: Inquiry, listing: StartedRead[Sequence[ListedOperation]]
) -> Iterator[WatchedSpan]:
    running = [row for row in _of_actor(inquiry, listing.value) if row.is_open]
    if running:
        since = min(row.started_at or row.created_at for row in running)
        lacks = "What became of the jobs of the operations under way is not looked at."
        yield watch_backlog(inquiry, "operate", lacks, since)


# --- evidence, and what is related


def _make_table(rows: Sequence[EventRow]) -> EvidenceTable:
    numbers = Counter((row.action, row.code or row.outcome) for row in rows)
    return EvidenceTable(
        f"The last {counted(len(rows), 'decision')}, by action",
        [Column("action"), Column("outcome"), Column("decisions", "number")],
        [TableRow([*pair, number]) for pair, number in numbers.most_common()],
    )


def _relate(rows: Sequence[EventRow], operations: Sequence[ListedOperation]) -> Iterator[Related]:
    for operation in operations:
        says = f"{operation.action}, {operation.state}"
        yield Related("Operation", str(operation.id), f"operation/{operation.id}", says)
    targets = dict.fromkeys(target for row in rows for target in row.targets[:1])
    for target in list(targets)[:10]:
        if not target.startswith("operation/"):
            yield Related("Decided about", target, target)


KIND = Kind("actor", "audit.view", _read_key, _tell)
