"""Finds why RQ does not queue an adopted job: the jobs that it depends on."""

from __future__ import annotations

from collections.abc import Iterator

from ...explain.evidence import Evidence
from ...explain.reason_kinds import Reason, make_reason
from ..lifecycle import ASKED_OF_RQ
from .chain_queries import Relative


def parent_failed(evidence: Evidence) -> Iterator[Reason]:
    """A parent failed, was canceled or is gone, so RQ never queues the job."""
    for parent in evidence.parents:
        if not parent.never_releases(allows_failure=evidence.allows_failure):
            continue
        can_retry = parent.state in ASKED_OF_RQ["retry"]
        yield make_reason(
            evidence,
            "parent_failed",
            f"It depends on {parent.name}, which {_how_it_ended(parent)}. RQ never queues it by itself.",
            "Retry that job: RQ queues this one when it has finished. Or cancel this one."
            if can_retry
            else "That job cannot be retried. Cancel this one.",
            source="observer",
            read={
                "depends_on": parent.rq_id,
                "parent": None if parent.id is None else f"job/{parent.id}",
                "state": parent.state,
                "allow_failure": evidence.allows_failure,
            },
            action="job.retry" if can_retry else "job.cancel",
            target=f"job/{parent.id if can_retry else evidence.job.id}",
            since=parent.ended_at,
        )


def parent_open(evidence: Evidence) -> Iterator[Reason]:
    """A parent has not ended."""
    waits_for = [
        parent
        for parent in evidence.parents
        if not parent.never_releases(allows_failure=evidence.allows_failure)
        and parent.state not in ("finished", "failed")
    ]
    if waits_for:
        names = ", ".join(f"{parent.name}, which is {parent.state}" for parent in waits_for)
        yield make_reason(
            evidence,
            "parent_open",
            f"It depends on {names}.",
            "RQ queues it when that has ended.",
            source="observer",
            read={"depends_on": ", ".join(parent.rq_id for parent in waits_for)},
        )


def _how_it_ended(parent: Relative) -> str:
    match parent.state:
        case None:
            return "RQ does not have and nobody has seen"
        case "unknown":
            return "vanished from RQ before its end was seen"
        case "canceled":
            return "was canceled or stopped"
    return "failed"
