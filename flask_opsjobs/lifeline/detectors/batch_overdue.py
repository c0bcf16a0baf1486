"""Finds batches that nobody closes, and closed ones that do not go on."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ...core.words import moment
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words


def _detect(facts: Facts) -> DetectorPass:
    return facts.look("detect_overdue_batches", _finding)


def _finding(row: Mapping[str, Any]) -> Finding:
    seen = {
        "state": row["state"],
        "trouble": row["trouble"],
        "newest_at": _moment(row["newest_at"]),
        "due_at": _moment(row["due_at"]),
    }
    return Finding(
        subject=f"batch/{row['id']}",
        affected=1,
        facts={"batch": row["id"], "name": row["name"], **seen},
        evidence=(Observation("batch", "detect", seen),),
    )


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()


def _say(facts: Mapping[str, Any]) -> Words:
    name = f"Batch {facts['batch']} ({facts['name']})"
    if facts["state"] == "open":
        newest = facts["newest_at"]
        last = f"since {moment(datetime.fromisoformat(newest))}" if newest else "yet"
        return Words(f"{name} stays open", f"Nothing was added to it {last}, and nobody closed it.")
    if facts["trouble"]:
        return Words(f"{name} cannot be counted", f"Each try fails: {facts['trouble']}.")
    due = moment(datetime.fromisoformat(facts["due_at"]))
    return Words(
        f"{name} does not go on",
        f"Members of it have been due since {due}, and none of them runs.",
    )


DETECTOR = Detector(
    class_="batch_overdue",
    title="Overdue batches",
    severity="warning",
    found_when="nothing was added to an open batch for a day; or a closed one has members that have "
    "been due for "
    "an hour, and none runs or waits for a time, a limit, a paused queue or a paused task",
    near_miss="a host's transaction that still adds members; members that wait for a time, or for a paused "
    "queue or task",
    say=_say,
    detect=_detect,
    open_after=timedelta(minutes=1),
    repairs=("batch.close", "batch.retry", "batch.cancel"),
    affects=("batch", "batches"),
)
