"""Checks our schema in the database, and the migrations of the host that lead to it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from flask import current_app

from ..core.words import agree, counted
from ..errors import ConfigError
from ..install import env_file, manifest, plan, revisions
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


def _find_migrations(
    context: CheckContext,
) -> tuple[revisions.Revisions, revisions.AppliedRevisions]:
    """The migrations of the app, and what the database tells of them.

    Postgres is asked first: to read the files takes long, and nothing else would be asked meanwhile. Raises
    `ConfigError`.
    """

    def read_applied() -> revisions.AppliedRevisions:
        with context.reading() as read:
            return revisions.read_applied(read.session, current_app)

    applied = context.once("applied", read_applied)
    return context.once("revisions", lambda: revisions.find_revisions(current_app)), applied


def _version(context: CheckContext) -> CheckAnswer:
    with context.reading() as read:
        version = context.host.schema_version(read.session.connection())
    # Only the sentence needs the files.
    command = _find_upgrade_command() if plan.say_due(version, "") else ""
    if due := plan.say_due(version, command):
        return error(_sentence(due), run=command)
    if ahead := plan.say_ahead(version):
        return warning(_sentence(ahead))
    return ok(f"The schema is at version {version}.")


def _find_upgrade_command() -> str:
    try:
        return revisions.find_revisions(current_app).upgrade_command
    except ConfigError:  # the migrations are not deployed with the app
        return "flask db upgrade"


def _autogenerate(context: CheckContext) -> CheckAnswer:
    try:
        found, applied = _find_migrations(context)
    except ConfigError as fault:
        return skipped(_sentence(str(fault)))
    why = env_file.find_danger(found, applied.is_visible)
    if why is not None:
        return error(_sentence(plan.say_would_drop(found, why)), run="flask opsjobs install")
    return ok("`flask db migrate` leaves the tables of opsjobs alone.")


def _objects(context: CheckContext) -> CheckAnswer:
    made, found = manifest.load_manifest(), _read_objects(context)
    faults: list[str] = []
    for kind in ("column", "constraint", "trigger", "function"):
        faults += _differences(kind, made[kind], found.get(kind, {}), made["column"])
    if not faults:
        return ok("Columns, constraints, triggers and functions are as the migrations make them.")
    return error(
        f"{counted(len(faults), 'object')} of the schema {agree(len(faults), 'differs', 'differ')} from what "
        "its migrations make.",
        _first(faults),
    )


def _differences(
    kind: str, made: Mapping[str, str], found: Mapping[str, str], columns: Mapping[str, str]
) -> Iterator[str]:
    """What is missing, different or added. Tables that a host put into our schema do not count."""
    tables = {name.partition(".")[0] for name in columns}
    for name in sorted({*made, *found}):
        if name not in found:
            yield f"the {kind} {name} is missing"
        elif name not in made:
            if name.partition(".")[0] in tables or kind == "function":
                yield f"the {kind} {name} was added"
        elif made[name] != found[name]:
            yield f"the {kind} {name} differs"


def _indexes(context: CheckContext) -> CheckAnswer:
    made, found = manifest.load_manifest(), _read_objects(context)
    valid, invalid = found.get("index", {}), found.get("invalid index", {})
    if invalid:
        name = next(iter(invalid)).partition(".")[2]
        return error(
            f"{counted(len(invalid), 'index', 'indexes')} {agree(len(invalid), 'is', 'are')} invalid.",
            f"{_first(invalid)} Its creation was interrupted, so no query uses it.",
            run=f'psql -c "REINDEX INDEX CONCURRENTLY opsjobs.{name}"',
        )
    wrong = [name for name, each in made["index"].items() if valid.get(name) != each]
    if wrong:
        create = made["index"][wrong[0]].replace(" INDEX ", " INDEX CONCURRENTLY ", 1)
        return error(
            f"{counted(len(wrong), 'index', 'indexes')} of ours {agree(len(wrong), 'is', 'are')} missing.",
            f"{_first(wrong)} Queries that need it read whole tables.",
            run=f'psql -c "{create}"',
        )
    tables = {name.partition(".")[0] for name in made["column"]}
    foreign = [n for n in valid if n not in made["index"] and n.partition(".")[0] in tables]
    if foreign:
        return warning(
            f"{counted(len(foreign), 'index', 'indexes')} on tables of ours "
            f"{agree(len(foreign), 'is', 'are')} not from our migrations.",
            f"{_first(foreign)} Each write keeps it up to date.",
        )
    return ok("All indexes are there, and valid.")


def _read_objects(context: CheckContext) -> Mapping[str, Mapping[str, str]]:
    def read_objects() -> Mapping[str, Mapping[str, str]]:
        with context.reading() as read:
            return manifest.read_objects(read.session.connection())

    return context.once("objects", read_objects)


def _rights(context: CheckContext) -> CheckAnswer:
    with context.reading() as read:
        lacking = manifest.list_lacking_rights(read.session.connection())
    if not lacking:
        return ok("The app's role may use all tables of ours.")
    role = (
        context.host.settings.app_role or context.host.engine.url.username or "the role of the app"
    )
    return error(
        f"The app's role lacks {counted(len(lacking), 'right')} on tables of ours.",
        _first(lacking),
        run=f'psql -c "GRANT {lacking[0]} TO {role}"',
    )


def _revisions(context: CheckContext) -> CheckAnswer:
    try:
        found, applied = _find_migrations(context)
    except ConfigError as fault:
        return skipped(_sentence(str(fault)))
    left = revisions.list_unapplied(found, applied.heads)
    if left is None:
        return skipped("The database does not say which revisions it has.")
    if left:
        return warning(
            f"{counted(len(left), 'revision')} of {plan.shown(found.directory)} "
            f"{agree(len(left), 'is', 'are')} not applied.",
            _first(left),
            run=found.upgrade_command,
        )
    return ok("All revisions are applied.")


_SHOWN = 3


def _first(names: Collection[str]) -> str:
    """The first few, as a sentence."""
    some = "; ".join(list(names)[:_SHOWN])
    more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    start = some[:1].upper() if some.startswith("the ") else some[:1]
    return f"{start}{some[1:]}{more}."


def _sentence(says: str) -> str:
    """What the installer says, as a sentence of its own."""
    return f"{says[:1].upper()}{says[1:]}."


_IF_CURRENT = ("schema.version",)

CHECKS = (
    DoctorCheck(
        "schema.version",
        (ERROR, WARNING),
        "the database has the schema that this release needs",
        _version,
        needs=("postgres.reachable",),
        gives="the schema",
    ),
    DoctorCheck(
        "schema.objects",
        (ERROR,),
        "columns, constraints, triggers and functions are as the migrations make them",
        _objects,
        needs=_IF_CURRENT,
    ),
    DoctorCheck(
        "schema.indexes",
        (ERROR, WARNING),
        "no index is missing or invalid, and none was added",
        _indexes,
        needs=_IF_CURRENT,
    ),
    DoctorCheck(
        "schema.rights",
        (ERROR,),
        "the app's role may use all tables of ours",
        _rights,
        needs=_IF_CURRENT,
    ),
    DoctorCheck(
        "schema.revisions",
        (WARNING,),
        "all revisions of the migrations directory are applied",
        _revisions,
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
