"""Random workflows on real workers, while workers, loops and Postgres are killed.

Each run ends as an oracle without a database says, which is told only what nothing can compute: how attempts
ended, what was decided, and which signals came, in the order of the commits.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.errors import EngineUnavailable
from flask_opsjobs.testing.postgres import TemporaryPostgres
from flask_opsjobs.workflows.checks import checks
from tests.support import host as host_module
from tests.support.history import TRIGGERS, History, read_histories
from tests.support.processes import Child
from tests.support.waiting import wait_until
from tests.workflows.oracle import Contradiction, Model, RunSpec, StepSpec, random_run

from .conftest import Site

pytestmark = [pytest.mark.chaos, pytest.mark.slow]

WHY: dict[str, Any] = {"actor": "anna", "reason": "because it is a test"}
# What happens when Postgres was killed under a statement.
AWAY = (psycopg.Error, DBAPIError, EngineUnavailable)
# So many runs at once; each test has as many.
AT_ONCE = 12
TURN_SECONDS = 0.15
KILL_TURNS = 10
SKIPPABLE = """
    SELECT s.name FROM opsjobs.steps s JOIN opsjobs.jobs j ON j.id = s.job_id
    WHERE s.workflow_id = %s AND j.state IN ('deferred', 'failed', 'canceled') ORDER BY s.job_id
"""
DECISION_TURNS = 60


@pytest.fixture
def own_postgres() -> Any:
    """It tracks the time of commits."""
    with TemporaryPostgres(durable=True) as server:
        url = server.url().set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET track_commit_timestamp = on")
        server.stop()
        server.start()
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
    """Sends signals, decides and kills at random, until all runs have ended."""

    def __init__(self, site: Site, dice: random.Random) -> None:
        self.site = site
        self.dice = dice
        self.operator = Operator(site.app.extensions["opsjobs"])
        self.workers = [site.worker(), site.worker("--simple")]
        self.loops = site.loops()
        self.kills: list[str] = []
        self.decisions: Counter[str] = Counter()

    def try_to(self, act: Callable[[], Any]) -> None:
        """Do it in the host, unless Postgres is away."""
        with self.site.app.app_context():
            try:
                act()
            except AWAY:
                host_module.db.session.remove()
                host_module.db.engine.dispose()

    def live_through(self, runs: list[Run]) -> None:
        """Return when all runs have ended."""
        for turn in range(100_000):
            found = self.site.rows(
                "SELECT array(SELECT id FROM opsjobs.workflows WHERE id = ANY (%s) AND ended_at IS NULL)",
                [run.id for run in runs],
            )
            if found == [([],)]:
                return
            if turn > 2_000:
                raise AssertionError(f"runs {found} do not end: {self.site.states()}")
            left = found[0][0] if found else []  # none while Postgres is away
            self._take_a_turn(turn, runs, [run for run in runs if run.id in left])
            until = time.monotonic() + TURN_SECONDS
            wait_until(lambda until=until: time.monotonic() >= until, every=TURN_SECONDS / 3)

    def _take_a_turn(self, turn: int, runs: list[Run], left: list[Run]) -> None:
        if left:
            run = self.dice.choice(left)
            for name, key in self.dice.sample(run.signals, min(2, len(run.signals))):
                self.try_to(lambda name=name, key=key: self._send(name, key))
        if turn < DECISION_TURNS:
            for _ in range(2):
                self.try_to(lambda: self._decide(self.dice.choice(runs)))
        elif turn == DECISION_TURNS or turn % 20 == 0:
            for run in left:
                for name, key in run.signals:
                    self.try_to(lambda name=name, key=key: self._send(name, key))
        if turn % KILL_TURNS == KILL_TURNS - 1:
            self._kill()

    def _send(self, name: str, key: str) -> None:
        host_module.opsjobs.signal(name, key=key, payload=7)
        host_module.db.session.commit()

    def _decide(self, run: Run) -> None:
        action = self.dice.choices(("retry", "skip", "cancel"), (5, 4, 1))[0]
        params: dict[str, Any] = {}
        if action == "skip":
            found = self.site.rows(SKIPPABLE, run.id)
            if not found:
                return
            ((name,),) = self.dice.sample(found, 1)
            params = {"step": name, "result": result_of(run.spec, name)}
        receipt = self.operator.run(
            f"workflow.{action}", [f"workflow/{run.id}"], **WHY, params=params
        )
        self.decisions[action] += receipt.is_done

    def _kill(self) -> None:
        what = self.dice.choice(("worker", "worker", "loops", "postgres"))
        self.kills.append(what)
        if what == "worker":
            place = self.dice.randrange(len(self.workers))
            self.workers[place].kill_all()
            self.workers[place] = self._start_worker(place)
        elif what == "loops":
            self.loops.kill_all()
            self.loops = self.site.loops()
        else:
            self.site.postgres.kill()
            self.site.postgres.start()

    def _start_worker(self, place: int) -> Child:
        return self.site.worker(*(("--simple",) if place else ()))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """`--graphs 60` makes five tests of 12 runs."""
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
    runs: list[Run] = []
    while len(runs) < count:
        storm.try_to(lambda: runs.append(start(make_spec(seed + len(runs)))))
    storm.live_through(runs)
    print(f"killed: {storm.kills}, decided: {storm.decisions}")
    assert count < AT_ONCE or {"retry", "skip"} <= storm.decisions.keys()
    try:
        wait_until(lambda: not what_is_left(site), 30)
    except AssertionError:
        raise AssertionError(what_is_left(site)) from None
    with closing(connect_apart(site.app.extensions["opsjobs"].engine)) as connection:
        assert checks(connection) == []
        keys = {step.key: run.id for run in runs for step in run.spec.steps}
        histories = read_histories(connection, keys)
    wrong = []
    for run in runs:
        try:
            assert_as_the_oracle_says(site, run, histories[run.id])
        except AssertionError as error:
            wrong.append(str(error)[:600])
    assert wrong == []


def what_is_left(site: Site) -> list[Any]:
    """Open jobs, end events and runs in trouble. At the end callbacks have run too, and nothing is left."""
    return [
        *site.rows("SELECT id, task, state, workflow_id FROM opsjobs.jobs WHERE ended_at IS NULL"),
        *site.rows("SELECT * FROM opsjobs.workflow_end_events"),
        *site.rows("SELECT id, trouble FROM opsjobs.workflows WHERE trouble IS NOT NULL"),
    ]


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
        " WHERE c.of_id = %s ORDER BY c.end_no",
        run.id,
    )
    assert callbacks == [(number, "finished") for number in range(1, expected.callbacks + 1)], seed
    assert end_no == expected.callbacks, seed
    assert sorted(expected.signals) == sorted(history.signals), seed
