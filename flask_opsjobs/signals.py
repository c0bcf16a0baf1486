"""Declares the events that a host may connect to, as data, and sends them: declared facts only.

An event is a blinker signal. An exception of a receiver is logged and changes nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from blinker import NamedSignal, Namespace

from .policy import describe_failure

_log = logging.getLogger("flask_opsjobs")
_signals = Namespace()

When = Literal["in the transaction", "in the attempt", "after the commit"]


@dataclass(frozen=True)
class EventKind:
    """What is known of an event before it is sent.

    `when` says when it is sent, `process` in which process. `facts` are the names of what receivers get, each
    with its meaning. `labels` are the facts with few values, which a metric may use as labels; ids never are.
    """

    name: str
    meaning: str
    when: When
    process: str
    facts: Mapping[str, str]
    labels: tuple[str, ...]


# All events by the names of their signals, in the order of the documentation.
EVENTS: dict[str, EventKind] = {}
# Whether an undeclared fact raises, as in our tests. Else it is left out, and logged once for each event.
is_strict = False
_told: set[str] = set()


def _declare(
    name: str,
    meaning: str,
    when: When,
    process: str,
    facts: Mapping[str, str],
    labels: tuple[str, ...] = (),
) -> NamedSignal:
    assert set(labels) <= set(facts), name
    signal = _signals.signal(name.replace("_", "-"), doc=meaning)
    EVENTS[signal.name] = EventKind(name, meaning, when, process, facts, labels)
    return signal


_JOB = {"job_id": "the job", "task": "its task", "queue": "its queue"}
_ATTEMPT = {**_JOB, "attempt": "which attempt of the job, from 1"}
_STATE = "the state of the job now"
_ENDED_BY = "why it ended, as `ended_by` of the job says"
_WORKER = {"worker": "its name"}
_INCIDENT = {
    "incident": "its id",
    "class_": "what is wrong",
    "subject": "what is affected",
    "severity": "`critical`, `warning` or `notice`",
    "episode": "how often it has opened, from 1",
    "title": "its sentence",
}
_ACTION = {
    "action": "its name",
    "actor": "who asked for it",
    "via": "where, such as `web` or `cli`",
}
# Processes.
_RUNS = "that runs the function"
_LOOPS = "of the loops"
_ENDS = "that recorded the end: a worker, the loops, or that of an operator's action"
_ACTS = "that executed the action"
_FINDS = "of the loops, or that executed the action"

# --- jobs

job_enqueued = _declare(
    "job_enqueued",
    "a job was enqueued",
    "in the transaction",
    "that enqueued it; the sender is the task. The cron loop sends it after its commit",
    {"enqueued": "what `enqueue` returns: `id`, `state` and `conflict`"},
)
jobs_dispatched = _declare(
    "jobs_dispatched",
    "due jobs of a queue were handed to RQ, or taken by a worker",
    "after the commit",
    "that dispatched them: the one that enqueued, a worker or the loops",
    {"queue": "their queue", "count": "how many", "job_ids": "their ids"},
    ("queue",),
)
job_ended = _declare(
    "job_ended",
    "a managed job has ended and is not tried again; the end of an adopted job is on its page only",
    "after the commit",
    _ENDS,
    {
        **_JOB,
        "state": "`finished`, `failed` or `canceled`",
        "ended_by": _ENDED_BY,
        "workflow_id": "the run that it is a step of, or `None`",
        "batch_id": "the batch that it is a member of, or `None`",
        "cron_entry": "the entry that enqueued it, or `None`",
    },
    ("task", "queue", "state", "ended_by", "cron_entry"),
)
job_failed_without_exception = _declare(
    "job_failed_without_exception",
    "a job has failed, and nothing was raised: its process died, its worker was lost, or it was not run",
    "after the commit",
    _ENDS,
    {
        **_JOB,
        "attempt": "its last attempt, or `None`",
        "outcome": "how that ended, such as `died` or `lost`, or `None`",
        "ended_by": _ENDED_BY,
    },
    ("task", "queue", "outcome", "ended_by"),
)
job_rescued = _declare(
    "job_rescued",
    "the attempt of a job was lost with its worker; the job is due again, or has ended",
    "after the commit",
    "of the loops, the worker that stops, or the one that executed the action",
    {**_ATTEMPT, "state": _STATE},
    ("task", "queue", "state"),
)
job_recalled = _declare(
    "job_recalled",
    "a job that was dispatched and had not begun was taken back: it is due again",
    "after the commit",
    "of the worker that gives it back, or of the loops for a delivery that was lost",
    {"job_id": "the job", "queue": "its queue"},
    ("queue",),
)

# --- attempts

attempt_started = _declare(
    "attempt_started",
    "the function of a job is about to be called",
    "in the attempt",
    _RUNS,
    {**_ATTEMPT, "max_attempts": "how many attempts the job has"},
    ("task", "queue"),
)
attempt_raised = _declare(
    "attempt_raised",
    "the function of a job raised an exception that counts as a failure; its outcome is still in the process",
    "in the attempt",
    _RUNS,
    {
        **_ATTEMPT,
        "max_attempts": "how many attempts the job has",
        "outcome": "`raised`, `timed_out`, `retry_in` or `discarded`",
        "is_last": "whether the job is not tried again",
        "exception": "the exception itself, with its text, its traceback and the variables of its frames",
    },
    ("task", "queue", "outcome", "is_last"),
)
attempt_ended = _declare(
    "attempt_ended",
    "an attempt has ended, also one whose process died or whose worker is gone",
    "after the commit",
    _ENDS,
    {
        **_ATTEMPT,
        "outcome": "how it ended, such as `returned`, `raised`, `died` or `lost`",
        "state": _STATE,
        "seconds": "how long the function ran, or `None`",
    },
    ("task", "queue", "outcome", "state"),
)

# --- workers and queues

worker_started = _declare(
    "worker_started",
    "a worker of ours has started; of a plain `rq worker` only `worker_missing` tells",
    "after the commit",
    "of the worker",
    {
        **_WORKER,
        "kind": "`pool`, or `loops` for the one that calls the escalation policy",
        "queues": "the names of its queues",
        "processes": "how many jobs it performs at once",
    },
    ("kind",),
)
worker_late = _declare(
    "worker_late",
    "a worker sent no heartbeat for a while",
    "after the commit",
    _LOOPS,
    _WORKER,
)
worker_missing = _declare(
    "worker_missing",
    "a worker stopped sending heartbeats and counts as missing",
    "after the commit",
    _LOOPS,
    _WORKER,
)
queue_changed = _declare(
    "queue_changed",
    "an operator changed a queue",
    "after the commit",
    _ACTS,
    {"queue": "its name", "change": "`pause`, `drain`, `resume` or `set_prefetch`"},
    ("queue", "change"),
)

# --- limits and cron

limiter_rejected = _declare(
    "limiter_rejected",
    "a full limiter rejected a call: `enqueue` raised `LimitReached`",
    "after the commit",
    "that enqueued; sent when its transaction has ended, also by a rollback",
    {"limiter": "its name", "task": "the task that was called", "code": "which limit was reached"},
    ("limiter", "task", "code"),
)
limiter_cooled = _declare(
    "limiter_cooled",
    "an operator stopped a limiter, or one of its partitions, for a while",
    "after the commit",
    _ACTS,
    {"limiter": "its name", "until": "when jobs start again"},
    ("limiter",),
)
cron_slot_decided = _declare(
    "cron_slot_decided",
    "a planned time of a cron entry got its result",
    "after the commit",
    _FINDS,
    {
        "entry": "the name of the entry",
        "slot_at": "the planned time, or the first of several",
        "result": "such as `ran`, `missed` or `skipped_overlap`",
        "slots": "how many planned times it stands for",
        "job_id": "the job that it enqueued, or `None`",
    },
    ("entry", "result"),
)

# --- workflows and batches

workflow_ended = _declare(
    "workflow_ended",
    "a run of a workflow has ended",
    "after the commit",
    _ENDS,
    {"workflow_id": "the run", "name": "the workflow", "state": "the state of the run now"},
    ("name", "state"),
)
step_ended = _declare(
    "step_ended",
    "a step of a workflow has ended, also one that never ran, and a wait that got its signal",
    "after the commit",
    _ENDS,
    {
        "workflow_id": "the run",
        "job_id": "the job of the step",
        "task": "its task",
        "state": _STATE,
        "ended_by": _ENDED_BY,
    },
    ("task", "state", "ended_by"),
)
batch_ended = _declare(
    "batch_ended",
    "a closed batch has ended with its last member",
    "after the commit",
    _ENDS,
    {"batch_id": "the batch", "name": "its name", "state": "its state now"},
    ("name", "state"),
)

# --- incidents, actions and loops

incident_opened = _declare(
    "incident_opened",
    "a detector found something wrong that was not known before",
    "after the commit",
    _FINDS,
    _INCIDENT,
    ("class_", "severity"),
)
incident_reopened = _declare(
    "incident_reopened",
    "something that was over was found again: its next episode began",
    "after the commit",
    _FINDS,
    _INCIDENT,
    ("class_", "severity"),
)
incident_resolved = _declare(
    "incident_resolved",
    "an incident is over: it was cleared, given up, or resolved by a person",
    "after the commit",
    _FINDS,
    _INCIDENT,
    ("class_", "severity"),
)
action_executed = _declare(
    "action_executed",
    "an operator's action was executed",
    "after the commit",
    _ACTS,
    {
        **_ACTION,
        "targets": "how many targets it changed",
        "audit": "the number of its row in the audit",
    },
    ("action", "via"),
)
action_refused = _declare(
    "action_refused",
    "an operator's action was refused",
    "after the commit",
    "that refused it",
    {**_ACTION, "code": "why, such as `unauthorized` or `drifted`"},
    ("action", "via", "code"),
)
escalation_ended = _declare(
    "escalation_ended",
    "the escalation policy was called and returned, or still failed after the last attempt",
    "after the commit",
    _LOOPS,
    {
        "incident": "the id of the incident",
        "episode": "its episode",
        "event": "what the policy was told",
        "state": "`invoked` or `failed`",
    },
    ("event", "state"),
)
loop_failed = _declare(
    "loop_failed",
    "a pass of a loop failed, or a part of it; sent at each such pass",
    "after the commit",
    _LOOPS,
    {"loop": "its name", "error": "the class of the exception"},
    ("loop", "error"),
)
loops_silent = _declare(
    "loops_silent",
    "no loop has made a pass for a minute; sent once until they make some again",
    "after the commit",
    "of the worker that found it",
    {**_WORKER, "last_at": "when the last pass was made, or `None`"},
)


class Message(NamedTuple):
    """An event that is to be sent. Each receiver is called in a block of its own, `within()`."""

    signal: NamedSignal
    sender: Any
    facts: Mapping[str, Any]
    within: Callable[[], AbstractContextManager[Any]] = nullcontext

    def send(self) -> None:
        """Call every receiver, also after one has raised an exception."""
        for receiver in self.signal.receivers_for(self.sender):
            try:
                with self.within():
                    receiver(self.sender, **self.facts)
            except Exception as error:
                log_failed_receiver(self.signal, error)


def log_failed_receiver(signal: NamedSignal, error: BaseException) -> None:
    """Log that a receiver raised, without the error's text: a receiver of `attempt_raised` has the job's."""
    _log.error("a receiver of the signal %s raised (%s)", signal.name, describe_failure(error))


class _Blocks(threading.local):
    """In which blocks this thread is: who sends, and what waits for a commit."""

    sender: Any = None
    kept: list[Message] | None = None


class _Process:
    """Who calls the receivers of this process after a commit; None where the sending thread does."""

    take: Callable[[Message], None] | None = None
    sender: Any = None


_blocks = _Blocks()
_process = _Process()


def send(
    signal: NamedSignal,
    sender: Any = None,
    *,
    within: Callable[[], AbstractContextManager[Any]] = nullcontext,
    **facts: Any,
) -> None:
    """Send an event with its declared facts, no more and no fewer. Costs nothing without a receiver.

    In a block `once_committed` the event waits for the end of the block, unless it belongs into the
    transaction. `sender` is by default that of the block `sent_by`, or of the process. Each receiver is
    called in a block `within()`, such as a savepoint.
    """
    event = EVENTS[signal.name]
    if facts.keys() != event.facts.keys():
        facts = _keep_declared(event, facts)
    if not signal.receivers:
        return
    message = Message(signal, sender or _blocks.sender or _process.sender, facts, within)
    if event.when != "after the commit":
        message.send()
    elif _blocks.kept is not None:
        _blocks.kept.append(message)
    else:
        _deliver(message)


@contextmanager
def once_committed() -> Iterator[None]:
    """Send the events of this block when it has ended, and none when it raises.

    Open it before the transaction, so that it ends after the commit. Inside another such block, the events
    wait for the end of the outer one.
    """
    outer = _blocks.kept
    _blocks.kept = mine = list[Message]()
    try:
        yield
    finally:
        _blocks.kept = outer
    if outer is not None:
        outer += mine
        return
    for message in mine:
        _deliver(message)


@contextmanager
def sent_by(sender: Any) -> Iterator[None]:
    """Let `sender` be the sender of the events of this block."""
    outer, _blocks.sender = _blocks.sender, sender
    try:
        yield
    finally:
        _blocks.sender = outer


@contextmanager
def handed_over(to: Callable[[Message], None], sender: Any) -> Iterator[None]:
    """Let `to` take what is sent after commits: for a process whose threads may not wait for receivers."""
    _process.take, _process.sender = to, sender
    try:
        yield
    finally:
        call_directly()


def call_directly() -> None:
    """Call receivers where events are sent, as in a child that was forked inside `handed_over`."""
    _process.take = _process.sender = None


def _deliver(message: Message) -> None:
    if _process.take is not None:
        _process.take(message)
    else:
        message.send()


def _keep_declared(event: EventKind, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the declared facts. Raises in tests; in production says once which facts are wrong."""
    wrong = sorted(facts.keys() ^ event.facts.keys())
    says = f"the event {event.name} was sent with other facts than it declares: {', '.join(wrong)}"
    if is_strict:
        raise ValueError(says)
    if event.name not in _told:
        _told.add(event.name)
        _log.error("%s", says)
    return {name: facts.get(name) for name in event.facts}
