"""Checks the workers: whether somebody listens, their versions and heartbeats, and tasks that they lack."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from ..core.words import agree, counted
from ..overview.headline import NO_WORKER
from ..workers.queries import WorkerRow, list_workers
from .check import OK, WARNING, CheckAnswer, CheckContext, DoctorCheck, ok, warning
from .incidents import look_for, state_of_class

# A deploy may take so long.
_MOST_OF_A_DEPLOY = timedelta(hours=1)


def list_alive(context: CheckContext) -> tuple[Sequence[WorkerRow], datetime]:
    """The workers of ours and of RQ that have not ended, and the time of Postgres."""

    def read_workers() -> tuple[Sequence[WorkerRow], datetime]:
        with context.reading() as read:
            found = list_workers(read.session, read.now, context.host.settings.late_seconds)
            return [worker for worker in found if worker.ended_at is None], read.now

    return context.once("workers", read_workers)


_look_for_unserved = look_for(
    "queue_unserved", "A worker listens where jobs are due.", "flask opsjobs worker {queue}"
)


def _listeners(context: CheckContext) -> CheckAnswer:
    found = _look_for_unserved(context)
    if found.state == OK and not any(each.is_listening for each in list_alive(context)[0]):
        return warning(NO_WORKER, "A job waits until one runs.", "flask opsjobs worker")
    return found


def _versions(context: CheckContext) -> CheckAnswer:
    workers, now = list_alive(context)
    since: dict[tuple[str | None, str | None], datetime] = {}
    for worker in workers:
        if worker.is_alive and worker.kind == "pool":
            version = (worker.version, worker.deploy_version)
            since[version] = min(since.get(version, worker.started_at), worker.started_at)
    if len(since) < 2 or now - max(since.values()) < _MOST_OF_A_DEPLOY:
        return ok("The workers run one version." if len(since) < 2 else "A deploy is under way.")
    named = ", ".join(
        sorted(f"flask-opsjobs {ours}{f', {app}' if app else ''}" for ours, app in since)
    )
    return warning(
        f"The workers run {counted(len(since), 'version')} for over an hour.",
        f"They are {named}. Old code runs jobs of new code.",
        "flask opsjobs workers",
    )


def _late(context: CheckContext) -> CheckAnswer:
    late = [worker.name for worker in list_alive(context)[0] if worker.state == "late"]
    if not late:
        return ok("No worker is late.")
    return warning(
        f"{counted(len(late), 'worker')} {agree(len(late), 'is', 'are')} late: {', '.join(late[:5])}.",
        f"No heartbeat came for {context.host.settings.late_seconds:g} s.",
        "flask opsjobs workers",
    )


_NEEDS = ("schema.version",)

CHECKS = (
    DoctorCheck(
        "workers.listeners",
        (WARNING, state_of_class("queue_unserved")),
        "a worker runs, and one listens to each queue with due jobs",
        _listeners,
        _NEEDS,
    ),
    DoctorCheck(
        "workers.versions",
        (WARNING,),
        "the workers run one version, but for an hour",
        _versions,
        _NEEDS,
    ),
    DoctorCheck(
        "workers.unknown_tasks",
        (state_of_class("code_missing"),),
        "the workers know the tasks of all jobs",
        look_for("code_missing", "The workers know all tasks.", "flask opsjobs workers"),
        _NEEDS,
    ),
    DoctorCheck("workers.late", (WARNING,), "no worker is late", _late, _NEEDS),
)
