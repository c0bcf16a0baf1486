"""Random workflows, and a batch, on real workers, while children, workers, loops and Postgres are killed.

Each run ends as an oracle without a database says, which is told only what nothing can compute: how attempts
ended, what was decided, and which signals came, in the order of the commits.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import psutil
import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.batches.checks import check_batches
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.errors import EngineUnavailable
from flask_opsjobs.workflows.checks import checks
from tests.support import host as host_module
from tests.support.database import MigratedPostgres
from tests.support.history import TRIGGERS, History, read_histories
from tests.support.processes import Child
from tests.support.waiting import wait_until
from tests.workflows.oracle import Contradiction, Model, RunSpec, StepSpec, random_run

from .conftest import Site

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
# What happens when Postgres was killed under a statement.
AWAY = (psycopg.Error, DBAPIError, EngineUnavailable)
# Each test has so many runs at once, and beside them a batch with so many members.
AT_ONCE, MEMBERS = 40, 30
# What a turn does, and how long it waits then.
STARTS_A_TURN, SENDS_A_TURN, DECISIONS_A_TURN = 3, 4, 2
TURN_SECONDS = 0.1
# Kills go on until so few runs are left.
KILL_SECONDS, CALM_BELOW = 2.5, 8
# Each decision with its weight, and the steps on which it is legal.
DECISIONS = {
    "workflow.retry": (3, "j.state = 'failed'"),
    "workflow.skip": (3, "j.state IN ('deferred', 'failed', 'canceled')"),
    "workflow.signal": (2, "s.kind = 'wait' AND j.state = 'deferred'"),
    "workflow.cancel": (1, "j.ended_at IS NULL"),
    "job.retry": (2, "j.state = 'failed'"),
    "job.cancel": (1, "j.ended_at IS NULL"),
}
DECIDABLE = """
    SELECT s.workflow_id, j.id, s.name FROM opsjobs.steps s JOIN opsjobs.jobs j ON j.id = s.job_id
    WHERE {} ORDER BY random() LIMIT 1
