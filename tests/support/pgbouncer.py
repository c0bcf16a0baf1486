"""A PgBouncer in transaction mode, before the Postgres of the tests: Debian's, where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import psycopg
from sqlalchemy import URL

from flask_opsjobs.testing.valkey import free_port

from .waiting import wait_until

# Debian puts it where only root's PATH looks.
_PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
MISSING = None if _PROGRAM else "PgBouncer is not installed: apt-get install pgbouncer"

_CONFIG = """
[databases]
* = host={host} port={port}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen_port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
max_prepared_statements = {max_prepared_statements}
default_pool_size = {pool_size}
max_client_conn = 1000
logfile = {folder}/log
{user}
"""


class PgBouncer:
    """One PgBouncer on a free loopback port. Any database of the server is reached through it."""

    def __init__(self, server: URL, *, max_prepared_statements: int, pool_size: int = 20) -> None:
        assert _PROGRAM is not None, MISSING
        self._folder = Path(tempfile.mkdtemp(prefix="opb-"))
        self._server = server
        self._port = free_port()
        host = str(server.query.get("host") or server.host)
        # It refuses to run as root, and a folder of a socket may be closed to anybody but its owner.
        owner = Path(host).owner() if os.geteuid() == 0 and host.startswith("/") else "nobody"
        config = _CONFIG.format(
            host=host,
            port=server.port or server.query.get("port") or 5432,
            listen_port=self._port,
            folder=self._folder,
            max_prepared_statements=max_prepared_statements,
            pool_size=pool_size,
            user=f"user = {owner}" if os.geteuid() == 0 else "",
        )
        (self._folder / "users").write_text(f'"{server.username}" "{server.password or ""}"\n')
        (self._folder / "config.ini").write_text(config)
        if os.geteuid() == 0:
            for path in (self._folder, *self._folder.iterdir()):
                shutil.chown(path, owner)
        self._process = subprocess.Popen(
            [_PROGRAM, "--quiet", str(self._folder / "config.ini")], stdin=subprocess.DEVNULL
        )
        wait_until(self._answers, 10, what="PgBouncer")

    def through(self, url: URL) -> URL:
        """SQLAlchemy's URL of a database of the server, through PgBouncer."""
        name = url.database
        return url.set(host="127.0.0.1", port=self._port, database=name, query={})

    def close(self) -> None:
        """End it."""
        # Asked to stop it would wait for its clients.
        self._process.kill()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _answers(self) -> bool:
        url = self.through(self._server).set(drivername="postgresql")
        try:
            with psycopg.connect(url.render_as_string(hide_password=False), prepare_threshold=None):
                return True
        except psycopg.OperationalError:
            assert self._process.poll() is None, (self._folder / "log").read_text()
            return False
