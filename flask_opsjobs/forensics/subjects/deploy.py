"""Tells of a deploy: the workers that run it, and the failures that began or came back in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from ...core.history import Event
from ...core.round_trips import start_reading
from ...core.words import agree, counted
from ...failures import queries
from ...failures.deploys import Marker
from ...failures.models import Deploy
from ...failures.queries import FailureInDeploy, FailureRow, page_of_failures
from ...lifeline.retention import WORKER_DAYS
from ...workers.queries import WorkerSpan, list_workers_of_deploy
from ..backlog import watch_backlog
from ..bundle import (
    Column,
    EvidenceTable,
    Expected,
    Inquiry,
    Kind,
    LeftOut,
    Related,
    TableRow,
    Told,
    WatchedSpan,
)
from .by_id import read_id, was_numbered

# Its failures and its workers are looked for among so many that happened or started since.
_EXAMINED = 500
_MOST_SHOWN = 50


@dataclass(frozen=True)
class _Found:
    """What is stored of a deploy. `after` is the next one."""

    deploy: Marker
    after: Marker | None
    workers: Sequence[WorkerSpan]
    has_more_workers: bool
    failures: Sequence[FailureInDeploy]
    has_more_failures: bool
    resolved: Sequence[FailureRow]

    def is_new(self, one: FailureInDeploy) -> bool:
        """Whether the failure was never seen before this deploy."""
        return one.failure.first_deploy == self.deploy.id

    def is_back(self, one: FailureInDeploy) -> bool:
        """Whether the failure was resolved, and failed again in this deploy."""
        return one.failure.regressed_in == self.deploy.id


def _tell(inquiry: Inquiry) -> Told | None:
    deploy = queries.find_deploy(inquiry.session, int(inquiry.key))
    if deploy is None:
        return None
    watching = start_reading(inquiry, _watch_counting, deploy)
    found = _read(inquiry, deploy)
    # Workers of an earlier deploy may go on after the next one, but new ones do not start.
    until = inquiry.now if found.after is None else max(deploy.at, found.after.at)
    ended = [worker.ended_at for worker in found.workers if worker.ended_at is not None]
    is_over = found.after is not None and len(ended) == len(found.workers)
    last = max([until, *ended]) if is_over else inquiry.now
    return Told(
        title=f"Deploy {deploy.version}",
        state=None if found.after else "newest",
        diagnosis=_diagnose(found),
        since=deploy.at,
        until=last,
        events=[*_of_workers(found), *_of_failures(found)],
        pieces=[*_list_expected(inquiry, deploy)],
        watches=[*_list_watches(found, last), *([watching.value] if last == inquiry.now else [])],
        evidence=[*_make_tables(found)],
        related=[*_relate(found)],
        left_out=[*_leave_out(found)],
    )


def _read(inquiry: Inquiry, deploy: Marker) -> _Found:
    session = inquiry.session
    listing = start_reading(session, list_workers_of_deploy, deploy.id, deploy.at, _EXAMINED)
    finding_failures = start_reading(session, queries.list_failures_in, deploy, _EXAMINED)
    resolving = start_reading(session, page_of_failures, "resolved")
    after = queries.find_deploy_after(session, deploy.id)
    workers, has_more_workers = listing.value
    failures, has_more_failures = finding_failures.value
    return _Found(
        deploy,
        after,
        workers,
        has_more_workers,
        failures,
        has_more_failures,
        [failure for failure in resolving.value.rows if failure.resolved_in == deploy.id],
    )


def _diagnose(found: _Found) -> str:
    alive = sum(worker.ended_at is None for worker in found.workers)
    lost = sum(worker.state == "missing" for worker in found.workers)
    new = sum(map(found.is_new, found.failures))
    back = sum(map(found.is_back, found.failures))
    says = [f"{counted(alive, 'worker')} {agree(alive, 'runs', 'run')} it"]
    if lost:
        says.append(f"{lost:,} of its workers vanished")
    if new or back:
        says.append(f"{counted(new, 'failure')} {agree(new, 'is', 'are')} new in it")
        says += [f"{back:,} came back"] if back else []
    else:
        says.append("no failure began in it")
    first, *rest = says
    return f"{first}; {', '.join(rest)}."


# --- what happened


def _of_workers(found: _Found) -> Iterator[Event]:
    for worker in found.workers:
        subject = f"worker/{worker.name}"
        text = f"{worker.name} started with it"
        yield Event(worker.started_at, "alive", text, "worker", subject=subject)
        if worker.ended_at is not None:
            is_lost = worker.state == "missing"
            how = "was given up, because its heartbeats ended" if is_lost else "stopped"
            source = "loop watch" if is_lost else "worker"
            yield Event(
                worker.ended_at, worker.state, f"{worker.name} {how}", source, subject=subject
            )


def _of_failures(found: _Found) -> Iterator[Event]:
    for one in found.failures:
        failure = one.failure
        subject, name = f"failure/{failure.id}", f"Failure {failure.id}: {failure.title}"
        how = "failed for the first time ever" if found.is_new(one) else "failed in it first here"
        yield Event(one.first_at, "failed", f"{name}, {how}", "loop roll_up", subject=subject)
        if found.is_back(one) and failure.regressed_at is not None:
            text = f"{name}, came back although it was resolved"
            yield Event(failure.regressed_at, "failed", text, "loop roll_up", subject=subject)
        if one.last_at != one.first_at:
            text = f"{name}, failed in it last"
            yield Event(one.last_at, "failed", text, "loop roll_up", subject=subject)


# --- what should be there


def _list_expected(inquiry: Inquiry, deploy: Marker) -> Iterator[Expected]:
    kept_since = inquiry.kept_since(WORKER_DAYS)
    if deploy.at < kept_since:
        yield Expected(
            f"its workers that ended earlier: they are kept for {WORKER_DAYS} days",
            is_found=False,
            is_removed=True,
            since=deploy.at,
            until=kept_since,
        )


def _list_watches(found: _Found, until: datetime) -> Iterator[WatchedSpan]:
    if found.workers:
        lacks = "When one of its workers vanished is not known."
        yield WatchedSpan("watch", lacks, found.deploy.at, until)


def _watch_counting(inquiry: Inquiry, deploy: Marker) -> WatchedSpan:
    lacks = "Attempts that failed since are not counted, so a new failure would not be seen."
    return watch_backlog(inquiry, "roll_up", lacks, deploy.at)


# --- evidence, and what is related


def _make_tables(found: _Found) -> Iterator[EvidenceTable]:
    yield EvidenceTable(
        "Failures in it",
        [
            Column("failure", "number"),
            Column("error"),
            Column("task"),
            Column("how"),
            Column("attempts in it", "number"),
            Column("state"),
        ],
        [
            TableRow(
                [
                    one.failure.id,
                    one.failure.title,
                    one.failure.task,
                    "new" if found.is_new(one) else "came back" if found.is_back(one) else "known",
                    one.number,
                    one.failure.state,
                ],
                f"failure/{one.failure.id}",
            )
            for one in found.failures[:_MOST_SHOWN]
        ],
        _rest(found.failures, "failures"),
    )
    yield EvidenceTable(
        "Workers that started with it",
        [
            Column("worker"),
            Column("host"),
            Column("state"),
            Column("started", "moment"),
            Column("ended", "moment"),
        ],
        [
            TableRow(
                [worker.name, worker.host, worker.state, worker.started_at, worker.ended_at],
                f"worker/{worker.name}",
            )
            for worker in found.workers[:_MOST_SHOWN]
        ],
        _rest(found.workers, "workers"),
    )


def _rest(rows: Sequence[object], what: str) -> LeftOut | None:
    left = len(rows) - _MOST_SHOWN
    return LeftOut(what, number=left) if left > 0 else None


def _relate(found: _Found) -> Iterator[Related]:
    deploy = found.deploy
    if found.after is not None:
        yield Related("Next deploy", found.after.version, f"deploy/{found.after.id}")
    for one in found.failures[:_MOST_SHOWN]:
        how = "New failure" if found.is_new(one) else "Failure"
        how = "Failure that came back" if found.is_back(one) else how
        yield Related(how, str(one.failure.id), f"failure/{one.failure.id}", one.failure.title)
    for failure in found.resolved:
        name = str(failure.id)
        yield Related("Failure resolved in it", name, f"failure/{failure.id}", failure.title)
    if deploy.actor is not None:
        yield Related("Marked by", deploy.actor, f"actor/{deploy.actor}", deploy.note or "")


def _leave_out(found: _Found) -> Iterator[LeftOut]:
    if found.has_more_workers:
        yield LeftOut(f"workers beyond the first {_EXAMINED:,} that started since it")
    if found.has_more_failures:
        yield LeftOut(f"failures beyond the {_EXAMINED:,} that happened last")


def _was_there(inquiry: Inquiry) -> bool:
    return was_numbered(inquiry, Deploy.id)


KIND = Kind("deploy", "lifeline.view", read_id, _tell, _was_there)
