"""Asks the checks, each in a thread and for a limited time, and keeps what they answer.

Those that ask only Postgres are asked together first, so that they wait for few round trips. When a statement
of one of them fails or hangs, each is asked alone as well.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import psycopg
from flask import Flask
from sqlalchemy import exc

from ..core.db import forget_values, say_cause
from ..core.display import Display
from ..core.round_trips import start_reading, values_of
from ..core.versions import read_versions
from ..core.words import agree, counted
from ..errors import OpsJobsError
from .check import (
    ERROR,
    MOST_SECONDS,
    MOST_SECONDS_TOGETHER,
    OK,
    SKIPPED,
    WARNING,
    CheckAnswer,
    CheckContext,
    DoctorCheck,
    error,
    skipped,
)
from .registry import CHECKS, GROUPS, TOGETHER

_log = logging.getLogger("flask_opsjobs")

# So long all checks together may take.
MOST_SECONDS_IN_ALL = 20.0
# So much later is what moved at the first look.
_AGAIN_SECONDS = 0.2
_NO_ANSWER = error(f"It got no answer within {MOST_SECONDS:g} s.")
_NOT_ASKED = error(f"It was not asked: all checks together have {MOST_SECONDS_IN_ALL:g} s.")


@dataclass(frozen=True)
class CheckResult:
    """What became of one check. `because` is the check that it needs, and that answered with an error."""

    check: DoctorCheck
    answer: CheckAnswer
    took_seconds: float = 0.0
    because: str | None = None
    is_silenced: bool = False

    @property
    def counts_as(self) -> str:
        """Its state in the exit code. One that could not be asked is an error, a silenced one is nothing."""
        if self.is_silenced:
            return SKIPPED
        return ERROR if self.because else self.answer.state


@dataclass(frozen=True)
class Examination:
    """What all the checks answered, in the order of the groups."""

    at: datetime
    took_seconds: float
    versions: Mapping[str, str]
    results: Sequence[CheckResult]

    def exit_code(self, *, is_strict: bool = False) -> int:
        """0 when nothing is wrong, 1 with warnings, 2 with errors or unasked checks.

        When it `is_strict`, 2 with warnings too.
        """
        states = {result.counts_as for result in self.results}
        if ERROR in states or (is_strict and WARNING in states):
            return 2
        return 1 if WARNING in states else 0

    def in_state(self, state: str) -> Sequence[CheckResult]:
        """The results in this state that are not silenced."""
        return [
            each for each in self.results if each.answer.state == state and not each.is_silenced
        ]

    @cached_property
    def unasked(self) -> Mapping[str, Sequence[CheckResult]]:
        """The results that are skipped because of a check that failed, by the id of that check."""
        found: dict[str, list[CheckResult]] = {}
        for result in self.in_state(SKIPPED):
            if result.because:
                found.setdefault(result.because, []).append(result)
        return found

    @cached_property
    def left_out(self) -> Sequence[CheckResult]:
        """The results that are skipped because they do not apply."""
        return [result for result in self.in_state(SKIPPED) if not result.because]

    @cached_property
    def silenced(self) -> Sequence[CheckResult]:
        """The results that `OPSJOBS_DOCTOR_SILENCE` silences and that are not fine."""
        return [each for each in self.results if each.is_silenced and each.answer.state != OK]

    @property
    def headline(self) -> str:
        """How many errors and warnings there are, in one sentence."""
        errors, warnings = len(self.in_state(ERROR)), len(self.in_state(WARNING))
        found = [(errors, "error"), (warnings, "warning")]
        if parts := [counted(number, noun) for number, noun in found if number]:
            return f"{' and '.join(parts)}."
        return "Nothing could be asked." if self.exit_code() else "Nothing is wrong."

    @property
    def rest(self) -> str:
        """How many checks are fine, skipped and silenced, in one sentence."""
        fine, left, quiet = len(self.in_state(OK)), len(self.in_state(SKIPPED)), len(self.silenced)
        parts = [f"{counted(fine, 'check')} {agree(fine, 'is', 'are')} fine"]
        parts += [f"{left} {agree(left, 'was', 'were')} skipped"] if left else []
        parts += [f"{quiet} {agree(quiet, 'is', 'are')} silenced"] if quiet else []
        return f"{', '.join(parts)}."

    @property
    def fine_by_group(self) -> Mapping[str, int]:
        """How many checks of each group are fine, in the order of the groups."""
        fine = {result.check.id for result in self.in_state(OK)}
        found = Counter(
            {title: sum(each.id in fine for each in rows) for title, rows in GROUPS.items()}
        )
        return {title: number for title, number in found.items() if number}


def say_unasked(cause: str, results: Sequence[CheckResult]) -> str:
    """How many checks need what the one that failed gives, in a sentence."""
    number = len(results)
    need = f"{counted(number, 'check')} {agree(number, 'needs', 'need')} {CHECKS[cause].gives}"
    return f"{need} ({cause} failed)"


def examine(
    app: Flask | None,
    why_not: str = "",
    *,
    only: Collection[str] = (),
    skip: Collection[str] = (),
) -> Examination:
    """Ask the checks `only`, by default all, but not those of `skip`. Writes nothing, and never raises.

    Without an app, `why_not` says why it does not start. A check that another one needs is asked too, but is
    not among the results unless it was chosen.
    """
    return _Examiner(CheckContext(app, why_not)).run(
        [each for each in CHECKS.values() if (not only or each.id in only) and each.id not in skip]
    )


class _Examiner:
    """Asks checks in turn, and keeps each answer for those that need it."""

    def __init__(self, context: CheckContext) -> None:
        self._context = context
        self._later = context.later()
        self._began = time.monotonic()
        self._results: dict[str, CheckResult] = {}
        # What one snapshot answered to the checks that ask only Postgres, by id.
        self._together: dict[str, CheckAnswer] = {}
        host = context.app and context.app.extensions.get("opsjobs")
        self._silence = host.settings.doctor_silence if host else ()
        self._display = Display(host.display, may_see=True) if host else None

    def run(self, chosen: Sequence[DoctorCheck]) -> Examination:
        at = datetime.now(UTC)
        self._ask_together(chosen)
        results = [self._result_of(check) for check in chosen]
        return Examination(at, self._seconds(), read_versions(), results)

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    def _ask_together(self, chosen: Sequence[DoctorCheck]) -> None:
        """Keep what one snapshot answers to the checks that ask only Postgres, and to those that they need.

        Nothing is kept when one of them fails or hangs: which one, is seen when each is asked alone.
        """
        wanted = list(chosen)
        for check in wanted:
            wanted += [CHECKS[needed] for needed in check.needs]
        checks = {check.id: check for check in wanted if check.id in TOGETHER}
        if self._context.app is not None and checks:
            answers = _run(MOST_SECONDS_TOGETHER, self._look_together, list(checks.values()))
            if answers:
                self._together, shared = answers[0]
                # Those that are asked alone need not read it again.
                self._context.memory.update(shared.memory)

    def _look_together(
        self,
        checks: Sequence[DoctorCheck],
        answers: list[tuple[dict[str, CheckAnswer], CheckContext]],
    ) -> None:
        assert self._context.app is not None
        # Whoever is asked alone says what is wrong.
        with suppress(Exception), self._context.app.app_context():
            found, shared = _look_at_once(self._context, checks)
            if again := [check for check in checks if _is_unsure(check, found[check.id])]:
                time.sleep(_AGAIN_SECONDS)
                found |= _look_at_once(shared.later(), again)[0]
            answers.append((found, shared))

    def _result_of(self, check: DoctorCheck) -> CheckResult:
        if check.id not in self._results:
            before = self._seconds()
            found = self._blocked(check) or CheckResult(check, self._ask(check))
            self._results[check.id] = replace(
                found,
                took_seconds=self._seconds() - before,
                is_silenced=check.id in self._silence,
            )
        return self._results[check.id]

    def _blocked(self, check: DoctorCheck) -> CheckResult | None:
        """The result of a check that needs another one which failed; None when it can be asked."""
        for needed in check.needs:
            found = self._result_of(CHECKS[needed])
            if found.because or found.answer.state == ERROR:
                why = skipped(found.answer.sentence)
                return CheckResult(check, why, because=found.because or needed)
        return None

    def _ask(self, check: DoctorCheck) -> CheckAnswer:
        """What the check answers in time. Its thread ends soon after, since Postgres gives up too."""
        left = MOST_SECONDS_IN_ALL - self._seconds()
        if left <= 0:
            return _NOT_ASKED
        answers = _run(min(MOST_SECONDS, left), self._look, check)
        return answers[0] if answers else _NO_ANSWER

    def _look(self, check: DoctorCheck, answers: list[CheckAnswer]) -> None:
        app = self._context.app
        in_app: AbstractContextManager[Any] = app.app_context() if app else nullcontext()
        try:
            with in_app:
                answer = self._together.get(check.id) or self._look_alone(check)
                answers.append(self._clean(answer))
        except BaseException as fault:  # a policy of the host's may also call sys.exit
            answers.append(_without_answer(check, fault))

    def _look_alone(self, check: DoctorCheck) -> CheckAnswer:
        answer = check.look(self._context)
        if _is_unsure(check, answer):
            time.sleep(_AGAIN_SECONDS)
            answer = check.look(self._later)
        return answer

    def _clean(self, answer: CheckAnswer) -> CheckAnswer:
        if self._display is None or answer.is_constant:
            return answer
        clean = self._display.clean
        return replace(
            answer,
            sentence=clean(answer.sentence),
            evidence=clean(answer.evidence),
            run=clean(answer.run),
        )


def _look_at_once(
    context: CheckContext, checks: Sequence[DoctorCheck]
) -> tuple[dict[str, CheckAnswer], CheckContext]:
    """What one snapshot answers to these checks, by id, and what they were given."""
    with context.reading_apart(MOST_SECONDS_TOGETHER) as read:
        shared = replace(context, memory={}, shared=read)
        started = {
            check.id: start_reading(read, lambda _, look: look(shared), check.look)
            for check in checks
        }
        return values_of(started), shared


def _is_unsure(check: DoctorCheck, answer: CheckAnswer) -> bool:
    return check.looks_twice and answer.state == ERROR


def _run(seconds: float, target: Callable[[Any, list[Any]], None], about: Any) -> list[Any]:
    """What `target` has appended to the list that it is given, when its thread ended in time."""
    answers: list[Any] = []
    thread = threading.Thread(
        target=target, args=(about, answers), name="opsjobs-doctor", daemon=True
    )
    thread.start()
    thread.join(seconds)
    return answers


def _without_answer(check: DoctorCheck, fault: BaseException) -> CheckAnswer:
    """The error in place of an answer: what could not be asked, and why."""
    cause = fault.orig if isinstance(fault, exc.DBAPIError) else fault
    if isinstance(cause, psycopg.errors.QueryCanceled):
        return _NO_ANSWER
    if isinstance(cause, psycopg.Error):
        return error(f"Postgres gave no answer: {say_cause(fault)}.")
    if isinstance(fault, exc.TimeoutError):  # the pool's
        return error("It got no connection to Postgres: this process uses all that its pages may.")
    if isinstance(fault, OpsJobsError):
        return error(f"{fault}.")
    forget_values(fault)
    _log.error("the check %s of the doctor failed", check.id, exc_info=fault)
    return error(f"The check failed with {type(fault).__name__}; the log says where.")
