"""Reads the options of `make demo` and `make demo-check`, chooses a port, and says errors in a sentence."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import click

from flask_opsjobs.errors import EmbeddedServerError
from flask_opsjobs.processes.supervisor import Supervisor
from flask_opsjobs.testing.valkey import free_port

from . import folder as data_folder
from .run import check, show

# The output of the processes, beside the data.
OUTPUT = "processes.log"
FIRST_PORT, LAST_PORT = 5000, 5020


@click.command("demo")
@click.option("--data-dir", default=".demo", show_default=True, help="Where its data are kept.")
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    help=f"Where the pages answer; by default the first free one from {FIRST_PORT} on.",
)
@click.option(
    "--check", "is_check", is_flag=True, help="Run it headless, see that it works, and exit."
)
def demo(data_dir: str, port: int | None, is_check: bool) -> None:
    """Run the example host until Ctrl-C: web, two workers, the loops, and a shop that is busy."""
    try:
        sys.exit(_check() if is_check else _show(Path(data_dir), port))
    except EmbeddedServerError as error:
        raise click.ClickException(str(error)) from error


def _check() -> int:
    heard: list[str] = []
    supervisor = Supervisor(write=heard.append)
    with (
        stopped_by_signals(supervisor),
        tempfile.TemporaryDirectory(prefix="opsjobs-demo-") as made,
    ):
        return check(Path(made), free_port(), supervisor, heard)


def _show(data_dir: Path, port: int | None) -> int:
    with (
        data_folder.claimed(data_dir) as folder,
        (folder / OUTPUT).open("w", buffering=1) as output,
    ):
        supervisor = Supervisor(write=lambda line: output.write(f"{line}\n"))
        with stopped_by_signals(supervisor):
            return show(folder, choose_port(port), supervisor, folder / OUTPUT)


def choose_port(wanted: int | None) -> int:
    """The wanted port, or else the first free one. Raises `ClickException`."""
    if wanted is not None:
        if not is_free(wanted):
            raise click.ClickException(f"port {wanted} is in use: give another --port")
        return wanted
    for port in range(FIRST_PORT, LAST_PORT + 1):
        if is_free(port):
            if port != FIRST_PORT:
                click.echo(f"port {FIRST_PORT} is in use: {port} is taken instead")
            return port
    raise click.ClickException(f"ports {FIRST_PORT} to {LAST_PORT} are in use: give a --port")


def is_free(port: int) -> bool:
    """Whether the demo's web process could listen on this loopback port."""
    with socket.socket() as probe:
        # Like werkzeug, so that a connection in TIME_WAIT does not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False


@contextmanager
def stopped_by_signals(supervisor: Supervisor) -> Iterator[None]:
    """In this block a signal stops the children. Before they run, each step of the start checks for it.

    The handler raises nothing, so that a signal never leaves a server half started or half stopped. SIGINT
    has a handler too, because a shell makes background commands ignore it.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        # Not with click.echo: the signal may have interrupted another call of it.
        os.write(sys.stdout.fileno(), b"stopping\n")
        supervisor.stop(128 + number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)


if __name__ == "__main__":
    demo(prog_name="python -m tools.demo")
