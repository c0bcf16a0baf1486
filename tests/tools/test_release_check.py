"""`make release-check`: each step sees a planted fault, says what to do, and stands in CONTRIBUTING.md."""

from __future__ import annotations

import io
import os
import re
import sys
import tarfile
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.sources import ROOT
from tools.lanes import LANES
from tools.lanes.results import Row, written
from tools.release_check import archives, runs, texts
from tools.release_check.__main__ import STEPS, release_check, take
from tools.release_check.step import Failed, NotRun, Release, Step

TODAY = date(2026, 11, 27)
FILES = {
    "flask_opsjobs/__init__.py": '__version__ = "1.2.3"\n',
    "pyproject.toml": "[project]\n[tool.hatch.metadata.hooks.custom]\n"
    'public-address = "https://forge.example/jobs"\n',
    "README.md": "Pin `flask-opsjobs ~= 1.2.0`.\n",
    "CHANGES.md": "# Changes\n\n## Unreleased\n\n## 1.2.3 (2026-11-27)\n\n- It is faster.\n",
    "static/vendor/htmx-2.0.11.min.js": "var htmx;",
    "static/vendor/htmx-LICENSE.txt": "htmx 2.0.11, unchanged. Its licence:\n",
}
WHEEL = {
    "flask_opsjobs/__init__.py": "",
    "flask_opsjobs/py.typed": "",
    "flask_opsjobs/static/vendor/htmx-LICENSE.txt": "",
    "flask_opsjobs-1.2.3.dist-info/licenses/LICENSE": "MIT",
}
SDIST = dict.fromkeys(
    ["pyproject.toml", "Makefile", "tests/conftest.py", "docs/index.md", "LICENSE"], ""
)


def make_release(
    folder: Path,
    files: dict[str, str],
    wheel: dict[str, str] = WHEEL,
    sdist: dict[str, str] = SDIST,
    version: str = "1.2.3",
) -> Release:
    """A checkout of these files, and two archives."""
    for name, text in (FILES | files).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "docs").mkdir(exist_ok=True)
    dist = folder / "dist"
    dist.mkdir()
    with zipfile.ZipFile(dist / f"flask_opsjobs-{version}-py3-none-any.whl", "w") as archive:
        for name, text in wheel.items():
            archive.writestr(name, text)
    with tarfile.open(dist / f"flask_opsjobs-{version}.tar.gz", "w:gz") as packed:
        for name, text in sdist.items():
            member = tarfile.TarInfo(f"flask_opsjobs-{version}/{name}")
            member.size = len(text.encode())
            packed.addfile(member, io.BytesIO(text.encode()))
    return Release(folder, dist)


READING = {
    step.name: step
    for step in STEPS
    if step.name in ("version", "changes", "licences", "wheel", "paths", "address")
}


@pytest.mark.parametrize("name", READING)
def test_a_release_as_it_should_be_has_no_fault(name: str, tmp_path: Path) -> None:
    assert list(READING[name].faults(make_release(tmp_path, {}))) == []


CHANGES = "# Changes\n\n## {}\n\n- It is faster.\n"


