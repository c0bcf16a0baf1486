"""A process that dies in the middle of a slot, or of an end that releases one:
all of it is there, or nothing.
"""

from __future__ import annotations

import signal
from datetime import timedelta
from typing import Any

import pytest

from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.cron.conftest import START, Scheduler
from tests.support.processes import Children
from tests.support.waiting import wait_until

pytestmark = pytest.mark.chaos

DIES = """
import os, signal
from datetime import datetime, timedelta
from flask_opsjobs.cron import transitions
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.loops import cron
from flask_opsjobs.loops.loop import Runner
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


@pytest.mark.parametrize("act", ["write_result", "move_on"])
def test_killed_before_its_commit_it_leaves_nothing_and_another_runs_the_slot(
    children: Children, scheduler: Scheduler, act: str
) -> None:
    script = DIES.format(start=START.isoformat(), act=act)
    child = children.python("-c", script)
    assert child.wait(30) == -signal.SIGKILL
    assert scheduler.jobs() == []
    assert scheduler.slots("add") == []

    from tests.support.host import add

    # What that process declared, in one that lives.
    scheduler.bench.host.tasks["add"] = add
    ten = START.replace(minute=10)
    wait_until(lambda: scheduler.look(ten) or scheduler.slots("add"), what="the slot to be free")
    assert scheduler.slots("add") == [("12:10", "ran", 1)]
    assert len(scheduler.jobs()) == 1


ENDS = """
import os, signal
from flask_opsjobs import endings
from flask_opsjobs.cron import transitions
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.jobs.perform.outcomes import Outcome
from tests.support.host import create_app
connection = connect_apart(create_app().extensions["opsjobs"].engine)
release = transitions.release
def die(*args):
    assert release(*args)
    os.kill(os.getpid(), signal.SIGKILL)
transitions.release = die
ending = endings.EndedAttempt({job_id}, 1, {worker_id}, "dies", Outcome(kind="returned"))
endings.write_outcomes(connection, [ending], read_clock(connection))
"""


def test_killed_with_the_end_that_releases_it_a_follow_up_waits_on_for_the_next_end(
    children: Children, every_ten: Any
) -> None:
    scheduler = every_ten(overlap="queue_one")
    bench, minute = scheduler.bench, timedelta(minutes=1)
    scheduler.look(START + 10 * minute)
    (first,) = scheduler.jobs()
    bench.dispatch()
    bench.claim(first["id"])
    scheduler.look(START + 20 * minute)
    script = ENDS.format(job_id=first["id"], worker_id=bench.worker_id)
    assert children.python("-c", script).wait(30) == -signal.SIGKILL

    def states() -> list[str]:
        return [job["state"] for job in scheduler.jobs()]

    # Its locks go with its connection; a sweep releases nobody while the first has not ended.
    scheduler.look(START + 21 * minute)
    assert states() == ["started", "deferred"]
    assert bench.record(first["id"], 1, Outcome(kind="returned"))
    assert states() == ["finished", "available"]
    assert scheduler.slots() == [("12:10", "ran", 1), ("12:20", "queued_behind", 1)]
