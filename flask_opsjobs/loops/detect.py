"""Runs the detect loop: it looks for what is wrong in Postgres, and opens and clears incidents."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from ..core import sql
from ..core.db import is_away
from ..core.words import counted
from ..jobs.perform import describe_error
from ..lifeline import incidents
from ..lifeline.detectors import DETECTORS
from ..lifeline.finding import Detector, DetectorPass, Facts
from ..lifeline.incidents import Applied
from .loop import IDLE, Loop, Pass, every

_log = logging.getLogger("flask_opsjobs.lifeline")


def run(context: Pass) -> str:
    """Let each detector look, and apply what it finds; announce it after the commit.

    Classes that other loops report are given an empty and incomplete pass: it ends acknowledgements whose
    time is over, and incidents that nobody looks for any more. A detector that fails is rolled back alone.
    Where nothing is found and nothing is open there is nothing to apply.
    """
    context.connection.execute(sql.load("limit_statements"), {"limit": "2s"})
    facts = Facts(
        context.connection,
        context.now,
        context.host.settings,
        context.memory.setdefault("detectors", {}),
    )
    at_work = incidents.list_classes_at_work(context.connection)
    applied = Applied()
    for class_, detector in DETECTORS.items():
        if detector.detect is not None or class_ in at_work:
            look = partial(_look, detector, facts, context.was_asleep, class_ in at_work)
            applied += _apart(context, detector, look)
    if applied:
        context.after_commit(partial(incidents.announce, context.host, applied))
    return _describe(applied)


def _look(detector: Detector, facts: Facts, was_asleep: bool, is_at_work: bool) -> Applied:
    found = DetectorPass(is_complete=False) if detector.detect is None else detector.detect(facts)
    if not (found.findings or is_at_work):
        return Applied()
    if was_asleep:
        found = replace(found, is_complete=False)
    return incidents.apply_pass(facts.connection, detector.class_, found, facts.now)


def _apart(context: Pass, detector: Detector, look: Callable[[], Applied]) -> Applied:
    """Make one look behind a savepoint. An error is noted with the pass, and the other detectors go on."""
    try:
        with context.connection.transaction():
            return look()
    except Exception as error:
        if is_away(error) or context.connection.broken or context.connection.closed:
            raise
        context.fail(f"detector {detector.class_}: {describe_error.one_line(error)}", error)
        return Applied()


def _describe(applied: Applied) -> str:
    parts = (
        ("opened", applied.opened),
        ("reopened", applied.reopened),
        ("resolved", applied.resolved),
    )
    said = [f"{word} {counted(len(news), 'incident')}" for word, news in parts if news]
    return ", ".join(said) or IDLE


LOOP = Loop("detect", every(5), run, is_alone=True)
