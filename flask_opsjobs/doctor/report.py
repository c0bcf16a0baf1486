"""Writes an examination as lines for a terminal, and as plain values for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

from .check import ERROR, OK, SKIPPED, WARNING
from .examination import CheckResult, Examination, say_unasked
from .registry import CHECKS, GROUP_OF

_ID = max(map(len, CHECKS))


def as_lines(found: Examination) -> Iterator[str]:
    """The headline, then each check that is not fine, then how many are fine in each group."""
    yield f"{found.headline} {found.rest}"
    for state in (ERROR, WARNING):
        for result in found.in_state(state):
            yield from _lines(state, result)
    for cause, results in found.unasked.items():
        yield f"{SKIPPED:<9} {say_unasked(cause, results)}: {_short(results)}."
    for result in found.left_out:
        yield from _lines(SKIPPED, result)
    for result in found.silenced:
        yield from _lines("silenced", result)
    for title, number in found.fine_by_group.items():
        yield f"{OK:<9} {title}: {number}"


def _short(results: Sequence[CheckResult]) -> str:
    """The ids, each prefix once: `loops.awake, failing; jobs.due`."""
    groups = groupby((result.check.id.split(".") for result in results), key=itemgetter(0))
    return "; ".join(f"{first}.{', '.join(name for _, name in ids)}" for first, ids in groups)


def _lines(word: str, result: CheckResult) -> Iterator[str]:
    answer = result.answer
    told = [f"It would be: {answer.state}." if result.is_silenced else "", answer.sentence]
    yield f"{word:<9} {result.check.id:<{_ID}}  {' '.join(filter(None, [*told, answer.evidence]))}"
    if answer.run:
        yield f"{'':<9} {'':<{_ID}}  run: {answer.run}"


def as_values(found: Examination, *, is_strict: bool = False) -> dict[str, Any]:
    """All of it, as `--json` prints it."""
    return {
        "at": found.at.isoformat(),
        "took_seconds": round(found.took_seconds, 3),
        "versions": dict(found.versions),
        "exit_code": found.exit_code(is_strict=is_strict),
        "headline": found.headline,
        "checks": [
            {
                "id": result.check.id,
                "group": GROUP_OF[result.check.id],
                "state": result.answer.state,
                "sentence": result.answer.sentence,
                "evidence": result.answer.evidence,
                "run": result.answer.run,
                "is_silenced": result.is_silenced,
                "because": result.because,
                "took_seconds": round(result.took_seconds, 3),
            }
            for result in found.results
        ],
    }
