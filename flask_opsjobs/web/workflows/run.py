"""Holds one run as its page shows it: its steps in pages, the chosen step, and what holds the run up."""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary

from flask import request, url_for
from sqlalchemy import Engine

from ...actions.registry import ACTIONS
from ...core.reading import Reading
from ...core.round_trips import StartedRead, start_reading
from ...jobs.lifecycle import STATES
from ...jobs.search import terms
from ...workflows import queries
from ...workflows.graph import Drawing, GraphEdge, GraphStep, lay_out
from ...workflows.held_up import Doing, doing_of, in_order_of_need, state_of_map
from ...workflows.queries import (
    OVERDUE,
    RunInFull,
    SignalRow,
    StepInFull,
    StepRow,
)
from ..app import access, problems
from ..app.display import PageDisplay
from ..app.host import host
from .timeline_svg import most_telling

# Actions on a step that ask for a value, so that they have forms.
STEP_ACTIONS = tuple(ACTIONS[f"workflow.{name}"] for name in ("give_signal", "signal", "skip"))
_ROWS = 100
_NEIGHBOURS = 8
# A run with more steps than this is read anew only after some seconds, since its graph takes long to lay out.
LARGE, _KEPT = 1_000, timedelta(seconds=5)
_HUGE, _LONG_KEPT = 5_000, timedelta(seconds=30)
_MOST_KEPT = 2


@dataclass(frozen=True)
class StepsRequest:
    """What the address asks for: the id of a step, a state of steps, and a page of their table."""

    step: int | None
    show: str | None
    page: int

    @property
    def query(self) -> Mapping[str, str]:
        """The fewest parameters that mean the same."""
        page = self.page if self.page > 1 else None
        pairs = {"step": self.step, "show": self.show, "page": page}
        return {key: str(value) for key, value in pairs.items() if value is not None}

    def but(self, **changes: int | str | None) -> Mapping[str, str]:
        """The parameters with some of them changed; None removes one."""
        changed = {**self.query, **changes}
        return {key: str(value) for key, value in changed.items() if value is not None}


@dataclass(frozen=True)
class Steps:
    """The steps of a run in an order of its graph, and its edges: from, to, and what a failure does.

    They were read at `at`.
    """

    rows: Sequence[StepRow]
    edges: Sequence[tuple[int, int, str]]
    at: datetime

    @cached_property
    def drawing(self) -> Drawing:
        """Their graph, laid out."""
        steps = (
            GraphStep(step.id, step.name, step.state, step.kind, step.map_of, step.seconds(self.at))
            for step in self.rows
        )
        return lay_out(steps, (GraphEdge(*edge) for edge in self.edges))

    @cached_property
    def by_id(self) -> Mapping[int, StepRow]:
        """The steps by the ids of their jobs."""
        return {step.id: step for step in self.rows}

    @cached_property
    def before(self) -> Mapping[int, Sequence[tuple[int, str]]]:
        """By step, those that it waits for, with what their failure does."""
        found: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for source, target, on_failure in self.edges:
            found[target].append((source, on_failure))
        return found

    @cached_property
    def after(self) -> Mapping[int, Sequence[tuple[int, str]]]:
        """By step, those that wait for it."""
        found: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for source, target, on_failure in self.edges:
            found[source].append((target, on_failure))
        return found

    @cached_property
    def counts(self) -> Mapping[str, int]:
        """How many steps are in each state."""
        found = Counter(step.state for step in self.rows)
        return {state: found[state] for state in STATES if found[state]}

    @cached_property
    def members(self) -> Mapping[int, Mapping[str, int]]:
        """By map, how many of the steps that it added are in each state."""
        found: dict[int, Counter[str]] = defaultdict(Counter)
        for step in self.rows:
            if step.map_of is not None:
                found[step.map_of][step.state] += 1
        return found

    def state_of(self, step: StepRow) -> str:
        """The state of a step; of a map, the state of its members that needs the most attention."""
        counts = self.members.get(step.id)
        return state_of_map(step.state, counts) if counts else step.state

    @cached_property
    def failed(self) -> Sequence[StepRow]:
        """The steps that failed although they must finish."""
        return [step for step in self.rows if step.state == "failed" and not step.may_fail]

    @cached_property
    def by_name(self) -> Mapping[str, StepRow]:
        """The steps by their names."""
        return {step.name: step for step in self.rows}

    @cached_property
    def holding(self) -> Sequence[StepRow]:
        """The released steps that have not ended, the one that most likely holds the run up first."""
        return in_order_of_need(step for step in self.rows if step.holds_up)

    @property
    def waits(self) -> Sequence[StepRow]:
        """The open waits, the one that is open longest first."""
        return [step for step in self.holding if step.is_open_wait]

    @cached_property
    def own(self) -> Sequence[StepRow]:
        """The steps with a row of their own in a timeline: the members of a map share its row."""
        return [step for step in self.rows if step.map_of not in self.by_id]

    @cached_property
    def in_timeline(self) -> Sequence[StepRow]:
        """The steps of the run that its timeline shows: at most 200, those that tell most."""
        return most_telling(self.own, self.state_of)


