"""Runs the escalate loop: it decides what the escalation policy is told of, and performs those jobs.

The jobs are on our own queue `opsjobs`. No worker takes them, and they never pass through Redis: somebody
must be called when both are away.
"""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from psycopg.rows import dict_row

from .. import endings, signals
from ..core import sql
from ..core.db import Connection
from ..core.reading import read_clock
from ..core.words import counted
from ..endings import EndedAttempt
from ..engine.worker.heartbeat import Heartbeat
from ..engine.worker.runtime import process_name, register
from ..escalations import transitions as escalation_transitions
from ..escalations.facts import make_facts
from ..escalations.lifecycle import QUEUE, TASK
from ..escalations.transitions import CALL_SECONDS, EndedEscalation, backoff_seconds
from ..host import Host
from ..jobs.perform.outcomes import RETURNED, Outcome
from ..workers.transitions import WorkerRemoved
from .loop import IDLE, Loop, Pass, every
from .policy_process import Answer, PolicyProcess

_log = logging.getLogger("flask_opsjobs.lifeline")
# While a call runs, the next pass comes so soon.
_SOON_SECONDS = 0.2
# A process that is told to stop waits so long for the answer of a call.
_STOP_SECONDS = 5.0
_BROKEN_OFF = "the process that performed it was stopped"


def run(context: Pass) -> str:
    """Begin what is to be told, then take a step of the call that runs or begins.

    Not alone: each event is begun once in all, and each job is taken by one process.
    """
    host, connection, now = context.host, context.connection, context.now
    begun = escalation_transitions.begin(connection, host, now)
    for ended in escalation_transitions.settle(connection, now):
        context.after_commit(partial(tell, host, ended, "failed", "its job ended without a call"))
    report = [f"began {counted(len(begun), 'escalation')}"] if begun else []
    if host.escalation is not None:
        server = context.memory.get("server") or EscalationServer(host)
        context.memory["server"] = server
        if said := server.step(connection, now):
            report.append(said)
            context.again()
        if server.is_busy:
            context.sooner(_SOON_SECONDS)
    return ", ".join(report) or IDLE


def prepare(host: Host) -> dict[str, Any]:
    """Start the process that calls the policy while there are no threads."""
    if host.escalation is None:
        return {}
    server = EscalationServer(host)
    server.start()
    return {"server": server}


def stop(connection: Connection, memory: dict[str, Any]) -> None:
    """Wait a moment for the call that runs, and say that this worker has stopped."""
    if (server := memory.get("server")) is not None:
        server.stop(connection)


def tell(host: Host, ended: EndedEscalation, state: str, said: str | None) -> None:
    """Log what came of an escalation, and send the signal. Call it after the commit."""
    level = logging.INFO if state == "invoked" else logging.ERROR
    about = f"escalation of incident {ended.incident}, episode {ended.episode}, {ended.event}"
    _log.log(level, "%s: %s%s", about, state, f" ({said})" if said else "")
    signals.send(
        signals.escalation_ended,
        host,
        incident=ended.incident,
        episode=ended.episode,
        event=ended.event,
        state=state,
    )


@dataclass(frozen=True)
class _Running:
    """The job that is performed, and its escalation."""

    job_id: int
    dispatch_no: int
    attempt: int
    escalation: int

    @property
    def key(self) -> tuple[int, int]:
        return self.job_id, self.dispatch_no


