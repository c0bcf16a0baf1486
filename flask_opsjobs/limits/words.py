"""A limiter in words, for pages and commands."""

from __future__ import annotations

from .bucket import CONCURRENCY, COOLDOWN, TOKENS, WEIGHT, Shape

_SPANS: dict[float, str] = {1: "a second", 60: "a minute", 3600: "an hour", 86_400: "a day"}

# Why a bucket admits nothing now.
BLOCKS = {
    COOLDOWN: "it cools down",
    TOKENS: "no token is left",
    CONCURRENCY: "all places are taken",
    WEIGHT: "the next job is heavier than it ever allows",
}


def rate(shape: Shape) -> str | None:
    """`10 a minute`, `5 in 90 s`; None without a rate."""
    if shape.rate is None or shape.per_seconds is None:
        return None
    span = _SPANS.get(shape.per_seconds, f"in {shape.per_seconds:g} s")
    return f"{shape.rate:g} {span}"


def in_words(shape: Shape, partition_by: str | None = None) -> str:
    """All that it allows: `10 a minute, 5 at once; 3 at the same time; for each account_id`."""
    parts = []
    if (said := rate(shape)) is not None:
        parts.append(f"{said}, {shape.burst:,} at once")
    if shape.concurrency is not None:
        parts.append(f"{shape.concurrency:,} at the same time")
    if partition_by is not None:
        parts.append(f"for each {partition_by}")
    return "; ".join(parts)
