"""Measures whole runs on real workers: how soon the next step starts, and how long a graph takes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import text

from flask_opsjobs.testing.valkey import Valkey
from tests.support.database import Databases
from tests.support.waiting import wait_until

LAYERS, WIDTH = 20, 100


def measure(databases: Databases, rounds: int, latencies: int) -> None:
    """Print all of it. Each part has an empty database of its own."""
    with Valkey() as valkey:
        for part in (partial(_print_latencies, latencies), partial(_print_graphs, rounds)):
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
    with app.app_context(), processes(1), tempfile.TemporaryDirectory() as folder:
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


def time_graphs(number: int) -> list[float]:
    """Seconds of so many graphs, from the commit to the last outcome: `LAYERS` with `WIDTH` steps each.

    The processes run already. The first one finds them starting and does not count.
    """
    from tools.bench.host import create_app, db, noop, opsjobs

    took = []
    app = create_app()
    with app.app_context():
        for each in range(number + 1):
            flow = opsjobs.workflow("layers")
            before: list[Any] = []
            for layer in range(LAYERS):
                steps = []
                for place in range(WIDTH):
                    after = [before[place], before[(place + 1) % WIDTH]] if before else []
                    steps.append(flow.step(f"{layer} {place}", noop, number=place, after=after))
                before = steps
            flow.start()
            began = time.monotonic()
            db.session.commit()
            _wait_until_done(db, (each + 1) * LAYERS * WIDTH)
            took.append(time.monotonic() - began)
        db.session.remove()
        db.engine.dispose()
    return took[1:]


def _print_graphs(rounds: int) -> None:
    """How long a whole graph takes."""
    with processes(1, "--processes", "2"):
        seconds = statistics.median(time_graphs(rounds))
    what = f"{LAYERS * WIDTH:,} steps in {LAYERS} layers, 2 edges each, two children"
    print(f"\n{what:56}{seconds:7.2f} s{'≤ 1.5 s':>9}", flush=True)


@contextmanager
def processes(workers: int, *words: str) -> Iterator[None]:
    """The loops and so many workers, each with these words on its command line."""
    app = [sys.executable, "-m", "flask", "--app", "tools.bench.host:create_app", "opsjobs"]
    null = subprocess.DEVNULL
    commands = [["run"], *[["worker", *words]] * workers]
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
