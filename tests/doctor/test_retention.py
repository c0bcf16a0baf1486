"""Jobs that are kept longer than the settings say are found."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.core.reading import read_clock
from tests.doctor.conftest import Ask, shows
from tests.support.engine import Bench

WHY: dict[str, Any] = {"actor": "ada", "reason": "because it is a test", "authorize": False}


@shows("lifeline.retention")
def test_jobs_that_are_kept_too_long(
    bench: Bench, record_job: Callable[..., int], ask: Ask
) -> None:
    def cancel(ago: timedelta) -> None:
        now = read_clock(bench.connection)
        Operator(bench.host).run("job.cancel", [f"job/{record_job()}"], now=now - ago, **WHY)

    cancel(timedelta(days=14, hours=12))
    assert ask("lifeline.retention").state == "ok"
    cancel(timedelta(days=17, hours=1))
    found = ask("lifeline.retention")
    assert (found.state, found.sentence) == (
        "warning",
        "Canceled jobs are kept 3 d longer than the settings say.",
    )
