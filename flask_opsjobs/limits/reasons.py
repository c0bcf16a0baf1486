"""Finds the reasons in the limiter: it is unknown, too small for the job, cooling down, or full."""

from __future__ import annotations

from collections.abc import Iterator

from ..explain.evidence import Evidence, LimitEvidence
from ..explain.reason_kinds import Reason, make_reason
from . import bucket
from .bucket import BucketBlock, Shape


def limit_unknown(evidence: Evidence) -> Iterator[Reason]:
    """No process that knows the limiter has started, so its limits are unknown."""
    limit = evidence.limit if evidence.is_due else None
    if limit is None or limit.shape is not None:
        return
    yield make_reason(
        evidence,
        "limit_unknown",
        f"No worker and no loop has declared the limiter {limit.name}, so its limits are unknown.",
        "Start a worker, or the loops, with the code that declares it.",
        source="dispatcher",
        read=_read(limit),
    )


def limit_weight(evidence: Evidence) -> Iterator[Reason]:
    """The job weighs more than its limiter can ever admit, because a later declaration lowered the limit."""
    for limit, shape, _ in _blocks(evidence, bucket.WEIGHT, evidence.limit):
        bound = "burst" if shape.most == shape.burst else "concurrency"
        yield make_reason(
            evidence,
            "limit_weight",
            f"It can never start: its weight is {limit.weight:,}, and the {bound} of the limiter "
            f"{limit.name} is {shape.most:,}.",
            f"Declare a larger {bound}, or discard it.",
            source="dispatcher",
            read={**_read(limit), "weight": limit.weight, bound: shape.most},
        )


def limit_cooldown(evidence: Evidence) -> Iterator[Reason]:
    """An operator set a cooldown of the limiter or of its partition."""
    # A queued job has this reason too: the claim will send it back. A job that is due later has it only when
    # the cooldown lasts longer.
    for limit, _, block in _blocks(evidence, bucket.COOLDOWN, evidence.limit):
        is_over = block.until is not None and block.until <= evidence.job.due_at
        if not evidence.is_due and evidence.job.state != "deferred" and is_over:
            continue
        yield make_reason(
            evidence,
            "limit_cooldown",
            f"{_subject(limit)} is in a cooldown: its jobs do not start.",
            "Its jobs start again when the cooldown ends, or when somebody clears it.",
            source="operator",
            target=limit.cooling_target,
            read={**_read(limit), "cooldown_until": block.until},
            by=limit.cooldown_by,
            quote=limit.cooldown_reason,
            since=limit.cooldown_at,
            until=block.until,
        )


def limit_concurrency(evidence: Evidence) -> Iterator[Reason]:
    """The running and queued jobs of the limiter leave too few places for the weight of this job."""
    for limit, shape, _ in _blocks(evidence, bucket.CONCURRENCY, _held(evidence)):
        level = limit.level
        used = level.in_use + level.queued
        predicate = f"is full: {used:,} of {shape.concurrency:,} places are taken."
        end = "one of them has ended"
        if limit.weight > 1:
            # Some places may be free, but too few for a heavy job.
            taken = f"{used:,} of {shape.concurrency:,} are taken"
            predicate = f"has too few places for its weight of {limit.weight:,}: {taken}."
            end = "enough of them are free"
        yield make_reason(
            evidence,
            "limit_concurrency",
            f"{_subject(limit)} {predicate}",
            f"It is dispatched when {end}.",
            source="dispatcher",
            read={
                **_read(limit),
                "in_use": level.in_use,
                "queued": level.queued,
                "concurrency": shape.concurrency,
                "weight": limit.weight,
                "holders": ", ".join(f"job/{id}" for id in limit.holders) or None,
                "ahead": _ahead(evidence),
            },
        )


def limit_tokens(evidence: Evidence) -> Iterator[Reason]:
    """The limiter has too few tokens for this job now; the next token comes at a known time."""
    for limit, shape, block in _blocks(evidence, bucket.TOKENS, _held(evidence)):
        is_heavy = limit.weight > 1
        lacks = (
            f"too few tokens for its weight of {limit.weight:,}" if is_heavy else "no token left"
        )
        comes = f"{shape.rate:g} come{'s' if shape.rate == 1 else ''} back every {shape.per_seconds:g} s"
        yield make_reason(
            evidence,
            "limit_tokens",
            f"{_subject(limit)} has {lacks}: {comes}, and {_are_ahead(evidence)}.",
            "It starts in its turn, when there are enough tokens.",
            source="dispatcher",
            read={
                **_read(limit),
                "tokens": f"{max(0.0, bucket.tokens_at(shape, limit.level, evidence.now)):.2f}",
                "queued": limit.level.queued,
                "weight": limit.weight,
                "ahead": _ahead(evidence),
                "next_token_at": block.until,
            },
            until=None if evidence.ahead and evidence.ahead.number else block.until,
        )


def limit_behind(evidence: Evidence) -> Iterator[Reason]:
    """The limiter has room, but jobs before it in its lane take this room."""
    limit = _held(evidence)
    if limit is None or limit.shape is None or _find_blocks(evidence, limit, limit.shape):
        return
    room = bucket.room(limit.shape, limit.level, evidence.now)
    if room is None or room >= limit.ahead_weight + limit.weight:
        return
    yield make_reason(
        evidence,
        "limit_behind",
        f"{_subject(limit)} has room, but {_are_ahead(evidence)} and "
        f"{'needs' if _ahead(evidence) == '1' else 'need'} that room.",
        "It is dispatched in its turn.",
        source="dispatcher",
        read={**_read(limit), "room": room, "ahead": _ahead(evidence), "weight": limit.weight},
    )


def _held(evidence: Evidence) -> LimitEvidence | None:
    """The evidence of the limit when the job is due and not dispatched yet, else None."""
    return evidence.limit if evidence.is_due and evidence.job.state != "queued" else None


def _blocks(
    evidence: Evidence, code: str, limit: LimitEvidence | None
) -> Iterator[tuple[LimitEvidence, Shape, BucketBlock]]:
    if limit is None or limit.shape is None:
        return
    for block in _find_blocks(evidence, limit, limit.shape):
        if block.code == code:
            yield limit, limit.shape, block


def _find_blocks(evidence: Evidence, limit: LimitEvidence, shape: Shape) -> tuple[BucketBlock, ...]:
    """The blocks of the job now, counting queued jobs as started."""
    later = bucket.settle(shape, limit.level, evidence.now)
    return bucket.admit(shape, later, limit.weight, evidence.now).blocks


def _subject(limit: LimitEvidence) -> str:
    of = f" for {limit.shown_partition}" if limit.shown_partition else ""
    return f"The limiter {limit.name}{of}"


def _read(limit: LimitEvidence) -> dict[str, object]:
    return {"limiter": limit.name, "partition": limit.shown_partition}


def _are_ahead(evidence: Evidence) -> str:
    """`1 job of its queue and partition is ahead of it`, or `1,000+ jobs …`."""
    ahead = _ahead(evidence) or "0"
    jobs, are = ("job", "is") if ahead == "1" else ("jobs", "are")
    return f"{ahead} {jobs} of its queue and partition {are} ahead of it"


def _ahead(evidence: Evidence) -> str | None:
    if evidence.ahead is None:
        return None
    return f"{evidence.ahead.number:,}{'+' if evidence.ahead.kind == 'at_least' else ''}"
