"""A scheduler that dies in the middle of a slot: all of it is there, or nothing."""

from __future__ import annotations

import signal
import sys

import pytest

from tests.cron.conftest import START, Scheduler
from tests.support.processes import Children
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chaos

DIES = """
import os, signal
from datetime import datetime, timedelta
from flask_opsjobs.cron import transitions
from flask_opsjobs.db import connect_apart
from flask_opsjobs.loops import cron
from flask_opsjobs.loops.one_pass import Runner
from tests.support.host import add, create_app, opsjobs
opsjobs.cron("*/10 * * * *", args={{"a": 1, "b": 2}})(add)
app = create_app()
host = app.extensions["opsjobs"]
connection = connect_apart(host.engine)
start = datetime.fromisoformat("{start}")
runner = Runner(cron.LOOP, host, "dies")
runner.run_once(connection, start)
act = transitions.{act}
def die(*args):
    act(*args)
    os.kill(os.getpid(), signal.SIGKILL)
transitions.{act} = die
runner.run_once(connection, start + timedelta(minutes=10))
"""


@pytest.mark.parametrize("act", ["decide", "move_on"])
def test_killed_before_its_commit_it_leaves_nothing_and_another_runs_the_slot(
    children: Children, scheduler: Scheduler, act: str
) -> None:
    script = DIES.format(start=START.isoformat(), act=act)
    child = children.start(sys.executable, "-c", script)
    assert child.wait(30) == -signal.SIGKILL
    assert scheduler.jobs() == []
    assert scheduler.slots("add") == []

    from tests.support.host import add

    # What that process declared, in one that lives.
    scheduler.bench.host.workers["add"] = add
    ten = START.replace(minute=10)
    wait_until(lambda: scheduler.look(ten) or scheduler.slots("add"), what="the slot to be free")
    assert scheduler.slots("add") == [("12:10", "ran", 1)]
    assert len(scheduler.jobs()) == 1
