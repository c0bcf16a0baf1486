"""Finds what may be done to all jobs of a search, and to how many of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ...actions.domain import Action
from ...jobs.lifecycle import ASKED_OF_RQ
from ...jobs.rows import Count
from ...jobs.search.filter import JobFilter
from ...operations.operator import OPERABLE

_NONE = {
    "retry": "none failed",
    "cancel": "all have ended",
    "discard": "none waits",
    "rescue": "no worker has one",
    "run_again": "none has ended",
    "delete": "none has ended",
}


@dataclass(frozen=True)
class BulkAction:
    """An action on all jobs of a search. `count` are those in a state in which it is legal."""

    action: Action[Any]
    count: Count

    @property
    def says_none(self) -> str:
        """Why it is disabled when no job is in such a state."""
        return _NONE.get(self.action.short_name, "none allows it")


def list_bulk_actions(wanted: JobFilter, counts: Mapping[str, Count]) -> Iterator[BulkAction]:
    """The actions on all jobs of this search, in the order of their buttons. `counts` are by state.

    The states of managed jobs decide, unless the search is for plain ones: what RQ is asked for differs in
    few states, and the draft counts both.
    """
    for action in OPERABLE.values():
        if action.is_repair and not _is_where_the_fault_is(action, wanted):
            continue
        legal = action.sources
        if wanted.origin == "rq":
            legal = ASKED_OF_RQ.get(action.short_name, ())
        listed = (wanted.state,) if wanted.state else legal
        yield BulkAction(action, Count.sum(counts[state] for state in listed if state in legal))


def _is_where_the_fault_is(action: Action[Any], wanted: JobFilter) -> bool:
    """Whether a repair can be needed: a rescue of jobs of a worker or an incident, a skip of steps."""
    if action.short_name == "skip":
        return wanted.workflow is not None
    return wanted.worker is not None or wanted.incident is not None
