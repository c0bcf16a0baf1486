"""Describes orphan deliveries that were removed. The loop `recall` reports them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ...core.words import agree, counted
from ..finding import Detector, Finding, Observation, Words

SUBJECT = "deliveries"
_SHOWN = 20


def find_orphans(number: int, newest: list[str]) -> Finding:
    """The finding that so many deliveries without a row were met twice, and removed."""
    return Finding(
        subject=SUBJECT,
        affected=number,
        facts={"number": number, "deliveries": newest[-_SHOWN:]},
        evidence=(Observation("removed", "recall", {"newest": newest[-_SHOWN:]}),),
    )


def _say(facts: Mapping[str, Any]) -> Words:
    number = facts["number"]
    removed = agree(number, "was removed", "were removed")
    return Words(
        title=f"{counted(number, 'orphan delivery', 'orphan deliveries')} {removed}",
        why="Redis had deliveries of ours whose jobs were gone or had moved on. They were met twice and "
        "removed; "
        "no job ran because of them.",
    )


DETECTOR = Detector(
    class_="orphan_delivery",
    title="Orphan deliveries",
    severity="notice",
    found_when="the loop `recall` met a delivery without a valid row twice",
    near_miss="a row that is committed a moment later; a host's transaction that was rolled back",
    say=_say,
    found_by="recall",
    quiet_after=timedelta(seconds=60),
    repairs=("delivery.remove",),
    affects=("delivery", "deliveries"),
)
