"""Starts, watches and stops the servers of a demo: PostgreSQL and Valkey."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click

from flask_opsjobs.testing.postgres import Postgres
from flask_opsjobs.testing.valkey import Valkey
from flask_opsjobs.testing.wheels import require_wheels

from . import folder as data_folder

# Enough for a few processes on a small machine.
SMALL = {"max_connections": "100", "shared_buffers": "64MB"}


class Servers:
    """A running PostgreSQL and a running Valkey."""

    def __init__(self, postgres: Postgres, valkey: Valkey) -> None:
        self.postgres = postgres
        self.valkey = valkey

    @property
    def env(self) -> dict[str, str]:
        """Their addresses, for a host that calls `app.config.from_prefixed_env()`."""
        return {
            "FLASK_SQLALCHEMY_DATABASE_URI": self.postgres.url().render_as_string(
                hide_password=False
            ),
            "FLASK_OPSJOBS_REDIS_URL": self.valkey.url,
        }

    def wait_for_death(self, over: threading.Event) -> str | None:
        """Wait until a server ends; its name, or None when `over` is set before. Polls twice a second."""
        while not over.wait(0.5):
            for server in (self.postgres, self.valkey):
                if not server.is_alive():
                    return server.name
        return None


@contextmanager
def running_servers(
    folder: Path,
    steps: Mapping[str, str] | None = None,
    check: Callable[[], object] = lambda: None,
) -> Iterator[Servers]:
    """Both servers with their data in `folder`, until the block ends. Raises `EmbeddedServerError`.

    `steps` are the hashes of the demo's migrations by file name: a database that other migrations made is
    set aside. `check` is called repeatedly while the servers start, and may raise to stop that.
    """
    require_wheels()
    postgres = Postgres(folder, settings=SMALL, check=check)
    valkey = Valkey(folder, check=check)
    try:
        if steps is not None and data_folder.is_older(folder, steps):
            # A demo that was killed may have left its PostgreSQL running.
            postgres.stop()
            click.echo(data_folder.set_aside(folder))
        if note := postgres.start():
            click.echo(note)
        valkey.start()
        yield Servers(postgres, valkey)
    finally:
        for server in (valkey, postgres):
            if server.is_alive():
                click.echo(f"stopping {server.name}")
            server.stop()
