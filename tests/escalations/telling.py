"""Makes incidents and passes of the loop `escalate`, with a clock that the test moves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from flask_opsjobs.core.db import connect_apart
from flask_opsjobs.core.reading import read_clock
from flask_opsjobs.host import Host
from flask_opsjobs.lifeline import incidents
from flask_opsjobs.lifeline import transitions as incident_transitions
from flask_opsjobs.lifeline.finding import DetectorPass, Finding
from flask_opsjobs.loops import escalate
from flask_opsjobs.loops.loop import Runner
from tests.support.waiting import wait_until

CLASS = "queue_unserved"
SUBJECT = "queue/mail"


class Teller:
    """The loop `escalate` of one process."""

    def __init__(self, host: Host, process: str = "one") -> None:
        self.host = host
        self.connection = connect_apart(host.engine)
        self.runner = Runner(escalate.LOOP, host, process)
        self.now = read_clock(self.connection)

    def close(self) -> None:
        """End as the process of the loops does."""
        if not self.connection.closed:
            self.runner.stop(self.connection)
            self.connection.close()

    # --- incidents

    def find(self, class_: str = CLASS, subject: str = SUBJECT, **finding: Any) -> int:
        """A detector finds something; the id of its incident."""
        facts = finding.pop("facts", {"queue": "mail", "number": 3, "due_at": self.now.isoformat()})
        found = Finding(subject, since=self.now - timedelta(minutes=1), facts=facts, **finding)
        incidents.apply_pass(self.connection, class_, DetectorPass([found]), self.now)
        return self._id(class_, subject)

    def clear(self, class_: str = CLASS, subject: str = SUBJECT) -> None:
        """It is not found any more, and its incident ends."""
        for _ in range(incidents.PASSES_TO_CLEAR):
            self.wait(60)
            incidents.apply_pass(self.connection, class_, DetectorPass(), self.now)
        state = self.row(
            "SELECT state FROM opsjobs.incidents WHERE id = %s", self._id(class_, subject)
        )
        assert state == {"state": "resolved"}

    def acknowledge(self, incident: int) -> None:
        """A person knows of it."""
        until = self.now + timedelta(days=1)
        incident_transitions.acknowledge(
            self.connection, [incident], until, "ada", "I know", self.now
        )

    def unacknowledge(self, incident: int) -> None:
        """And does not any more."""
        incident_transitions.unacknowledge(self.connection, [incident])

    def _id(self, class_: str, subject: str) -> int:
        fingerprint = f"{class_}:{subject}"
        row = self.row("SELECT id FROM opsjobs.incidents WHERE fingerprint = %s", fingerprint)
        return int(row["id"])

    # --- passes

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def look(self) -> None:
        """Make passes until no call runs and no job is due."""
        self.runner.run_once(self.connection, self.now)
        wait_until(self._is_idle, 20)

    def once(self) -> None:
        """Make one pass."""
        self.runner.run_once(self.connection, self.now)

    def _is_idle(self) -> bool:
        has_more = self.runner.run_once(self.connection, self.now)
        return not (has_more or self.server.is_busy)

    @property
    def server(self) -> escalate.EscalationServer:
        """What performs the jobs in this process."""
        found: escalate.EscalationServer = self.runner.memory["server"]
        return found

    # --- what is stored

    def told(self) -> list[tuple[int, str, str]]:
        """Episode, event and state of each escalation, the oldest first."""
        rows = self.rows("SELECT episode, event, state FROM opsjobs.escalations ORDER BY id")
        return [(row["episode"], row["event"], row["state"]) for row in rows]

    def rows(self, statement: str, *values: Any) -> list[dict[str, Any]]:
        """The rows of a query."""
        cursor = self.connection.execute(statement, values)
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def row(self, statement: str, *values: Any) -> dict[str, Any]:
        """The only row of a query."""
        (row,) = self.rows(statement, *values)
        return row
