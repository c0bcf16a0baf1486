"""Builds the sdist and the wheel, and takes every step: `make release-check`. Exits with 1 when one fails."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import click

from . import archives, runs, texts
from .step import Failed, NotRun, Release, Step

ROOT = Path(__file__).parents[2]

# In the order of CONTRIBUTING.md, the quick ones first.
STEPS = (
    Step(
        "committed",
        "The folder is a git checkout, and git knows each of its files as it is.",
        archives.committed_faults,
        "Commit the file, or move it out of the checkout: the archives are built from all that lies there.",
    ),
    Step(
        "version",
        "The version stands in `flask_opsjobs/__init__.py` alone; archives and pins agree.",
        texts.version_faults,
        "Write the version there, and the pins of its minor version in README and docs.",
    ),
    Step(
        "changes",
        "CHANGES begins with a dated section of this version, nothing stands under Unreleased, and no page "
        "says that there is no release.",
        texts.changes_faults,
        "Rename the heading Unreleased to the version and the date, as in `## 0.1.0 (2026-11-27)`, and "
        "change each sentence and command that is named.",
    ),
    Step(
        "licences",
        "Each vendored file has its licence beside it, which names the file's version.",
        texts.licence_faults,
        "Put the licence of that release beside the file in static/vendor.",
    ),
    Step(
        "wheel",
        "The wheel holds the package, its licences and `py.typed`; no tests, docs or tools.",
        archives.wheel_faults,
        "Change [tool.hatch.build.targets.wheel] in pyproject.toml.",
    ),
    Step(
        "paths",
        "No file of the archives names a folder of a person or of this machine.",
        archives.path_faults,
        "Take the path out of the file; write an example as /srv/shop.",
    ),
    Step(
        "twine",
        "`twine check --strict` accepts both archives.",
        runs.twine_faults,
        "Mend the metadata in pyproject.toml, or the Markdown of README.md.",
    ),
    Step(
        "steps",
        "The steps of the schema are what their pinned hashes say.",
        runs.pinned_faults,
        "Restore the step, and write a new one.",
    ),
    Step(
        "reproducible",
        "Two builds have the same hash.",
        archives.same_hash_faults,
        "Find what differs with diffoscope; a build may depend on nothing but the files.",
    ),
    Step(
        "journey",
        "The wheel alone, in an empty folder without network: install, sign in, a failed job, a retry, a "
        "paused cron entry, forensics, the audit.",
        runs.journey_faults,
        "Take the same way by hand: tools/release_check/journey.py says each step.",
    ),
    Step(
        "sdist",
        "The sdist lacks no file; unpacked alone, it installs and passes its tests that are marked `lane`.",
        runs.sdist_faults,
        "Look whether a file does not come along: [tool.hatch.build.targets.sdist] in pyproject.toml.",
    ),
    Step(
        "lanes",
        "Each test lane has passed on the code of this release.",
        texts.stale_lanes,
        "A person decides it: `make lanes` runs all of them again, in an hour; docs/support.md says what "
        "each ran on.",
        is_left_to_a_person=True,
    ),
    Step(
        "address",
        "The project has a public address, for links and for pictures on the package index.",
        texts.address_faults,
        "A person decides it: public-address in pyproject.toml.",
        is_left_to_a_person=True,
    ),
)


@click.command("release-check")
@click.argument("names", nargs=-1)
def release_check(names: Sequence[str]) -> None:
    """Take the steps of these NAMES, by default all."""
    if unknown := set(names) - {step.name for step in STEPS}:
        known = ", ".join(step.name for step in STEPS)
        raise click.UsageError(
            f"there is no step {', '.join(sorted(unknown))}; the steps are {known}"
        )
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    try:
        archives.build(ROOT, dist)
    except Failed as why:
        raise click.ClickException(str(why)) from why
    steps = [step for step in STEPS if not names or step.name in names]
    sys.exit(0 if take(steps, Release(ROOT, dist)) else 1)


def take(steps: Iterable[Step], release: Release) -> bool:
    """Take the steps, and print what each found; whether none has failed."""
    failed = False
    for step in steps:
        try:
            faults = list(step.faults(release))
        except NotRun as why:
            click.echo(f"not run  {step.name}: {why}")
            continue
        except Failed as why:
            faults = [str(why)]
        if not faults:
            click.echo(f"ok       {step.name}: {step.must_hold}")
            continue
        failed = failed or not step.is_left_to_a_person
        word = "to do   " if step.is_left_to_a_person else "FAILED  "
        click.echo(f"{word} {step.name}: {step.must_hold}")
        for fault in faults:
            click.echo(f"           {fault}")
        click.echo(f"         {step.to_do}")
    return not failed


if __name__ == "__main__":
    release_check()
