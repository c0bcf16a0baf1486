"""Decides the next step of an incident: a button, a link to the place where it is done, or a name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flask import url_for

from ...actions.domain import Action, say_target
from ...actions.registry import ACTIONS
from ...lifeline.queries import IncidentRow
from ...lifeline.repairs import MOST_JOBS, Repair, repairs_of
from ..app import access, links


@dataclass(frozen=True)
class NextStep:
    """One repair as pages show it.

    `action` is None for one that this version does not have: then `text` names it. With `url` it is a button
    for all `targets`; `place` is the page on which it is done when it asks for a value.
    """

    text: str
    action: Action[Any] | None = None
    targets: Sequence[str] = ()
    url: str = ""
    place: str = ""

    @property
    def picked(self) -> Sequence[str]:
        """The names of the targets that a button for several of them sends."""
        return (
            [target.partition("/")[2] for target in self.targets] if len(self.targets) > 1 else ()
        )

    @property
    def is_allowed(self) -> bool:
        """Whether the actor holds its permission on one of its targets."""
        action = self.action
        return action is not None and any(
            access.may(action.permission, one) for one in self.targets
        )


def steps_of(incident: IncidentRow) -> Sequence[NextStep]:
    """The repairs of an incident that is not resolved, the best first; none of one that is.

    Those that are only named come last.
    """
    if not incident.is_active:
        return ()
    return sorted(_steps(incident), key=lambda step: step.action is None)


def first_step(incident: IncidentRow) -> NextStep | None:
    """The best repair; None without one."""
    return next(iter(steps_of(incident)), None)


def _steps(incident: IncidentRow) -> Iterator[NextStep]:
    for repair in repairs_of(incident.class_, incident.facts):
        action = ACTIONS.get(repair.action)
        if action is None:
            yield NextStep(f"The action {repair.action} comes with a later version.")
        elif not repair.targets:
            yield from _too_many(incident, action)
        elif action.params:
            place = links.to_target(repair.targets[0])
            yield NextStep(_label(action, repair), action, repair.targets, place=place)
        else:
            yield NextStep(_label(action, repair), action, repair.targets, url=_url(action, repair))


def _too_many(incident: IncidentRow, action: Action[Any]) -> Iterator[NextStep]:
    """What is said when a repair has no targets: its facts name none, or too many."""
    if action.domain == "job" and incident.facts.get("jobs"):
        yield NextStep(
            f"{action.title} more than {MOST_JOBS} jobs: in parts, from the list of jobs"
        )


def _label(action: Action[Any], repair: Repair) -> str:
    if len(repair.targets) > 1:
        return f"{action.title} {len(repair.targets)} {action.plural}"
    words = say_target(repair.targets[0]).partition(" ")[0]
    return action.title if " " in action.title else f"{action.title} {words}"


def _url(action: Action[Any], repair: Repair) -> str:
    if len(repair.targets) > 1:
        return url_for(f"opsjobs.{action.plural}_{action.short_name}")
    return links.to_action(action, repair.targets[0])
