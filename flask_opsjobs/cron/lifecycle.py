"""Lists the states and policies of cron entries and the results of slots, for writes, pages and docs."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.arrow import Arrow

MEANINGS = {
    "active": "each slot runs, as the entry's policies say",
    "paused": "slots are recorded as paused, and do not run",
    "retired": "the code no longer declares it; its run history stays",
}
STATES = tuple(MEANINGS)
# Used as the state when there is no entry of that name.
ABSENT = "absent"

# Where an entry comes from.
ORIGINS = ("code", "runtime")

# What happens to a slot while a job of the same entry has not ended.
OVERLAPS = {
    "allow": "runs beside it",
    "skip": "does not run",
    "queue_one": "runs after it; at most one waits",
    "cancel_previous": "runs, and the one before is canceled or stopped",
}

# Which slots run afterwards, when they came while the cron loop did not run.
CATCH_UPS = {
    "none": "no missed slot runs afterwards",
    "latest": "the last one, unless a slot is due now",
    "all": "the last ones, up to a number",
}


@dataclass(frozen=True)
class SlotResult:
    """The result of a slot. `word` is the text for people; `runs` tells whether a job was enqueued for it."""

    word: str
    meaning: str
    runs: bool


RESULTS = {
    "ran": SlotResult("ran", "its job was enqueued in time", runs=True),
    "late": SlotResult("late", "its job was enqueued over a minute later", runs=True),
    "skipped_overlap": SlotResult(
        "skipped: overlap", "a job of the entry had not ended", runs=False
    ),
    "queued_behind": SlotResult(
        "queued behind", "its job was enqueued to run after the one before", runs=True
    ),
    "missed": SlotResult("missed", "nothing ran for it, although it should have", runs=False),
    "paused": SlotResult("paused", "the entry or its task was paused", runs=False),
    "manual": SlotResult("manual", "somebody ran it", runs=True),
}

# The cron loop brings entries to what the code declares: it creates, changes and retires them.
SYNCED_BY = ("create_cron_entry", "change_cron_entry", "retire_cron_entry")

ARROWS = (
    Arrow(
        "pause",
        sources=("active",),
        targets=("paused",),
        by="operator",
        meaning="record the next slots as paused",
        made_by=("pause_cron_entry",),
    ),
    Arrow(
        "resume",
        sources=("paused",),
        targets=("active",),
        by="operator",
        meaning="run the next slots",
        made_by=("resume_cron_entry",),
    ),
    Arrow(
        "run_now",
        sources=("active", "paused"),
        targets=(),
        by="operator",
        meaning="enqueue a job of it now",
    ),
    Arrow(
        "catch_up",
        sources=("active", "paused"),
        targets=(),
        by="operator",
        meaning="enqueue jobs for its last missed slots",
    ),
    Arrow(
        "create",
        sources=(ABSENT,),
        targets=("active",),
        by="operator",
        meaning="create an entry that code does not declare",
        made_by=("create_cron_entry",),
    ),
    Arrow(
        "edit",
        sources=("active", "paused"),
        targets=(),
        by="operator",
        meaning="change an entry that was made at runtime",
        made_by=("change_cron_entry",),
    ),
    Arrow(
        "delete",
        sources=STATES,
        targets=(ABSENT,),
        by="operator",
        meaning="delete an entry that was made at runtime; its run history stays",
        made_by=("delete_cron_entries",),
    ),
)


def state_of(is_paused: bool, is_retired: bool) -> str:
    """The state of an entry with these columns."""
    if is_retired:
        return "retired"
    return "paused" if is_paused else "active"


def sources_of(name: str) -> tuple[str, ...]:
    """The states in which the action `name` is allowed."""
    return next(arrow.sources for arrow in ARROWS if arrow.name == name)
