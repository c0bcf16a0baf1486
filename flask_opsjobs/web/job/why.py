"""Adds buttons and links to the reasons on a job's page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import url_for

from ...actions.domain import Action
from ...actions.registry import ACTIONS
from ...explain.reason import Explanation, Reason
from ...jobs.rows import JobInFull
from ...limits.actions import make_target, split_target
from ..app import access

# The page that shows more about a reason: its endpoint, the link's text, the permission of the page.
_PLACES: Mapping[str, tuple[str, str, str]] = {
    "queue_paused": ("queue", "Its queue", "queues.view"),
    "queue_draining": ("queue", "Its queue", "queues.view"),
    "no_live_worker": ("queue", "Its queue", "queues.view"),
    "prefetch_full": ("queue", "Its prefetch", "queues.view"),
    **dict.fromkeys(
        ("limit_cooldown", "limit_tokens", "limit_concurrency", "limit_weight", "limit_behind"),
        ("limiter", "Its limiter", "limiters.view"),
    ),
    "handed_back": ("workers", "Workers", "workers.view"),
    "worker_silent": ("workers", "Workers", "workers.view"),
    "workers_busy": ("workers", "Workers", "workers.view"),
    "loop_silent": ("overview", "Loops", "overview.view"),
    "loop_failing": ("overview", "Loops", "overview.view"),
}


@dataclass(frozen=True)
class ReasonView:
    """A reason with its button (an action and its URL) and its link (text and URL), if it has them."""

    reason: Reason
    action: Action[Any] | None
    action_url: str | None
    place: tuple[str, str] | None


def show(why: Explanation | None, job: JobInFull, *, names_partition: bool) -> list[ReasonView]:
    """The reasons as the page shows them.

    `queue.set_prefetch` gets no button, because it needs a number: the queue's page has its form. Without
    `names_partition` no button names a partition.
    """
    shown = []
    for reason in why.reasons if why else ():
        action = None if reason.action in (None, "queue.set_prefetch") else ACTIONS[reason.action]
        if action is not None and action.domain == "limiter" and not names_partition:
            action = None if split_target(reason.target or "")[1] else action
        url = None if action is None else _url(action, reason, job)
        shown.append(ReasonView(reason, action, url, _place(reason, job)))
    return shown


def _url(action: Action[Any], reason: Reason, job: JobInFull) -> str:
    if action.domain == "limiter":
        limiter, partition = split_target(reason.target or "")
        return url_for(f"opsjobs.limiter_{action.short_name}", limiter=limiter, partition=partition)
    if action.domain == "queue":
        return url_for(f"opsjobs.queue_{action.short_name}", name=job.queue)
    return url_for(f"opsjobs.job_{action.short_name}", job_id=job.id)


def _place(reason: Reason, job: JobInFull) -> tuple[str, str] | None:
    if reason.code not in _PLACES:
        return None
    endpoint, words, permission = _PLACES[reason.code]
    if endpoint == "limiter":
        return _limiter(words, permission, job)
    subject = f"queue/{job.queue}" if endpoint == "queue" else None
    if not access.may(permission, subject):
        return None
    if endpoint == "queue":
        return words, url_for("opsjobs.queue", name=job.queue)
    return words, url_for(f"opsjobs.{endpoint}", _anchor="loops" if words == "Loops" else None)


def _limiter(words: str, permission: str, job: JobInFull) -> tuple[str, str] | None:
    limiter, partition = job.limiter, job.partition or None
    if limiter is None or not access.may(permission, make_target(limiter, partition)):
        return None
    return words, url_for("opsjobs.limiter", limiter=limiter, partition=partition)
