"""What the installer refuses, what it leaves alone and what it writes,
in one process and without a database.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path

import flask_migrate
import pytest
from click.testing import Result
from flask import Flask
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs.cli.install import install
from flask_opsjobs.cli.uninstall import uninstall
from flask_opsjobs.install import env_file, plan, revisions, steps

URL = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"

Make = Callable[..., Flask]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes a host in the current folder: `make(url, migrate=False, init=False, multidb=True, …)`."""
    monkeypatch.chdir(tmp_path)

    def make(
        url: str = URL,
        *,
        migrate: bool = True,
        init: bool = True,
        multidb: bool = False,
        **config: object,
    ) -> Flask:
        app = Flask("host", root_path=str(tmp_path))
        app.config.update(SQLALCHEMY_DATABASE_URI=url, **config)
        db = SQLAlchemy(app)
        if migrate:
            Migrate(app, db)
        if migrate and init:
            with app.app_context():
                flask_migrate.init(multidb=multidb)
        return app

    return make


def run(app: Flask, *words: str) -> Result:
    """`flask opsjobs install words…` for an app at hand."""
    return app.test_cli_runner().invoke(install, words)


def files(folder: Path) -> dict[str, str]:
    """Every file below with its text, without what Python keeps of modules that it imported."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return {str(path): path.read_text() for path in found}


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        (
            {"migrate": False},
            "this app has no Flask-Migrate: add `Migrate(app, db)`, run `flask db",
        ),
        ({"init": False}, "there is no Flask-Migrate directory at "),
        (
            {"url": "sqlite://"},
            "needs PostgreSQL through psycopg 3, and this app's database is sqlite",
        ),
        (
            {"OPSJOBS_BIND": "other"},
            "OPSJOBS_BIND = 'other' is not a bind of this app: leave it out, or add it to",
        ),
        (
            {"OPSJOBS_BIND": "other", "SQLALCHEMY_BINDS": {"work": URL}},
            "OPSJOBS_BIND = 'other' is not a bind of this app: name one of 'work', then run",
        ),
        (
            {"OPSJOBS_BIND": "other", "SQLALCHEMY_BINDS": {"other": URL}},
            "`flask db init --multidb`",
        ),
    ],
)
def test_it_refuses_with_a_sentence(make: Make, how: dict[str, object], sentence: str) -> None:
    app = make(**how)
    before = files(Path.cwd())
    result = run(app)
    assert result.exit_code == 1
    assert result.output.startswith("Error: ")
    assert sentence in result.output
    assert files(Path.cwd()) == before


def test_it_refuses_an_app_without_sqlalchemy() -> None:
    assert "has no Flask-SQLAlchemy" in run(Flask("host")).output


def revise(app: Flask, name: str, after: str | None, label: str | None = None) -> None:
    """A revision of the host's own."""
    lines = ["from alembic import op", f"revision = {name!r}", f"down_revision = {after!r}"]
    lines += [f"branch_labels = {(label,)!r}" if label else "branch_labels = None"]
    lines += ["def upgrade(): pass", "def downgrade(): pass"]
    Path("migrations/versions", f"{name}.py").write_text("\n".join(lines) + "\n")


def branch(app: Flask) -> None:
    """Two branches on purpose: `billing`, of two revisions, and one without a label."""
    revise(app, "one", None)
    revise(app, "left", "one", "billing")
    revise(app, "further", "left")
    revise(app, "right", "one")


def test_of_several_heads_it_names_each_and_what_to_type(make: Make) -> None:
    app = make()
    branch(app)
    result = run(app)
    assert result.exit_code == 1
    heads = result.output.partition("migrations has 2 heads: ")[2].partition(".")[0]
    assert sorted(heads.split(", ")) == ["further (billing)", "right"]
    assert "`flask opsjobs install --head " in result.output
    assert "join them with `flask db merge heads`" in result.output
    assert not Path("opsjobs_access.py").exists()


@pytest.mark.parametrize(
    ("name", "head"), [("billing", "further"), ("further", "further"), ("right", "right")]
)
def test_the_revision_stands_after_the_head_that_was_chosen(
    make: Make, name: str, head: str
) -> None:
    app = make()
    branch(app)
    result = run(app, "--head", name)
    assert result.exit_code == 0, result.output
    (path,) = Path("migrations/versions").glob("*opsjobs*.py")
    assert f"down_revision = {head!r}" in path.read_text()
    assert "Then run `flask db upgrade heads`" in result.output
    # Now nothing is missing, and there is nothing to choose.
    assert "written  " not in run(app).output


