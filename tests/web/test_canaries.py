"""Searches everything that is served for what a host stored: nothing passes the display policy by."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from redis import Redis

from flask_opsjobs import OpsJobs
from flask_opsjobs.cli import opsjobs as group
from flask_opsjobs.core.display import FAILED
from flask_opsjobs.testing.leaks import Crawl, crawl
from flask_opsjobs.web.app.urls import BRIDGE_URLS
from tests.cli.test_not_asked import REASON, WORDS
from tests.support.canaries import CANARIES, PLACES, HidesCanaries, Raises, Story
from tests.support.engine import Bench
from tests.support.escalating import Acting
from tests.support.policies import AllowAll, ShowAll

# So many addresses of each URL are searched, three times.
MOST = 4
# RQ keeps it; of our pages only those of the bridge show it.
OF_RQ = {"rq meta"}
# It is refused while the policy hides a part of the arguments: it saves what it shows.
EDITS = "/ops/jobs/edit/cron/nightly"
# Of the URL of Redis in the settings: no policy is needed to hide it.
PASSWORD = "zqpasswordofredisqz"
# These start processes, write, or need Flask-Migrate.
APART = ("install", "run", "up", "worker", "restore", "retain", "escalate", "deployed", "signal")
READING = [name for name in WORDS if name not in APART and not set(REASON) & set(WORDS[name])]
# It holds the rows as they are signed: docs/audit.md says that the policy does not apply.
READING.remove("audit export")


@pytest.fixture
def app(
    make_app: Callable[..., Flask], opsjobs: OpsJobs, redis_url: str, redis_client: Redis
) -> Iterator[Flask]:
    """A host whose Redis wants a password."""
    redis_client.acl_setuser(
        "shop", enabled=True, passwords=f"+{PASSWORD}", keys="*", channels="*", commands=["+@all"]
    )
    url = redis_url.replace("//", f"//shop:{PASSWORD}@", 1)
    yield make_app(opsjobs=opsjobs, OPSJOBS_REDIS_URL=url, OPSJOBS_ESCALATE_FROM="notice")
    redis_client.acl_deluser("shop")


@pytest.fixture
def story(app: Flask, opsjobs: OpsJobs, bench: Bench, redis_client: Redis) -> Iterator[Story]:
    with app.app_context():
        story = Story(app, opsjobs, bench, redis_client)
        story.tell()
        yield story


def _list_jobs(story: Story) -> list[int]:
    """A job of each task in each state, also of RQ: the newest."""
    newest = "SELECT max(id) AS id FROM opsjobs.jobs GROUP BY task, state ORDER BY id"
    return [row["id"] for row in story.bench.rows(newest)]


def _commands(story: Story) -> dict[str, str]:
    """What each command that only reads prints."""
    ids = [str(id) for id in _list_jobs(story)]
    calls = [[*name.split(), *WORDS[name]] for name in READING if name not in ("why", "forensics")]
    calls += [["why", id] for id in ids]
    calls += [
        ["forensics", f"job/{id}", "--format", form]
        for id in ids
        for form in ("json", "md", "html")
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
    texts = _commands(story) | {"escalation": story.escalate(Acting(folder))}
    assert AllowAll.actor is not None
    jobs = [
        f"/ops/jobs/jobs/{id}{part}" for id in _list_jobs(story) for part in ("", "/live", "/raw")
    ]
    paths = [story.address_of_preview(AllowAll.actor), *jobs]
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
    shown = _search(story, tmp_path / "shown", canaries)
    found = {leak.canary for leak in shown.leaks}
    assert PASSWORD not in found
    assert {place for place, canary in CANARIES.items() if canary not in found} <= OF_RQ
    surfaces = {_surface(leak.address) for leak in shown.leaks}
    assert surfaces >= {"page", "fragment", "csv", "ndjson", "forensics", "command"}

    # A policy that raises hides the same: each surface says so, and none is an error of the server.
    story.host.display = Raises()
    words = FAILED[1:-1]  # Markdown escapes the brackets
    failed = _search(story, tmp_path / "failed", [*canaries, words])
    assert [str(leak) for leak in failed.leaks if leak.canary != words] == []
    says = {leak.address for leak in failed.leaks}
    assert sorted({leak.address for leak in shown.leaks} - says - {EDITS}) == []


def _surface(address: str) -> str:
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
