"""Starts the demo: its servers, the host's steps, then web, workers and loops under a supervisor."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from flask_opsjobs.processes.child import Child
from flask_opsjobs.processes.supervisor import Supervisor

from . import folder as data_folder
from .check import WORKERS, check_demo
from .servers import Servers, running_servers
from .site import Site

ROOT = Path(__file__).parents[2]
HOST = ROOT / "examples/flask_host"
MIGRATIONS = (ROOT / "migrations", HOST / "migrations/versions")
# Short, so that a viewer sees how a dead worker's jobs are rescued.
SETTINGS = {
    "FLASK_OPSJOBS_HEARTBEAT_SECONDS": "2",
    "FLASK_OPSJOBS_LATE_SECONDS": "6",
    "FLASK_OPSJOBS_MISSING_SECONDS": "15",
    # The first worker that starts marks its deploy.
    "FLASK_OPSJOBS_VERSION": "v2.43",
}
# RQ's own worker, for the shop's plain jobs.
_RQ_OPTIONS = ["--path", str(HOST.parent), "-c", "flask_host.rq_settings", "--quiet"]
RQ_WORKER = [sys.executable, "-m", "rq.cli", "worker", *_RQ_OPTIONS]
# The environment for a shell, beside the data.
ENV = "env"
_STEP_SECONDS = 300


def check(folder: Path, port: int, supervisor: Supervisor, heard: list[str]) -> int:
    """Run the demo in a new folder, check that it works, and stop it. Returns the exit code.

    `heard` gets the output of the processes.
    """
    click.echo("starting PostgreSQL and Valkey")
    with running_servers(folder, check=supervisor.check) as servers:
        env = {**SETTINGS, **servers.env}
        _flask_step(supervisor, env, "db", "upgrade")
        people = _flask_step(supervisor, env, "seed")
        _add_children(supervisor, env, port)
        site, over = Site(f"http://127.0.0.1:{port}"), threading.Event()

        def look() -> None:
            run = partial(_run_command, env)
            supervisor.stop(check_demo(site, people, supervisor, heard, over, run))

        with _beside(_watch(servers, supervisor, over), look, over=over):
            return supervisor.run()


def show(folder: Path, port: int, supervisor: Supervisor, output: Path) -> int:
    """Run the demo with the data in `folder` until it is told to stop. Returns the exit code.

    `output` is the file with the output of the processes.
    """
    click.echo("starting PostgreSQL and Valkey")
    steps = data_folder.hash_steps(MIGRATIONS)
    with running_servers(folder, steps, supervisor.check) as servers:
        env = {**SETTINGS, **servers.env}
        people = prepare(folder, steps, env, supervisor)
        write_env(folder / ENV, servers.env)
        _add_children(supervisor, env, port)
        supervisor.add("feeder", flask("feed"), env)
        site, over = Site(f"http://127.0.0.1:{port}"), threading.Event()

        def welcome() -> None:
            if site.wait_until_it_answers(over):
                say_welcome(site.root, people, folder, output)

        with _beside(_watch(servers, supervisor, over), welcome, over=over):
            return supervisor.run()


def prepare(
    folder: Path, steps: Mapping[str, str], env: Mapping[str, str], supervisor: Supervisor
) -> str:
    """Do what the database in `folder` lacks: its migrations, people and history.

    Returns who may sign in.
    """
    if data_folder.noted_steps(folder) != steps:
        _flask_step(supervisor, env, "db", "upgrade")
        data_folder.note_steps(folder, steps)
    people = _flask_step(supervisor, env, "seed")
    if not data_folder.has_history(folder):
        _write_history(supervisor, env)
        data_folder.note_history(folder)
    return people


def flask(*words: str) -> list[str]:
    """The command line of `flask words…` for the example host."""
    return [sys.executable, "-m", "flask", "--app", str(HOST), *words]


def say_welcome(url: str, people: str, folder: Path, output: Path) -> None:
    """Print where everything is."""
    rule = "─" * 72
    signs = "".join(f"    {line}\n" for line in people.splitlines())
    env, place = shlex.quote(str(folder / ENV)), shlex.quote(str(folder))
    click.echo(
        f"{rule}\n  {url}/tour  a tour of ten minutes\n"
        f"  {url}/  the shop\n  {url}/ops/jobs  its jobs\n"
        f"  sign in with name / password:\n{signs}"
        f"  commands reach it once you have read {env} in:\n"
        f"    . {env}; flask opsjobs why 1\n"
        f"  what web, workers and loops print: {shlex.quote(str(output))}\n"
        f"  Ctrl-C stops everything; {place} keeps the data\n{rule}"
    )


def write_env(path: Path, env: Mapping[str, str]) -> None:
    """Write the environment that a shell needs for commands on this demo's servers."""
    exported = {**env, "FLASK_APP": str(HOST)}
    lines = [f"export {name}={shlex.quote(value)}\n" for name, value in exported.items()]
    path.write_text("".join(lines))


def _add_children(supervisor: Supervisor, env: Mapping[str, str], port: int) -> None:
    serve = ["run", "--port", str(port), "--no-reload", "--no-debugger"]
    supervisor.add("web", flask(*serve), env)
    for name in WORKERS:
        supervisor.add(name, flask("opsjobs", "worker", "--processes", "2"), env)
    supervisor.add("loops", flask("opsjobs", "run"), env)
    supervisor.add("rq", RQ_WORKER, env)


def _flask_step(supervisor: Supervisor, env: Mapping[str, str], *words: str) -> str:
    return _step(f"flask {' '.join(words)}", flask(*words), env, supervisor)


def _run_command(env: Mapping[str, str], name: str) -> tuple[int, str]:
    """The exit code of a command of `flask opsjobs`, and what it printed."""
    done = subprocess.run(
        flask("opsjobs", name), env={**os.environ, **env}, capture_output=True, text=True
    )
    return done.returncode, done.stdout


def _write_history(supervisor: Supervisor, env: Mapping[str, str]) -> None:
    # The story imports the shop, whose package is in `examples`.
    path = os.pathsep.join(filter(None, [str(HOST.parent), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "tools.demo.story"]
    name = "two days of history, which take some seconds"
    _step(name, command, {**env, "PYTHONPATH": path}, supervisor)


def _step(name: str, command: Sequence[str], env: Mapping[str, str], supervisor: Supervisor) -> str:
    """Run a command, and return its output. Raises `ClickException` with it when it fails.

    Raises `SystemExit` when the demo is told to stop meanwhile; the command is then killed.
    """
    click.echo(name)
    child, lines = Child(command, env), list[str]()
    end = time.monotonic() + _STEP_SECONDS
    try:
        while child.poll() is None:
            lines += child.read_lines()
            supervisor.check()
            if time.monotonic() > end:
                raise click.ClickException(f"{name} takes over {_STEP_SECONDS} s")
            time.sleep(0.02)
    finally:
        child.kill_session()
        code = child.wait()
        lines += child.read_rest()
    if code:
        raise click.ClickException("\n".join([f"{name} failed:", *lines]))
    return "\n".join(lines)


def _watch(servers: Servers, supervisor: Supervisor, over: threading.Event) -> Callable[[], None]:
    def watch() -> None:
        if died := servers.wait_for_death(over):
            click.echo(f"{died} ended by itself: everything stops")
            supervisor.stop(1)

    return watch


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
