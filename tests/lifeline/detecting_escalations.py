"""Lets the call about an incident fail for good, retries its job, and makes what looks like a failure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from flask_opsjobs.actions.operator import Operator
from tests.escalations.telling import Teller
from tests.lifeline.detecting import Case, Scene

WHY: dict[str, Any] = {"actor": "ada", "reason": "because it is a test"}


class _Pager:
    """A policy that raises while it `is_broken`."""

    is_broken = True

    def escalate(self, facts: Mapping[str, Any]) -> str | None:
        if self.is_broken:
            raise RuntimeError("the pager does not answer")
        return f"called about {facts['incident']}"


@contextmanager
def _loops(scene: Scene, policy: Any) -> Iterator[Teller]:
    """A process of the loops with this policy, which stops, and of which nothing is awake later."""
    scene.bench.host.escalation = policy
    with closing(Teller(scene.bench.host)) as teller:
        teller.now = scene.now
        yield teller
        teller.connection.execute("DELETE FROM opsjobs.loop_runs WHERE loop = 'escalate'")


def _fail(scene: Scene) -> None:
    if "job" in scene.memory:
        scene.wait(120)  # the second episode begins after the end of the first one
    with _loops(scene, _Pager()) as teller:
        teller.find()
        teller.look()
        job = teller.row("SELECT id FROM opsjobs.jobs WHERE state = 'retryable'")["id"]
        Operator(scene.bench.host).discard(job, **WHY)
        teller.look()
    scene.memory["job"] = job


def _retry(scene: Scene) -> None:
    Operator(scene.bench.host).retry(scene.memory["job"], **WHY)
    pager = _Pager()
    pager.is_broken = False
    with _loops(scene, pager) as teller:
        teller.look()
        teller.clear()


def _is_tried_again(scene: Scene) -> None:
    with _loops(scene, _Pager()) as teller:
        teller.find()
        teller.look()


def _is_unconfigured(scene: Scene) -> None:
    with _loops(scene, None) as teller:
        teller.find()
        teller.once()


ESCALATION_FAILED = Case(
    _fail,
    _retry,
    {
        "it is tried again": _is_tried_again,
        "the application has no policy": _is_unconfigured,
    },
    starts_processes=True,
)
