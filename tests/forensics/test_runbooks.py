"""Which runbook a subject has, what is refused where it is declared, and how its checks are asked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import text
from sqlalchemy.exc import InternalError

from flask_opsjobs import DeclarationError, OpsJobs
from flask_opsjobs.forensics.bundle import Prerequisite
from flask_opsjobs.forensics.registry import KINDS
from flask_opsjobs.forensics.runbooks import ask_runbook, find_declared
from flask_opsjobs.host import Host
from flask_opsjobs.lifeline.detectors import DETECTORS
from tests.support.waiting import wait_until

Ask = Callable[..., list[Prerequisite]]


@pytest.fixture
def ask(opsjobs: OpsJobs, host: Host) -> Ask:
    """Declares a runbook with these checks, and asks them about a cron entry."""

    def ask(**prerequisites: Any) -> list[Prerequisite]:
        opsjobs.runbooks.clear()
        opsjobs.runbook("queue", title="Pause the sync", prerequisites=prerequisites)
        found = find_declared(host, "queue/mail", ())
        assert found is not None
        return list(ask_runbook(host, found, "queue/mail").prerequisites)

    return ask


def test_a_check_gets_the_subject_and_says_whether_it_is_met(ask: Ask) -> None:
    asked: list[str] = []

    def is_known(subject: str) -> bool:
        asked.append(subject)
        return True

    assert ask(known=is_known, large=lambda _: False, late=lambda _: None, person=None) == [
        Prerequisite("met", "known"),
        Prerequisite("missing", "large"),
        Prerequisite("unknown", "late (its check does not know)"),
        Prerequisite("unknown", "person (a person must answer it)"),
    ]
    assert asked == ["queue/mail"]


def test_a_check_that_raises_ends_or_answers_something_else_is_unknown(
    ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    def leak(_subject: str) -> bool:
        raise KeyError("the password is hunter2")

    def leave(_subject: str) -> bool:
        raise SystemExit(3)

    assert ask(leak=leak, leave=leave, one=lambda _: 1, nothing=lambda: True) == [
        Prerequisite("unknown", "leak (its check raised KeyError)"),
        Prerequisite("unknown", "leave (its check raised SystemExit)"),
        Prerequisite("unknown", "one (its check answered neither True nor False)"),
        Prerequisite("unknown", "nothing (its check raised TypeError)"),
    ]
    assert "hunter2" not in caplog.text
    assert "test_runbooks.py" in caplog.text


def test_checks_that_hang_are_unknown_and_the_others_answer(ask: Ask, host: Host) -> None:
    gate = threading.Event()
    ended: list[bool] = []

    def hang(_subject: str) -> bool:
        ended.append(gate.wait(60))
        return ended[-1]

    try:
        first, second, third = ask(first=hang, second=lambda _: True, third=hang)
        assert ended == []
        assert (second.state, third.says) == ("met", "third (no answer in time)")
        assert first.state == "unknown"
        # Those that hang keep their places, so that no page starts threads without end.
        host.checks.most = 2
        assert ask(first=hang, second=lambda _: True, third=hang) == [
            Prerequisite("unknown", f"{name} (earlier checks have not ended)")
            for name in ("first", "second", "third")
        ]
    finally:
        gate.set()
    wait_until(lambda: ask(first=hang, second=lambda _: True, third=hang)[0].state == "met")


def test_a_check_reads_the_database_of_the_host_and_cannot_write(ask: Ask, db: SQLAlchemy) -> None:
    db.session.execute(text("CREATE TABLE IF NOT EXISTS public.sums (sum int)"))
    db.session.commit()
    seen: list[Exception] = []

    def is_empty(_subject: str) -> bool:
        return db.session.scalar(text("SELECT count(*) FROM public.sums")) == 0

    def writes(_subject: str) -> bool:
        try:
            db.session.execute(text("INSERT INTO public.sums VALUES (1)"))
        except InternalError as error:
            seen.append(error)
            db.session.rollback()
            raise
        return True

    def commits(_subject: str) -> bool:
        db.session.commit()
        db.session.execute(text("INSERT INTO public.sums VALUES (1)"))
        return True

    states = [each.state for each in ask(empty=is_empty, writes=writes, commits=commits)]
    assert states == ["met", "unknown", "unknown"]
    assert "read-only transaction" in str(seen)
    assert db.session.scalar(text("SELECT count(*) FROM public.sums")) == 0
    db.session.execute(text("DROP TABLE public.sums"))
    db.session.commit()


def test_the_runbook_of_the_subject_comes_before_those_of_its_incidents_and_its_kind(
    make_app: Callable[..., Flask], opsjobs: OpsJobs
) -> None:
    app = make_app(opsjobs=opsjobs, OPSJOBS_RUNBOOKS={"poison": "https://wiki/poison"})
    host = app.extensions["opsjobs"]

    def title(subject: str, *classes: str) -> str | None:
        found = find_declared(host, subject, classes)
        return None if found is None else found.title

    assert title("queue/a", "delivery_lost") is None
    assert title("queue/a", "delivery_lost", "poison") == "https://wiki/poison"
    opsjobs.runbook("queue", title="any")
    opsjobs.runbook("delivery_lost", title="lost")
    opsjobs.runbook("queue/b", title="this one")
    assert title("queue/a") == "any"
    assert title("queue/a", "poison", "delivery_lost") == "https://wiki/poison"
    assert title("queue/a", "delivery_lost", "poison") == "lost"
    assert title("queue/b", "poison") == "this one"
    opsjobs.runbook("poison", title="poison", url="/wiki/poison")
    assert title("queue/a", "poison") == "poison"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"about": "poisson"}, "about must be a class of incidents"),
        ({"about": "queue/"}, "about must be"),
        ({"about": 7}, "about must be"),
        ({"title": " "}, "title must be a text of 1 to 200 characters"),
        ({"title": "two\nlines"}, "title must be"),
        ({"url": "javascript:alert(1)"}, "url must be None, a path"),
        ({"prerequisites": ["it is known"]}, "prerequisites must be a dict"),
        ({"prerequisites": {"": None}}, "a prerequisite's name is a text"),
        ({"prerequisites": {"it is known": True}}, "the check of 'it is known' must be a function"),
        ({"cautions": "one"}, "cautions must be a list"),
        ({"cautions": [""]}, "cautions must be a list"),
    ],
)
def test_a_fault_is_told_where_the_code_is_written(
    opsjobs: OpsJobs, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(DeclarationError, match="runbook") as caught:
        opsjobs.runbook(**{"about": "queue", "title": "Pause", **options})
    assert said in str(caught.value)


def test_it_is_declared_once(opsjobs: OpsJobs) -> None:
    for _ in range(2):
        opsjobs.runbook("queue", title="Pause", cautions=["no invoices"])
    with pytest.raises(DeclarationError, match="declared twice"):
        opsjobs.runbook("queue", title="Resume")


def test_every_class_and_every_kind_may_have_one(opsjobs: OpsJobs) -> None:
    for about in (*DETECTORS, *KINDS, *(f"{kind}/x" for kind in KINDS)):
        opsjobs.runbook(about, title=about)
    assert len(opsjobs.runbooks) == len(DETECTORS) + 2 * len(KINDS)
