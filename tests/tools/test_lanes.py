"""Test lanes: what they are run on, how a run is judged, and what is written of it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tomllib
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner
from packaging.version import Version
from redis import Redis
from sqlalchemy import make_url

from tests.support.sources import ROOT
from tools.lanes import LANES, RESULTS, Lane, environment, floors
from tools.lanes.__main__ import lanes as command
from tools.lanes.results import Row, judge, merged, read, written

TODAY = date(2026, 11, 27)
# What a row of the table tells, beside Python and the servers.
TOLD = ("rq", "flask", "sqlalchemy", "psycopg", "pydantic")


@pytest.mark.lane
def test_this_run_has_the_versions_of_its_lane(
    record_property: Callable[[str, object], None], database_url: str, redis_client: Redis
) -> None:
    found = {"python": platform.python_version(), **servers(database_url, redis_client)}
    found |= {name: version(name) for name in TOLD}
    for name, each in found.items():
        record_property(name, each)
    lane = LANES.get(os.environ.get("OPSJOBS_LANE", ""), Lane("", ""))
    others = [name for name, begins in lane.expects.items() if not found[name].startswith(begins)]
    assert not others, found
    wrong = {
        name: f"{version(name)}, and the lowest is {floor}"
        for name, floor in floors.floors().items()
        if (Version(version(name)) < floor)
        or ({"*", name} & {*lane.lowest} and Version(version(name)) != floor)
    }
    assert wrong == {}


def servers(database_url: str, redis_client: Redis) -> dict[str, str]:
    """The versions of PostgreSQL and of Valkey or Redis."""
    dsn = make_url(database_url).set(drivername="postgresql")
    with psycopg.connect(dsn.render_as_string(hide_password=False)) as session:
        (postgresql,) = session.execute("SHOW server_version").fetchone()
    told = redis_client.info("server")
    name = told.get("server_name", "redis")
    return {"postgresql": postgresql.split()[0], name: told.get(f"{name}_version")}


# --- the lowest versions


def test_each_dependency_has_a_lowest_version_and_each_extra_is_known() -> None:
    assert floors.floors()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {*project["optional-dependencies"]} == {*floors.EXTRAS, "docs", "dev"}


def pyproject(folder: Path, text: str) -> None:
    """Write one with the extras that lanes install."""
    extras = "".join(f"{extra} = []\n" for extra in floors.EXTRAS[1:])
    (folder / "pyproject.toml").write_text(
        f'[project]\nname = "us"\n{text}\n[project.optional-dependencies]\n'
        f'{floors.EXTRAS[0]} = ["us[x]", "one[fast]>=1.4"]\n{extras}'
    )


def test_constraints_are_written_from_pyproject(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(floors, "ROOT", tmp_path)
    pyproject(tmp_path, 'dependencies = ["one>=1.2,<2", "two>=3"]')
    assert floors.constraints(["*"]) == "one==1.4\ntwo==3\n"
    assert floors.constraints(["two"]) == "two==3\n"
    with pytest.raises(ValueError, match="asks for none of three"):
        floors.constraints(["three"])
    pyproject(tmp_path, 'dependencies = ["one>=1.2", "two"]')
    with pytest.raises(ValueError, match="two has no lowest version"):
        floors.constraints(["*"])


# --- what is not there


def test_an_interpreter_that_is_not_there_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setitem(LANES, "python-3.99", Lane("python-3.99", "", python="3.99"))
    monkeypatch.setattr("tools.lanes.__main__.RESULTS", tmp_path / "lanes.toml")
    done = CliRunner().invoke(command, ["python-3.99"])
    assert done.output == "python-3.99: not run: no Python 3.99 on this machine\n"
    assert done.exit_code == 0
    (row,) = read(tmp_path / "lanes.toml")
    assert (row.result, row.passed, row.versions) == ("not run", 0, {})


@pytest.mark.processes
def test_an_interpreter_of_another_version_is_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stands at its place is asked: it may be a shim, or another version."""
    folder = tmp_path / "versions/3.99.1/bin"
    folder.mkdir(parents=True)
    (folder / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    with pytest.raises(environment.NotThere):
        environment.find_python("3.99")
    (folder / "python").unlink()
    (folder / "python").write_text("#!/bin/sh\necho Python 3.99.1\n")
    (folder / "python").chmod(0o755)
    assert environment.find_python("3.99") == str(folder / "python")


def test_a_package_that_debian_does_not_have_is_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(environment, "debian_version", lambda package: "")
    lane = Lane("postgres-99", "", debian=("postgresql-99",))
    with (
        pytest.raises(environment.NotThere, match=r"as root, apt-get install .* postgresql-99"),
        environment.prepared(lane),
    ):
        pass


@pytest.mark.processes
def test_a_lane_asked_for_that_could_not_run_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_pypi: None
) -> None:
    """As `make check` asks for the lowest versions: without network nothing would be shown."""
    monkeypatch.setattr(environment, "FOLDER", tmp_path)
    done = CliRunner().invoke(command, ["newest", "--only-run"])
    assert "newest: not run: its packages cannot be installed: " in done.output
    assert done.output.endswith("Error: not passed: newest\n")
    assert done.exit_code == 1


