"""Measures p50 and p95 of every page, fragment and export, on a table of a million jobs or of ten.

The rows are copies of jobs that production wrote: see `bench_pages_rows`. The app is asked through Flask's
test client, so what is measured is ours and Postgres' and no network. Each request of a line asks for another
job or value. Exits 1 when a page answers something else than it should; a time over its aim is marked and is
no failure, since machines differ. How fast this one is, is told by plain RQ before and after some lines.
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
from flask import Flask
from flask.testing import FlaskClient

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.audit.transitions import Decision, append
from flask_opsjobs.core import sql
from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.failures import deploys
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.lifecycle import STATES
from flask_opsjobs.lifeline import loop_runs
from flask_opsjobs.loops import LOOPS
from flask_opsjobs.loops.loop import Runner
from flask_opsjobs.testing.postgres import TemporaryPostgres
from flask_opsjobs.testing.valkey import Valkey
from flask_opsjobs.workers import transitions as workers
from tests.support.database import Databases
from tools.bench_pages import composition, control, rows
from tools.bench_pages.paths import METRICS_TOKEN, Ask, Known, asks

# For the metrics; no page looks at it.
_HEADERS = {"Authorization": f"Bearer {METRICS_TOKEN}"}
WARM, EXPORTED = 3, 1_000
# Each request is made so often: the quickest tells what it takes without what else the machine does.
REPEATED = 3
# No-op jobs a second of plain RQ's SimpleWorker on the machine that the aims were set for: it did 330 to 440.
AIMED_PACE = 385
# Between two measurements of the pace, which changes within minutes.
LINES = 6
WORKERS, EVENTS = 12, 5_000
# These would move the copies, of which Redis knows nothing. The others only count, and run.
_MOVE = ("dispatch", "stage", "expire", "watch", "recall", "observe", "retain")
# The newest of a state, and the next after each of some places of the table.
_SOME = """
    (SELECT id FROM opsjobs.jobs WHERE state = %(state)s ORDER BY id DESC LIMIT 60) UNION
    SELECT next.id FROM generate_series(0, %(last)s - %(step)s, %(step)s) AS place, LATERAL (
        SELECT id FROM opsjobs.jobs WHERE state = %(state)s AND id > place ORDER BY state, id LIMIT 1) AS next
