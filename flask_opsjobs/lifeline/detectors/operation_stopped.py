"""Finds operations that stopped by themselves, and that nobody has resumed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words


def _detect(facts: Facts) -> DetectorPass:
    return facts.look("detect_stopped_operations", _finding)


def _finding(row: Mapping[str, Any]) -> Finding:
    why = {"code": row["code"], "says": row["says"]}
    return Finding(
        subject=f"operation/{row['id']}",
        since=row["ended_at"],
        affected=row["left_over"],
        facts={
            "operation": row["id"],
            "action": row["action"],
            "actor": row["actor"],
            "left": row["left_over"],
            **why,
        },
        evidence=(Observation("stopped", "operate", {"at": row["ended_at"].isoformat(), **why}),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    id_ = facts["operation"]
    return Words(
        title=f"Operation {id_} stopped",
        why=f"{facts['says'][:1].upper()}{facts['says'][1:]}. "
        f"{facts['actor']} started it: {facts['action']}.",
        next_step=f"Mend the cause, then resume operation {id_}, which begins again with one job; or cancel "
        "the rest.",
    )


DETECTOR = Detector(
    class_="operation_stopped",
    title="Stopped operations",
    severity="warning",
    found_when="an operation stopped by itself within a day, and nobody has resumed it",
    near_miss="one that somebody paused or canceled; one that waits until it can go on",
    say=_say,
    detect=_detect,
    quiet_after=timedelta(seconds=10),
    affects=("job", "jobs"),
    repairs=("operation.resume", "operation.cancel"),
)