class EscalationServer:
    """Performs the jobs of escalations, one at a time, as a worker of the kind `loops`."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._caller = PolicyProcess(host, CALL_SECONDS)
        self._name = f"{process_name()}-{uuid.uuid4().hex[:6]}"
        self._heartbeat: Heartbeat | None = None
        self._running: _Running | None = None
        # Of the running job. It is kept until it is written.
        self._answer: Answer | None = None
        # Whether the answer to a statement that takes a job may have been lost.
        self._may_have_taken = False

    @property
    def is_busy(self) -> bool:
        """Return whether a call runs."""
        return self._running is not None

    def start(self) -> None:
        """Start the process that calls the policy. When it does not start, the next call tries again."""
        try:
            self._caller.start()
        except OSError as error:
            _log.error("%s; the next escalation tries again", error)

    def step(self, connection: Connection, now: datetime) -> str | None:
        """Write a heartbeat, then end the call that has ended or begin the next one; return what was done."""
        heartbeat = self._beat(connection)
        if self._running is None:
            return self._begin(connection, heartbeat, now)
        if self._answer is None:
            if heartbeat.stops_wanted():
                self._caller.stop_call()
            self._answer = self._caller.poll()
        if self._answer is None:
            return None
        return self._end(connection, heartbeat, self._running, self._answer, now)

    def stop(self, connection: Connection) -> None:
        """Wait a moment for the call that runs; give its job back when no answer comes."""
        if self._running is not None and self._answer is None:
            self._answer = self._caller.poll(_STOP_SECONDS)
        self._caller.close()
        if self._heartbeat is None:
            return
        if self._running is not None and self._answer is not None:
            now = read_clock(connection)
            self._end(connection, self._heartbeat, self._running, self._answer, now)
        self._heartbeat.stop(connection)

    def _beat(self, connection: Connection) -> Heartbeat:
        """Send a heartbeat when it is due. A worker that is new, or whose row is gone, is registered."""
        if self._heartbeat is not None:
            try:
                self._heartbeat.beat_if_due(connection, lambda: None)
                return self._heartbeat
            except WorkerRemoved:
                self._name = f"{process_name()}-{uuid.uuid4().hex[:6]}"
        worker_id = register(self._host, self._name, [QUEUE], kind="loops")
        signals.send(
            signals.worker_started, worker=self._name, kind="loops", queues=(QUEUE,), processes=1
        )
        self._heartbeat = Heartbeat(worker_id, self._host.settings.heartbeat_seconds)
        if self._running is not None:
            self._heartbeat.reserve([self._running.key])
        return self._heartbeat

    # --- begin

    def _begin(self, connection: Connection, heartbeat: Heartbeat, now: datetime) -> str | None:
        if self._may_have_taken:
            # Nobody knows of what was taken then, and nothing of it was called.
            ours = [heartbeat.worker_id]
            endings.rescue_reserved(connection, ours, now, now)
            endings.rescue(connection, ours, now, _BROKEN_OFF)
            self._may_have_taken = False
        self._may_have_taken = True
        running = self._take(connection, heartbeat.worker_id)
        self._may_have_taken = False
        if running is None:
            return None
        heartbeat.reserve([running.key])
        heartbeat.run(running.key)
        self._running, self._answer = running, None
        found = escalation_transitions.read(connection, running.escalation)
        if found is None:
            self._answer = Answer("stopped", error="its incident was removed")
        elif found["escalation_state"] == "invoked":
            self._answer = Answer("returned", note="it had been invoked before")
        else:
            try:
                self._caller.call(make_facts(found, running.attempt, self._host.settings))
            except OSError as error:
                self._answer = Answer("died", error=str(error))
        if self._answer is not None:
            return self._end(connection, heartbeat, running, self._answer, now)
        return f"called the policy (escalation {running.escalation})"

    def _take(self, connection: Connection, worker_id: int) -> _Running | None:
        """Take and begin the first due job of the queue, in one transaction."""
        wanted = {
            "queues": [QUEUE],
            "limit": 1,
            "bytes": 1_000_000,
            "waited": None,
            "worker_id": worker_id,
        }
        with connection.transaction(), connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(sql.load("take_jobs"), wanted).fetchone()
            if row is None or row["id"] is None:
                return None
            began = {
                "ids": [row["id"]],
                "dispatch_nos": [row["dispatch_no"]],
                "ago": [0.0],
                "pids": [None],
                "worker_id": worker_id,
                "worker": self._name,
                "is_durable": True,
            }
            cursor.execute(sql.load("begin_jobs"), began)
        escalation = json.loads(row["args"]).get("escalation", 0) if row["task"] == TASK else 0
        return _Running(row["id"], row["dispatch_no"], row["attempt"], escalation)

    # --- end

    def _end(
        self,
        connection: Connection,
        heartbeat: Heartbeat,
        running: _Running,
        answer: Answer,
        now: datetime,
    ) -> str:
        """Write the end of the attempt and what came of the escalation, in one transaction."""
        outcome = _outcome(answer, running.attempt)
        attempt = EndedAttempt(
            *running.key, heartbeat.worker_id, self._name, outcome, attempt=running.attempt
        )
        with signals.once_committed(), connection.transaction():
            moved = endings.write_outcomes(connection, [attempt], now)
            state = _state(answer, moved[0].state if moved else None)
            ended = None
            if state is not None:
                ended = escalation_transitions.end(
                    connection,
                    running.escalation,
                    state,
                    now,
                    reference=answer.reference,
                    why=None if state == "invoked" else answer.error,
                )
        self._running = self._answer = None
        heartbeat.release([running.key])
        if answer.note:
            _log.warning("escalation %d: %s", running.escalation, answer.note)
        if ended is not None and state in ("invoked", "failed"):
            tell(self._host, ended, state, answer.reference or answer.error)
        return f"escalation {running.escalation}: {state or 'given up'}"


def _outcome(answer: Answer, attempt: int) -> Outcome:
    """The outcome of the attempt of the job."""
    if answer.kind == "returned":
        return RETURNED
    if answer.kind == "stopped":
        return Outcome("canceled", error=answer.error, reason=answer.error)
    kind = {"raised": "raised", "timed_out": "timed_out"}.get(answer.kind, "died")
    return Outcome(kind, error=answer.error, delay_seconds=backoff_seconds(attempt))


def _state(answer: Answer, job_state: str | None) -> str | None:
    """The state of the escalation after the attempt; None when another process performs the job by now."""
    if answer.kind == "returned":
        return "invoked"
    if job_state is None:
        return None
    return "pending" if job_state in ("retryable", "available", "scheduled") else "failed"


LOOP = Loop("escalate", every(2), run, is_alone=False, prepare=prepare, stop=stop)
