"""The quiet rules, as a table of cases."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from flask_opsjobs.escalations.decide import IncidentToEscalate, choose_event
from flask_opsjobs.escalations.lifecycle import EVENTS, STATES

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
OPEN = IncidentToEscalate("queue_unserved", "critical", "open")
TOLD = replace(OPEN, told={"opened": "invoked"}, told_at=NOW - MINUTE)
LONG_AGO = replace(TOLD, told_at=NOW - 61 * MINUTE)
OVER = replace(TOLD, state="resolved")


def but(incident: IncidentToEscalate, **changes: Any) -> IncidentToEscalate:
    return replace(incident, **changes)


CASES: dict[str, tuple[IncidentToEscalate, str | None]] = {
    # opened
    "a critical incident": (OPEN, "opened"),
    "a warning": (but(OPEN, severity="warning"), None),
    "a notice": (but(OPEN, severity="notice"), None),
    "acknowledged before it was told": (but(OPEN, state="acknowledged"), None),
    "it follows from another one": (but(OPEN, has_cause=True), None),
    "told already": (TOLD, None),
    "told and waiting for its call": (but(TOLD, told={"opened": "pending"}), None),
    "told and failed": (but(TOLD, told={"opened": "failed"}), None),
    "told while nothing was configured": (but(TOLD, told={"opened": "unconfigured"}), None),
    "its second episode within an hour": (but(OPEN, episodes=2), "opened"),
    "it says that an escalation failed": (but(OPEN, class_="escalation_failed"), None),
    # flapping
    "its third episode within an hour": (but(OPEN, episodes=3), "flapping"),
    "its fourth, told as flapping": (but(OPEN, episodes=3, flapped_at=NOW - 59 * MINUTE), None),
    "second episode, told as flapping": (but(OPEN, episodes=2, flapped_at=NOW - MINUTE), None),
    "flapping again after an hour": (
        but(OPEN, episodes=3, flapped_at=NOW - 60 * MINUTE),
        "flapping",
    ),
    "still open when the hour is over": (but(OPEN, flapped_at=NOW - 60 * MINUTE), "opened"),
    "third episode, acknowledged": (but(OPEN, episodes=3, state="acknowledged"), None),
    # reminded
    "open for an hour": (LONG_AGO, "reminded"),
    "open for 59 minutes": (but(TOLD, told_at=NOW - 59 * MINUTE), None),
    "open for an hour, told as flapping": (but(LONG_AGO, told={"flapping": "invoked"}), "reminded"),
    "open for an hour, the first call failed": (
        but(LONG_AGO, told={"opened": "failed"}),
        "reminded",
    ),
    "reminded before": (but(LONG_AGO, told={"opened": "invoked", "reminded": "invoked"}), None),
    "reminded before, which failed": (
        but(LONG_AGO, told={"opened": "invoked", "reminded": "failed"}),
        None,
    ),
    "open for an hour and acknowledged": (but(LONG_AGO, state="acknowledged"), None),
    "open for an hour, follows by now": (but(LONG_AGO, has_cause=True), None),
    "open for an hour, less severe by now": (but(LONG_AGO, severity="warning"), None),
    # resolved, repaired
    "over": (OVER, "resolved"),
    "over, and was repaired": (but(OVER, is_repaired=True), "repaired"),
    "over, told as flapping": (but(OVER, told={"flapping": "invoked"}), "resolved"),
    "over before it was told": (but(OVER, told={}), None),
    "over before its call": (but(OVER, told={"opened": "pending"}), None),
    "over, its call failed": (but(OVER, told={"opened": "failed"}), None),
    "over, unconfigured": (but(OVER, told={"opened": "unconfigured"}), None),
    "over, its reminder alone was invoked": (
        but(OVER, told={"opened": "failed", "reminded": "invoked"}),
        None,
    ),
    "over and told": (but(OVER, told={"opened": "invoked", "resolved": "failed"}), None),
    "over, repaired and told": (
        but(OVER, is_repaired=True, told={"opened": "invoked", "repaired": "invoked"}),
        None,
    ),
    "over and less severe by then": (but(OVER, severity="notice"), "resolved"),
    "over with its cause": (but(OVER, has_cause=True), "resolved"),
}


@pytest.mark.parametrize("name", CASES)
def test_the_quiet_rules(name: str) -> None:
    incident, event = CASES[name]
    assert choose_event(incident, "critical", NOW) == event


@pytest.mark.parametrize(
    ("escalate_from", "told"),
    [
        ("critical", ["critical"]),
        ("warning", ["critical", "warning"]),
        ("notice", ["critical", "warning", "notice"]),
    ],
)
def test_the_setting_says_from_which_severity(escalate_from: str, told: list[str]) -> None:
    severities = ("critical", "warning", "notice")
    found = [
        each for each in severities if choose_event(but(OPEN, severity=each), escalate_from, NOW)
    ]
    assert found == told


def test_the_table_has_every_event_and_state() -> None:
    assert {event for _, event in CASES.values()} == {*EVENTS, None}
    states = {state for incident, _ in CASES.values() for state in incident.told.values()}
    assert states == set(STATES)
