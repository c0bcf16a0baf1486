"""When no other child may get a job: the one that has it may kill its worker."""

from __future__ import annotations

from flask_opsjobs.engine.worker.frames import PlainRun
from flask_opsjobs.engine.worker.places import Place, Sent
from flask_opsjobs.engine.worker.reserved import ReservedJob
from tests.engine.test_out_of_memory import ORDER

PLAIN = PlainRun("nightly", "default")


def test_a_job_is_alone_from_its_claim_until_it_has_run_for_a_moment() -> None:
    place = Place(0, promised=ORDER.key, is_promised_alone=True)
    assert place.is_alone
    place.promised = None
    place.add(Sent(0.0, ReservedJob(ORDER, 0, 0, 0.0, must_be_alone=True)))
    assert place.is_alone, "sent long ago, and not begun"


def test_a_claim_that_was_refused_keeps_nobody_alone() -> None:
    place = Place(0, promised=ORDER.key, is_promised_alone=True)
    place.promised = None
    assert not place.is_alone
    place.add(Sent(0.0, rq_work=PLAIN, number=1))
    assert not place.is_alone
