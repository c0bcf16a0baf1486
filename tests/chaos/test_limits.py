"""Limits with real processes: eight workers never start too many,
and a killed worker's place is given back once.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from flask_opsjobs import Limit
from flask_opsjobs.core.db import connect_apart
from tests.support.host import db as host_db
from tests.support.host import give, hold_one, tick, tock
from tests.support.waiting import wait_until

from .conftest import Site

pytestmark = pytest.mark.chaos


def enqueue(site: Site, task: Any, count: int = 1, **args: Any) -> None:
    with site.app.app_context():
        task.enqueue_many([args] * count)
        host_db.session.commit()


# Keeps the moment of the token of each claim: the attempt says later when the function began.
TOKENS = """
CREATE TABLE public.tokens (job_id bigint, dispatch_no bigint, at timestamptz);
CREATE FUNCTION public.keep_token() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO public.tokens VALUES (NEW.job_id, NEW.dispatch_no, NEW.started_at); RETURN NEW;
END $$;
CREATE TRIGGER keep_token AFTER INSERT ON opsjobs.attempts FOR EACH ROW EXECUTE FUNCTION public.keep_token();
"""
BEFORE_ITS_TOKEN = """SELECT job_id, t.at - a.started_at FROM opsjobs.attempts a
    JOIN public.tokens t USING (job_id, dispatch_no) WHERE a.started_at < t.at"""


def tokens(site: Site) -> list[float]:
    rows = site.rows("SELECT extract(epoch FROM at)::float8 FROM public.tokens ORDER BY at")
    return [row[0] for row in rows]


# When the bucket was last refilled, and how many tokens it had given and held then: a claim writes both.
COME = """SELECT extract(epoch FROM refilled_at)::float8, tokens + (SELECT count(*) FROM public.tokens)
    FROM opsjobs.buckets"""
STRETCH_SECONDS = 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "share"),
    [
        pytest.param(tick, 0.8, id="tight"),
        pytest.param(tock, 0.95, id="loose", marks=pytest.mark.variants),
    ],
)
def test_eight_workers_keep_to_a_rate_and_reach_it(new_site: Site, task: Any, share: float) -> None:
    """A burst of a second makes up for a busy machine; with a burst of 1, what starts late is lost.

    A token that comes to a full bucket is lost. When the machine was too busy in one stretch, another counts.
    """
    limit = task.declared.limit
    assert isinstance(limit, Limit)
    rate, burst = limit.shape.rate, limit.shape.burst
    with closing(connect_apart(new_site.app.extensions["opsjobs"].engine)) as connection:
        connection.execute(TOKENS)
    enqueue(new_site, task, 1400)
    for _ in range(8):
        new_site.worker("limited")
    new_site.moving_loops()
    seen: list[tuple[float, float]] = []

    def reaches() -> bool:
        seen.extend(new_site.rows(COME))
        *before, (now, come) = seen
        return any(
            now - at >= STRETCH_SECONDS and come - had >= (now - at) * rate * share
            for at, had in before
        )

    wait_until(lambda: new_site.rows(COME), 30, what="the first token to be taken")
    wait_until(reaches, 60, every=0.1, what=f"a stretch at {share} of the rate")
    found = tokens(new_site)
    for first in range(len(found)):
        for last in range(first, len(found)):
            assert last - first + 1 <= burst + (found[last] - found[first]) * rate + 0.01
    assert new_site.rows(BEFORE_ITS_TOKEN) == [], "no function begins before its token comes"


def test_plain_workers_take_turns_and_give_their_places_back(
    new_site: Site, tmp_path: Path
) -> None:
    """Two of RQ's own, whose work horses claim for themselves, and a limiter of one at a time."""
    gate = str(tmp_path / "gate")
    enqueue(new_site, hold_one, 2, gate=gate)
    new_site.plain_worker("limited")
    new_site.plain_worker("limited")
    new_site.moving_loops()
    wait_until(Path(gate + ".begun").exists, 40, what="the first has begun")
    wait_until(lambda: new_site.rows("SELECT count(*) FROM opsjobs.attempts") == [(1,)])
    assert new_site.rows("SELECT job_id, weight FROM opsjobs.leases") == new_site.rows(
        "SELECT id, 1 FROM opsjobs.jobs WHERE state = 'started'"
    )
    Path(gate).touch()
    new_site.wait_until_all("finished", 2)
    spans = new_site.rows("SELECT started_at, ended_at FROM opsjobs.attempts ORDER BY started_at")
    assert spans[0][1] <= spans[1][0], "one at a time"
    assert (
        new_site.rows("SELECT kind, count(*) FROM opsjobs.workers GROUP BY kind")[0][0] == "plain"
    )
    assert new_site.rows("SELECT count(*) FROM opsjobs.leases") == [(0,)]


