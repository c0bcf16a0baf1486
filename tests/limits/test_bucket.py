"""The arithmetic that admits, against an oracle that counts every start again from the beginning."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flask_opsjobs.limits import bucket
from flask_opsjobs.limits.bucket import BucketLevel, Shape

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)

rates = st.integers(1, 500)
spans = st.sampled_from([1, 2, 7, 60, 3600])
bursts = st.integers(1, 50)
# Microseconds between one question and the next.
gaps = st.lists(st.tuples(st.integers(0, 20_000_000), st.integers(1, 5)), min_size=1, max_size=60)


def take(
    shape: Shape, level: BucketLevel, weight: int, now: datetime
) -> tuple[BucketLevel, float | None]:
    """The bucket after a question, and after how many seconds that one may start; None when it may not."""
    verdict = bucket.admit(shape, level, weight, now)
    if not verdict.is_admitted:
        return level, None
    return replace(level, tokens=verdict.tokens, refilled_at=now), verdict.wait_seconds


class Oracle:
    """Replays all starts so far, in exact fractions, from a full bucket."""

    def __init__(self, shape: Shape) -> None:
        assert shape.rate is not None
        assert shape.per_seconds is not None
        assert shape.burst is not None
        self.speed = Fraction(shape.rate) / Fraction(shape.per_seconds)
        self.burst = shape.burst
        self.starts: list[tuple[Fraction, int]] = []

    def level(self, at: Fraction) -> Fraction:
        level, last = Fraction(self.burst), Fraction(0)
        for moment, weight in self.starts:
            level = min(Fraction(self.burst), level + (moment - last) * self.speed) - weight
            last = moment
        return min(Fraction(self.burst), level + (at - last) * self.speed)


@settings(max_examples=300, deadline=None)
@given(rates, spans, bursts, gaps)
def test_a_bucket_says_what_the_oracle_says(
    rate: int, per: int, burst: int, asked: list[tuple[int, int]]
) -> None:
    shape = Shape(rate, per, burst)
    level, oracle, micros = BucketLevel(), Oracle(shape), 0
    for gap, weight in asked:
        micros += gap
        at, now = Fraction(micros, 1_000_000), NOW + timedelta(microseconds=micros)
        has = oracle.level(at)
        assert bucket.tokens_at(shape, level, now) == pytest.approx(float(has), abs=1e-5)
        level, wait = take(shape, level, weight, now)
        if weight > burst:
            assert wait is None
        elif has >= weight:
            assert wait == 0.0
        elif shape.ahead_seconds == 0 and float(weight - has) > 1e-5:
            assert wait is None
        if wait is not None:
            oracle.starts.append((at, weight))


@settings(max_examples=300, deadline=None)
@given(rates, spans, bursts, gaps)
def test_no_stretch_of_time_sees_more_than_burst_and_rate(
    rate: int, per: int, burst: int, asked: list[tuple[int, int]]
) -> None:
    """Between any two starts, not only since the first:
    the promise of a token bucket, promised tokens included.
    """
    shape, level, micros = Shape(rate, per, burst), BucketLevel(), 0
    starts: list[tuple[float, int]] = []
    for gap, weight in asked:
        micros += gap // 20
        level, wait = take(shape, level, weight, NOW + timedelta(microseconds=micros))
        if wait is not None:
            starts.append((micros / 1e6 + wait, weight))
    starts.sort()
    for first in range(len(starts)):
        weights = 0
        for moment, weight in starts[first:]:
            weights += weight
            assert weights <= burst + (moment - starts[first][0]) * rate / per + 1e-3


@settings(max_examples=100, deadline=None)
@given(rates, spans, bursts)
def test_who_always_waits_gets_the_whole_rate(rate: int, per: int, burst: int) -> None:
    """A worker that asks again as soon as it is told to: after the hundredth window not one token is lost."""
    shape, level = Shape(rate, per, burst), BucketLevel()
    at, started = 0.0, 0
    for _ in range(400):
        level, wait = take(shape, level, 1, NOW + timedelta(seconds=at))
        if wait is None:
            (block,) = bucket.admit(shape, level, 1, NOW + timedelta(seconds=at)).blocks
            assert block.until is not None
            at = (block.until - NOW).total_seconds() + 1e-6
        else:
            at, started = at + wait, started + 1
    assert started >= burst + at * rate / per - 1 - 1e-3


@settings(max_examples=200, deadline=None)
@given(
    rates,
    spans,
    bursts,
    st.integers(0, 20),
    st.integers(0, 20),
    st.integers(0, 100),
    st.integers(1, 5),
)
def test_what_dispatch_takes_the_claims_admit(
    rate: int, per: int, burst: int, queued: int, in_use: int, tokens: int, weight: int
) -> None:
    shape = Shape(rate, per, burst, concurrency=10)
    level = BucketLevel(min(tokens, burst), NOW, in_use=in_use, queued=0)
    room = bucket.room(shape, replace(level, queued=queued), NOW)
    assert room is not None
    if room < weight or weight > min(burst, 10):
        return
    now = NOW
    for _ in range(queued):  # those before it take their tokens and places first
        level, wait = take(shape, level, 1, now)
        assert wait is not None
        level = replace(level, in_use=level.in_use + 1)
    assert take(shape, level, weight, now)[1] is not None


def test_a_clock_that_is_stepped_back_gives_and_takes_nothing() -> None:
    shape, level = Shape(60, 60, 5), BucketLevel(2.0, NOW)
    assert bucket.tokens_at(shape, level, NOW - timedelta(hours=1)) == 2.0


def test_each_block_says_when_it_goes() -> None:
    shape = Shape(1, 10, 1, concurrency=1)
    cooled = NOW + timedelta(hours=1)
    level = BucketLevel(0.0, NOW, in_use=1, cooldown_until=cooled)
    blocks = bucket.admit(shape, level, 1, NOW).blocks
    assert [(block.code, block.until) for block in blocks] == [
        (bucket.COOLDOWN, cooled),
        (bucket.CONCURRENCY, None),
        (bucket.TOKENS, NOW + timedelta(seconds=10)),
    ]
    assert [block.code for block in bucket.admit(shape, BucketLevel(), 2, NOW).blocks] == [
        bucket.WEIGHT
    ]


def test_without_a_limit_of_places_an_end_is_not_waited_for() -> None:
    shape = Shape(1, 10, 1)
    assert bucket.next_room(shape, BucketLevel(0.0, NOW), 1, NOW) == pytest.approx(10.0)
    assert bucket.next_room(Shape(concurrency=1), BucketLevel(in_use=1), 1, NOW) is None
    assert bucket.next_room(shape, BucketLevel(), 2, NOW) is None
    assert bucket.room(Shape(concurrency=3), BucketLevel(in_use=1, queued=1), NOW) == 1
    assert bucket.room(shape, BucketLevel(cooldown_until=NOW + timedelta(1)), NOW) == 0
