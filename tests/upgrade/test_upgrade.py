"""The shop of schema 4 is brought to the newest schema and the new code under load, and loses nothing."""

from __future__ import annotations

import faulthandler
import re

import pytest

from flask_opsjobs.install import steps
from tests.support.processes import Child
from tests.support.waiting import wait_until
from tests.upgrade.conftest import Load, Person, Shop

pytestmark = [pytest.mark.processes, pytest.mark.slow(90)]

# Jobs that have not ended, of before the upgrade too, and wait for none of the known reasons: their queue is
# paused, or it is a reminder, which is due after 45 seconds. The reminders of before the migration and the
# first one that old code enqueues on the newest schema are waited for.
LEFT = """
SELECT id, task, state, attempt FROM opsjobs.jobs WHERE ended_at IS NULL
    AND queue NOT IN (SELECT name FROM opsjobs.queues WHERE is_paused)
    AND NOT (task = 'send_reminder' AND id > {migrated} + 1 AND due_at > now() - interval '10 s')
"""
PAUSED = "SELECT id FROM opsjobs.jobs WHERE queue = 'newsletter' AND ended_at IS NULL"
# What a worker holds, of the jobs that somebody buys meanwhile.
HELD = """
SELECT a.job_id, a.attempt FROM opsjobs.attempts a JOIN opsjobs.workers w ON w.id = a.worker_id
    JOIN opsjobs.jobs j ON j.id = a.job_id
WHERE w.pid = {pid} AND w.state = 'alive' AND a.ended_at IS NULL AND a.attempt = 1
    AND j.task = 'process_invoice' AND j.id >= {since}
"""
TWICE = """
SELECT job_id FROM opsjobs.attempts WHERE outcome = 'returned' GROUP BY job_id HAVING count(*) > 1
"""
TRIES = """
SELECT j.state, array_agg(a.attempt::int ORDER BY a.started_at), min(a.started_at),
    (SELECT max(applied_at) FROM opsjobs.schema_version), max(a.started_at)
FROM opsjobs.jobs j JOIN opsjobs.attempts a ON a.job_id = j.id WHERE j.id IN ({ids}) GROUP BY j.id
"""
PAGES = ("", "/jobs", "/queues", "/workers", "/cron", "/limiters", "/audit", "/help")
LISTS = {
    "/jobs/{}": "SELECT id FROM opsjobs.jobs ORDER BY id",
    "/queues/{}": "SELECT DISTINCT queue FROM opsjobs.jobs",
    "/cron/{}": "SELECT name FROM opsjobs.cron_entries",
    "/limiters/{}": "SELECT name FROM opsjobs.limiters",
    "/audit/{}": "SELECT sequence FROM opsjobs.audit_events",
}


def migrate(shop: Shop) -> None:
    """As UPGRADING.md says: with the new package, while the old processes run."""
    said = shop.does("new", "opsjobs", "install")
    assert "a revision that runs the schema steps" in said, said
    shop.does("new", "db", "upgrade")
    assert shop.rows("SELECT max(version) FROM opsjobs.schema_version") == [(steps.latest(),)]
    shop.does("new", "opsjobs", "install", "--check")


