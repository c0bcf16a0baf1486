"""Reads a trace of arrivals: one line per job, with the seconds since the start and optionally a weight."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .simulation import SimulatedJob

MOST_JOBS = 1_000_000


class BadTrace(ValueError):
    """A line of a trace cannot be read; the message has its number."""


def read_trace(lines: Iterable[str]) -> list[SimulatedJob]:
    """The jobs of a trace. Ignores empty lines, and text after a `#`. Raises `BadTrace`."""
    jobs: list[SimulatedJob] = []
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(jobs) >= MOST_JOBS:
            raise BadTrace(f"line {number}: a trace has at most {MOST_JOBS:,} jobs")
        jobs.append(_job(number, words))
    return jobs


def _job(number: int, words: list[str]) -> SimulatedJob:
    try:
        arrives, weight = float(words[0]), int(words[1]) if len(words) > 1 else 1
    except ValueError:
        arrives, weight = math.nan, 0
    if len(words) > 2 or not 0 <= arrives <= 1e9 or not 1 <= weight < 2**31:
        text = " ".join(words)[:40]
        raise BadTrace(
            f"line {number}: {text!r} is not an arrival: "
            "write the seconds since the start, and a weight if it is not 1"
        )
    return SimulatedJob(arrives, weight)
