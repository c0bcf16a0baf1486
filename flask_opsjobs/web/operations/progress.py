"""Finds how far an operation is: its bar, its stages, its pace, and why no time left can be said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from ...core.reading import Reading
from ...core.round_trips import start_reading
from ...core.words import span
from ...lifeline.loop_runs import LoopRow, find_loop
from ...operations import queries, stages
from ...operations.queries import ListedOperation, RecentPace, StageRow

# How each result is called where it is counted.
WORDS = {
    "proven": "proven: finished",
    "done": "done",
    "failed_same_error": "failed, same error",
    "failed_other_error": "failed, other error",
    "unproven": "not proven",
    "asked": "asked of RQ, not answered",
    "skipped": "skipped",
    "pending": "left",
}
_BAR = 1000
# A pace is that of now when it did something within this time.
_LATELY = timedelta(minutes=1)
_INCIDENT = re.compile(r"see incident (\d+)$")


@dataclass(frozen=True)
class ProgressView:
    """An operation that was started. `loop` is the one that changes its jobs; None when it never ran.

    `recent` says how many of the last attempts failed as before, and how many were looked at.
    """

    operation: ListedOperation
    stages: Sequence[StageRow]
    pace: RecentPace | None
    recent: tuple[int, int]
    loop: LoopRow | None
    is_lately: bool

    @property
    def parts(self) -> Sequence[tuple[str, int, str]]:
        """The results that some row has, each with how many have it, and in words."""
        counts = self.operation.counts
        return [
            (result, counts[result], self.word(result))
            for result in WORDS
            if counts[result] or result in ("skipped", "pending")
        ]

    def word(self, result: str) -> str:
        """How rows with this result are called where they are counted."""
        if result != "done" or not self.operation.makes_due:
            return WORDS[result]
        return f"done, {self.operation.without_proof or 'wait for proof'}"

    @property
    def bar(self) -> Sequence[tuple[str, float, float]]:
        """Where each part of the bar begins, and how wide it is, of 1000; a small part can still be seen."""
        begin, found = 0.0, []
        for result, number, _ in self.parts:
            if result == "pending" or not number:
                continue
            width = max(2.0, _BAR * number / self.operation.targets)
            found.append((result, round(begin, 2), round(min(width, _BAR - begin), 2)))
            begin = min(_BAR, begin + width)
        return found

    @property
    def mark(self) -> float | None:
        """Where in the bar the present stage ends; None in the last one, and after the end."""
        operation = self.operation
        _, high = stages.bounds_of_stage(operation.stage, operation.begun_after, operation.targets)
        if not operation.is_open or high >= operation.targets:
            return None
        return round(_BAR * high / operation.targets, 2)

    @property
    def is_silent(self) -> bool:
        """Whether nobody would change its jobs, although it runs."""
        return self.operation.state == "running" and not (self.loop and self.loop.is_running)

    @property
    def incident(self) -> str | None:
        """The incident for which it is paused."""
        found = _INCIDENT.search(self.operation.says or "")
        return found and found[1]

    @property
    def pace_in_words(self) -> str:
        """How fast it is, or was before its pause."""
        if self.pace is None or not self.operation.is_open:
            return ""
        said = _say_pace(self.pace)
        if self.operation.state == "paused":
            return f"{said} before the pause."
        return f"{said} now." if self.is_lately else f"{said} when it changed jobs last."

    @property
    def time_left(self) -> str:
        """How long it still takes, or why that cannot be said."""
        operation = self.operation
        left = operation.counts["pending"]
        if not operation.is_open or not left:
            return ""
        if operation.state == "paused":
            return "No time left can be said while it is paused."
        if self.is_silent:
            return "No time left can be said while the loop does not run."
        if operation.makes_due and operation.stage <= len(stages.SIZES):
            return "No time left can be said before the last stage: each stage waits for its proof."
        if self.pace is None or not self.pace.rows or not self.is_lately:
            return "No time left can be said yet."
        return f"About {span(left * self.pace.seconds / self.pace.rows)} left at this pace."

    def in_stage(self, stage: StageRow) -> str:
        """What became of a stage: `9 proven, 1 skipped`."""
        words = {**WORDS, "proven": "proven"}
        if self.operation.waits_for_proof:
            words["done"] = "wait for proof"
        return ", ".join(
            f"{stage.counts[result]:,} {words[result]}"
            for result in words
            if stage.counts.get(result)
        )


def _say_pace(pace: RecentPace) -> str:
    a_minute = pace.rows / pace.seconds * 60
    if a_minute >= 600:
        return f"About {_round(a_minute / 60):,} a second"
    return f"About {_round(a_minute):,} a minute"


def _round(number: float) -> int:
    """To two digits, so that the text seldom changes."""
    return int(float(f"{number:.2g}"))


def look_at_progress(read: Reading, operation: ListedOperation) -> ProgressView:
    """Read how far an operation is."""
    session, handled_at = read.session, operation.handled_at
    staging = start_reading(session, queries.list_stages, operation)
    pacing = (
        start_reading(session, queries.find_recent_pace, operation) if operation.is_open else None
    )
    failing = (
        start_reading(session, queries.find_recent_failures, operation)
        if operation.makes_due
        else None
    )
    loop = find_loop(session, read.now, "operate")
    return ProgressView(
        operation,
        staging.value,
        pacing.value if pacing else None,
        failing.value if failing else (0, 0),
        loop,
        handled_at is not None and read.now - handled_at <= _LATELY,
    )


def say_stop_rule(operation: ListedOperation, recent: tuple[int, int]) -> str:
    """When the same failure stops it in its present stage."""
    rules = {
        1: "It stops by itself when its first job fails with the same error.",
        2: "It stops by itself when two jobs of this stage fail with the same error.",
    }
    share = "It stops by itself when a tenth of the last 200 attempts fail with the same error."
    same, number = recent
    now = f" Now: {same:,} of {number:,}." if number and operation.stage not in rules else ""
    return rules.get(operation.stage, share) + now
