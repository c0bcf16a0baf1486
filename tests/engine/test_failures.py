"""Real workers of three deploys fail in twenty ways: twenty failures, and only new code makes one regress."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.loops import roll_up
from flask_opsjobs.loops.loop import Runner
from tests.engine.site import rows
from tests.support import host as host_module
from tests.support.processes import Child, Children
from tests.support.waiting import wait_until

# Another task `fail`. Its message says which of twenty bugs it meets, with which value, and for which file it
# waits first. A bug is one of ten functions and one of two exceptions. `{moved}` moves its lines.
CODE = """{moved}
from pathlib import Path

from tests.support import host
from tests.support.waiting import wait_until

def create_app():
    app = host.create_app()
    del app.extensions["opsjobs"].tasks["fail"]

    @host.opsjobs.task(name="fail", max_attempts=1)
    def fail(message):
        bug, value, gate = message.split(":")
        if gate:
            wait_until(Path(gate).exists, 300)
        globals()[f"bug_{{int(bug) // 2}}"](int(bug) % 2, value)

    return app

class OutOfStock(Exception):
    pass

{bugs}
"""
BUG = """
def bug_{number}(kind, value):
    {moved}raise (KeyError, OutOfStock)[kind](f"order {{value}} of 'customer {{value}}' in /tmp/{{value}}")
"""


@pytest.fixture
def start(children: Children, tmp_path: Path) -> Any:
    """Starts a worker of a version, on a queue of the same name or another; `moved` moves its lines."""

    def start(version: str, queue: str | None = None, moved: str = "") -> Child:
        folder = tmp_path / (queue or version)
        folder.mkdir()
        spaces = f"value = value  # {moved.strip()}\n    " if moved else ""
        bugs = "".join(BUG.format(number=number, moved=spaces) for number in range(10))
        (folder / "shop.py").write_text(CODE.format(moved=moved, bugs=bugs))
        command = ("--app", str(folder / "shop.py"), "opsjobs", "worker", queue or version)
        env = {"TEST_CONFIG_OPSJOBS_VERSION": json.dumps(version)}
        worker = children.python("-m", "flask", *command, env=env)
        worker.wait_for("listens to", 120)
        return worker

    return start


def _fail(queue: str, bug: int, number: int = 1, gate: Path | str = "") -> None:
    task = host_module.fail.options(queue=queue, max_attempts=1)
    task.enqueue_many([{"message": f"{bug}:{bug + 20 * each}:{gate}"} for each in range(number)])
    host_module.db.session.commit()


def _counted() -> int:
    return int(rows("SELECT coalesce(sum(number), 0) FROM opsjobs.failures")[0][0])


@pytest.fixture
def wait_for(site: Flask) -> Iterator[Callable[[int], None]]:
    """Makes passes of the loop that counts, not only each ten seconds, until it has counted so many."""
    host = site.extensions["opsjobs"]
    runner = Runner(roll_up.LOOP, host, "often")
    with closing(connect_apart(host.engine)) as connection:

        def have_counted(number: int) -> bool:
            runner.run_once(connection)
            return _counted() == number

        yield lambda number: wait_until(
            lambda: have_counted(number), 300, every=0.2, what=f"{number} counted attempts"
        )


def _states() -> dict[str, int]:
    return dict(rows("SELECT state, count(*) FROM opsjobs.failures GROUP BY 1"))


@pytest.mark.slow
@pytest.mark.parametrize("each", [10, pytest.param(25, marks=pytest.mark.variants)])
def test_many_attempts_with_twenty_bugs_are_twenty_failures_that_new_code_alone_regresses(
    each: int, site: Flask, start: Any, tmp_path: Path, wait_for: Callable[[int], None]
) -> None:
    both = 2 * each
    many = 20 * both
    start("v1")
    start("v1", queue="held")
    start("v2", moved="# a comment\n" * 7)
    gate = tmp_path / "gate"
    for queue in ("v1", "v2"):
        for bug in range(20):
            _fail(queue, bug, each)
    wait_for(many)
    counted = rows("SELECT count(*), min(number), max(number) FROM opsjobs.failures")
    assert counted == [(20, both, both)]
    deploys = "SELECT d.version, sum(f.number)::int FROM opsjobs.failure_deploys f"
    deploys += " JOIN opsjobs.deploys d ON d.id = f.deploy_id GROUP BY 1 ORDER BY 1"
    assert rows(deploys) == [("v1", 20 * each), ("v2", 20 * each)]
    # It starts before the fix, and will be recorded after it and after the next deploy.
    _fail("held", 1, gate=gate)
    wait_until(lambda: rows("SELECT 1 FROM opsjobs.jobs WHERE state = 'started'"), 120)

    ids = [id for (id,) in rows("SELECT id FROM opsjobs.failures")]
    host_module.opsjobs.operator.resolve_failure(
        ids, "next", actor="ada", reason="the next deploy has the fix"
    )
    _fail("v1", 0)
    _fail("v2", 2)
    wait_for(many + 2)
    assert _states() == {"resolved": 20}

    start("v3")
    _fail("v3", 3)
    wait_for(many + 3)
    found = "SELECT d.version, f.number FROM opsjobs.failures f"
    found += " JOIN opsjobs.deploys d ON d.id = f.regressed_in WHERE f.state = 'open'"
    assert rows(found) == [("v3", both + 1)]
    gate.touch()
    wait_for(many + 4)
    assert _states() == {"resolved": 19, "open": 1}