@pytest.mark.parametrize("name", ["nobody", "one"])
def test_a_head_that_is_none_is_refused_beside_those_that_are(make: Make, name: str) -> None:
    app = make()
    branch(app)
    result = run(app, "--head", name)
    assert result.exit_code == 1
    assert f"migrations has no head '{name}'" in result.output
    assert "further (billing)" in result.output
    assert not list(Path("migrations/versions").glob("*opsjobs*.py"))


def test_the_revision_stands_after_the_head_and_calls_the_steps(make: Make) -> None:
    app = make()
    revise(app, "one", None)
    assert run(app).exit_code == 0
    (path,) = Path("migrations/versions").glob("*opsjobs*.py")
    source = path.read_text()
    assert "down_revision = 'one'" in source
    for line in (
        "from flask_opsjobs.install import steps",
        f"    steps.upgrade(op, since=0, to={steps.latest()})",
        f"    steps.downgrade(op, since={steps.latest()}, to=0)",
    ):
        assert line in source.splitlines()


@pytest.mark.parametrize(
    ("call", "reached"),
    [
        ("steps.upgrade(op, since=0, to=1)", 1),
        ("steps.upgrade(op, to=1)", 1),
        ("opsjobs_steps.upgrade(\n        op,\n        1,\n    )", 1),
        ("steps.downgrade(op, to=1)", 0),
        ("op.execute('SELECT 1')", 0),
    ],
)
def test_it_knows_its_own_revisions_by_their_call(make: Make, call: str, reached: int) -> None:
    app = make()
    revise(app, "one", None)
    path = Path("migrations/versions/one.py")
    source = path.read_text().replace("upgrade(): pass", f"upgrade():\n    {call}", 1)
    path.write_text("from flask_opsjobs.install import steps\n" + source)
    with app.app_context():
        assert revisions.find_revisions(app).reaches == reached