def test_a_killed_worker_s_place_is_given_back_by_its_rescue(
    new_site: Site, tmp_path: Path
) -> None:
    gate = str(tmp_path / "gate")
    first = new_site.worker("limited")
    new_site.moving_loops()
    enqueue(new_site, hold_one, 1, gate=gate)
    wait_until(Path(gate + ".begun").exists, 20)
    enqueue(new_site, hold_one, 1, gate=gate)
    assert new_site.rows("SELECT count(*) FROM opsjobs.leases") == [(1,)]
    first.kill_all()
    Path(gate + ".begun").unlink()
    new_site.worker("limited")
    wait_until(Path(gate + ".begun").exists, 40, what="a job has begun in the place given back")
    assert new_site.rows("SELECT count(*) FROM opsjobs.leases") == [(1,)], "one at a time"
    Path(gate).touch()
    new_site.wait_until_all("finished", 2)
    wait_until(lambda: new_site.rows("SELECT count(*) FROM opsjobs.leases") == [(0,)])
    lost = new_site.rows("SELECT count(*) FROM opsjobs.attempts WHERE outcome = 'lost'")
    assert lost == [(1,)]


# While the file exists that is named, no job is sent that must be alone.
WAITS_TO_BE_ALONE = """
import os, sys
from flask_opsjobs.cli.worker import run
from flask_opsjobs.engine.worker.parent import Parent, WorkerOptions
from tests.support.host import create_app

is_quiet = Parent._is_quiet
Parent._is_quiet = lambda self: not os.path.exists(sys.argv[1]) and is_quiet(self)
app = create_app()
options = WorkerOptions(processes=2, with_scheduler=False)
with app.app_context():
    sys.exit(run(app, ["default", "limited"], options))
"""


def test_a_limiter_gets_room_while_a_job_waits_that_must_be_alone(
    new_site: Site, tmp_path: Path
) -> None:
    """A worker died with that job before, so it waits until no other one could die with it."""
    gate, flag = tmp_path / "gate", tmp_path / "flag"
    flag.touch()
    new_site.moving_loops()
    worker = new_site.python(WAITS_TO_BE_ALONE, str(flag))
    worker.wait_for("listens to", 30)
    enqueue(new_site, hold_one, 1, gate=str(gate))
    wait_until(Path(f"{gate}.begun").exists, 20)
    enqueue(new_site, hold_one, 1, gate=str(gate))
    with new_site.app.app_context():
        lonely = give.options(delay=3600).enqueue(value=1).id
        host_db.session.commit()
    new_site.rows(
        "UPDATE opsjobs.jobs SET lost_reservations = 1, state = 'available', due_at = clock_timestamp()"
        " WHERE id = %s RETURNING 1",
        lonely,
    )
    taken = "SELECT 1 FROM opsjobs.jobs WHERE id = %s AND reserved_by IS NOT NULL"
    wait_until(lambda: new_site.rows(taken, lonely), 30, what="the worker has taken it")
    gate.touch()
    wait_until(lambda: new_site.states().get("finished") == 1, 30)
    flag.unlink()
    new_site.wait_until_all("finished", 3)
    assert worker.terminate() == 0
