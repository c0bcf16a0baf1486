"""Escalation policies of tests: each does one thing that a host's may do, well or badly."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .waiting import wait_until

SECRET = "s3cr3t-canary"


class HideSecret:
    """A display policy that hides `SECRET` in texts, and values under keys that contain `password`."""

    def is_hidden_key(self, key: str) -> bool:
        return "password" in key

    def clean_text(self, text: str) -> str:
        return text.replace(SECRET, "[hidden]")


class Acting:
    """Writes each call to the file `calls`, then does what the file `acts` names."""

    def __init__(self, folder: Path) -> None:
        self.calls = folder / "calls"
        self.acts = folder / "acts"
        self.acts.touch()
        self.calls.touch()

    def act(self, name: str) -> None:
        """Let the next calls do this."""
        self.acts.write_text(name)

    def told(self) -> list[dict[str, Any]]:
        """The facts of each call, the oldest first."""
        return [json.loads(line) for line in self.calls.read_text().splitlines()]

    def escalate(self, facts: Mapping[str, Any]) -> Any:
        with open(self.calls, "ab", buffering=0) as calls:
            calls.write(json.dumps(dict(facts)).encode() + b"\n")
        name = self.acts.read_text()
        return getattr(self, f"_{name}")() if name else f"TICKET-{facts['incident']}"

    def _returns_nothing(self) -> None:
        return None

    def _returns_a_secret(self) -> str:
        return f"ticket {SECRET}"

    def _returns_a_number(self) -> int:
        return 42

    def _returns_10_kb(self) -> str:
        return "x" * 10_000

    def _returns_controls(self) -> str:
        return "a\x00b\x1b[31m\nc\ud800"

    def _raises(self) -> None:
        raise RuntimeError(f"the pager says {SECRET}")

    def _looks_up_a_missing_key(self) -> str:
        return {}["x"]

    def _raises_in_a_library(self) -> Any:
        return json.loads("no json")

    def _raises_10_mb(self) -> None:
        raise RuntimeError("y" * 10_000_000)

    def _raises_what_has_no_text(self) -> None:
        raise _Wordless

    def _leaves(self) -> None:
        sys.exit("leaving")

    def _ends_its_process(self) -> None:
        os._exit(3)

    def _kills_itself(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _prints_10_mb(self) -> str:
        for _ in range(10):
            sys.stdout.write("z" * 1_000_000)
        return "printed"

    def _forks(self) -> str:
        """Both processes return."""
        os.fork()
        return "forked"

    def _leaves_a_daemon(self) -> str:
        """A process that has left the group, and holds all descriptors."""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                self.calls.with_name("daemon").write_text(str(os.getpid()))
                signal.pause()
            os._exit(0)
        wait_until(self.calls.with_name("daemon").exists)
        return "left one"

    def _hangs(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self.calls.with_name("hangs").write_text(str(os.getpid()))
        while True:
            signal.pause()

    def _kills_its_parent(self) -> None:
        os.kill(os.getppid(), signal.SIGKILL)
        signal.pause()


class _Wordless(Exception):
    def __str__(self) -> str:
        raise ValueError("no words")
