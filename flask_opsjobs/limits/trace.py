"""Reads a trace of arrivals: a line for each job with the seconds since the start and, if it is not 1, its weight."""

from __future__ import annotations

import math
from collections.abc import Iterable

from .simulation import SimulatedJob

MOST_JOBS = 1_000_000


class BadTrace(ValueError):
    """A line that is no arrival; the message has its number."""


def read_trace(lines: Iterable[str]) -> list[SimulatedJob]:
    """The jobs of a trace; empty lines and what follows a `#` are left out. Raises `BadTrace`."""
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
        said = " ".join(words)[:40]
        raise BadTrace(
            f"line {number}: {said!r} is no arrival: write the seconds since the start, and a weight if it is not 1"
        )
    return SimulatedJob(arrives, weight)
