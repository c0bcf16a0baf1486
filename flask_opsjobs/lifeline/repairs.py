"""Proposes the repairs of an incident: its class names the actions, its facts name their targets. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .detectors import detector_of

# At most so many jobs are targets of one repair; more of them need an operation.
MOST_JOBS = 100
# The fact that names the targets of a kind that comes in numbers.
_SEVERAL = {"lease": "leases", "delivery": "deliveries"}


@dataclass(frozen=True)
class Repair:
    """An action that may repair an incident, and its targets. Without targets it is only named.

    A page shows a button when the action exists and has targets, else its name as text.
    """

    action: str
    targets: tuple[str, ...]


def repairs_of(class_: str, facts: Mapping[str, Any]) -> Sequence[Repair]:
    """The repairs of an incident of this class with these facts, the best first."""
    return [Repair(action, _targets(action, facts)) for action in detector_of(class_).repairs]


def _targets(action: str, facts: Mapping[str, Any]) -> tuple[str, ...]:
    domain = action.partition(".")[0]
    if domain == "job":
        own = (facts.get("jobs_of") or {}).get(action)
        jobs = facts.get("jobs") or () if own is None else own
        is_bulk = len(jobs) > MOST_JOBS or (own is None and facts.get("has_more_jobs"))
        return () if is_bulk else tuple(f"job/{job}" for job in jobs)
    if domain in _SEVERAL:
        return tuple(f"{domain}/{each}" for each in facts.get(_SEVERAL[domain]) or ())
    name = facts.get(domain)
    return () if name is None else (f"{domain}/{name}",)
