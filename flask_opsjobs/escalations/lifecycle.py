"""Declares the states and the events of an escalation, as data."""

from __future__ import annotations

from ..core.arrow import Arrow

ENDED = ("unconfigured", "invoked", "failed")
STATES = ("pending", *ENDED)

MEANINGS = {
    "pending": "its job is due, runs or is tried again",
    "unconfigured": "the application has no escalation policy, so nobody was called",
    "invoked": "the policy was called and returned; nothing more is known",
    "failed": "the policy still failed after the last attempt of the job",
}

EVENTS = {
    "opened": "an incident is open that nobody was told of",
    "flapping": "its third episode within an hour began; further ones within an hour tell nothing",
    "reminded": "it is still open an hour after it was told; said once",
    "resolved": "it ended, and the call that told of it was invoked",
    "repaired": "as resolved, after an operator's action or a rescue that repairs this class",
}
# The events that tell of an episode. Its other events follow one of these.
TELLING = ("opened", "flapping")
ENDING = ("resolved", "repaired")

# Our queue. No worker listens to it: the process of the loops performs its jobs, straight from Postgres.
QUEUE = "opsjobs"
TASK = "opsjobs.escalate"

# An escalation begins in `pending`, or in `unconfigured`, which is its end.
BEGUN_BY = ("open_escalations",)

ARROWS = (
    Arrow(
        "invoke",
        sources=("pending", "failed"),
        targets=("invoked",),
        by="escalate",
        meaning="the policy returned; a failed one when somebody retried its job",
        made_by=("end_escalation",),
    ),
    Arrow(
        "fail",
        sources=("pending",),
        targets=("failed",),
        by="escalate",
        meaning="its job ended otherwise",
        made_by=("end_escalation", "settle_escalations"),
    ),
    Arrow(
        "delete",
        sources=ENDED,
        targets=(),
        by="retain",
        meaning="the time that the settings say has passed since its end",
        made_by=("retain_escalations",),
    ),
)
