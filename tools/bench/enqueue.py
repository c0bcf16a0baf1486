"""Measures an enqueue in the host's transaction: `python -m tools.bench.enqueue`.

Compares a transaction of the host that writes a row and enqueues a job with the same transaction followed by
RQ's `enqueue`.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Callable

from redis import Redis
from rq import Queue
from sqlalchemy import text

from flask_opsjobs.testing.postgres import TemporaryPostgres
from flask_opsjobs.testing.valkey import Valkey
from tests.support.database import Databases

_BLOCK = 10
_WARM = 5
_ROW = text("INSERT INTO host_orders (customer, amount) VALUES (:customer, :amount)")


def measure(blocks: int) -> dict[str, list[float]]:
    """Milliseconds per transaction, in blocks that take turns in random order."""
    from tools.bench.host import create_app, db, noop, plain_noop

    queue = Queue("plain", connection=Redis.from_url(os.environ["BENCH_REDIS_URL"]))

    def write_row() -> None:
        db.session.execute(_ROW, {"customer": 7, "amount": 990})

    def ours() -> None:
        write_row()
        noop.enqueue(number=1)
        db.session.commit()

    def rq() -> None:
        write_row()
        db.session.commit()
        queue.enqueue(plain_noop, 1)

    ways: dict[str, Callable[[], None]] = {"ours": ours, "RQ": rq}
    took: dict[str, list[float]] = {name: [] for name in ways}
    with create_app().app_context():
        db.session.execute(
            text("CREATE TABLE host_orders (id bigserial PRIMARY KEY, customer int, amount int)")
        )
        db.session.commit()
        for number in range(blocks + _WARM):  # the first few warm connections and plans
            for name in random.sample(list(ways), len(ways)):
                began = time.perf_counter()
                for _ in range(_BLOCK):
                    ways[name]()
                if number >= _WARM:
                    took[name].append((time.perf_counter() - began) / _BLOCK * 1000)
    return took


def main() -> None:
    """Print medians and the median of the paired ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=200)
    blocks = parser.parse_args().blocks
    with TemporaryPostgres(durable=True) as postgres, Valkey() as valkey:
        databases = Databases(postgres.url())
        try:
            url = databases.migrated().render_as_string(hide_password=False)
            os.environ |= {"BENCH_DATABASE_URL": url, "BENCH_REDIS_URL": valkey.url}
            os.environ["BENCH_PREFETCH"] = "1000000"
            took = measure(blocks)
        finally:
            databases.close()
    ratios = [ours / rq for ours, rq in zip(took["ours"], took["RQ"], strict=True)]
    medians = {name: statistics.median(values) for name, values in took.items()}
    print(
        f"a row and a job in one transaction: {medians['ours']:.3f} ms; the row, then RQ's enqueue: "
        f"{medians['RQ']:.3f} ms; paired ratio {statistics.median(ratios):.2f} (aim: 1.0)"
    )


if __name__ == "__main__":
    main()
