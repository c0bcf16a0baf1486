"""Finds waits of workflows that have been open for long, and signals that several waits could take."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ...core.words import moment
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words


def _detect(facts: Facts) -> DetectorPass:
    return facts.look("detect_overdue_waits", _finding)


def _finding(row: Mapping[str, Any]) -> Finding:
    wait = {"step": row["step"], "opened_at": row["opened_at"].isoformat(), "signal": row["signal"]}
    return Finding(
        subject=f"workflow/{row['id']}",
        affected=1,
        facts={"workflow": row["id"], "name": row["name"], **wait},
        evidence=(Observation("wait", "detect", wait),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    since = moment(datetime.fromisoformat(facts["opened_at"]))
    why = f"Its wait {facts['step']} has been open since {since}, and has no time-out."
    if facts["signal"] is not None:
        why = (
            f"Signal {facts['signal']} is for its open wait {facts['step']} and for others: nobody can tell "
            "for which."
        )
    return Words(
        title=f"Workflow {facts['workflow']} ({facts['name']}) waits for a signal", why=why
    )


DETECTOR = Detector(
    class_="wait_overdue",
    title="Overdue waits",
    severity="warning",
    found_when="a wait without a time-out has been open for a day, or a signal for an open wait is ambiguous",
    near_miss="a wait whose time-out is still to come; one that opened within a day",
    say=_say,
    detect=_detect,
    repairs=("workflow.signal", "workflow.give_signal", "workflow.skip"),
    affects=("wait", "waits"),
)
