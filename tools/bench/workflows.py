"""Measures workflows for the bench: their start, against COPY of as many plain jobs, and all that follows."""

from __future__ import annotations

import os
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

from flask_opsjobs.testing.postgres import TemporaryPostgres
from tests.support.database import Databases
from tools.bench import advancing, whole_runs

STEPS = 10_000
# (name, edges into each step, whether each step takes the result of the one before, the most of a plain COPY)
SHAPES = (
    ("start of 10,000 steps with 20,000 edges", 2, False, 5.0),
    ("the same, each takes a result", 2, True, 5.0),
    ("start of 10,000 steps with 100,000 edges", 10, False, None),
)


def measure(rounds: int) -> None:
    """Print all of it."""
    postgres = TemporaryPostgres(durable=True)
    postgres.start()
    databases = Databases(postgres.url())
    try:
        os.environ["BENCH_DATABASE_URL"] = databases.migrated().render_as_string(
            hide_password=False
        )
        # Nothing is dispatched: an app without a Redis only enqueues.
        os.environ.setdefault("BENCH_REDIS_URL", "redis://127.0.0.1:1/0")
        _measure_starts(rounds)
        _measure_ends(rounds)
        whole_runs.measure(databases, rounds, 40)
    finally:
        databases.close()
        postgres.close()


def _measure_starts(rounds: int) -> None:
    from tools.bench.host import create_app, db, keep, noop, opsjobs

    app = create_app()
    app.extensions["opsjobs"].dispatcher = None

    def start(edges: int, takes: bool) -> None:
        flow = opsjobs.workflow("large")
        before: list[object] = []
        for number in range(STEPS):
            value = before[-1].result if takes and before else number  # type: ignore[attr-defined]
            step = flow.step(f"step {number}", keep, number=value, after=before[-edges:])
            before = [*before[-edges:], step]
        flow.start()

    cases: dict[str, Callable[[], object]] = {
        "plain": lambda: noop.enqueue_many({"number": n} for n in range(STEPS))
    }
    for name, edges, takes, _ in SHAPES:
        cases[name] = lambda edges=edges, takes=takes: start(edges, takes)  # type: ignore[misc]
    took: dict[str, list[float]] = defaultdict(list)
    with app.app_context():
        for _ in range(rounds):
            for name in random.sample(list(cases), len(cases)):
                began = time.perf_counter()
                cases[name]()
                db.session.commit()
                took[name].append(time.perf_counter() - began)
        db.session.remove()
        db.engine.dispose()
    plain = statistics.median(took["plain"])
    print(f"\n{'COPY of 10,000 plain jobs':44}{plain:8.2f} s")
    for name, _, _, most in SHAPES:
        seconds = statistics.median(took[name])
        bound = "" if most is None else f"   at most {most:g}"
        print(f"{name:44}{seconds:8.2f} s{seconds / plain:8.2f} times{bound}", flush=True)


def _measure_ends(rounds: int) -> None:
    from tools.bench.host import create_app, db

    app = create_app()
    with app.app_context():
        advancing.measure(app.extensions["opsjobs"].engine, rounds)
        db.engine.dispose()


if __name__ == "__main__":
    measure(5)
