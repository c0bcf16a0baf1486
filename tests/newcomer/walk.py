"""Follows a page of the docs as a newcomer does: writes its files and types its commands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path

from flask_opsjobs.testing.valkey import free_port
from tests.install.conftest import Newcomer
from tests.newcomer.environment import Environment
from tests.support.processes import Child

_BLOCK = re.compile(r"(.*?)^```(\w+)\n(.*?)^```", re.M | re.S)
# What the fixtures have done: an empty folder, an empty environment and an empty database.
_DONE = ("mkdir", "cd", "python3 -m venv", ". .venv", "createdb")
# They run until somebody stops them.
_STAY = ("flask opsjobs up", "flask run")
# The servers that the docs name.
POSTGRES, REDIS = "postgresql+psycopg:///shop", "redis://localhost:6379/0"
_SITE = "localhost:5000"


class Walk:
    """Somebody in an empty folder. `servers` says what stands here for each server that the docs name."""

    def __init__(self, folder: Path, environment: Environment, servers: Mapping[str, str]) -> None:
        self.folder = folder
        self.address = f"localhost:{free_port()}"
        self.started: list[Child] = []
        self.said = ""
        # Whether what is typed is a fork of a process that has imported the wheel and the libraries.
        self.is_warm = False
        # Servers that no `export` of the docs has named so far.
        self.unnamed = set(servers)
        self._environment = environment
        self._servers = servers
        self._env = {"FLASK_RUN_PORT": self.address.partition(":")[2]}

    def follows(self, page: str, heading: str) -> None:
        """The blocks of a section, in their order."""
        _, begin, text = page.partition(f"\n## {heading}\n")
        assert begin, heading
        for prose, language, block in _BLOCK.findall(text.partition("\n## ")[0]):
            if language == "python":
                self._write(" ".join(prose.split()), block)
                continue
            for line in block.splitlines():
                if not line.startswith("$ "):
                    assert line in self.said, f"{line!r} is shown, and this was said: {self.said}"
                    continue
                command, _, comment = line.removeprefix("$ ").partition("  #")
                if command.rstrip() in _STAY:
                    assert "terminal" in comment, line
                    self.starts(command.rstrip())
                elif command.startswith("pip install "):
                    self._environment.install(command)
                elif not command.startswith(_DONE):
                    self._type(command.rstrip())

    def _write(self, prose: str, block: str) -> None:
        named = re.match(r"# (\w+\.py)(, at its end)?\n", block)
        if "Replace the class by this one" in prose:
            path = self.folder / "opsjobs_access.py"
            written = path.read_text().partition("class HostAccess")[0] + block
        elif (named and named[2]) or "add this below the code above" in prose:
            path = self.folder / "app.py"
            written = f"{path.read_text()}\n\n{block}"
        else:
            assert named or "save this as `app.py`" in prose, block
            path = self.folder / (named[1] if named else "app.py")
            written = block
        path.write_text(written)

    def _type(self, command: str) -> None:
        if command.startswith("export "):
            name, _, value = command.removeprefix("export ").partition("=")
            self._env[name] = self._servers.get(value, value)
            self.unnamed.discard(value)
        else:
            code, self.said = self.types(command)
            assert code == 0, f"{command}: {self.said}"

    def types(self, command: str) -> tuple[int, str]:
        """The exit code of a command, and what it printed."""
        if self.is_warm and command.startswith("flask "):
            env = {**self._env, "PYTHONPATH": str(self._environment.site)}
            return Newcomer(self.folder, env).types(*shlex.split(command)[1:])
        done = subprocess.run(
            self._as_here(command),
            shell=True,
            cwd=self.folder,
            env={**os.environ, **self._env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )
        return done.returncode, done.stdout

    def starts(self, command: str) -> Child:
        """Type a command in a terminal of its own; once a web process answers."""
        log = self.folder.parent / f"terminal-{len(self.started)}"
        shell = ["sh", "-c", f"exec {self._as_here(command)}"]
        child = Child(shell, log, self._env, folder=self.folder)
        self.started.append(child)
        if command == "flask run":
            child.wait_for("Running on", timeout=60)
        return child

    def _as_here(self, command: str) -> str:
        python = shlex.quote(self._environment.python)
        command = re.sub(r"^flask\b", f"{python} -m flask", command)
        return re.sub(r"^python\b", python, command).replace(_SITE, self.address)
