"""Plays a random run in memory: workers, an operator and late advances, by the statements of the design.

It keeps what the database keeps (pending, settled, end events), so that it shares no idea with the oracle,
which computes the same ends from the graph alone.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.workflows.oracle import (
    CANCELED,
    DEPENDENCY,
    EXHAUSTED,
    RESULT_MISSING,
    RETURNED,
    SIGNALED,
    SKIPPED,
    TIMED_OUT,
    CancelRun,
    CancelStep,
    End,
    Ended,
    EndOfRun,
    Event,
    Expanded,
    Retry,
    RunSpec,
    Sent,
    Skip,
    StepSpec,
    member_names,
    random_run,
)


@dataclass
class Row:
    """A job and its step."""

    spec: StepSpec
    pending: int = 0
    state: str = "deferred"
    ended_by: str | None = None
    ended_at: int = 0
    settled: str | None = None
    is_released: bool = False
    is_asked: bool = False
    is_expanded: bool = False
    has_result: bool = False
    attempts: int = 0

    @property
    def end(self) -> End | None:
        """How it ended."""
        return None if self.ended_by is None else (self.state, self.ended_by)


@dataclass
class Played:
    """How a run ended: its steps and when they did, itself, and each of its ends."""

    steps: dict[str, End | None]
    times: dict[str, float]
    state: str
    ends: list[EndOfRun]


@dataclass
class Simulation:
    """One run. `log` is what the oracle is told."""

    spec: RunSpec
    dice: random.Random
    # How likely a turn is one of `advance`: 0.1 is late, 0.9 nearly at once.
    eagerness: float
    rows: dict[str, Row] = field(default_factory=dict)
    edges: dict[tuple[str, str], str] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    log: list[Event] = field(default_factory=list)
    signals: list[list[str]] = field(default_factory=list)
    ends: list[EndOfRun] = field(default_factory=list)
    state: str = "running"
    canceled_at: int = 0
    by_deadline: bool = False
    now: int = 0

    def __post_init__(self) -> None:
        may_fail = {step.name for step in self.spec.steps if step.may_fail}
        for step in self.spec.steps:
            self.rows[step.name] = Row(step, len(step.after))
            for name in step.after:
                on_failure = "continue" if name in may_fail else step.on_failure
                self.edges[name, step.name] = on_failure

    def play(self, decisions: int) -> None:
        """Let everybody act in random order, until the run is at rest and the operator has decided enough."""
        for _ in range(100_000):
            self.now += 1
            if self.dice.random() < self.eagerness:
                self.advance()
            elif decisions and self.dice.random() < 0.1:
                decisions -= 1
                self.dice.choice((self.decide_run, self.decide_step, self.decide_step))()
            elif not self.work() and not self.events and self.state not in ("running", "canceling"):
                if not decisions:
                    return
                decisions -= 1
                self.dice.choice((self.decide_run, self.decide_step))()
        raise AssertionError(f"the run never rests: {self.state}, {self.rows}")

    # --- workers and signals

    def work(self) -> bool:
        """Let one worker take a step forward, or one signal arrive; False when nobody can do anything."""
        ready = [name for name, row in self.rows.items() if row.state in ("available", "started")]
        waits = [
            name for name, row in self.rows.items() if row.spec.kind == "wait" and not row.ended_by
        ]
        if waits and (not ready or self.dice.random() < 0.2):
            self.send(self.dice.choice(waits))
            return True
        if not ready:
            return False
        name = self.dice.choice(ready)
        row = self.rows[name]
        if row.state == "available":
            row.state, row.attempts = "started", row.attempts + 1
        elif row.is_asked and self.dice.random() < 0.7:
            self.end_by_itself(name, CANCELED)
        elif row.spec.kind == "map" and not row.is_expanded:
            self.expand(name)
        else:
            fails = self.spec.fails_at(name, row.attempts)
            self.end_by_itself(name, EXHAUSTED if fails else RETURNED)
        return True

    def send(self, wait: str) -> None:
        """A signal for a wait, before or while it is open; or its time is over."""
        row = self.rows[wait]
        if row.is_released and self.dice.random() < 0.2:
            self.end_by_itself(wait, TIMED_OUT)
            return
        name = self.dice.choice(row.spec.signals)
        self.signals.append([name, row.spec.key])
        self.log.append(Sent(name, row.spec.key, outcome="early"))

    def end_by_itself(self, name: str, end: End) -> None:
        has_result = self.dice.random() < 0.95 or self.is_taken_anyway(name)
        self.end(name, end)
        self.rows[name].has_result = has_result
        self.log.append(Ended(name, end, has_result))

    def is_taken_anyway(self, name: str) -> bool:
        """Whether a step goes on without the result of this one when it fails.

        Then the moment of the release decides whether the result is null or missing, and the oracle does
        not know that.
        """
        anyway = [
            to for (source, to), edge in self.edges.items() if (source, edge) == (name, "continue")
        ]
        return any(name in self.rows[to].spec.takes for to in anyway)

    def expand(self, name: str) -> None:
        row = self.rows[name]
        if self.rows[row.spec.over or ""].state != "finished":
            self.end_by_itself(name, ("failed", "invalid_args"))
            return
        if self.state == "canceling":
            return
        row.is_expanded = True
        behind = [to for (source, to) in self.edges if source == name]
        members = member_names(name, row.spec.elements)
        for member in members:
            spec = StepSpec(member, "member", may_fail=row.spec.may_fail)
            self.rows[member] = Row(spec, state="available", is_released=True)
            for to in behind:
                self.edges[member, to] = self.edges[name, to]
                self.rows[to].pending += 1
        self.log.append(Expanded(name, len(members)))

    def end(self, name: str, end: End) -> None:
        row = self.rows[name]
        (row.state, row.ended_by), row.ended_at = end, self.now
        self.events.append(name)

    # --- advance

    def advance(self) -> None:
        """One turn of `advance`, under the lock of the run."""
        if self.state == "canceling":
            self.stop((name for name, row in self.rows.items() if row.ended_by is None))
        self.settle()
        if self.state == "running":
            self.release()
        if self.state in ("running", "canceling") and all(
            row.settled for row in self.rows.values()
        ):
            self.ends.append(self.end_of_run())
            self.state = self.ends[-1].state

    def settle(self) -> None:
        names, self.events = dict.fromkeys(self.events), []
        ended = [name for name in names if self.rows[name].ended_by]
        for name in ended:
            if self.rows[name].settled is None:
                self.rows[name].settled = self.rows[name].state
                self.lower_pending(name)
        self.cancel_behind([name for name in ended if self.rows[name].state != "finished"])

    def lower_pending(self, name: str) -> None:
        is_finished = self.rows[name].state == "finished"
        for (source, to), on_failure in self.edges.items():
            if source == name and (is_finished or on_failure == "continue"):
                self.rows[to].pending -= not self.rows[to].is_released

    def cancel_behind(self, unfinished: list[str]) -> None:
        found = list(unfinished)
        for name in found:
            behind = [to for to in self.behind(name) if self.rows[to].settled is None]
            found += [to for to in behind if to not in found]
        for name in found[len(unfinished) :]:
            if self.rows[name].state == "deferred":
                self.end(name, DEPENDENCY)

    def release(self) -> None:
        for name, row in self.rows.items():
            if row.state != "deferred" or row.pending:
                continue
            row.is_released = True
            if row.spec.kind == "wait":
                signal = next((s for s in self.signals if s[1] == row.spec.key), None)
                if signal:
                    self.signals.remove(signal)
                    self.end(name, SIGNALED)
                    row.has_result = True
            elif any(
                self.rows[other].state == "finished" and not self.rows[other].has_result
                for other in row.spec.takes
            ):
                self.end(name, RESULT_MISSING)
            else:
                row.state = "available"

    def stop(self, names: Iterable[str]) -> None:
        for name in names:
            if self.rows[name].state == "started":
                self.rows[name].is_asked = True
            else:
                self.end(name, CANCELED)

    def end_of_run(self) -> EndOfRun:
        is_canceling = self.state == "canceling"
        rows = self.rows.values()
        if is_canceling and any(r.end == CANCELED and r.ended_at >= self.canceled_at for r in rows):
            if self.by_deadline:
                return EndOfRun("failed", "deadline", None)
            return EndOfRun("canceled", "canceled", None)
        culprits = [
            row
            for row in rows
            if row.state != "finished" and not row.spec.may_fail and row.end != DEPENDENCY
        ]
        if not culprits:
            return EndOfRun("finished", "finished", None)
        first = min(culprits, key=lambda row: row.ended_at)
        return EndOfRun("failed", "step", first.spec.name)

    def behind(self, name: str) -> list[str]:
        return [
            to for (source, to), edge in self.edges.items() if source == name and edge == "cancel"
        ]

    # --- an operator

    def decide_run(self) -> None:
        """Cancel the run, or retry it when it has ended."""
        if self.state == "running":
            self.state, self.canceled_at = "canceling", self.now
            self.by_deadline = self.dice.random() < 0.2
            self.log.append(CancelRun(self.by_deadline))
        elif self.state != "canceling":
            self.retry([name for name, row in self.rows.items() if may_retry(row)])

    def decide_step(self) -> None:
        """Cancel, retry or skip any step for which this is legal."""
        if self.state == "canceling":
            return
        decide, may = self.dice.choice(
            ((self.cancel, may_cancel), (self.retry_one, may_retry), (self.skip, may_skip))
        )
        if names := [name for name, row in self.rows.items() if may(row)]:
            decide(self.dice.choice(names))

    def cancel(self, name: str) -> None:
        self.log.append(CancelStep(name, self.rows[name].state == "started"))
        self.stop([name])

    def retry_one(self, name: str) -> None:
        self.retry([name])

    def retry(self, names: list[str]) -> None:
        if names:
            self.log.append(Retry(tuple(names), *self.known()))
            self.reopen(names)

    def skip(self, name: str) -> None:
        self.log.append(Skip(name, *self.known()))
        self.reopen([name])
        self.end(name, SKIPPED)
        self.rows[name].has_result = True

    def known(self) -> tuple[bool, dict[str, End | None], dict[str, float]]:
        """What the oracle is told with a decision: if the run had ended, and how and when its steps had."""
        rows = self.rows.items()
        ends = {name: row.end for name, row in rows}
        return self.state != "running", ends, {name: row.ended_at for name, row in rows}

    def reopen(self, names: list[str]) -> None:
        """Reopen these steps, and those that were canceled only because of them."""
        reopened = list(names)
        for name in reopened:
            reopened += [
                to
                for to in self.behind(name)
                if self.rows[to].end == DEPENDENCY and to not in reopened
            ]
        held = ["?"]
        while held:
            held = [
                to
                for (source, to), edge in self.edges.items()
                if edge == "cancel"
                and to in reopened
                and to not in names
                and source not in reopened
                if self.rows[source].state in ("failed", "canceled")
            ]
            reopened = [name for name in reopened if name not in held]
        for name in reopened:
            row = self.rows[name]
            row.settled, row.ended_by, row.is_asked = None, None, False
            row.is_released &= row.spec.kind != "wait"
            row.state = "available" if row.is_released else "deferred"
        for name in [*reopened, *(to for source, to in self.edges if source in reopened)]:
            if not self.rows[name].is_released:
                self.rows[name].pending = self.count_pending(name)
        # What is still behind another failed step is canceled again.
        self.events += [
            source for source, to in self.edges if to in reopened and self.rows[source].settled
        ]
        self.state = "running"

    def count_pending(self, name: str) -> int:
        return sum(
            self.rows[source].settled is None
            or (self.rows[source].settled != "finished" and edge == "cancel")
            for (source, to), edge in self.edges.items()
            if to == name
        )


def may_cancel(row: Row) -> bool:
    """Whether an operator may cancel a step."""
    return row.ended_by is None and not row.is_asked


def may_retry(row: Row) -> bool:
    """Whether an operator may retry a step: not while it is behind another that did not finish."""
    return row.state in ("failed", "canceled") and row.end != DEPENDENCY


def may_skip(row: Row) -> bool:
    """Whether an operator may skip a step."""
    return row.state in ("deferred", "failed", "canceled")


def play(seed: int) -> tuple[RunSpec, list[Event], Played]:
    """A random run, what happened to it in order of commit, and how it is at rest."""
    spec = random_run(seed)
    dice = random.Random(f"play {seed}")
    simulation = Simulation(spec, dice, dice.choice((0.05, 0.3, 0.9)))
    simulation.play(decisions=dice.choice((0, 3, 10)))
    _, steps, times = simulation.known()
    return spec, simulation.log, Played(steps, times, simulation.state, simulation.ends)
