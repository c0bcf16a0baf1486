"""Lists the groups of the doctor in the order in which they are shown, each with its checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from . import (
    bridge,
    compositions,
    config,
    jobs,
    lifeline,
    loops,
    postgres,
    redis,
    rq,
    schema,
    telemetry,
    workers,
)
from .check import WARNING, CheckAnswer, CheckContext, DoctorCheck, ok, warning


def _silence(context: CheckContext) -> CheckAnswer:
    unknown = [each for each in context.host.settings.doctor_silence if each not in CHECKS]
    if unknown:
        names = ", ".join(unknown)
        fault = f"OPSJOBS_DOCTOR_SILENCE names {names}, which is no check."
        return warning(fault, run="flask opsjobs doctor --list")
    return ok("OPSJOBS_DOCTOR_SILENCE names only checks.")


# It is here because it knows the ids of all.
_SILENCE = DoctorCheck(
    "config.silence", (WARNING,), "OPSJOBS_DOCTOR_SILENCE names only checks", _silence
)

# By the group's title.
GROUPS: Mapping[str, Sequence[DoctorCheck]] = {
    "config": (*config.CHECKS, _SILENCE),
    "schema": schema.CHECKS,
    "postgres": postgres.CHECKS,
    "redis": redis.CHECKS,
    "rq": rq.CHECKS,
    "loops": loops.CHECKS,
    "workers": workers.CHECKS,
    "jobs": jobs.CHECKS,
    "workflows, batches": compositions.CHECKS,
    "lifeline, audit": lifeline.CHECKS,
    "bridge": bridge.CHECKS,
    "telemetry": telemetry.CHECKS,
}
CHECKS: Mapping[str, DoctorCheck] = {
    check.id: check for checks in GROUPS.values() for check in checks
}
GROUP_OF: Mapping[str, str] = {
    check.id: title for title, checks in GROUPS.items() for check in checks
}
# They ask only Postgres, and run no code of the host but its migrations: one snapshot answers all of them.
TOGETHER = {
    check.id
    for check in CHECKS.values()
    if {"postgres.reachable", "schema.version"} & {check.id, *check.needs}
} - {"postgres.clock"}
