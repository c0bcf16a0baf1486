"""`flask opsjobs workers`: what a real worker tells of its children."""

from __future__ import annotations

import json
import re
import signal
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from psycopg.types.json import Jsonb

from flask_opsjobs.cli import opsjobs as group
from flask_opsjobs.workers.pool_report import ChildReport, PoolReport
from tests.support import host as host_module
from tests.support.engine import Bench
from tests.support.processes import Child, Children
from tests.support.waiting import wait_until

pytestmark = pytest.mark.processes


def _list(app: Flask, *options: str) -> Result:
    return app.test_cli_runner().invoke(group, ["workers", *options])


def _found(app: Flask) -> dict[str, Any]:
    (worker,) = json.loads(_list(app, "--json").output)["workers"]
    return dict(worker)


def _start(children: Children, *options: str) -> Child:
    # What a worker tells comes with its heartbeat.
    config = {"OPSJOBS_HEARTBEAT_SECONDS": 0.5, "OPSJOBS_VERSION": "2026.11.3"}
    worker = children.flask("opsjobs", "worker", "default", *options, **config)
    worker.wait_for("listens to", 30)
    return worker


def test_the_children_of_a_worker(
    site: Flask, children: Children, bench: Bench, tmp_path: Path
) -> None:
    bench.connection.execute("DELETE FROM opsjobs.workers")
    _start(children, "--processes", "2")
    gate = str(tmp_path / "gate")
    job = host_module.hold.enqueue(gate=gate)
    for number in range(3):
        host_module.add.enqueue(a=1, b=number)
    host_module.db.session.commit()
    wait_until(lambda: bool(_found(site)["attempts"]), 30)
    wait_until(lambda: sum(child["jobs"] for child in _found(site)["children"]) == 3, 30)
    found = _found(site)
    assert (found["kind"], found["state"], found["processes"]) == ("pool", "alive", 2)
    assert (found["version"], found["deploy_version"]) == (version("flask-opsjobs"), "2026.11.3")
    assert len(found["children"]) == 2
    (attempt,) = found["attempts"]
    assert (attempt["job_id"], attempt["task"]) == (job.id, "hold")
    busy = {child["pid"]: child for child in found["children"]}[attempt["pid"]]
    assert (busy["job_id"], busy["task"]) == (job.id, "hold")
    assert busy["rss_kb"] > 1000
    said = _list(site).output
    assert re.search(
        r"-\w+ is alive, pid \d+ on \S+, version 2026\.11\.3, queues default\. Last", said
    )
    assert re.search(r" jobs a second, [\d.]+ taken from Postgres, [\d.]+ through RQ, 0 re", said)
    assert re.search(rf"  {attempt['pid']} runs job {job.id} hold for .+, \d done, [\d.]+ MB", said)
    assert re.search(r"  \d+ idle, \d done, ", said)
    assert bench.attempt(job.id)["pid"] == attempt["pid"]
    Path(gate).touch()


def test_why_a_child_left(site: Flask, children: Children, bench: Bench) -> None:
    bench.connection.execute("DELETE FROM opsjobs.workers")
    _start(children, "--jobs-per-process", "1")
    for number in range(2):
        host_module.add.enqueue(a=1, b=number)
    host_module.fail.options(max_attempts=1).enqueue()
    host_module.db.session.commit()

    def left() -> dict[str, int]:
        return {each["kind"]: each["count"] for each in _found(site)["left"]}

    # RQ's maintenance costs a process too.
    wait_until(lambda: left().get("jobs", 0) >= 2, 30, what="two children to leave")
    said = _list(site).output
    assert re.search(r"  the last child left .+ ago: it has performed 1 job\n", said)
    assert "children left today" not in said  # nothing is wrong
    counted = "SELECT jobs_finished, jobs_failed, work_seconds > 0 AS worked FROM opsjobs.workers"
    ended = {"jobs_finished": 2, "jobs_failed": 1, "worked": True}
    wait_until(lambda: bench.row(counted) == ended, 30, what="three jobs to be counted")


def test_self_tells_whether_the_worker_of_this_container_is_well(
    site: Flask, children: Children, bench: Bench
) -> None:
    # The bench's worker is of another machine.
    assert _list(site).exit_code == 0
    none = _list(site, "--self")
    assert (none.exit_code, none.output) == (
        1,
        "no worker runs on this machine or in this container\n",
    )
    worker = _start(children)
    assert _list(site, "--self").exit_code == 0
    worker.signal(signal.SIGTERM)
    assert worker.wait(20) == 0
    assert _list(site, "--self").exit_code == 1


def test_a_worker_whose_children_do_not_start(site: Flask, bench: Bench) -> None:
    left = {"task": None, "kind": "hook", "sentence": "could not start", "count": 7}
    bench.connection.execute(
        "UPDATE opsjobs.workers SET left_children = %s",
        [Jsonb([left | {"at": "2026-11-25T13:50:00+00:00"}])],
    )
    _, none, why = _list(site).output.splitlines()
    assert none == "  none of its children starts; it tries again after at most 30 s"
    assert why == "  7 children left today: the last one could not start."


def test_a_draining_worker_says_who_drained_it(site: Flask, bench: Bench) -> None:
    bench.connection.execute(
        "UPDATE opsjobs.workers SET drain_requested_at = now(), drain_requested_by = 'anna'"
    )
    says = _list(site).output.splitlines()[-1]
    assert re.fullmatch(
        r"  anna drained it .+ ago: it takes nothing new, and stops when its jobs have ended", says
    )


def test_a_missing_worker_has_no_children_any_more(site: Flask, bench: Bench) -> None:
    """What its last heartbeat told of them is not true any more."""
    pool = PoolReport([ChildReport(2211, jobs=7), ChildReport(2212, jobs=3)], 41.0, 41.0, 0.0)
    bench.connection.execute(
        "UPDATE opsjobs.workers SET pool = %s, state = 'missing', ended_at = now()",
        [Jsonb(pool.to_json())],
    )
    (line,) = _list(site).output.splitlines()
    assert " is missing, " in line
    assert "jobs a second" not in line
    bench.connection.execute("UPDATE opsjobs.workers SET state = 'alive', ended_at = NULL")
    assert len(_list(site).output.splitlines()) == 3


def test_the_workers_of_a_queue_or_machine_are_drained_and_stopped(
    site: Flask, bench: Bench
) -> None:
    why = ("--reason", "because it is a test")
    drained = _list(site, "drain", "--queue", "default", "--host", "here", *why)
    assert drained.exit_code == 0, drained.output
    assert drained.output.startswith("Drain worker worker-1: done")
    stopped = _list(site, "stop", "worker-1", "--grace", "60", *why)
    assert "state: alive → stopped, after at most 60 seconds" in stopped.output
    nobody = _list(site, "stop", "--host", "web-9", *why)
    assert (nobody.exit_code, nobody.output) == (
        1,
        "Error: no worker that can be stopped runs on web-9: see `flask opsjobs workers`\n",
    )
    assert _list(site, "drain", *why).exit_code == 2