"""
REASON = "customer {} called, and the bank is well again"


@contextmanager
def servers() -> Iterator[dict[str, str]]:
    """An empty database of our schema and a Valkey, as the environment that names them."""
    with TemporaryPostgres() as postgres, Valkey() as valkey:
        databases = Databases(postgres.url())
        try:
            url = databases.migrated().render_as_string(hide_password=False)
            yield {"BENCH_DATABASE_URL": url, "BENCH_REDIS_URL": valkey.url}
        finally:
            databases.close()


def fill(app: Flask, wanted: int) -> Known:
    """All that pages read: jobs, workers, loops, numbers, decisions and previews."""
    host: Host = app.extensions["opsjobs"]
    command = [sys.executable, "-m", "tools.bench_pages.sample"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    connection = connect_apart(host.engine)
    try:
        rows.fill(connection, wanted)
        rows.require_like_sample(connection)
        composition.fill(connection, wanted)
        _mark_deploys(connection)
        _live_workers(connection)
        _run_loops(host, connection)
        _decide(host, connection)
        # Autovacuum does this to a table that grows in production.
        connection.execute("VACUUM (ANALYZE)")
        return _known(host, connection, wanted)
    finally:
        connection.close()


def _mark_deploys(connection: psycopg.Connection[Any]) -> None:
    """One a day in the last month."""
    now = read_clock(connection)
    for day in range(30, 0, -1):
        deploys.mark(connection, f"2026.10.{31 - day}", now - timedelta(days=day), actor="ci")


def _live_workers(connection: psycopg.Connection[Any]) -> None:
    """As many as hold the started jobs, and some that are idle."""
    now = read_clock(connection)
    started = connection.execute("SELECT id, dispatch_no FROM opsjobs.jobs WHERE state = 'started'")
    held = [f"{job_id}-{number}" for job_id, number in started.fetchall()]
    queues = ["billing", "crm", "default", "mail", "reports"]
    for number in range(WORKERS):
        host, pid = f"web-{number % 3}", 2_000 + number
        process = workers.WorkerProcess(
            name=f"{host}-{pid}-c0ffee",
            host=host,
            pid=pid,
            version="0.1",
            deploy_version="2026.11.3",
            queues=queues,
        )
        worker_id = workers.register(connection, process, now)
        reserved = held[number : number + 1]
        workers.record_heartbeat(
            connection,
            worker_id,
            workers.HeartbeatReport(1, reserved=reserved, rss_kb=84_000, counts={"finished": 61}),
            now,
        )
        if reserved:
            statement = "UPDATE opsjobs.jobs SET worker_id = %s WHERE id = %s"
            connection.execute(statement, [worker_id, int(reserved[0].split("-")[0])])


def _run_loops(host: Host, connection: psycopg.Connection[Any]) -> None:
    """Let those that count do it to the end; of the others, only say that they ran."""
    for loop in LOOPS:
        if loop.name in _MOVE:
            every = loop.every_seconds(host.settings)
            note = loop_runs.Note(
                loop.name, "web-0-17", every, 0.014, "nothing to do", is_idle=True
            )
            loop_runs.note_pass(connection, None, note, read_clock(connection))
            continue
        runner, began = Runner(loop, host), time.monotonic()
        while runner.run_once(connection):
            pass
        assert runner.last_error is None, f"loop {loop.name}: {runner.last_error}"
        print(f"loop {loop.name} counted for {time.monotonic() - began:.1f} s")
    # As the loop of retention leaves them.
    old = {"before": read_clock(connection) - timedelta(days=3), "limit": None}
    connection.execute(sql.load("retain_task_minutes"), old)


def _decide(host: Host, connection: psycopg.Connection[Any]) -> None:
    """Decisions by the writer of the audit, and two by the operator's door: one shown, one carried out."""
    now = read_clock(connection)
    with connection.transaction():
        for number in range(EVENTS):
            is_job, is_done = number % 10 > 0, number % 7 > 0
            target = f"job/{number * 199 + 1}" if is_job else "queue/mail"
            action = "job.retry" if is_job else "queue.pause"
            decision = Decision(
                at=now,
                actor=f"person-{number % 40}" if number % 3 else "ops-demo",
                via="page",
                action=action,
                subject=target,
                targets=(target,),
                permission=action,
                outcome="done" if is_done else "refused",
                code=None if is_done else "drifted",
                reason=REASON.format(number),
                before={"state": "failed"},
                after={"state": "available"},
            )
            append(connection, host.secrets, decision)
    control.fill(host, connection, now)
    operator = Operator(host)
    found = connection.execute("SELECT id FROM opsjobs.jobs WHERE state = 'failed' LIMIT 200")
    failed = [f"job/{job_id}" for (job_id,) in found.fetchall()]
    operator.preview("job.retry", failed[:100], actor="tester", via="page")
    shown = operator.preview("job.retry", failed[100:], actor="tester", via="page")
    operator.execute(shown.id, shown.token, actor="tester", reason=REASON.format(42))


