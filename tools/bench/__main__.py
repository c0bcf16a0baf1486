"""Measures managed jobs against plain RQ in one run, in random order, and prints medians and ratios."""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from redis import Redis
from rq import Queue

from flask_opsjobs.testing.postgres import TemporaryPostgres
from flask_opsjobs.testing.valkey import Valkey
from tests.support.database import Databases
from tests.support.waiting import wait_until
from tools.bench import adopting, batches, detecting, limits, operating, pool, telemetry, workflows

# (name, function in run, kind of worker, how many jobs, prefetch)
CASES = (
    ("run, forking, plain RQ", "plain_run", "forking", 400, None),
    ("run, a process per job, managed", "managed_run", "1x1", 400, None),
    ("run, simple, plain RQ", "plain_run", "simple", 1500, None),
    ("run, one kept child, managed", "managed_run", "1x1000", 1500, None),
    ("enqueue one by one, plain RQ", "plain_enqueue", "-", 1500, None),
    (
        "enqueue one by one, managed, with commit and dispatch",
        "managed_enqueue",
        "-",
        1500,
        1_000_000,
    ),
    ("enqueue_many, plain RQ", "plain_many", "-", 20_000, None),
    ("enqueue_many, managed, with commit", "managed_many", "-", 20_000, None),
)
RATIOS = (
    ("run, a process per job", 1, 0, 1.8),
    ("run, one kept child, to SimpleWorker", 3, 2, 1.1),
    ("enqueue one by one with dispatch", 5, 4, 0.45),
    ("enqueue_many", 7, 6, 2.0),
)


