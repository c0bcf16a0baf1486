"""The checks of RQ, with another version beside it and a real worker of RQ."""

from __future__ import annotations

from pathlib import Path

import pytest
from redis import Redis
from rq import Queue, SimpleWorker
from rq.serializers import JSONSerializer

from flask_opsjobs.loops import observe
from flask_opsjobs.loops.loop import Runner
from tests.doctor.conftest import Ask, shows
from tests.support.engine import Bench


@shows("rq.version")
def test_the_version_of_rq(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Ask) -> None:
    for installed, state in (("3.0.9", "ok"), ("3.7.1", "warning"), ("2.6.0", "error")):
        folder = tmp_path / installed / f"rq-{installed}.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: rq\nVersion: {installed}\n")
        monkeypatch.syspath_prepend(str(folder.parent))
        assert ask("rq.version").state == state


@shows("rq.plain_workers")
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


@shows("rq.serializer")
def test_a_job_that_another_serializer_has_written(redis_client: Redis, ask: Ask) -> None:
    Queue("default", connection=redis_client).enqueue("shop.archive", "x", job_id="pickled")
    Queue("elsewhere", connection=redis_client, serializer=JSONSerializer).enqueue("shop.archive")
    assert ask("rq.serializer").state == "ok", "no task of the app is in the other queue"
    json = Queue("default", connection=redis_client, serializer=JSONSerializer)
    json.enqueue("shop.archive", "x", job_id="as-json")
    found = ask("rq.serializer")
    assert (found.state, "One is as-json." in found.evidence) == ("warning", True)
