"""Runs test lanes, and writes what came of them into docs/lanes.toml: `make lane LANE=…`, `make lanes`."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import click

from . import LANES, RESULTS, ROOT, Lane, lane_files
from .environment import CannotInstall, NoInterpreter, NotThere, debian_version, prepared
from .results import Row, find_commit, judge, merged, read, written


@click.command("lanes")
@click.argument("names", nargs=-1)
@click.option("--processes", default=4, show_default=True, help="Test processes at once.")
@click.option("--only-run", is_flag=True, help="Leave docs/lanes.toml as it is.")
def lanes(names: Sequence[str], processes: int, only_run: bool) -> None:
    """Run the lanes of these NAMES, by default all.

    Exits with 1 when a lane has failed, and when one that was asked for by its name could not run; a Python
    that is not on the machine is no fault.
    """
    if unknown := sorted(set(names) - set(LANES)):
        raise click.ClickException(
            f"no lane {', '.join(unknown)}. The lanes are {', '.join(LANES)}: make lane LANE=newest"
        )
    faults = []
    for name in names or LANES:
        try:
            commit = find_commit(ROOT)
            row = replace(run(LANES[name], processes), commit=commit)
            is_fault = row.result == "failed"
        except NotThere as missing:
            row = Row(name, _today(), "not run", why=str(missing))
            is_fault = bool(names) and not isinstance(missing, NoInterpreter)
        click.echo(f"{name}: {row.result}{f': {row.why}' if row.why else ''}")
        if is_fault:
            faults.append(name)
        if not only_run:
            RESULTS.write_text(written(merged(read(RESULTS), row)), encoding="utf-8")
    if faults:
        raise click.ClickException(f"not passed: {', '.join(faults)}")


def run(lane: Lane, processes: int) -> Row:
    """What comes of the tests of a lane. Raises `NotThere`."""
    try:
        with prepared(lane) as (python, env), tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            click.echo(f"{lane.name}: {lane.what}")
            words = [str(python), "-m", "pytest", "-q", "-m", "lane", f"--junit-xml={report}"]
            words += ["-n", str(processes), "--dist", "worksteal", "--max-worker-restart", "0"]
            words += [*lane.options, *(lane.tests or lane_files(ROOT))]
            done = subprocess.run(words, cwd=ROOT, env={**os.environ, **env}, check=False)
            row = judge(lane.name, _today(), done.returncode, report)
    except CannotInstall as error:
        return Row(lane.name, _today(), "failed", why=str(error))
    for package in lane.debian:
        row.versions[package] = debian_version(package)
    return row


def _today() -> date:
    return datetime.now(UTC).date()


if __name__ == "__main__":
    lanes()