class Bench:
    """Servers as production has them: every commit durable."""

    def __init__(self) -> None:
        self.postgres = TemporaryPostgres(durable=True)
        self.postgres.start()
        self.valkey = Valkey()
        self.valkey.start()
        self.databases = Databases(self.postgres.url())

    def measure(
        self,
        function: str,
        kind: str,
        count: int,
        prefetch: int | None,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> Any:
        """Run one measurement on an empty database and an empty Redis, with `more` in its environment."""
        self.valkey.flushall()
        url = self.databases.migrated()
        try:
            return self.run(url, function, kind, count, prefetch, more)
        finally:
            self.databases.drop(url)

    def run(
        self,
        url: Any,
        function: str,
        kind: str,
        count: int,
        prefetch: int | None,
        more: Mapping[str, str] = MappingProxyType({}),
    ) -> Any:
        """Run one measurement on this database."""
        command = [sys.executable, "-m", "tools.bench.run", function, kind, str(count)]
        result = subprocess.run(
            command,
            env={**self.env(url, prefetch), **more},
            capture_output=True,
            text=True,
            timeout=600,
        )
        if result.returncode != 0:
            raise RuntimeError(f"{function} {kind} failed:\n{result.stdout}\n{result.stderr}")
        return json.loads(result.stdout.splitlines()[-1])

    def env(self, url: Any, prefetch: int | None = None) -> dict[str, str]:
        """The environment of a measurement."""
        found = {**os.environ, "BENCH_DATABASE_URL": url.render_as_string(hide_password=False)}
        found["BENCH_REDIS_URL"] = self.valkey.url
        if prefetch is not None:
            found["BENCH_PREFETCH"] = str(prefetch)
        return found

    def latencies(self, kind: str, count: int) -> dict[str, list[float]]:
        """Milliseconds from enqueue to the function's first line, on an idle worker:
        plain and managed in turn.
        """
        url = self.databases.migrated()
        os.environ.update(self.env(url))
        from tools.bench.host import create_app, db, plain_stamp, stamp

        app = create_app()
        plain_queue = Queue("plain", connection=Redis.from_url(self.valkey.url))
        flags = [] if kind == "simple" else ["--jobs-per-process", "1"]
        app_words = ["--app", "tools.bench.host:create_app"]
        flask = [sys.executable, "-m", "flask", *app_words, "opsjobs"]
        # Imported by the parent, as our worker imports its host: else each child would do it anew.
        start = "import tools.bench.host; from rq.cli import main; main()"
        rq = [sys.executable, "-c", start, "worker", "--url", self.valkey.url, "plain"]
        rq += ["--worker-class", "rq.SimpleWorker"] if kind == "simple" else []
        null = subprocess.DEVNULL
        workers = [
            subprocess.Popen(command, stdout=null, stderr=null, env=self.env(url))
            for command in ([*flask, "worker", *flags], rq)
        ]
        found: dict[str, list[float]] = {"plain RQ": [], "managed": []}
        try:
            with app.app_context(), tempfile.TemporaryDirectory() as folder:

                def managed(path: str) -> None:
                    stamp.enqueue(path=path)
                    db.session.commit()

                for number in range(count + 3):
                    for name, enqueue in (
                        ("plain RQ", lambda p: plain_queue.enqueue(plain_stamp, p)),
                        ("managed", managed),
                    ):
                        took = _latency(f"{folder}/{name}-{number}", enqueue)
                        if number >= 3:  # the first find the worker starting
                            found[name].append(took)
        finally:
            for worker in workers:
                worker.terminate()
                worker.wait(30)
        return found

    def close(self) -> None:
        """Stop the servers."""
        self.databases.close()
        self.postgres.close()
        self.valkey.close()


def _latency(path: str, enqueue: Callable[[str], object]) -> float:
    began = time.monotonic()
    enqueue(path)
    wait_until(lambda: os.path.exists(path), 60, what="the job has started")
    return (float(Path(path).read_text()) - began) * 1000


def main() -> None:
    """Print what was measured, whatever it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--many", type=int, default=1_000_000, help="size of the memory measurement; 0 skips it"
    )
    parser.add_argument(
        "--latencies", type=int, default=60, help="jobs per latency measurement; 0 skips them"
    )
    parser.add_argument(
        "--limits", type=float, default=60, help="seconds per limited run; 0 skips them"
    )
    parser.add_argument("--only-limits", action="store_true", help="measure nothing else")
    parser.add_argument("--only-workflows", action="store_true", help="measure nothing else")
    parser.add_argument(
        "--only-batch", type=int, default=0, help="measure only a batch of so many members"
    )
    parser.add_argument("--only-lifeline", action="store_true", help="measure nothing else")
    parser.add_argument(
        "--detect", type=int, default=10_000_000, help="with --only-lifeline: jobs for detectors"
    )
    parser.add_argument("--only-operations", action="store_true", help="measure nothing else")
    parser.add_argument(
        "--operation", type=int, default=100_000, help="with --only-operations: jobs of each"
    )
    parser.add_argument(
        "--live", type=int, default=60, help="with --only-operations: seconds of live jobs"
    )
    parser.add_argument("--only-telemetry", action="store_true", help="measure nothing else")
    parser.add_argument("--only-pool", action="store_true", help="measure nothing else")
    parser.add_argument(
        "--case",
        action="append",
        help="with --only-pool: only cases with this in their name; may be repeated",
    )
    chosen = parser.parse_args()
    if chosen.only_limits:
        limits.measure(chosen.limits)
        return
    if chosen.only_workflows:
        workflows.measure(chosen.rounds)
        return
    bench = Bench()
    try:
        if _measure_alone(bench, chosen):
            return
        _throughput(bench, chosen.rounds)
        for kind in ("forking", "simple") if chosen.latencies else ():
            _print_latencies(kind, bench.latencies(kind, chosen.latencies))
        if chosen.many:
            found = bench.measure("memory_of_many", "-", chosen.many, None)
            print(
                f"\nenqueue_many of {chosen.many:,} jobs: {found['seconds']:.1f} s, "
                f"peak memory {found['peak_mb']:.0f} MB, {found['grew_mb']:.1f} MB more than before"
            )
    finally:
        bench.close()
    if chosen.limits:
        limits.measure(chosen.limits)


def _measure_alone(bench: Bench, chosen: argparse.Namespace) -> bool:
    """Measure the one part that was chosen, if one was; return whether that was so."""
    if chosen.only_lifeline:
        detecting.measure(bench, chosen.detect)
        adopting.measure(bench, chosen.rounds)
    elif chosen.only_operations:
        operating.measure(bench, chosen.operation, chosen.live)
    elif chosen.only_telemetry:
        telemetry.measure(bench, chosen.rounds)
    elif chosen.only_pool:
        pool.measure(bench, chosen.rounds, chosen.case or [""])
    elif chosen.only_batch:
        batches.measure(bench, chosen.only_batch, chosen.rounds)
    else:
        return False
    return True


def _throughput(bench: Bench, rounds: int) -> None:
    rates: dict[int, list[float]] = defaultdict(list)
    for _ in range(rounds):
        order = list(range(len(CASES)))
        random.shuffle(order)
        for index in order:
            _, function, kind, count, prefetch = CASES[index]
            rates[index].append(bench.measure(function, kind, count, prefetch))
    print(
        f"{rounds} rounds in random order, jobs a second\n{'':56}{'median':>9}{'min':>9}{'max':>9}"
    )
    for index, case in enumerate(CASES):
        found = rates[index]
        print(f"{case[0]:56}{statistics.median(found):9,.0f}{min(found):9,.0f}{max(found):9,.0f}")
    print(f"\n{'ratio of medians, managed to plain RQ':56}{'got':>9}{'aim':>9}")
    for name, ours, theirs, aim in RATIOS:
        ratio = statistics.median(rates[ours]) / statistics.median(rates[theirs])
        print(f"{name:56}{ratio:9.2f}{'≥ ' + str(aim):>9}")


def _print_latencies(kind: str, found: dict[str, list[float]]) -> None:
    print(f"\nenqueue to start on an idle {kind} worker, ms")
    for name, values in found.items():
        ordered = sorted(values)
        p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
        print(f"  {name:54}p50 {statistics.median(ordered):7.1f}   p95 {p95:7.1f}")


if __name__ == "__main__":
    main()
