"""Measures for the bench whole runs on real workers: how soon the next step starts, and the throughput."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import text

from flask_opsjobs.testing.valkey import Valkey
from tests.support.database import Databases
from tests.support.waiting import wait_until

LAYERS, WIDTH = 20, 100
WORKERS = 2


def measure(databases: Databases, rounds: int, latencies: int) -> None:
    """Print all of it. Each part has an empty database of its own."""
    with Valkey() as valkey:
        for part in (partial(_print_latencies, latencies), partial(_print_throughput, rounds)):
            valkey.flushall()
            url = databases.migrated()
            os.environ["BENCH_DATABASE_URL"] = url.render_as_string(hide_password=False)
            os.environ["BENCH_REDIS_URL"] = valkey.url
            part()
            databases.drop(url)


def _print_latencies(number: int) -> None:
    """From the end of a step to the start of the next, and from a commit to the start of a plain job."""
    from tools.bench.host import create_app, db, opsjobs, stamp

    app = create_app()
    plain, step = [], []
    with app.app_context(), _processes(1), tempfile.TemporaryDirectory() as folder:
        for each in range(number + 3):
            path = f"{folder}/plain-{each}"
            began = time.monotonic()
            stamp.enqueue(path=path)
            db.session.commit()
            plain.append(_stamped(path) - began)
            _wait_until_idle(db, 3 * each + 1)
            flow = opsjobs.workflow("two")
            first = flow.step("first", stamp, path=f"{folder}/first-{each}")
            flow.step("second", stamp, path=f"{folder}/second-{each}", after=[first])
            flow.start()
            db.session.commit()
            ended = _stamped(f"{folder}/first-{each}")
            step.append(_stamped(f"{folder}/second-{each}") - ended)
            _wait_until_idle(db, 3 * each + 3)
        db.session.remove()
        db.engine.dispose()
    # The first find the worker starting.
    before, after = (statistics.median(values[3:]) * 1000 for values in (plain, step))
    print("\nOn one idle worker, p50")
    print(f"{'from the commit of a plain job to its start':56}{before:7.1f} ms")
    print(f"{'from the end of a step to the start of the next':56}{after:7.1f} ms")
    print(f"{'more':56}{after - before:7.1f} ms{'≤ 3 ms':>9}", flush=True)


def _print_throughput(rounds: int) -> None:
    """2,000 plain jobs, and a graph of as many steps, in turn on the same workers."""
    from tools.bench.host import create_app, db, noop, opsjobs

    number = LAYERS * WIDTH

    def graph() -> None:
        flow = opsjobs.workflow("layers")
        before: list[Any] = []
        for layer in range(LAYERS):
            steps = []
            for place in range(WIDTH):
                after = [before[place], before[(place + 1) % WIDTH]] if before else []
                steps.append(flow.step(f"{layer} {place}", noop, number=place, after=after))
            before = steps
        flow.start()

    cases: tuple[tuple[str, Callable[[], object]], ...] = (
        ("plain", lambda: noop.enqueue_many({"number": n} for n in range(number))),
        ("graph", graph),
    )
    took: dict[str, list[float]] = {"plain": [], "graph": []}
    app = create_app()
    done = 0
    with app.app_context(), _processes(WORKERS):
        for each in range(rounds + 1):
            for name, enqueue in cases if each % 2 else cases[::-1]:
                enqueue()
                began = time.monotonic()
                db.session.commit()
                done += number
                _wait_until_done(db, done)
                if each:  # the first find the workers starting
                    took[name].append(time.monotonic() - began)
        db.session.remove()
        db.engine.dispose()
    ratio = statistics.median(
        plain / graph for plain, graph in zip(took["plain"], took["graph"], strict=True)
    )
    print(f"\n{number:,} jobs on {WORKERS} workers, jobs a second")
    for name, what in (("plain", "plain"), ("graph", f"steps in {LAYERS} layers, 2 edges each")):
        print(f"{what:56}{number / statistics.median(took[name]):7,.0f}")
    print(f"{'throughput of the steps, as a ratio':56}{ratio:7.2f}{'≥ 0.7':>9}", flush=True)


@contextmanager
def _processes(workers: int) -> Iterator[None]:
    """The loops and so many workers."""
    app = [sys.executable, "-m", "flask", "--app", "tools.bench.host:create_app", "opsjobs"]
    null = subprocess.DEVNULL
    commands = [["run"], *[["worker"]] * workers]
    children = [subprocess.Popen([*app, *each], stdout=null, stderr=null) for each in commands]
    try:
        yield
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait(30)


def _stamped(path: str) -> float:
    wait_until(lambda: os.path.exists(path), 60, what="the job has started", every=0.001)
    return float(Path(path).read_text())


def _wait_until_idle(db: Any, number: int) -> None:
    """Until every outcome is written, and so long ago that the worker does not collect the next ones."""
    _wait_until_done(db, number)
    time.sleep(0.05)


def _wait_until_done(db: Any, number: int) -> None:
    ended = text("SELECT count(*) FROM opsjobs.jobs WHERE state = 'finished'")

    def is_done() -> bool:
        with db.engine.connect() as connection:
            return bool(connection.execute(ended).scalar() == number)

    wait_until(is_done, 300, what=f"{number} jobs have finished", every=0.02)
