"""Each line of the headline that no incident makes, in the doctor too.

What all three say of each class of incidents is compared in `tests/lifeline/test_detectors.py`, which makes
each of them.
"""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy
from rq.suspension import resume, suspend

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.lifeline.detectors import DETECTORS
from flask_opsjobs.lifeline.lifecycle import SHOWN_AS
from flask_opsjobs.overview import headline
from flask_opsjobs.workers import transitions as workers
from tests.doctor.agreement import CHECK_OF, Agreement, agree_on
from tests.doctor.conftest import Ask, shows
from tests.lifeline import detecting_failures, detecting_jobs, detecting_lanes
from tests.lifeline.detecting import Scene, Step
from tests.lifeline.test_detectors import CASES
from tests.support.engine import Bench

WHY: dict[str, Any] = {"actor": "ada", "reason": "because it is a test"}


def test_the_tables_are_whole() -> None:
    assert CHECK_OF.keys() == DETECTORS.keys()
    made_by = {
        function.name
        for function in ast.walk(ast.parse(inspect.getsource(headline)))
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "Wrong"
    }
    of_incidents = {"_incident", "_redis"}
    assert made_by == of_incidents | {line.made_by for line in LINES.values()}


@pytest.fixture
def agreement(
    bench: Bench,
    db: SQLAlchemy,
    note: Task,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Agreement:
    """What is said of a scene. The class is that of incidents that its loop `detect` looks for."""
    assert db.session is not None
    assert note.name == "note"
    is_chosen = "class_" in request.fixturenames
    class_ = request.getfixturevalue("class_") if is_chosen else "lease_leaked"
    return agree_on(Scene(bench, class_, request.getfixturevalue), monkeypatch)


@dataclass(frozen=True)
class Line:
    """A line of the headline that no incident makes: its maker, its fact, and how the doctor answers.

    The doctor has no `check` for what people decided, and for errors of the app's own code. `undo` leaves
    what looks like it.
    """

    made_by: str
    make: Step
    undo: Step
    fact: str
    check: str | None = None
    state: str = "ok"
    says: str = ""


def _leak_two(scene: Scene) -> None:
    for limiter in ("api", "mail"):
        job = scene.get("record_job")()
        scene.bench.rows(
            """INSERT INTO opsjobs.leases (job_id, dispatch_no, limiter, partition, weight, taken_at)
                VALUES (%s, 1, %s, '', 1, now() - interval '1 min') RETURNING job_id""",
            job,
            limiter,
        )
    scene.look(4)


def _release(scene: Scene) -> None:
    CASES["lease_leaked"].undo(scene)
    scene.look(5)


def _run_all(scene: Scene) -> None:
    scene.run("detect")
    scene.run("stage")


def _run_again(scene: Scene) -> None:
    """Until the incident about it has cleared."""
    scene.awake.add("stage")
    scene.look(5)


def _sleep(scene: Scene) -> None:
    _run_all(scene)
    scene.wait(3600)


def _one_sleeps(scene: Scene) -> None:
    _sleep(scene)
    scene.run("detect")


def _suspend(scene: Scene) -> None:
    suspend(scene.get("redis_client"))


def _resume(scene: Scene) -> None:
    resume(scene.get("redis_client"))


def _stop_worker(scene: Scene) -> None:
    workers.stop(scene.bench.connection, scene.bench.worker_id, scene.now)


def _start_worker(scene: Scene) -> None:
    scene.get("make_bench")("another")


def _fail_anew(scene: Scene) -> None:
    detecting_failures.NEW.make(scene)


def _resolve(scene: Scene) -> None:
    detecting_failures.decide(scene, "resolve", deploy="this")


def _cool_down(scene: Scene) -> None:
    detecting_lanes.LANE_STARVING.near_misses["cooldown"](scene)


def _cancel(scene: Scene) -> None:
    """The limiter still cools down, and holds no job."""
    detecting_lanes.LANE_STARVING.undo(scene)


def _pause(scene: Scene) -> None:
    scene.get("record_job")()
    Operator(scene.bench.host).pause("default", **WHY)


def _pause_task(scene: Scene) -> None:
    scene.get("record_job")()
    Operator(scene.bench.host).pause_task("note", **WHY)


def _drain(scene: Scene) -> None:
    scene.get("record_job")()
    Operator(scene.bench.host).drain("default", **WHY)


def _empty(scene: Scene) -> None:
    """It is still paused or draining, and holds no job."""
    detecting_jobs.cancel_all(scene)


LINES = {
    "two incidents of one class": Line(
        "_alike",
        _leak_two,
        _release,
        "Leaked leases: 2 incidents.",
        "leases.leaked",
        "warning",
        "1 lease of the limiter api leaked.",
    ),
    "no loop has ever run": Line(
        "_loops",
        lambda _scene: None,
        _run_all,
        "No background loop has ever run.",
        "loops.awake",
        "error",
    ),
    "no loop runs": Line(
        "_loops", _sleep, _run_all, "No background loop is running.", "loops.awake", "error"
    ),
    "one loop is silent": Line(
        "_loops", _one_sleeps, _run_again, "The loop stage is silent.", "loops.awake", "error"
    ),
    "nobody looks": Line(
        "find_wrong",
        lambda scene: scene.run("stage"),
        _run_all,
        "Nobody looks for incidents.",
        "loops.awake",
        "error",
    ),
    "suspended": Line(
        "find_wrong",
        _suspend,
        _resume,
        "All workers are suspended by RQ's own command.",
        "redis.suspended",
        "error",
        "are suspended by RQ's own command.",
    ),
    "no worker": Line(
        "_no_worker",
        _stop_worker,
        _start_worker,
        "No worker is running.",
        "workers.listeners",
        "warning",
    ),
    "a new failure": Line("_failures", _fail_anew, _resolve, "note fails with a new error."),
    "a cooldown that holds jobs": Line(
        "_cooldowns", _cool_down, _cancel, "Limiter api cools down until"
    ),
    "a paused queue": Line(
        "_held_queues", _pause, _empty, "Queue default is paused with 1 due job.", "jobs.paused"
    ),
    "a paused task": Line(
        "_paused_tasks", _pause_task, _empty, "Task note is paused until somebody resumes it."
    ),
    "a draining queue": Line(
        "_held_queues", _drain, _empty, "Queue default is draining with 1 due job.", "jobs.paused"
    ),
}


OF_LINES = [
    pytest.param(
        name,
        marks=[shows(line.check, line.state)] if line.check and line.state != "ok" else [],
    )
    for name, line in LINES.items()
]


@pytest.mark.parametrize("name", OF_LINES)
def test_each_other_line_of_the_headline(name: str, agreement: Agreement, ask: Ask) -> None:
    line, scene = LINES[name], agreement.scene
    line.make(scene)
    said = agreement.headline()
    levels = {each.level for each in said if each.fact.startswith(line.fact)}
    assert levels, said
    found = ask(line.check or "lifeline.incidents")
    assert found.state == line.state, found
    assert found.state == "ok" or (*levels, found.state) in SHOWN_AS.values()
    assert found.state == "ok" or found.sentence.endswith(line.says or line.fact), found
    line.undo(scene)
    assert not [each for each in agreement.headline() if each.fact.startswith(line.fact)]
    assert ask(line.check or "lifeline.incidents").state == "ok"


@pytest.mark.parametrize("class_", ["integrity_off"])
def test_a_difference_of_the_integrity_check_is_said_beside_the_headline(
    class_: str, agreement: Agreement
) -> None:
    scene, case = agreement.scene, CASES[class_]
    case.make(scene)
    said = headline.say_whole(agreement.see())
    assert said == "The integrity check shows a difference: default."
    case.undo(scene)
    assert headline.say_whole(agreement.see()) == "No managed job is lost."


# Of checks that ask a detector: by class of incidents, the levels with which they answer to it.
OF_DETECTORS = {
    "audit_broken": ("error",),
    "callback_failed": ("warning",),
    "code_missing": ("error",),
    "held_by_nobody": ("error",),
    "lease_leaked": ("warning",),
    "loop_failing": ("warning",),
    "operation_stopped": ("warning",),
    "queue_unserved": ("error",),
}


@pytest.mark.parametrize(
    "class_",
    [
        pytest.param(class_, marks=shows(f"{CHECK_OF[class_]}", *levels))
        for class_, levels in OF_DETECTORS.items()
    ],
)
def test_a_check_that_asks_a_detector(class_: str, agreement: Agreement, ask: Ask) -> None:
    scene, check = agreement.scene, CHECK_OF[class_]
    agreement.is_silent()
    assert ask(f"{check}").state == "ok"
    CASES[class_].make(scene)
    found = ask(f"{check}")
    assert found.state in OF_DETECTORS[class_]
    assert found.evidence


@shows("lifeline.incidents")
def test_an_incident_that_is_open_for_an_hour(agreement: Agreement, ask: Ask) -> None:
    CASES["lease_leaked"].make(agreement.scene)
    agreement.scene.look(4)
    (incident,) = agreement.scene.incidents()
    assert incident["state"] == "open"
    agreement.later = timedelta(minutes=55)
    assert ask("lifeline.incidents").state == "ok"
    agreement.later = timedelta(minutes=65)
    found = ask("lifeline.incidents")
    assert (found.state, found.run) == ("warning", "flask opsjobs incident show 1")
    assert found.sentence == "Incident 1 is open for 1 h: 1 lease of the limiter api leaked."
    agreement.scene.bench.connection.execute("UPDATE opsjobs.incidents SET severity = 'critical'")
    assert ask("lifeline.incidents").state == "error"
