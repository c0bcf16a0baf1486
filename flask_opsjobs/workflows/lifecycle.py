"""Declares the states of a run, of its steps and of signals, and the arrows between them, as data."""

from __future__ import annotations

from ..core.arrow import Arrow

OPEN = ("running", "canceling")
FINAL = ("finished", "failed", "canceled")
STATES = (*OPEN, *FINAL)

MEANINGS = {
    "running": "steps run, or wait for each other",
    "canceling": "somebody canceled it, and started steps are being stopped",
    "finished": "all steps that must finish have finished",
    "failed": "a step that must finish did not",
    "canceled": "it was canceled before all steps had ended",
}

# Why a run ended, as stored in workflows.ended_by.
ENDED_BY = {
    "finished": "all steps that must finish have finished",
    "step": "a step that must finish did not",
    "deadline": "the deadline of the run passed",
    "canceled": "it was canceled before all steps had ended",
}

KINDS = {
    "job": "calls a function",
    "wait": "waits for a signal",
    "map": "becomes one step per element of a list",
    "member": "was added by a map, for one element",
}

# The states of released steps that have not ended, as a sentence about their run names them: the first most
# likely holds it up. An open wait is `deferred`.
HOLDS_UP = ("retryable", "deferred", "scheduled", "available", "queued", "started")

# Why a run needs a person, the gravest first.
NEEDS = {
    "trouble": "cannot go on",
    "ambiguous": "ambiguous signal",
    "overdue": "overdue wait",
    "failed": "failed",
}

# What happens to a step when a step before it does not finish.
ON_FAILURE = ("cancel", "continue")

OUTCOMES = {
    "early": "no wait is open for it yet",
    "taken": "it ended a wait",
    "late": "the wait for it had ended before",
    "ambiguous": "several waits could take it, and an operator must say which it is for",
    "unmatched": "no wait opened for it in time",
}
# An operator may give a signal with one of these outcomes to an open wait.
NOT_TAKEN = ("early", "late", "ambiguous", "unmatched")
# Pages and explanations find the late signals of a wait among the newest late ones, at most so many.
MOST_LATE_SIGNALS = 1_000

# A run begins in `running`, written by this statement.
BEGUN_BY = ("insert_workflow",)

ARROWS = (
    Arrow(
        "cancel",
        sources=("running",),
        targets=("canceling",),
        by="operator",
        meaning="end the steps that wait, and stop those that run",
        made_by=("cancel_workflows", "expire_workflows"),
    ),
    Arrow(
        "end",
        sources=OPEN,
        targets=FINAL,
        by="advance",
        meaning="all its steps have settled",
        made_by=("end_workflow",),
    ),
    Arrow(
        "reopen",
        sources=("running", *FINAL),
        targets=("running",),
        by="operator",
        meaning="a step is retried or skipped",
        made_by=("reopen_steps",),
    ),
    Arrow(
        "delete",
        sources=FINAL,
        targets=(),
        by="retain",
        meaning="the time that the settings say has passed since its end",
        made_by=("retain_workflows",),
    ),
)


def sources_of(name: str) -> tuple[str, ...]:
    """The states from which the arrow `name` may leave."""
    return next(arrow.sources for arrow in ARROWS if arrow.name == name)