@dataclass(frozen=True)
class RunView:
    """One run with its steps, as of `now`. `step` is the chosen step."""

    run: RunInFull
    steps: Steps
    asked: StepsRequest
    step: StepRow | None
    detailing: StartedRead[StepInFull | None] | None
    telling: StartedRead[Sequence[SignalRow]]
    now: datetime

    @property
    def detail(self) -> StepInFull | None:
        """More about the chosen step."""
        return self.detailing.value if self.detailing else None

    @property
    def signals(self) -> Sequence[SignalRow]:
        """The signals for the first open waits, and for the chosen step if it is a wait."""
        return self.telling.value

    @cached_property
    def shown(self) -> Sequence[StepRow]:
        """The steps of the chosen state."""
        if self.asked.show is None:
            return self.steps.rows
        return [step for step in self.steps.rows if step.state == self.asked.show]

    @property
    def rows(self) -> Sequence[StepRow]:
        """The steps on this page of the table."""
        begin = (self.asked.page - 1) * _ROWS
        return self.shown[begin : begin + _ROWS]

    @property
    def pages(self) -> int:
        """How many pages the table has; at least 1."""
        return max(1, -(-len(self.shown) // _ROWS))

    @property
    def waits(self) -> Sequence[StepRow]:
        """The open waits, the one that is open longest first."""
        return self.steps.waits

    @property
    def overdue(self) -> Sequence[StepRow]:
        """The waits that have been open for more than a day."""
        since = self.now - OVERDUE
        return [wait for wait in self.waits if wait.opened_at and wait.opened_at < since]

    @property
    def ambiguous(self) -> Sequence[SignalRow]:
        """The signals that several waits could take."""
        return [signal for signal in self.signals if signal.outcome == "ambiguous"]

    def left_for(self, step: StepRow) -> Sequence[SignalRow]:
        """The signals that came for this step, and that it takes only from an operator; none if not open."""
        return [
            signal
            for signal in self.signals
            if signal.outcome in ("ambiguous", "late")
            and step.is_open_wait
            and signal.is_for(step, self.run.row.id)
        ]

    def named(self, name: str | None) -> StepRow | None:
        """The step of this name, or None."""
        return None if name is None else self.steps.by_name.get(name)

    def waits_for(self, step: StepRow) -> Sequence[tuple[StepRow, str]]:
        """The first steps that it waits for, with what their failure does."""
        return self._known(self.steps.before.get(step.id, ()))

    def released_by(self, step: StepRow) -> Sequence[tuple[StepRow, str]]:
        """The first steps that wait for it, with what its failure does."""
        return self._known(self.steps.after.get(step.id, ()))

    def _known(self, edges: Iterable[tuple[int, str]]) -> Sequence[tuple[StepRow, str]]:
        steps = self.steps.by_id
        return [(steps[id], on_failure) for id, on_failure in sorted(edges) if id in steps]

    def doing(self, step: StepRow) -> Doing:
        """What a released step does."""
        return doing_of(step, self.now)

    def waiting(self, step: StepRow) -> str | None:
        """The name of the first step that waits for it."""
        return next((other.name for other, _ in self.released_by(step)), None)

    def step_url(self, step: StepRow) -> str:
        """The address of this page with another step chosen, at the panel that shows it."""
        return f"{self._url_of_steps}step={step.id}#step"

    @cached_property
    def _url_of_steps(self) -> str:
        """What the addresses of its steps begin with, made once because a page has hundreds of them."""
        values: dict[str, Any] = {"workflow_id": self.run.row.id, **self.asked.but(step=None)}
        address = url_for("opsjobs.workflow", **values)
        return f"{address}{'&' if '?' in address else '?'}"

    def job_url(self, step: StepRow) -> str:
        """The address of the page of its job."""
        return f"{self._url_of_jobs}{step.id}"

    @cached_property
    def _url_of_jobs(self) -> str:
        return url_for("opsjobs.job", job_id=0).removesuffix("0")

    def display_of_step(self) -> PageDisplay:
        """The display policy for the error and the result of the chosen step.

        They are payload of the run and of the step's job.
        """
        targets = [f"workflow/{self.run.row.id}"]
        targets += [f"job/{self.step.id}"] if self.step else []
        return PageDisplay(host().display, may_see=access.may_see_payload(*targets))


def read_run(read: Reading, run_id: int) -> RunView | None:
    """The run with its steps; None when there is no such run.

    Raises `Problem` when the address asks for a step that it does not have.
    """
    stepping = start_reading(read, _read_steps, run_id)
    run = queries.find_run(read.session, run_id)
    if run is None:
        return None
    steps = stepping.value
    asked = _read_request(steps)
    step = steps.by_id[asked.step] if asked.step is not None else _most_telling(run, steps)
    detailing = start_reading(read.session, queries.find_step, step.id) if step else None
    waits = [each for each in (*steps.waits[:_NEIGHBOURS], step) if each and each.kind == "wait"]
    telling = start_reading(read.session, queries.list_signals_for, waits)
    return RunView(run, steps, asked, step, detailing, telling, read.now)


def _most_telling(run: RunInFull, steps: Steps) -> StepRow | None:
    """The step that ended the run, else one that failed, the one that holds it up, or the first."""
    culprit = steps.by_name.get(run.row.ended_by_step or "")
    first = steps.rows[:1]
    return next((step for step in (culprit, *steps.failed, *steps.holding, *first) if step), None)


def _read_request(steps: Steps) -> StepsRequest:
    step, show = request.args.get("step") or None, request.args.get("show") or None
    number = None if step is None else terms.read_own(step)
    if step is not None and number not in steps.by_id:
        raise problems.unreadable(f"step: this workflow has no step with the id {step[:40]!r}.")
    if show is not None and show not in STATES:
        raise problems.unreadable(f"show: a step is {', '.join(STATES)}, never {show[:40]!r}.")
    word = request.args.get("page") or "1"
    page = terms.read_own(word)
    if not page:
        raise problems.unreadable(f"page: {word[:40]!r} is not the number of a page.")
    return StepsRequest(number, show, page)


# --- reading the steps

# One cache per engine, because one process may serve several apps.
_cache: WeakKeyDictionary[Engine, OrderedDict[int, tuple[datetime, Steps]]] = WeakKeyDictionary()


def _read_steps(read: Reading, id: int) -> Steps:
    """The steps of a run; of a large one at most five seconds old, of a huge one half a minute."""
    kept = _cache.setdefault(host().engine, OrderedDict())
    # The time of this process, because the page would have to wait for that of Postgres.
    now = datetime.now(UTC)
    at, steps = kept.get(id, (now, None))
    limit = _LONG_KEPT if steps and len(steps.rows) > _HUGE else _KEPT
    if steps is None or not timedelta() <= now - at < limit:
        steps = _read_steps_now(read, id)
        if len(steps.rows) > LARGE:
            kept[id] = now, steps
        while len(kept) > _MOST_KEPT:
            kept.popitem(last=False)
    return steps


def _read_steps_now(read: Reading, id: int) -> Steps:
    edges = start_reading(read.session, queries.list_edges, id)
    steps = queries.list_steps(read.session, id)
    return Steps(steps, edges.value, read.now)
