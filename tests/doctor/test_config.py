"""What is wrong with a configuration is found, and a sound one is not."""

from __future__ import annotations

from typing import Any

import pytest

from flask_opsjobs.install.starters.opsjobs_access import HostAccess
from flask_opsjobs.install.starters.opsjobs_display import HostDisplay
from tests.conftest import MakeApp
from tests.doctor.conftest import Ask, HideSecrets, SignedOut, shows
from tests.support.policies import AllowAll, ShowAll


class _Denies(AllowAll):
    """A demo signs everybody in as one person, who may do nothing."""

    def can(self, actor: str, permission: str, subject: str | None = None) -> bool:
        return False


class _Raises(SignedOut):
    def current_actor(self) -> str | None:
        raise RuntimeError("the directory is away")


class _WrongSignIn(SignedOut):
    def sign_in_url(self, next: str) -> str:
        return f"sign-in?next={next}"


class _RaisingDisplay(HideSecrets):
    def clean_text(self, text: str) -> str:
        raise ValueError(text)


CASES: list[tuple[str, dict[str, Any], dict[str, Any], str, str]] = [
    (
        "config.secret_key",
        {"SECRET_KEY": "a1b2c3d4e5f6a7b8"},
        {"SECRET_KEY": "a1b2c3d4e5f6a7b"},
        "warning",
        "it has 15 characters",
    ),
    (
        "config.debug",
        {"DEBUG": True, "OPSJOBS_ENVIRONMENT": "development"},
        {"DEBUG": True, "OPSJOBS_ENVIRONMENT": "production"},
        "error",
        "Flask's debugger is on in the environment production.",
    ),
    (
        "config.silence",
        {"OPSJOBS_DOCTOR_SILENCE": ["access.open"]},
        {"OPSJOBS_DOCTOR_SILENCE": ["access.opened"]},
        "warning",
        "names access.opened, which is no check",
    ),
    ("access.starter", {}, {"access": HostAccess()}, "warning", "still the starter"),
    (
        "access.open",
        {"access": _Denies()},
        {"access": AllowAll()},
        "error",
        "lets everybody in as tester, without a sign-in",
    ),
    ("access.open", {}, {"access": _Raises()}, "error", "The access policy raises"),
    (
        "access.sign_in",
        {},
        {"access": _WrongSignIn()},
        "warning",
        "gives no address",
    ),
    (
        "display.shapes",
        {"display": HostDisplay()},
        {"display": ShowAll()},
        "warning",
        "shows 8 kinds of secrets",
    ),
    (
        "display.shapes",
        {},
        {"display": _RaisingDisplay()},
        "error",
        "The display policy raises",
    ),
]


@pytest.mark.parametrize(
    ("check", "near_miss", "trouble", "level", "says"),
    [pytest.param(*case, marks=shows(case[0], case[3])) for case in CASES],
)
def test_it_is_found(
    check: str,
    near_miss: dict[str, Any],
    trouble: dict[str, Any],
    level: str,
    says: str,
    make_well: MakeApp,
    ask: Ask,
) -> None:
    assert ask(check, make_well(**near_miss)).state == "ok"
    found = ask(check, make_well(**trouble))
    assert (found.state, says in found.sentence) == (level, True), found
