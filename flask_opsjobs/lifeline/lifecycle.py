"""Declares the states of an incident and the legal moves between them, as data."""

from __future__ import annotations

from ..core.arrow import Arrow

ACTIVE = ("open", "acknowledged")
STATES = (*ACTIVE, "resolved")
# The worst first.
SEVERITIES = ("critical", "warning", "notice")
RESOLVED_BY = ("cleared", "operator", "expired")

MEANINGS = {
    "open": "a detector found it, and nobody has acknowledged it",
    "acknowledged": "a person knows of it until a time, or until it gets worse",
    "resolved": "it is over; the same finding opens it again",
}
MEANINGS_OF_SEVERITIES = {
    "critical": "nothing runs, or data may be wrong",
    "warning": "a person is needed today",
    "notice": "it was repaired by itself",
}
# How the overview's headline and a check of the doctor show what is as severe. They tell of no notice.
SHOWN_AS = {"critical": ("critical", "error"), "warning": ("warned", "warning")}

# An incident begins in `open`, written by this statement.
BEGUN_BY = ("open_incidents",)

ARROWS = (
    Arrow(
        "refresh",
        sources=ACTIVE,
        targets=(),
        by="detectors",
        meaning="it was found again",
        made_by=(),
    ),
    Arrow(
        "reopen",
        sources=("resolved",),
        targets=("open",),
        by="detectors",
        meaning="it was found again after its end: the next episode begins",
        made_by=("reopen_incidents",),
    ),
    Arrow(
        "lapse",
        sources=("acknowledged",),
        targets=("open",),
        by="detectors",
        meaning="the time of its acknowledgement is over, its severity rose, or it affects twice as many",
        made_by=("lapse_acknowledgements",),
    ),
    Arrow(
        "clear",
        sources=ACTIVE,
        targets=("resolved",),
        by="detectors",
        meaning="two complete passes did not find it, and it has been quiet for the time of its class",
        made_by=("resolve_incidents",),
    ),
    Arrow(
        "expire",
        sources=ACTIVE,
        targets=("resolved",),
        by="detectors",
        meaning="no complete pass could look for it for a day",
        made_by=("resolve_incidents",),
    ),
    Arrow(
        "acknowledge",
        sources=ACTIVE,
        targets=("acknowledged",),
        by="operator",
        meaning="a person knows of it, until a time or until it gets worse",
        made_by=("acknowledge_incidents",),
    ),
    Arrow(
        "unacknowledge",
        sources=("acknowledged",),
        targets=("open",),
        by="operator",
        meaning="the acknowledgement is taken back",
        made_by=("lapse_acknowledgements",),
    ),
    Arrow(
        "resolve",
        sources=ACTIVE,
        targets=("resolved",),
        by="operator",
        meaning="a person says that it is over; refused while it is still true",
        made_by=("resolve_incidents",),
    ),
    Arrow(
        "delete",
        sources=("resolved",),
        targets=(),
        by="retain",
        meaning="the time that the settings say has passed since its end",
        made_by=("retain_incidents",),
    ),
)


def sources_of(name: str) -> tuple[str, ...]:
    """The states from which the arrow `name` may leave."""
    return next(arrow.sources for arrow in ARROWS if arrow.name == name)
