"""Jobs of all kinds run while everything is killed, stopped, emptied and set back; then nothing is amiss.

`--chaos-jobs 20000` makes the long run; with more jobs each turn has more of them, which do nothing.
`--seed` makes the same faults again.
"""

from __future__ import annotations

import faulthandler
import math
import random
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from rq import Queue, SimpleWorker
from rq.intermediate_queue import IntermediateQueue
from rq.job import Dependency
from rq.job import Job as RQJob
from rq.registry import ReadyJobRegistry, StartedJobRegistry

from flask_opsjobs.actions.operator import Operator
from flask_opsjobs.loops import adopt, check_integrity, detect, observe, recall, roll_up, watch
from flask_opsjobs.telemetry.prometheus import PrometheusCollector, exposition
from tests.support import host as host_module
from tests.support.database import MigratedPostgres
from tests.support.host import note_start, note_start_of_three
from tests.support.task_numbers import folded, slow_count
from tests.support.waiting import wait_until
from tests.telemetry.reading import parse, values

from .conftest import HASTE, Passes, Site
from .storm import EVERYBODY, WHY, Standstill, Storm

pytestmark = [pytest.mark.chaos, pytest.mark.slow(30)]

# The queue of plain jobs.
PLAIN = "mail"
# What is enqueued between two faults: jobs of ours, of a limiter, that fail at first; runs of three steps;
# plain jobs, and pairs of one that depends on the other.
MANAGED, LIMITED, RETRIED, RUNS, PLAIN_JOBS, PAIRS = 18, 6, 4, 2, 4, 2
A_TURN = MANAGED + LIMITED + RETRIED + 3 * RUNS + PLAIN_JOBS + 2 * PAIRS
# Two faults strike in each.
MOST_TURNS = 250
CRONS = 5
# The start of a job that runs for less is never written. Beyond that the worker must look, and Postgres must
# have written it: the machine may be busy.
SHORT_SECONDS, BUSY_SECONDS = 0.05, 1.0
# A worker that stood still for longer may have been missing. A busy one sends its heartbeats late.
MISSING_SECONDS = HASTE["OPSJOBS_MISSING_SECONDS"] - BUSY_SECONDS
# In these passes everything that was wrong is over: `worker_missing` is found for five minutes. The loop
# `watch` looks as often in the haste of these tests, the others need it half as often.
CALM_PASSES, PASS_SECONDS = 75, 5
# Adopted jobs that have not ended, and where RQ has them.
UNSETTLED = """SELECT id, rq_id, state, rq_status, depends_on, changed_at, structure
    FROM opsjobs.jobs JOIN opsjobs.rq_facts ON job_id = id WHERE origin = 'rq' AND ended_at IS NULL"""
# Incidents that are not over, although the last look did not find them.
UNTRUE = """SELECT class, subject, state, facts FROM opsjobs.incidents
    WHERE state <> 'resolved' AND missed_passes > 0"""


@pytest.fixture
def own_postgres() -> Iterator[MigratedPostgres]:
    """It tracks the time of commits."""
    with MigratedPostgres(track_commit_timestamp="on") as server:
        yield server


@pytest.fixture
def count(request: pytest.FixtureRequest) -> int:
    """How many jobs the run has."""
    number = int(request.config.getoption("chaos_jobs"))
    if number > 5_000:
        faulthandler.cancel_dump_traceback_later()  # it ends a test after five minutes
    return number


class Start(NamedTuple):
    """That a function began, as it has written itself."""

    job: int
    attempt: int
    pid: int
    worker: int
    at: float


