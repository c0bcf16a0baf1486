"""Notes how a run of a plain RQ job goes, in the child that runs it or settles its death, for its record."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from rq import Retry
from rq.exceptions import DeserializationError
from rq.job import Job as RQJob
from rq.job import JobStatus
from rq.timeouts import JobTimeoutException
from rq.utils import now

from ...jobs.adopted.merge import NO_FUNCTION
from ...jobs.failure_key import key_of_end, key_of_error
from ...jobs.perform.describe_error import describe_error
from ...jobs.perform.log_tail import Capture, Ring
from ..adopted.pickle_view import Hides, name_function, view_job
from .frames import PlainDeath
from .plain_runs import PlainRunRecord

# The adopting loop looks every ten seconds. What RQ keeps for less than three looks, it may never see.
_UNSEEN_SECONDS = 30
# RQ's own words are no error of the function.
_TOO_MANY_RETRIES = "it returned an rq.Retry more often than that allows"


class RunNotes:
    """What is noted of one run. RQ may change the job itself, or delete it, before the run is recorded."""

    def __init__(self, job: RQJob, ring: Ring | None = None) -> None:
        """`ring` gets the log lines of the function."""
        self._job, self._ring = job, ring
        # RQ changes both when it tries a job again.
        self._created_at, self._enqueued_at = job.created_at, job.enqueued_at
        # RQ's name of the run; None until RQ knows of one.
        self.execution_id: str | None = None
        # What the function raised, or RQ for it.
        self.error: BaseException | None = None
        # Whether RQ could be told the end.
        self.is_told = True
        self._wants_retry = False

    def perform(self, perform: Callable[[], Any]) -> Any:
        """Call the function of the job, and note how it ended."""
        try:
            with Capture(self._ring):
                returned = perform()
        except BaseException as error:
            self.error = error
            raise
        self._wants_retry = isinstance(returned, Retry)
        return returned

    def record(self, log_tail: str | None, hides: Hides) -> PlainRunRecord | None:
        """Return how the run ended that was made here; None when RQ knows of no run."""
        job, function = self._job, self._name_function()
        known: dict[str, Any] = {}
        outcome = "returned"
        if isinstance(self.error, JobTimeoutException):
            outcome, known = "timed_out", _describe_time_out(job, function, self.error)
        elif self.error is not None:
            outcome, known = "raised", _describe_error(function, self.error)
        elif self._wants_retry:
            is_last = job.get_status(refresh=False) is JobStatus.FAILED
            outcome, known = (
                ("raised", {"error": _TOO_MANY_RETRIES}) if is_last else ("retry_in", {})
            )
        if _is_deleted_soon(job):
            known["arguments"] = view_job({"data": job.data}, hides).arguments
        return self._make_record(function, outcome, pid=os.getpid(), log_tail=log_tail, **known)

    def record_death(self, death: PlainDeath) -> PlainRunRecord | None:
        """Return how the run ended whose process died; None when RQ knows of no run that had not ended."""
        # Nothing is unpickled: the process may have died of that.
        function = view_job({"data": self._job.data}, _hide_nothing).function or NO_FUNCTION
        is_failure = death.outcome != "canceled"
        return self._make_record(
            function,
            death.outcome,
            pid=death.pid,
            error=death.words,
            log_tail=death.log_tail,
            cause_of_death=death.cause_of_death,
            death=death.death,
            death_facts=death.death_facts,
            failure_key=key_of_end(function, death.outcome, death.death) if is_failure else None,
        )

    def _make_record(self, function: str, outcome: str, **known: Any) -> PlainRunRecord | None:
        if self.execution_id is None:
            return None
        job, enqueued_at = self._job, self._enqueued_at
        ended_at = job.ended_at or now()
        status = job.get_status(refresh=False) if self.is_told else JobStatus.STARTED
        return PlainRunRecord(
            rq_id=job.id,
            queue=job.origin,
            function=function,
            created_at=self._created_at.isoformat(),
            enqueued_at=None if enqueued_at is None else enqueued_at.isoformat(),
            execution_id=self.execution_id,
            started_at=(job.started_at or ended_at).isoformat(),
            ended_at=ended_at.isoformat(),
            status=status.value,
            outcome=outcome,
            timeout_seconds=job.timeout,
            **known,
        )

    def _name_function(self) -> str:
        """Return the function's name as the adopting loop names it."""
        job = self._job
        try:
            if job.instance is None and job.func_name is not None:
                return name_function(job.func_name, None)
        except DeserializationError:
            pass
        return view_job({"data": job.data}, _hide_nothing).function or NO_FUNCTION


def _describe_error(function: str, error: BaseException) -> dict[str, Any]:
    line, traceback = describe_error(error)
    key = key_of_error(function, error, function.partition(".")[0])
    return {"error": line, "traceback": traceback, "failure_key": key}


def _describe_time_out(job: RQJob, function: str, error: BaseException) -> dict[str, Any]:
    line, traceback = describe_error(error)
    return {
        "error": line,
        "traceback": traceback,
        "death": "timed_out",
        "death_facts": {"limit_seconds": job.timeout},
        "failure_key": key_of_end(function, "timed_out", "timed_out"),
    }


def _is_deleted_soon(job: RQJob) -> bool:
    """Return whether RQ may delete the job before the adopting loop can see it."""
    return job.result_ttl is not None and 0 <= job.result_ttl <= _UNSEEN_SECONDS


def _hide_nothing(_key: str) -> None:
    """For a view of which only the function's name is taken."""
