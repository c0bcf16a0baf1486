"""The page *Your first app*, followed by somebody with an empty folder, the wheel and a browser."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_opsjobs.testing.valkey import free_port
from tests.install.conftest import own_python, site
from tests.support.browser import launched
from tests.support.processes import Child
from tests.support.sources import ROOT
from tests.support.waiting import wait_until

__all__ = ["own_python", "site"]

pytestmark = [pytest.mark.browser, pytest.mark.processes, pytest.mark.slow(60)]

PAGE = (ROOT / "docs/first-app.md").read_text()
_BLOCK = re.compile(r"^```(python|console)\n(.*?)^```", re.M | re.S)
# What the fixtures of this test have done, since no package index may be asked: an environment with the wheel
# and what it needs, an empty folder and an empty database.
DONE = ("mkdir", "cd", "python3 -m venv", ". .venv", "pip install", "createdb")
MOST_SECONDS = 300


class Walk:
    """Somebody who writes the files of the page, types its commands and presses what it names."""

    def __init__(self, folder: Path, python: str, env: dict[str, str]) -> None:
        self.folder = folder
        self.started: list[Child] = []
        self.said = ""
        self._python = python
        self._env = env

    def follows(self, heading: str) -> None:
        """The blocks of a section, in their order."""
        _, begin, text = PAGE.partition(f"\n## {heading}\n")
        assert begin, heading
        for language, block in _BLOCK.findall(text.partition("\n## ")[0]):
            if language == "python":
                self._write(block)
                continue
            for line in block.splitlines():
                command = line.removeprefix("$ ").partition("  #")[0].rstrip()
                if not command.startswith(DONE):
                    self._type(command, has_own_terminal="terminal" in line)

    def _write(self, block: str) -> None:
        name, _, where = block.splitlines()[0].removeprefix("# ").partition(", ")
        path = self.folder / name
        before = path.read_text() if where else ""
        path.write_text(f"{before}\n\n{block}" if where else block)

    def _type(self, command: str, *, has_own_terminal: bool) -> None:
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self._env.setdefault(name, value)
            return
        python = shlex.quote(self._python)
        command = re.sub(r"^flask\b", f"{python} -m flask", command)
        command = re.sub(r"^python\b", python, command)
        if has_own_terminal:
            log = self.folder.parent / f"terminal-{len(self.started)}"
            shell = ["sh", "-c", f"exec {command}"]
            self.started.append(Child(shell, log, self._env, folder=self.folder))
            return
        done = subprocess.run(
            command,
            shell=True,
            cwd=self.folder,
            env={**os.environ, **self._env},
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.said = done.stdout + done.stderr
        assert done.returncode == 0, f"{command}: {self.said}"


def pressed(word: str) -> str:
    """The selector of a button or link that the page names in bold."""
    assert f"**{word}**" in PAGE, word
    return f":is(button, a, summary):text('{word}') >> visible=true"


def reason(word: str) -> str:
    """A reason that the page gives as an example."""
    assert f"`{word}`" in " ".join(PAGE.split()), word
    return word


@pytest.fixture
def walk(
    tmp_path: Path, site: Path, own_python: str, empty_database_url: str, redis_url: str
) -> Iterator[Walk]:
    folder = tmp_path / "shop"
    folder.mkdir()
    env = {
        "PYTHONPATH": str(site),
        "FLASK_SQLALCHEMY_DATABASE_URI": empty_database_url,
        "FLASK_OPSJOBS_REDIS_URL": redis_url,
        "FLASK_RUN_PORT": str(free_port()),
    }
    walk = Walk(folder, own_python, env)
    yield walk
    for child in walk.started:
        child.kill_all()
        print(child.log)


@pytest.fixture
def browser() -> Iterator[Any]:
    with launched() as browser:
        yield browser


def test_a_newcomer_gets_where_the_page_says(
    walk: Walk, browser: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    began = time.monotonic()
    walk.follows("Begin")
    assert [path.name for path in walk.folder.iterdir()] == ["app.py"]
    walk.follows("Install")
    root = f"http://localhost:{walk._env['FLASK_RUN_PORT']}"
    page = browser.new_context(base_url=root).new_page()
    page.set_default_timeout(30_000)

    def answers() -> bool:
        return "Running on" in walk.started[-1].log

    wait_until(answers, 60, what="the app answers")
    page.goto("/ops/jobs/")
    page.click("main a[href^='/sign-in']")
    name, password = re.search(r"sign in as `(.+?)` with the password `(.+?)`", PAGE).groups()
    page.goto("/")
    page.fill("[name=name]", name)
    page.fill("[name=password]", password)
    page.click("button")
    page.click(pressed("Send invoice 7"))
    page.wait_for_url("**/ops/jobs/jobs/*")
    page.wait_for_selector(".chip.big[data-is=failed]")
    assert "invoice-7.txt" in page.inner_text("main")

    walk.follows("Repair it, with a reason")
    because = [reason("The invoice is there now"), reason("The vendor is away tonight")]
    page.click(pressed("Retry…"))
    _give(page, because[0])
    page.wait_for_selector(".chip.big[data-is=finished]")

    page.click(f"nav.side >> {pressed('Cron')}")
    page.click("main a:text-is('nightly_sync')")
    page.click(f"main >> {pressed('Pause…')}")
    _give(page, because[1])
    page.click(f"main >> {pressed('Forensics')}")
    page.wait_for_url("**/forensics/**")
    said = page.inner_text("main")
    assert because[1] in said
    assert name in said
    page.click(f"nav.side >> {pressed('Audit')}")
    page.wait_for_url("**/audit")
    assert all(each in page.inner_text("main") for each in because)
    walk.follows("Find it again")

    walk.follows("Look at a plain RQ job")
    page.click(f"nav.side >> {pressed('RQ')}")
    page.wait_for_url("**/ops/jobs/rq**")
    assert "Inspection only" in page.inner_text("main")
    page.click("main tr:has-text('reports') [data-label=queued] a")
    page.click("main tbody th a")
    page.wait_for_url("**/view/job/*")
    assert "time.time" in page.inner_text("main")
    assert page.locator("main form[method=post]").count() == 0
    lasted = time.monotonic() - began
    with capsys.disabled():
        print(f"\na newcomer needs {lasted:.0f} s, at most {MOST_SECONDS}")
    assert lasted <= MOST_SECONDS


def _give(page: Any, why: str) -> None:
    """Write the reason of the open preview, and carry it out."""
    page.fill("#dialog-page #reason", why)
    page.click("#dialog-page .foot .btn.main")
    page.wait_for_selector("#toast .say")
