"""Makes errors that end jobs, resolves them, lets them come back, and what looks like it."""

from __future__ import annotations

from typing import Any

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.jobs.failure_key import key_of_end
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.lifeline.detecting import Case, Scene
from tests.support.engine import Bench

WHY: dict[str, Any] = {"actor": "ada", "reason": "because it is a test"}


def _fail(scene: Scene, on: Bench | None = None, max_attempts: int = 1) -> None:
    """A job fails by the same error as the others, and `roll_up` counts it."""
    worker = on or scene.bench
    job = scene.get("record_job")(max_attempts=max_attempts)
    worker.dispatch(prefetch=1000)
    worker.claim(job)
    raised = Outcome(
        kind="raised",
        error="ValueError: no such account 7",
        failure_key=key_of_end("note", "ValueError", None),
    )
    worker.record(job, 1, raised)
    scene.run("roll_up")


def decide(scene: Scene, action: str, **params: Any) -> None:
    failure = scene.bench.row("SELECT id FROM opsjobs.failures")["id"]
    receipt = Operator(scene.bench.host).run(
        f"failure.{action}", [f"failure/{failure}"], **WHY, params=params
    )
    assert receipt.is_done, receipt


def _resolve(scene: Scene) -> None:
    decide(scene, "resolve", deploy="this")


# --- failure_new


def _ignore_until_one_more(scene: Scene) -> None:
    decide(scene, "ignore", until=None, more=1, rate=None)


def _fail_and_try_again(scene: Scene) -> None:
    _fail(scene, max_attempts=5)


def _be_resolved(scene: Scene) -> None:
    _fail(scene)
    _resolve(scene)


NEW = Case(
    _fail,
    _ignore_until_one_more,
    {"the job is tried again": _fail_and_try_again, "resolved": _be_resolved},
)


# --- failure_regressed


def _fail_with_the_fix(scene: Scene) -> None:
    """No deploy is marked: workers that start after the decision have the fix."""
    if "resolved" not in scene.memory:
        _be_resolved(scene)
        scene.memory["resolved"] = True
    _fail(scene, on=scene.get("make_bench")())


def _fail_on_old_code(scene: Scene) -> None:
    _be_resolved(scene)
    _fail(scene)


REGRESSED = Case(_fail_with_the_fix, _resolve, {"old code after the fix": _fail_on_old_code})
