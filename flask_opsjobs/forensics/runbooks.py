"""Finds the host's runbook of a subject, and asks its checks, with a time limit and without a write."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, event

from ..core.reading import forbid_writes
from ..host import Host
from ..lifeline.queries import IncidentRow
from ..policy import describe_failure
from .bundle import Inquiry, Prerequisite, Runbook
from .declaration import Check, RunbookDeclaration

_log = logging.getLogger("flask_opsjobs")

# How long all checks of one runbook may take. They run at the same time.
MOST_SECONDS = 1.0
# Postgres gives up a statement of a check at that time too, so that its thread ends.
_STATEMENT_SECONDS = 2


def find_runbook(inquiry: Inquiry, incidents: Sequence[IncidentRow]) -> Runbook | None:
    """The host's runbook of the subject, with what its checks answer now; None without one."""
    classes = [incident.class_ for incident in incidents if incident.is_active]
    declared = find_declared(inquiry.host, inquiry.subject, classes)
    return None if declared is None else ask_runbook(inquiry.host, declared, inquiry.subject)


def find_declared(host: Host, subject: str, classes: Sequence[str]) -> RunbookDeclaration | None:
    """The runbook of this subject; else of the first of these classes of incidents; else of its kind.

    A class that `OPSJOBS_RUNBOOKS` names has a runbook that is an address and nothing more.
    """
    for about in (subject, *classes, subject.partition("/")[0]):
        if about in host.runbooks:
            return host.runbooks[about]
        if about in classes and (url := host.settings.runbooks.get(about)):
            return RunbookDeclaration(about, url, url)
    return None


def ask_runbook(host: Host, declared: RunbookDeclaration, subject: str) -> Runbook:
    """Ask every check about the subject, all at once, for at most `MOST_SECONDS`.

    Each check runs in a thread and an app context of its own, whose session cannot write. One that raises,
    is slow, or answers neither True, False nor None is unknown.
    """
    end = time.monotonic() + MOST_SECONDS
    asked = [_Asked(host, name, check, subject) for name, check in declared.prerequisites]
    return Runbook(
        declared.title, declared.url, [each.answer(end) for each in asked], declared.cautions
    )


class _Asked:
    """One check under way, in a thread that no request waits for longer than it may."""

    def __init__(
        self,
        host: Host,
        name: str,
        check: Check | None,
        subject: str,
    ) -> None:
        self._host, self._name, self._check, self._subject = host, name, check, subject
        self._found = self._unknown("no answer in time")
        self._thread: threading.Thread | None = None
        if check is None:
            self._found = self._unknown("a person must answer it")
        elif host.checks.enter():
            self._thread = threading.Thread(target=self._run, name="opsjobs-runbook", daemon=True)
            self._thread.start()
        else:
            self._found = self._unknown("earlier checks have not ended")

    def answer(self, end: float) -> Prerequisite:
        """What the check has answered until `end`."""
        if self._thread is not None:
            self._thread.join(max(0.0, end - time.monotonic()))
        return self._found

    def _run(self) -> None:
        assert self._check is not None
        try:
            with self._host.app_context():
                session = self._host.session()
                event.listen(session, "after_begin", _only_read)
                answer = self._check(self._subject)
                session.rollback()
            self._found = self._judge(answer)
        except BaseException as error:  # a check may also call sys.exit
            why = describe_failure(error)
            _log.error("the check %r of a runbook raised: unknown (%s)", self._name, why)
            self._found = self._unknown(f"its check raised {type(error).__name__}")
        finally:
            self._host.checks.leave()

    def _judge(self, answer: object) -> Prerequisite:
        if answer is True or answer is False:
            return Prerequisite("met" if answer else "missing", self._name)
        return self._unknown(
            "its check does not know"
            if answer is None
            else "its check answered neither True nor False"
        )

    def _unknown(self, why: str) -> Prerequisite:
        return Prerequisite("unknown", f"{self._name} ({why})")


def _only_read(_session: Any, _transaction: Any, connection: Connection) -> None:
    """Make the transaction that begins one that reads, and that ends soon. For Postgres only."""
    if connection.dialect.name == "postgresql":
        forbid_writes(connection, _STATEMENT_SECONDS)
