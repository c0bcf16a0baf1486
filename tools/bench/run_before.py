"""Measures limited no-op jobs on the `--simple` worker from before the pool: prints jobs a second.

Runs with the code of that commit instead of ours.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from sqlalchemy import create_engine, text

from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker.runtime import declare_limiters
from tests.support.database import migrate
from tools.bench.host import create_app, db, limited

_run: Any = run  # it had other arguments


def _measure(count: int) -> float:
    engine = create_engine(os.environ["BENCH_DATABASE_URL"])
    with engine.begin() as connection:
        migrate(connection)
    app = create_app()
    with app.app_context():
        # Else its commit dispatches none.
        declare_limiters(app.extensions["opsjobs"], "bench")
        limited.enqueue_many({"account": 0} for _ in range(count))
        db.session.commit()
        began = time.perf_counter()
        code = _run(app, ["default"], simple=True, max_jobs=count, with_scheduler=False)
        seconds = time.perf_counter() - began
        finished = db.session.scalar(
            text("SELECT count(*) FROM opsjobs.jobs WHERE state = 'finished'")
        )
    assert (code, finished) == (0, count), f"exit code {code}, {finished} of {count} finished"
    return count / seconds


if __name__ == "__main__":
    print(_measure(int(sys.argv[1])))
