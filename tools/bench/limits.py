"""Measures limits for the bench: rates of starts with eight workers, and passes over a thousand lanes."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import text

from flask_opsjobs.testing.postgres import TemporaryPostgres
from flask_opsjobs.testing.valkey import Valkey
from tests.support.database import Databases
from tests.support.waiting import wait_until

WORKERS = 8
# (name, rate, per, burst): the default burst is the rate; of a burst of 1 every late start is lost.
RATES = (
    ("10 a second, burst 10", 10, 1, 10),
    ("10 a second, burst 1", 10, 1, 1),
    ("100 a second, burst 100", 100, 1, 100),
    ("60 a minute, burst 1", 60, 60, 1),
)


class Servers:
    """A durable Postgres and a Valkey for a run."""

    def __init__(self) -> None:
        self.postgres = TemporaryPostgres(durable=True)
        self.postgres.start()
        self.valkey = Valkey()
        self.valkey.start()
        self.databases = Databases(self.postgres.url())

    def prepare(self, limit: str) -> None:
        """An empty database and Redis, named in the environment, with the limit that the host declares."""
        self.valkey.flushall()
        url = self.databases.migrated()
        os.environ["BENCH_DATABASE_URL"] = url.render_as_string(hide_password=False)
        os.environ["BENCH_REDIS_URL"] = self.valkey.url
        os.environ["BENCH_LIMIT"] = limit

    def close(self) -> None:
        """Stop them."""
        self.databases.close()
        self.postgres.close()
        self.valkey.close()


def measure(seconds: float) -> None:
    """Print all of it."""
    servers = Servers()
    try:
        print(f"\n{WORKERS} workers against one limiter for {seconds:g} s, work always waiting")
        print(
            f"{'':32}{'started':>9}{'of at most':>12}{'of the rate':>13}{'over in any second':>20}"
        )
        for name, rate, per, burst in RATES:
            servers.prepare(f"{rate},{per},{burst},")
            print(f"{name:32}" + _apart("rate", rate / per, burst, seconds), flush=True)
        servers.prepare("1,3600,1,")
        print(_apart("lanes", 1_000))
    finally:
        servers.close()


def _apart(*what: object) -> str:
    """One measurement in a process of its own, which imports the host with its limit."""
    command = [sys.executable, "-m", "tools.bench.limits", *map(str, what)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(done.stdout + done.stderr)
    return done.stdout.rstrip("\n")


def _rate(speed: float, burst: int, seconds: float) -> str:
    from tools.bench.host import create_app, db, limited

    app = create_app()
    with app.app_context():
        count = int(burst + speed * (seconds + 30) * 1.2)
        limited.enqueue_many({"account": 0} for _ in range(count))
        db.session.commit()
        children = [_flask("run"), *(_flask("worker") for _ in range(WORKERS))]
        try:
            wait_until(lambda: _scalar(db, "SELECT count(*) FROM opsjobs.attempts") > 0, 60)
            first = _scalar(db, "SELECT min(started_at) FROM opsjobs.attempts")
            asked = "SELECT extract(epoch FROM clock_timestamp() - :first)"
            wait_until(lambda: _scalar(db, asked, first=first) > seconds + 1, seconds + 60)
        finally:
            for child in children:
                child.terminate()
            for child in children:
                child.wait(30)
        rows = db.session.execute(
            text("SELECT started_at FROM opsjobs.attempts ORDER BY started_at")
        )
        starts = [(row[0] - first).total_seconds() for row in rows]
        db.session.remove()
        db.engine.dispose()
    return _judge([start for start in starts if start <= seconds], speed, burst, seconds)


def _judge(starts: Sequence[float], speed: float, burst: int, seconds: float) -> str:
    """What started, against what may: from a full bucket, and in any window of one second."""
    most = burst + speed * seconds
    # Behind the first burst the rate alone counts.
    steady = [start for start in starts if start > 5]
    share = len(steady) / (speed * (seconds - 5))
    worst, low = 0, 0
    for high, start in enumerate(starts):
        while start - starts[low] >= 1:
            low += 1
        worst = max(worst, high - low + 1)
    over = max(0.0, worst - (burst + speed))
    return f"{len(starts):9,}{most:12,.0f}{share:13.1%}{over:20.2f}"


def _lanes(count: int) -> None:
    """How long a pass of the dispatch loop takes over so many full lanes,
    and whether another job starts at once.
    """
    from flask_opsjobs.core.db import connect_apart
    from flask_opsjobs.core.reading import read_clock
    from flask_opsjobs.engine.dispatch.dispatch import Dispatcher
    from flask_opsjobs.engine.worker.runtime import declare_limiters
    from tools.bench.host import create_app, db, limited

    app = create_app()
    with app.app_context():
        host = app.extensions["opsjobs"]
        declare_limiters(host, "bench")
        limited.enqueue_many({"account": n % count} for n in range(count * 20))
        limited.enqueue_many({"account": count} for _ in range(100_000))
        db.session.commit()
        connection = connect_apart(host.engine)
        connection.execute(
            "INSERT INTO opsjobs.buckets (limiter, partition, tokens, refilled_at, last_used_at)"
            " SELECT 'api', n::text, 0, clock_timestamp(), clock_timestamp()"
            " FROM generate_series(0, %s) n",
            [count],
        )
        connection.execute("VACUUM ANALYZE opsjobs.jobs")
        dispatcher = Dispatcher(connection, host.broker, host.settings)
        took = [
            _timed(lambda: dispatcher.dispatch_all(read_clock(connection)), 0) for _ in range(30)
        ]
        print(f"\n{count:,} full lanes and one of 100,000 waiters: a pass takes {_ms(took)}")
        began = time.perf_counter()
        limited.enqueue(account=count + 1)
        db.session.commit()
        one = (time.perf_counter() - began) * 1000
        dispatched = _scalar(db, "SELECT count(*) FROM opsjobs.jobs WHERE state = 'queued'")
        print(f"one job of another partition, enqueued and dispatched ({dispatched}): {one:.1f} ms")
        connection.close()
        db.session.remove()
        db.engine.dispose()


def _timed(act: Any, expected: int) -> float:
    began = time.perf_counter()
    found = act()
    assert found == expected, found
    return (time.perf_counter() - began) * 1000


def _ms(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.1f} ms (worst {max(values):.1f})"


def _flask(*command: str) -> subprocess.Popen[bytes]:
    app = [sys.executable, "-m", "flask", "--app", "tools.bench.host:create_app", "opsjobs"]
    null = subprocess.DEVNULL
    return subprocess.Popen([*app, *command], stdout=null, stderr=null)


def _main(what: str, *numbers: str) -> None:
    if what == "rate":
        print(_rate(float(numbers[0]), int(numbers[1]), float(numbers[2])))
    elif what == "lanes":
        _lanes(int(numbers[0]))
    else:
        measure(float(numbers[0]))


def _scalar(db: Any, statement: str, **values: Any) -> Any:
    with db.engine.connect() as connection:
        return connection.execute(text(statement), values).scalar()


if __name__ == "__main__":
    _main(*sys.argv[1:])
