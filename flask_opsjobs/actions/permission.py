"""Asks the access policy what the actor of a request may do, and to how many targets at once."""

from __future__ import annotations

import logging

from ..policy import describe_failure, find_bound, is_allowed
from .domain import Request

_log = logging.getLogger("flask_opsjobs")


def is_permitted(request: Request, target: str | None, permission: str | None = None) -> bool:
    """Whether the policy returns exactly True for this target; None: in general. An exception means no.

    It is asked for the permission of the request's action, or for another one.
    """
    if request.is_trusted:
        return True
    wanted = permission or request.action.permission
    return is_allowed(request.host.access, request.actor, wanted, target, _note_failure)


def find_excess(
    request: Request, permission: str, targets: int, open_targets: int = 0
) -> str | None:
    """Why the policy lets the actor not do this to so many targets at once; None when it does.

    `open_targets` are those of the actor's operations that run or are paused.
    """
    if request.is_trusted:
        return None
    bound = find_bound(request.host.access, request.actor, permission, _note_failure)
    if bound is None or targets + open_targets <= bound:
        return None
    if bound == 0:
        return f"{permission} is frozen now for {request.actor}"
    also = f", and {open_targets:,} of running operations" if open_targets else ""
    return f"{request.actor} may do {permission} to {bound:,} at once, not to {targets:,}{also}"


def _note_failure(permission: str, error: Exception) -> None:
    _log.error("the access policy raised on %s: denied (%s)", permission, describe_failure(error))
