"""Decides whether a failed attempt shows that a fix did not help. Pure.

Deploys are ordered by the ids of their markers: neither by their versions, which need not sort, nor by their
times, because a clock may be set back.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Fix:
    """Where somebody said that a failure is resolved, and when.

    In the deploy `resolved_in`; or in the first one after `resolved_after`. With neither there was no marker:
    the workers that start after `decided_at` have the fix.
    """

    decided_at: datetime
    resolved_in: int | None = None
    resolved_after: int | None = None


@dataclass(frozen=True)
class Ran:
    """Where and when an attempt ran: the deploy of its worker, if one was known, and the worker's start."""

    started_at: datetime
    deploy_id: int | None = None
    worker_started_at: datetime | None = None


def has_fix(ran: Ran, fix: Fix) -> bool:
    """Return whether the attempt ran with the fix: then its failure regressed.

    In the deploy of the fix itself an attempt counts only when it started after the decision: what failed
    there before is what the person looked at. A worker of which no deploy is known started before all
    markers.
    """
    if fix.resolved_in is not None:
        if ran.deploy_id == fix.resolved_in:
            return ran.started_at > fix.decided_at
        return ran.deploy_id is not None and ran.deploy_id > fix.resolved_in
    if fix.resolved_after is not None:
        return ran.deploy_id is not None and ran.deploy_id > fix.resolved_after
    return ran.worker_started_at is not None and ran.worker_started_at > fix.decided_at
