"""The shop of schema 4 is brought to the newest schema and the new code under load, and loses nothing."""

from __future__ import annotations

import re

import pytest

from flask_opsjobs.install import steps
from tests.support.processes import Child
from tests.support.waiting import wait_until
from tests.upgrade.conftest import Load, Person, Shop

pytestmark = [pytest.mark.processes, pytest.mark.slow(90)]

# Jobs that have not ended. Those of a paused queue and of a limiter may wait, and so may reminders, which are
# due after 45 seconds, but for those of before the migration and the first one that old code enqueues on the
# newest schema.
LEFT = """
SELECT id, task, state, attempt FROM opsjobs.jobs WHERE ended_at IS NULL AND limiter IS NULL
    AND queue <> 'newsletter' AND id >= {since} AND (task <> 'send_reminder' OR id <= {migrated} + 1)
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


@pytest.mark.parametrize("is_killed", [False, True], ids=["all leave", "a worker is killed"])
def test_the_shop_is_upgraded_under_load(
    shop: Shop, is_killed: bool, pytestconfig: pytest.Config
) -> None:
    number: int = pytestconfig.getoption("upgrade_jobs")
    paths = [f"/ops/jobs{page}" for page in PAGES]
    for path, statement in LISTS.items():
        paths += ["/ops/jobs" + path.format(value) for (value,) in shop.rows(statement)]
    before = {id for (id,) in shop.rows("SELECT id FROM opsjobs.jobs")}
    old = shop.works("old")
    web, port = shop.serves("old")
    load = Load(Person(port))
    load.start()
    load.goes_on(number)
    # A job that was tried once waits for its next try while the schema changes.
    waiting = "SELECT id FROM opsjobs.jobs WHERE state = 'retryable'"
    wait_until(lambda: {*load.failing} & {id for (id,) in shop.rows(waiting)}, 60)
    migrate(shop)
    load.fails = False
    migrated = len(load.enqueued)
    load.goes_on(number)
    # The old workers perform what the old web process enqueues on the new schema.
    done = f"SELECT FROM opsjobs.jobs WHERE id > {load.enqueued[migrated]} AND state = 'finished'"
    wait_until(lambda: shop.rows(done), 120)
    assert [child.exit_code for child in (*old, web)] == [None] * 4
    if is_killed:
        wait_until(lambda: old[1].job_children(), 60)
        old[1].kill_all()
    new = shop.works("new")
    for child in old:
        if child.exit_code is None:
            assert child.terminate(120) == 0, child.log
    load.goes_on(number)
    new_web, load.person.port = shop.serves("new")
    load.goes_on(number)
    load.stop()
    web.terminate(30)

    left = LEFT.format(since=load.enqueued[0], migrated=load.enqueued[migrated])
    wait_until(lambda: not shop.rows(left), 180, what=lambda: f"all jobs: {shop.rows(left)}")
    lost = {*before, *load.enqueued} - {id for (id,) in shop.rows("SELECT id FROM opsjobs.jobs")}
    # Old and new workers have shared the tries of a job, and made each once.
    tries = shop.rows(TRIES.format(ids=",".join(map(str, load.failing))))
    assert {state for state, *_ in tries} == {"failed"}
    assert any(first < at < last for _, _, first, at, last in tries), tries
    if not is_killed:
        assert [made for _, made, *_ in tries] == [[1, 2, 3, 4]] * len(load.failing)
    # The first form opens every old page, the second one those of the navigation.
    asked = paths[: len(PAGES)] if is_killed else paths
    for path in asked:
        load.person.asks(path)
    shop.does("new", "opsjobs", "cron", "pause", "nightly_sync", *WHO)
    verified = shop.does("new", "opsjobs", "audit", "verify")
    assert "intact: rows 1 to" in verified
    differences = shop.rows(DIFFERENCES)
    print(
        f"{len(load.enqueued)} jobs were enqueued; the longest enqueue took {load.slowest * 1000:.0f} ms;"
        f" {len(load.person.failed)} requests failed; {len(lost)} jobs were lost;"
        f" {len(shop.rows(TWICE))} finished twice; {len(differences)} queues with a difference;"
        f" {len(asked)} old pages; the audit is {verified.strip()}"
    )
    assert load.person.failed == []
    assert lost == set()
    assert shop.rows(TWICE) == []
    assert differences == []
    assert load.slowest <= 3
    for child in (*new, new_web):
        assert child.exit_code is None, child.log
    if not is_killed:
        go_back(shop, [*new, new_web])


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
# As the integrity check counts: enqueued, without what was deleted, against the rows.
DIFFERENCES = """
SELECT queue, sum(number) FROM (
    SELECT queue, enqueued - deleted AS number FROM opsjobs.enqueue_counts
    UNION ALL SELECT queue, enqueued - deleted FROM opsjobs.job_count_deltas
    UNION ALL SELECT queue, -1 FROM opsjobs.jobs WHERE origin = 'opsjobs'
) AS counted GROUP BY queue HAVING sum(number) <> 0
"""


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
        assert re.search(
            "another `flask db upgrade` has run at the same time|expected to match one row",
            child.log,
        )
    assert "deadlock" not in "".join(child.log for child in both)
    shop.does("new", "db", "upgrade")
    shop.does("new", "opsjobs", "install", "--check")
    person = Person(shop.serves("new")[1])
    ((job,),) = shop.rows("SELECT max(id) FROM opsjobs.jobs")
    assert f"job/{job}" in person.asks(f"/ops/jobs/jobs/{job}")
    assert person.failed == []
