"""Collects what is wrong with a workflow, so that a host reads all errors at once."""

from __future__ import annotations

from typing import Any

from ..jobs.record import json_storage

# Of names, keys and `dedupe`: three of them must fit into one row of an index, 2,704 bytes, whatever their
# characters.
LONGEST_NAME = 200
_SHOWN = 60


class Faults:
    """The errors of a workflow, as `InvalidWorkflow.errors` has them. `of` is a step, or None: the whole."""

    def __init__(self) -> None:
        self.all: list[dict[str, str]] = []

    def add(self, of: Any, kind: str, sentence: str, loc: str = "") -> None:
        """Add an error. `loc` is the argument that it is about."""
        step = "" if of is None else show_name(of.name)
        self.all.append({"step": step, "loc": loc, "msg": sentence, "type": kind})

    def check_name(self, of: Any, what: str, name: object) -> bool:
        """Whether a name can be stored. Adds an error when it cannot."""
        if not isinstance(name, str):
            sentence = f"must be a text, got {type(name).__name__}"
        elif not 1 <= len(name) <= LONGEST_NAME:
            sentence = f"must have 1 to {LONGEST_NAME} characters, it has {len(name):,}"
        elif why := json_storage.complain(name):
            sentence = why
        else:
            return True
        self.add(of, "name", f"{what} {sentence}")
        return False


def show_name(name: object) -> str:
    """A name as an error shows it: on one line and not too long; the type of what is no text."""
    if not isinstance(name, str):
        return type(name).__name__
    if len(name) <= _SHOWN and name.isprintable():
        return name or "''"
    line = json_storage.clean_text(" ".join(name[: 2 * _SHOWN].split()))
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "…"
