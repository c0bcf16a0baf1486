"""Tags that a function makes of the arguments: once, at enqueue, and never of what is redacted."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text

from flask_opsjobs import DeclarationError, InvalidArgs, OpsJobs
from flask_opsjobs.errors import InvalidWorkflow
from flask_opsjobs.jobs.record.options import Unique
from flask_opsjobs.jobs.record.task import Task
from tests.web.every import soup

Tagged = Callable[..., Task]


@pytest.fixture
def tagged(opsjobs: OpsJobs) -> Tagged:
    """Declares a task with these tags."""

    def tagged(tags: Any, **options: Any) -> Task:
        def bill(account_id: int, note: str = "-", secret: str = "") -> None:
            """Bills an account."""

        return opsjobs.task(tags=tags, redact={"secret"}, **options)(bill)

    return tagged


def _tags(db: SQLAlchemy) -> list[list[str]]:
    return list(db.session.scalars(text("SELECT tags FROM opsjobs.jobs ORDER BY id")))


def _of_customer(args: dict[str, Any]) -> list[str]:
    return ["bills", f"customer/{args['account_id']}", "bills"]


def test_a_function_gets_the_validated_arguments(
    tagged: Tagged, db: SQLAlchemy, app: Flask
) -> None:
    seen: list[dict[str, Any]] = []

    def tags(args: dict[str, Any]) -> list[str]:
        seen.append(args)
        return _of_customer(args)

    bill = tagged(tags)
    bill.enqueue("42", secret="hunter2")
    bill.options(tags=["fixed"]).enqueue(account_id=1)
    bill.options(tags=lambda args: (args["note"],)).enqueue(account_id=2, note="<b>bold</b>")
    db.session.commit()
    assert seen == [{"account_id": 42, "note": "-"}]
    assert _tags(db) == [["bills", "customer/42"], ["fixed"], ["<b>bold</b>"]]
    # The page of a job links to all jobs with the tag, as text.
    client = app.test_client()
    page = soup(client.get("/ops/jobs/jobs/1").text)
    links = {a.text: str(a["href"]) for a in page.select("a.tag")}
    assert list(links) == ["bills", "customer/42"]
    found = soup(client.get(links["customer/42"]).text).select("table.jobs tbody th a")
    assert [a.text for a in found] == ["1"]
    assert soup(client.get("/ops/jobs/jobs/3").text).select_one("a.tag").text == "<b>bold</b>"


@pytest.mark.parametrize("unique", [None, Unique(by=["account_id"], within=timedelta(hours=1))])
def test_many_jobs_have_each_their_own(
    unique: Unique | None, tagged: Tagged, db: SQLAlchemy
) -> None:
    bill = tagged(_of_customer, unique=unique)
    rows = [{"account_id": number} for number in (7, 8, 7)]
    done = bill.enqueue_many(iter(rows))
    db.session.commit()
    expected = [["bills", "customer/7"], ["bills", "customer/8"], ["bills", "customer/7"]]
    assert _tags(db) == expected[: done.count]
    assert (done.count, done.conflicts) == ((3, 0) if unique is None else (2, 1))


def test_steps_have_tags_when_their_arguments_are_known(
    tagged: Tagged, opsjobs: OpsJobs, db: SQLAlchemy
) -> None:
    bill = tagged(_of_customer, record_output=True)
    flow = opsjobs.workflow("bills")
    first = flow.step("first", bill, account_id=5)
    flow.step("second", bill, account_id=first.result)
    flow.start()
    db.session.commit()
    assert _tags(db) == [["bills", "customer/5"], []]


def _raises(args: dict[str, Any]) -> list[str]:
    raise ValueError(f"no {args['note']}")


@pytest.mark.parametrize(
    ("tags", "says"),
    [
        (_raises, "its function raised ValueError"),
        (lambda args: [args["secret"]], "raised KeyError: it gets no redacted argument"),
        (lambda args: args["note"], "must return a list of texts, and returned str"),
        (lambda args: None, "must return a list of texts, and returned NoneType"),
        (lambda args: [args["note"] * 1_000_000], "its function returned 9,000,000 characters"),
        (lambda args: ["a\0b"], "a text of 1 to 200 characters without NUL"),
        (lambda args: ["\ud800"], "a text of 1 to 200 characters"),
        (lambda args: [""], "its function returned 0 characters"),
        (lambda args: [args["account_id"]], "its function returned int"),
        (lambda args: [str(n) for n in range(51)], "at most 50 tags, and its function returned 51"),
    ],
)
def test_a_function_that_makes_no_tags_is_an_error_that_shows_no_value(
    tags: Any, says: str, tagged: Tagged, opsjobs: OpsJobs, db: SQLAlchemy
) -> None:
    bill = tagged(tags)
    call: dict[str, Any] = {"account_id": 42, "note": "sensitive"}
    for enqueue in (
        lambda: bill.enqueue(**call),
        lambda: bill.enqueue_many([call]),
        lambda: bill.options(unique=Unique(until="ended")).enqueue_many([call]),
    ):
        with pytest.raises(InvalidArgs, match=says) as raised:
            enqueue()
        assert "sensitive" not in str(raised.value)
        assert raised.value.__context__ is None
    flow = opsjobs.workflow("bills")
    flow.step("first", bill, **call)
    with pytest.raises(InvalidWorkflow, match=says):
        flow.start()
    # The transaction goes on, and nothing was written.
    db.session.commit()
    assert _tags(db) == []


def test_another_text_each_time_is_asked_for_once(tagged: Tagged, db: SQLAlchemy) -> None:
    numbers = count()
    bill = tagged(lambda args: [f"number/{next(numbers)}"])
    bill.enqueue(1)
    bill.enqueue(1)
    db.session.commit()
    assert _tags(db) == [["number/0"], ["number/1"]]
    assert next(numbers) == 2


def test_what_is_neither_texts_nor_a_function_is_refused(tagged: Tagged) -> None:
    for tags in ("import", 7, [""], ["a\0"]):
        with pytest.raises(DeclarationError, match="tag"):
            tagged(tags)
