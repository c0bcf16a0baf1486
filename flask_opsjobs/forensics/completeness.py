"""Finds what is not known of a subject, and says in a word how complete its bundle is: nobody else does.

Blind windows are the times in which the loop that should have seen a change made no pass, and outages. They
count only where a kind says that nobody else could have seen the change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ..core.history import INFERRED, Event
from ..core.round_trips import StartedRead, value_of
from ..lifeline.loop_runs import list_watches
from ..lifeline.outages import ServerOutage, list_outages
from ..lifeline.retention import LOOP_RUN_DAYS
from .bundle import Inquiry, Lack, Late, Told, WatchedSpan

# So much is said to be not known; the rest is counted.
MOST_LACKING = 50


@dataclass(frozen=True)
class BlindWindow:
    """A time in which nobody watched, and why. `until` is None while it lasts."""

    since: datetime
    until: datetime | None
    why: str
    lacks: str

    def to_event(self) -> Event:
        """The window as the timeline hatches it."""
        return Event(
            self.since, "blind", f"{self.why} {self.lacks}", INFERRED, until=self.until or None
        )


def find_outages(inquiry: Inquiry) -> Sequence[ServerOutage]:
    """The outages in the time of which the runs of loops are kept."""
    return list_outages(inquiry.session, inquiry.kept_since(LOOP_RUN_DAYS))


def find_blind_windows(
    inquiry: Inquiry,
    late_watches: Late[Sequence[WatchedSpan]],
    listing: StartedRead[Sequence[ServerOutage]],
) -> Sequence[BlindWindow]:
    """The times in which nobody could see what these watches were for, the oldest first.

    The runs of loops are kept for 30 days: what was before is not among them, see `find_lacking`.
    """
    watches = value_of(late_watches)
    if not watches:
        return ()
    since = max(min(watch.since for watch in watches), inquiry.kept_since(LOOP_RUN_DAYS))
    off = inquiry.host.settings.loops_off
    stretches = {
        watch.loop.loop: watch.windows
        for watch in list_watches(inquiry.session, since, inquiry.now, off)
    }
    outages = listing.value
    found = [
        window
        for watch in watches
        for window in (*_silences(watch, stretches, inquiry), *_outages(watch, outages, inquiry))
    ]
    return sorted(found, key=lambda window: (window.since, window.lacks))


def _silences(
    watch: WatchedSpan,
    stretches: dict[str, Sequence[tuple[datetime, datetime | None]]],
    inquiry: Inquiry,
) -> Iterator[BlindWindow]:
    since = max(watch.since, inquiry.kept_since(LOOP_RUN_DAYS))
    if watch.loop in inquiry.host.settings.loops_off:
        windows: Sequence[tuple[datetime, datetime | None]] = [(since, None)]
        why = f"The settings turn the loop {watch.loop} off."
    else:
        windows = stretches.get(watch.loop, [(since, None)])
        why = f"The loop {watch.loop} did not run."
    yield from _clip(watch, since, inquiry.now, windows, why)


def _outages(
    watch: WatchedSpan, outages: Sequence[ServerOutage], inquiry: Inquiry
) -> Iterator[BlindWindow]:
    since = max(watch.since, inquiry.kept_since(LOOP_RUN_DAYS))
    for outage in outages:
        if outage.class_ == "postgres_away" or outage.class_ in watch.needs:
            times = [(outage.since, outage.until)]
            yield from _clip(watch, since, inquiry.now, times, f"{outage.says}.")


def _clip(
    watch: WatchedSpan,
    since: datetime,
    now: datetime,
    windows: Sequence[tuple[datetime, datetime | None]],
    why: str,
) -> Iterator[BlindWindow]:
    """The parts of the windows in which the subject was watched for."""
    for began, ended in windows:
        begin, end = max(began, since), min(ended or now, watch.until)
        if begin < end:
            is_open = ended is None and watch.until >= now
            yield BlindWindow(begin, None if is_open else end, why, watch.lacks)


def find_lacking(inquiry: Inquiry, told: Told, windows: Sequence[BlindWindow]) -> Sequence[Lack]:
    """What is not known: pieces that should exist, and changes that nobody could see."""
    kept_since = inquiry.kept_since(LOOP_RUN_DAYS)
    found = [
        Lack(piece.lacks, piece.since, piece.until, piece.is_removed)
        for piece in value_of(told.pieces)
        if not piece.is_found
    ]
    found += [Lack(window.lacks, window.since, window.until) for window in windows]
    found += [
        Lack(watch.lacks, watch.since, min(watch.until, kept_since), is_removed=True)
        for watch in value_of(told.watches)
        if watch.since < kept_since
    ]
    if len(found) > MOST_LACKING:
        rest = len(found) - MOST_LACKING
        is_removed = any(lack.is_removed for lack in found[MOST_LACKING:])
        found = [*found[:MOST_LACKING], Lack(f"{rest} more such times", is_removed=is_removed)]
    return found


def judge(told: Told | None, lacking: Sequence[Lack], *, was_there: bool) -> str:
    """How complete a bundle is, as one of `bundle.COMPLETENESS`.

    `told` is None when nothing of the subject is stored; `was_there` says that something else tells of it.
    """
    if told is None or told.is_gone:
        return "history unavailable" if was_there else "unknown"
    if any(lack.is_removed for lack in lacking):
        return "history unavailable"
    return "partial evidence" if lacking else "complete"
