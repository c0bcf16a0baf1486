"""What `init_app` refuses: each with the key, the value and the fix;
and what it does not need: any server.
"""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import ConfigError, OpsJobs
from tests.conftest import MakeApp
from tests.support.policies import AllowAll, ShowAll

NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"


def make_host(url: str | None = NOWHERE, **config: Any) -> Flask:
    app = Flask("host")
    app.config.update(SECRET_KEY="only for tests", SQLALCHEMY_DATABASE_URI=url, **config)
    if url is not None:
        SQLAlchemy(app)
    return app


def join(app: Flask, **policies: Any) -> OpsJobs:
    return OpsJobs(app, **{"access": AllowAll(), "display": ShowAll(), **policies})


def refusal(app: Flask, **policies: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        join(app, **policies)
    return str(caught.value)


def test_it_joins_without_any_server() -> None:
    app = make_host()
    join(app)
    assert "opsjobs.overview" in {rule.endpoint for rule in app.url_map.iter_rules()}


def test_no_sqlalchemy_on_the_app() -> None:
    assert "call SQLAlchemy(app) before OpsJobs(app)" in refusal(make_host(None))


def test_sqlite_is_refused_with_a_sentence() -> None:
    said = refusal(make_host("sqlite://"))
    assert "needs PostgreSQL through psycopg 3, and this app's database is sqlite" in said


def test_another_driver_is_refused_with_the_url_to_write() -> None:
    said = refusal(make_host("postgresql+psycopg_async://nobody@127.0.0.1:1/nothing"))
    assert "through psycopg 3, and this app's database is postgresql through psycopg, async" in said
    assert "postgresql+psycopg://" in said


@pytest.mark.parametrize("name", ["access", "display"])
def test_no_policy(name: str) -> None:
    said = refusal(make_host(), **{name: None})
    assert f"pass {name}=…" in said
    assert "flask opsjobs install" in said


def test_a_policy_that_lacks_a_method() -> None:
    class Half:
        def current_actor(self) -> None:
            return None

    assert "the access policy Half lacks can of AccessPolicy" in refusal(make_host(), access=Half())


@pytest.mark.parametrize("name", ["access", "display"])
def test_a_policy_given_as_a_class(name: str) -> None:
    kind = {"access": AllowAll, "display": ShowAll}[name]
    said = refusal(make_host(), **{name: kind})
    assert f"the {name} policy {kind.__name__} is a class" in said
    assert f"pass an object of it, {kind.__name__}()" in said


class _Pager:
    def escalate(self, facts: Any) -> str | None:
        return None


class _Mute:
    def escalate(self) -> None: ...


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (_Pager, "the escalation policy _Pager is a class: pass an object of it, _Pager()"),
        (object(), "the escalation policy object lacks escalate of EscalationPolicy"),
        (
            _Mute(),
            "the escalation policy _Mute has a method escalate that does not take 1 argument",
        ),
    ],
)
def test_an_escalation_policy_that_is_none(given: Any, sentence: str) -> None:
    assert sentence in refusal(make_host(), escalation=given)


def test_the_escalation_policy_may_be_left_out_and_given_at_either_place() -> None:
    pager = _Pager()
    policies: dict[str, Any] = {"access": AllowAll(), "display": ShowAll()}
    for at_first, later, found in ((None, None, None), (pager, None, pager), (None, pager, pager)):
        app = make_host()
        opsjobs = OpsJobs(escalation=at_first)
        opsjobs.init_app(app, escalation=later, **policies)
        assert app.extensions["opsjobs"].escalation is found


def test_a_policy_that_cannot_be_asked_about_a_subject() -> None:
    class Old:
        def current_actor(self) -> None:
            return None

        def can(self, actor: str, permission: str) -> bool:
            return True

    said = refusal(make_host(), access=Old())
    assert "the access policy Old has a method can that does not take 3 arguments" in said
    assert "write def can(self, actor, permission, subject)" in said