@pytest.mark.parametrize(
    ("step", "files", "fault"),
    [
        ("version", {"flask_opsjobs/__init__.py": '__version__ = "soon"'}, "the version is 'soon'"),
        ("version", {"flask_opsjobs/__init__.py": ""}, "the version is ''"),
        (
            "version",
            {"flask_opsjobs/__init__.py": '__version__ = "1.3.0"'},
            "is not of version 1.3.0",
        ),
        (
            "version",
            {"pyproject.toml": '[project]\nversion = "1.2.3"'},
            "a version of its own, 1.2.3",
        ),
        ("version", {"README.md": "`flask-opsjobs ~= 1.1.0`."}, "README.md: pins 1.1.0, not 1.2.0"),
        ("changes", {"CHANGES.md": CHANGES.format("Unreleased")}, "lines stand under Unreleased"),
        ("changes", {"CHANGES.md": CHANGES.format("1.2.3")}, "is not `## 1.2.3 (YYYY-MM-DD)`"),
        ("changes", {"CHANGES.md": CHANGES.format("1.2.2 (2026-01-01)")}, "is not `## 1.2.3"),
        ("changes", {"CHANGES.md": "## 1.2.3 (2026-11-27)\n"}, "the section of 1.2.3 says nothing"),
        ("changes", {"CHANGES.md": "# Changes\n"}, "is not `## 1.2.3 (YYYY-MM-DD)`"),
        (
            "changes",
            {"README.md": "# Us\n\nIt is small. There is no release\nyet.\n"},
            "README.md:3: There is no release yet.",
        ),
        (
            "changes",
            {"docs/a.md": "From the\nfirst release on."},
            "docs/a.md:1: From the first release",
        ),
        ("changes", {"docs/support.toml": 'claim = "Not released yet."'}, "docs/support.toml:1: "),
        (
            "changes",
            {"docs/a.md": '```console\n$ pip install "/path/to/us[binary]"\n```'},
            'docs/a.md:2: pip install "/path/to/us[binary]"',
        ),
        ("licences", {"static/vendor/d3-7.9.0.min.js": ""}, "has no d3-LICENSE.txt beside it"),
        ("licences", {"static/vendor/htmx-2.1.0.min.js": ""}, "does not name this version"),
        (
            "address",
            {"pyproject.toml": '[tool.hatch.metadata.hooks.custom]\npublic-address = ""'},
            "public-address is empty",
        ),
    ],
)
def test_a_planted_fault_in_a_text_is_found(
    step: str, files: dict[str, str], fault: str, tmp_path: Path
) -> None:
    found = list(READING[step].faults(make_release(tmp_path, files)))
    assert any(fault in each for each in found), found


def test_each_page_that_says_that_there_is_no_release_is_named_until_there_is_one() -> None:
    """The file *CHANGES* says whether there is one."""
    named = {
        fault.partition(":")[0] for fault in texts.changes_faults(Release(ROOT, ROOT / "dist"))
    }
    is_released = re.search(r"^## \d", (ROOT / "CHANGES.md").read_text(), re.MULTILINE)
    pages = {"README.md", "UPGRADING.md"}
    pages |= {
        f"docs/{name}" for name in ("install.md", "first-app.md", "comparison.md", "support.toml")
    }
    assert is_released or named >= {"CHANGES.md", *pages}


@pytest.mark.parametrize(
    "name", ["tests/conftest.py", "flask_opsjobs/tests/test_it.py", "docs/a.md"]
)
def test_what_does_not_belong_into_the_wheel_is_found(name: str, tmp_path: Path) -> None:
    release = make_release(tmp_path, {}, wheel=WHEEL | {name: ""})
    assert list(archives.wheel_faults(release)) == [f"the wheel has {name}"]


@pytest.mark.parametrize("name", [name for name in WHEEL if not name.endswith(".py")])
def test_what_the_wheel_lacks_is_found(name: str, tmp_path: Path) -> None:
    less = {each: text for each, text in WHEEL.items() if each != name}
    (fault,) = archives.wheel_faults(make_release(tmp_path, {}, wheel=less))
    assert fault.startswith("the wheel lacks ")
    assert name.endswith(fault.removeprefix("the wheel lacks "))


@pytest.mark.parametrize(
    "path", ["/home/{name}/jobs", "/Users/{name}", "C:\\Users\\{name}", "{root}/x", "{home}/x"]
)
def test_a_path_of_a_machine_is_found_in_each_archive(path: str, tmp_path: Path) -> None:
    # This file is in the sdist too, and the name stands apart from its path.
    text = f"see {path.format(name='mallory', root=tmp_path, home=Path.home())}"
    packed = make_release(
        tmp_path, {}, wheel=WHEEL | {"flask_opsjobs/a.py": text}, sdist=SDIST | {"a": text}
    )
    first, second = archives.path_faults(packed)
    assert ".whl: flask_opsjobs/a.py has the path" in first
    assert ".tar.gz: a has the path" in second


def test_the_names_of_examples_are_no_paths_of_a_machine(tmp_path: Path) -> None:
    text = "/home/ada/releases and /srv/shop"
    release = make_release(tmp_path, {}, sdist=SDIST | {"docs/a.md": text})
    assert list(archives.path_faults(release)) == []


def test_another_content_of_a_second_build_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = make_release(tmp_path, {})

    def build(root: Path, folder: Path) -> None:
        (folder / release.wheel.name).write_bytes(release.wheel.read_bytes())
        (folder / release.sdist.name).write_bytes(release.sdist.read_bytes() + b"now")

    monkeypatch.setattr(archives, "build", build)
    (fault,) = archives.same_hash_faults(release)
    assert release.sdist.name in fault