@pytest.mark.parametrize("is_killed", [True, False], ids=["a worker is killed", "all leave"])
def test_the_shop_is_upgraded_under_load(
    shop: Shop, is_killed: bool, pytestconfig: pytest.Config
) -> None:
    """Of two old workers one is killed while it performs a job, and one leaves when it is asked to."""
    number: int = pytestconfig.getoption("upgrade_jobs")
    is_long = number >= MANY
    if is_long:
        faulthandler.cancel_dump_traceback_later()  # it ends a test after five minutes
    elif not is_killed:
        pytest.skip(
            f"asked for with --upgrade-jobs {MANY}: one worker leaves in the other form too"
        )
    paths = [f"/ops/jobs{page}" for page in PAGES]
    for path, statement in LISTS.items():
        paths += ["/ops/jobs" + path.format(value) for (value,) in shop.rows(statement)]
    before = {id for (id,) in shop.rows("SELECT id FROM opsjobs.jobs")}
    old = shop.works("old")
    web, port = shop.serves("old")
    load = Load(Person(port), every=0.2 if is_long else 0.5)
    load.start()
    load.goes_on(number)
    # A job that was tried once waits for its next try while the schema changes.
    waiting = "SELECT id FROM opsjobs.jobs WHERE state = 'retryable'"
    wait_until(lambda: {*load.failing} & {id for (id,) in shop.rows(waiting)}, 120)
    migrate(shop)
    load.fails = False
    migrated = len(load.enqueued)
    load.goes_on(number)
    # The old workers perform what the old web process enqueues on the new schema.
    done = f"SELECT FROM opsjobs.jobs WHERE id > {load.enqueued[migrated]} AND state = 'finished'"
    wait_until(lambda: shop.rows(done), 120)
    assert [child.exit_code for child in (*old, web)] == [None] * 4
    killed = [kill_in_a_job(shop, old.pop(1), load.enqueued[0])] if is_killed else []
    new = shop.works("new")
    for child in old:
        assert child.terminate(120) == 0, child.log
    load.goes_on(number)
    new_web, load.person.port = shop.serves("new")
    load.goes_on(number)
    load.stop()
    web.terminate(30)

    left = LEFT.format(migrated=load.enqueued[migrated])
    wait_until(lambda: not shop.rows(left), 180, what=lambda: f"all jobs: {shop.rows(left)}")
    # What was enqueued has finished, except what was to fail.
    ended = f"SELECT id, task, state FROM opsjobs.jobs WHERE id IN ({','.join(map(str, load.enqueued))})"
    assert [
        row for row in shop.rows(ended) if row[0] not in load.failing and row[2] != "finished"
    ] == []
    # What waits is said: the one job of the paused queue is of before the upgrade.
    ((paused,),) = shop.rows(PAUSED)
    assert "1. The queue newsletter is paused" in shop.does("new", "opsjobs", "why", str(paused))
    lost = {*before, *load.enqueued} - {id for (id,) in shop.rows("SELECT id FROM opsjobs.jobs")}
    # Old and new workers have shared the tries of a job, and made each once.
    tries = shop.rows(TRIES.format(ids=",".join(map(str, load.failing))))
    assert [(state, made) for state, made, *_ in tries] == [("failed", [1, 2, 3, 4])] * len(tries)
    assert len(tries) == len(load.failing)
    assert any(first < at < last for _, _, first, at, last in tries), tries
    for job, attempt in killed:
        assert shop.rows(f"SELECT state FROM opsjobs.jobs WHERE id = {job}") == [("finished",)]
        made = f"SELECT attempt, outcome FROM opsjobs.attempts WHERE job_id = {job} ORDER BY started_at"
        assert shop.rows(made) == [(attempt, "lost"), (attempt + 1, "returned")]
    for path in paths:
        load.person.asks(path)
    shop.does("new", "opsjobs", "cron", "pause", "nightly_sync", *WHO)
    verified = shop.does("new", "opsjobs", "audit", "verify")
    assert "intact: rows 1 to" in verified
    queues = check_integrity(shop)
    print(
        f"{len(load.enqueued)} jobs were enqueued; the longest enqueue took {load.slowest * 1000:.0f} ms;"
        f" {len(load.person.failed)} requests failed; {len(lost)} jobs were lost;"
        f" {len(shop.rows(TWICE))} finished twice; {len(killed)} attempts of a killed worker were lost, and"
        f" their jobs ran again; 0 differences in the integrity check of {queues} queues;"
        f" {len(paths)} old pages; the audit is {verified.strip()}"
    )
    assert load.person.failed == []
    assert lost == set()
    assert shop.rows(TWICE) == []
    assert load.slowest <= 3
    for child in (*new, new_web):
        assert child.exit_code is None, child.log
    go_back(shop, [*new, new_web])


def kill_in_a_job(shop: Shop, worker: Child, since: int) -> tuple[int, int]:
    """Kill a worker, and its child, while it performs a job. Returns the job and the attempt."""

    def holds_one() -> list[tuple[int, int]]:
        worker.freeze()
        children = worker.children()
        for child in children:
            child.suspend()
        held = shop.rows(HELD.format(pid=worker.pid, since=since))
        if not held:
            for child in children:
                child.resume()
            worker.thaw()
        return held

    (held,) = wait_until(holds_one, 60, what="a job of the worker")
    worker.kill_all()
    return held


