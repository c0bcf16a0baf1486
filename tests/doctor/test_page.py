"""The page and the command say the same; JSON is as scripts know it; a GET of the page writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request

from tests.conftest import MakeApp
from tests.doctor.conftest import SignedOut
from tests.support.policies import ShowAll
from tests.web.every import soup

EXAMPLE = Path(__file__).parent / "example.json"


class _ByHeader(SignedOut):
    """Whoever says a name in a header is signed in."""

    def current_actor(self) -> str | None:
        return request.headers.get("X-Name")


@pytest.fixture
def app(make_well: MakeApp) -> Flask:
    """A host with a weak key, about which it wants to hear nothing, and a policy that hides nothing."""
    return make_well(
        access=_ByHeader(),
        display=ShowAll(),
        SECRET_KEY="short",
        OPSJOBS_DOCTOR_SILENCE=["config.secret_key"],
    )


def _command(app: Flask, *words: str) -> dict[str, Any]:
    done = app.test_cli_runner().invoke(args=["opsjobs", "doctor", "--json", *words])
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["exit_code"] == done.exit_code
    return found


def test_the_page_says_what_the_command_says(app: Flask) -> None:
    response = app.test_client().get("/ops/jobs/doctor", headers={"X-Name": "ada"})
    assert response.status_code == 200
    tree, said = soup(response.text), _command(app)
    assert f"exits with {said['exit_code']}" in tree.select_one(".lead").text
    assert said["headline"] in tree.select_one(".say").text
    shown = {
        row.select_one("code").text: " ".join(row.text.split()) for row in tree.select(".check")
    }
    assert sorted(shown) == sorted(each["id"] for each in said["checks"])
    for each in said["checks"]:
        assert each["sentence"].replace("`", "") in shown[each["id"]], each
        if each["state"] == "skipped" and not each["because"]:
            reason = each["sentence"].replace("`", "")
            assert shown[each["id"]] == f"{each['id']} Skipped: {reason}"
            # What is muted begins on a line of its own.
            assert not tree.select_one(f'.check:has(code:-soup-contains("{each["id"]}")) .mute')
    assert (
        "Silenced by OPSJOBS_DOCTOR_SILENCE. It answers with warning" in shown["config.secret_key"]
    )


def test_json_is_as_scripts_know_it(app: Flask) -> None:
    ids = ("config.app", "config.secret_key", "display.shapes", "schema.autogenerate")
    found = _command(app, *(word for id_ in ids for word in ("--only", id_)))
    assert set(found["versions"]) == {
        "flask-opsjobs",
        "rq",
        "flask",
        "sqlalchemy",
        "psycopg",
        "python",
        "schema",
    }
    # What differs from run to run.
    found |= {"at": "2026-11-27T14:02:10.000000+00:00", "took_seconds": 0.1, "versions": {}}
    for each in found["checks"]:
        each["took_seconds"] = 0.01
    assert found == json.loads(EXAMPLE.read_text())
