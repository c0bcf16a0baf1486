"""Compares two runs step by step: state, duration and attempts. The runs may have different steps."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from flask import Response, request

from ...core.display import Display
from ...core.reading import Reading
from ...jobs.lifecycle import FINAL
from ...jobs.search import terms
from ...workflows import queries
from ...workflows.queries import RunRow, StepRow
from ..app import access, pages, problems
from ..app.host import heavy, host, reading
from .run import LARGE, state_of_map

_ROWS = 100
# A step that took so many times as long in one run, and at least so many seconds longer, is marked.
_TIMES, _SECONDS = 2, 1


@dataclass(frozen=True)
class Side:
    """A step in one of the runs. A map stands for its members, of which `counts` says how many have a state.

    `since` is when a step was released that has not ended; `seconds` are then those until now.
    """

    state: str
    since: datetime | None
    seconds: float | None
    attempts: int | None
    counts: Mapping[str, int]

    def is_much_slower(self, other: Side) -> bool:
        """Whether it took much longer than the step in the other run."""
        if self.seconds is None or other.seconds is None:
            return False
        return self.seconds >= max(_TIMES * other.seconds, other.seconds + _SECONDS)


@dataclass(frozen=True)
class ComparedStep:
    """A step by its name in both runs; None in a run that does not have it."""

    name: str
    one: Side | None
    other: Side | None

    @property
    def slower(self) -> Side | None:
        """The side that took much longer, or takes it so far."""
        if self.one is None or self.other is None:
            return None
        for mine, theirs in ((self.one, self.other), (self.other, self.one)):
            if mine.is_much_slower(theirs):
                return mine
        return None

    @property
    def differs(self) -> bool:
        """Whether it is in one run only, or differs by state, attempts or much by duration."""
        if self.one is None or self.other is None:
            return True
        same = (self.one.state, self.one.attempts) == (self.other.state, self.other.attempts)
        return not same or self.slower is not None

    @property
    def weight(self) -> float:
        """By how many seconds the durations differ."""
        return abs(_seconds(self.one) - _seconds(self.other))


def _seconds(side: Side | None) -> float:
    return 0.0 if side is None else side.seconds or 0.0


@dataclass(frozen=True)
class Comparison:
    """Two runs, and their steps in the order of the graph of `one`, then those of `other` alone."""

    one: RunRow
    other: RunRow
    steps: Sequence[ComparedStep]

    @cached_property
    def differing(self) -> Sequence[ComparedStep]:
        """The steps that differ."""
        return [step for step in self.steps if step.differs]

    @property
    def largest(self) -> Sequence[ComparedStep]:
        """The five steps that differ most by duration, in their order."""
        some = sorted(self.differing, key=lambda step: -step.weight)[:5]
        return [step for step in self.differing if step in some]

    @property
    def only(self) -> tuple[int, int]:
        """How many steps are in the first run only, and in the second."""
        return (
            sum(step.other is None for step in self.steps),
            sum(step.one is None for step in self.steps),
        )


def compare(
    read: Reading, one: RunRow, other: RunRow, steps: Sequence[StepRow] | None = None
) -> Comparison:
    """Both runs step by step. `steps` are those of the first run, when they have been read."""
    mine = _sides(queries.list_steps(read.session, one.id) if steps is None else steps, read.now)
    theirs = _sides(queries.list_steps(read.session, other.id), read.now)
    names = dict.fromkeys((*mine, *theirs))
    return Comparison(
        one, other, [ComparedStep(name, mine.get(name), theirs.get(name)) for name in names]
    )


def compare_with_last_good(
    read: Reading, run: RunRow, steps: Sequence[StepRow]
) -> Comparison | None:
    """The run beside the last one of its name that finished, without the steps of large runs.

    None when there is none.
    """
    good = _find_last_good(read, run)
    if good is None:
        return None
    is_large = max(run.steps, good.steps) > LARGE
    return Comparison(run, good, ()) if is_large else compare(read, run, good, steps)


def _sides(steps: Sequence[StepRow], now: datetime) -> Mapping[str, Side]:
    """The steps by name; the members of a map are part of it."""
    members: dict[int | None, list[StepRow]] = defaultdict(list)
    for step in steps:
        members[step.map_of].append(step)
    return {step.name: _side(step, members.get(step.id, ()), now) for step in members[None]}


def _side(step: StepRow, members: Sequence[StepRow], now: datetime) -> Side:
    begin, everyone = step.released_at or step.opened_at, (step, *members)
    is_open = begin is not None and any(each.state not in FINAL for each in everyone)
    end = (
        now if is_open else max((each.ended_at for each in everyone if each.ended_at), default=None)
    )
    seconds = (end - begin).total_seconds() if begin and end else None
    counts = Counter(member.state for member in members)
    attempts = None if members else step.attempt or None
    return Side(state_of_map(step, counts), begin if is_open else None, seconds, attempts, counts)


# --- the page


def comparison_page(workflow_id: str) -> Response:
    """The document that compares a run with the one that the address names, else with the last good one."""
    asked, show = request.args.get("with") or None, request.args.get("show") or None
    if show not in (None, "differs"):
        raise problems.unreadable(f"show: all steps, or only what differs, never {show[:40]!r}.")
    with reading() as read:
        one = _find(read, workflow_id)
        other = _find_last_good(read, one) if asked is None else _find(read, asked)
        access.require("workflows.view", None if other is None else f"workflow/{other.id}")
        is_large = max(one.steps, other.steps if other else 0) > LARGE
        with heavy(is_large):
            found = None if other is None else compare(read, one, other)
    shown = [] if found is None else found.differing if show else found.steps
    pages_of = max(1, -(-len(shown) // _ROWS))
    number = _page_number(pages_of)
    name = Display(host().display, may_see=True).clean(one.name)
    return pages.document(
        "workflow_compare/page.html",
        "workflows",
        f"{name} {one.id} compared",
        read.now,
        run=one,
        found=found,
        show=show,
        asked=asked,
        rows=shown[(number - 1) * _ROWS : number * _ROWS],
        number=number,
        pages=pages_of,
    )


def _find(read: Reading, workflow_id: str) -> RunRow:
    number = terms.read_own(workflow_id.strip().removeprefix("workflow/"))
    run = None if number is None else queries.list_runs(read.session, [number]).get(number)
    if run is None:
        raise problems.no_such_workflow(workflow_id)
    return run


def _find_last_good(read: Reading, run: RunRow) -> RunRow | None:
    """The last run of its name that finished, if the actor may see it."""
    good = queries.find_last_good(read.session, run)
    if good is None or not access.may("workflows.view", f"workflow/{good.id}"):
        return None
    return good


def _page_number(most: int) -> int:
    word = request.args.get("page") or "1"
    number = terms.read_own(word)
    if not number or number > most:
        raise problems.unreadable(f"page: {word[:40]!r} is not the number of a page.")
    return number
