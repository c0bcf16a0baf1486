"""Finds places of limiters that are taken by attempts which do not run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ...core.words import agree, counted
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words


def _detect(facts: Facts) -> DetectorPass:
    return facts.look("detect_leaked_leases", _finding)


def _finding(row: Mapping[str, Any]) -> Finding:
    return Finding(
        subject=f"limiter/{row['limiter']}",
        affected=row["number"],
        facts={
            "limiter": row["limiter"],
            "number": row["number"],
            "jobs": row["jobs"][:100],
            "leases": row["leases"],
            "has_more_jobs": row["number"] > 100,
        },
        evidence=(
            Observation("lease", "detect", {"leases": row["number"], "first_job": row["jobs"][0]}),
        ),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    leases = counted(facts["number"], "lease")
    return Words(
        title=f"{leases} of the limiter {facts['limiter']} leaked",
        why=f"{leases} {agree(facts['number'], 'keeps', 'keep')} a place, but the attempt does not run. "
        f"Other "
        "jobs of the limiter wait for the place.",
    )


DETECTOR = Detector(
    class_="lease_leaked",
    title="Leaked leases",
    severity="warning",
    found_when="a lease is 30 s old or older, and its attempt does not run",
    near_miss="a claim under way; a job that runs",
    say=_say,
    detect=_detect,
    open_after=timedelta(seconds=5),
    quiet_after=timedelta(seconds=10),
    repairs=("lease.release",),
    affects=("lease", "leases"),
)
