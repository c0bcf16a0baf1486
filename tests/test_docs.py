"""The documentation builds without a warning, and says nothing that the code does not know."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

import click
import pytest
from flask import Flask

from flask_opsjobs import settings, signals
from flask_opsjobs.doctor.registry import CHECKS
from flask_opsjobs.jobs import lifecycle
from flask_opsjobs.limits.words import GLOSSARY
from flask_opsjobs.loops import LOOPS
from tests.support.once import made_once
from tests.support.sources import ROOT, files, place

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [*files("docs", "*.md"), *ROOT.glob("*.md")]


def _blocks(language: str) -> Iterator[tuple[str, str]]:
    """Each code block of a language, with where it begins."""
    for page in PAGES:
        text = page.read_text()
        for found in BLOCK.finditer(text):
            if found[1] == language:
                yield place(page, text[: found.start()].count("\n") + 2), found[2]


@pytest.fixture(scope="module")
def html(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built pages. Sphinx checks the links between them, and -W makes it strict."""
    return made_once(tmp_path_factory, "html", _build)


def _build(folder: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html"]
    done = subprocess.run(
        [*build, "-d", str(folder / ".doctrees"), "docs", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr


def test_every_setting_is_on_its_page(html: Path) -> None:
    page = (html / "settings.html").read_text()
    keys = {settings.PREFIX + setting.key for setting in settings.SETTINGS}
    assert {key for key in keys if key not in page} == set()


def test_every_check_of_the_doctor_is_on_its_page(html: Path) -> None:
    page = (html / "doctor.html").read_text()
    assert f"all {len(CHECKS)} checks" in page
    assert {check.id for check in CHECKS.values() if f">{check.id}<" not in page} == set()


def test_every_event_and_fact_is_on_its_page(html: Path) -> None:
    page = (html / "events.html").read_text()
    names = {kind.name for kind in signals.EVENTS.values()}
    names |= {fact for kind in signals.EVENTS.values() for fact in kind.facts}
    assert {name for name in names if f">{name}<" not in page} == set()


def test_the_glossary_has_every_state_and_arrow(html: Path) -> None:
    page = (html / "glossary.html").read_text()
    words = [*lifecycle.STATES, *(arrow.name for arrow in lifecycle.ARROWS)]
    assert [word for word in words if f'id="term-{word}"' not in page] == []


def test_the_words_of_limits_stand_in_the_glossary_and_in_the_help(html: Path, app: Flask) -> None:
    page = (html / "glossary.html").read_text()
    assert [word for word in GLOSSARY if f'id="term-{word}"' not in page] == []
    shown = " ".join(app.test_client().get("/ops/jobs/help").text.split())
    assert [word for word in GLOSSARY if f"<dt>{word}</dt>" not in shown] == []


def test_the_page_operating_lists_every_loop() -> None:
    text = (ROOT / "docs" / "operating.md").read_text()
    table = text.partition("## The loops")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| (\w+) \| ", table, re.MULTILINE)
    assert sorted(listed[1:]) == sorted(loop.name for loop in LOOPS)


def test_every_decision_is_listed(html: Path) -> None:
    page = (html / "decisions/index.html").read_text()
    names = [path.stem for path in files("docs/decisions", "0*.md")]
    assert [name for name in names if f'href="{name}.html"' not in page] == []


def test_each_symptom_leads_to_one_command_and_one_page() -> None:
    text = (ROOT / "docs/troubleshooting.md").read_text()
    rows = re.findall(r"^\| \[(.+)\]\(#.+?\) \| (.+) \| (.+) \|$", text, re.MULTILINE)
    assert [symptom for symptom, _, _ in rows] == re.findall(r"^## (.+)", text, re.MULTILINE)
    for symptom, command, page in rows:
        assert re.fullmatch(r"`flask opsjobs [^`]+`", command), symptom
        assert re.fullmatch(r"\[[^\]]+\]\([\w-]+\.md[^)]*\)", page), symptom


def test_the_diagram_draws_every_state(html: Path) -> None:
    page = (html / "how-a-job-lives.html").read_text()
    picture = page.partition('<svg class="states"')[2].partition("</svg>")[0]
    assert [state for state in lifecycle.STATES if f">{state}</text>" not in picture] == []


def test_unit_files_in_the_pages_start_our_commands_and_leave_children_alone(app: Flask) -> None:
    group = app.cli.commands["opsjobs"]
    assert isinstance(group, click.Group)
    started, probes = [], []
    for where, block in _blocks("ini"):
        unit = ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string(block, where)
        if "Service" not in unit:  # a timer
            continue
        service = unit["Service"]
        words = service["ExecStart"].split()
        command = group.get_command(click.Context(group), words[words.index("opsjobs") + 1])
        assert command is not None, where
        if service.get("Type") == "oneshot":
            probes.append(str(command.name))
            continue
        started.append(str(command.name))
        # SIGTERM to the whole group would break off the job that a worker's child performs.
        assert (service["KillMode"], service["Restart"]) == ("mixed", "always"), where
    assert probes == ["alive"]
    assert sorted(started) == ["run", "worker"]


def test_files_that_pages_link_to_exist() -> None:
    """Sphinx checks links inside docs/; this checks those of README and its neighbours."""
    missing = [
        f"{page.name}: {target}"
        for page in ROOT.glob("*.md")
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text())
        if not (ROOT / target).exists()
    ]
    assert missing == []


# A path with a folder: `jobs/lifecycle.py`, `engine/`;
# not one with a blank to fill in, such as `web/<page>/`.
PATH = re.compile(
    r"(?<![\w./<>:@~$-])(?:[\w-]+/)+(?:[\w.-]+\.(?:py|sql|html|css|json|js|md|toml|cfg)|(?=[`\s]))"
)
# Where a short path may begin. `migrations/env.py` is a host's.
BEGINNINGS = ("", "flask_opsjobs", "docs", "examples/flask_host")


def test_paths_that_pages_name_exist() -> None:
    # A table of folders names those inside another one alone: `redis/`.
    folders = {f"{path.name}/" for path in (ROOT / "flask_opsjobs").rglob("*") if path.is_dir()}
    missing = {
        f"{page.relative_to(ROOT)}: {path}"
        for page in PAGES
        if page.name != "CHANGES.md"
        for path in PATH.findall(page.read_text())
        if path not in folders and not any((ROOT / each / path).exists() for each in BEGINNINGS)
    }
    assert missing == set()


def test_each_guarantee_names_a_test() -> None:
    """`tests/docs` sees that those that a page names exist."""
    text = (ROOT / "docs/guarantees.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    promises = [row for row in rows if not row.startswith(("| …", "| ---"))]
    shown = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
    assert [row for row in promises if not shown.search(row)] == []
