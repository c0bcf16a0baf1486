"""The checks of RQ, with another version beside it and a real worker of RQ."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis
from rq import Queue, SimpleWorker

from flask_opsjobs.loops import observe
from flask_opsjobs.loops.loop import Runner
from tests.doctor.conftest import Ask
from tests.support.engine import Bench


@pytest.mark.parametrize(
    ("installed", "state"), [("3.0.9", "ok"), ("3.7.1", "warning"), ("2.6.0", "error")]
)
def test_the_version_of_rq(
    installed: str, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    folder = tmp_path / f"rq-{installed}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: rq\nVersion: {installed}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert ask("rq.version").state == state


def test_a_plain_worker_on_a_queue_of_the_app(bench: Bench, redis_client: Redis, ask: Ask) -> None:
    def register(queue: str) -> None:
        queues = [Queue(queue, connection=redis_client)]
        SimpleWorker(queues, connection=redis_client, name=f"plain-{queue}").register_birth()
        Runner(observe.LOOP, bench.host, "one").run_once(bench.connection)

    register("elsewhere")
    assert ask("rq.plain_workers").state == "ok"
    register("default")
    found = ask("rq.plain_workers")
    assert (found.state, "plain-default" in found.sentence) == ("warning", True)
