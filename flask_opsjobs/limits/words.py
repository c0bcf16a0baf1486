"""Describes limiters in words, for pages and commands."""

from __future__ import annotations

from .bucket import CONCURRENCY, COOLDOWN, TOKENS, WEIGHT, Shape
from .simulation import NO_WORKER

_SPANS: dict[float, str] = {1: "a second", 60: "a minute", 3600: "an hour", 86_400: "a day"}

# The terms of limits, defined once: the docs' glossary and the help page both read them.
GLOSSARY = {
    "limiter": "A named limit on the starts of jobs: a rate, a concurrency, or both. A task declares it.",
    "partition": "A value of an argument that has a limit of its own in a limiter; '' without one.",
    "bucket": "One partition of a limiter, and the tokens in it.",
    "token": "A start takes as many tokens as the job weighs. Tokens come with time, up to the burst.",
    "burst": "The most tokens that a bucket holds: this many jobs may start at once.",
    "weight": "How much one job counts: the tokens and places that it takes.",
    "lease": "The place that one attempt of a limited job holds from its claim to its end.",
    "cooldown": "An operator's decision that no job of a limiter, or of one partition, starts before a time.",
    "rejection": "A call that raised `LimitReached`, and the values that were read then.",
    "holder": "A job that holds a lease: it has started, and has not ended.",
    "waiter": "A due job that its limiter does not admit yet.",
}

# Why a bucket does not admit a job now. "Too few": some may be left, but not enough for a heavy job.
BLOCKS = {
    COOLDOWN: "it cools down",
    TOKENS: "too few tokens are left",
    CONCURRENCY: "too few places are free",
    WEIGHT: "the weight of the next job is larger than the limit allows",
}
# What the next job in line waits for in a simulation. A simulation also counts workers.
WAITS = {**BLOCKS, NO_WORKER: "no worker is free"}


def rate_in_words(shape: Shape) -> str | None:
    """`10 a minute`, `5 in 90 s`; None without a rate."""
    if shape.rate is None or shape.per_seconds is None:
        return None
    span = _SPANS.get(shape.per_seconds, f"in {shape.per_seconds:g} s")
    return f"{shape.rate:g} {span}"


def in_words(shape: Shape, partition_by: str | None = None) -> str:
    """A limiter in words: `10 a minute, 5 at once; 3 at the same time; for each account_id`."""
    parts = []
    if (rate := rate_in_words(shape)) is not None:
        parts.append(f"{rate}, {shape.burst:,} at once")
    if shape.concurrency is not None:
        parts.append(f"{shape.concurrency:,} at the same time")
    if partition_by is not None:
        parts.append(f"for each {partition_by}")
    return "; ".join(parts)
