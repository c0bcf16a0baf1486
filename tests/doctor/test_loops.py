"""The checks of the loops, with passes of real loops."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.jobs.record.task import Task
from flask_opsjobs.loops import LOOPS
from flask_opsjobs.loops.loop import Runner, every
from tests.doctor.conftest import Ask, shows
from tests.support.engine import Bench
from tests.support.waiting import wait_until

WHY: dict[str, Any] = {"actor": "ada", "reason": "because it is a test"}
LOOPS_BY_NAME = {loop.name: loop for loop in LOOPS}


def _pass(bench: Bench, name: str, ago: timedelta = timedelta()) -> None:
    now = read_clock(bench.connection) - ago
    Runner(LOOPS_BY_NAME[name], bench.host, "one").run_once(bench.connection, now)


@shows("loops.slow")
def test_a_pass_that_is_longer_than_its_interval(bench: Bench, ask: Ask) -> None:
    """It waits for somebody's lock on our table. So that the test is short, the interval is too."""
    runner = Runner(replace(LOOPS_BY_NAME["expire"], every_seconds=every(0.6)), bench.host, "one")
    runner.run_once(bench.connection)
    assert ask("loops.slow").state == "ok"
    with _locked(bench, seconds=0.8):
        runner.run_once(bench.connection)
    found = ask("loops.slow")
    assert (found.state, "expire took" in found.evidence) == ("warning", True), found
    runner.run_once(bench.connection)
    assert ask("loops.slow").state == "ok"


@contextmanager
def _locked(bench: Bench, seconds: float) -> Iterator[None]:
    """Somebody's transaction locks the table of the jobs for so long, from before the block on."""
    lock = "BEGIN; LOCK TABLE opsjobs.jobs; SELECT pg_sleep({}); COMMIT"
    seen = "SELECT FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND relation = 'opsjobs.jobs'::regclass"
    with closing(connect_apart(bench.host.engine)) as other:
        thread = threading.Thread(target=other.execute, args=(lock.format(seconds),))
        thread.start()
        wait_until(lambda: bench.rows(seen))
        yield
        thread.join()


@shows("loops.rollup_lag")
def test_charts_that_are_late(bench: Bench, ask: Ask) -> None:
    assert ask("loops.rollup_lag").state == "ok", "nothing was counted yet"
    _pass(bench, "roll_up", timedelta(minutes=7))
    assert ask("loops.rollup_lag").state == "warning"
    _pass(bench, "roll_up", timedelta(minutes=2))
    assert ask("loops.rollup_lag").state == "ok", "a minute is counted when it is over"


@shows("loops.cron")
def test_entries_without_the_loop_cron(bench: Bench, note: Task, ask: Ask) -> None:
    _pass(bench, "watch")
    assert ask("loops.cron").state == "ok", "there are no entries"
    entry: dict[str, Any] = {"task": note.name, "expression": "0 3 * * *", "zone": None}
    entry |= {"overlap": None, "catch_up": None, "args": {"text": ""}}
    operator = Operator(bench.host)
    operator.create_cron("nightly", entry, **WHY, authorize=False)
    found = ask("loops.cron")
    assert (found.state, "1 cron entry" in found.sentence) == ("error", True)
    _pass(bench, "cron", timedelta(hours=1))
    assert ask("loops.cron").state == "error", "it has stopped"
    _pass(bench, "cron")
    assert ask("loops.cron").state == "ok"