@dataclass
class Mix:
    """Jobs of all kinds, and the file in which each says that it begins."""

    site: Site
    dice: random.Random
    path: Path
    empty_in_turn: int = 0
    managed: int = 0
    plain: int = 0
    crons: list[str] = field(default_factory=list)

    def enqueue(self) -> None:
        """Enqueue the jobs of one turn."""
        with self.site.app.app_context():
            calls = [{"path": str(self.path), "seconds": self._seconds()} for _ in range(MANAGED)]
            empty = [{"path": str(self.path)}] * self.empty_in_turn
            note_start.enqueue_many(calls + empty)
            note_start_of_three.enqueue_many(calls[:LIMITED])
            note_start.enqueue_many([{**call, "fails": 2} for call in calls[:RETRIED]])
            for _ in range(RUNS):
                self._start_run()
            host_module.db.session.commit()
            host_module.db.engine.dispose()
            # Skipped while the last one runs.
            self._operate("cron.run_now", [self.dice.choice(self.crons)])
        self.managed += MANAGED + self.empty_in_turn + LIMITED + RETRIED + 3 * RUNS
        self._enqueue_plain()

    def pause_crons(self) -> None:
        """Let no entry enqueue any more: a minute may begin when all jobs have ended."""
        with self.site.app.app_context():
            assert self._operate("cron.pause", self.crons)

    def _operate(self, action: str, crons: list[str]) -> bool:
        targets = [f"cron/{Path(cron).name}" for cron in crons]
        return Operator(self.site.app.extensions["opsjobs"]).run(action, targets, **WHY).is_done

    def _seconds(self) -> float:
        """Most jobs run for a moment, some for so long that their start is written."""
        return self.dice.choice((0, 0, 0, 0, 0, 0.01, 0.03, 0.1, 0.3))

    def _start_run(self) -> None:
        flow = host_module.opsjobs.workflow("three")
        first = flow.step("first", note_start, path=str(self.path))
        second = flow.step("second", note_start, after=[first], path=str(self.path), fails=1)
        flow.step("third", note_start, after=[first, second], path=str(self.path))
        flow.start()

    def _enqueue_plain(self) -> None:
        call = "tests.support.host.note_plainly"
        path = str(self.path.with_name("plain"))
        with self.site.valkey.client() as redis:
            queue = Queue(PLAIN, connection=redis)
            for number in range(PLAIN_JOBS):
                queue.enqueue(call, path, str(number))
            for number in range(PAIRS):
                parent = queue.enqueue(call, path, f"parent {number}")
                waits = Dependency([parent], allow_failure=number % 2 == 0)
                queue.enqueue(call, path, f"child {number}", depends_on=waits)
        self.plain += PLAIN_JOBS + 2 * PAIRS

    def starts(self) -> list[Start]:
        """What began, in order."""
        found = []
        for path in (self.path, *map(Path, self.crons)):
            for line in path.read_text().splitlines() if path.exists() else ():
                job, attempt, pid, worker, at = line.split()
                found.append(Start(int(job), int(attempt), int(pid), int(worker), float(at)))
        return sorted(found, key=lambda start: start.at)


def test_nothing_is_amiss_after_everything_has_gone_wrong(
    site: Site, tmp_path: Path, count: int, pytestconfig: pytest.Config
) -> None:
    seed = pytestconfig.getoption("seed") or random.SystemRandom().randrange(1_000_000)
    print(f"--chaos-jobs {count} --seed {seed}")
    dice, turns = random.Random(seed), min(math.ceil(count / A_TURN), MOST_TURNS)
    crons = [str(tmp_path / f"each-minute-{number}") for number in range(CRONS)]
    empty_in_turn = max(0, count - turns * A_TURN) // turns
    mix = Mix(site, dice, tmp_path / "ran", empty_in_turn, crons=crons)
    storm, began = Storm(site, dice, plain=PLAIN, STARTS_EACH_MINUTE=crons), time.monotonic()
    weather(storm, mix, dice, turns)
    storm.end_faults()
    mix.pause_crons()
    wait_until(lambda: open_jobs(site) == 0, 180, what="all managed jobs have ended")
    wait_until_nobody_runs_plain_jobs(site)
    storm.stop()
    took = time.monotonic() - began
    settle_plain_jobs(site)
    calm_down(site)
    print(
        f"{mix.managed} managed jobs and {mix.plain} plain ones, {len(mix.starts())} starts in {took:.0f} s;"
        f" struck {storm.struck.total()} times: {dict(storm.struck.most_common())}"
    )
    assert_no_managed_job_was_lost(site, mix)
    assert_none_ran_after_its_end(site, mix.starts())
    assert_each_start_has_its_attempt(site, mix.starts(), storm)
    assert_adopted_jobs_have_ended(site)
    assert_incidents_are_over_or_still_true(site)
    assert_metrics_equal_the_database(site)
    assert_numbers_of_tasks_equal_a_slow_count(site)


