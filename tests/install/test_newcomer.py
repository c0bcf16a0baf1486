"""From an empty app to a recorded job, typing what the installer and the docs say and nothing else."""

from __future__ import annotations

import textwrap

from flask_opsjobs.db import SCHEMA_VERSION

from .conftest import Newcomer

ENQUEUE = """
from app import app, db, opsjobs

@opsjobs.worker
def greet(name: str) -> None: ...

with app.app_context():
    job = greet.enqueue("you")
    db.session.commit()
    print(job.state, app.test_client().get("/ops/jobs/").status_code)
"""


def test_from_an_empty_app_to_a_recorded_job(newcomer: Newcomer) -> None:
    newcomer.does("db", "init")
    newcomer.adds(printed_lines(newcomer.does("opsjobs", "install")))
    code, said = newcomer.types("opsjobs", "install", "--check")
    assert code == 1, said
    due = f"the database has opsjobs schema 0, {SCHEMA_VERSION} is due: run `flask db upgrade`"
    assert due in said

    newcomer.does("db", "upgrade")
    newcomer.does("opsjobs", "install", "--check")
    # The starter policy denies everyone.
    assert newcomer.runs(ENQUEUE).split() in (["available", "403"], ["queued", "403"])


def printed_lines(said: str) -> str:
    """The lines that the installer asks to add, as they are printed."""
    return textwrap.dedent(said.split("Add to app.py:")[1].split("Then run")[0])


def test_a_second_install_changes_nothing(installed: Newcomer) -> None:
    before = installed.files()
    assert "written  " not in installed.does("opsjobs", "install")
    assert installed.files() == before


def test_migrate_sees_the_hosts_own_changes_only(installed: Newcomer) -> None:
    said = installed.does("db", "migrate", "-m", "users")
    assert "Detected added table 'user'" in said
    assert "opsjobs" not in said.replace(str(installed.folder), "")
    installed.does("db", "upgrade")
    assert "No changes in schema detected" in installed.does("db", "migrate")


def test_a_host_can_go_back(installed: Newcomer) -> None:
    installed.does("db", "downgrade")
    code, said = installed.types("opsjobs", "install", "--check")
    assert code == 1
    assert "the database has opsjobs schema 0" in said


def test_check_says_so_when_the_database_is_away(installed: Newcomer) -> None:
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
    code, said = installed.types(
        "opsjobs", "install", "--check", env={"HOST_SQLALCHEMY_DATABASE_URI": nowhere}
    )
    assert code == 1, said
    assert "the database does not answer, so its schema is unknown" in said
    assert "Traceback" not in said
