"""Checks RQ: its version, its own workers on queues of the app, and the serializer of its jobs."""

from __future__ import annotations

from importlib.metadata import version

from ..core.words import agree, counted
from ..engine.redis.broker import broker_of
from ..engine.redis.servers import find_foreign_job
from .check import ERROR, WARNING, CheckAnswer, CheckContext, DoctorCheck, error, ok, warning
from .workers import list_alive

_SUPPORTED_MAJOR = 3
# The minor versions that our tests ran with.
_TESTED = ("3.0",)


def _version(_context: CheckContext) -> CheckAnswer:
    installed = version("rq")
    major, minor, *_ = [*installed.split("."), "0"]
    if major != str(_SUPPORTED_MAJOR):
        return error(
            f"RQ {installed} is not supported.",
            f"flask_opsjobs needs RQ {_SUPPORTED_MAJOR}.",
            f'pip install "rq>={_SUPPORTED_MAJOR},<{_SUPPORTED_MAJOR + 1}"',
        )
    if f"{major}.{minor}" not in _TESTED:
        return warning(
            f"RQ {installed} was not tested with this version of flask_opsjobs.",
            f"Tested is RQ {', '.join(_TESTED)}.",
        )
    return ok(f"RQ {installed} is supported.")


def _plain_workers(context: CheckContext) -> CheckAnswer:
    plain = [
        worker
        for worker in list_alive(context)[0]
        if worker.kind == "plain" and worker.is_alive and context.queues & set(worker.queues)
    ]
    if not plain:
        return ok("No plain rq worker serves a queue of the app.")
    names = ", ".join(worker.name for worker in plain[:5])
    return warning(
        f"{counted(len(plain), 'plain rq worker')} {agree(len(plain), 'serves', 'serve')} queues of the "
        f"app: {names}.",
        "It gets managed jobs only through Redis, and tells nothing of what it runs.",
        "flask opsjobs worker",
    )


def _serializer(context: CheckContext) -> CheckAnswer:
    found = find_foreign_job(broker_of(context.host).connections, context.queues)
    if found is None:
        return ok("Plain RQ jobs are written by the serializer of their queue.")
    queue, rq_id = found
    return warning(
        f"Another serializer than that of the queue {queue} has written plain RQ jobs there.",
        f"One is {rq_id}. A worker of the app cannot read it: give all who enqueue the same serializer.",
    )


CHECKS = (
    DoctorCheck(
        "rq.version",
        (WARNING, ERROR),
        "RQ is of version 3, and of a tested minor version",
        _version,
    ),
    DoctorCheck(
        "rq.plain_workers",
        (WARNING,),
        "no plain rq worker serves a queue of the app",
        _plain_workers,
        ("schema.version",),
    ),
    DoctorCheck(
        "rq.serializer",
        (WARNING,),
        "plain RQ jobs are written by the serializer of their queue",
        _serializer,
        ("redis.cluster",),
    ),
)
