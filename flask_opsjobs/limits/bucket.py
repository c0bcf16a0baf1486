"""Decides whether a limiter admits a job, by tokens and by leases. Pure: no database, no clock.

Dispatch, claim, reject, explain and simulate all call these functions, so that they cannot disagree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

# Example: a limiter of 10/s with a burst of 1 refills within a second. A claim that comes 0.2 s before its
# token is admitted, takes the token, and the job starts when the token comes. So the limiter starts 10 jobs
# in each second, although a claim takes some milliseconds. A limiter of 1/h does not refill within a second:
# a claim that comes 0.2 s early is refused, because 0.2 s matter little in an hour.
AHEAD_SECONDS = 0.25  # how early a claim may come
_TIGHT_SECONDS = 1.0  # only for buckets that refill within this time
# A claim may come this much later than the dispatch that counted on the token, since clocks differ.
_SLACK_SECONDS = 0.1
_GRAIN = 1e-6  # rounding: a thousand thousandths of a token are one token

COOLDOWN, TOKENS, CONCURRENCY, WEIGHT, UNKNOWN = (
    "limit_cooldown",
    "limit_tokens",
    "limit_concurrency",
    "limit_weight",
    "limit_unknown",
)


@dataclass(frozen=True)
class Shape:
    """A declared limiter: `rate` starts per `per_seconds`, `burst` at once, `concurrency` at one time."""

    rate: float | None = None
    per_seconds: float | None = None
    burst: int | None = None
    concurrency: int | None = None

    @property
    def per_second(self) -> float | None:
        """The tokens that are refilled in a second; None without a rate."""
        if self.rate is None or self.per_seconds is None:
            return None
        return self.rate / self.per_seconds

    @property
    def most(self) -> int | None:
        """The largest weight that can ever start; None for any weight."""
        bounds = [bound for bound in (self.burst, self.concurrency) if bound is not None]
        return min(bounds, default=None)

    @property
    def ahead_seconds(self) -> float:
        """How early a claim may take a token: 0.25 s when the bucket refills within a second, else 0."""
        speed = self.per_second
        if speed is None or self.burst is None or self.burst / speed >= _TIGHT_SECONDS:
            return 0.0
        return AHEAD_SECONDS


@dataclass(frozen=True)
class BucketLevel:
    """The state of a bucket: `tokens` at `refilled_at` (None: full), and the end of its cooldown.

    `in_use` is the weight of its leases, `queued` the weight of its queued jobs.
    """

    tokens: float | None = None
    refilled_at: datetime | None = None
    in_use: int = 0
    queued: int = 0
    cooldown_until: datetime | None = None


@dataclass(frozen=True)
class BucketBlock:
    """One reason why a bucket does not admit a job.

    It ends at `until`; None when it ends only with a running job, or never.
    """

    code: str
    until: datetime | None = None


@dataclass(frozen=True)
class Admission:
    """Whether a bucket admits a job.

    Holds what blocks it; or the wait for its token, and the tokens that are left.
    """

    blocks: tuple[BucketBlock, ...]
    wait_seconds: float = 0.0
    tokens: float | None = None

    @property
    def is_admitted(self) -> bool:
        """Whether nothing blocks the job."""
        return not self.blocks


def tokens_at(shape: Shape, level: BucketLevel, now: datetime) -> float:
    """The tokens at `now`; below 0 when claims took tokens early. Infinite without a rate."""
    speed = shape.per_second
    if speed is None or shape.burst is None:
        return math.inf
    if level.tokens is None or level.refilled_at is None:
        return float(shape.burst)
    # When a clock is stepped back, no tokens are removed.
    elapsed = max(0.0, (now - level.refilled_at).total_seconds())
    return min(float(shape.burst), level.tokens + elapsed * speed)


def admit(shape: Shape, level: BucketLevel, weight: int, now: datetime) -> Admission:
    """Whether a job of this weight may start. Counts leases and tokens, but not queued jobs.

    When it may, the caller writes the `tokens` that are left, with `now` as `refilled_at`.
    """
    has = tokens_at(shape, level, now)
    wait = _seconds_until(shape, has, weight)
    patience = shape.ahead_seconds + _SLACK_SECONDS if shape.ahead_seconds else 0.0
    blocks = [*_blocks(shape, level, weight, now)]
    if wait > patience and not _is_too_heavy(shape, weight):
        blocks.append(BucketBlock(TOKENS, now + timedelta(seconds=wait)))
    if blocks:
        return Admission(tuple(blocks))
    return Admission((), wait, None if math.isinf(has) else has - weight)


def room(shape: Shape, level: BucketLevel, now: datetime) -> int | None:
    """How much weight may be dispatched now, beyond the queued jobs; None without a bound."""
    if _is_cooling(level, now):
        return 0
    bounds = []
    speed = shape.per_second
    if speed is not None:
        tokens = tokens_at(shape, level, now) + speed * shape.ahead_seconds
        bounds.append(math.floor(tokens + _GRAIN) - level.queued)
    if shape.concurrency is not None:
        bounds.append(shape.concurrency - level.in_use - level.queued)
    return max(0, min(bounds)) if bounds else None


def settle(shape: Shape, level: BucketLevel, now: datetime) -> BucketLevel:
    """The state of the bucket after all queued jobs have started."""
    tokens = tokens_at(shape, level, now) - level.queued
    return replace(
        level,
        tokens=None if math.isinf(tokens) else tokens,
        refilled_at=None if math.isinf(tokens) else now,
        in_use=level.in_use + level.queued,
        queued=0,
    )


def next_room(shape: Shape, level: BucketLevel, weight: int, now: datetime) -> float | None:
    """Seconds until time alone makes room to dispatch this weight; None when that needs more than time."""
    if _is_too_heavy(shape, weight) or _has_no_place(shape, level, weight + level.queued):
        return None
    cooled = 0.0
    if level.cooldown_until is not None:
        cooled = max(0.0, (level.cooldown_until - now).total_seconds())
    wanted = weight + level.queued
    wait = _seconds_until(shape, tokens_at(shape, level, now), wanted) - shape.ahead_seconds
    return max(0.0, cooled, wait)


def _blocks(shape: Shape, level: BucketLevel, weight: int, now: datetime) -> list[BucketBlock]:
    blocks = []
    is_too_heavy = _is_too_heavy(shape, weight)
    if is_too_heavy:
        blocks.append(BucketBlock(WEIGHT))
    if _is_cooling(level, now):
        blocks.append(BucketBlock(COOLDOWN, level.cooldown_until))
    if not is_too_heavy and _has_no_place(shape, level, weight):
        blocks.append(BucketBlock(CONCURRENCY))
    return blocks


def _is_too_heavy(shape: Shape, weight: int) -> bool:
    return shape.most is not None and weight > shape.most


def _is_cooling(level: BucketLevel, now: datetime) -> bool:
    return level.cooldown_until is not None and level.cooldown_until > now


def _has_no_place(shape: Shape, level: BucketLevel, weight: int) -> bool:
    return shape.concurrency is not None and level.in_use + weight > shape.concurrency


def _seconds_until(shape: Shape, has: float, wanted: int) -> float:
    """Seconds until a bucket with `has` tokens has `wanted` tokens, if nobody takes any meanwhile."""
    speed = shape.per_second
    if speed is None or has >= wanted - _GRAIN:
        return 0.0
    return (wanted - has) / speed
