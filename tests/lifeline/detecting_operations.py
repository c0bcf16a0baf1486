"""Makes an operation that stops by itself, resumes it, and makes what looks like a stop."""

from __future__ import annotations

from typing import Any

from flask_opsjobs import JobFilter
from flask_opsjobs.operations.operator import BulkOperator
from tests.lifeline.detecting import Case, Scene

WHY: dict[str, Any] = {"actor": "ada", "reason": "because it is a test"}


def _start(scene: Scene) -> BulkOperator:
    """An operation that cancels ten jobs; the loop has canceled the first one."""
    for _ in range(10):
        scene.get("record_job")(delay=3600)
    operator = BulkOperator(scene.bench.host)
    started = operator.start("job.cancel", JobFilter(state="scheduled"), **WHY)
    scene.memory["operation"] = started.id
    scene.run("operate")
    return operator


class _Denying:
    """A policy that has taken a permission back."""

    def current_actor(self) -> str:
        return "ada"

    def can(self, _actor: str, permission: str, _subject: str | None = None) -> bool:
        return permission != "job.cancel"


def _stop(scene: Scene) -> None:
    """The permission is withdrawn while it runs; the second time it was resumed before."""
    allowing = scene.bench.host.access
    if "operation" not in scene.memory:
        _start(scene)
    scene.bench.host.access = _Denying()
    scene.run("operate")
    scene.bench.host.access = allowing


def _resume(scene: Scene) -> None:
    BulkOperator(scene.bench.host).resume_operation(scene.memory["operation"], **WHY)


def _pause(scene: Scene) -> None:
    _start(scene).pause_operation(scene.memory["operation"], **WHY)


def _cancel(scene: Scene) -> None:
    _start(scene).cancel_operation(scene.memory["operation"], **WHY)


OPERATION_STOPPED = Case(
    _stop, _resume, {"somebody paused it": _pause, "somebody canceled it": _cancel}
)
