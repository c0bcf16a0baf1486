"""Declares the states of an operation, the moves between them, and the results of its rows, as data."""

from __future__ import annotations

from ..core.arrow import Arrow

OPEN = ("running", "paused")
FINAL = ("finished", "stopped", "canceled", "expired")
STATES = ("draft", *OPEN, *FINAL)
# The tabs of the list, each with the states that it lists; all lists every one.
TABS = {
    "all": (),
    "open": ("draft", *OPEN),
    "stopped": ("stopped",),
    "finished": ("finished",),
    "canceled": ("canceled",),
}

MEANINGS = {
    "draft": "its jobs are frozen, and nothing has changed yet",
    "running": "the loop operate changes its jobs",
    "paused": "somebody paused it, or it waits until it can go on",
    "finished": "each of its jobs is done or skipped",
    "stopped": "the same failure came back, too many jobs had changed, or a permission is gone",
    "canceled": "somebody canceled the rest",
    "expired": "nobody started the draft in time",
}

# What became of a row. Only a retry is proven, by the next attempt of its job.
RESULTS = {
    "pending": "its turn has not come",
    "done": "changed; after a retry it waits for the end of its next attempt",
    "skipped": "not changed; the code and the sentence say why",
    "asked": "a plain job: RQ was asked, and nobody knows the answer; it is not asked again",
    "proven": "its next attempt ended well",
    "failed_same_error": "its next attempt failed as the one before",
    "failed_other_error": "its next attempt failed in another way",
    "unproven": "its job ended or was deleted before an attempt could prove it",
}

# What became of a retried row that is still `done` at the end of its operation: nobody looks for its proof.
WITHOUT_PROOF = {
    "finished": "not proven: no next attempt ended within 10 minutes",
    "stopped": "not proven yet when it stopped",
    "canceled": "not proven yet when the rest was canceled",
}

# An operation begins as a draft; one that undoes another begins as running.
BEGUN_BY = ("insert_operation",)

ARROWS = (
    Arrow(
        "start",
        sources=("draft",),
        targets=("running",),
        by="operator",
        meaning="the person who drafted it says why",
        made_by=("start_operation",),
    ),
    Arrow(
        "pause",
        sources=("running",),
        targets=("paused",),
        by="operator",
        meaning="nothing more is changed until somebody resumes it; by the loop, until its cause is gone",
        made_by=("pause_operations",),
    ),
    Arrow(
        "resume",
        sources=("paused", "stopped"),
        targets=("running",),
        by="operator",
        meaning="it goes on, after a stop with one job; by the loop, when the cause of its pause is gone",
        made_by=("resume_operations",),
    ),
    Arrow(
        "cancel",
        sources=(*OPEN, "stopped"),
        targets=("canceled",),
        by="operator",
        meaning="what is done stays; the rest is not changed",
        made_by=("end_operations",),
    ),
    Arrow(
        "finish",
        sources=("running",),
        targets=("finished",),
        by="operate",
        meaning="each of its jobs is done or skipped",
        made_by=("end_operations",),
    ),
    Arrow(
        "stop",
        sources=OPEN,
        targets=("stopped",),
        by="operate",
        meaning="the same failure came back, too much had changed, or a permission is gone",
        made_by=("end_operations",),
    ),
    Arrow(
        "expire",
        sources=("draft",),
        targets=("expired",),
        by="operate",
        meaning="nobody started it within 15 minutes",
        made_by=("expire_drafts",),
    ),
    Arrow(
        "undo",
        sources=("finished", "stopped", "canceled"),
        targets=(),
        by="operator",
        meaning="another operation takes back what it did, where that is possible",
        made_by=(),
    ),
    Arrow(
        "delete",
        sources=FINAL,
        targets=(),
        by="retain",
        meaning="the time that the settings say has passed since its end",
        made_by=("retain_operations",),
    ),
)


def sources_of(name: str) -> tuple[str, ...]:
    """The states from which the arrow `name` may leave."""
    return next(arrow.sources for arrow in ARROWS if arrow.name == name)
