"""Finds sources that do not answer: a Redis, or a silent loop.

Every page, and the headline, shows these first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..core.redis_facts import SilentRedis
from ..core.words import agree, counted
from ..jobs.rows import Count
from ..lifeline.queries import LoopRow

# What does not happen while a loop is silent. No other loop or process does its work.
_STANDS_STILL = {
    "dispatch": "due jobs are dispatched only after a commit or by a busy worker",
    "stage": "scheduled and retryable jobs do not become due",
    "cron": "no cron slot runs",
    "expire": "deadlines are not enforced for waiting jobs",
    "watch": "jobs of missing workers are not rescued",
    "recall": "jobs that Redis lost are not dispatched again",
    "observe": "plain RQ workers are not seen",
    "retain": "old jobs are not removed",
    "roll_up": "the charts get no new numbers",
    "check_integrity": "no integrity check is made",
}
_LOST = "None is lost: Postgres keeps them"


@dataclass(frozen=True)
class PageLink:
    """A link to a page: an endpoint with its values.

    `text` is shown without a link to readers who may not go there.
    """

    text: str
    endpoint: str
    values: Mapping[str, str | int]


@dataclass(frozen=True)
class Wrong:
    """One problem: a status word, the fact, what it means or what to do, its start, and a page to open.

    `quote` is what a person wrote about it, and must pass the display policy. `since` is None when it is not
    known.
    """

    level: str
    fact: str
    rest: str = ""
    since: datetime | None = None
    go: PageLink | None = None
    quote: str | None = None


def find_silent_sources(
    silent: Sequence[SilentRedis], loops: Sequence[LoopRow] | None, due: Mapping[str, Count] | None
) -> list[Wrong]:
    """Every source that does not answer, the worst first.

    `loops` and `due` are None when Postgres was not read.
    """
    found = [_redis(one, due, len(silent) > 1) for one in silent]
    return [*found, *_loops(loops, due)]


def _redis(one: SilentRedis, due: Mapping[str, Count] | None, is_one_of_many: bool) -> Wrong:
    names = ", ".join(f"`{name}`" for name in one.queues[:2])
    more = f" and {len(one.queues) - 2} more" if len(one.queues) > 2 else ""
    whose = f" of the queues {names}{more}" if is_one_of_many else ""
    last = (
        f" This process heard from it last at {one.answered_at:%H:%M:%S} UTC."
        if one.answered_at
        else ""
    )
    waits = "It is not known how many jobs wait for it."
    if due is not None:
        there = (
            [due[name] for name in one.queues if name in due] if is_one_of_many else due.values()
        )
        waits = _waits(Count.sum(there))
    rest = f"No job starts there until it answers. {waits}{last} Check that it runs and can be reached."
    go = PageLink("See what waits", "jobs", {"state": "available"})
    return Wrong("critical", f"Redis{whose} does not answer.", rest, one.since, go)


def _waits(count: Count) -> str:
    if not count.number:
        return "No due job waits for it."
    more = " or more" if count.kind != "exact" else ""
    waits = "wait" if more else agree(count.number, "waits", "wait")
    return f"{counted(count.number, 'due job', more=more)} {waits}. {_LOST}."


def _loops(loops: Sequence[LoopRow] | None, due: Mapping[str, Count] | None) -> Iterator[Wrong]:
    if loops is None:
        return
    silent = [loop for loop in loops if not loop.is_awake]
    start = "Start `flask opsjobs run`."
    go = PageLink("See the queues", "queues", {})
    if len(silent) == len(loops):
        fact = "No background loop is awake." if loops else "No background loop has ever run."
        waits = Count.sum(due.values()) if due else Count(0)
        many = f" {_waits(waits)}" if waits.number else ""
        means = "Scheduled and retryable jobs do not become due, and jobs of dead workers are not rescued."
        rest = f"{means}{many} {start}"
        since = max((loop.last_at for loop in silent), default=None)
        yield Wrong("critical", fact, rest, since, go)
    elif silent:
        names = [loop.loop for loop in silent]
        effects = [_STANDS_STILL[name] for name in names if name in _STANDS_STILL][:2]
        means = "; ".join(effects)
        fact = (
            f"The loop {names[0]} is silent."
            if len(names) == 1
            else f"{len(names)} loops are silent: {', '.join(names)}."
        )
        rest = f"{means[:1].upper()}{means[1:]}. " if means else ""
        rest += "Another loop is awake: the log of its process says why."
        yield Wrong("critical", fact, rest, min(loop.last_at for loop in silent), go)
