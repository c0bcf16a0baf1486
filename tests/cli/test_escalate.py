"""`flask opsjobs escalate --test`: the example that the policy gets, what is printed, and the exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask

from tests.support import escalating
from tests.support.escalating import Acting, HideSecret

pytestmark = pytest.mark.processes
NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"


@pytest.fixture
def policy(tmp_path: Path) -> Acting:
    return Acting(tmp_path)


@pytest.fixture
def shop(make_app: Callable[..., Flask], policy: Acting) -> Flask:
    """A host whose Postgres and Redis are away."""
    return make_app(
        display=HideSecret(),
        escalation=policy,
        SQLALCHEMY_DATABASE_URI=NOWHERE,
        OPSJOBS_REDIS_URL="redis://127.0.0.1:1/0",
        OPSJOBS_ENVIRONMENT="production",
    )


def run(app: Flask, *words: str) -> Result:
    return app.test_cli_runner().invoke(args=["opsjobs", "escalate", *words])


def test_it_prints_the_reference(shop: Flask, policy: Acting) -> None:
    done = run(shop, "--test")
    assert (done.exit_code, done.stdout) == (0, "invoked: reference TICKET-None\n")
    (facts,) = policy.told()
    assert facts["is_test"] is True
    assert facts["key"].startswith("test/")
    assert facts["title"] == "Test of the escalation: nothing is wrong"
    assert facts["environment"] == "production"


@pytest.mark.parametrize(
    ("act", "exit_code", "output"),
    [
        ("returns_nothing", 0, "invoked: it returned no reference\n"),
        ("returns_a_secret", 0, "invoked: reference ticket [hidden]\n"),
        ("returns_controls", 0, "invoked: reference a\ufffdb\\x1b[31m\\nc\ufffd\n"),
        (
            "ends_its_process",
            1,
            "failed: its process ended with exit code 3 and gave no answer\n",
        ),
    ],
)
def test_it_says_why_not(
    shop: Flask, policy: Acting, act: str, exit_code: int, output: str
) -> None:
    policy.act(act)
    done = run(shop, "--test")
    assert (done.exit_code, done.output) == (exit_code, output)


@pytest.mark.parametrize(
    ("act", "says", "line"),
    [
        ("raises", "RuntimeError: the pager says [hidden]", "raise RuntimeError(f"),
        ("looks_up_a_missing_key", "KeyError: 'x'", 'return {}["x"]'),
        ("raises_in_a_library", "JSONDecodeError: Expecting value", 'json.loads("no json")'),
    ],
)
def test_it_says_in_which_line_the_policy_raised(
    shop: Flask, policy: Acting, act: str, says: str, line: str
) -> None:
    policy.act(act)
    done = run(shop, "--test")
    assert done.exit_code == 1
    said, _, number = done.output.rstrip().rpartition(":")
    assert said.startswith(f"failed: {says}")
    assert said.endswith(f", at {escalating.__file__}")
    assert line in Path(escalating.__file__).read_text().splitlines()[int(number) - 1]


def test_each_test_has_its_own_key(shop: Flask, policy: Acting) -> None:
    run(shop, "--test")
    run(shop, "--test")
    assert len({facts["key"] for facts in policy.told()}) == 2


def test_without_a_policy(make_app: Callable[..., Flask]) -> None:
    done = run(make_app(SQLALCHEMY_DATABASE_URI=NOWHERE), "--test")
    assert done.exit_code == 2
    assert done.output.startswith("unconfigured: the application has no escalation policy")


def test_it_wants_to_be_a_test(shop: Flask, policy: Acting) -> None:
    done = run(shop)
    assert done.exit_code == 2
    assert "give --test" in done.output
    assert policy.told() == []
