"""Chooses how a state, an event and a completeness look: a status, which is the colour, and a shape."""

from __future__ import annotations

Look = tuple[str, str]

_PLAIN: Look = ("waiting", "seen")
# By word. A state of a job is its own status and shape.
_LOOKS: dict[str, Look] = {
    **{
        state: (state, state)
        for state in (
            "available",
            "deferred",
            "scheduled",
            "queued",
            "started",
            "retryable",
            "finished",
            "failed",
            "canceled",
            "late",
            "missing",
            "missed",
            "ran",
            "blocked",
            "skipped",
        )
    },
    "unknown": ("waiting", "unknown"),
    "alive": ("healthy", "seen"),
    "active": ("healthy", "seen"),
    "on": ("healthy", "seen"),
    "open": ("healthy", "seen"),
    "running": ("started", "started"),
    "paused": ("stopped", "paused"),
    "draining": ("stopped", "paused"),
    "stopped": ("waiting", "shut"),
    "removed": ("waiting", "shut"),
    "canceling": ("retryable", "canceled"),
    "cooling": ("blocked", "blocked"),
    "acknowledged": ("waiting", "seen"),
    "resolved": ("resolved", "finished"),
    "ignored": ("waiting", "skipped"),
    "regressed": ("open", "review"),
    "refused": ("refused", "review"),
    "incident": ("open", "review"),
    "deploy": ("waiting", "deploy"),
    "operation": ("waiting", "operation"),
    "decision": ("waiting", "manual"),
    "signal": ("waiting", "signal"),
    "critical": ("critical", "review"),
    "warning": ("warned", "late"),
    "notice": ("waiting", "seen"),
    "met": ("done", "tick"),
}
# Where a word means something else for one kind of subject.
_OF_KIND: dict[tuple[str, str], Look] = {
    ("incident", "open"): ("open", "review"),
    ("failure", "open"): ("open", "review"),
    ("batch", "open"): ("waiting", "available"),
    ("operation", "stopped"): ("stopped", "late"),
}
COMPLETENESS: dict[str, Look] = {
    "partial evidence": ("partial", "late"),
    "history unavailable": ("waiting", "unknown"),
    "unknown": ("waiting", "unknown"),
}


def look_of(word: str, kind: str = "") -> Look:
    """Status and shape of a word about a subject of this kind; grey for one that says nothing of itself."""
    return _OF_KIND.get((kind, word)) or _LOOKS.get(word, _PLAIN)
