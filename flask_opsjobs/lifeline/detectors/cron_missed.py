"""Finds cron entries of which slots were missed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from ...core.words import counted, moment
from ..finding import Detector, DetectorPass, Facts, Finding, Observation, Words


def _detect(facts: Facts) -> DetectorPass:
    return facts.look("detect_missed_slots", _finding)


def _finding(row: Mapping[str, Any]) -> Finding:
    slots = {
        "slots": int(row["number"]),
        "first_at": row["first_at"].isoformat(),
        "last_at": row["last_at"].isoformat(),
        "why": row["why"],
    }
    return Finding(
        subject=f"cron/{row['entry']}",
        since=row["first_at"],
        affected=int(row["number"]),
        facts={"cron": row["entry"], **slots},
        evidence=(Observation("missed", "cron", slots),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    last = moment(datetime.fromisoformat(facts["last_at"]))
    slots = counted(facts["slots"], "slot")
    return Words(
        title=f"{facts['cron']} missed {slots}",
        why=f"The last one was {last}: {facts['why'] or 'nothing ran for it, although it should have'}.",
        next_step="Catch up, or acknowledge it: after a day it counts as over.",
    )


DETECTOR = Detector(
    class_="cron_missed",
    title="Missed slots",
    severity="warning",
    found_when="a slot of a cron entry was missed within a day, and nobody has run the entry since then",
    near_miss="a paused entry; a slot that ran late; a slot that was caught up",
    say=_say,
    detect=_detect,
    quiet_after=timedelta(seconds=10),
    repairs=("cron.catch_up",),
    affects=("slot", "slots"),
)
