"""Measures PgQueuer on no-op jobs: prints jobs a second. Runs in the environment of the peers, without us."""

from __future__ import annotations

import os
import sys
import time

import asyncpg  # type: ignore[import-not-found]
import uvloop  # type: ignore[import-not-found]
from pgqueuer import PgQueuer  # type: ignore[import-not-found]
from pgqueuer.models import Job  # type: ignore[import-not-found]
from pgqueuer.types import QueueExecutionMode  # type: ignore[import-not-found]

# PgQueuer's own benchmark takes ten at once; with twenty it was fastest here.
_BATCH = 20


async def _measure(count: int) -> float:
    connection = await asyncpg.connect(os.environ["BENCH_DATABASE_URL"])
    queuer = PgQueuer.from_asyncpg_connection(connection)
    await queuer.qm.queries.install()

    @queuer.entrypoint("noop")  # type: ignore[untyped-decorator]
    async def noop(_job: Job) -> None:
        """Nothing."""

    for start in range(0, count, 1000):
        numbers = range(start, min(start + 1000, count))
        payloads = [b'{"number": %d}' % number for number in numbers]
        await queuer.qm.queries.enqueue(["noop"] * len(numbers), payloads, [0] * len(numbers))
    began = time.perf_counter()
    await queuer.qm.run(batch_size=_BATCH, mode=QueueExecutionMode.drain)
    seconds = time.perf_counter() - began
    left = await connection.fetchval("SELECT count(*) FROM pgqueuer")
    assert left == 0, f"{left} jobs are left"
    await connection.close()
    return count / seconds


if __name__ == "__main__":
    print(uvloop.run(_measure(int(sys.argv[1]))))
