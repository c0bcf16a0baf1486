"""Describes an audit of which a row was changed or removed. The loop `verify_audit` reports it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ..finding import Detector, Finding, Observation, Words

SUBJECT = "audit"


def find_break(sequence: int, code: str, says: str) -> Finding:
    """The finding that the chain of the audit is broken at this row."""
    broken = {"sequence": sequence, "code": code, "says": says}
    return Finding(
        subject=SUBJECT,
        affected=1,
        facts=broken,
        evidence=(Observation("broken", "verify_audit", broken),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    return Words(
        title=f"The audit is broken at row {facts['sequence']}",
        why=f"{facts['says'][:1].upper()}{facts['says'][1:]}. Somebody wrote to the audit past OpsJobs.",
        next_step="Run `flask opsjobs audit verify`, and find out who may write to opsjobs.audit_events.",
    )


DETECTOR = Detector(
    class_="audit_broken",
    title="Broken audit",
    severity="critical",
    found_when="the loop `verify_audit`, which verifies a part of the audit each hour, finds a row that was "
    "changed, added or removed",
    near_miss="rows that are signed with an older key which is not given",
    say=_say,
    found_by="verify_audit",
    quiet_after=timedelta(seconds=60),
    affects=("row", "rows"),
)
