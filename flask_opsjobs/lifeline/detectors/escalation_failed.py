"""Finds incidents of which the escalation policy could not tell."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words


def _detect(facts: Facts) -> DetectorPass:
    return facts.look("detect_failed_escalations", _finding)


def _finding(row: Mapping[str, Any]) -> Finding:
    last = {"event": row["event"], "why": row["why"]}
    return Finding(
        subject=f"incident/{row['incident_id']}",
        since=row["since"],
        affected=row["number"],
        facts={"incident": row["incident_id"], "jobs_of": {"job.retry": row["jobs"]}, **last},
        evidence=(Observation("failed", "escalate", {"at": row["since"].isoformat(), **last}),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    return Words(
        title=f"Nobody was called about incident {facts['incident']}",
        why=f"The escalation policy failed to tell that it was {facts['event']}: {facts['why']}.",
        next_step="Look at the incident yourself. Mend the policy, try it with "
        "`flask opsjobs escalate --test`, then retry the job.",
    )


DETECTOR = Detector(
    class_="escalation_failed",
    title="Failed escalations",
    severity="warning",
    found_when="the escalation policy still failed after the last attempt, within a day",
    near_miss="a call that failed and is tried again; an application without an escalation policy",
    say=_say,
    detect=_detect,
    quiet_after=timedelta(seconds=10),
    repairs=("job.retry",),
    affects=("call", "calls"),
)
