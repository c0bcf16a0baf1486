"""Searches everything that is served for what a host stored: nothing passes the display policy by."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from redis import Redis

from flask_opsjobs import OpsJobs
from flask_opsjobs.cli import opsjobs as group
from flask_opsjobs.core.display import FAILED
from flask_opsjobs.forensics.export import FORMATS
from flask_opsjobs.forensics.registry import KINDS
from flask_opsjobs.testing.leaks import Crawl, crawl
from flask_opsjobs.web.app.urls import BRIDGE_URLS
from tests.cli.test_json import PRINT_JSON
from tests.cli.test_not_asked import REASON, WORDS
from tests.support.canaries import ACTOR, CANARIES, PLACES, HidesCanaries, Raises, Story
from tests.support.engine import Bench
from tests.support.escalating import Acting
from tests.support.policies import AllowAll, ShowAll

# So many addresses of each URL are searched, three times.
MOST = 4
# It is refused while the policy hides a part of the arguments: it saves what it shows.
EDITS = "/ops/jobs/edit/cron/nightly"
# Of the URL of Redis in the settings: no policy is needed to hide it.
PASSWORD = "zqpasswordofredisqz"
# These start processes, write, or need Flask-Migrate.
APART = ("install", "run", "up", "worker", "restore", "retain", "escalate", "deployed", "signal")
READING = [name for name in WORDS if name not in APART and not set(REASON) & set(WORDS[name])]
# It holds the rows as they are signed: docs/audit.md says that the policy does not apply.
READING.remove("audit export")
SIGNED = {"cron argument", *(place for place in PLACES if place.startswith("reason"))}
# What holds a text of no place, also when nothing is hidden: with a text that shows that it was searched.
WITHOUT_PAYLOAD = {
    "metrics": "opsjobs_jobs_enqueued_total",
    "span": "messaging.operation.name",
    "event": "'task': 'break_hooks'",
    "log": "a receiver of the signal attempt-raised raised",
    "doctor": "postgres.reachable",
    "escalation": '"episode": 1',
}
# What the fact `exception` of an event holds, as docs/events.md says.
RAISED = {
    "error",
    "error that is retried",
    "error that hooks and receivers tell",
    "password in an error",
}


@pytest.fixture
def app(
    make_app: Callable[..., Flask], opsjobs: OpsJobs, redis_url: str, redis_client: Redis
) -> Iterator[Flask]:
    """A host whose Redis wants a password."""
    redis_client.acl_setuser(
        "shop", enabled=True, passwords=f"+{PASSWORD}", keys="*", channels="*", commands=["+@all"]
    )
    url = redis_url.replace("//", f"//shop:{PASSWORD}@", 1)
    yield make_app(
        opsjobs=opsjobs,
        OPSJOBS_REDIS_URL=url,
        OPSJOBS_ESCALATE_FROM="notice",
        OPSJOBS_METRICS_TOKEN="a-token-of-16-letters",
    )
    redis_client.acl_deluser("shop")


@pytest.fixture
def story(app: Flask, opsjobs: OpsJobs, bench: Bench, redis_client: Redis) -> Iterator[Story]:
    with app.app_context():
        story = Story(app, opsjobs, bench, redis_client)
        with story.listening():
            story.tell()
            yield story


def _list_jobs(story: Story) -> list[int]:
    """A job of each task in each state, also of RQ: the newest."""
    newest = "SELECT max(id) AS id FROM opsjobs.jobs GROUP BY task, state ORDER BY id"
    return [row["id"] for row in story.bench.rows(newest)]


def _subjects(story: Story) -> list[str]:
    """One subject of forensics of each kind."""
    oldest = """
        SELECT 'attempt/' || min(job_id) || '-1' AS subject FROM opsjobs.attempts
        UNION ALL SELECT 'job/' || min(job_id) FROM opsjobs.attempts WHERE error IS NOT NULL
        UNION ALL SELECT 'deploy/' || min(id) FROM opsjobs.deploys
        UNION ALL SELECT 'failure/' || min(id) FROM opsjobs.failures
        UNION ALL SELECT 'incident/' || min(id) FROM opsjobs.incidents
        UNION ALL SELECT 'operation/' || min(id) FROM opsjobs.operations
        UNION ALL SELECT 'workflow/' || min(id) FROM opsjobs.workflows
        UNION ALL SELECT 'step/' || min(id) FROM opsjobs.jobs WHERE workflow_id IS NOT NULL
        UNION ALL SELECT 'batch/' || min(id) FROM opsjobs.batches
        UNION ALL SELECT 'worker/' || min(name) FROM opsjobs.workers
    """
    named = ["task/keep", "queue/limited", "cron/nightly", "limiter/api", f"actor/{ACTOR}"]
    subjects = [*named, *(row["subject"] for row in story.bench.rows(oldest))]
    assert {subject.partition("/")[0] for subject in subjects} == {*KINDS}
    return subjects


def _commands(story: Story) -> dict[str, str]:
    """What each command that only reads prints."""
    ids = [str(id) for id in _list_jobs(story)]
    calls = [[*name.split(), *WORDS[name]] for name in READING if name not in ("why", "forensics")]
    calls += [[*name.split(), *WORDS[name], "--json"] for name in READING if name in PRINT_JSON]
    calls += [["why", id] for id in ids]
    calls += [["forensics", f"job/{id}"] for id in ids]
    calls += [
        ["forensics", subject, "--format", form] for subject in _subjects(story) for form in FORMATS
    ]
    printed = {}
    for words in calls:
        done = story.app.test_cli_runner().invoke(group, words)
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        printed[f"flask opsjobs {' '.join(words)}"] = done.output
    return printed


def _search(story: Story, folder: Path, canaries: list[str]) -> Crawl:
    """Every page, fragment, file, command and escalation of the story."""
    folder.mkdir()
    texts = _commands(story) | {"escalation": story.escalate(Acting(folder))} | story.heard()
    assert AllowAll.actor is not None
    jobs = [
        f"/ops/jobs/jobs/{id}{part}" for id in _list_jobs(story) for part in ("", "/live", "/raw")
    ]
    rq = [
        f"/ops/jobs/rq/0/{part}/job/{row['rq_id']}{end}"
        for row in story.bench.rows("SELECT rq_id FROM opsjobs.jobs WHERE origin = 'rq'")
        for part, end in (("view", ""), ("data", ".json"))
    ]
    paths = [*story.addresses_of_previews(AllowAll.actor), *jobs, *rq]
    return crawl(story.app.test_client(), canaries, paths, texts, most=MOST)


@pytest.mark.slow
@pytest.mark.processes
def test_canaries_in_every_place_are_found_nowhere_and_without_the_policy_each_is_found(
    story: Story, tmp_path: Path
) -> None:
    assert len(PLACES) >= 40
    canaries = [*CANARIES.values(), PASSWORD]

    story.host.display = HidesCanaries()
    hidden = _search(story, tmp_path / "hidden", canaries)
    assert "\n".join(map(str, hidden.leaks)) == ""
    # No link leads to what is no page, and to where rq-dashboard would change something.
    unlinked = {url.rule for url in BRIDGE_URLS if url.endpoint in ("missing", "refused")}
    assert set(hidden.unreached) == {
        "/ops/jobs/<path:rest>",
        *(f"/ops/jobs/rq{rule}" for rule in unlinked),
    }

    # The crawler is not blind.
    story.host.display = ShowAll()
    shown = _search(story, tmp_path / "shown", [*canaries, *WITHOUT_PAYLOAD.values()])
    found = {leak.canary for leak in shown.leaks}
    assert PASSWORD not in found
    assert [place for place, canary in CANARIES.items() if canary not in found] == []
    assert _places_in(story.exceptions) == RAISED
    signed = story.app.test_cli_runner().invoke(group, ["audit", "export"]).output
    assert _places_in(signed) == SIGNED
    by_surface: dict[str, set[str]] = defaultdict(set)
    for leak in shown.leaks:
        by_surface[_surface(leak.address)].add(leak.canary)
    assert by_surface.keys() >= {"page", "fragment", "csv", "ndjson", "forensics", "command"}
    assert {name: by_surface[name] for name in WITHOUT_PAYLOAD} == {
        name: {says} for name, says in WITHOUT_PAYLOAD.items()
    }

    # A policy that raises hides the same: each surface says so, and none is an error of the server.
    story.host.display = Raises()
    words = FAILED[1:-1]  # Markdown escapes the brackets
    failed = _search(story, tmp_path / "failed", [*canaries, words])
    assert [str(leak) for leak in failed.leaks if leak.canary != words] == []
    says = {leak.address for leak in failed.leaks}
    leaking = {leak.address for leak in shown.leaks if leak.canary in canaries}
    assert sorted(leaking - says - {EDITS}) == []


def _places_in(text: str) -> set[str]:
    return {place for place, canary in CANARIES.items() if canary in text}


def _surface(address: str) -> str:
    for word in WITHOUT_PAYLOAD:
        if address.removeprefix("/ops/jobs/").removeprefix("flask opsjobs ").startswith(word):
            return word
    if address.startswith("flask opsjobs"):
        return "command"
    for word in ("csv", "ndjson", "export/forensics"):
        if word in address:
            return word.partition("/")[2] or word
    return "fragment" if "live" in address else "page" if address.startswith("/") else address


def test_the_password_of_redis_is_not_told_when_redis_does_not_answer(
    make_app: Callable[..., Flask], opsjobs: OpsJobs
) -> None:
    app = make_app(opsjobs=opsjobs, OPSJOBS_REDIS_URL=f"redis://shop:{PASSWORD}@127.0.0.1:1/0")
    for path in ("", "/queues", "/workers", "/lifeline", "/help"):
        answer = app.test_client().get(f"/ops/jobs{path}")
        assert (answer.status_code, PASSWORD in answer.text) == (200, False)
