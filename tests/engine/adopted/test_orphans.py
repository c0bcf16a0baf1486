"""Orphans are found among all started jobs of RQ, however many there are."""

from __future__ import annotations

from datetime import timedelta

import pytest
from rq import Queue

from flask_opsjobs.engine.adopted import orphans
from tests.engine.adopted.conftest import Adopter, start_plain


def test_every_started_job_is_looked_at(
    adopter: Adopter, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "_AT_ONCE", 2)
    names = [f"job-{number}" for number in range(5)]
    for name in names:
        start_plain(queue, name)
    adopter.step()
    later = adopter.now + timedelta(minutes=20)
    found = orphans.find_orphan_jobs(adopter.bench.connection, adopter.place, later)
    assert sorted(orphan.job.rq_id for orphan in found) == names
    assert {orphan.worker for orphan in found} == {"gone"}
