"""Operations go with their receipts when they have been kept long enough; open ones stay."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from flask_opsjobs import JobFilter
from flask_opsjobs.lifeline import retention
from tests.operations.conftest import WHY, Operations


def test_old_ones_go_with_their_receipts_in_batches(operations: Operations) -> None:
    operations.enqueue(25)
    wanted = JobFilter(queue="default")
    operations.operator.start("job.cancel", wanted, **WHY)
    operations.run()
    operations.operator.draft("job.delete", wanted, actor="anna")
    operations.operator.start("job.delete", wanted, **WHY)
    bench = operations.bench
    settings = replace(bench.host.settings, keep_operations_days=2, keep_canceled_days=90)

    def left() -> tuple[int, int]:
        found = bench.row(
            "SELECT (SELECT count(*) FROM opsjobs.operations) AS operations,"
            " (SELECT count(*) FROM opsjobs.operation_rows) AS rows"
        )
        return found["operations"], found["rows"]

    assert left() == (3, 75)
    now = operations.now + timedelta(days=1)
    assert retention.count_retainable(bench.connection, settings, now)["operations"] == 0
    operations.later(timedelta(minutes=16))
    operations.bench.rows(
        "UPDATE opsjobs.operations SET state = 'paused', paused_at = now(), code = 'operator'"
        " WHERE id = 3 RETURNING 1"
    )
    operations.pass_all()
    now = operations.now + timedelta(days=3)
    counted = retention.count_retainable(bench.connection, settings, now)
    assert (counted["operations"], counted["operation_rows"]) == (2, 50)
    removed = retention.retain(bench.connection, settings, now, limit=20)
    assert removed["operation_rows"] == 20
    assert left() == (3, 55)
    while sum(retention.retain(bench.connection, settings, now, limit=20).values()):
        pass
    assert left() == (1, 25)
    assert operations.operation()["state"] == "paused"