@pytest.mark.parametrize("name", SDIST)
def test_what_the_sdist_lacks_is_found_before_it_is_installed(name: str, tmp_path: Path) -> None:
    less = {each: text for each, text in SDIST.items() if each != name}
    (fault,) = runs.sdist_faults(make_release(tmp_path, {}, sdist=less))
    assert fault == f"the sdist lacks {name}"


# --- steps that run something


@pytest.mark.processes
def test_what_is_not_committed_is_found(tmp_path: Path, git: Callable[..., str]) -> None:
    release = Release(tmp_path, tmp_path / "dist")
    assert list(archives.committed_faults(release)) == [f"{tmp_path}: is not a git checkout"]

    git("init")
    (tmp_path / ".gitignore").write_text("dist/\n")
    (tmp_path / "module.py").write_text("")
    git("add", ".")
    git("commit", "-m", "Begin")
    release.dist.mkdir()
    (release.dist / "a.whl").write_text("")
    assert list(archives.committed_faults(release)) == []
    (tmp_path / ".env").write_text("SECRET=1")
    (tmp_path / "package").mkdir()
    (tmp_path / "package/new.py").write_text("")
    (tmp_path / "module.py").write_text("changed = 1")
    assert list(archives.committed_faults(release)) == [
        "module.py: is not committed",
        ".env: is not in git",
        "package/new.py: is not in git",
    ]
    inner = Release(tmp_path / "package", release.dist)
    assert list(archives.committed_faults(inner)) == [f"{inner.root}: is not a git checkout"]


@pytest.mark.processes
def test_a_lane_that_ran_on_other_code_is_named(tmp_path: Path, git: Callable[..., str]) -> None:
    git("init")
    for each in texts.CODE:
        (tmp_path / each).write_text("")
    git("add", ".")
    git("commit", "-m", "Begin")
    commit = git("rev-parse", "HEAD")
    rows = [
        Row("newest", TODAY, "passed", commit=commit),
        Row("lowest", TODAY, "passed", commit=f"{commit}+"),
        Row("rq-lowest", TODAY, "passed", commit="0" * 12),
        Row("python-3.11", TODAY, "passed"),
        Row("python-3.12", TODAY, "failed", commit=commit, why="test_it"),
        Row("python-3.14", TODAY, "not run", why="no Python 3.14 on this machine"),
    ]
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/lanes.toml").write_text(written(rows))
    release = Release(tmp_path, tmp_path / "dist")

    def named() -> dict[str, str]:
        return dict(each.split(": ", 1) for each in texts.stale_lanes(release))

    ran = f"ran on {TODAY}, "
    expected = {name: "not run" for name in LANES if name != "newest"} | {
        "lowest": f"{ran}on {commit} with changes that were not committed",
        "rq-lowest": f"{ran}on 000000000000, which this checkout does not have",
        "python-3.11": f"{ran}and its commit was not recorded",
        "python-3.12": "failed: test_it",
        "python-3.14": "not run: no Python 3.14 on this machine",
    }
    assert named() == expected
    (tmp_path / "docs/page.md").write_text("Another page.")
    assert named() == expected
    (tmp_path / "templates").write_text("changed")
    assert named()["newest"] == f"{ran}on {commit}, and the code has changed since"


@pytest.mark.processes
def test_a_build_that_fails_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "nothing_of_that_name"\n'
    )
    monkeypatch.setattr("tools.release_check.__main__.ROOT", tmp_path)
    done = CliRunner().invoke(release_check, ["version"])
    assert done.exit_code == 1
    assert "nothing_of_that_name" in done.output.partition("ended with 1:")[2]


@pytest.mark.processes
def test_a_wheel_that_cannot_be_installed_is_a_fault(tmp_path: Path) -> None:
    try:
        with pytest.raises(Failed, match=r"its packages cannot be installed: .*\.whl"):
            list(runs.journey_faults(make_release(tmp_path, {})))
    except NotRun as why:
        pytest.skip(str(why))


@pytest.mark.processes
def test_without_pypi_the_journey_is_not_run(tmp_path: Path, without_pypi: None) -> None:
    with pytest.raises(NotRun, match="its packages cannot be installed: "):
        list(runs.journey_faults(make_release(tmp_path, {})))


@pytest.mark.processes
def test_what_twine_refuses_is_found(tmp_path: Path) -> None:
    (fault,) = runs.twine_faults(make_release(tmp_path, {}))
    assert "ended with 1" in fault


