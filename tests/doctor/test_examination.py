"""Checks are asked for a limited time; what one needs is asked first; exit codes follow from the answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from flask import Flask
from sqlalchemy import text

from flask_opsjobs.doctor import check as checking
from flask_opsjobs.doctor import examination
from flask_opsjobs.doctor.check import (
    CheckAnswer,
    CheckContext,
    DoctorCheck,
    error,
    ok,
    skipped,
    warning,
)
from flask_opsjobs.doctor.examination import Examination, examine
from flask_opsjobs.doctor.registry import CHECKS, GROUPS, TOGETHER
from flask_opsjobs.doctor.report import as_lines
from tests.conftest import MakeApp
from tests.doctor.conftest import HideSecrets

Answers = Callable[..., Examination]


@pytest.fixture
def answers(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Examines with checks that answer so: `answers(a=ok("…"), b=("a", warning("…")))`; `b` needs `a`."""

    def answers(of: Flask = app, **said: object) -> Examination:
        checks = {}
        for name, each in said.items():
            needs, answer = each if isinstance(each, tuple) else ((), each)
            look = answer if callable(answer) else lambda _context, answer=answer: answer
            checks[name] = DoctorCheck(name, (), "", look, needs=tuple(needs))
        monkeypatch.setattr(examination, "CHECKS", checks)
        monkeypatch.setattr(examination, "GROUPS", {"all": list(checks.values())})
        return examine(of)

    return answers


def test_ids_are_unique_and_needs_exist() -> None:
    listed = [check.id for checks in GROUPS.values() for check in checks]
    assert len(set(listed)) == len(listed) == len(CHECKS)
    for check in CHECKS.values():
        assert set(check.needs) <= set(CHECKS)
        assert check.needs or check.id == "config.app"
        assert set(check.levels) <= {"error", "warning"}
        assert all(CHECKS[needed].gives for needed in check.needs)


@pytest.mark.parametrize(
    ("said", "code", "strict"),
    [
        ({"a": ok("fine")}, 0, 0),
        ({"a": ok("fine"), "b": skipped("not installed")}, 0, 0),
        ({"a": ok("fine"), "b": warning("look")}, 1, 2),
        ({"a": error("broken"), "b": warning("look")}, 2, 2),
    ],
)
def test_the_exit_code_is_that_of_the_worst_answer(
    answers: Answers, said: dict[str, CheckAnswer], code: int, strict: int
) -> None:
    found = answers(**said)
    assert (found.exit_code(), found.exit_code(is_strict=True)) == (code, strict)


def test_a_check_whose_need_fails_is_skipped_and_never_counts_as_fine(
    answers: Answers, make_well: MakeApp
) -> None:
    app = make_well(OPSJOBS_DOCTOR_SILENCE=["a"])
    found = answers(app, a=error("a is away"), b=(["a"], ok("fine")), c=(["b"], ok("fine")))
    assert [(each.answer.state, each.because) for each in found.results] == [
        ("error", None),
        ("skipped", "a"),
        ("skipped", "a"),
    ]
    assert found.results[2].answer.sentence == "a is away"
    # It is silenced, and what could not be asked is still an error.
    assert found.exit_code() == 2


def test_a_silenced_check_is_named_and_does_not_count(answers: Answers, make_well: MakeApp) -> None:
    found = answers(make_well(OPSJOBS_DOCTOR_SILENCE=["b"]), a=ok("fine"), b=warning("look here"))
    assert found.exit_code(is_strict=True) == 0
    said = list(as_lines(found))
    assert said[0] == "Nothing is wrong. 1 check is fine, 1 is silenced."
    assert said[1].split() == ["silenced", "b", "It", "would", "be:", "warning.", "look", "here"]


def _began(context: CheckContext) -> CheckAnswer:
    """When the transaction of the check began."""
    with context.reading() as read:
        return ok(f"{read.session.scalar(text('SELECT now()'))}")


