"""Finds plain RQ jobs that wait for ever behind a parent that failed, was canceled or is gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ...core import sql
from ...core.words import agree, counted
from ...jobs.lifecycle import ASKED_OF_RQ
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words

# In each pass so many of the open plain jobs are looked at, and again those that waited for ever before.
_PAGE = 500
_MOST_WAITING = 1_000
# So many are counted of those that wait behind.
_MOST_BEHIND = 2_000
_HOW = {"failed": "failed", "canceled": "was canceled or stopped", None: "is gone"}


def _detect(facts: Facts) -> DetectorPass:
    """Look at the next open plain jobs. A round over all of them takes as many passes as there are pages."""
    memory = facts.memory.setdefault("plain_jobs", {"after": ("", 0), "is_whole": False, "ids": []})
    place, after = memory["after"]
    values = {"place": place, "after": after, "limit": _PAGE}
    page = facts.connection.execute(sql.load("list_next_plain_jobs"), values).fetchall()
    memory["after"] = page[-1][:2] if len(page) == _PAGE else ("", 0)
    memory["is_whole"] = memory["is_whole"] or len(page) < _PAGE
    deferred = {id for _, id, is_deferred in page if is_deferred}
    ids = sorted(deferred.union(memory["ids"]))
    waiting: set[int] = set()

    def make(row: Mapping[str, Any]) -> Finding:
        waiting.update(row["dependents"])
        return _finding(row)

    found = facts.look("detect_stuck_dependents", make, ids=ids, most_behind=_MOST_BEHIND)
    memory["ids"] = sorted(waiting)[:_MOST_WAITING]
    is_complete = memory["is_whole"] and len(waiting) <= _MOST_WAITING
    return replace(found, is_complete=found.is_complete and is_complete)


def _finding(row: Mapping[str, Any]) -> Finding:
    parent, dependents = row["parent"], row["dependents"]
    can_retry = row["state"] in ASKED_OF_RQ["retry"]
    seen = {"parent": row["rq_id"], "state": row["state"]}
    return Finding(
        subject=f"rq/{row['rq_place']}/{row['rq_id']}" if parent is None else f"job/{parent}",
        since=row["ended_at"],
        affected=row["number"],
        facts={
            "rq_id": row["rq_id"],
            "parent": parent,
            "parent_task": row["task"],
            "state": row["state"],
            "number": row["number"],
            "is_least": row["is_least"],
            "jobs": dependents[:100],
            "has_more_jobs": len(dependents) > 100,
            "jobs_of": {"job.retry": [parent] if can_retry else []},
        },
        evidence=(Observation("waits_behind", "adopt", seen),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    jobs = counted(facts["number"], "plain job", more="+" if facts.get("is_least") else "")
    parent = f"job {facts['parent']} ({facts['parent_task']})"
    if facts["parent"] is None:
        parent = f"the job {facts['rq_id']} of RQ"
    can_retry = bool(facts["jobs_of"]["job.retry"])
    return Words(
        title=f"{jobs} {agree(facts['number'], 'waits', 'wait')} for ever behind {parent}",
        why=f"That job {_HOW.get(facts['state'], 'vanished from RQ')}, so RQ never queues "
        f"{agree(facts['number'], 'the one', 'those')} behind it by itself.",
        next_step="Retry that job, or cancel what waits for it."
        if can_retry
        else "Cancel what waits for it.",
    )


DETECTOR = Detector(
    class_="rq_dependents_stuck",
    title="Plain jobs that wait for ever",
    severity="warning",
    found_when="a plain job is deferred, a parent of it failed, was canceled or is gone, and the job does "
    "not "
    "allow that",
    near_miss="a parent that runs or is tried again; `allow_failure`",
    say=_say,
    detect=_detect,
    # Until then a parent may be about to be adopted.
    open_after=timedelta(seconds=15),
    quiet_after=timedelta(seconds=10),
    repairs=("job.retry", "job.cancel"),
)
