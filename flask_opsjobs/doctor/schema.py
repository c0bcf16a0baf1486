"""Checks our schema in the database, and the migrations of the host that lead to it."""

from __future__ import annotations

from flask import current_app

from ..errors import ConfigError
from ..install import env_file, plan, revisions
from .check import (
    ERROR,
    WARNING,
    CheckAnswer,
    CheckContext,
    DoctorCheck,
    error,
    ok,
    skipped,
    warning,
)


def _version(context: CheckContext) -> CheckAnswer:
    try:
        command = revisions.find_revisions(current_app).upgrade_command
    except ConfigError:  # the migrations are not deployed with the app
        command = "flask db upgrade"
    with context.reading() as read:
        version = context.host.schema_version(read.session.connection())
    if due := plan.say_due(version, command):
        return error(_sentence(due), run=command)
    if ahead := plan.say_ahead(version):
        return warning(_sentence(ahead))
    return ok(f"The schema is at version {version}.")


def _autogenerate(context: CheckContext) -> CheckAnswer:
    try:
        found = revisions.find_revisions(current_app)
    except ConfigError as fault:
        return skipped(_sentence(str(fault)))
    with context.reading() as read:
        why = env_file.find_danger(found, read.session.connection())
    if why is not None:
        return error(_sentence(plan.say_would_drop(found, why)), run="flask opsjobs install")
    return ok("`flask db migrate` leaves the tables of opsjobs alone.")


def _sentence(says: str) -> str:
    """What the installer says, as a sentence of its own."""
    return f"{says[:1].upper()}{says[1:]}."


CHECKS = (
    DoctorCheck(
        "schema.version",
        (ERROR, WARNING),
        "the database has the schema that this release needs",
        _version,
        needs=("postgres.reachable",),
    ),
    DoctorCheck(
        "schema.autogenerate",
        (ERROR,),
        "`flask db migrate` would not drop the tables of opsjobs",
        _autogenerate,
        needs=("postgres.reachable",),
    ),
)
