"""Separates due jobs that are blocked, with the reason, from due jobs that are free to run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..jobs.rows import Count
from .queries import CooldownSummary, Held, Overview, PausedJobs, QueueDepth, StateDepth


@dataclass(frozen=True)
class Block:
    """One thing that blocks jobs. `kind`: redis, suspended, worker, paused, draining, task, cooldown, limit.

    `name` is that of the queue, the paused task or the limiter. `since` is when the block began, or when the
    first job was due. `until`, `by` and `reason` are set when an operator decided it.
    """

    kind: str
    name: str
    count: Count
    since: datetime | None
    until: datetime | None = None
    by: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Split:
    """All due jobs: the blocked ones by block, the largest first, and the free ones by state."""

    blocks: Sequence[Block]
    free: Mapping[str, StateDepth]


def split_blocks(
    seen: Overview, unreachable: Collection[str] = (), *, is_suspended: bool = False
) -> Split:
    """Separate blocked from free jobs. `unreachable` are the queues whose Redis does not answer."""
    blocks: list[Block] = []
    free: dict[str, list[StateDepth]] = {"available": [], "queued": []}
    held = _by_queue(seen.held)
    for queue in seen.queues:
        available, queued = queue.states["available"], queue.states["queued"]
        kind = _kind(queue, unreachable, is_suspended)
        if kind in ("redis", "suspended", "worker"):
            blocks += _whole(kind, queue, [available, queued])
            continue
        free["queued"].append(queued)  # dispatched already, so these jobs still run
        if kind is not None:
            blocks += _whole(kind, queue, [available])
            continue
        known = available.count.kind
        paused = [one for one in seen.paused if one.queue == queue.name]
        blocks += [_paused(one, known) for one in paused]
        limited = held.get(queue.name, [])
        blocks += [_limited(one, seen) for one in limited]
        blocked = sum(one.number for one in paused) + sum(one.number for one in limited)
        rest = available.count.number - blocked
        free["available"].append(
            StateDepth(Count(max(0, rest), known), available.since if rest > 0 else None)
        )
    merged = _merge(blocks)
    return Split(
        sorted(merged, key=lambda block: -block.count.number),
        {state: _sum(depths) for state, depths in free.items()},
    )


def _kind(queue: QueueDepth, unreachable: Collection[str], is_suspended: bool) -> str | None:
    """What blocks a whole queue; None when nothing does."""
    if queue.name in unreachable:
        return "redis"
    if is_suspended:
        return "suspended"
    if not queue.listeners:
        return "worker"
    return None if queue.state == "open" else queue.state


def _whole(kind: str, queue: QueueDepth, depths: Sequence[StateDepth]) -> list[Block]:
    depth = _sum(depths)
    if not depth.count.number:
        return []
    decided = queue.decision if kind in ("paused", "draining") else None
    if decided is None:
        return [Block(kind, queue.name, depth.count, depth.since)]
    since = decided.paused_at or depth.since
    by, reason = decided.paused_by, decided.paused_reason
    return [Block(kind, queue.name, depth.count, since, by=by, reason=reason)]


def _paused(one: PausedJobs, kind: str) -> Block:
    count = Count(one.number, kind)
    return Block("task", one.task, count, one.paused_at, by=one.paused_by, reason=one.paused_reason)


def _limited(held: Held, seen: Overview) -> Block:
    count = Count(held.number, "exact" if seen.is_all_held else "at_least")
    if not held.is_cooling:
        return Block("limit", held.limiter, count, held.since)
    decided = find_cooling(seen.cooling, held.limiter)
    if decided is None:
        return Block("cooldown", held.limiter, count, held.since)
    return Block(
        "cooldown", held.limiter, count, decided.since, decided.until, decided.by, decided.reason
    )


def find_cooling(cooling: Sequence[CooldownSummary], limiter: str) -> CooldownSummary | None:
    """The longest cooldown of a limiter, or None."""
    mine = [one for one in cooling if one.limiter == limiter]
    return max(mine, key=lambda one: one.until, default=None)


def _by_queue(held: Sequence[Held]) -> Mapping[str, list[Held]]:
    found: dict[str, list[Held]] = {}
    for one in held:
        found.setdefault(one.queue, []).append(one)
    return found


def _merge(blocks: Sequence[Block]) -> list[Block]:
    """Merge the blocks of one limiter in several queues, by unreachable Redis, and by suspension."""
    found: dict[tuple[str, str], list[Block]] = {}
    for block in blocks:
        is_one = block.kind in ("redis", "suspended")
        found.setdefault((block.kind, "" if is_one else block.name), []).append(block)
    return [
        Block(
            kind,
            name or same[0].name,
            Count.sum(block.count for block in same),
            min((block.since for block in same if block.since), default=None),
            same[0].until,
            same[0].by,
            same[0].reason,
        )
        for (kind, name), same in found.items()
    ]


def _sum(depths: Sequence[StateDepth]) -> StateDepth:
    since = min((depth.since for depth in depths if depth.since), default=None)
    return StateDepth(Count.sum(depth.count for depth in depths), since)
