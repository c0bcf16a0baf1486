"""Makes loops silent and failing, and what looks like it."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import timedelta

import psycopg

from flask_opsjobs.core.db import connect_apart
from tests.lifeline.detecting import Case, Scene


def _fall_silent(scene: Scene) -> None:
    """`expire` makes a pass, and then only another loop of its process makes some."""
    scene.awake -= {"expire"}
    scene.awake |= {"stage"}
    scene.run("expire")
    scene.run("stage")
    scene.wait(30)
    scene.run("stage")


def _run_again(scene: Scene) -> None:
    scene.awake.add("expire")


def _be_slow(scene: Scene) -> AbstractContextManager[object]:
    """A pass of `expire` is under way: it holds the lock of its loop."""
    _fall_silent(scene)
    return _HeldPass(scene)


class _HeldPass:
    """The transaction of a pass that has not ended yet."""

    def __init__(self, scene: Scene) -> None:
        self._connection: psycopg.Connection[object] = connect_apart(scene.bench.host.engine)

    def __enter__(self) -> None:
        self._connection.autocommit = False
        self._connection.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('opsjobs loop expire', 0))"
        )

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _be_awake_elsewhere(scene: Scene) -> None:
    _fall_silent(scene)
    scene.run("expire", "two")


def _be_left_out(scene: Scene) -> None:
    """A deploy: the old process runs nothing any more, and the new one has no such loop."""
    scene.run("expire", "old")
    scene.run("stage", "old")
    scene.wait(30)
    scene.run("stage", "new")


SILENT = Case(
    _fall_silent,
    _run_again,
    {
        "slow pass": _be_slow,
        "another copy awake": _be_awake_elsewhere,
        "left out by a deploy": _be_left_out,
    },
)


def fail(scene: Scene, times: int = 5, after: float = 2) -> None:
    """Passes of `expire` fail: it may not end the job whose deadline is over."""
    scene.bench.connection.execute(
        """ALTER TABLE opsjobs.jobs
            ADD CONSTRAINT no_expiry CHECK (ended_by <> 'deadline') NOT VALID"""
    )
    scene.get("record_job")(deadline=timedelta(milliseconds=1))
    for _ in range(times):
        scene.wait(after)
        scene.run("expire")


def _mend(scene: Scene) -> None:
    scene.bench.connection.execute("ALTER TABLE opsjobs.jobs DROP CONSTRAINT no_expiry")
    scene.run("expire")


def _fail_four_times(scene: Scene) -> None:
    fail(scene, 4)


def _succeed_elsewhere(scene: Scene) -> None:
    fail(scene)
    scene.bench.connection.execute("ALTER TABLE opsjobs.jobs DROP CONSTRAINT no_expiry")
    scene.run("expire", "two")


FAILING = Case(
    fail,
    _mend,
    {
        "four failed passes": _fail_four_times,
        "another copy succeeds": _succeed_elsewhere,
    },
)
