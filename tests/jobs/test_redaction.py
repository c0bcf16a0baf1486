"""The value of a redacted parameter is absent from the row and from everything derived."""

from __future__ import annotations

import logging
import traceback
from typing import Annotated, Any

import pytest
from flask_sqlalchemy import SQLAlchemy
from pydantic import AfterValidator
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from flask_opsjobs import InvalidArgs, OpsJobs, Unique, signals
from flask_opsjobs.jobs.perform.perform import perform
from flask_opsjobs.jobs.record.task import Task
from tests.support.jobs import Notebook, make_claimed

SECRET = "s3cr3t-value"


@pytest.fixture
def seen() -> list[Any]:
    """What the function was called with."""
    return []


@pytest.fixture
def charge(opsjobs: OpsJobs, seen: list[Any]) -> Task:
    @opsjobs.task(redact={"card"}, unique=Unique(until="ended"), record_output=True)
    def charge(account: int, card: str | None = None) -> Any:
        seen.append((account, card))
        return {"account": account, "card": card}

    return charge


def everything(db: SQLAlchemy) -> str:
    """Every table of ours as text."""
    tables = db.session.scalars(
        text("SELECT tablename FROM pg_tables WHERE schemaname = 'opsjobs'")
    ).all()
    return "\n".join(
        str(row)
        for table in tables
        for row in db.session.scalars(text(f"SELECT t::text FROM opsjobs.{table} t"))
    )


def test_the_secret_is_absent_from_the_database(db: SQLAlchemy, charge: Task) -> None:
    charge.enqueue(1, SECRET)
    charge.enqueue(account=2, card=SECRET)
    charge.enqueue_many([{"account": 3, "card": SECRET}])
    charge.options(unique=None).enqueue_many([{"account": 4, "card": SECRET}])
    db.session.commit()
    found = everything(db)
    assert '{"account": 4}' in found.replace('""', '"')
    assert SECRET not in found


def test_the_secret_does_not_make_a_call_unique(db: SQLAlchemy, charge: Task) -> None:
    """Else the keys would tell whether two secrets are equal, and which it is to whoever can enqueue."""
    first = charge.enqueue(1, SECRET)
    assert charge.enqueue(1, "another").id == first.id
    assert charge.enqueue_many([{"account": 1, "card": "a third"}]).conflicts == 1


def test_a_function_that_computes_the_key_does_not_get_the_secret(
    db: SQLAlchemy, charge: Task
) -> None:
    given: list[dict[str, Any]] = []
    unique = Unique(key=lambda arguments: given.append(arguments), until="ended")
    charge.options(unique=unique).enqueue(1, SECRET)
    assert given == [{"account": 1}]


def test_the_secret_is_absent_from_logs_and_signals(
    db: SQLAlchemy, charge: Task, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[Any] = []

    def hear(sender: Any, **facts: Any) -> None:
        heard.append((sender, facts))

    with caplog.at_level(logging.DEBUG), signals.job_enqueued.connected_to(hear):
        db.engine.echo = True  # also with every statement and its parameters
        charge.enqueue(1, SECRET)
        charge.enqueue_many([{"account": 2, "card": SECRET}])
        db.session.commit()
        db.engine.echo = False
    assert '"account":1' in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in repr(heard)


def quoting(value: str) -> str:
    raise ValueError(f"{value} is no card")


def test_the_secret_is_absent_from_errors(db: SQLAlchemy, opsjobs: OpsJobs, charge: Task) -> None:
    def pay(account: int, card: Annotated[str | None, AfterValidator(quoting)] = None) -> None: ...

    pay.__annotations__["card"] = Annotated[str | None, AfterValidator(quoting)]
    task = opsjobs.task(redact={"card"})(pay)
    for call in (
        lambda: task.enqueue(1, SECRET),
        lambda: task.enqueue(SECRET, SECRET),
        lambda: task.enqueue_many([{"account": 1, "card": SECRET}]),
        lambda: charge.enqueue("x", SECRET),
    ):
        with pytest.raises(InvalidArgs) as error:
            call()
        assert SECRET not in "".join(traceback.format_exception(error.value))
        assert SECRET not in repr(error.value.errors)
    db.session.execute(text("ALTER TABLE opsjobs.jobs ADD CHECK (queue <> 'refused')"))
    with pytest.raises(IntegrityError) as refused:
        charge.options(queue="refused").enqueue(1, SECRET)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_the_function_receives_its_default(
    db: SQLAlchemy, charge: Task, opsjobs: OpsJobs, seen: list[Any]
) -> None:
    charge.enqueue(1, SECRET)
    (args,) = db.session.scalars(text("SELECT args FROM opsjobs.jobs"))
    outcome = perform(opsjobs.tasks, make_claimed(charge, args), Notebook())
    assert seen == [(1, None)]
    assert outcome.output == '{"account":1,"card":null}'


def test_a_value_stored_before_it_was_redacted_is_not_handed_on(
    db: SQLAlchemy, charge: Task, opsjobs: OpsJobs, seen: list[Any]
) -> None:
    claimed = make_claimed(charge, {"account": 1, "card": SECRET})
    outcome = perform(opsjobs.tasks, claimed, Notebook())
    assert outcome.kind == "returned"
    assert seen == [(1, None)]
    assert SECRET not in repr(outcome)
    broken = perform(
        opsjobs.tasks, make_claimed(charge, {"account": SECRET, "card": SECRET}), Notebook()
    )
    assert broken.ended_by == "invalid_args"
    assert SECRET not in repr(broken)
