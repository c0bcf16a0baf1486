"""Measures what it costs to count an enqueued job: `python -m tools.bench.counting`."""

from __future__ import annotations

import argparse
import os
import random
import re
import statistics
import time

from flask_opsjobs.core import sql
from flask_opsjobs.testing.postgres import TemporaryPostgres
from flask_opsjobs.testing.valkey import Valkey
from tests.support.database import Databases

_BLOCK = 10


def without_counting(statement: str) -> str:
    """The statement that records a job, but for the part that counts it."""
    bare, found = re.subn(r"WITH counted AS \(\n.*?\n\)\n", "", statement, flags=re.DOTALL)
    assert found == 1, "enqueue_due_job.sql counts no more as this expects"
    return bare


def measure(blocks: int, *, dispatches: bool) -> dict[str, list[float]]:
    """Milliseconds per enqueue with its commit, in blocks that take turns in random order."""
    from tools.bench.host import create_app, db, noop

    counting = sql.load("enqueue_due_job")
    variants = {"with": counting, "without": without_counting(counting)}
    chosen, load = {"now": counting}, sql.load
    app = create_app()
    took: dict[str, list[float]] = {name: [] for name in variants}
    with app.app_context():
        host = app.extensions["opsjobs"]
        if not dispatches:
            host.dispatcher = None
        setattr(  # noqa: B010 - mypy refuses an assignment to a function of another module
            sql,
            "load",
            lambda name, **variant: (
                chosen["now"] if name == "enqueue_due_job" else load(name, **variant)
            ),
        )
        try:
            for number in range(blocks + 5):  # the first few warm connections and plans
                for name in random.sample(list(variants), len(variants)):
                    chosen["now"] = variants[name]
                    began = time.perf_counter()
                    for _ in range(_BLOCK):
                        noop.enqueue(number=1)
                        db.session.commit()
                    if number >= 5:
                        took[name].append((time.perf_counter() - began) / _BLOCK * 1000)
        finally:
            setattr(sql, "load", load)  # noqa: B010
    return took


def main() -> None:
    """Print medians and the median of the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=200)
    blocks = parser.parse_args().blocks
    with TemporaryPostgres(durable=True) as postgres, Valkey() as valkey:
        databases = Databases(postgres.url())
        try:
            os.environ["BENCH_DATABASE_URL"] = databases.migrated().render_as_string(
                hide_password=False
            )
            os.environ["BENCH_REDIS_URL"], os.environ["BENCH_PREFETCH"] = valkey.url, "1000000"
            for what, dispatches in (("row and commit", False), ("with dispatch to RQ", True)):
                took = measure(blocks, dispatches=dispatches)
                ratios = [a / b for a, b in zip(took["with"], took["without"], strict=True)]
                medians = {name: statistics.median(values) for name, values in took.items()}
                print(
                    f"enqueue, {what}: {medians['without']:.3f} ms, counted {medians['with']:.3f} ms, "
                    f"paired ratio {statistics.median(ratios):.3f}"
                )
        finally:
            databases.close()


if __name__ == "__main__":
    main()
