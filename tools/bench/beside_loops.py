"""Measures managed jobs beside all loops, and beside those that were there before adopting and incidents.

Run by `tools/bench/run.py`, each measurement in a process of its own. Plain jobs rest in Redis in both.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from sqlalchemy import text

from tests.support.waiting import wait_until

_RESTING = 5_000
# The loops that came with adopting and incidents.
_NEW = ("adopt", "detect")
_RUN = """
import sys
from tools.bench.host import create_app
from flask_opsjobs import loops
from flask_opsjobs.loops.process import LoopsProcess
app = create_app()
chosen = [loop for loop in loops.LOOPS if loop.name not in sys.argv[1:]]
with app.app_context():
    host = app.extensions["opsjobs"]
    sys.exit(LoopsProcess(host, surround=app.app_context, loops=chosen).run(on_start=lambda: None))
"""


def throughput(kind: str, count: int) -> float:
    """Jobs a second of two children. `kind` is `before`, or `now` with the new loops."""
    from tools.bench.run import managed_run

    with _loops(kind):
        return managed_run("2x1000", count)


def latency(kind: str, count: int) -> float:
    """The median in ms from the commit of a job to its first line, on an idle worker."""
    from tools.bench.host import create_app, db, stamp
    from tools.bench.whole_workers import run_workers

    found = []
    with (
        _loops(kind),
        create_app().app_context(),
        run_workers(1),
        tempfile.TemporaryDirectory() as folder,
    ):
        for number in range(count + 3):
            path = Path(folder, str(number))
            began = time.monotonic()
            stamp.enqueue(path=str(path))
            db.session.commit()
            wait_until(path.exists, 60, what="the job has started", every=0.001)
            found.append(float(path.read_text()) - began)
        db.session.remove()
    # The first find the worker starting.
    return statistics.median(found[3:]) * 1000


@contextmanager
def _loops(kind: str) -> Iterator[None]:
    """Run the loops beside plain jobs that rest in Redis and have rows: an empty table would be faster."""
    from tools.bench.adopting import put_resting
    from tools.bench.host import create_app, db

    with Redis.from_url(os.environ["BENCH_REDIS_URL"]) as redis:
        put_resting(redis, "canceled", _RESTING)
    with run_loops(), create_app().app_context():

        def is_adopted() -> bool:
            db.session.rollback()
            count = db.session.scalar(text("SELECT count(*) FROM opsjobs.jobs"))
            return bool(count == _RESTING)

        wait_until(is_adopted, 120, what="the loops have adopted what rests")
        db.session.remove()
        # Autovacuum does it within a minute.
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM (ANALYZE) opsjobs.jobs"))
        db.engine.dispose()
    with run_loops(*(_NEW if kind == "before" else ())), create_app().app_context():

        def have_run() -> bool:
            db.session.rollback()
            runs = text("SELECT count(*) FROM opsjobs.loop_runs WHERE loop = 'dispatch'")
            return bool(db.session.scalar(runs) > 1)

        wait_until(have_run, 60, what="the loops have started")
        db.session.remove()
        yield


@contextmanager
def run_loops(*left_out: str) -> Iterator[None]:
    """Run all loops but these in a process of their own."""
    loops = subprocess.Popen([sys.executable, "-c", _RUN, *left_out])
    try:
        yield
    finally:
        loops.send_signal(signal.SIGTERM)
        loops.wait(30)
