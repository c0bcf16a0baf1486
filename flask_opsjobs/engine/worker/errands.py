"""Keeps what RQ's own code does beside its jobs: after a death, for its maintenance, and for its schedule.

It may call functions of the host, and may hang. So it runs in a child of its own, which is forked for it.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace

from .children import Death
from .frames import Errand, PlainDeath, PlainRun, RQMaintenance, RQSchedule
from .places import Place, Sent

_log = logging.getLogger("flask_opsjobs.worker")

# RQ does its maintenance so often.
_MAINTENANCE_SECONDS = 600.0
# An errand that takes longer hangs in the host's code. RQ interrupts a callback after a minute.
ERRAND_SECONDS = 300.0
# Why a plain job's child was killed.
BY_COMMAND = "stopped by a command of RQ"
OVERDUE = "its time limit could not stop it"
_OUTCOMES = {BY_COMMAND: "canceled", OVERDUE: "timed_out"}
_DEATHS = {OVERDUE: "timed_out"}


class Errands:
    """The errands of a worker, and the place of the child that runs them. For the main thread only."""

    def __init__(self, *, schedules_once: bool) -> None:
        self.place = Place(0)
        self._waiting: deque[Errand] = deque([RQSchedule()] if schedules_once else ())
        self._maintained_at = -_MAINTENANCE_SECONDS

    def __bool__(self) -> bool:
        """Return whether one waits or runs."""
        return bool(self._waiting) or self.place.is_busy

    @property
    def are_waiting(self) -> bool:
        """Return whether one waits for a child."""
        return bool(self._waiting)

    def pop(self) -> Errand:
        """Return the first one, which waits no more."""
        return self._waiting.popleft()

    def maintain_if_due(self, now: float) -> None:
        """Let RQ do its maintenance now and then."""
        if now - self._maintained_at >= _MAINTENANCE_SECONDS:
            self._maintained_at = now
            self._waiting.append(RQMaintenance())

    def settle_death(self, job: PlainRun, place: Place, sent: Sent, death: Death) -> None:
        """Let RQ settle a plain job whose child died at a place."""
        why, child = sent.why_killed, place.child
        known = why or ("out of memory" if death.is_out_of_memory else None)
        self._waiting.append(
            PlainDeath(
                job,
                place.number,
                f"Its process died: {death.words}{f' ({why})' if why else ''}.",
                was_stopped=why == BY_COMMAND,
                pid=0 if child is None else child.pid,
                outcome=_OUTCOMES.get(why or "", "died"),
                cause_of_death=f"{known}, {death.words}" if known else death.words,
                death=_DEATHS.get(why, "stopped") if why else death.cause,
                death_facts=death.facts | ({"by": why} if why else {}),
                log_tail=None if child is None else child.page.log_tail(),
            )
        )

    def try_again(self, errand: Errand, words: str, *, has_begun: bool) -> None:
        """Do an errand in another child, after its own died: without the host's code, if that was begun."""
        match errand:
            case _ if not has_begun:
                self._waiting.appendleft(errand)
            case PlainDeath(may_call_host=True):
                _log.error("%s is tried again: its process died, %s", errand, words)
                self._waiting.appendleft(replace(errand, may_call_host=False))
            case _:
                _log.error("%s failed: its process died, %s", errand, words)

    def keep_deaths(self, *, is_possible: bool) -> None:
        """Keep what must be done before the worker ends: a job that died with it shall not run on for RQ."""
        deaths = [each for each in self._waiting if isinstance(each, PlainDeath) and is_possible]
        self._waiting = deque(deaths)
