"""Says in words how a failure is. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ..core.words import agree, counted, moment
from .queries import FailureRow


def say_failure(failure: FailureRow, versions: Mapping[int, str]) -> tuple[str, str]:
    """How the failure is, in a sentence, and what follows from it. `versions` are those of its deploys."""
    if failure.state == "resolved":
        rest = "It is open again when it fails on a worker that has the fix."
        return f"It is resolved {_where(failure, versions)}.", rest
    if failure.state == "ignored":
        return f"It is ignored {_until(failure)}.", "Nobody is told of it."
    number = counted(failure.number, "attempt")
    jobs = counted(failure.jobs, "job")
    is_one = agree(failure.jobs, "has", "have")
    rest = f"{number} failed with it, and {jobs} {is_one} no attempt left." if failure.jobs else ""
    rest = rest or f"{number} failed with it. No job has ended failed."
    if failure.is_regressed:
        version = versions.get(failure.regressed_in or 0)
        where = f" in deploy {version}" if version else ""
        return f"It was resolved, and failed again{where}.", rest
    version = versions.get(failure.first_deploy or 0)
    since = f"{failure.task} has failed with this error since deploy {version}." if version else ""
    return since or f"{failure.task} fails with this error.", rest


def _where(failure: FailureRow, versions: Mapping[int, str]) -> str:
    """In which deploy somebody said that it is fixed."""
    if failure.resolved_in:
        return f"in deploy {versions.get(failure.resolved_in, failure.resolved_in)}"
    if failure.resolved_after is not None:
        return "in the next deploy"
    return "in the workers that started since"


def _until(failure: FailureRow) -> str:
    """How long it is ignored, when that is not a time."""
    if failure.ignored_until_number is not None:
        left = max(0, failure.ignored_until_number - failure.number)
        return f"until {counted(left, 'more attempt')} failed"
    if failure.ignored_rate is not None:
        return f"until more than {counted(failure.ignored_rate, 'attempt')} fail in an hour"
    assert failure.ignored_until is not None
    return f"until {moment(failure.ignored_until)}"
