"""Runs test lanes, and writes what came of them into docs/lanes.toml: `make lane LANE=…`, `make lanes`."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from . import LANES, RESULTS, ROOT, Lane, lane_files
from .environment import CannotInstall, NotThere, debian_version, prepared
from .results import Row, judge, merged, read, written


@click.command("lanes")
@click.argument("names", nargs=-1)
@click.option("--processes", default=4, show_default=True, help="Test processes at once.")
@click.option("--only-run", is_flag=True, help="Leave docs/lanes.toml as it is.")
def lanes(names: Sequence[str], processes: int, only_run: bool) -> None:
    """Run the lanes of these NAMES, by default all."""
    if unknown := sorted(set(names) - set(LANES)):
        raise click.ClickException(
            f"no lane {', '.join(unknown)}. The lanes are {', '.join(LANES)}: make lane LANE=newest"
        )
    failed = []
    for name in names or LANES:
        row = run(LANES[name], processes)
        click.echo(f"{name}: {row.result}{f': {row.why}' if row.why else ''}")
        if row.result == "failed":
            failed.append(name)
        if not only_run:
            RESULTS.write_text(written(merged(read(RESULTS), row)), encoding="utf-8")
    if failed:
        raise click.ClickException(f"not passed: {', '.join(failed)}")


def run(lane: Lane, processes: int) -> Row:
    """What comes of a lane: its tests are run, unless what it needs is not there."""
    today = datetime.now(UTC).date()
    try:
        with prepared(lane) as (python, env), tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.xml"
            click.echo(f"{lane.name}: {lane.what}")
            words = [str(python), "-m", "pytest", "-q", "-m", "lane", f"--junit-xml={report}"]
            words += ["-n", str(processes), "--dist", "worksteal", "--max-worker-restart", "0"]
            words += [*lane.options, *(lane.tests or lane_files(ROOT))]
            done = subprocess.run(words, cwd=ROOT, env={**os.environ, **env}, check=False)
            row = judge(lane.name, today, done.returncode, report)
    except NotThere as missing:
        return Row(lane.name, today, "not run", why=str(missing))
    except CannotInstall as error:
        return Row(lane.name, today, "failed", why=str(error))
    for package in lane.debian:
        row.versions[package] = debian_version(package)
    return row


if __name__ == "__main__":
    lanes()
