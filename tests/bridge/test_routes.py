"""Every route of rq-dashboard below our pages, in every method, by everybody: nothing in Redis changes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import rq_dashboard
from flask import Flask
from flask.testing import FlaskClient
from redis import Redis
from rq.worker_registration import REDIS_WORKER_KEYS
from werkzeug.test import TestResponse

from flask_opsjobs.bridge.allowed import REGISTRIES, VIEWS, WRITES
from flask_opsjobs.engine.redis.connections import READS
from flask_opsjobs.web.app.access import PERMISSIONS
from tests.bridge.rq_site import QUEUE, RqSite
from tests.support.contents import read_all
from tests.web.conftest import Access

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# What a new connection says of itself, and what ends the recording of a test.
GREETINGS = {"AUTH", "CLIENT", "ECHO", "HELLO", "SELECT"}
# The names that rq-dashboard has for the parameters of our addresses.
PARAMETERS = {
    "<int:number>": "<int:instance_number>",
    "<path:queue>": "<queue_name>",
    "<registry>": "<registry_name>",
    "<path:rq_id>": "<job_id>",
}


def _rules() -> list[Any]:
    """The rules of rq-dashboard's own URL map."""
    app = Flask("theirs", static_folder=None)
    app.register_blueprint(rq_dashboard.blueprint)
    return list(app.url_map.iter_rules())


def _theirs(rule: str) -> str:
    for ours, theirs in PARAMETERS.items():
        rule = rule.replace(ours, theirs)
    return rule


def _paths(rule: str, site: RqSite) -> Iterator[str]:
    """The addresses of a rule: about each job and each registry, and about what does not exist."""
    filled = rule.replace("<int:instance_number>", "0").replace("<queue_name>", QUEUE)
    for part in ("<int:per_page>", "<per_page>"):
        filled = filled.replace(part, "8")
    for part in ("<int:page>", "<page>"):
        filled = filled.replace(part, "1")
    filled = filled.replace("<order>", "dsc").replace("<path:filename>", "js/app.js")
    for name in [*REGISTRIES, "nonsense"] if "<registry_name>" in filled else [""]:
        for rq_id in [*site.ids.values(), "nobody", "not an id!"] if "<job_id>" in filled else [""]:
            yield filled.replace("<registry_name>", name).replace("<job_id>", rq_id)


def _is_json(answer: TestResponse) -> bool:
    """Whether it is JSON, also when it is an error."""
    is_error = answer.status_code >= 400 and answer.request.method != "HEAD"
    says = [*(answer.json or ())] if is_error else ["error"]
    return answer.mimetype == "application/json" and says == ["error"]


@contextmanager
def recorded(redis_url: str) -> Iterator[set[str]]:
    """The names of the commands that Redis gets in the block. The set is filled when the block ends."""
    names: set[str] = set()

    def note(monitor: Any) -> None:
        for said in monitor.listen():
            name, _, rest = str(said["command"]).partition(" ")
            names.add(name.upper())
            if rest == "the end":
                return

    with Redis.from_url(redis_url) as client, client.monitor() as monitor:
        thread = threading.Thread(target=note, args=(monitor,))
        thread.start()
        try:
            yield names
        finally:
            client.echo("the end")
            thread.join(timeout=60)
            assert not thread.is_alive()


@pytest.mark.lane
@pytest.mark.slow(10)
def test_every_route_in_every_method_by_everybody_changes_nothing(
    client: FlaskClient, access: Access, in_rq: RqSite, redis_url: str
) -> None:
    """Among them jobs with dependencies, without a record, and with one that cannot be read."""
    rules = _rules()
    shown = {_theirs(rule) for view in VIEWS for rule in (*view.rules, view.json_rule)}
    written = set(map(_theirs, WRITES))
    client.get("/ops/jobs/rq")  # makes the connections
    before = read_all(in_rq.redis)
    people: list[tuple[str | None, set[str]]] = [
        ("tester", set(PERMISSIONS)),
        ("tester", set(PERMISSIONS) - {"bridge.view"}),
        (None, set(PERMISSIONS)),
    ]
    seen: set[int] = set()
    with recorded(redis_url) as commands:
        for number, (access.actor, access.held) in enumerate(people):
            for rule in rules:
                paths = list(_paths(rule.rule, in_rq))
                for method in METHODS:
                    # What no view is asked for does not differ from job to job.
                    for path in paths if method == "GET" and not number else paths[:1]:
                        answer = client.open(f"/ops/jobs/rq{path}", method=method)
                        asked = f"{method} {path} by {number}: {answer.status_code}"
                        seen.add(answer.status_code)
                        assert "/data/" not in path or _is_json(answer), asked
                        if number:
                            # Below our prefix another page has already refused the method.
                            allowed = (403, 405) if path == "/" and number == 1 else (403,)
                            assert answer.status_code in allowed, asked
                        elif rule.rule in written:
                            assert answer.status_code == 403, asked
                        elif rule.rule not in shown:
                            assert answer.status_code == 404, asked
                        elif method not in ("GET", "HEAD"):
                            assert answer.status_code == 405, asked
                        else:
                            assert answer.status_code in (200, 404), asked
    assert read_all(in_rq.redis) == before
    assert commands - READS <= GREETINGS, commands - READS
    assert {"HGETALL", "XREVRANGE", "SMEMBERS", "LRANGE", "ZRANGE"} <= commands
    assert seen == {200, 403, 404, 405}
    # RQ would have removed the worker that is gone.
    assert in_rq.redis.scard(REDIS_WORKER_KEYS) == 2
    assert not in_rq.trap.exists()


@pytest.mark.lane
def test_the_list_of_what_is_shown_has_every_route_of_rq_dashboard() -> None:
    rules = _rules()
    for view in VIEWS:
        pages = {rule.rule for rule in rules if rule.endpoint == f"rq_dashboard.{view.endpoint}"}
        data = {rule.rule for rule in rules if rule.endpoint == f"rq_dashboard.{view.asks}"}
        assert set(map(_theirs, view.rules)) == pages
        assert {_theirs(view.json_rule)} == data
    assert {rule.rule for rule in rules if "POST" in rule.methods} == set(map(_theirs, WRITES))
    known = {view.endpoint for view in VIEWS} | {view.asks for view in VIEWS}
    rest = {
        rule.endpoint.partition(".")[2]
        for rule in rules
        if "POST" not in rule.methods and rule.endpoint.partition(".")[2] not in known
    }
    assert rest == {"static", "favicon"}


def test_housekeeping_keeps_its_place_among_the_answers(redis_client: Redis, host: Any) -> None:
    from flask_opsjobs.bridge.instances import list_instances

    redis_client.sadd("names", "a", "b")
    (instance,) = list_instances(host)
    with instance.redis.pipeline() as pipe:
        pipe.srem("names", "a")
        pipe.scard("names")
        pipe.zremrangebyscore("scores", 0, 1)
        pipe.zrem("scores", "a")
        pipe.exists("names")
        assert pipe.execute() == [0, 2, 0, 0, 1]
        pipe.srem("names", "a")
        assert pipe.execute() == [0]
        assert pipe.execute() == []
    assert instance.redis.srem("names", "a") == 0
    assert redis_client.smembers("names") == {b"a", b"b"}
