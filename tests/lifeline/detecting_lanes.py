"""Makes lanes starve behind other lanes of their queue, and what looks like it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask_opsjobs import Limit
from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.engine.worker.runtime import declare_limiters
from tests.lifeline.detecting import Case, Scene
from tests.lifeline.detecting_jobs import start

WHY: dict[str, Any] = {"actor": "ada", "reason": "because it is a test"}


def call(account_id: int) -> None:
    """Call the API for an account."""


def _starve(scene: Scene) -> None:
    """A limited job has waited for minutes, while a job without a limiter has just started.

    Nobody dispatches here: only the test does, and only the other lane.
    """
    bench = scene.bench
    if "call" not in scene.memory:
        limit = Limit("api", concurrency=2, partition="account_id")
        scene.memory["call"] = scene.get("opsjobs").task(limit=limit)(call)
        declare_limiters(bench.host, "test")
        bench.rows(
            """INSERT INTO opsjobs.rollups (minute, queue, finished, waits)
                VALUES (date_trunc('minute', %s::timestamptz), 'default', 50, '{0, 20, 30}')
                RETURNING minute""",
            scene.now - timedelta(hours=1),
        )
    scene.memory["call"].enqueue(account_id=42)
    scene.get("db").session.commit()
    scene.wait(300)
    job = start(scene)
    bench.rows("UPDATE opsjobs.jobs SET started_at = %s WHERE id = %s RETURNING id", scene.now, job)


def call_slowly(account_id: int) -> None:
    """Call an API that is down for now."""


def starve_behind_held(scene: Scene, lanes: int) -> None:
    """A lane starves, while so many older ones of its queue wait because their limiter cools down."""
    limit = Limit("down", concurrency=2, partition="account_id")
    task = scene.get("opsjobs").task(limit=limit)(call_slowly)
    declare_limiters(scene.bench.host, "test")
    _cool_down_limiter(scene, "down")
    task.enqueue_many([{"account_id": number} for number in range(lanes)])
    scene.get("db").session.commit()
    scene.wait(5)
    _starve(scene)


def _cancel(scene: Scene) -> None:
    waiting = scene.bench.rows(
        "SELECT id FROM opsjobs.jobs WHERE limiter = 'api' AND ended_at IS NULL"
    )
    Operator(scene.bench.host).cancel([row["id"] for row in waiting], **WHY)


def _cool_down(scene: Scene) -> None:
    _starve(scene)
    _cool_down_limiter(scene, "api")


def _cool_down_limiter(scene: Scene, name: str) -> None:
    Operator(scene.bench.host).run(
        "limiter.cooldown", [f"limiter/{name}"], **WHY, params={"minutes": 60}, now=scene.now
    )


def _move(scene: Scene) -> None:
    """A job of the lane runs: it holds a place."""
    _starve(scene)
    scene.memory["call"].enqueue(account_id=42)
    scene.get("db").session.commit()
    job = scene.bench.row("SELECT max(id) AS id FROM opsjobs.jobs")["id"]
    scene.bench.rows(
        """INSERT INTO opsjobs.leases (job_id, dispatch_no, limiter, partition, weight, taken_at)
            VALUES (%s, 1, 'api', '42', 1, %s) RETURNING job_id""",
        job,
        scene.now,
    )


def _pause(scene: Scene) -> None:
    _starve(scene)
    Operator(scene.bench.host).pause("default", **WHY)


def _wait_as_usual(scene: Scene) -> None:
    """Jobs of this queue usually wait for minutes."""
    _starve(scene)
    scene.bench.rows(
        "UPDATE opsjobs.rollups SET waits = array_fill(0, ARRAY[17]) || ARRAY[50] RETURNING minute"
    )


LANE_STARVING = Case(
    _starve,
    _cancel,
    {
        "cooldown": _cool_down,
        "a lane that moves": _move,
        "paused": _pause,
        "a usual wait": _wait_as_usual,
    },
)
