"""Defines why a job may not be running: a reason, an explanation, and every kind of reason in order.

Docs and tests read the list too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, TypedDict, Unpack

from ..core.words import moment
from .evidence import Evidence


@dataclass(frozen=True)
class Reason:
    """One reason. `code` is a stable word; `says` is a sentence for people.

    `read` holds the values that prove it (name: value as text), `source` who reported them, `read_at` when
    they were read. `todo` is a sentence that says what helps. `action` and `target` name an operator's action
    that helps (`queue.resume`, `queue/mail`), or are None. `by` is the person who decided it and `quote` what
    that person wrote. `since` and `until` are when it began and when it ends by itself, if known. Texts of an
    application or a person are as stored: pages, commands and exports pass them through the display policy.
    `passes`: the reason goes away by itself, with time or when it is the job's turn.
    """

    code: str
    says: str
    read: Mapping[str, str]
    source: str
    read_at: datetime
    todo: str
    action: str | None = None
    target: str | None = None
    by: str | None = None
    quote: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    passes: bool = False

    @property
    def origin(self) -> str:
        """Who reported the values of `read`, in words."""
        if self.source == "inferred":
            return "inferred by the library, reported by nobody"
        return f"reported by the {self.source}"


@dataclass(frozen=True)
class Explanation:
    """Why a job is not running. There are no reasons when it is running, has ended, or is about to run.

    `reasons` are ordered, the deciding reason first. `says` sums them up in one sentence. `ruled_out`
    lists the checks that found no reason, in a few words each. `completeness` is `complete`,
    `partial evidence`, `history unavailable` or `unknown`; `lacking` lists what could not be read.
    """

    job_id: int
    state: str
    reasons: tuple[Reason, ...]
    ruled_out: tuple[str, ...]
    completeness: str
    lacking: tuple[str, ...]
    read_at: datetime
    says: str

    def to_json(self, clean: Callable[[str], str]) -> dict[str, Any]:
        """A dict for `json.dumps`.

        `clean` is called with every text that an application or a person may have written.
        """
        return {
            "job_id": self.job_id,
            "state": self.state,
            "says": clean(self.says),
            "reasons": [_reason(reason, clean) for reason in self.reasons],
            "ruled_out": [clean(text) for text in self.ruled_out],
            "completeness": self.completeness,
            "lacking": list(self.lacking),
            "read_at": self.read_at.isoformat(),
        }


@dataclass(frozen=True)
class WorkflowExplanation:
    """Why a run of a workflow has not ended.

    `frontier` explains, by the names of the steps, a few unfinished steps that wait for no other step, the
    one that most likely holds the run up first: all others wait for such steps. `removed` names steps whose
    jobs were deleted, before they count as failed. `trouble` is the error that keeps the run from being
    advanced, if there is one. `says` sums it up in one sentence.
    """

    workflow_id: int
    name: str
    state: str
    says: str
    trouble: str | None
    removed: tuple[str, ...]
    frontier: Mapping[str, Explanation]
    read_at: datetime

    def to_json(self, clean: Callable[[str], str]) -> dict[str, Any]:
        """A dict for `json.dumps`.

        `clean` is called with every text that an application or a person may have written.
        """
        return {
            "workflow_id": self.workflow_id,
            "name": clean(self.name),
            "state": self.state,
            "says": clean(self.says),
            "trouble": None if self.trouble is None else clean(self.trouble),
            "removed": [clean(name) for name in self.removed],
            "frontier": [
                {"step": clean(name), **found.to_json(clean)}
                for name, found in self.frontier.items()
            ],
            "read_at": self.read_at.isoformat(),
        }


@dataclass(frozen=True)
class FailedCallback:
    """A callback that failed or was canceled, so that the application was not told.

    `event` is `end` or `failure`, and `state` that of its job.
    """

    event: str
    end_no: int
    job_id: int
    state: str


@dataclass(frozen=True)
class BatchExplanation:
    """Why a batch has not ended.

    `reasons` lie in the batch itself: it is open, or nobody counts its members. `members` explains, by id,
    the oldest member of each state that has not ended. `trouble` is the error that keeps its members from
    being counted, if there is one. `callbacks` are its callbacks that failed or were canceled. `says` sums it
    up in one sentence.
    """

    batch_id: int
    name: str
    state: str
    says: str
    trouble: str | None
    reasons: tuple[Reason, ...]
    members: Mapping[int, Explanation]
    callbacks: tuple[FailedCallback, ...]
    read_at: datetime

    @property
    def goes_on(self) -> bool:
        """Whether it ends by itself, as far as these members show."""
        first = [found.reasons[0] for found in self.members.values() if found.reasons]
        return self.trouble is None and all(each.passes for each in (*self.reasons, *first))

    def to_json(self, clean: Callable[[str], str]) -> dict[str, Any]:
        """A dict for `json.dumps`.

        `clean` is called with every text that an application or a person may have written.
        """
        return {
            "batch_id": self.batch_id,
            "name": clean(self.name),
            "state": self.state,
            "says": clean(self.says),
            "trouble": None if self.trouble is None else clean(self.trouble),
            "reasons": [_reason(reason, clean) for reason in self.reasons],
            "members": [found.to_json(clean) for found in self.members.values()],
            "callbacks": [asdict(each) for each in self.callbacks],
            "read_at": self.read_at.isoformat(),
        }


def _reason(reason: Reason, clean: Callable[[str], str]) -> dict[str, Any]:
    def cleaned(text: str | None) -> str | None:
        return None if text is None else clean(text)

    def iso(value: datetime | None) -> str | None:
        return None if value is None else value.isoformat()

    return {
        "code": reason.code,
        "says": clean(reason.says),
        "by": cleaned(reason.by),
        "quote": cleaned(reason.quote),
        "since": iso(reason.since),
        "until": iso(reason.until),
        "read": {name: clean(value) for name, value in reason.read.items()},
        "source": reason.source,
        "read_at": reason.read_at.isoformat(),
        "todo": clean(reason.todo),
        "passes": reason.passes,
        "action": reason.action,
        "target": reason.target,
    }


@dataclass(frozen=True)
class ReasonKind:
    """One kind of reason: its stable code, when it applies, and what helps.

    `many` says it of several jobs, after "because". `{}` is the name of what they share, `about` the name of
    that among the values of a reason. `action` is the operator's action that helps, or None. `passes`: the
    reason goes away by itself, with time or when it is the job's turn, as long as everything works.
    """

    code: str
    holds: str
    helps: str
    many: str = ""
    about: str | None = None
    action: str | None = None
    passes: bool = False


# Ordered: a reason higher in the list still blocks the job after everything below it is fixed.
# A new kind also needs a finder in the `reasons.py` of its domain and a line in `FINDERS` (`explain.py`).
REASON_KINDS = (
    ReasonKind(
        "schema_behind",
        holds="the database's schema is older than this code needs, so no worker and no loop starts",
        helps="upgrade the schema",
    ),
    ReasonKind(
        "deadline_passed",
        holds="its deadline passed before it started, and the expire loop has not ended it yet",
        many="their deadline passed before they started",
        helps="nothing: it ends as failed; run it again after that",
        passes=True,
    ),
    ReasonKind(
        "cancel_requested",
        holds="a worker has it, and somebody asked to stop it",
        many="somebody asked to cancel them after a worker had taken them",
        helps="wait for its worker's next heartbeat",
        passes=True,
    ),
    ReasonKind(
        "run_canceling",
        holds="it is a step of a workflow that is being canceled",
        many="their workflow is being canceled",
        helps="nothing: the next advance ends it, or its worker stops it",
        passes=True,
    ),
    ReasonKind(
        "worker_silent",
        holds="a worker has it, and this worker sends no heartbeat",
        many="the worker that took them sends no heartbeat",
        helps='a watch loop that runs rescues it; with `OPSJOBS_RESCUE = "manual"` an operator does',
        passes=True,
    ),
    ReasonKind(
        "reserved",
        holds="a worker has taken it, and has not begun it yet",
        many="a worker has taken them, and has not begun them yet",
        helps="nothing: that worker begins it soon, or gives it back",
        passes=True,
    ),
    ReasonKind(
        "step_removed",
        holds="the job of a step before it was deleted by SQL",
        many="the job of a step before them was deleted",
        helps="the advance loop counts that step as failed",
        passes=True,
    ),
    ReasonKind(
        "step_behind",
        holds="it is a step of a workflow, and a step before it has not ended",
        many="a step before them has not ended",
        helps="wait until it ends: the workflow's page shows what holds it up",
        passes=True,
    ),
    ReasonKind(
        "step_not_advanced",
        holds="all steps before it have ended, but its workflow has not been advanced since then",
        many="their workflow has not been advanced since the steps before them ended",
        helps="the next advance releases or cancels it",
        passes=True,
    ),
    ReasonKind(
        "wait_open",
        holds="it is a wait of a workflow, and its signal has not come",
        many="the signal {} has not come",
        about="signal",
        helps="send the signal",
        passes=True,
    ),
    ReasonKind(
        "map_expanding",
        holds="it is a map of a workflow, and its worker is adding a step for each element",
        many="a worker is adding a step for each element",
        helps="wait until the steps are added",
        passes=True,
    ),
    ReasonKind(
        "parent_failed",
        holds="a plain RQ job depends on a job that failed, was canceled or is gone, so RQ never queues it",
        many="an RQ job that they depend on failed, was canceled or is gone",
        helps="retry that job, or cancel this one",
    ),
    ReasonKind(
        "parent_open",
        holds="a plain RQ job depends on a job that has not ended",
        many="an RQ job that they depend on has not ended",
        helps="wait for that job",
        passes=True,
    ),
    ReasonKind(
        "deferred",
        holds="it waits for another job or a signal",
        many="they wait for another job or a signal",
        helps="wait for that job or signal",
        passes=True,
    ),
    ReasonKind(
        "scheduled",
        holds="it is due later",
        many="they are due later",
        helps="wait until it is due",
        passes=True,
    ),
    ReasonKind(
        "backing_off",
        holds="an attempt failed, and the next one is due later",
        many="an attempt failed, and the next one is due later",
        helps="wait, or retry it at once",
        action="job.retry",
        passes=True,
    ),
    ReasonKind(
        "queue_paused",
        holds="an operator paused its queue",
        many="queue {} is paused",
        about="queue",
        helps="resume the queue",
        action="queue.resume",
    ),
    ReasonKind(
        "queue_draining",
        holds="an operator drains its queue: nothing more is dispatched",
        many="queue {} is draining",
        about="queue",
        helps="resume the queue",
        action="queue.resume",
    ),
    ReasonKind(
        "task_paused",
        holds="an operator paused its task, while other tasks of its queue go on",
        many="task {} is paused",
        about="task",
        helps="resume the task",
        action="task.resume",
    ),
    ReasonKind(
        "limit_unknown",
        holds="no process that knows its limiter has started",
        many="no process has declared limiter {}",
        about="limiter",
        helps="start a worker or the loops",
    ),
    ReasonKind(
        "limit_weight",
        holds="its weight is larger than its limiter can ever admit",
        many="they weigh more than limiter {} can ever admit",
        about="limiter",
        helps="declare a larger burst or concurrency, or discard it",
    ),
    ReasonKind(
        "redis_away",
        holds="Redis does not answer, and its delivery is there, or no worker of ours listens to its queue",
        many="Redis does not answer for queue {}",
        about="queue",
        helps="bring Redis back, or start `flask opsjobs worker`, which takes jobs from Postgres",
    ),
    ReasonKind(
        "workers_suspended",
        holds="somebody suspended all workers of its Redis with RQ's own command",
        many="somebody suspended all workers of their Redis with RQ's own command",
        helps="resume them with `rq resume`",
    ),
    ReasonKind(
        "no_live_worker",
        holds="no worker that is alive listens to its queue",
        many="no live worker listens to queue {}",
        about="queue",
        helps="start one",
    ),
    ReasonKind(
        "no_child",
        holds="the workers of its queue are alive, but none of them can start a child process",
        many="no worker of queue {} can start a child process",
        about="queue",
        helps="read the worker's log: a hook fails, or memory or processes are short",
    ),
    ReasonKind(
        "delivery_lost",
        holds="it was dispatched, but Redis lost its delivery, or its worker died before it claimed the job",
        many="their deliveries are lost",
        helps="a recall loop that runs recalls it, or an operator does",
        action="job.recall",
        passes=True,
    ),
    ReasonKind(
        "loop_silent",
        holds="a loop that it needs is not running",
        many="the {} loop, which they need, does not run",
        about="loop",
        helps="start the loops",
    ),
    ReasonKind(
        "loop_failing",
        holds="a loop that it needs is running, but its last pass failed",
        many="the last pass of the {} loop, which they need, failed",
        about="loop",
        helps="read that loop's log",
    ),
    ReasonKind(
        "limit_cooldown",
        holds="its limiter, or its partition, is in an operator's cooldown",
        many="limiter {} is in a cooldown",
        about="limiter",
        helps="wait, or clear the cooldown",
        action="limiter.clear",
        passes=True,
    ),
    ReasonKind(
        "limit_concurrency",
        holds="too few places of its limiter are free for its weight",
        many="limiter {} is full",
        about="limiter",
        helps="wait until others end",
        passes=True,
    ),
    ReasonKind(
        "limit_tokens",
        holds="its limiter has too few tokens left for its weight",
        many="limiter {} has too few tokens left",
        about="limiter",
        helps="wait until tokens come back",
        passes=True,
    ),
    ReasonKind(
        "limit_behind",
        holds="its limiter has room, but the jobs ahead of it need that room",
        many="jobs ahead of them need the room of limiter {}",
        about="limiter",
        helps="wait for its turn",
        passes=True,
    ),
    ReasonKind(
        "workers_busy",
        holds="every worker that listens to its queue is running a job",
        many="all workers of queue {} are running a job",
        about="queue",
        helps="wait for its turn, or start another worker",
        passes=True,
    ),
    ReasonKind(
        "prefetch_full",
        holds="its queue has as many jobs in Redis as its prefetch allows",
        many="the prefetch of queue {} is full",
        about="queue",
        helps="wait, or raise the prefetch",
        action="queue.set_prefetch",
        passes=True,
    ),
    ReasonKind(
        "handed_back",
        holds="a worker took it, but does not have its task or does not accept its arguments",
        many="a worker handed them back without running them",
        helps="wait for a worker of the right version, or start one",
        passes=True,
    ),
    ReasonKind(
        "batch_open",
        holds="it is a batch, and the application has not closed it",
        helps="close it, in the application or by an operator",
        action="batch.close",
    ),
)

CODES = tuple(kind.code for kind in REASON_KINDS)
KINDS = {kind.code: kind for kind in REASON_KINDS}


class ReasonDetails(TypedDict, total=False):
    """The optional fields of a `Reason` that a finder may set."""

    action: str | None
    target: str
    passes: bool
    by: str | None
    quote: str | None
    since: datetime | None
    until: datetime | None


def make_reason(
    evidence: Evidence,
    code: str,
    says: str,
    todo: str,
    *,
    source: str,
    read: dict[str, Any],
    **details: Unpack[ReasonDetails],
) -> Reason:
    """The reason with this code, as of the time of `evidence`. Values of `read` that are None are left out.

    `details` may name its action and the target of the action. By default the action is that of the kind, and
    the target is the job, its task or its queue.
    """
    action = details.setdefault("action", KINDS[code].action)
    details.setdefault("passes", KINDS[code].passes)
    if action is None:
        details.pop("target", None)
    else:
        job = evidence.job
        names = {"job": job.id, "task": job.task, "queue": job.queue}
        domain = action.partition(".")[0]
        details.setdefault("target", f"{domain}/{names.get(domain)}")
    return Reason(
        code=code,
        says=says,
        read={name: as_text(value) for name, value in read.items() if value is not None},
        source=source,
        read_at=evidence.now,
        todo=todo,
        **details,
    )


def as_text(value: Any) -> str:
    """A value as text: a time in UTC, a flag as yes or no, anything else by `str`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, datetime):
        return moment(value)
    return str(value)


AnyExplanation = Explanation | WorkflowExplanation | BatchExplanation
