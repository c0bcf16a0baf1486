"""An autovacuum gives way to a migration. The servers of the other tests have none."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations

from flask_opsjobs.install import steps
from flask_opsjobs.testing.postgres import Postgres
from tests.support.waiting import wait_until

SETTINGS = {"autovacuum": "on", "autovacuum_naptime": "1s", "fsync": "off"}
# A vacuum of the table would take minutes.
SLOW = """
ALTER TABLE opsjobs.jobs SET (autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1,
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 100);
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, attempt, created_at, due_at,
    started_at, ended_at, ended_by)
SELECT 'send', 'mail', 'mail', 'finished', '{}', 3, 1, now(), now(), now(), now(), 'returned'
FROM generate_series(1, 20000);
UPDATE opsjobs.jobs SET max_attempts = 4
"""
RUNNING = """
SELECT pid FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND query LIKE '%opsjobs.jobs%'
"""


@pytest.mark.slow
@pytest.mark.processes
def test_a_migration_does_not_wait_for_an_autovacuum(tmp_path: Path) -> None:
    newest = steps.latest()
    with Postgres(tmp_path, settings=SETTINGS) as server:
        engine = sa.create_engine(server.url())

        def upgrade(to: int) -> None:
            with engine.begin() as connection:
                steps.upgrade(Operations(MigrationContext.configure(connection)), to=to)

        def vacuums() -> list[int]:
            with engine.connect() as connection:
                return list(connection.exec_driver_sql(RUNNING.replace("%", "%%")).scalars())

        upgrade(newest - 1)
        with engine.begin() as connection:
            connection.exec_driver_sql(SLOW)
        (vacuum,) = wait_until(vacuums, 60, what="an autovacuum of the jobs")
        upgrade(newest)
        assert vacuum not in vacuums()
        engine.dispose()
