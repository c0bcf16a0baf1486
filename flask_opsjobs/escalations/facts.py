"""Makes the facts that the escalation policy gets, and passes them through the display policy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ..core.display import Display
from ..core.words import counted
from ..lifeline.detectors import detector_of
from ..lifeline.incidents import words_of
from ..settings import Settings

# The keys of the facts, with their meanings. The guide's table is made of these.
MEANINGS = {
    "key": "the same at each call for this event of this episode, so that you can tell a repeated call",
    "event": "`opened`, `flapping`, `reminded`, `resolved` or `repaired`",
    "attempt": "1 at the first call, more when one before failed or was broken off",
    "is_test": "whether `flask opsjobs escalate --test` made the call: nothing is wrong then",
    "environment": "`OPSJOBS_ENVIRONMENT`",
    "incident": "the number of the incident; None in a test",
    "episode": "1 at first, one more each time that it was found again",
    "class": "its class, such as `queue_unserved`",
    "severity": "`critical`, `warning` or `notice`",
    "state": "`open`, `acknowledged` or `resolved`, as it is at the call",
    "subject": "what it is about, such as `queue/mail`",
    "title": "what is wrong, in a few words",
    "why": "why that is wrong, in a sentence or two",
    "next_step": "what a person does next; may be empty",
    "affects": "how many jobs or other things it affects, as `212 jobs`; may be empty",
    "opened_at": "since when, in ISO 8601 and UTC",
    "resolved_at": "when it ended; None while it goes on",
    "resolved_by": "`cleared`, `operator` or `expired`; None while it goes on",
    "repair": "of `repaired`: the action, such as `queue.pause`; else None",
    "repaired_by": "of `repaired`: who did it; else None",
    "runbook": "your page for its class, from `OPSJOBS_RUNBOOKS`; may be empty",
    "path": "where its page is in the application, such as `/ops/jobs/lifeline/incidents/7`",
    "details": "what the detector saw, by name",
}
# Texts that hold what a host or a person wrote.
_TEXTS = ("environment", "subject", "title", "why", "next_step", "affects", "repaired_by")
_LONGEST_TEXT = 2_000
_MOST_BYTES = 60_000


def make_facts(found: Mapping[str, Any], attempt: int, settings: Settings) -> dict[str, Any]:
    """The facts of an escalation, as `read_escalation.sql` reads it. Not cleaned yet.

    When the incident has begun another episode since, the facts are those of the episode that is told, as far
    as they are stored.
    """
    words = words_of(found["class"], found["facts"])
    detector = detector_of(found["class"])
    repair = found["repair"] or {}
    is_past = found["current_episode"] != found["episode"]
    return {
        "key": f"incident/{found['incident']}/{found['episode']}/{found['event']}",
        "event": found["event"],
        "attempt": attempt,
        "is_test": False,
        "environment": settings.environment,
        "incident": found["incident"],
        "episode": found["episode"],
        "class": found["class"],
        "severity": found["severity"],
        "state": "resolved" if is_past else found["state"],
        "subject": found["subject"],
        "title": words.title,
        "why": words.why,
        "next_step": words.next_step,
        "affects": counted(found["affected"], *detector.affects) if found["affected"] else "",
        "opened_at": None if is_past else _moment(found["opened_at"]),
        "resolved_at": None if is_past else _moment(found["resolved_at"]),
        "resolved_by": None if is_past else found["resolved_by"],
        "repair": repair.get("action"),
        "repaired_by": repair.get("actor"),
        "runbook": settings.runbooks.get(found["class"], ""),
        "path": f"{settings.url_prefix}/lifeline/incidents/{found['incident']}",
        "details": found["facts"],
    }


def make_test_facts(settings: Settings, now: datetime) -> dict[str, Any]:
    """The marked example of `flask opsjobs escalate --test`. Its key is another one at each test."""
    return {
        "key": f"test/{now.astimezone(UTC):%Y%m%dT%H%M%S.%fZ}",
        "event": "opened",
        "attempt": 1,
        "is_test": True,
        "environment": settings.environment,
        "incident": None,
        "episode": 1,
        "class": "queue_unserved",
        "severity": "critical",
        "state": "open",
        "subject": "queue/example",
        "title": "Test of the escalation: nothing is wrong",
        "why": "Somebody ran `flask opsjobs escalate --test`, to see that this arrives.",
        "next_step": "Do nothing.",
        "affects": "",
        "opened_at": _moment(now),
        "resolved_at": None,
        "resolved_by": None,
        "repair": None,
        "repaired_by": None,
        "runbook": settings.runbooks.get("queue_unserved", ""),
        "path": f"{settings.url_prefix}/lifeline",
        "details": {},
    }


def clean_facts(facts: Mapping[str, Any], display: Display) -> dict[str, Any]:
    """The facts as the display policy shows them: texts of a host or a person, and the details."""
    cleaned = dict(facts)
    for name in _TEXTS:
        if isinstance(facts[name], str):
            cleaned[name] = display.start(facts[name], _LONGEST_TEXT)
    cleaned["details"] = _clean(facts["details"], display)
    if len(json.dumps(cleaned["details"])) > _MOST_BYTES:
        cleaned["details"] = {"left_out": "what the detector saw is too large"}
    return cleaned


def _clean(value: Any, display: Display) -> Any:
    if isinstance(value, Mapping):
        return {
            display.clean(name): display.hides(name) or _clean(one, display)
            for name, one in value.items()
        }
    if isinstance(value, list):
        return [_clean(one, display) for one in value]
    return display.start(value, _LONGEST_TEXT) if isinstance(value, str) else value


def _moment(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()
