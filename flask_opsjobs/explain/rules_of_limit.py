"""Rules about its limiter: the function that admits at the claim judges here too, with what is handed out already."""

from __future__ import annotations

from collections.abc import Iterator

from ..limits import bucket
from ..limits.bucket import Block, Shape
from .reasons import make_reason
from .seen import LimitSeen, Seen
from .shapes import Reason


def limit_unknown(seen: Seen) -> Iterator[Reason]:
    """No process that knows the limiter has started, so nobody knows what it allows."""
    limit = seen.limit if seen.is_due else None
    if limit is None or limit.shape is not None:
        return
    yield make_reason(
        seen,
        "limit_unknown",
        f"No worker and no loop has declared the limiter {limit.name}: what it allows is not known.",
        "Start a worker, or the loops, with the code that declares it.",
        witness="dispatcher",
        read=_read(limit),
    )


def limit_weight(seen: Seen) -> Iterator[Reason]:
    """It weighs more than its limiter ever has room for, since that was declared anew."""
    for limit, shape, _ in _blocks(seen, bucket.WEIGHT, seen.limit):
        bound = "burst" if shape.most == shape.burst else "concurrency"
        yield make_reason(
            seen,
            "limit_weight",
            f"It weighs {limit.weight:,}, and the {bound} of the limiter {limit.name} is {shape.most:,}: "
            "it can never start.",
            f"Declare a larger {bound}, or discard it.",
            witness="dispatcher",
            read={**_read(limit), "weight": limit.weight, bound: shape.most},
        )


def limit_cooldown(seen: Seen) -> Iterator[Reason]:
    """An operator cools the limiter, or its partition, down."""
    # The claim puts back what lies in Redis. Of what has its time still before it, it is said when it lasts longer.
    for limit, _, block in _blocks(seen, bucket.COOLDOWN, seen.limit):
        is_over = block.until is not None and block.until <= seen.job.due_at
        if not seen.is_due and seen.job.state != "deferred" and is_over:
            continue
        yield make_reason(
            seen,
            "limit_cooldown",
            f"{_subject(limit)} cools down: nothing of it starts.",
            "It goes on by itself when that is over, or once somebody clears it.",
            witness="operator",
            target=limit.cooling_target,
            read={**_read(limit), "cooldown_until": block.until},
            by=limit.cooldown_by,
            quote=limit.cooldown_reason,
            since=limit.cooldown_at,
            until=block.until,
        )


def limit_concurrency(seen: Seen) -> Iterator[Reason]:
    """As many run, or were handed out, as may at the same time, or so many that its weight does not fit."""
    for limit, shape, _ in _blocks(seen, bucket.CONCURRENCY, _held(seen)):
        standing = limit.standing
        used = standing.in_use + standing.handed_out
        says = f"is full: {used:,} of {shape.concurrency:,} at the same time."
        end = "one of them has ended"
        if limit.weight > 1:
            # Of a heavy one's places some may be free.
            says = f"has too few places for its weight of {limit.weight:,}: {used:,} of {shape.concurrency:,} taken."
            end = "enough of them are free"
        yield make_reason(
            seen,
            "limit_concurrency",
            f"{_subject(limit)} {says}",
            f"It is handed out when {end}.",
            witness="dispatcher",
            read={
                **_read(limit),
                "in_use": standing.in_use,
                "handed_out": standing.handed_out,
                "concurrency": shape.concurrency,
                "weight": limit.weight,
                "holders": ", ".join(f"job/{id}" for id in limit.holders) or None,
                "ahead": _ahead(seen),
            },
        )


def limit_tokens(seen: Seen) -> Iterator[Reason]:
    """As many have started as may for now; the next token has a time."""
    for limit, shape, block in _blocks(seen, bucket.TOKENS, _held(seen)):
        is_heavy = limit.weight > 1
        lacks = (
            f"too few tokens for its weight of {limit.weight:,}" if is_heavy else "no token left"
        )
        comes = (
            f"{shape.rate:g} {'comes' if shape.rate == 1 else 'come'} in {shape.per_seconds:g} s"
        )
        yield make_reason(
            seen,
            "limit_tokens",
            f"{_subject(limit)} has {lacks}: {comes}, and {_go_before(seen)}.",
            "It starts in its turn, when tokens have come.",
            witness="dispatcher",
            read={
                **_read(limit),
                "tokens": f"{max(0.0, bucket.level(shape, limit.standing, seen.now)):.2f}",
                "handed_out": limit.standing.handed_out,
                "weight": limit.weight,
                "ahead": _ahead(seen),
                "next_token_at": block.until,
            },
            until=None if seen.ahead and seen.ahead.number else block.until,
        )


def limit_behind(seen: Seen) -> Iterator[Reason]:
    """There is room for it, and those before it in its lane take it."""
    limit = _held(seen)
    if limit is None or limit.shape is None or _judge(seen, limit, limit.shape):
        return
    room = bucket.room(limit.shape, limit.standing, seen.now)
    if room is None or room >= limit.ahead_weight + limit.weight:
        return
    yield make_reason(
        seen,
        "limit_behind",
        f"{_go_before(seen)} and {'takes' if _ahead(seen) == '1' else 'take'} what "
        f"{_subject(limit, is_first=False)} has room for.",
        "It is handed out in its turn.",
        witness="dispatcher",
        read={**_read(limit), "room": room, "ahead": _ahead(seen), "weight": limit.weight},
    )


def _held(seen: Seen) -> LimitSeen | None:
    """What was read of the limit of a job that dispatch has not handed out yet."""
    return seen.limit if seen.is_due and seen.job.state != "queued" else None


def _blocks(
    seen: Seen, code: str, limit: LimitSeen | None
) -> Iterator[tuple[LimitSeen, Shape, Block]]:
    if limit is None or limit.shape is None:
        return
    for block in _judge(seen, limit, limit.shape):
        if block.code == code:
            yield limit, limit.shape, block


def _judge(seen: Seen, limit: LimitSeen, shape: Shape) -> tuple[Block, ...]:
    """What stands against it now, when what is handed out already has started."""
    later = bucket.settle(shape, limit.standing, seen.now)
    return bucket.admit(shape, later, limit.weight, seen.now).blocks


def _subject(limit: LimitSeen, *, is_first: bool = True) -> str:
    the = "The" if is_first else "the"
    of = f" for {limit.said}" if limit.said else ""
    return f"{the} limiter {limit.name}{of}"


def _read(limit: LimitSeen) -> dict[str, object]:
    return {"limiter": limit.name, "partition": limit.said}


def _go_before(seen: Seen) -> str:
    """`1 job of its queue and partition goes before it`, `1,000+ jobs of its queue and partition go before it`."""
    ahead = _ahead(seen) or "0"
    return (
        f"{ahead} job of its queue and partition goes before it"
        if ahead == "1"
        else f"{ahead} jobs of its queue and partition go before it"
    )


def _ahead(seen: Seen) -> str | None:
    if seen.ahead is None:
        return None
    return f"{seen.ahead.number:,}{'+' if seen.ahead.kind == 'at_least' else ''}"