def test_a_newer_release_brings_one_more_revision(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    app, now = make(), steps.latest()
    run(app)
    monkeypatch.setattr(steps, "latest", lambda: now + 1)
    result = run(app, "--dry-run")
    assert f"its revisions only reach opsjobs schema {now}" in result.output
    run(app)
    (newer,) = Path("migrations/versions").glob(f"*opsjobs_schema_{now + 1}.py")
    assert f"steps.upgrade(op, since={now}, to={now + 1})" in newer.read_text()
    assert f"steps.downgrade(op, since={now + 1}, to={now})" in newer.read_text()


def test_with_binds_the_steps_run_on_the_bind(make: Make) -> None:
    app = make(multidb=True, SQLALCHEMY_BINDS={"work": URL}, OPSJOBS_BIND="work")
    assert run(app).exit_code == 0
    (path,) = Path("migrations/versions").glob("*opsjobs*.py")
    defined = path.read_text().split("def upgrade_work():")
    assert "steps.upgrade(op" not in defined[0]
    assert defined[1].split()[0] == "steps.upgrade(op,"


def test_a_template_that_drops_the_lines_leaves_nothing_behind(make: Make) -> None:
    app = make()
    template = Path("migrations/script.py.mako")
    template.write_text(template.read_text().replace("${imports", "${'' and imports"))
    result = run(app)
    assert result.exit_code == 1
    assert "write the revision yourself" in result.output
    assert list(Path("migrations/versions").glob("*.py")) == []


def test_dry_run_and_check_write_nothing(make: Make) -> None:
    app = make()
    before = files(Path.cwd())
    result = run(app, "--dry-run")
    assert result.exit_code == 0
    for name in ("migrations/env.py", "opsjobs_access.py", "opsjobs_display.py", "steps.upgrade"):
        assert name in result.output
    assert files(Path.cwd()) == before


def test_the_escalation_policy_is_written_when_it_is_asked_for(make: Make) -> None:
    app = make()
    run(app)
    assert not Path("opsjobs_escalation.py").exists()
    done = run(app, "--escalation")
    assert "written  opsjobs_escalation.py: Tells people of incidents" in done.output
    assert "escalation=HostEscalation()" in done.output
    assert "class HostEscalation" in Path("opsjobs_escalation.py").read_text()
    Path("opsjobs_escalation.py").write_text("mine")
    assert "opsjobs_escalation.py: yours, left alone" in run(app, "--escalation").output
    assert Path("opsjobs_escalation.py").read_text() == "mine"


def test_files_that_a_person_changed_are_left_alone(make: Make) -> None:
    app = make()
    Path("opsjobs_access.py").write_text("# mine\n")
    result = run(app)
    assert "opsjobs_access.py: yours, left alone" in result.output
    assert "written  opsjobs_display.py" in result.output
    Path("opsjobs_display.py").write_text("# mine too\n")
    assert "opsjobs_display.py: yours, left alone" in run(app).output
    assert Path("opsjobs_access.py").read_text() == "# mine\n"
    assert Path("opsjobs_display.py").read_text() == "# mine too\n"


def test_an_env_that_a_person_wrote_is_left_alone_and_told_what_to_pass(make: Make) -> None:
    app = make()
    opens = "context.configure(dialect_name='postgresql', include_schemas=True)"
    mine = f"from alembic import context\n{opens}\n"
    Path("migrations/env.py").write_text(mine)
    result = run(app)
    assert "migrations/env.py: left alone" in result.output
    assert "include_name=autogenerate.passing_by()" in result.output
    assert Path("migrations/env.py").read_text() == mine


def test_the_lines_join_env_without_touching_the_rest(make: Make) -> None:
    app = make()
    before = Path("migrations/env.py").read_text()
    run(app)
    after = Path("migrations/env.py").read_text()
    assert [line for line in after.splitlines() if line not in before.splitlines()] != []
    kept = iter(after.splitlines())
    assert all(line in kept for line in before.splitlines())


def test_a_folder_that_cannot_be_written_is_named(make: Make) -> None:
    app = make()
    app.root_path = str(Path.cwd() / "missing")
    result = run(app)
    assert result.exit_code == 1
    assert "cannot write" in result.output
    assert "No such file or directory" in result.output


def test_the_lines_to_add_fit_a_module_and_a_package(tmp_path: Path) -> None:
    module = Flask("json.decoder")
    assert "from .opsjobs_access import HostAccess" in plan.lines_to_add(module)[0][1]
    alone = Flask("textwrap")
    alone.secret_key = "set"
    lines = plan.lines_to_add(alone)
    assert "from opsjobs_access import HostAccess" in lines[0][1]
    assert "SECRET_KEY" not in json.dumps(lines)


def test_an_app_whose_name_is_no_module_is_told_where_the_lines_go(make: Make) -> None:
    app = make()
    app.import_name = "my-shop"
    said = run(app).output
    assert "Add to the top of the file that makes the app, after its imports:\n" in said
    assert "docs/" not in said  # a wheel has none


REVISION = "revision = 'one'\ndown_revision = None\n"


@pytest.mark.parametrize(
    ("file", "text", "sentence"),
    [
        (
            "one.py",
            f"{REVISION}# \xe9\n".encode("latin-1"),
            "one.py is not UTF-8: save it as UTF-8",
        ),
        (
            "one.py",
            f"{REVISION}x = '\xe9'\n".encode("latin-1"),
            "one.py is not UTF-8: save it as UTF-8",
        ),
        (
            "one.py",
            REVISION.replace("None", "'gone'").encode(),
            "one.py follows revision 'gone', whose file is missing: bring the file back",
        ),
        ("one.py", b"\ndef (\n", "one.py, line 2, is not Python: invalid syntax: correct it"),
        (
            "one.py",
            f"{REVISION}\nfrom shop_of_nobody import Money\n".encode(),
            "one.py, line 4, cannot be imported: ModuleNotFoundError: No module named 'shop_of_nobody': "
            "correct it, or install what it imports",
        ),
        (
            "one.py",
            f"{REVISION}{{}}['MAIL_SERVER']\n".encode(),
            "one.py, line 3, cannot be imported: KeyError: 'MAIL_SERVER': correct it",
        ),
        (
            "one.py",
            REVISION.replace("None", "'one'").encode(),
            "revisions follow one another in a circle: correct down_revision or depends_on in migrations/"
            "versions/one.py",
        ),
        ("../env.py", b"# \xe9\n", "env.py is not UTF-8: save it as UTF-8"),
        ("../env.py", b"\ndef (\n", "env.py, line 2, is not Python: invalid syntax: correct it"),
    ],
)
def test_a_file_of_the_migrations_that_cannot_be_read_is_named(
    make: Make, file: str, text: bytes, sentence: str
) -> None:
    app = make()
    Path("migrations/versions", file).write_bytes(text)
    said = run(app).output
    assert re.fullmatch(r"Error: [^\n]+, then run this command again\n", said), said
    assert sentence in said
    assert not Path("opsjobs_access.py").exists()
    checked = run(app, "--check")
    removed = app.test_cli_runner().invoke(uninstall)
    assert (said, said) == (checked.output, removed.output)


def test_an_env_that_raises_an_error_is_named(make: Make) -> None:
    """Not one whose database does not answer."""
    app = make()
    path = Path("migrations/env.py")
    source = path.read_text()
    first, place, _ = source.partition("config = context.config\n")
    assert run(app).exit_code == 0
    for broken in ("{}['MAIL_SERVER']\n", f"{first}{place}{{}}['MAIL_SERVER']\n"):
        path.write_text(broken)
        before = files(Path.cwd())
        for words in ((), ("--dry-run",), ("--check",)):
            refused = run(app, *words)
            assert refused.exit_code == 1
            line = broken.count("\n")
            assert (
                f"env.py, line {line}, cannot be imported: KeyError: 'MAIL_SERVER'"
                in refused.output
            )
            assert re.fullmatch(r"Error: [^\n]+, then run this command again\n", refused.output)
        assert files(Path.cwd()) == before


def test_an_env_that_configures_logging_does_not_silence_the_process(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    app = make()
    assert "fileConfig" in Path("migrations/env.py").read_text()
    assert run(app).exit_code == 0
    logging.getLogger("flask_opsjobs.worker").warning("still heard")
    assert "still heard" in caplog.text


def test_an_env_that_catches_every_error_of_connecting_is_not_refused(make: Make) -> None:
    app = make()
    lines = [
        "from flask import current_app",
        "try:",
        "    current_app.extensions['migrate'].db.engine.connect()",
        "except Exception:",
        "    raise SystemExit(3)",
    ]
    Path("migrations/env.py").write_text("\n".join(lines) + "\n")
    assert run(app).exit_code == 0


def test_without_migrations_each_command_says_to_run_itself_again(make: Make) -> None:
    app = make(init=False)
    said = app.test_cli_runner().invoke(uninstall).output
    assert "make it with `flask db init`, then run this command again" in said
    assert said == run(app, "--check").output == run(app).output


def test_of_no_heads_it_says_to_leave_the_option_out(make: Make) -> None:
    app = make()
    said = run(app, "--head", "nope").output
    assert "its heads are: none: leave --head out, then run this command again" in said
    revise(app, "one", None)
    said = run(app, "--head", "nope").output
    assert "its heads are: one: name one of them with --head, then run this command again" in said


def test_of_revisions_in_a_circle_those_in_it_are_named(make: Make) -> None:
    """Not the one before the circle, and not the one after it."""
    app = make()
    for name, after in (("one", None), ("left", "right"), ("right", "left"), ("last", "right")):
        revise(app, name, after)
    said = run(app).output
    files = "migrations/versions/left.py and migrations/versions/right.py"
    assert f"in a circle: correct down_revision or depends_on in {files}, then run" in said


def test_a_folder_in_the_place_of_a_policy_is_named(make: Make) -> None:
    app = make()
    Path("opsjobs_display.py").mkdir()
    said = run(app).output
    assert said.startswith("Error: opsjobs_display.py is a folder"), said
    assert "move the folder away, then run `flask opsjobs install` again\n" in said
    assert not Path("opsjobs_access.py").exists()


def test_an_env_keeps_its_newlines(make: Make) -> None:
    app = make()
    path = Path("migrations/env.py")
    before = path.read_bytes().replace(b"\n", b"\r\n")
    path.write_bytes(before)
    run(app)
    after = path.read_bytes()
    assert b"leave_out()\r\n" in after
    assert after.count(b"\n") == after.count(b"\r\n")
    assert env_file.without_lines(after.decode()).encode() == before