def weather(storm: Storm, mix: Mix, dice: random.Random, turns: int) -> None:
    """Enqueue jobs, and let one fault after the other strike while they run; first each of them once."""
    site, first = mix.site, dice.sample(storm.faults, len(storm.faults))
    few = (A_TURN + mix.empty_in_turn) // 8
    entries = "SELECT 1 FROM opsjobs.cron_entries"
    wait_until(
        lambda: len(site.rows(entries)) >= CRONS, 60, what="the loops have declared the entries"
    )
    for _ in range(turns):
        storm.save_redis()
        mix.enqueue()
        for fault in (storm.kill_child, first.pop() if first else dice.choice(storm.faults)):
            before = ended_jobs(site)
            storm.strike(fault)
            wait_until(
                lambda before=before: (
                    storm.go_on() or ended_jobs(site) > before + few or open_jobs(site) == 0
                ),
                60,
                every=0.03,
                what="jobs end",
            )


# --- until it is calm


def open_jobs(site: Site) -> int:
    """How many managed jobs have not ended; -1 while Postgres does not answer."""
    return _count(site, "ended_at IS NULL")


def ended_jobs(site: Site) -> int:
    """How many managed jobs have ended; -1 while Postgres does not answer."""
    return _count(site, "ended_at IS NOT NULL")


def _count(site: Site, condition: str) -> int:
    rows = site.rows(f"SELECT count(*) FROM opsjobs.jobs WHERE origin = 'opsjobs' AND {condition}")
    return int(rows[0][0]) if rows else -1


def wait_until_nobody_runs_plain_jobs(site: Site) -> None:
    with site.valkey.client() as redis:
        queue = Queue(PLAIN, connection=redis)
        wait_until(lambda: queue.count == 0, 60, what="all plain jobs were begun")


def settle_plain_jobs(site: Site) -> None:
    """Let RQ do what it does when the executions of dead workers expire, and cancel what waits for ever."""
    with site.valkey.client() as redis, closing(Passes(site, adopt.LOOP)) as passes:
        queue = Queue(PLAIN, connection=redis)

        def is_settled() -> bool:
            let_executions_expire(queue)
            if queue.count:
                assert site.worker("--burst", PLAIN).wait(60) == 0
            passes.make()
            if stuck := ids_of(site, "state = 'deferred'"):
                Operator(site.app.extensions["opsjobs"]).cancel(stuck[:100], **WHY)
            # What a job wrote of itself after Redis was emptied is in no list: RQ never looks at it again.
            for _, rq_id, *_, structure in site.rows(UNSETTLED):
                if structure is None:
                    redis.delete(RQJob.key_for(rq_id))
            return not ids_of(site, "ended_at IS NULL")

        try:
            wait_until(is_settled, 60)
        except AssertionError:
            raise AssertionError(site.rows(UNSETTLED)) from None


def let_executions_expire(queue: Queue) -> None:
    """As RQ's maintenance does it: at first what was started, then what was popped and never started.

    Who ended a job may have died before it put those into their queue that waited for it.
    """
    StartedJobRegistry(queue=queue).cleanup(time.time() + 1e9)
    popped = IntermediateQueue(queue.key, queue.connection)
    for rq_id in popped.get_job_ids():
        queue.connection.set(popped.get_first_seen_key(rq_id), 0)
    popped.cleanup(SimpleWorker([queue], connection=queue.connection), queue)
    ReadyJobRegistry(queue=queue).cleanup()


def ids_of(site: Site, condition: str) -> list[int]:
    """The adopted jobs of which this is true."""
    rows = site.rows(f"SELECT id FROM opsjobs.jobs WHERE origin = 'rq' AND {condition}")
    return [id_ for (id_,) in rows]