def check_integrity(shop: Shop) -> int:
    """The integrity check, made anew, finds no difference. Returns of how many queues it is."""
    ((now,),) = shop.rows("SELECT clock_timestamp()")
    made = "SELECT least(counted_at, compared_at) FROM opsjobs.integrity_checks"
    wait_until(lambda: all(at and at > now for (at,) in shop.rows(made)), 120, what="a new check")
    said = shop.does("new", "opsjobs", "doctor", *(f"--only=jobs.{check}" for check in INTEGRITY))
    assert "Nothing is wrong. 4 checks are fine." in said, said
    return len(shop.rows(made))


def go_back(shop: Shop, running: list[Child]) -> None:
    """`flask db downgrade` says what it loses, and is refused until the newer processes are gone."""
    refused = shop.starts("new", "db", "downgrade")
    assert refused.wait(120) != 0
    assert "sent a heartbeat just now" in refused.log, refused.log
    assert shop.rows("SELECT max(version) FROM opsjobs.schema_version") == [(steps.latest(),)]
    for child in running:
        child.terminate(60)
    wait_until(lambda: shop.rows(SILENT), 60)
    done = shop.does("new", "db", "downgrade")
    assert shop.rows("SELECT max(version) FROM opsjobs.schema_version") == [(4,)]
    for said in (refused.log, done):
        assert "This downgrade of the schema opsjobs loses:" in said
        assert re.search(r"^    opsjobs\.workers\.boot_id: \d+ rows?$", said, re.M), said


SILENT = "SELECT FROM opsjobs.loop_runs HAVING max(last_at) < now() - interval '8 s'"
WHO = ("--actor", "ops-demo", "--reason", "the vendor is away")
INTEGRITY = ("integrity_off", "delivery_lost", "held_by_nobody", "orphan_delivery")
# From so many jobs on an upgrade in which nobody is killed is made too.
MANY = 100


def test_a_host_without_a_display_policy(shop: Shop) -> None:
    """It has an access policy, pages and migrations: the app stops with a sentence, which is followed."""
    host = shop.folder / "flask_host"
    (host / "opsjobs_display.py").unlink()
    extensions, app = host / "extensions.py", host / "__init__.py"
    whole, joined = extensions.read_text(), app.read_text()
    line, argument = "from .opsjobs_display import HostDisplay\n", ", display=HostDisplay()"
    assert line in whole
    assert argument in whole
    extensions.write_text(whole.replace(line, "").replace(argument, ""))

    stopped = shop.starts("new", "db", "upgrade")
    assert stopped.wait(60) != 0
    assert "OpsJobs has no display policy: pass display=…" in stopped.log
    assert "take OpsJobs out of the app again, run `flask opsjobs install`" in stopped.log
    app.write_text(joined.replace("    opsjobs.init_app(app)\n", ""))
    said = shop.does("new", "opsjobs", "install")
    assert "written  flask_host/opsjobs_display.py" in said
    assert "there    flask_host/opsjobs_access.py: yours, left alone" in said
    assert line.strip() in said
    app.write_text(joined)
    extensions.write_text(whole)

    # Two deploys migrate at once. The second waits; unless it sees that nothing is left, it says what to do.
    both = [shop.starts("new", "db", "upgrade") for _ in range(2)]
    failed = [child for child in both if child.wait(120) != 0]
    assert len(failed) <= 1, "\n".join(child.log for child in both)
    for child in failed:
        assert "another `flask db upgrade` has run at the same time" in child.log, child.log
    assert "deadlock" not in "".join(child.log for child in both)
    shop.does("new", "db", "upgrade")
    shop.does("new", "opsjobs", "install", "--check")
    person = Person(shop.serves("new")[1])
    ((job,),) = shop.rows("SELECT max(id) FROM opsjobs.jobs")
    assert f"job/{job}" in person.asks(f"/ops/jobs/jobs/{job}")
    assert person.failed == []
