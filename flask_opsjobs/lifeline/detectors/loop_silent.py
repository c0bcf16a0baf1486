"""Finds loops that have stopped making passes, although their process is awake."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ...core.words import moment
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words
from ..loop_runs import GRACE_SECONDS


def _detect(facts: Facts) -> DetectorPass:
    return facts.look("detect_silent_loops", _finding, grace_seconds=GRACE_SECONDS)


def _finding(row: Mapping[str, Any]) -> Finding:
    last_at = row["last_at"].isoformat()
    return Finding(
        subject=f"loop/{row['loop']}",
        since=row["last_at"] + timedelta(seconds=row["every_seconds"]),
        facts={"loop": row["loop"], "process": row["process"], "last_at": last_at},
        evidence=(
            Observation("last_pass", "loop_runs", {"process": row["process"], "at": last_at}),
        ),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    last = moment(datetime.fromisoformat(facts["last_at"]))
    return Words(
        title=f"The loop {facts['loop']} is silent",
        why=f"It made its last pass at {last}. Its process {facts['process']} is awake, but this loop is "
        "stuck.",
        next_step="Restart the loops, unless a Redis that hangs holds this one up: stop the process, then "
        "`flask opsjobs run`.",
    )


DETECTOR = Detector(
    class_="loop_silent",
    title="Silent loops",
    severity="critical",
    found_when="a loop has made no pass for three intervals, although other loops of its process are awake",
    near_miss="a slow pass; another copy that is awake; a loop that a deploy left out",
    say=_say,
    detect=_detect,
    hides=("loop_failing",),
)