def _known(host: Host, connection: psycopg.Connection[Any], wanted: int) -> Known:
    def ids(statement: str, values: Any = None) -> list[Any]:
        return [found for (found,) in connection.execute(statement, values).fetchall()]

    by_state = {
        state: ids(_SOME, {"state": state, "step": wanted // 60, "last": wanted})
        for state in STATES
    }
    return Known(
        host.secrets,
        wanted,
        by_state,
        ids("SELECT DISTINCT queue FROM opsjobs.jobs WHERE state = 'available'"),
        list(rows.TASKS),
        ids("SELECT id FROM opsjobs.previews"),
        ids("SELECT id FROM opsjobs.failures ORDER BY number DESC"),
        ids("SELECT max(sequence) FROM opsjobs.audit_events")[0],
        rows.ACCOUNTS,
    )


@dataclass(frozen=True)
class Measured:
    """Milliseconds of each request and its repetitions, what was answered, and the last answer's size."""

    ask: Ask
    took: list[list[float]]
    answers: set[int]
    size: int

    @property
    def p95(self) -> float:
        """95 of 100 took no longer."""
        return _p95([one for each in self.took for one in each])

    @property
    def quick_p95(self) -> float:
        """The same, of the quickest of each request."""
        return _p95(list(map(min, self.took)))

    @property
    def is_right(self) -> bool:
        """Whether each answered what it should."""
        return self.answers == {self.ask.answer}

    def line(self, pace: float) -> str:
        """The line of the table. The last of the times is what the machine of the aims would take."""
        aim = self.ask.aim_ms
        note = "" if self.is_right else f"  answered {sorted(self.answers)}"
        at_aimed = self.quick_p95 * pace / AIMED_PACE
        judged = {"p95": self.p95, f"at {AIMED_PACE}": at_aimed}
        over = [name for name, took in judged.items() if aim is not None and took > aim]
        marks = f"  OVER: {', '.join(over)}" if over else ""
        p50 = statistics.median(one for each in self.took for one in each)
        times = f"{p50:9.1f}{self.p95:9.1f}{self.quick_p95:9.1f}{pace:6.0f}{at_aimed:9.1f}"
        return f"{self.ask.name:72}{times}{aim or '-':>6}{self.size / 1024:8.0f}{marks}{note}"


def measure(client: FlaskClient, ask: Ask, times: int) -> Measured:
    """Ask for so many things, and for each `REPEATED` times, one round after the other."""
    took: list[list[float]] = [[] for _ in range(times)]
    answers, size = set(), 0
    for number in (*range(WARM), *[*range(times)] * REPEATED):
        path = ask.path(number)
        began = time.perf_counter()
        response = client.get(path, headers=_HEADERS, buffered=False)
        size = _read(response, ask.is_export)
        took[number % times].append((time.perf_counter() - began) * 1000)
        response.close()
        answers.add(response.status_code)
    warm = (each[-REPEATED:] for each in took)
    return Measured(ask, list(warm), answers, size)


def _p95(took: list[float]) -> float:
    return sorted(took)[int(len(took) * 0.95)]


def _read(response: Any, is_export: bool) -> int:
    """How many bytes; of an export those of its first rows, where a reader may stop."""
    size = lines = 0
    for chunk in response.iter_encoded():
        size += len(chunk)
        lines += chunk.count(b"\n")
        if is_export and lines > EXPORTED:
            break
    return size


def main() -> int:
    """Fill, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--times", type=int, default=20, help=f"requests of each line, made {REPEATED} times each"
    )
    parser.add_argument("--only", default="", help="lines that begin so, or so: a,b")
    chosen = parser.parse_args()
    began = time.monotonic()
    with servers() as places:
        os.environ.update(places)
        from tools.bench_pages.host import create_app

        app = create_app()
        known = fill(app, chosen.rows)
        print(f"{chosen.rows:,} jobs, made in {time.monotonic() - began:.0f} s", flush=True)
        wrong = _measure_all(app, known, chosen)
        _print_size(app)
        app.extensions["opsjobs"].engine.dispose()
    print(f"took {time.monotonic() - began:.0f} s in all")
    return 1 if wrong else 0


def _measure_pace() -> float:
    """No-op jobs a second of plain RQ's SimpleWorker, with a process and a Valkey of its own."""
    command = [sys.executable, "-m", "tools.bench.run", "plain_run", "simple", "500"]
    with Valkey() as valkey:
        env = {**os.environ, "BENCH_REDIS_URL": valkey.url}
        run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=env)
    return float(run.stdout.splitlines()[-1])


def _measure_all(app: Flask, known: Known, chosen: argparse.Namespace) -> int:
    """Print the lines as they are known; how many were answered wrongly."""
    # As docs/production.md says of the processes of a web server.
    gc.collect()
    gc.freeze()
    client, wrong = app.test_client(), 0
    print(
        f"{chosen.times} requests, {REPEATED} times each; ms. Quickest: p95 of the quickest of each. "
        f"Pace: no-op jobs a second\nof plain RQ's SimpleWorker just then. The quickest at a pace of "
        f"{AIMED_PACE} is computed; the aim is for it."
    )
    heads = (
        f"{'p50':>81}{'p95':>9}{'quickest':>9}{'pace':>6}{f'at {AIMED_PACE}':>9}{'aim':>6}{'KB':>8}"
    )
    print(heads, flush=True)
    wanted = [ask for ask in asks(known) if ask.name.startswith(tuple(chosen.only.split(",")))]
    paces = [_measure_pace()]
    for first in range(0, len(wanted), LINES):
        lines = [measure(client, ask, chosen.times) for ask in wanted[first : first + LINES]]
        paces.append(_measure_pace())
        for measured in lines:
            wrong += not measured.is_right
            print(measured.line(statistics.mean(paces[-2:])), flush=True)
    print(f"pace: {min(paces):.0f} to {max(paces):.0f}, mean {statistics.mean(paces):.0f}")
    return wrong


def _print_size(app: Flask) -> None:
    statement = "SELECT pg_database_size(current_database()) / 1e9"
    with app.extensions["opsjobs"].engine.connect() as connection:
        size = connection.exec_driver_sql(statement).scalar_one()
    own = max(
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    print(
        f"\ndatabase {float(size):.1f} GB; this process and its largest child at most {own / 1024:.0f} MB"
    )


if __name__ == "__main__":
    sys.exit(main())