@pytest.mark.slow
@pytest.mark.processes
def test_a_changed_step_is_found(tmp_path: Path) -> None:
    file = tmp_path / "tests/test_migrations.py"
    file.parent.mkdir()
    file.write_text("def test_a_step_never_changes(): assert 'hash' == 'another'")
    (fault,) = runs.pinned_faults(Release(tmp_path, tmp_path))
    assert "1 failed" in fault
    file.write_text("def test_of_another_name(): pass")
    (fault,) = runs.pinned_faults(Release(tmp_path, tmp_path))
    assert "1 deselected" in fault


@pytest.mark.slow(10)
@pytest.mark.processes
def test_an_sdist_whose_tests_fail_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each of four processes would load all plugins that are installed.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p xdist.plugin")
    (tmp_path / "tests").mkdir()
    test = tmp_path / "tests/test_it.py"
    test.write_text("import pytest\n@pytest.mark.lane\ndef test_it(): open('lacking')\n")
    (fault,) = runs.own_test_faults(Path(sys.executable), tmp_path)
    assert "1 failed" in fault
    test.write_text("import pytest\n")
    (fault,) = runs.own_test_faults(Path(sys.executable), tmp_path)
    assert "no tests ran" in fault


@pytest.mark.slow(10)
@pytest.mark.processes
def test_a_journey_that_does_not_arrive_is_found(tmp_path: Path) -> None:
    """In front of a PostgreSQL that does not answer."""
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
    try:
        (fault,) = runs.offline_faults([sys.executable, runs.JOURNEY, nowhere], tmp_path)
    except NotRun as why:
        pytest.skip(str(why))
    assert "Connection refused" in fault


@pytest.mark.processes
def test_a_journey_has_no_network(tmp_path: Path) -> None:
    script = (
        "import socket; print([name for _, name in socket.if_nameindex()]); raise SystemExit(3)"
    )
    try:
        (fault,) = runs.offline_faults([sys.executable, "-c", script], tmp_path)
    except NotRun as why:
        pytest.skip(str(why))
    assert fault.endswith("['lo']")


@pytest.mark.processes
def test_where_no_network_can_be_cut_off_it_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unshare = tmp_path / "unshare"
    unshare.write_text("#!/bin/sh\nexit 1\n")
    unshare.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(NotRun, match="unshare -rn is refused"):
        list(runs.offline_faults([sys.executable, "-c", ""], tmp_path))


# --- the list


def test_a_fault_is_printed_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuses(release: Release) -> list[str]:
        raise NotRun("no network here")

    release = Release(tmp_path, tmp_path)

    def cannot_be_built(release: Release) -> list[str]:
        raise Failed("ended with 1")

    fine = Step("a", "It is fine.", lambda release: [], "Nothing.")
    wrong = Step("b", "It is right.", lambda release: ["it is wrong"], "Mend it.")
    broken = Step("e", "It builds.", cannot_be_built, "Build it.")
    unasked = Step("c", "It runs.", refuses, "Let it run.")
    left = Step(
        "d", "Decided.", lambda release: ["nobody has"], "Decide.", is_left_to_a_person=True
    )
    assert take([fine, unasked, left], release)
    assert not take([fine, wrong], release)
    assert not take([broken], release)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "not run  c: no network here",
        "to do    d: Decided.",
        "           nobody has",
        "         Decide.",
        "ok       a: It is fine.",
        "FAILED   b: It is right.",
        "           it is wrong",
        "         Mend it.",
        "FAILED   e: It builds.",
        "           ended with 1",
        "         Build it.",
    ]


def test_a_misspelled_step_is_refused_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.release_check.__main__.ROOT", tmp_path)
    (tmp_path / "dist").mkdir()
    done = CliRunner().invoke(release_check, ["twine", "jorney"])
    assert done.exit_code == 2
    assert "there is no step jorney; the steps are committed, version, " in done.output
    assert (tmp_path / "dist").is_dir()


def test_contributing_lists_the_steps_in_their_order() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    section = text.partition("\n## Release\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| (`.+) \|$", section, re.MULTILINE)
    assert listed == [f"`{step.name}` | {step.must_hold}" for step in STEPS]


def test_only_these_are_left_to_a_person() -> None:
    assert [step.name for step in STEPS if step.is_left_to_a_person] == ["lanes", "address"]
    assert texts.version(ROOT)
