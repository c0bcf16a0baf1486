"""The sixty seconds of README, followed in an empty folder, and what a wrong line in them does."""

from __future__ import annotations

import time
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.newcomer.walk import Walk
from tests.support.sources import ROOT
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.processes, pytest.mark.slow(30)]

README = (ROOT / "README.md").read_text()
SECTION = "Sixty seconds for your own app"
# Up to where the access policy is replaced.
BEFORE, POLICY = README.partition("The job has run, and")[::2]


@pytest.mark.lane
def test_sixty_seconds_lead_to_a_job_and_its_page(
    walk: Walk, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    walk.follows(BEFORE, SECTION)
    assert walk.unnamed == set()
    wait_until(lambda: "finished" in walk.types("flask opsjobs why 1")[1], 60, what="job 1 has run")
    with pytest.raises(HTTPError, match="403"):
        visit(walk)
    web = walk.started[-1]
    assert web.terminate() is not None
    walk.follows(f"\n## {SECTION}\n{POLICY}", SECTION)
    walk.starts("flask run")
    assert visit(walk) == 200
    lasted = time.monotonic() - began
    with capsys.disabled():
        print(f"\nthe sixty seconds of README take {lasted:.0f} s without what pip downloads")
    code, said = walk.types("flask opsjobs doctor")
    troubles = [line.split()[:2] for line in said.splitlines() if line.startswith(("warn", "err"))]
    assert code == 2
    assert troubles == [["error", "access.open"], ["warning", "config.secret_key"]], said


def visit(walk: Walk) -> int:
    """How the pages answer."""
    with urlopen(f"http://{walk.address}/ops/jobs/", timeout=30) as answer:
        return int(answer.status)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("export FLASK_SQLALCHEMY_DATABASE_URI=", "export FLASK_SQLALCHEMY_DATABASE_URL="),
        ("$ flask db init  ", "$ flask db initialize  "),
        (
            '$ pip install "/path/to/flask_opsjobs[binary]"',
            '$ pip install "/path/to/flask_opsjobs[binry]"',
        ),
    ],
)
def test_a_wrong_line_is_found(walk: Walk, right: str, wrong: str) -> None:
    assert BEFORE.count(right) == 1
    with pytest.raises(AssertionError):
        walk.follows(BEFORE.replace(right, wrong), SECTION)


def test_what_the_page_does_not_install_is_not_there(walk: Walk) -> None:
    page = (ROOT / "docs/first-app.md").read_text()
    assert page.count(" flask-login\n") == 1
    walk.follows(page.replace(" flask-login\n", "\n"), "Begin")
    code, said = walk.types("flask db init")
    assert code != 0
    assert "No module named 'flask_login'" in said
    code, said = walk.types("python -c 'import flask_opsjobs, rq_dashboard, psycopg'")
    assert (code, said) == (0, "")
    code, said = walk.types("python -c 'import prometheus_client'")
    assert "No module named 'prometheus_client'" in said
