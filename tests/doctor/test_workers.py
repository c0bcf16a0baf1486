"""The checks of the workers, with workers that have registered."""

from __future__ import annotations

from tests.conftest import MakeBench
from tests.doctor.conftest import Ask
from tests.support.engine import Bench


def _start_earlier(bench: Bench, minutes: int) -> None:
    bench.connection.execute(
        "UPDATE opsjobs.workers SET started_at = started_at - interval '1 min' * %s WHERE id = %s",
        [minutes, bench.worker_id],
    )


def test_two_versions_for_over_an_hour(bench: Bench, make_bench: MakeBench, ask: Ask) -> None:
    other = make_bench()
    assert ask("workers.versions").state == "ok"
    bench.connection.execute(
        "UPDATE opsjobs.workers SET deploy_version = '2026.12' WHERE id = %s", [other.worker_id]
    )
    _start_earlier(bench, 300)
    assert ask("workers.versions").sentence == "A deploy is under way."
    _start_earlier(other, 61)
    found = ask("workers.versions")
    assert (found.state, "2026.12" in found.evidence) == ("warning", True)
    bench.connection.execute(
        "UPDATE opsjobs.workers SET state = 'stopped', ended_at = now() WHERE id = %s",
        [bench.worker_id],
    )
    assert ask("workers.versions").state == "ok"


def test_a_late_worker(bench: Bench, ask: Ask) -> None:
    assert ask("workers.late").state == "ok"
    late = "UPDATE opsjobs.workers SET heartbeat_at = now() - interval '1 s' * %s"
    bench.connection.execute(late, [bench.host.settings.late_seconds - 15])
    assert ask("workers.late").state == "ok"
    bench.connection.execute(late, [bench.host.settings.late_seconds + 15])
    found = ask("workers.late")
    assert (found.state, found.sentence) == ("warning", f"1 worker is late: {bench.name}.")
