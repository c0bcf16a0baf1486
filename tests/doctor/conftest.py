"""A host with which nothing is wrong, as far as one test process can be such a host."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from flask import Flask

from flask_opsjobs import OpsJobs
from flask_opsjobs.core.secret_patterns import clean_secrets
from flask_opsjobs.doctor.check import CheckAnswer
from flask_opsjobs.doctor.examination import examine
from flask_opsjobs.doctor.registry import CHECKS
from tests.conftest import MakeApp
from tests.support.policies import AllowAll, ShowAll

KEY = "0123456789abcdef-of-a-test"


class SignedOut(AllowAll):
    """Nobody is signed in."""

    actor = None


class HideSecrets(ShowAll):
    """Hides what looks like a secret."""

    def clean_text(self, text: str) -> str:
        return clean_secrets(text)


@pytest.fixture
def make_well(make_app: MakeApp) -> MakeApp:
    """Makes a host as `make_app` does, whose configuration is as it should be."""

    def make(**config: object) -> Flask:
        chosen = {"access": SignedOut(), "display": HideSecrets(), "SECRET_KEY": KEY, **config}
        return make_app(**chosen)

    return make


@pytest.fixture
def app(make_well: MakeApp, opsjobs: OpsJobs) -> Flask:
    """Such a host."""
    return make_well(opsjobs=opsjobs)


Ask = Callable[..., CheckAnswer]


def shows(check: str, *levels: str) -> pytest.MarkDecorator:
    """Marks the scenario of a check: in it it is `ok`, and answers with each of its levels, or of these.

    A mark that says too much fails its test; a check without a mark fails `test_scenarios.py`.
    """
    return pytest.mark.shows(check, levels or CHECKS[check].levels)


@pytest.fixture
def ask(request: pytest.FixtureRequest, app: Flask) -> Iterator[Ask]:
    """What one check answers: `ask("schema.version")`, or of another app `ask("…", app)`."""
    answered: set[tuple[str, str]] = set()

    def ask(check: str, of: Flask | None = None) -> CheckAnswer:
        (result,) = examine(of or app, only=[check]).results
        answered.add((check, result.answer.state))
        return result.answer

    yield ask
    marked = [mark.args for mark in request.node.iter_markers("shows")]
    wanted = {(check, state) for check, levels in marked for state in ("ok", *levels)}
    assert wanted <= answered, "the scenario does not show what it is marked with"