"""
# Nobody waits for a back-off.
HURRY = "UPDATE opsjobs.jobs SET due_at = clock_timestamp() WHERE state = 'retryable' RETURNING id"


@pytest.fixture
def own_postgres() -> Any:
    """It tracks the time of commits."""
    with MigratedPostgres(track_commit_timestamp="on") as server:
        yield server


# --- runs


@dataclass
class Run:
    """A started run, its definition, and the signals that its waits wait for, as (name, key)."""

    id: int
    spec: RunSpec
    signals: list[tuple[str, str]] = field(default_factory=list)


def make_spec(seed: int) -> RunSpec:
    """A random run, with keys of its own."""
    spec = random_run(seed)
    steps = (replace(step, key=step.key and f"{seed}-{step.key}") for step in spec.steps)
    # A wait has no `on_failure`.
    kept = (replace(step, on_failure="cancel") if step.kind == "wait" else step for step in steps)
    return replace(spec, steps=tuple(kept))


def result_of(spec: RunSpec, name: str) -> dict[str, list[bool]]:
    """What a step returns: the list of each map over it, whose elements say whether they fail."""
    return {
        step.name: [spec.fails_at(f"{step.name}[{n}]", 1) for n in range(step.elements)]
        for step in spec.steps
        if step.over == name
    }


def start(spec: RunSpec) -> Run:
    """Start it, with the real builder."""
    flow = host_module.opsjobs.workflow(f"graph {spec.seed}", on_end=host_module.hear_end)
    nodes: dict[str, Any] = {}
    for step in spec.steps:
        nodes[step.name] = _add(flow, spec, step, nodes)
    run = flow.start()
    host_module.db.session.commit()
    waits = [(name, step.key) for step in spec.steps for name in step.signals]
    return Run(run.id, spec, waits)


def _add(flow: Any, spec: RunSpec, step: StepSpec, nodes: dict[str, Any]) -> Any:
    after = [nodes[name] for name in step.after]
    shared: dict[str, Any] = {"after": after, "may_fail": step.may_fail}
    if step.kind == "wait":
        return flow.wait(step.name, signals=step.signals, key=step.key, **shared)
    task: Any = host_module.act
    fails = spec.fails_at(step.name, 1)
    # A kill ends every third step; the others are tried again.
    if fails or random.Random(f"{spec.seed} {step.name}").random() < 0.3:
        task = task.options(max_attempts=1)
    if step.kind == "map":
        assert step.over is not None
        over = nodes[step.over].result[step.name]
        return flow.map(step.name, task, over=over, as_="fails", **shared)
    arguments: dict[str, Any] = {"fails": fails, "lists": result_of(spec, step.name)}
    if step.takes:
        arguments["value"] = nodes[step.takes[0]].result
    return flow.step(step.name, task, on_failure=step.on_failure, **shared, **arguments)


# --- the host, the operator, and the kills


class Storm:
    """Starts runs, sends signals, decides and kills at random, until all runs have ended."""

    def __init__(self, site: Site, dice: random.Random) -> None:
        self.site = site
        self.dice = dice
        self.runs: list[Run] = []
        self.batch: int | None = None
        self.operator = Operator(site.app.extensions["opsjobs"])
        self.workers = [self._start_worker(place) for place in range(2)]
        self.loops = self._start_loops()
        self.kills: Counter[str] = Counter()
        self.decisions: Counter[str] = Counter()
        self._killed_at = time.monotonic()

    def try_to(self, act: Callable[[], Any]) -> None:
        """Do it in the host, unless Postgres is away."""
        with self.site.app.app_context():
            try:
                act()
            except AWAY:
                host_module.db.session.remove()
                host_module.db.engine.dispose()

    def live_through(self, specs: list[RunSpec]) -> None:
        """Return when a run of each spec has ended."""
        waiting = specs[::-1]
        wanted = max(1, len(specs) * 2 // 3)
        for turn in range(2_000):
            left = self._list_open()
            is_deciding = self.decisions.total() < wanted
            if not (left or waiting or is_deciding):
                return
            for _ in range(min(STARTS_A_TURN, len(waiting))):
                self.try_to(lambda: self._start(waiting))
            self._take_a_turn(turn, left, is_deciding=is_deciding)
            until = time.monotonic() + TURN_SECONDS
            wait_until(lambda until=until: time.monotonic() >= until, every=TURN_SECONDS / 3)
        raise AssertionError(f"runs {self._list_open()} do not end: {self.site.states()}")

    def _list_open(self) -> list[Run]:
        """The runs that have not ended; all while Postgres is away."""
        found = self.site.rows(
            "SELECT array(SELECT id FROM opsjobs.workflows WHERE id = ANY (%s) AND ended_at IS NULL)",
            [run.id for run in self.runs],
        )
        return [run for run in self.runs if run.id in found[0][0]] if found else self.runs

    def _take_a_turn(self, turn: int, left: list[Run], *, is_deciding: bool) -> None:
        """Signals come at random while decisions do, and then all again and again, so that each run ends."""
        signals = [signal for run in left for signal in run.signals]
        if is_deciding:
            signals = self.dice.sample(signals, min(SENDS_A_TURN, len(signals)))
            for _ in range(DECISIONS_A_TURN):
                self.try_to(self._decide)
            if turn % 10 == 0:
                self.try_to(self._retry_batch)
        if is_deciding or turn % 10 == 0:
            for name, key in signals:
                self.try_to(lambda name=name, key=key: self._send(name, key))
        if turn % 10 == 0:
            self.site.rows(HURRY)
        if turn % 3 == 0 and len(left) > CALM_BELOW:
            self._kill_a_child()
        now = time.monotonic()
        if now - self._killed_at > KILL_SECONDS and len(left) > CALM_BELOW:
            self._killed_at = now
            self._kill()

    def _start(self, waiting: list[RunSpec]) -> None:
        self.runs.append(start(waiting[-1]))
        waiting.pop()

    def _send(self, name: str, key: str) -> None:
        host_module.opsjobs.signal(name, key=key, payload=7)
        host_module.db.session.commit()

    def _decide(self) -> None:
        """Decide on any step or run for which this is legal, or was a moment ago; each way once at first."""
        left = [action for action in DECISIONS if not self.decisions[action]] or [*DECISIONS]
        (action,) = self.dice.choices(left, [DECISIONS[action][0] for action in left])
        found = self.site.rows(DECIDABLE.format(DECISIONS[action][1]))
        if not found:
            return
        ((run, job, name),) = found
        target = f"workflow/{run}" if action.startswith("workflow.") else f"job/{job}"
        params: dict[str, Any] = {}
        if action == "workflow.skip":
            (spec,) = (one.spec for one in self.runs if one.id == run)
            params = {"step": name, "result": result_of(spec, name)}
        elif action == "workflow.signal":
            params = {"wait": name, "payload": 7}
        receipt = self.operator.run(action, [target], **WHY, params=params)
        self.decisions[action] += receipt.is_done

    def _retry_batch(self) -> None:
        """Let the members run again that failed. The first time, enqueue the batch."""
        if self.batch:
            self.operator.run("batch.retry", [f"batch/{self.batch}"], **WHY)
            return
        opsjobs = host_module.opsjobs
        call = host_module.hear_batch
        with opsjobs.batch("members", on_end=call, on_failure=call) as batch:
            task = host_module.act.options(max_attempts=1)
            batch.enqueue_many(task, ({"fails": number % 5 == 0} for number in range(MEMBERS)))
        host_module.db.session.commit()
        self.batch = batch.id

    def _kill(self) -> None:
        what = self.dice.choice(("worker", "worker", "loops", "postgres"))
        self.kills[what] += 1
        if what == "worker":
            place = self.dice.randrange(len(self.workers))
            self.workers[place].kill_all()
            self.workers[place] = self._start_worker(place)
        elif what == "loops":
            self.loops.kill_all()
            self.loops = self._start_loops()
        else:
            self.site.postgres.kill()
            self.site.postgres.start()

    def _kill_a_child(self) -> None:
        if children := self.dice.choice(self.workers).job_children():
            with suppress(psutil.NoSuchProcess):
                self.dice.choice(children).kill()
                self.kills["child"] += 1

    def _start_worker(self, place: int) -> Child:
        return self.site.worker(*(("--processes", "2") if place else ()), **self._size_of_turns())

    def _start_loops(self) -> Child:
        return self.site.loops(**self._size_of_turns())

    def _size_of_turns(self) -> dict[str, int]:
        """A process makes turns that no run of these tests fills, or many small ones."""
        return {"MOST_STEPS": self.dice.choice((3, 1_000))}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`--graphs 500` makes thirteen tests of at most 40 runs."""
    count = metafunc.config.getoption("graphs")
    counts = [min(AT_ONCE, count - first) for first in range(0, count, AT_ONCE)]
    metafunc.parametrize(("part", "count"), list(enumerate(counts)))


