"""Runs the example host with its own Postgres and Valkey: `flask opsjobs demo`."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import click
from flask.cli import ScriptInfo

from .._folders import folder as folder_of
from ..processes.child import Child
from ..processes.supervisor import Supervisor
from ..testing.valkey import free_port
from . import _demo_check, _demo_folder, _demo_servers
from ._argv import again
from ._demo_site import Site

# Short, so that a viewer sees how a dead worker's jobs are rescued.
SETTINGS = {
    "FLASK_OPSJOBS_HEARTBEAT_SECONDS": "2",
    "FLASK_OPSJOBS_LATE_SECONDS": "6",
    "FLASK_OPSJOBS_MISSING_SECONDS": "15",
}
# Files beside the data: the environment for a shell, and the output of the processes.
ENV = "env"
OUTPUT = "processes.log"
_STEP_SECONDS = 300
FIRST_PORT, LAST_PORT = 5000, 5020


@click.command("demo")
@click.option("--data-dir", default=".demo", show_default=True, help="Where its data are kept.")
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    help=f"Where the pages answer; by default the first free one from {FIRST_PORT} on.",
)
@click.option("--check", is_flag=True, help="Run it headless, see that it works, and exit.")
@click.pass_context
def demo(ctx: click.Context, data_dir: str, port: int | None, check: bool) -> None:
    """Run the example host until Ctrl-C: web, two workers, the loops, and a shop that is busy.

    The host must have the commands `seed`, `history` and `feed` and read its config from the environment:
    flask --app examples/flask_host opsjobs demo
    """
    require_example(ctx)
    heard: list[str] = []
    if check:
        children = Supervisor(write=heard.append)
        with _noted_signals(children), tempfile.TemporaryDirectory(prefix="opsjobs-demo-") as made:
            sys.exit(_check(ctx, Path(made), free_port(), children, heard))
    with (
        _demo_folder.claimed(Path(data_dir)) as folder,
        (folder / OUTPUT).open("w", buffering=1) as output,
    ):
        children = Supervisor(write=lambda line: output.write(f"{line}\n"))
        with _noted_signals(children):
            sys.exit(_show(ctx, folder, choose_port(port), children))


def require_example(ctx: click.Context) -> None:
    """Raise `ClickException` when the app of this command is not made for a demo."""
    app = ctx.ensure_object(ScriptInfo).load_app()
    lacking = [name for name in ("seed", "history", "feed") if name not in app.cli.commands]
    if lacking or "opsjobs" not in app.extensions:
        raise click.ClickException(
            f"the app {app.name} is not made for a demo, which would migrate its database: "
            "flask --app examples/flask_host opsjobs demo"
        )


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


def _check(
    ctx: click.Context, folder: Path, port: int, children: Supervisor, heard: list[str]
) -> int:
    """Run the demo in a new folder, check that it works, and stop it. Returns the exit code."""
    click.echo("starting PostgreSQL and Valkey")
    with _demo_servers.running_servers(folder, check=children.check) as servers:
        env = {**SETTINGS, **servers.env}
        _step(ctx, env, children, "db", "upgrade")
        people = _step(ctx, env, children, "seed")
        _add_children(ctx, env, port, children)
        site, over = Site(f"http://127.0.0.1:{port}"), threading.Event()

        def look() -> None:
            children.stop(_demo_check.check_demo(site, people, children, heard, over))

        with _beside(_watch(servers, children, over), look, over=over):
            return children.run()


def _show(ctx: click.Context, folder: Path, port: int, children: Supervisor) -> int:
    """Run the demo with the data in `folder` until it is told to stop. Returns the exit code."""
    click.echo("starting PostgreSQL and Valkey")
    steps = _demo_folder.hash_steps([folder_of("migrations"), _host_migrations(ctx)])
    with _demo_servers.running_servers(folder, steps, children.check) as servers:
        is_new = not _demo_folder.has_steps(folder)
        env = {**SETTINGS, **servers.env}
        _step(ctx, env, children, "db", "upgrade")
        _demo_folder.note_steps(folder, steps)
        people = _step(ctx, env, children, "seed")
        if is_new:
            click.echo("writing two days of history, which takes some seconds")
        _step(ctx, env, children, "history")
        _note_env(ctx, folder, servers.env)
        _add_children(ctx, env, port, children)
        children.add("feeder", again(ctx, "feed"), env)
        site, over = Site(f"http://127.0.0.1:{port}"), threading.Event()

        def welcome() -> None:
            if site.wait_until_it_answers(over):
                _welcome(site.root, people, folder)

        with _beside(_watch(servers, children, over), welcome, over=over):
            return children.run()


def _watch(
    servers: _demo_servers.Servers, children: Supervisor, over: threading.Event
) -> Callable[[], None]:
    def watch() -> None:
        if died := servers.wait_for_death(over):
            click.echo(f"{died} ended by itself: everything stops")
            children.stop(1)

    return watch


def _host_migrations(ctx: click.Context) -> Path:
    app = ctx.ensure_object(ScriptInfo).load_app()
    return Path(app.extensions["migrate"].directory) / "versions"


def _add_children(
    ctx: click.Context, env: Mapping[str, str], port: int, children: Supervisor
) -> None:
    serve = ["run", "--port", str(port), "--no-reload", "--no-debugger"]
    children.add("web", again(ctx, *serve), env)
    for name in _demo_check.WORKERS:
        children.add(name, again(ctx, "opsjobs", "worker"), env)
    children.add("loops", again(ctx, "opsjobs", "run"), env)


def _step(ctx: click.Context, env: Mapping[str, str], children: Supervisor, *words: str) -> str:
    """Run a command of the host, and return its output. Raises `ClickException` with it when it fails.

    Raises `SystemExit` when the demo is told to stop meanwhile; the command is then killed.
    """
    click.echo(f"flask {' '.join(words)}")
    child, lines = Child(again(ctx, *words), env), list[str]()
    end = time.monotonic() + _STEP_SECONDS
    try:
        while child.poll() is None:
            lines += child.read_lines()
            children.check()
            if time.monotonic() > end:
                raise click.ClickException(f"flask {' '.join(words)} takes over {_STEP_SECONDS} s")
            time.sleep(0.02)
    finally:
        child.kill_session()
        code = child.wait()
        lines += child.read_rest()
    if code:
        raise click.ClickException("\n".join([f"flask {' '.join(words)} failed:", *lines]))
    return "\n".join(lines)


def _welcome(url: str, people: str, folder: Path) -> None:
    rule = "─" * 72
    signs = "".join(f"    {line}\n" for line in people.splitlines())
    env, output = shlex.quote(str(folder / ENV)), shlex.quote(str(folder / OUTPUT))
    click.echo(
        f"{rule}\n  {url}/tour  a tour of five minutes\n"
        f"  {url}/  the shop\n  {url}/ops/jobs  its jobs\n"
        f"  sign in with name / password:\n{signs}"
        f"  commands reach it once you have read {env} in:\n"
        f"    . {env}; flask opsjobs why 1\n"
        f"  what web, workers and loops print: {output}\n"
        f"  Ctrl-C stops everything; {shlex.quote(str(folder))} keeps the data\n{rule}"
    )


def _note_env(ctx: click.Context, folder: Path, env: Mapping[str, str]) -> None:
    """Write the environment that a shell needs for commands on this demo's servers."""
    app = ctx.ensure_object(ScriptInfo).app_import_path
    exported = env if app is None else {**env, "FLASK_APP": str(Path(app).absolute())}
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in exported.items()]
    (folder / ENV).write_text("".join(lines))


@contextmanager
def _beside(*jobs: Callable[[], None], over: threading.Event) -> Iterator[None]:
    """Run each of `jobs` in a thread until the block ends, which sets `over`."""
    threads = [threading.Thread(target=job, daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(timeout=5)


@contextmanager
def _noted_signals(children: Supervisor) -> Iterator[None]:
    """In this block a signal stops `children`. Before they run, each step of the start checks for it.

    The handler raises nothing, so that a signal never leaves a server half started or half stopped. SIGINT
    has a handler too, because a shell makes background commands ignore it.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        # Not with click.echo: the signal may have interrupted another call of it.
        os.write(sys.stdout.fileno(), b"stopping\n")
        children.stop(128 + number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
