"""Finds failures that came back although they were resolved."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ...core.words import moment
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words


def _detect(facts: Facts) -> DetectorPass:
    return facts.look("detect_failures", _finding, has_regressed=True)


def _finding(row: Mapping[str, Any]) -> Finding:
    # The text of the error is payload: only the page of the failure shows it.
    what = {name: row[name] for name in ("task", "type", "raised_in")}
    again = {"at": row["regressed_at"].isoformat(), "version": row["regressed_in"]}
    return Finding(
        subject=f"failure/{row['id']}",
        since=row["regressed_at"],
        affected=row["jobs"],
        facts={"failure": row["id"], **what, **again},
        evidence=(Observation("regressed", "roll_up", again),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    version = f" of version {facts['version']}" if facts["version"] else ""
    at = moment(datetime.fromisoformat(facts["at"]))
    where = f" in {facts['raised_in']}" if facts["raised_in"] else ""
    return Words(
        title=f"{facts['task']} fails again{': ' if facts['type'] else ''}{facts['type'] or ''}",
        why=f"Somebody said that the error{where} was fixed. It came back at {at} on a worker{version} "
        "that has the fix.",
        next_step="Mend it and say in which deploy it is resolved, or ignore it for a while.",
    )


DETECTOR = Detector(
    class_="failure_regressed",
    title="Failures that came back",
    severity="warning",
    found_when="a resolved failure failed again on a worker that has its fix, and nobody has decided "
    "about it since then",
    near_miss="old code that still fails after the fix",
    say=_say,
    detect=_detect,
    quiet_after=timedelta(seconds=10),
    repairs=("operation.retry", "failure.resolve", "failure.ignore"),
)