def calm_down(site: Site) -> None:
    """Look for six minutes, which pass in the arguments of the loops; for longer while something that is no
    longer found is not cleared yet.
    """
    others = (recall, observe, adopt, roll_up, check_integrity, detect)
    with (
        closing(Passes(site, watch.LOOP)) as watching,
        closing(Passes(site, *(module.LOOP for module in others))) as passes,
    ):
        number = 0
        while number < CALM_PASSES or (number < 4 * CALM_PASSES and site.rows(UNTRUE)):
            later = timedelta(seconds=PASS_SECONDS * number)
            watching.make(later)
            if number % 2 == 0:
                passes.make(later)
            number += 1


# --- what must hold then


def assert_no_managed_job_was_lost(site: Site, mix: Mix) -> None:
    """Each has a row and has finished, each run too, and the integrity check finds no difference."""
    states = dict(
        site.rows("SELECT state, count(*) FROM opsjobs.jobs WHERE origin = 'opsjobs' GROUP BY 1")
    )
    ((by_cron,),) = site.rows("SELECT count(*) FROM opsjobs.jobs WHERE cron_entry IS NOT NULL")
    assert by_cron > 0
    print(f"{mix.managed + by_cron - sum(states.values())} lost")
    assert states == {"finished": mix.managed + by_cron}
    begun = {start.job for start in mix.starts()}
    assert begun == {
        id_ for (id_,) in site.rows("SELECT id FROM opsjobs.jobs WHERE origin = 'opsjobs'")
    }
    assert site.rows("SELECT id, state FROM opsjobs.workflows WHERE state <> 'finished'") == []
    checks = site.rows(
        "SELECT queue, enqueued - deleted - stored, queued_nowhere, started_unreserved, orphan_deliveries"
        " FROM opsjobs.integrity_checks"
    )
    differ = [check for check in checks if any(check[1:])]
    print(
        f"{by_cron} jobs of cron; {states}; {len(differ)} of {len(checks)} integrity checks differ"
    )
    assert checks
    assert differ == []


def assert_numbers_of_tasks_equal_a_slow_count(site: Site) -> None:
    """To the job: each was enqueued once, ended once, and waited and ran so long."""
    counted = slow_count(site.rows)
    jobs = sum(one.enqueued for one in counted.values())
    print(f"{jobs} jobs of {len(counted)} tasks are in the numbers of tasks")
    assert folded(site.rows) == counted


def assert_none_ran_after_its_end(site: Site, starts: list[Start]) -> None:
    """None ended twice, and none began after the commit that recorded its end."""
    ends = site.rows(
        "SELECT job_id, extract(epoch FROM pg_xact_commit_timestamp(a.xmin))::float8 FROM opsjobs.attempts a"
        " JOIN opsjobs.jobs j ON j.id = job_id WHERE outcome = 'returned' AND origin = 'opsjobs'"
    )
    ended = dict(ends)
    late = [start for start in starts if start.at > ended[start.job]]
    print(
        f"{len(ends)} ends, {len(ends) - len(ended)} of them double; {len(late)} starts after an end"
    )
    assert len(ended) == len(ends), "0 double ends"
    assert late == []


def assert_each_start_has_its_attempt(site: Site, starts: list[Start], storm: Storm) -> None:
    """Each attempt has its outcome and its cause; each start has an attempt, unless its worker could not
    write it: `seconds_until`.
    """
    assert (
        site.rows(
            "SELECT job_id, dispatch_no, outcome FROM opsjobs.attempts a JOIN opsjobs.jobs j ON j.id = job_id"
            " WHERE origin = 'opsjobs' AND (outcome IS NULL OR outcome <> 'returned'"
            " AND coalesce(death, cause_of_death, a.error) IS NULL)"
        )
        == []
    )
    rows = site.rows("SELECT job_id, attempt, pid FROM opsjobs.attempts")
    recorded = {(job, attempt, pid) for job, attempt, pid in rows}
    gaps, unexplained = [], []
    for start in starts:
        if not recorded.isdisjoint(
            [(start.job, start.attempt, start.pid), (start.job, start.attempt, None)]
        ):
            continue
        gap = min((seconds_until(stands, start) for stands in storm.standstills), default=math.inf)
        gaps.append(gap)
        if gap > SHORT_SECONDS + BUSY_SECONDS:
            unexplained.append((start, gap))
    print(
        f"{len(starts)} starts, {len(gaps)} without an attempt; before a standstill: {sorted(gaps)[-5:]}"
    )
    assert unexplained == [], storm.standstills


