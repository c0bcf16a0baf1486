"""A process that is killed in the middle of an integrity check leaves its rows as they were, or whole."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.lifeline.test_integrity import Keeper
from tests.support.engine import Bench
from tests.support.processes import Children
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chaos

KEEP_AND_HOLD = """
import signal
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.loops import check_integrity
from flask_opsjobs.loops.loop import Runner
from tests.support.host import create_app

count = check_integrity.integrity.count_rows

def hold(*_):
    print("holds", flush=True)
    signal.pause()

def count_and_hold(connection, now):
    with connection.transaction():  # so that its own does not commit
        assert count(connection, now)
        hold()

{patch}
host = create_app().extensions["opsjobs"]
connection = connect_apart(host.engine)
Runner(check_integrity.LOOP, host, "killed").run_once(connection, read_clock(connection))
"""
BEFORE_COMMIT = "check_integrity.integrity.count_rows = count_and_hold"
BEFORE_COMPARING = "check_integrity._compare = hold"


def stored(bench: Bench) -> list[dict[str, Any]]:
    return bench.rows("SELECT * FROM opsjobs.integrity_checks ORDER BY queue")


def keep_and_die(bench: Bench, children: Children, patch: str) -> None:
    child = children.python("-c", KEEP_AND_HOLD.format(patch=patch))
    child.wait_for("holds")
    child.kill()
    held = (
        "SELECT pid FROM pg_stat_activity"
        " WHERE state = 'idle in transaction' AND datname = current_database()"
    )
    wait_until(lambda: bench.rows(held) == [], 10)


@pytest.mark.parametrize("patch", [BEFORE_COMMIT, BEFORE_COMPARING], ids=["counted", "committed"])
def test_killed_in_the_middle_of_a_pass(
    patch: str, bench: Bench, record_job: Callable[..., int], children: Children
) -> None:
    keeper = Keeper(bench)
    record_job()
    before = keeper.look()["default"]
    bench.connection.execute(
        "UPDATE opsjobs.integrity_checks SET counted_at = counted_at - interval '1 hour',"
        " compared_at = compared_at - interval '1 hour'"
    )
    old = stored(bench)
    record_job()
    record_job(queue="mail")
    keep_and_die(bench, children, patch)
    found = stored(bench)
    if patch == BEFORE_COMMIT:
        assert found == old
    else:
        # Both queues of one count, and what was compared is as old as it was.
        assert [(row["queue"], row["stored"], row["enqueued"]) for row in found] == [
            ("default", 2, 2),
            ("mail", 1, 1),
        ]
        assert len({row["counted_at"] for row in found}) == 1
        assert found[0]["compared_at"] == old[0]["compared_at"]
    # Nobody waits for the dead: its lock went with it.
    after = keeper.look_twice()
    assert (before.stored, after["default"].stored, after["mail"].stored) == (1, 2, 1)
    assert all(check.is_balanced and check.compared_at == keeper.now for check in after.values())
