"""Checks the loops: whether they run, fail or are slow, how far the charts are, and whether cron runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import select

from ..core.words import agree, counted, span
from ..cron.queries import list_entries
from ..lifeline.loop_runs import LoopRow, list_loops
from ..overview.headline import NO_LOOP_MEANS, NOBODY_LOOKS, WHY_SILENT, say_silent
from ..overview.models import RollupPosition
from .check import ERROR, WARNING, CheckAnswer, CheckContext, DoctorCheck, error, ok, warning
from .incidents import look_for, state_of_class

# `roll_up` counts a minute when it is over, each 10 s.
_MOST_LAG = timedelta(minutes=5)
_RUN = "flask opsjobs run"


def _loops(context: CheckContext) -> Sequence[LoopRow]:
    def read_loops() -> Sequence[LoopRow]:
        with context.reading() as read:
            return list_loops(read.session, read.now, context.host.settings.loops_off)

    return context.once("loops", read_loops)


def _awake(context: CheckContext) -> CheckAnswer:
    loops = _loops(context)
    if not any(loop.is_running for loop in loops):
        return error(say_silent(loops), NO_LOOP_MEANS, _RUN)
    if said := say_silent(loops):
        return error(said, WHY_SILENT, _RUN)
    if not any(loop.loop == "detect" for loop in loops):
        return error(*NOBODY_LOOKS, run=_RUN)
    return ok(f"{counted(len(loops), 'loop')} run.")


def _slow(context: CheckContext) -> CheckAnswer:
    slow = [loop for loop in _loops(context) if loop.took_seconds > loop.every_seconds]
    if not slow:
        return ok("Each pass was shorter than its interval.")
    said = [
        f"{loop.loop} took {span(loop.took_seconds)}, and runs each {span(loop.every_seconds)}"
        for loop in slow
    ]
    return warning(
        f"The last pass of {counted(len(slow), 'loop')} was longer than its interval.",
        f"{'; '.join(said)}.",
    )


def _rollup_lag(context: CheckContext) -> CheckAnswer:
    with context.reading() as read:
        until = read.session.scalar(select(RollupPosition.counted_until))
        now = read.now
    if until is None or now - until <= _MOST_LAG:
        return ok("The charts are up to date.")
    ago = span((now - until).total_seconds())
    return warning(
        f"The charts end {ago} ago.", "The loop roll_up counts the jobs of each minute.", _RUN
    )


def _cron(context: CheckContext) -> CheckAnswer:
    with context.reading() as read:
        entries = sum(entry.state != "retired" for entry in list_entries(read.session))
    if not entries:
        return ok("There are no cron entries.")
    if not any(loop.loop == "cron" and loop.is_running for loop in _loops(context)):
        said = f"{counted(entries, 'cron entry', 'cron entries')}, and the loop cron does not run."
        return error(f"There {agree(entries, 'is', 'are')} {said}", "No slot starts a job.", _RUN)
    return ok("The loop cron runs.")


_NEEDS = ("schema.version",)

CHECKS = (
    DoctorCheck(
        "loops.awake",
        (ERROR,),
        "all loops run, also the one that looks for incidents",
        _awake,
        _NEEDS,
    ),
    DoctorCheck(
        "loops.failing",
        (state_of_class("loop_failing"),),
        "no loop has failed in its last five passes",
        look_for("loop_failing", "No loop fails.", "flask opsjobs incidents"),
        _NEEDS,
    ),
    DoctorCheck("loops.slow", (WARNING,), "no pass was longer than its interval", _slow, _NEEDS),
    DoctorCheck(
        "loops.rollup_lag", (WARNING,), "the charts are at most 5 minutes late", _rollup_lag, _NEEDS
    ),
    DoctorCheck(
        "loops.cron", (ERROR,), "the loop cron runs while there are cron entries", _cron, _NEEDS
    ),
)