def test_checks_that_ask_only_postgres_share_a_snapshot_and_what_they_read(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "TOGETHER", {"a", "b", "d"})
    read: list[str] = []

    def once(context: CheckContext) -> CheckAnswer:
        return context.once("it", lambda: read.append("") or _began(context))

    found = answers(a=_began, b=once, c=_began, d=once)
    first, *others = [result.answer.sentence for result in found.results]
    assert [each == first for each in others] == [True, False, True]
    assert len(read) == 1


@pytest.mark.parametrize("how", ["SELECT 1 / (random() * 0)::int", "SELECT pg_sleep(30)", ""])
def test_one_that_fails_or_hangs_keeps_no_other_from_its_answer(
    how: str,
    answers: Answers,
    never: Callable[[CheckContext], CheckAnswer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(examination, "TOGETHER", {"a", "b", "c"})
    monkeypatch.setattr(checking, "_STATEMENT_SECONDS", 1.0)
    if not how:
        monkeypatch.setattr(examination, "MOST_SECONDS_TOGETHER", 1.0)

    def look(context: CheckContext) -> CheckAnswer:
        with context.reading() as read:
            return ok(f"{read.session.scalar(text(how))}")

    found = answers(a=_began, b=look if how else never, c=(["a"], _began))
    assert [result.answer.state for result in found.results] == ["ok", "error", "ok"]
    # Each was asked alone.
    assert found.results[0].answer != found.results[2].answer


def test_what_is_asked_together_asks_no_redis(make_well: MakeApp) -> None:
    with socket.create_server(("127.0.0.1", 0)) as redis:
        redis.setblocking(False)
        app = make_well(OPSJOBS_REDIS_URL=f"redis://127.0.0.1:{redis.getsockname()[1]}/0")
        assert len(examine(app, only=TOGETHER).in_state("ok")) > 20
        with pytest.raises(BlockingIOError):
            redis.accept()


@pytest.fixture
def never() -> Iterator[Callable[[CheckContext], CheckAnswer]]:
    """A check that does not answer before the end of the test."""
    over = threading.Event()

    def look(_context: CheckContext) -> CheckAnswer:
        over.wait()
        return ok("too late")

    yield look
    over.set()
    for thread in threading.enumerate():
        if thread.name == "opsjobs-doctor":
            thread.join()


def test_a_check_that_does_not_answer_in_time_is_an_error(
    answers: Answers,
    never: Callable[[CheckContext], CheckAnswer],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(examination, "MOST_SECONDS", 0.5)
    found = answers(a=never, b=ok("fine"))
    assert [each.answer.state for each in found.results] == ["error", "ok"]
    assert found.results[0].answer.sentence == "It got no answer within 2 s."


def test_all_checks_together_have_a_limit_too(
    answers: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(examination, "MOST_SECONDS_IN_ALL", 0.0)
    (result,) = answers(a=ok("fine")).results
    assert result.answer.sentence == "It was not asked: all checks together have 20 s."


def test_a_check_that_raises_is_an_error_without_its_message(
    answers: Answers, caplog: pytest.LogCaptureFixture
) -> None:
    def look(_context: CheckContext) -> CheckAnswer:
        raise LookupError("s3cr3t")

    (result,) = answers(a=look).results
    assert result.answer == error("The check failed with LookupError; the log says where.")
    assert "the check a of the doctor failed" in caplog.text


def test_texts_pass_the_display_policy(answers: Answers, make_well: MakeApp) -> None:
    (result,) = answers(a=warning("the URL is redis://user:s3cr3t@cache", "token=abc1234")).results
    assert "s3cr3t" not in f"{result.answer}"
    assert "abc1234" not in f"{result.answer}"

    class Raises(HideSecrets):
        def clean_text(self, text: str) -> str:
            raise ValueError(text)

    (result,) = answers(make_well(display=Raises()), a=warning("of whom?")).results
    assert result.answer.state == "warning"
    assert result.answer.sentence == "[hidden: display policy failed]"