def seconds_until(stands: Standstill, start: Start) -> float:
    """How long after its start its worker stood still; infinite when it could write the start."""
    if stands.pid not in (EVERYBODY, start.worker):
        return math.inf
    if start.at <= stands.began:
        return stands.began - start.at
    if stands.pid == EVERYBODY:
        return 0.0 if start.at <= stands.ended else math.inf
    # While it was missing, its jobs were given to other workers. A function that was about to begin goes on
    # as soon as the worker does, and its start is not written: the job is another worker's.
    was_missing = stands.ended - stands.began >= MISSING_SECONDS
    return 0.0 if was_missing and start.at <= stands.ended + BUSY_SECONDS else math.inf


def assert_adopted_jobs_have_ended(site: Site) -> None:
    """Where nobody saw the end, it lies between two looks."""
    rows = site.rows(
        "SELECT state, count(*), count(*) FILTER (WHERE ended_at IS NULL), count(*) FILTER ("
        "WHERE state = 'unknown' AND (ended_after IS NULL OR ended_after > ended_at))"
        " FROM opsjobs.jobs JOIN opsjobs.rq_facts ON job_id = id WHERE origin = 'rq' GROUP BY 1"
    )
    print(f"adopted: { {state: number for state, number, *_ in rows} }")
    assert sum(number for _, number, *_ in rows) > 0
    assert [row for row in rows if row[2] or row[3]] == []


def assert_incidents_are_over_or_still_true(site: Site) -> None:
    """The last look has found each of those that are not resolved; each episode has evidence."""
    classes = site.rows(
        "SELECT class, count(*), sum(episode)::int, count(*) FILTER (WHERE state <> 'resolved')"
        " FROM opsjobs.incidents GROUP BY 1 ORDER BY 1"
    )
    print(f"incidents (class, number, episodes, not over): {classes}")
    assert "worker_missing" in [class_ for class_, *_ in classes]
    assert "audit_broken" not in [class_ for class_, *_ in classes]
    assert site.rows(UNTRUE) == []
    bare = site.rows(
        "SELECT i.class, i.subject, e FROM opsjobs.incidents i, generate_series(1, episode) e"
        " WHERE NOT EXISTS (SELECT FROM opsjobs.evidence WHERE incident_id = i.id AND episode = e)"
    )
    assert bare == []


def assert_metrics_equal_the_database(site: Site) -> None:
    """The jobs of each state now, and what was counted while everything was killed."""
    found = parse(exposition(PrometheusCollector(site.app.extensions["opsjobs"])))
    told = {
        (dict(labels)["queue"], dict(labels)["state"]): number
        for (name, labels), number in found.items()
        if name == "opsjobs_jobs" and number
    }
    stored = site.rows("SELECT queue, state, count(*) FROM opsjobs.jobs GROUP BY 1, 2")
    assert told == {(queue, state): number for queue, state, number in stored}
    managed = dict(
        site.rows("SELECT queue, count(*) FROM opsjobs.jobs WHERE origin = 'opsjobs' GROUP BY 1")
    )
    enqueued = values(found, "opsjobs_jobs_enqueued_total", "queue")
    finished = values(found, "opsjobs_jobs_ended_total", "queue", state="finished")
    assert {queue: enqueued[queue] for queue in managed} == managed
    assert {queue: finished[queue] for queue in managed if queue != PLAIN} == {
        queue: number for queue, number in managed.items() if queue != PLAIN
    }
    slots = site.rows("SELECT result, sum(slots)::int FROM opsjobs.cron_slots GROUP BY 1")
    counted = values(found, "opsjobs_cron_slots_total", "result")
    assert {result: counted[result] for result, _ in slots} == dict(slots)
    ((decisions,),) = site.rows("SELECT count(*) FROM opsjobs.audit_events")
    total = sum(number for (name, _), number in found.items() if name == "opsjobs_actions_total")
    assert total == decisions > 0
