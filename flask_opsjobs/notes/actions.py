"""Decides about the one action on notes: add one to a job, workflow, incident, failure or worker.

A note is the reason of its row in the audit. So nobody changes or removes it, and it stays when its subject
is removed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from ..actions.domain import (
    Action,
    Request,
    cannot,
    make_item,
    make_skip,
    read_id_target,
    say_target,
)
from ..actions.effects import Effect
from ..actions.shapes import Change, Item, Skip
from ..core.db import Connection
from ..workers import actions as worker_actions
from . import transitions
from .transitions import SubjectForDecision

# What a note can be about.
KINDS = ("job", "workflow", "incident", "failure", "worker")


def read_target(text: str) -> str | None:
    """The subject in its canonical form, such as `job/42`; None when the text names none."""
    kind = text.partition("/")[0]
    if kind not in KINDS:
        return None
    return worker_actions.read_target(text) if kind == "worker" else read_id_target(kind, text)


def lock_rows(connection: Connection, _request: Request, targets: Collection[str]) -> None:
    """Let nobody else add a note to these subjects until the commit. Locks no row."""
    transitions.lock(connection, targets)


def find_rows(
    connection: Connection, _request: Request, targets: Collection[str]
) -> dict[str, SubjectForDecision]:
    """Those of these subjects that exist."""
    return transitions.read(connection, targets)


def say_unknown(target: str) -> str:
    """The sentence about a subject that does not exist."""
    return f"there is no {say_target(target)}"


def forbid(_subject: SubjectForDecision, _request: Request) -> Skip | None:
    """None: each state allows a note."""
    return None


def list_facts(_subject: SubjectForDecision, _now: datetime) -> dict[str, Any]:
    """Nothing: a note depends on no value of its subject."""
    return {}


def _decide_add(subject: SubjectForDecision, request: Request) -> Item | Skip:
    if len(request.targets) > 1:
        return cannot(subject, request, "a note is about one subject")
    if (subject.newest_actor, subject.newest_text) == (request.actor, request.reason):
        says = f"the newest note on {say_target(subject.target)}, by {request.actor}, says the same"
        return make_skip(subject, "already", says)
    return make_item(subject, Change("note", None, "added"))


def _apply_add(
    _connection: Connection, _request: Request, _subjects: Sequence[SubjectForDecision]
) -> list[Effect | Item]:
    """Write nothing: the row of the audit is the note."""
    return []


ACTIONS: tuple[Action[SubjectForDecision], ...] = (
    Action(
        name="note.add",
        title="Add a note",
        phrase="add a note to {}",
        asks="write a note",
        about=KINDS,
        sources=(),
        risk="A note stays: nobody can change or remove it.",
        decide=_decide_add,
        apply=_apply_add,
    ),
)
