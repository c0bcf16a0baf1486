"""Describes limiters in words, for pages and commands."""

from __future__ import annotations

from .bucket import CONCURRENCY, COOLDOWN, TOKENS, WEIGHT, Shape
from .simulation import NO_WORKER

_SPANS: dict[float, str] = {1: "a second", 60: "a minute", 3600: "an hour", 86_400: "a day"}

# The words of limits, once: the docs' glossary and the help page both read them.
GLOSSARY = {
    "limiter": "A name under which starts are limited: a rate, a concurrency, or both. A task declares it.",
    "partition": "A value of an argument for which a limiter counts by itself; '' without one.",
    "bucket": "One partition of a limiter, and the tokens in it.",
    "token": "What a start takes from a bucket, as many as the job's weight. Tokens come with time, up to the burst.",
    "burst": "The most tokens a bucket holds: as many may start at once.",
    "weight": "How much one job counts: the tokens and places that it takes.",
    "lease": "The place that one attempt of a limited job holds from its claim to its end.",
    "cooldown": "An operator's decision that nothing of a limiter, or of one partition, starts until a time.",
    "rejection": "A call that raised `LimitReached`, and what was read when it did.",
    "holder": "A job that holds a lease: it has started, and has not ended.",
    "waiter": "A due job that its limiter does not let start yet.",
}

# Why a bucket does not admit a job now, of whatever weight: for a heavy one some may be left, and too few.
BLOCKS = {
    COOLDOWN: "it cools down",
    TOKENS: "too few tokens are left",
    CONCURRENCY: "too few places are free",
    WEIGHT: "the next job is heavier than it ever allows",
}
# What the first waiting job of a simulation waits for: only there workers are counted too.
WAITS = {**BLOCKS, NO_WORKER: "no worker is free"}


def rate_in_words(shape: Shape) -> str | None:
    """`10 a minute`, `5 in 90 s`; None without a rate."""
    if shape.rate is None or shape.per_seconds is None:
        return None
    span = _SPANS.get(shape.per_seconds, f"in {shape.per_seconds:g} s")
    return f"{shape.rate:g} {span}"


def in_words(shape: Shape, partition_by: str | None = None) -> str:
    """All that it allows: `10 a minute, 5 at once; 3 at the same time; for each account_id`."""
    parts = []
    if (said := rate_in_words(shape)) is not None:
        parts.append(f"{said}, {shape.burst:,} at once")
    if shape.concurrency is not None:
        parts.append(f"{shape.concurrency:,} at the same time")
    if partition_by is not None:
        parts.append(f"for each {partition_by}")
    return "; ".join(parts)
