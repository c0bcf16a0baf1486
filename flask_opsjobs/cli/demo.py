"""`flask opsjobs demo`: the example host with its own Postgres and Valkey, all under one command."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click
from flask.cli import ScriptInfo

from . import _demo_check, _demo_folder, _demo_servers
from ._argv import again
from ._children import Children
from ._demo_site import Site
from ._valkey import free_port, is_free

# A dead worker's jobs are put back before anybody stops watching.
SETTINGS = {
    "FLASK_OPSJOBS_BEAT_SECONDS": "2",
    "FLASK_OPSJOBS_LATE_SECONDS": "6",
    "FLASK_OPSJOBS_MISSING_SECONDS": "15",
}
# Beside its data: what a shell reads in.
ENV = "env"
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

    The host must have the commands `seed` and `feed` and read its config from the environment:
    flask --app examples/flask_host opsjobs demo
    """
    require_example(ctx)
    with _stopped_by_signals():
        if check:
            with tempfile.TemporaryDirectory(prefix="opsjobs-demo-") as folder:
                sys.exit(_run(ctx, Path(folder), free_port(), check=True))
        with _demo_folder.claimed(Path(data_dir)) as claimed:
            sys.exit(_run(ctx, claimed, choose_port(port), check=False))


def require_example(ctx: click.Context) -> None:
    """Raise `ClickException` when the app of this command is not one that can be shown."""
    app = ctx.ensure_object(ScriptInfo).load_app()
    lacking = [name for name in ("seed", "feed") if name not in app.cli.commands]
    if lacking or "opsjobs" not in app.extensions:
        raise click.ClickException(
            f"the app {app.name} is not made for a demo, which would migrate its database: "
            "flask --app examples/flask_host opsjobs demo"
        )


def choose_port(wanted: int | None) -> int:
    """The port that was asked for, or the first free one. Raises `ClickException`."""
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


def _run(ctx: click.Context, folder: Path, port: int, *, check: bool) -> int:
    click.echo("starting PostgreSQL and Valkey")
    with _demo_servers.running(folder) as servers:
        env = {**SETTINGS, **servers.env}
        _step(ctx, env, "db", "upgrade")
        people = _step(ctx, env, "seed")
        _note_env(ctx, folder, servers.env)
        heard: list[str] = []
        children = Children(write=heard.append if check else click.echo)
        _add_children(ctx, env, port, children, is_fed=not check)
        site, over = Site(f"http://127.0.0.1:{port}"), threading.Event()

        def watch() -> None:
            if died := servers.wait_for_death(over):
                click.echo(f"{died} ended by itself: everything stops")
                children.stop(1)

        def accompany() -> None:
            if check:
                children.stop(_demo_check.run(site, people, children, heard, over))
            elif site.wait_until_it_answers(over):
                _welcome(site.root, people, folder)

        with _beside(watch, accompany, over=over):
            return children.run()


def _add_children(
    ctx: click.Context, env: Mapping[str, str], port: int, children: Children, *, is_fed: bool
) -> None:
    serve = ["run", "--port", str(port), "--no-reload", "--no-debugger"]
    children.add("web", again(ctx, *serve), env)
    for name in _demo_check.WORKERS:
        children.add(name, again(ctx, "opsjobs", "worker"), env)
    children.add("loops", again(ctx, "opsjobs", "run"), env)
    if is_fed:
        children.add("feeder", again(ctx, "feed"), env)


def _step(ctx: click.Context, env: Mapping[str, str], *words: str) -> str:
    """What a command of the host prints. Raises `ClickException` with that when it fails."""
    click.echo(f"flask {' '.join(words)}")
    try:
        done = subprocess.run(
            again(ctx, *words),
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=30,
        )
    except subprocess.TimeoutExpired as error:
        raise click.ClickException(f"flask {' '.join(words)} takes over 30 s") from error
    if done.returncode:
        raise click.ClickException(f"flask {' '.join(words)} failed:\n{done.stdout}")
    return done.stdout


def _welcome(url: str, people: str, folder: Path) -> None:
    rule = "─" * 72
    signs = "".join(f"    {line}\n" for line in people.splitlines())
    click.echo(
        f"{rule}\n  {url}/  the shop\n  {url}/ops/jobs  its jobs\n"
        f"  sign in with name / password:\n{signs}"
        f"  commands reach it once you have read {folder / ENV} in:\n"
        f"    . {folder / ENV}; flask opsjobs why 1\n"
        f"  Ctrl-C stops everything; {folder} keeps the data\n{rule}"
    )


def _note_env(ctx: click.Context, folder: Path, env: Mapping[str, str]) -> None:
    """Write down what a shell must know for its commands to stand on this demo's servers."""
    app = ctx.ensure_object(ScriptInfo).app_import_path
    told = env if app is None else {**env, "FLASK_APP": str(Path(app).absolute())}
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in told.items()]
    (folder / ENV).write_text("".join(lines))


@contextmanager
def _beside(*jobs: Callable[[], None], over: threading.Event) -> Iterator[None]:
    """Each of `jobs` in a thread beside this block; `over` tells them that it has ended."""
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
def _stopped_by_signals() -> Iterator[None]:
    """A signal ends this block wherever it is, so that the servers are stopped too.

    SIGINT as well: a shell that starts a command in the background lets it ignore that one.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, action in before.items():
            signal.signal(number, action)
