"""Compares the arguments of jobs that failed with those of jobs that finished. Pure but for the display."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from ...core.display import Display

_MOST_ROWS = 8
_DEEPEST = 3
_MOST_VALUES = 60
_LONGEST = 100

_Path = tuple[str, ...]


@dataclass(frozen=True)
class SharedArgument:
    """One argument with its value, and how many of the compared jobs have it. `text` is `path = value`."""

    path: str
    value: str
    failed: int
    finished: int
    of_failed: int
    of_finished: int

    @property
    def text(self) -> str:
        """The argument as the page writes it."""
        return f"{self.path} = {self.value}"

    @property
    def is_shared(self) -> bool:
        """Whether all that failed have it, and none that finished."""
        return self.failed == self.of_failed and self.finished == 0 < self.of_finished

    @property
    def difference(self) -> float:
        """By how much of 1 its share is greater among those that failed."""
        finished = self.finished / self.of_finished if self.of_finished else 0.0
        return self.failed / self.of_failed - finished


@dataclass(frozen=True)
class ArgumentComparison:
    """The arguments that at least half of the failed jobs have, those that differ most first.

    `failed` and `finished` are how many jobs were compared.
    """

    rows: Sequence[SharedArgument]
    failed: int
    finished: int

    @property
    def shared(self) -> SharedArgument | None:
        """The first argument that all failed jobs have and no finished one."""
        return next((row for row in self.rows if row.is_shared), None)


def compare_arguments(
    failed: Iterable[str | None],
    finished: Iterable[str | None],
    display: Display,
    redacted: Collection[str],
) -> ArgumentComparison:
    """Compare the arguments, which are JSON texts. What the display policy hides or changes is left out.

    Otherwise the numbers would tell which jobs have the same hidden value.
    """

    @cache
    def hides(path: _Path) -> bool:
        return path[0] in redacted or any(map(display.hides, path))

    of_failed, failures = _count(failed, hides)
    of_finished, successes = _count(finished, hides)
    # The policy is asked about the texts of the few that may be shown, since it takes long.
    rows = [
        SharedArgument(*key, number, of_finished[key], failures, successes)
        for key, number in of_failed.items()
        if number * 2 >= failures and all(display.clean(text) == text for text in key)
    ]
    rows.sort(key=lambda row: (not row.is_shared, -row.difference, -row.failed, row.text))
    return ArgumentComparison(rows[:_MOST_ROWS], failures, successes)


def _count(
    texts: Iterable[str | None], hides: Callable[[_Path], bool]
) -> tuple[Counter[tuple[str, str]], int]:
    """How many have each argument, and how many there are."""
    found: Counter[tuple[str, str]] = Counter()
    number = 0
    for text in texts:
        number += 1
        if text is not None:
            found.update(_arguments(text, hides))
    return found, number


def _arguments(text: str, hides: Callable[[_Path], bool]) -> set[tuple[str, str]]:
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        return set()
    found: set[tuple[str, str]] = set()
    for path, value in _values(given, ()):
        if len(found) == _MOST_VALUES:
            break
        written = "" if hides(path) else json.dumps(value, ensure_ascii=False)
        if 0 < len(written) <= _LONGEST:
            found.add((".".join(path), written))
    return found


def _values(value: Any, path: _Path) -> Iterator[tuple[_Path, Any]]:
    """The plain values in nested objects, with their paths."""
    if isinstance(value, dict) and len(path) < _DEEPEST:
        for key, one in value.items():
            yield from _values(one, (*path, key))
    elif path and (value is None or isinstance(value, str | int | float | bool)):
        yield path, value