def test_a_policy_whose_methods_take_anything_is_taken() -> None:
    class Any_:
        def current_actor(self, *_: Any) -> None:
            return None

        def can(self, *args: Any, **more: Any) -> bool:
            return True

    join(make_host(), access=Any_())


def test_hooks_of_child_processes() -> None:
    hooks = {"child_started": print, "after_each_job": repr, "child_leaving": id}
    app = make_host()
    join(app, **hooks)
    found = app.extensions["opsjobs"].child_hooks
    assert [found.started, found.after_each_job, found.leaving] == list(hooks.values())
    with pytest.raises(ConfigError, match="after_each_job is of type str: it must be a function"):
        join(make_host(), after_each_job="clear")


def test_no_secret_key() -> None:
    app = make_host()
    app.secret_key = None
    said = refusal(app)
    assert "SECRET_KEY is not set" in said
    assert "secrets.token_hex()" in said


@pytest.mark.parametrize(
    ("config", "fault"),
    [
        ({"SECRET_KEY": 990_071}, "SECRET_KEY is of type int: it must be text or bytes"),
        (
            {"SECRET_KEY_FALLBACKS": "990071"},
            "SECRET_KEY_FALLBACKS is of type str: it must be a list",
        ),
        ({"SECRET_KEY_FALLBACKS": [990_071]}, "a key of SECRET_KEY_FALLBACKS is of type int"),
        ({"SECRET_KEY_FALLBACKS": [""]}, "a key of SECRET_KEY_FALLBACKS is of type str: it must"),
    ],
)
def test_a_secret_key_that_is_no_text_is_refused_without_showing_it(
    config: dict[str, Any], fault: str
) -> None:
    app = make_host()
    app.config.update(config)
    said = refusal(app)
    assert fault in said
    assert "990071" not in said


def test_an_unknown_key_is_named_beside_the_known_ones() -> None:
    said = refusal(make_host(OPSJOBS_HEARTBEATS=3))
    assert "OPSJOBS_HEARTBEATS is not a setting" in said
    assert "OPSJOBS_HEARTBEAT_SECONDS" in said


def test_of_a_misspelt_key_only_the_key_that_it_may_mean_is_named() -> None:
    said = refusal(make_host(OPSJOBS_REDIS_UR="redis://127.0.0.1:1"))
    assert (
        "OPSJOBS_REDIS_UR is not a setting of flask_opsjobs: did you mean OPSJOBS_REDIS_URL?"
        in said
    )
    assert "OPSJOBS_HEARTBEAT_SECONDS" not in said
    assert "known are OPSJOBS_" in refusal(make_host(OPSJOBS_XYZZY_FROBNICATE=3))


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("OPSJOBS_URL_PREFIX", "ops", "leading"),
        ("OPSJOBS_URL_PREFIX", "/", "without a trailing slash"),
        ("OPSJOBS_URL_PREFIX", "/ops jobs", "of letters, digits"),
        ("OPSJOBS_URL_PREFIX", "/ops/jobs\n", "of letters, digits"),
        ("OPSJOBS_URL_PREFIX", "/<tenant>/jobs", "of letters, digits"),
        ("OPSJOBS_URL_PREFIX", "/ops?x=1", "of letters, digits"),
        ("OPSJOBS_URL_PREFIX", "/ops//jobs", "of letters, digits"),
        ("OPSJOBS_URL_PREFIX", "/ops/../jobs", "without the segments '.' and '..'"),
        ("OPSJOBS_HEARTBEAT_SECONDS", "10", "a number from"),
        ("OPSJOBS_PREFETCH", 0, "a whole number from 1"),
        ("OPSJOBS_RESCUE", "maybe", "'automatic'"),
        ("OPSJOBS_DISPATCH", 1, "True or False"),
        ("OPSJOBS_BIND", "", "non-empty"),
        ("OPSJOBS_VERSION", "", "printable text of 1 to 200 characters"),
        ("OPSJOBS_VERSION", "v" * 201, "printable text of 1 to 200 characters"),
        ("OPSJOBS_VERSION", "1\n", "printable text of 1 to 200 characters"),
        ("OPSJOBS_VERSION", " 1", "without spaces around it"),
        ("OPSJOBS_VERSION", 2026.1, "needs quotes in the environment"),
        ("OPSJOBS_VERSION", True, "printable text"),
        ("OPSJOBS_VERSION", "next", "another word, because failures are resolved in"),
        ("OPSJOBS_MAY_STAY", "sentry", "a list of non-empty strings"),
        ("OPSJOBS_RESERVE_MOST", 801, "a whole number from 1 to 800"),
        ("OPSJOBS_RESERVE_SECONDS", float("nan"), "a number from 0 to 60"),
    ],
)
def test_a_malformed_value_is_shown_with_what_is_allowed(
    key: str, value: Any, allowed: str
) -> None:
    said = refusal(make_host(**{key: value}))
    assert f"{key} = {value!r}" in said
    assert allowed in said


