"""Finds loops whose passes fail one after the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...core.words import counted
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words
from ..loop_runs import GRACE_SECONDS

_PASSES = 5


def _detect(facts: Facts) -> DetectorPass:
    return facts.look("detect_failing_loops", _finding, grace_seconds=GRACE_SECONDS, passes=_PASSES)


def _finding(row: Mapping[str, Any]) -> Finding:
    error = {"process": row["process"], "error": row["error"]}
    return Finding(
        subject=f"loop/{row['loop']}",
        facts={"loop": row["loop"], "failed": row["failed_in_a_row"], **error},
        evidence=(Observation("pass_failed", "loop_runs", error),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    return Words(
        title=f"The loop {facts['loop']} fails",
        why=f"Its last {counted(facts['failed'], 'pass', 'passes')} in process {facts['process']} failed: "
        f"{facts['error']}",
        next_step="Read the log of the loops. The loop tries again at each interval.",
    )


DETECTOR = Detector(
    class_="loop_failing",
    title="Failing loops",
    severity="warning",
    found_when=f"the last {_PASSES} passes of a loop failed",
    near_miss="a slow pass; fewer failed passes; another copy whose passes succeed",
    say=_say,
    detect=_detect,
)
