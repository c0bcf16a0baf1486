"""What a running step can ask about its run."""

from __future__ import annotations

from typing import Any

from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs, current_job
from flask_opsjobs.testing import perform_due
from tests.support.engine import Bench
from tests.support.plans import explain


def test_a_step_knows_its_run(db: SQLAlchemy, opsjobs: OpsJobs) -> None:
    seen: list[Any] = []

    @opsjobs.task
    def look() -> None:
        seen.append(current_job().workflow)
        assert current_job().workflow is seen[-1]

    flow = opsjobs.workflow("seen", context={"account_id": 42})
    flow.step("a", look)
    flow.step("b", look, after="a")
    run = flow.start()
    look.enqueue()
    db.session.commit()
    perform_due().assert_finished()
    known = {(one.id, one.name, one.step, one.context["account_id"]) for one in seen if one}
    assert known == {(run.id, "seen", "a", 42), (run.id, "seen", "b", 42)}
    # The job that is no step has none.
    assert seen.count(None) == 1


def test_a_run_that_the_host_has_not_committed_is_seen_in_its_transaction(
    db: SQLAlchemy, opsjobs: OpsJobs
) -> None:
    seen: list[Any] = []

    @opsjobs.task
    def look() -> None:
        seen.append(current_job().workflow.context)

    flow = opsjobs.workflow("seen", context={"a": 1})
    flow.step("a", look)
    with db.engine.connect() as connection, connection.begin() as transaction:
        session = db.session
        session.remove()
        session.configure(bind=connection, binds={}, join_transaction_mode="create_savepoint")
        flow.start()
        session.commit()
        perform_due().assert_finished()
        transaction.rollback()
    assert seen == [{"a": 1}]


def test_it_is_found_by_primary_keys(bench: Bench) -> None:
    nodes = explain(bench.connection, "find_workflow_of_job", {"id": 7})
    assert {node.get("Index Name") for node in nodes} - {None} == {"steps_pkey", "workflows_pkey"}
