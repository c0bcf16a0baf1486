"""Tells of an operation: its receipts, how many jobs have each result, and why it stands or ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from ...core.history import Event
from ...core.round_trips import start_reading
from ...core.words import agree, counted
from ...operations import queries
from ...operations.lifecycle import RESULTS
from ...operations.models import Operation
from ...operations.queries import ListedOperation, ReceiptRow
from ..backlog import watch_backlog
from ..bundle import (
    Column,
    EvidenceTable,
    Expected,
    Inquiry,
    Kind,
    LeftOut,
    Path,
    Related,
    TableRow,
    Told,
    WatchedSpan,
)
from .by_id import read_id, was_numbered

_MOST_ROWS = 50
# The colour of a receipt in a timeline.
_LOOKS = {
    "skipped": "canceled",
    "asked": "seen",
    "proven": "finished",
    "failed_same_error": "failed",
    "failed_other_error": "failed",
}


def _tell(inquiry: Inquiry) -> Told | None:
    session = inquiry.session
    id = int(inquiry.key)
    skipping = start_reading(session, queries.count_skipped_by_code, id)
    has_first = start_reading(session, queries.has_first_row, id)
    newest = start_reading(session, queries.page_of_operations)
    operation = queries.find_operation(session, id)
    if operation is None:
        return None
    watches = inquiry.start(_list_watches, inquiry, operation)
    receipts = queries.page_of_receipts(session, operation)
    return Told(
        title=f"Operation {operation.id}",
        state=operation.state,
        diagnosis=_diagnose(operation),
        quote=None,
        since=operation.created_at,
        until=_find_end(operation, receipts, inquiry.now),
        events=[*_of_operation(operation), *_of_receipts(operation, receipts)],
        pieces=[*_list_expected(operation, has_first.value)],
        watches=watches,
        evidence=[*_make_tables(operation, receipts, skipping.value)],
        related=[*_relate(operation, receipts, newest.value)],
        paths=[*_list_paths(operation)],
        left_out=[*_leave_out(operation, receipts)],
    )


def _find_end(
    operation: ListedOperation, receipts: Sequence[ReceiptRow], now: datetime
) -> datetime:
    """When it ended, or the last proof that came later; now while it may go on."""
    if operation.ended_at is None:
        return now
    proofs = [receipt.proven_at for receipt in receipts if receipt.proven_at is not None]
    return max([operation.ended_at, *proofs])


def _diagnose(operation: ListedOperation) -> str:
    what = f"{operation.action} of {counted(operation.targets, 'job')} by {operation.actor}"
    counts = {name: number for name, number in operation.counts.items() if number}
    left = counts.pop("pending", 0)
    parts = [f"{number:,} {name.replace('_', ' ')}" for name, number in counts.items()]
    parts += [f"{left:,} left"] if left else []
    why = f": {operation.says}" if operation.says else ""
    return f"It is {operation.state}{why}. {what}: {', '.join(parts)}."


# --- what happened


def _of_operation(operation: ListedOperation) -> Iterator[Event]:
    """What the audit does not have: starts, pauses, stages and ends are decisions."""
    undoes = f", to undo operation {operation.undo_of}" if operation.undo_of else ""
    if operation.started_at is None or operation.undo_of is None:
        # Once it is started, its actor is who started it; the audit says when another had drafted it.
        who = f"{operation.actor} drafted" if operation.started_at is None else "A draft was made:"
        text = f"{who} {operation.action} of {counted(operation.targets, 'job')}"
        yield Event(operation.created_at, "waiting", text + undoes, "operator")
    else:
        text = f"{operation.actor} began it{undoes}"
        yield Event(operation.created_at, "waiting", text, "operator")
    if operation.state == "expired" and operation.ended_at is not None:
        text = "The draft expired: nobody started it in time"
        yield Event(operation.ended_at, "canceled", text, "loop operate")


def _of_receipts(operation: ListedOperation, receipts: Sequence[ReceiptRow]) -> Iterator[Event]:
    for receipt in receipts:
        subject = f"job/{receipt.job_id}"
        if receipt.proven_at is not None:
            text = f"Job {receipt.job_id}: {RESULTS[receipt.result]}"
            look = _LOOKS.get(receipt.result, "seen")
            yield Event(receipt.proven_at, look, text, "loop operate", subject=subject)
        if receipt.at is not None:
            yield Event(
                receipt.at,
                _LOOKS.get(receipt.result, "seen") if receipt.proven_at is None else "seen",
                f"Job {receipt.job_id}: {_say_turn(operation, receipt)}",
                "loop operate",
                label=receipt.says,
                subject=subject,
            )


def _say_turn(operation: ListedOperation, receipt: ReceiptRow) -> str:
    """What was done in its turn, before any proof."""
    if receipt.result == "skipped":
        return f"skipped ({receipt.code})"
    if receipt.result == "asked":
        return "RQ was asked, and nobody knows the answer"
    again = f" as job {receipt.new_job_id}" if receipt.new_job_id else ""
    return f"{operation.action.partition('.')[2].replace('_', ' ')}, done{again}"


def _leave_out(operation: ListedOperation, receipts: Sequence[ReceiptRow]) -> Iterator[LeftOut]:
    older = operation.handled - len(receipts)
    if receipts and receipts[-1].number > 1 and older > 0:
        yield LeftOut("receipts", before=receipts[-1].at, number=older)


# --- what should be there


def _list_expected(operation: ListedOperation, has_first: bool) -> Iterator[Expected]:
    yield Expected(
        "receipts of its first jobs: they were removed",
        is_found=not operation.targets or has_first,
        is_removed=True,
        since=operation.created_at,
        until=operation.ended_at,
    )
    if operation.asked:
        jobs = counted(operation.asked, "plain job")
        yield Expected(
            f"what RQ answered about {jobs}: it was asked, and the answer did not come",
            is_found=False,
            since=operation.started_at,
            until=operation.handled_at,
        )


def _list_watches(inquiry: Inquiry, operation: ListedOperation) -> Iterator[WatchedSpan]:
    if operation.is_open:
        lacks = "How the next attempts of its jobs ended is not looked at, so no stage is proven."
        since = operation.started_at or operation.created_at
        yield watch_backlog(inquiry, "operate", lacks, since)


# --- evidence


def _make_tables(
    operation: ListedOperation, receipts: Sequence[ReceiptRow], skipped: Mapping[str, int]
) -> Iterator[EvidenceTable]:
    yield EvidenceTable(
        "Jobs by result",
        [Column("result"), Column("jobs", "number"), Column("meaning")],
        [
            TableRow([name.replace("_", " "), number, operation.meaning_of(name)])
            for name, number in operation.counts.items()
            if number
        ],
    )
    older = operation.skipped - queries.MOST_SKIPPED
    if skipped:
        yield EvidenceTable(
            "Skipped, by reason",
            [Column("code"), Column("jobs", "number")],
            [TableRow([code, number]) for code, number in skipped.items()],
            LeftOut("jobs skipped before", number=older) if older > 0 else None,
        )
    rest = operation.handled - min(len(receipts), _MOST_ROWS)
    yield EvidenceTable(
        "The last receipts",
        [
            Column("number", "number"),
            Column("job", "number"),
            Column("result"),
            Column("code"),
            Column("why"),
            Column("at", "moment"),
            Column("proven", "moment"),
        ],
        [
            TableRow(
                [
                    receipt.number,
                    receipt.job_id,
                    receipt.result.replace("_", " "),
                    receipt.code,
                    receipt.says,
                    receipt.at,
                    receipt.proven_at,
                ],
                f"job/{receipt.job_id}",
            )
            for receipt in receipts[:_MOST_ROWS]
        ],
        LeftOut("older receipts", number=rest) if rest > 0 and receipts else None,
    )


# --- what is related, and what may be done


def _relate(
    operation: ListedOperation, receipts: Sequence[ReceiptRow], newest: Sequence[ListedOperation]
) -> Iterator[Related]:
    yield Related("Started by", operation.actor, f"actor/{operation.actor}")
    if operation.undo_of is not None:
        yield Related(
            "It undoes", f"operation {operation.undo_of}", f"operation/{operation.undo_of}"
        )
    for other in newest:
        if other.undo_of == operation.id:
            name, says = f"operation {other.id}", other.state
            yield Related("Undone by", name, f"operation/{other.id}", says)
    query = operation.query or {}
    for kind in ("failure", "queue", "task", "workflow", "batch"):
        # A workflow and a batch may be chosen by their names, which name many of them.
        value = str(query.get(kind, ""))
        if value and (kind in ("queue", "task") or value.isdecimal()):
            yield Related(f"Its jobs are of {kind}", value, f"{kind}/{value}")
    if operation.code == "same_failure":
        yield from _relate_same(receipts)


def _relate_same(receipts: Sequence[ReceiptRow]) -> Iterator[Related]:
    """The jobs because of which it stopped, those that came last."""
    for receipt in receipts[:_MOST_ROWS]:
        if receipt.result == "failed_same_error":
            says = RESULTS[receipt.result]
            yield Related(
                "Failed as before", f"job {receipt.job_id}", f"job/{receipt.job_id}", says
            )


def _list_paths(operation: ListedOperation) -> Iterator[Path]:
    if operation.state == "stopped" and operation.code == "same_failure":
        jobs = counted(operation.counts["pending"], "job")
        yield Path(
            "follow_up",
            "Fix the failure, and deploy the fix",
            f"{jobs} {agree(operation.counts['pending'], 'was', 'were')} spared. Resume it then: it begins"
            " again with one job.",
            status="unconfigured",
        )


def _was_there(inquiry: Inquiry) -> bool:
    return was_numbered(inquiry, Operation.id)


KIND = Kind("operation", "operations.view", read_id, _tell, _was_there)
