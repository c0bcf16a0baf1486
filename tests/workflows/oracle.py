"""Says how a run must end, without a database: random runs, and a model that replays what happened to one.

The model is told what nothing can compute: how jobs of steps ended, what maps added, which decisions and
signals committed, all in the order in which they committed. It computes the rest by the rules of composition:
which steps wait, are canceled or end by a signal, how often and how the run ends, and so its callbacks.

`advance` passes ends on later than they commit. The model passes them on at once, which makes no difference
once a run is at rest, with these exceptions:
- A decision may come before an end was passed on, so that the run had not ended yet. It says so itself:
  `run_had_ended`.
- `CancelRun` may end a step that was about to be canceled behind another, or to be ended by a signal. Both
  are right then. What was observed decides: in `seen` of the next decision, or in `finish`.
- Which step failed first is decided by the times that their jobs show, not by the order of commits: a process
  reads the clock before it commits. They are told as `times`; without them the order of the events decides.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from math import inf
from typing import Literal

# How a job ended: its state, and `ended_by`.
End = tuple[str, str]

CANCELED: End = ("canceled", "canceled")
DEPENDENCY: End = ("canceled", "dependency")
SIGNALED: End = ("finished", "signaled")
SKIPPED: End = ("finished", "skipped")
RESULT_MISSING: End = ("failed", "result_missing")
RETURNED: End = ("finished", "returned")
EXHAUSTED: End = ("failed", "exhausted")
TIMED_OUT: End = ("failed", "deadline")
# `advance` writes these.
BY_ADVANCE = (DEPENDENCY, SIGNALED, RESULT_MISSING)


class Contradiction(AssertionError):
    """What happened cannot have happened by the rules."""


# --- a run


@dataclass(frozen=True)
class StepSpec:
    """One step of a definition. `after` names the steps before it, and `over` the one whose list a map takes.

    `takes` are those of `after` whose results it takes. A wait has `signals` and a `key`.
    """

    name: str
    kind: str = "job"
    after: tuple[str, ...] = ()
    on_failure: str = "cancel"
    may_fail: bool = False
    takes: tuple[str, ...] = ()
    over: str | None = None
    elements: int = 0
    signals: tuple[str, ...] = ()
    key: str = ""


@dataclass(frozen=True)
class RunSpec:
    """A definition: its steps in topological order. `fails` are the steps that fail at first."""

    seed: int
    steps: tuple[StepSpec, ...]
    fails: frozenset[str] = frozenset()
    has_callback: bool = True

    def fails_at(self, name: str, attempt: int) -> bool:
        """Whether a step, or a member `map[2]` of a map, fails in its attempt of this number, from 1 on."""
        return name in self.fails and attempt == 1


def random_run(seed: int, percent_failing: int | None = None) -> RunSpec:
    """A run of 5 to 60 steps; of these, 0, 5 or 30 % fail at first."""
    dice = random.Random(seed)
    percent = dice.choice((0, 5, 30)) if percent_failing is None else percent_failing
    steps: list[StepSpec] = []
    # As many have 5 to 17 steps as have 18 to 60.
    for number in range(min(60, int(5 * 13 ** dice.random()))):
        steps.append(_random_step(number, steps, dice))
    names = [step.name for step in steps if step.kind != "wait"]
    names += [member for step in steps for member in member_names(step.name, step.elements)]
    fails = frozenset(name for name in names if dice.random() * 100 < percent)
    return RunSpec(seed, tuple(steps), fails)


def _random_step(number: int, earlier: list[StepSpec], dice: random.Random) -> StepSpec:
    near = [step for step in earlier[-8:] if dice.random() < 0.8] or earlier[-1:]
    after = dice.sample(near, min(len(near), dice.choice((0, 1, 1, 1, 2, 2, 3))))
    jobs = [step.name for step in after if step.kind == "job"]
    kind = dice.choices(("job", "map", "wait"), (80, 10 if jobs else 0, 10))[0]
    name = f"{kind}_{number}"
    over = jobs[0] if kind == "map" else None
    signals = (f"signal_{number}", f"other_{number}")[: dice.randint(1, 2)]
    return StepSpec(
        name,
        kind,
        tuple(step.name for step in after),
        # A map without its list would fail.
        "continue" if kind != "map" and dice.random() < 0.2 else "cancel",
        dice.random() < 0.15,
        takes=tuple(jobs[:1]) if kind == "job" and dice.random() < 0.5 else (),
        over=over,
        elements=dice.choice((0, 1, 2, 5)) if kind == "map" else 0,
        signals=signals if kind == "wait" else (),
        key=name if kind == "wait" else "",
    )


def member_names(step: str, elements: int) -> list[str]:
    """The names of the steps that a map adds: `resize[0]`, `resize[1]`."""
    return [f"{step}[{element}]" for element in range(elements)]


# --- what happened


@dataclass(frozen=True)
class Ended:
    """A job of a step ended by itself: its attempts, its deadline, or a request to stop it while it ran.

    `has_result`: another step can take its result.
    """

    step: str
    end: End
    has_result: bool = True


@dataclass(frozen=True)
class Expanded:
    """A map added so many members."""

    step: str
    elements: int


@dataclass(frozen=True)
class Sent:
    """A signal. `wait` is the one that an operator names. `outcome` is asked only for whether it was `late`.

    Without `outcome` it is late when a wait for it had ended and none was left.
    """

    name: str
    key: str
    wait: str | None = None
    outcome: Literal["early", "taken", "late", "ambiguous"] | None = None


@dataclass(frozen=True)
class CancelRun:
    """Somebody canceled the run, or its deadline passed."""

    by_deadline: bool = False


@dataclass(frozen=True)
class CancelStep:
    """An operator canceled a step that had not ended: at once, or by asking its worker to stop it."""

    step: str
    was_started: bool = False


@dataclass(frozen=True)
class Retry:
    """An operator retried steps, or the run: all steps that did not finish and are not behind another.

    `run_had_ended` of None: it had, when all its steps had. `seen` are the ends that the steps had before,
    and `times` when they ended.
    """

    steps: tuple[str, ...] = ()
    run_had_ended: bool | None = None
    seen: Mapping[str, End | None] = field(default_factory=dict)
    times: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Skip:
    """An operator ended a step as finished, with a result. The rest as of `Retry`."""

    step: str
    run_had_ended: bool | None = None
    seen: Mapping[str, End | None] = field(default_factory=dict)
    times: Mapping[str, float] = field(default_factory=dict)


Event = Ended | Expanded | Sent | CancelRun | CancelStep | Retry | Skip


# --- what must be


@dataclass(frozen=True)
class EndOfRun:
    """One end of a run: its state, `ended_by` and `ended_by_step`."""

    state: str
    ended_by: str
    ended_by_step: str | None


@dataclass(frozen=True)
class Expected:
    """What must be true of a run at rest.

    `steps` has the end of each step, None of one that has not ended. `ends` are the ends of the run in order.
    `state` is that of the run now; of a run that has not ended it is `running` or `canceling`.
    """

    steps: Mapping[str, End | None]
    state: str
    ends: tuple[EndOfRun, ...]
    callbacks: int
    signals: tuple[str, ...] = ()

    @property
    def end(self) -> EndOfRun | None:
        """The end of the run; None while it has not ended."""
        return None if self.state in ("running", "canceling") else self.ends[-1]


# --- the model


@dataclass
class _Signal:
    event: Sent
    outcome: str = "early"


@dataclass
class _Step:
    spec: StepSpec
    position: int
    # The steps before it, with what happens when they do not finish.
    before: dict[str, str]
    end: End | None = None
    # How it may have ended instead, and the number of the event that ended it so.
    other_end: End | None = None
    other_at: int = 0
    # The number of the event that ended it.
    at: int = 0
    # Whether it once waited for nothing, so that a worker may have started it.
    is_released: bool = False
    released_at: int = 0
    is_settled: bool = False
    has_result: bool = True
    # The number of the event that asked to stop it.
    asked: int | None = None
    took: _Signal | None = None

    @property
    def is_unfinished(self) -> bool:
        return self.end is not None and self.end[0] != "finished"

    @property
    def is_behind(self) -> bool:
        return self.end == DEPENDENCY


@dataclass
class Model:
    """Replays a run. `tell` takes what happened, in order of commit; `finish` says what must be at rest."""

    spec: RunSpec
    _steps: dict[str, _Step] = field(default_factory=dict)
    _signals: list[_Signal] = field(default_factory=list)
    _canceled: tuple[int, bool] | None = None
    _ends: list[EndOfRun] = field(default_factory=list)
    _now: int = 0

    def __post_init__(self) -> None:
        may_fail = {step.name: step.may_fail for step in self.spec.steps}
        for position, step in enumerate(self.spec.steps):
            if unknown := [name for name in step.after if name not in self._steps]:
                raise ValueError(f"{step.name} is behind {unknown}, which come later or not at all")
            before = {
                name: "continue" if may_fail[name] else step.on_failure for name in step.after
            }
            self._steps[step.name] = _Step(step, position, before)
        self._advance()

    def tell(self, *events: Event) -> Model:
        """Take what happened next. Raises `Contradiction` for what the rules do not allow."""
        for event in events:
            self._now += 1
            match event:
                case Ended():
                    self._end_by_itself(event)
                case Expanded():
                    self._expand(event)
                case Sent():
                    self._send(event)
                case CancelRun():
                    self._cancel_run(event)
                case CancelStep():
                    self._cancel_step(event)
                case Retry():
                    self._retry(event)
                case Skip():
                    self._skip(event)
            self._advance()
        return self

    def finish(
        self,
        observed: Mapping[str, End | None] | None = None,
        times: Mapping[str, float] | None = None,
    ) -> Expected:
        """What must be true when nothing is left to do. `observed` decides where two ends are right.

        It may be asked at any time, and changes nothing: one may tell more afterwards.
        """
        return deepcopy(self)._finish(observed or {}, times or {})

    def _finish(self, observed: Mapping[str, End | None], times: Mapping[str, float]) -> Expected:
        self._now += 1
        self._stop_asked()
        self._choose(observed)
        has_ended = self._has_ended()
        if has_ended:
            self._ends.append(self._end_of_run(times))
        running = "canceling" if self._canceled else "running"
        state = self._ends[-1].state if has_ended else running
        return Expected(
            {name: step.end for name, step in self._steps.items()},
            state,
            tuple(self._ends),
            len(self._ends) if self.spec.has_callback else 0,
            tuple(signal.outcome for signal in self._signals),
        )

    # --- what happened

    def _end_by_itself(self, event: Ended) -> None:
        step = self._find(event.step)
        if not step.is_released:
            waits = [n for n in step.before if self._steps[n].end is None] or list(step.before)
            raise Contradiction(f"{event.step} ended {event.end}, but was behind {waits}")
        if step.end is not None and not (step.end == SIGNALED and self._take_back(step)):
            raise Contradiction(f"{event.step} ended {event.end}, but had ended {step.end}")
        for other in (self._steps[name] for name in step.before):
            # It was released, so the ends that let it go had been passed on.
            other.is_settled |= other.end is not None and other.at <= step.released_at
        self._set(step, event.end)
        step.has_result = event.has_result

    def _expand(self, event: Expanded) -> None:
        step = self._find(event.step)
        if not step.is_released or step.end is not None:
            raise Contradiction(f"{event.step} added members, but it did not run")
        names = member_names(event.step, event.elements)
        if any(name in self._steps for name in names):
            raise Contradiction(f"{event.step} added members twice")
        # A map has settled when its members have, so what waits for it waits for them.
        for later in list(self._steps.values()):
            if event.step in later.before:
                later.before |= dict.fromkeys(names, later.before[event.step])
        members = {
            name: _Step(
                StepSpec(name, "member", may_fail=step.spec.may_fail),
                len(self._steps) + element,
                {},
                is_released=True,
                asked=self._canceled[0] if self._canceled else None,
            )
            for element, name in enumerate(names)
        }
        # In topological order: right behind their map.
        items = list(self._steps.items())
        place = [name for name, _ in items].index(event.step) + 1
        self._steps = dict([*items[:place], *members.items(), *items[place:]])

    def _send(self, event: Sent) -> None:
        signal = _Signal(event)
        self._signals.append(signal)
        waits = [step for step in self._steps.values() if _accepts(step, event)]
        is_open = [
            step for step in waits if step.is_released and step.end is None and step.asked is None
        ]
        if event.outcome == "late":
            signal.outcome = "late"
        elif len(is_open) == 1:
            self._take(is_open[0], signal)
        elif len(is_open) > 1:
            signal.outcome = "ambiguous"
        elif event.outcome is None and waits and all(step.end is not None for step in waits):
            signal.outcome = "late"

    def _cancel_run(self, event: CancelRun) -> None:
        if self._canceled:
            raise Contradiction("the run was canceled twice")
        self._canceled = (self._now, event.by_deadline)
        for step in self._steps.values():
            if step.end in BY_ADVANCE and not step.is_settled:
                step.other_end, step.other_at = CANCELED, self._now
            elif step.end is None:
                self._stop(step)

    def _cancel_step(self, event: CancelStep) -> None:
        step = self._find(event.step)
        if step.end is not None and not self._take_back(step):
            raise Contradiction(f"{event.step} was canceled, but had ended {step.end}")
        if event.was_started:
            step.asked = self._now
        else:
            self._set(step, CANCELED)

    def _retry(self, event: Retry) -> None:
        self._decide(event)
        steps = [self._find(name) for name in event.steps] or [
            step for step in self._steps.values() if step.is_unfinished and not step.is_behind
        ]
        for step in steps:
            if not step.is_unfinished or step.is_behind:
                raise Contradiction(f"{step.spec.name} was retried, but its end is {step.end}")
        self._reopen(steps)
        self._unmark_late()

    def _skip(self, event: Skip) -> None:
        self._decide(event)
        step = self._find(event.step)
        if step.end is not None and not step.is_unfinished and not self._take_back(step):
            raise Contradiction(f"{event.step} was skipped, but had ended {step.end}")
        self._reopen([step])
        self._set(step, SKIPPED)
        step.has_result = True
        self._unmark_late()

    # --- rules

    def _take_back(self, step: _Step) -> bool:
        """Take back an end that nobody has written yet, since something else came first; False for others."""
        if step.end not in BY_ADVANCE or step.is_settled:
            return False
        self._unwind(step)
        return True

    def _unwind(self, step: _Step) -> None:
        """Let a step wait again, and all that was released by its end."""
        at = step.at
        self._give_back(step)
        step.end = None
        behind = (later for later in self._steps.values() if step.spec.name in later.before)
        for later in behind:
            is_open = later.end is None or later.end in BY_ADVANCE
            if is_open and later.is_released and later.released_at >= at:
                self._unwind(later)

    def _give_back(self, step: _Step) -> None:
        """Let a step not be released, and its signal not be taken."""
        step.is_released = False
        if step.took is not None:
            step.took.outcome, step.took = "early", None

    def _decide(self, event: Retry | Skip) -> None:
        """Before a decision: the run may have ended."""
        had_ended = event.run_had_ended
        if had_ended is None:
            had_ended = self._has_ended(with_asked=True)
        if not had_ended:
            return
        self._stop_asked()
        self._choose(event.seen)
        if not self._has_ended():
            left = [name for name, step in self._steps.items() if step.end is None]
            raise Contradiction(f"the run had ended, but {left} had not")
        self._ends.append(self._end_of_run(event.times))
        for step in self._steps.values():
            step.is_settled = True

    def _choose(self, observed: Mapping[str, End | None]) -> None:
        """Take the observed ends of steps that may have ended in one of two ways."""
        for name, step in self._steps.items():
            if step.other_end is not None and observed.get(name) == step.other_end:
                self._give_back(step)
                step.end, step.at = step.other_end, step.other_at
            step.other_end = None

    def _reopen(self, steps: Iterable[_Step]) -> None:
        """Take back the ends of steps, and of all that is canceled behind any: `_advance` judges it anew."""
        behind = [step for step in self._steps.values() if step.is_behind]
        for step in [*steps, *behind]:
            step.end, step.asked, step.is_settled = None, None, False
            if step.spec.kind == "wait":
                step.is_released = False
        self._canceled = None

    def _unmark_late(self) -> None:
        """Let late signals be for the reopened waits: those that open now take theirs, others later."""
        self._advance()
        for signal in self._signals:
            is_awaited = any(
                s.end is None and _accepts(s, signal.event) for s in self._steps.values()
            )
            if signal.outcome == "late" and is_awaited:
                signal.outcome = "early"

    def _stop(self, step: _Step) -> None:
        """Stop a step that has not ended: at once when it waits for others, else it may end before."""
        if step.is_released:
            step.asked = self._now
        else:
            self._set(step, CANCELED)

    def _stop_asked(self) -> None:
        """Cancel the steps that were asked to stop, and of which no other end was told: they did not run."""
        for step in self._steps.values():
            if step.asked is not None and step.end is None:
                step.end, step.at = CANCELED, step.asked
        self._advance()

    def _advance(self) -> None:
        """Pass all ends on. Steps are in topological order, so that once through them is enough."""
        for step in self._steps.values():
            if step.end is not None or self._canceled:
                continue
            before = [(self._steps[name], on_failure) for name, on_failure in step.before.items()]
            if any(other.is_unfinished and edge == "cancel" for other, edge in before):
                self._set(step, DEPENDENCY)
            elif all(other.end is not None for other, _ in before):
                self._release(step)

    def _release(self, step: _Step) -> None:
        """Let a step run that waits for nothing any more, unless it ends at once."""
        if step.is_released:
            return
        step.is_released, step.released_at = True, self._now
        taken = [self._steps[name] for name in step.spec.takes]
        if any(other.end[0] == "finished" and not other.has_result for other in taken if other.end):
            self._set(step, RESULT_MISSING)
        for signal in self._signals:
            if signal.outcome in ("early", "late") and _accepts(step, signal.event):
                self._take(step, signal)
                return

    def _take(self, wait: _Step, signal: _Signal) -> None:
        self._set(wait, SIGNALED)
        signal.outcome, wait.took = "taken", signal

    def _end_of_run(self, times: Mapping[str, float]) -> EndOfRun:
        """How the run ends now. The first step that did not finish is the culprit."""
        since, by_deadline = self._canceled or (inf, False)
        steps = self._steps.values()
        if any(step.end == CANCELED and step.at >= since for step in steps):
            return EndOfRun(*(("failed", "deadline") if by_deadline else CANCELED), None)
        unfinished = [
            step
            for step in steps
            if step.is_unfinished and not step.is_behind and not step.spec.may_fail
        ]
        if not unfinished:
            return EndOfRun("finished", "finished", None)
        first = min(unfinished, key=lambda s: (times.get(s.spec.name, s.at), s.position))
        return EndOfRun("failed", "step", first.spec.name)

    def _has_ended(self, *, with_asked: bool = False) -> bool:
        return all(
            step.end is not None or (with_asked and step.asked is not None)
            for step in self._steps.values()
        )

    def _set(self, step: _Step, end: End) -> None:
        step.end, step.at, step.is_settled = end, self._now, False

    def _find(self, name: str) -> _Step:
        if name not in self._steps:
            raise Contradiction(f"the run has no step {name}")
        return self._steps[name]


def _accepts(step: _Step, event: Sent) -> bool:
    """Whether a step is a wait for this signal."""
    if event.wait is not None and event.wait != step.spec.name:
        return False
    return event.name in step.spec.signals and event.key == step.spec.key