def test_an_unknown_lane_is_named_with_those_that_there_are() -> None:
    done = CliRunner().invoke(command, ["postgres-9"])
    assert done.exit_code == 1
    assert "no lane postgres-9. The lanes are newest, lowest," in done.output


# --- the judgement

TESTS = {
    "passes": "def test_it(record_property): record_property('python', '3.11.7')",
    "silent": "def test_it(): pass",
    "fails": "def test_it(record_property): record_property('python', '3.11.7'); assert False",
    "skips": "import pytest\ndef test_it(): pytest.skip('nothing here')",
    "empty": "",
    "breaks": "import nothing_of_that_name",
}


@pytest.mark.slow
@pytest.mark.processes
@pytest.mark.parametrize(
    ("test", "result", "why"),
    [
        ("passes", "passed", ""),
        ("silent", "failed", "no test told which versions it ran on"),
        ("fails", "failed", "test_fails::test_it"),
        ("skips", "failed", "no test told which versions it ran on"),
        ("empty", "failed", "pytest ended with 5"),
        ("breaks", "failed", "::test_breaks"),
    ],
)
def test_a_run_is_judged_by_its_report(tmp_path: Path, test: str, result: str, why: str) -> None:
    report = tmp_path / "report.xml"
    (tmp_path / f"test_{test}.py").write_text(TESTS[test])
    words = ["-q", "-p", "no:opsjobs", "-p", "no:cacheprovider", f"--junit-xml={report}"]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            *words,
            "-c",
            os.devnull,
            f"--rootdir={tmp_path}",
            str(tmp_path),
        ],
        capture_output=True,
        check=False,
    )
    row = judge("newest", TODAY, done.returncode, report)
    assert (row.result, row.why) == (result, why), done.stdout.decode()
    assert (row.passed == 1) == (test in ("passes", "silent"))


def test_a_run_that_ended_before_its_report_has_failed(tmp_path: Path) -> None:
    row = judge("newest", TODAY, -9, tmp_path / "report.xml")
    assert (row.result, row.why) == ("failed", "pytest ended with -9, before its report")


@pytest.mark.processes
def test_a_row_says_on_which_commit_its_lane_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, git: Callable[..., str]
) -> None:
    results = tmp_path / "docs/lanes.toml"
    results.parent.mkdir()
    monkeypatch.setattr("tools.lanes.__main__.ROOT", tmp_path)
    monkeypatch.setattr("tools.lanes.__main__.RESULTS", results)
    row = Row("newest", TODAY, "passed")
    monkeypatch.setattr("tools.lanes.__main__.run", lambda lane, processes: row)

    def found() -> str:
        assert CliRunner().invoke(command, ["newest"]).exit_code == 0
        (row,) = read(results)
        return row.commit

    assert found() == ""
    git("init")
    (tmp_path / "pyproject.toml").write_text("")
    git("add", ".")
    git("commit", "-m", "Begin")
    commit = git("rev-parse", "--short=12", "HEAD")
    row.why = "so that the file changes"
    assert [found(), found()] == [commit, commit]
    (tmp_path / "pyproject.toml").write_text("[project]")
    assert found() == f"{commit}+"


def test_rows_are_written_and_read_again_in_the_order_of_the_lanes(tmp_path: Path) -> None:
    versions = {"python": "3.11.7", "rq": "3.0.0"}
    passed = Row("lowest", TODAY, "passed", "", "0a1b2c3d4e5f", 12, 0, 1, 30, versions)
    missing = Row("python-3.14", TODAY, "not run", why='no "Python 3.14"')
    gone = Row("python-2.7", TODAY, "passed")
    file = tmp_path / "lanes.toml"
    file.write_text(written([missing, gone]))
    rows = merged(read(file), passed)
    assert rows == [passed, missing]
    file.write_text(written(rows))
    assert read(file) == rows


def test_the_lane_of_the_lowest_versions_passed_on_those_of_today() -> None:
    """A version that is allowed since then, or no more, asks for another run."""
    (row,) = (row for row in read(RESULTS) if row.name == "lowest")
    assert row.result == "passed", "run make lane LANE=lowest"
    lowest = floors.floors()
    assert [Version(row.versions[name]) for name in TOLD] == [lowest[name] for name in TOLD]


def test_the_file_of_the_docs_is_one_that_the_lanes_wrote() -> None:
    rows = read(RESULTS)
    assert RESULTS.read_text() == written(rows)
    assert [row.name for row in rows] == [name for name in LANES if name in {r.name for r in rows}]
    assert all(row.why for row in rows if row.result != "passed")
