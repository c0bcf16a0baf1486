"""The reads of the pages of batches walk the indexes that they name, and stop early."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask import Flask
from sqlalchemy import text
from sqlalchemy.orm import Session

from flask_opsjobs.batches import queries
from flask_opsjobs.core.reading import Reading
from flask_opsjobs.host import Host
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.jobs.rows import Count
from flask_opsjobs.web.app.host import reading
from tests.support.database import Databases
from tests.support.plans import Plans, app_on, reading_with

# By one INSERT each: the real writers would take minutes. Only plans are asked of these rows.
_FILL = """
INSERT INTO opsjobs.batches (name, state, created_at, closed_at)
SELECT 'import ' || n % 9, 'running', now(), now() FROM generate_series(1, 5000) n;
INSERT INTO opsjobs.batch_ends SELECT n, 'finished', 'returned', 5 FROM generate_series(1, 5000) n;
INSERT INTO opsjobs.callbacks SELECT 'batch', n, 1, 'end', n FROM generate_series(1, 5000) n;
INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at, ended_at,
    ended_by, batch_id)
SELECT 'w', 'q', 'q', 'finished', '{}', 5, now(), now(), now(), 'returned', CASE WHEN n % 2 = 0 THEN 1 END
FROM generate_series(1, 30000) n
"""


class PlansOfAll(Plans):
    """Every statement about our tables."""

    about = "opsjobs."


def _fill(session: Session) -> None:
    for statement in _FILL.split(";"):
        session.execute(text(statement))
    session.execute(
        text("ANALYZE opsjobs.batches, opsjobs.batch_ends, opsjobs.callbacks, opsjobs.jobs")
    )


@pytest.fixture(scope="module")
def module_app(databases: Databases) -> Iterator[Flask]:
    """A host with these rows, for tests that change none of them."""
    with app_on(databases, _fill) as app:
        yield app


@pytest.fixture
def plans(module_app: Flask) -> Iterator[tuple[PlansOfAll, Reading]]:
    """A reading as pages have it, with its plans."""
    with reading_with(module_app, PlansOfAll) as plans:
        yield plans


@pytest.fixture
def filled(host: Host) -> Iterator[Session]:
    """The same rows, to be changed."""
    with Session(host.engine) as session:
        _fill(session)
        session.commit()
        yield session


def test_the_list_reads_a_page_of_batches(plans: tuple[PlansOfAll, Reading]) -> None:
    seen, read = plans
    for state in (None, "running", "failed"):
        queries.page_of_batches(read.session, state=state)
        queries.page_of_batches(read.session, state=state, before=300)
    assert seen.indexes == {"batches_pkey", "batches_by_state", "batch_ends_pkey"}
    assert seen.most_rows <= 51


def test_running_members_of_a_page_of_batches_are_found_by_an_index(
    app: Flask, host: Host, filled: Session
) -> None:
    filled.execute(
        text(
            "UPDATE opsjobs.jobs SET state = 'started', ended_at = NULL, ended_by = NULL,"
            " started_at = now() WHERE id % 1000 = 0"
        )
    )
    filled.commit()
    with app.app_context(), reading() as read, PlansOfAll(host.pages) as plans:
        found = queries.find_batches_with_running_member(read.session, range(1, 51))
    assert list(found) == [1]
    assert "Seq Scan" not in plans.kinds, plans
    assert plans.most_rows <= 50, plans


def test_the_page_of_a_batch_reads_a_page_of_members(
    plans: tuple[PlansOfAll, Reading],
) -> None:
    seen, read = plans
    assert queries.find_batch(read.session, 1) is not None
    for state in (None, "finished", "failed"):
        queries.list_members(read.session, 1, state=state)
        queries.list_members(read.session, 1, state=state, before=3_000)
    queries.list_callbacks_of_batch(read.session, 1)
    assert seen.most_rows <= 26, seen
    assert "jobs_of_batch" in seen.indexes, seen
    assert "Seq Scan" not in seen.kinds, seen


def test_what_holds_a_batch_is_found_by_one_row_of_each_state(
    plans: tuple[PlansOfAll, Reading],
) -> None:
    seen, read = plans
    queries.list_oldest_open_members(read.session, 1, [Job.id])
    assert queries.find_last_added(read.session, 1) is not None
    queries.list_other_batches(read.session, 1)
    assert list(queries.find_batches_with_failed_callback(read.session, range(1, 51))) == []
    assert seen.most_rows <= 51, seen
    assert seen.indexes >= {"jobs_of_batch", "batches_pkey", "callbacks_pkey"}, seen
    assert "Seq Scan" not in seen.kinds, seen


def test_running_and_failed_members_are_read_up_to_a_bound(
    app: Flask, host: Host, filled: Session
) -> None:
    for state in ("failed", "started"):
        filled.execute(
            text(
                "UPDATE opsjobs.jobs SET state = :state, started_at = now(), error = 'KeyError: ' || id,"
                " ended_by = CASE WHEN :state = 'failed' THEN 'exhausted' END,"
                " ended_at = CASE WHEN :state = 'failed' THEN now() END"
                " WHERE batch_id = 1 AND id % 4 = :part"
            ),
            {"state": state, "part": 2 if state == "failed" else 0},
        )
    filled.execute(text("ANALYZE opsjobs.jobs"))
    filled.commit()
    with app.app_context(), reading() as read, PlansOfAll(host.pages) as plans:
        assert queries.count_running_members(read.session, 1) == Count(1_000, "at_least")
        found = queries.group_failures(read.session, 1)
    assert [(group.number, group.ended_by) for group in found.groups] == [(1_000, "exhausted")]
    assert plans.most_rows <= 1_001, plans
    assert plans.indexes == {"jobs_of_batch"}, plans
    assert "Seq Scan" not in plans.kinds, plans
