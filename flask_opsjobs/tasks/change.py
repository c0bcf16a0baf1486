"""Judges how the numbers of a task changed: what got worse, by how much, in a sentence. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from ..core.words import counted, short_duration
from .queries import TaskNumbers

# Fewer jobs say nothing about a share or a percentile.
_FEWEST = 20
_FEWEST_FAILED = 3
# Run times and waits are known to within a factor of two.
_TWICE = 2.0
# A wait below this is none.
_SHORT_WAIT = 1.0
_MUCH_MEMORY = 1.5


@dataclass(frozen=True)
class TaskChange:
    """What changed in a task. `status` and `shape` are those of pages; a larger `rank` is worse."""

    status: str
    shape: str
    says: str
    rank: float

    @property
    def is_worse(self) -> bool:
        """Whether somebody should look at it."""
        return self.rank > 0


def find_change(
    now: TaskNumbers, before: TaskNumbers | None, recent: TaskNumbers | None, then: str
) -> TaskChange:
    """The worst change of a task against the same hours before; `before` is None when there were none.

    `says` names the others for the worse too.
    `recent` are its numbers of the last two hours, `then` says which hours are compared: "yesterday".
    """
    says = f"as {then}" if before else f"no jobs {then} to compare with"
    same = TaskChange("waiting", "seen", says, 0.0)
    changes = sorted(_changes(now, before, recent, then), key=lambda change: -change.rank)
    if not changes:
        return same
    worse = [change.says for change in changes if change.is_worse]
    return replace(changes[0], says="; ".join(worse or [changes[0].says]))


def _changes(
    now: TaskNumbers, before: TaskNumbers | None, recent: TaskNumbers | None, then: str
) -> Iterator[TaskChange]:
    yield from _of_failures(now, before, recent, then)
    if before is None:
        return
    if min(sum(now.runs), sum(before.runs)) >= _FEWEST:
        yield from _of_time("p95", now.p95, before.p95, 0.0)
        yield from _of_time("wait", now.wait, before.wait, _SHORT_WAIT)
    if now.peak_kb and before.peak_kb and now.peak_kb >= _MUCH_MEMORY * before.peak_kb:
        says = f"memory: {say_kb(before.peak_kb)} before, {say_kb(now.peak_kb)} now"
        yield TaskChange("late", "late", says, 200 + 10 * now.peak_kb / before.peak_kb)
    if before.ended >= _FEWEST and not now.ended:
        says = f"no job ended: {counted(before.ended, 'job')} {then}"
        yield TaskChange("late", "late", says, 150)


def _of_failures(
    now: TaskNumbers, before: TaskNumbers | None, recent: TaskNumbers | None, then: str
) -> Iterator[TaskChange]:
    latest = recent.failed_share if recent else None
    if before is None:
        if recent and latest and latest >= 0.1 and recent.failed >= _FEWEST_FAILED:
            says = f"fails: {say_share(latest)} in the last two hours, none ran {then}"
            yield TaskChange("failed", "review", says, 1000 + 1000 * latest)
        return
    share = before.failed_share or 0.0
    if recent and latest and latest - share >= 0.1 and recent.failed >= _FEWEST_FAILED:
        says = f"fails: {say_share(latest)} in the last two hours, {say_share(share)} {then}"
        yield TaskChange("failed", "review", says, 1000 + 1000 * (latest - share))
        return
    if now.failed_share is None:
        return
    grown = now.failed_share - share
    if grown >= 0.02 and now.failed >= _FEWEST_FAILED:
        says = f"more failed: {say_share(now.failed_share)} now, {say_share(share)} {then}"
        yield TaskChange("late", "late", says, 400 + 1000 * grown)
    elif grown <= -0.02 and before.failed >= _FEWEST_FAILED:
        says = f"less failed: {say_share(now.failed_share)} now, {say_share(share)} {then}"
        yield TaskChange("healthy", "seen", says, -1 - abs(grown))


def _of_time(
    what: str, now: float | None, before: float | None, shortest: float
) -> Iterator[TaskChange]:
    if not now or not before or max(now, before) <= shortest:
        return
    if now >= _TWICE * before:
        says = f"{what} rose: {short_duration(before)} before, {short_duration(now)} now"
        yield TaskChange("late", "late", says, 200 + 10 * now / before)
    elif before >= _TWICE * now:
        says = f"{what} fell: {short_duration(before)} before, {short_duration(now)} now"
        yield TaskChange("healthy", "seen", says, -now / before)


def say_share(share: float) -> str:
    """A part as a percentage: `0 %`, `1.4 %`, `92 %`."""
    percent = share * 100
    return f"{percent:.0f} %" if percent >= 10 or percent == int(percent) else f"{percent:.1f} %"


def say_kb(kb: int) -> str:
    """An amount of memory: `88 MB`, `1.9 GB`."""
    return f"{kb / 1024:.0f} MB" if kb < 1024 * 1024 else f"{kb / 1024 / 1024:.1f} GB"
