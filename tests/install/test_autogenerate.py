"""Pitfall: a host's autogenerate drops our tables,
when it looks into all schemas or finds them on its path.
"""

from __future__ import annotations

import json

import pytest
from sqlalchemy.engine import make_url

from flask_opsjobs.install import autogenerate, env_file

from .conftest import Newcomer

pytestmark = pytest.mark.slow

ALL_SCHEMAS = {"MIGRATE": json.dumps({"include_schemas": True})}


def on_search_path(newcomer: Newcomer, path: str) -> dict[str, str]:
    """The environment of a host whose role finds tables on `path`."""
    url = make_url(newcomer.env["HOST_SQLALCHEMY_DATABASE_URI"])
    url = url.update_query_dict({"options": f"-csearch_path={path}"})
    return {"HOST_SQLALCHEMY_DATABASE_URI": url.render_as_string(hide_password=False)}


def shape(newcomer: Newcomer, name: str) -> dict[str, str]:
    """The environment of a host in which our tables are in danger."""
    if name == "include_schemas":
        return ALL_SCHEMAS
    return on_search_path(newcomer, name)


SHAPES = ["include_schemas", "public,opsjobs", "opsjobs,public"]


@pytest.fixture
def bare(installed: Newcomer) -> Newcomer:
    """Somebody whose env.py lacks our lines."""
    path = installed.folder / "migrations/env.py"
    source = path.read_text()
    assert env_file.LINES in source
    path.write_text(source.replace(env_file.LINES, ""))
    return installed


@pytest.mark.parametrize("name", SHAPES)
def test_with_the_lines_our_tables_are_left_alone(installed: Newcomer, name: str) -> None:
    env = shape(installed, name)
    code, said = installed.types("db", "migrate", env=env)
    assert code == 0, said
    assert "Detected removed" not in said
    code, said = installed.types("opsjobs", "install", "--check", env=env)
    assert "would drop" not in said, said


@pytest.mark.parametrize("name", SHAPES)
def test_without_them_they_are_dropped_and_check_fails(bare: Newcomer, name: str) -> None:
    env = shape(bare, name)
    code, said = bare.types("opsjobs", "install", "--check", env=env)
    assert code == 1, said
    why = "env.py says include_schemas=True" if name == "include_schemas" else "search_path has"
    assert f"`flask db migrate` would drop the tables of opsjobs, since {why}" in said
    code, said = bare.types("db", "migrate", env=env)
    assert "Detected removed table" in said


def test_check_is_content_where_it_does_not_matter(bare: Newcomer) -> None:
    said = bare.types("opsjobs", "install", "--check")[1]
    assert "missing  migrations/env.py" in said
    assert "would drop" not in said


JOBS = """
class Job(db.Model):
    __tablename__ = "jobs"
    id = db.Column(db.Integer, primary_key=True)
"""


def test_a_table_of_the_host_may_have_the_name_of_one_of_ours(installed: Newcomer) -> None:
    installed.adds(JOBS)
    env = on_search_path(installed, "public,opsjobs")
    assert "Detected added table 'jobs'" in installed.types("db", "migrate", env=env)[1]
    assert installed.types("db", "upgrade", env=env)[0] == 0
    assert "No changes in schema" in installed.types("db", "migrate", env=env)[1]
    # Now its own is the one on the path, and a change to it must be seen.
    installed.adds("    name = db.Column(db.Text)")
    assert "Detected added column 'jobs.name'" in installed.types("db", "migrate", env=env)[1]


def test_an_include_name_of_the_hosts_own_is_asked_after_ours() -> None:
    asked = []

    def own(name: str | None, kind: str, parents: object) -> bool:
        asked.append(name)
        return name != "left_out"

    both = autogenerate.passing_by(own)
    assert autogenerate.passing_by(both) is both
    assert both("opsjobs", "schema", {}) is False
    assert both("jobs", "table", {"schema_name": "opsjobs"}) is False
    assert both("left_out", "table", {"schema_name": "public"}) is False
    assert both("jobs", "table", {"schema_name": "public"}) is True
    assert both("id", "column", {"schema_name": "public", "table_name": "jobs"}) is True
    assert asked == ["left_out", "jobs", "id"]
