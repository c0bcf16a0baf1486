"""A worker that finds no pass of any loop for a minute says so once, and sends a signal."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask

from flask_opsjobs import signals
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.engine.worker.loops_watch import LoopsWatch
from flask_opsjobs.loops import LOOPS, Loop
from flask_opsjobs.loops.loop import Runner
from tests.support.engine import Bench
from tests.support.processes import Children

EXPIRE: Loop = next(loop for loop in LOOPS if loop.name == "expire")


def test_it_tells_once_that_they_are_silent_and_once_that_they_are_back(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    now = read_clock(bench.connection)
    watch, heard = LoopsWatch(bench.host, "worker-1"), list[dict[str, Any]]()

    def hear(sender: object, **facts: Any) -> None:
        assert sender is bench.host
        heard.append(facts)

    caplog.set_level(logging.WARNING)
    with signals.loops_silent.connected_to(hear):
        Runner(EXPIRE, bench.host).run_once(bench.connection, now)
        for seconds in (10, 59, 61, 71):
            watch.look(bench.connection, now + timedelta(seconds=seconds))
        assert heard == [{"worker": "worker-1", "last_at": now}]
        assert caplog.text.count("no loop has made a pass") == 1
        later = now + timedelta(seconds=80)
        Runner(EXPIRE, bench.host).run_once(bench.connection, later)
        for seconds in (81, 91):
            watch.look(bench.connection, now + timedelta(seconds=seconds))
        assert caplog.text.count("the loops make passes again") == 1
        watch.look(bench.connection, later + timedelta(seconds=61))
        assert [facts["last_at"] for facts in heard] == [now, later]


def test_a_receiver_that_raises_changes_nothing(bench: Bench) -> None:
    now = read_clock(bench.connection)
    watch = LoopsWatch(bench.host, "worker-1")

    def explode(_sender: object, **_facts: Any) -> None:
        raise RuntimeError("on purpose")

    with signals.loops_silent.connected_to(explode):
        watch.look(bench.connection, now)
        watch.look(bench.connection, now + timedelta(seconds=61))
        watch.look(bench.connection, now + timedelta(seconds=71))


def test_without_any_pass_a_minute_counts_from_the_first_heartbeat(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    now, watch = read_clock(bench.connection), LoopsWatch(bench.host, "worker-1")
    watch.look(bench.connection, now)
    watch.look(bench.connection, now + timedelta(seconds=59))
    assert "no loop" not in caplog.text
    watch.look(bench.connection, now + timedelta(seconds=60))
    assert "no loop has made a pass yet" in caplog.text


def test_a_worker_without_loops_says_so(app: Flask, bench: Bench, children: Children) -> None:
    """The loops ran until a minute ago, as far as Postgres knows."""
    Runner(EXPIRE, app.extensions["opsjobs"]).run_once(
        bench.connection, read_clock(bench.connection) - timedelta(seconds=61)
    )
    worker = children.flask("opsjobs", "worker", "default", OPSJOBS_HEARTBEAT_SECONDS=0.3)
    worker.wait_for("no loop has made a pass since", 60)
    Runner(EXPIRE, app.extensions["opsjobs"]).run_once(bench.connection)
    worker.wait_for("the loops make passes again", 60)
    assert worker.log.count("no loop has made a pass since") == 1
    assert worker.terminate(60) == 0