@pytest.mark.parametrize("value", [None, "2026.11.3", "é", "v" * 200, 20261126])
def test_the_version_of_the_host(value: Any) -> None:
    app = make_host(OPSJOBS_VERSION=value)
    join(app)
    assert app.extensions["opsjobs"].settings.version == (None if value is None else str(value))


def test_all_faults_are_said_at_once() -> None:
    said = refusal(make_host(OPSJOBS_HEARTBEATS=3, OPSJOBS_RESCUE="maybe"))
    assert "OPSJOBS_HEARTBEATS" in said
    assert "OPSJOBS_RESCUE" in said


def test_times_that_contradict_each_other() -> None:
    assert "OPSJOBS_LATE_SECONDS" in refusal(make_host(OPSJOBS_LATE_SECONDS=300))


def test_a_bind_that_the_app_does_not_have() -> None:
    assert "OPSJOBS_BIND = 'jobs' is not a bind of this app: leave it out, or" in refusal(
        make_host(OPSJOBS_BIND="jobs")
    )


def test_a_second_init() -> None:
    app = make_host()
    join(app)
    assert "already initialised" in refusal(app)


def test_two_apps_may_share_one_extension() -> None:
    opsjobs = OpsJobs(access=AllowAll(), display=ShowAll())
    one, two = make_host(), make_host(OPSJOBS_ENVIRONMENT="other")
    opsjobs.init_app(one)
    opsjobs.init_app(two)
    with two.app_context():
        assert opsjobs.host.settings.environment == "other"


def test_outside_of_an_app_that_has_it() -> None:
    opsjobs = OpsJobs()
    with make_host().app_context(), pytest.raises(RuntimeError, match=r"call opsjobs\.init_app"):
        _ = opsjobs.host


def test_jobs_on_another_bind(database_url: str, make_app: Any, opsjobs: OpsJobs) -> None:
    app = make_app(
        opsjobs=opsjobs,
        SQLALCHEMY_DATABASE_URI="sqlite://",
        SQLALCHEMY_BINDS={"jobs": database_url},
        OPSJOBS_BIND="jobs",
    )

    @opsjobs.task
    def note(text: str = "") -> None:
        """Takes a text."""

    with app.app_context():
        enqueued = note.enqueue(text="there")
        app.extensions["sqlalchemy"].session.commit()
    assert enqueued.state == "available"


@pytest.mark.parametrize(
    ("name", "wrap"),
    [("REDIS_URL", lambda url: url), ("RQ_REDIS_URLS", lambda url: {"reports": url})],
)
@pytest.mark.parametrize(
    "url", ["nonsense", "http://x", 7, "redis://:s3cr/et@localhost:6379/0", "redis://host:port/0"]
)
def test_a_wrong_url_of_redis_stops_the_app_and_is_not_shown(
    name: str, wrap: Any, url: object, make_app: MakeApp
) -> None:
    with pytest.raises(ConfigError, match=f"OPSJOBS_{name} is not allowed") as caught:
        make_app(**{f"OPSJOBS_{name}": wrap(url)})
    assert "s3cr" not in f"{caught.value}"
