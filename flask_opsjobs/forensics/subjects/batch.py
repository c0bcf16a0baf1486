"""Tells of a batch: how its members ended, which failed, and what its callbacks did."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...batches import queries
from ...batches.actions import actions_of_batch
from ...batches.lifecycle import MEANINGS
from ...batches.models import BatchRecord
from ...batches.queries import BatchRow, CallbackOfBatch, MemberRow
from ...core.history import Event
from ...core.round_trips import start_reading
from ...core.words import counted
from ...explain.evidence import StoredBatch
from ...explain.explain import explain_batch_evidence
from ...explain.queries import find_batch_evidence, find_stored_batch
from ...jobs.lifecycle import ENDED_BY
from ..backlog import expect_earlier_ends, watch_backlog
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
from .by_id import read_id, was_numbered

# Of the members of each final state, the newest ones are told.
MOST_MEMBERS = 100
_MOST_SHOWN = 25
_ENDED = ("failed", "canceled", "finished")


@dataclass(frozen=True)
class _Found:
    """What is stored of a batch. `ended` are its newest members that have ended, as far as they are read."""

    stored: StoredBatch
    ended: Sequence[MemberRow]

    @property
    def batch(self) -> BatchRow:
        """The batch itself."""
        return self.stored.batch

    @property
    def callbacks(self) -> Sequence[CallbackOfBatch]:
        """The jobs that report about it."""
        return self.stored.callbacks


def _tell(inquiry: Inquiry) -> Told | None:
    session = inquiry.session
    id = int(inquiry.key)
    listing = [
        start_reading(session, queries.list_newest_members, id, state, MOST_MEMBERS)
        for state in _ENDED
    ]
    stored = find_stored_batch(session, id)
    if stored is None:
        return None
    batch = stored.batch
    found = _Found(stored, [member for members in listing for member in members.value])
    calls = [each.created_at for each in found.callbacks if each.created_at is not None]
    return Told(
        title=f"Batch {batch.id}: {batch.name}",
        state=batch.state,
        diagnosis=start_reading(inquiry, _diagnose, stored),
        since=batch.created_at,
        until=inquiry.now if batch.ended_at is None else max([batch.ended_at, *calls]),
        events=[*_of_batch(found), *_of_members(inquiry, found)],
        pieces=[*_list_expected(found)],
        watches=inquiry.start(_list_watches, inquiry, batch),
        evidence=inquiry.start(_make_tables, inquiry, found),
        related=[*_relate(found)],
        left_out=[*_leave_out(inquiry, found)],
        offered={inquiry.subject: [each.name for each in actions_of_batch(batch)]},
    )


def _diagnose(inquiry: Inquiry, stored: StoredBatch) -> str:
    """What its page says, as far as Postgres alone tells it."""
    settings = inquiry.host.settings
    evidence = find_batch_evidence(inquiry.session, stored, inquiry.now, settings)
    return explain_batch_evidence(evidence).says


# --- what happened


def _of_batch(found: _Found) -> Iterator[Event]:
    batch = found.batch
    yield Event(batch.created_at, "available", "Opened", "host")
    if batch.closed_at is not None:
        yield Event(batch.closed_at, "waiting", "Closed: no member can be added any more", "host")
    if batch.first_failed_at is not None:
        text = "Its first member failed, or was found to be lost"
        yield Event(batch.first_failed_at, "failed", text, "loop fold")
    if batch.cancel_requested_at is not None:
        text = f"{batch.cancel_requested_by or 'somebody'} asked to cancel it"
        yield Event(
            batch.cancel_requested_at, "canceled", text, "operator", label=batch.cancel_reason
        )
    if batch.ended_at is not None:
        text = f"{batch.state.capitalize()}: {MEANINGS[batch.state]}"
        yield Event(batch.ended_at, batch.state, text, "loop fold")
    for callback in found.callbacks:
        if callback.created_at is not None:
            what = "the first failure" if callback.event == "failure" else f"end {callback.end_no}"
            text = f"Job {callback.job_id} was enqueued, to report {what}"
            subject = f"job/{callback.job_id}"
            yield Event(callback.created_at, "available", text, "loop fold", subject=subject)


def _of_members(inquiry: Inquiry, found: _Found) -> Iterator[Event]:
    if not inquiry.may("jobs.view"):
        return
    for member in found.ended:
        if member.ended_at is not None:
            is_canceled = member.state == "canceled"
            text = f"Member {member.id} {'was canceled' if is_canceled else member.state}"
            yield Event(
                member.ended_at,
                member.state,
                text,
                "operator" if is_canceled else "worker",
                payload=member.error,
                subject=f"job/{member.id}",
            )


def _leave_out(inquiry: Inquiry, found: _Found) -> Iterator[LeftOut]:
    if not inquiry.may("jobs.view"):
        yield LeftOut("members, which need jobs.view")
        return
    for state in _ENDED:
        read = [member for member in found.ended if member.state == state]
        rest = found.batch.ends[state] - len(read)
        if rest > 0 and len(read) == MOST_MEMBERS:
            yield LeftOut(f"older {state} members", number=rest)


# --- what should be there


def _list_expected(found: _Found) -> Iterator[Expected]:
    batch = found.batch
    if batch.lost:
        yield Expected(
            f"{counted(batch.lost, 'member')} that {'is' if batch.lost == 1 else 'are'} lost: the rows"
            " were deleted",
            is_found=False,
            is_removed=True,
        )
    for state in _ENDED:
        read = sum(member.state == state for member in found.ended)
        missing = min(batch.ends[state], MOST_MEMBERS) - read
        if missing > 0:
            yield Expected(
                f"{counted(missing, f'{state} member')}: the rows were removed",
                is_found=False,
                is_removed=True,
            )
    for callback in found.callbacks:
        if callback.state is None:
            yield Expected(
                f"job {callback.job_id}, which reported about it: it was deleted",
                is_found=False,
                is_removed=True,
            )
    yield from expect_earlier_ends(batch, found.callbacks)


def _list_watches(inquiry: Inquiry, batch: BatchRow) -> Iterator[WatchedSpan]:
    if not batch.is_final:
        lacks = "Members that ended since are not counted, so it cannot end."
        yield watch_backlog(inquiry, "fold", lacks, batch.created_at)


# --- evidence, and what is related


def _make_tables(inquiry: Inquiry, found: _Found) -> Iterator[EvidenceTable]:
    batch = found.batch
    numbers = {**batch.ends, "lost": batch.lost, "not ended": batch.left}
    yield EvidenceTable(
        "Members by state",
        [Column("state"), Column("members", "number")],
        [TableRow([state, number]) for state, number in numbers.items() if number],
    )
    if not batch.ends["failed"] or not inquiry.may("jobs.view"):
        return
    kinds = queries.group_failures(inquiry.session, batch.id)
    rest = batch.ends["failed"] - sum(group.number for group in kinds.groups)
    yield EvidenceTable(
        f"Errors of the last {counted(kinds.examined, 'failed member')}",
        [Column("error", "payload"), Column("how"), Column("members", "number")],
        [
            TableRow(
                [group.error, ENDED_BY.get(group.ended_by, group.ended_by), group.number],
                f"job/{group.job_id}",
            )
            for group in kinds.groups
        ],
        LeftOut("failed members with other errors, and older ones", number=rest)
        if rest > 0
        else None,
    )
    failed = [member for member in found.ended if member.state == "failed"][:_MOST_SHOWN]
    left = batch.ends["failed"] - len(failed)
    yield EvidenceTable(
        "Failed members",
        [
            Column("member", "number"),
            Column("task"),
            Column("attempts"),
            Column("error", "payload"),
            Column("ended", "moment"),
        ],
        [
            TableRow(
                [
                    member.id,
                    member.task,
                    f"{member.attempt} of {member.max_attempts}",
                    member.error,
                    member.ended_at,
                ],
                f"job/{member.id}",
            )
            for member in failed
        ],
        LeftOut("failed members", number=left) if left > 0 else None,
    )


def _relate(found: _Found) -> Iterator[Related]:
    batch = found.batch
    for callback in found.callbacks:
        says = f"{callback.event}, end {callback.end_no}: {callback.state or 'deleted'}"
        yield Related("Callback", f"job {callback.job_id}", f"job/{callback.job_id}", says)
    if not batch.is_final:
        for job in found.stored.members:
            yield Related("Oldest member of its state", f"job {job.id}", f"job/{job.id}")
    for task in list(dict.fromkeys(member.task for member in found.ended))[:10]:
        yield Related("Task", task, f"task/{task}")
    if batch.cancel_requested_by is not None:
        by = batch.cancel_requested_by
        yield Related("Canceled by", by, f"actor/{by}")


def _was_there(inquiry: Inquiry) -> bool:
    return was_numbered(inquiry, BatchRecord.id)


KIND = Kind("batch", "batches.view", read_id, _tell, _was_there)
