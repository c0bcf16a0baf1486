"""Checks that ask a detector find what its incidents find, and stay silent at the same near misses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs.core.reading import Reading
from flask_opsjobs.doctor.check import CheckContext
from flask_opsjobs.jobs.record.task import Task
from tests.doctor.conftest import Ask
from tests.lifeline import detecting_jobs, detecting_loops
from tests.lifeline.detecting import Case, Scene, near_miss_of
from tests.support.engine import Bench

# With the class of incidents, the case, and what the check answers.
CASES: dict[str, tuple[str, Case, str]] = {
    "loops.failing": ("loop_failing", detecting_loops.FAILING, "warning"),
    "workers.listeners": ("queue_unserved", detecting_jobs.QUEUE_UNSERVED, "error"),
    "workers.unknown_tasks": ("code_missing", detecting_jobs.CODE_MISSING, "warning"),
    "jobs.held_by_nobody": ("held_by_nobody", detecting_jobs.HELD_BY_NOBODY, "error"),
}
# An incident opens when the queue has been so for 30 s; the doctor says what is so now.
NOW = {"restart within 30 s"}
NEAR_MISSES = [
    pytest.param(check, name, id=f"{check}: {name}")
    for check, (_, case, _) in CASES.items()
    for name in case.near_misses
    if name not in NOW
]


@pytest.fixture
def make_scene(
    bench: Bench,
    db: SQLAlchemy,
    note: Task,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], Scene]:
    """Makes the scene of a class; the doctor's clock is that of the scene."""
    assert db.session is not None
    assert note.name == "note"

    def make(class_: str) -> Scene:
        scene = Scene(bench, class_, request.getfixturevalue)
        reading: Any = CheckContext.reading

        @contextmanager
        def at_its_time(context: CheckContext) -> Iterator[Reading]:
            with reading(context) as read:
                yield replace(read, now=max(read.now, scene.now))

        monkeypatch.setattr(CheckContext, "reading", at_its_time)
        return scene

    return make


@pytest.mark.parametrize("check", CASES)
def test_it_is_found_and_it_is_over(
    check: str, make_scene: Callable[[str], Scene], ask: Ask
) -> None:
    class_, case, level = CASES[check]
    scene = make_scene(class_)
    assert ask(check).state == "ok"
    case.make(scene)
    found = ask(check)
    assert (found.state, found.run.startswith("flask opsjobs")) == (level, True), found
    assert found.sentence
    assert found.evidence
    case.undo(scene)
    scene.wait(60)
    assert ask(check).state == "ok"


@pytest.mark.parametrize(("check", "name"), NEAR_MISSES)
def test_a_near_miss_stays_silent(
    check: str, name: str, make_scene: Callable[[str], Scene], ask: Ask
) -> None:
    class_, case, _ = CASES[check]
    scene = make_scene(class_)
    with near_miss_of(case, name, scene):
        assert ask(check).state == "ok"