def test_random_workflows_end_as_the_oracle_says(
    site: Site, pytestconfig: pytest.Config, part: int, count: int
) -> None:
    seed = pytestconfig.getoption("seed")
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    else:
        seed += part * AT_ONCE
    print(f"--graphs {count} --seed {seed}")
    with closing(connect_apart(site.app.extensions["opsjobs"].engine)) as connection:
        connection.execute(TRIGGERS)
    storm = Storm(site, random.Random(seed))
    storm.live_through([make_spec(seed + number) for number in range(count)])
    print(f"killed: {storm.kills}, decided: {storm.decisions}")
    assert count < AT_ONCE or all(storm.decisions[action] for action in DECISIONS)
    try:
        wait_until(lambda: not what_is_left(site), 30)
    except AssertionError:
        raise AssertionError(what_is_left(site)) from None
    with closing(connect_apart(site.app.extensions["opsjobs"].engine)) as connection:
        assert checks(connection) == []
        assert check_batches(connection) == []
        keys = {step.key: run.id for run in storm.runs for step in run.spec.steps}
        histories = read_histories(connection, keys)
    wrong = []
    for run in storm.runs:
        try:
            assert_as_the_oracle_says(site, run, histories[run.id])
        except AssertionError as error:
            wrong.append(str(error)[:600])
    assert wrong == []
    assert_batch_has_ended(site)


def what_is_left(site: Site) -> list[Any]:
    """Open jobs, end events and runs in trouble. At the end callbacks have run too, and nothing is left."""
    return [
        *site.rows("SELECT id, task, state, workflow_id FROM opsjobs.jobs WHERE ended_at IS NULL"),
        *site.rows("SELECT * FROM opsjobs.workflow_end_events"),
        *site.rows("SELECT * FROM opsjobs.batch_end_events"),
        *site.rows("SELECT id, trouble FROM opsjobs.workflows WHERE trouble IS NOT NULL"),
    ]


def assert_batch_has_ended(site: Site) -> None:
    """All members are counted, none as lost, and each end has called back once."""
    ((state, enqueued, lost, end_no),) = site.rows(
        "SELECT state, enqueued, lost, end_no FROM opsjobs.batches"
    )
    states = dict(
        site.rows(
            "SELECT state, count(*) FROM opsjobs.jobs WHERE batch_id IS NOT NULL GROUP BY state"
        )
    )
    assert (sum(states.values()), enqueued, lost) == (MEMBERS, MEMBERS, 0)
    assert state == ("failed" if "failed" in states else "finished")
    callbacks = site.rows(
        "SELECT c.end_no, j.state FROM opsjobs.callbacks c JOIN opsjobs.jobs j ON j.id = c.job_id"
        " WHERE c.of = 'batch' AND c.event = 'end' ORDER BY c.end_no"
    )
    assert callbacks == [(number, "finished") for number in range(1, end_no + 1)]


def assert_as_the_oracle_says(site: Site, run: Run, history: History) -> None:
    seed = f"seed {run.spec.seed}, run {run.id}"
    try:
        expected = Model(run.spec).tell(*history.events).finish(history.steps, history.times)
    except Contradiction as error:
        raise AssertionError(f"{seed}: {error}: {history.events}") from None
    assert dict(expected.steps) == {name: history.steps.get(name) for name in expected.steps}, seed
    assert set(history.steps) <= set(expected.steps), seed
    ((state, end_no),) = site.rows(
        "SELECT state, end_no FROM opsjobs.workflows WHERE id = %s", run.id
    )
    assert state == expected.state, seed
    assert tuple(history.ends) == expected.ends, seed
    callbacks = site.rows(
        "SELECT c.end_no, j.state FROM opsjobs.callbacks c JOIN opsjobs.jobs j ON j.id = c.job_id"
        " WHERE c.of = 'workflow' AND c.of_id = %s ORDER BY c.end_no",
        run.id,
    )
    assert callbacks == [(number, "finished") for number in range(1, expected.callbacks + 1)], seed
    assert end_no == expected.callbacks, seed
    assert sorted(expected.signals) == sorted(history.signals), seed
