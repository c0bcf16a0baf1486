"""The guide *Recipes for access policies*: each over every page and action, and what it does not hide."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from flask_opsjobs import ActionRefused, OpsJobs
from flask_opsjobs.jobs.models import Job
from flask_opsjobs.web.app.urls import Url
from tests.support.sources import ROOT
from tests.web.every import GUARDED, PREFIX, form_of, good, path_of
from tests.web.rows import make_job

RECIPES = dict(
    re.findall(
        r"^## (.+?)\n.*?^```python\n(.*?)^```",
        (ROOT / "docs/policies.md").read_text(),
        re.MULTILINE | re.DOTALL,
    )
)
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin"}
# Another person made the preview; the form of a cron entry needs payload too.
# The preview is opened by who may retry, and executed with a token of their own.
OF_ANOTHER = {"preview", "preview_execute"}
NEEDS_PAYLOAD = {"cron_change", "cron_change_runs", "cron_edit"}


class Recipe:
    """A host with the policy of a recipe, whose person the test chooses."""

    def __init__(self, name: str, make_app: Callable[..., Flask], opsjobs: OpsJobs) -> None:
        names: dict[str, Any] = {}
        exec(compile(RECIPES[name], "docs/policies.md", "exec", dont_inherit=True), names)
        self.policy = names["HostAccess"]()
        self.actor: str | None = None
        self.policy.current_actor = lambda: self.actor
        self.app = make_app(opsjobs=opsjobs, access=self.policy)
        self.names = names

    def ask(self, url: Url, job: Job) -> Any:
        """What an URL about this job answers."""
        return self.app.test_client().open(
            path_of(url, job),
            method=url.methods[0],
            headers=SAME_ORIGIN,
            data=form_of(url, job),
        )

    def text(self, path: str) -> str:
        """A page or a file that opens."""
        answer = self.app.test_client().get(f"{PREFIX}{path}")
        assert answer.status_code == 200, path
        return answer.text


@pytest.fixture
def make_recipe(
    make_app: Callable[..., Flask], opsjobs: OpsJobs, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Recipe]:
    shop = ModuleType("shop")
    monkeypatch.setitem(sys.modules, "shop", shop)

    def make(name: str) -> Recipe:
        setattr(shop, "db", _Later())  # noqa: B010
        recipe = Recipe(name, make_app, opsjobs)
        recipe.names["db"] = recipe.app.extensions["sqlalchemy"]
        return recipe

    return make


class _Later:
    """Stands for the host's `db` until its app is made."""


def _require(
    recipe: Recipe, jobs: dict[str, Job], may: Callable[[str], bool], payload: bool
) -> None:
    """Every URL answers as the permission says, and no other way."""
    for url in GUARDED:
        status = recipe.ask(url, jobs["failed"]).status_code
        if url.endpoint in OF_ANOTHER:
            opens = url.endpoint == "preview" and may("job.retry")
            assert status in ((200,) if opens else (403, 404)), url.endpoint
        elif (url.permission is not None and not may(url.permission)) or (
            url.endpoint in NEEDS_PAYLOAD and not payload
        ):
            assert status == 403, (recipe.actor, url.endpoint)
        else:
            assert status == good(url), (recipe.actor, url.endpoint)


def test_roles(make_recipe: Callable[[str], Recipe], jobs: dict[str, Job]) -> None:
    recipe = make_recipe("Roles")
    roles: dict[str, tuple[Callable[[str], bool], bool]] = {
        "vera": (lambda permission: permission.endswith(".view"), False),
        "otto": (lambda permission: not permission.endswith(".delete"), True),
        "ada": (lambda _: True, True),
        "stranger": (lambda _: False, False),
    }
    for recipe.actor, (may, payload) in roles.items():
        _require(recipe, jobs, may, payload)
    _hides_payload_and_shows_names(recipe, "vera", "otto", jobs)


def test_payload_apart(make_recipe: Callable[[str], Recipe], jobs: dict[str, Job]) -> None:
    recipe = make_recipe("Payload apart")
    people: dict[str, tuple[Callable[[str], bool], bool]] = {
        "otto": (lambda _: True, False),
        "petra": (lambda permission: permission.endswith(".view"), True),
        "stranger": (lambda _: False, False),
    }
    for recipe.actor, (may, payload) in people.items():
        _require(recipe, jobs, may, payload)
    _hides_payload_and_shows_names(recipe, "otto", "petra", jobs)


def _hides_payload_and_shows_names(
    recipe: Recipe, without: str, holder: str, jobs: dict[str, Job]
) -> None:
    pages = (f"/jobs/{jobs['failed'].id}", "/jobs", "/jobs.ndjson")
    for path in pages:
        recipe.actor = without
        hidden = recipe.text(path)
        assert "GatewayTimeout" not in hidden
        assert "send_invoice" in hidden, "names are not hidden"
        recipe.actor = holder
        assert "GatewayTimeout" in recipe.text(path)


def test_one_queue_for_each_team(
    make_recipe: Callable[[str], Recipe],
    session: Session,
    jobs: dict[str, Job],
    opsjobs: OpsJobs,
) -> None:
    assert jobs
    args = {"secret": "zqpayloadqz"}
    own, other = (
        make_job(session, "failed", queue=queue, args=args) for queue in ("mail", "billing")
    )
    session.commit()
    recipe = make_recipe("One queue for each team")
    recipe.actor = "mia"
    for url in GUARDED:
        mine, theirs = (recipe.ask(url, job).status_code for job in (own, other))
        is_about_one = "<" in url.rule and "<view_id>" not in url.rule
        if url.permission is None:
            continue
        if url.permission not in (recipe.names["OWN"] if is_about_one else recipe.names["LISTS"]):
            assert (mine, theirs) == (403, 403), url.endpoint
        elif is_about_one:
            assert (mine, theirs) == (good(url), 403), url.endpoint
        elif url.kind != "action":
            assert (mine, theirs) == (good(url), good(url)), url.endpoint

    # A list is asked once: it shows all rows, and no payload.
    for path in ("/jobs", "/jobs.csv", "/jobs.ndjson"):
        text = recipe.text(path)
        assert "mail" in text
        assert "billing" in text, "rows of others are not hidden"
        assert "zqpayloadqz" not in text
    assert "zqpayloadqz" in recipe.text(f"/jobs/{own.id}")

    # An action of a list is asked again for each job.
    with recipe.app.app_context():
        with pytest.raises(ActionRefused):
            opsjobs.operator.retry(other.id, actor="mia", reason="because it is a test")
        assert opsjobs.operator.retry(own.id, actor="mia", reason="because it is a test").is_done
