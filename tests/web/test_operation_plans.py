"""The reads of the pages of operations, of Lifeline, the header and a job's page walk their indexes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs import JobFilter
from flask_opsjobs.operations import transitions
from flask_opsjobs.operations.operator import MOST_SAMPLES
from flask_opsjobs.web.app import shell
from tests.operations.conftest import Operations
from tests.operations.conftest import operations as operations
from tests.operations.test_killed import SCHEDULED
from tests.support.database import Databases
from tests.support.plans import Plans, app_on
from tests.web.every import soup

# By one INSERT each: only plans are asked of these rows. Operation 2 runs, and has 20,000 rows: every fifth
# one was skipped, one in a thousand of these for a rare reason.
_FILL = """
INSERT INTO opsjobs.operations (state, action, actor, via, is_trusted, query, reason, targets, done, skipped,
    proven, stage, created_at, expires_at, started_at, handled_at, ended_at)
SELECT CASE WHEN n % 1000 = 2 THEN 'running' WHEN n % 3 = 0 THEN 'stopped' ELSE 'finished' END, 'job.retry',
    'anna', 'page', false, '{"state": "failed"}', 'because', 20000, 20, 3600, 14380, 4, now(), now(), now(),
    now(), CASE WHEN n % 1000 <> 2 THEN now() - n * interval '1 min' END
FROM generate_series(1, 5000) AS n;
INSERT INTO opsjobs.operation_rows (operation_id, number, job_id, queue, origin, state, dispatch_no, attempt,
    result, code, at, proven_at)
SELECT o, n, n, 'q', 'opsjobs', 'failed', 1, 1,
    CASE WHEN n > 18000 THEN 'pending' WHEN n % 5 = 0 THEN 'skipped' WHEN n > 17975 THEN 'done'
        ELSE 'proven' END,
    CASE WHEN n <= 18000 AND n % 5 = 0 THEN CASE WHEN n % 5000 = 0 THEN 'rare' ELSE 'changed' END END,
    CASE WHEN n <= 18000 THEN now() - (18000 - n) * interval '10 ms' END,
    CASE WHEN n <= 17975 AND n % 5 <> 0 THEN now() END
FROM unnest(ARRAY[1, 2, 3]) AS o, generate_series(1, 20000) AS n;
INSERT INTO opsjobs.jobs (id, task, queue, lane, state, args, max_attempts, created_at, due_at)
VALUES (7, 'note', 'q', 'q', 'available', '{}', 5, now(), now())
"""


class _OperationPlans(Plans):
    about = "opsjobs.operation"


def _fill(session: Session) -> None:
    for statement in _FILL.split(";"):
        session.execute(text(statement))
    session.commit()
    session.execute(text("ANALYZE opsjobs.operations, opsjobs.operation_rows"))


@pytest.fixture(scope="module")
def _app(databases: Databases) -> Iterator[Flask]:
    with app_on(databases, _fill) as app:
        yield app


@pytest.fixture
def filled(_app: Flask) -> Flask:
    """A host with 5,000 operations, which reads anew what each page shows."""
    with _app.app_context():
        shell.forget_sources()
    return _app


def test_the_page_of_a_draft_reads_only_its_samples(
    client: FlaskClient,
    operations: Operations,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With `--operation-jobs 1000000` the largest draft there is, and the time of its page."""
    number = request.config.getoption("operation_jobs")
    operations.bench.connection.execute(SCHEDULED, {"number": number})
    operations.bench.connection.execute("ANALYZE opsjobs.jobs")
    chosen = JobFilter(state="scheduled")
    operations.operator.draft("job.discard", chosen, actor="tester")
    # Not one of our statements that SQLAlchemy sends.
    monkeypatch.setattr(transitions, "count_frozen_states", None)
    with _OperationPlans(operations.bench.host.pages) as plans:
        page = soup(client.get("/ops/jobs/operations/1").text)
    will = page.select_one("[aria-labelledby=will] tbody tr")
    assert will.select_one(".n").text == f"{number:,}"
    assert plans.read_whole == set(), plans
    assert plans.most_rows <= MOST_SAMPLES, plans
    took = []
    for _ in range(20):
        began = time.monotonic()
        assert client.get("/ops/jobs/operations/1").status_code == 200
        took.append(time.monotonic() - began)
    median = sorted(took)[10] * 1000
    print(
        f"the page of a draft of {number:,} jobs: {median:.1f} ms, at most {max(took) * 1000:.1f} ms"
    )


ONE = {"operations_pkey", "operation_rows_pkey"}


@pytest.mark.parametrize(
    ("path", "indexes", "most"),
    [
        ("/queues", {"operations_open"}, 10),
        ("/lifeline", {"operations_open"}, 10),
        ("/operations", {"operations_pkey"}, 60),
        ("/operations?state=open", {"operations_open"}, 60),
        ("/operations?state=stopped", {"operations_ended"}, 60),
        # What the pace and the reasons are counted of: at most 2,000 and 100,000 rows; and the newer
        # operations, among which is what undoes it.
        ("/operations/2", {*ONE, "operation_rows_by_result", "operation_rows_proven"}, 5_000),
        ("/operations/2?result=proven", {*ONE, "operation_rows_by_result"}, 5_000),
        ("/operations/2?result=done", {*ONE, "operation_rows_done"}, 5_000),
        ("/operations/2?result=skipped&code=rare", {*ONE, "operation_rows_by_result"}, 5_000),
        ("/operations/2?before=9000", ONE, 5_000),
    ],
)
def test_a_page_walks_the_indexes_of_operations(
    filled: Flask, path: str, indexes: set[str], most: int
) -> None:
    with _OperationPlans(filled.extensions["opsjobs"].pages) as plans:
        assert filled.test_client().get(f"/ops/jobs{path}").status_code == 200
    assert indexes <= plans.indexes, plans
    assert plans.read_whole == set(), plans
    assert plans.most_rows <= most, plans


def test_a_job_finds_its_operations_by_index(filled: Flask) -> None:
    with _OperationPlans(filled.extensions["opsjobs"].pages) as plans:
        assert filled.test_client().get("/ops/jobs/jobs/7").status_code == 200
    assert "operation_rows_of_job" in plans.indexes, plans
    assert plans.read_whole == set(), plans
