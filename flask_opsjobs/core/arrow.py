"""Defines an arrow, a legal move between the states of one kind of row. Each `lifecycle` lists its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Arrow:
    """A legal move by `by`, from any of `sources` to one of `targets`.

    Without targets the state stays, or the row is deleted. `made_by` names the statements that set the state,
    or insert or delete the row.
    """

    name: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    by: str
    meaning: str
    made_by: tuple[str, ...] = ()
