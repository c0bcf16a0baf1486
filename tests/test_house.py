"""The rules of the house that no tool knows: each is a search through the sources that finds nothing."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from configparser import ConfigParser
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support import sources
from tools.map import first_sentence

# Where SQL may be sent from. Reads are in queries, an operator's and a host's writes in transitions; the rest
# are the few places whose whole purpose is one statement or a connection.
SENDS_SQL = (
    "flask_opsjobs/**/transitions.py",
    "flask_opsjobs/**/*queries.py",
    "flask_opsjobs/**/checks.py",
    "flask_opsjobs/core/db.py",
    "flask_opsjobs/core/reading.py",
    "flask_opsjobs/jobs/record/enqueue*.py",
    "flask_opsjobs/jobs/record/unique_locks.py",
    "flask_opsjobs/jobs/search/saved_views.py",
    "flask_opsjobs/limits/stored_buckets.py",
    "flask_opsjobs/actions/planning.py",
    "flask_opsjobs/tasks/pauses.py",
    "flask_opsjobs/endings/*.py",
    "flask_opsjobs/failures/*.py",
    "flask_opsjobs/overview/badges.py",
    "flask_opsjobs/overview/changes.py",
    "flask_opsjobs/engine/**/*.py",
    # Pipelines of Redis.
    "flask_opsjobs/bridge/*.py",
    "flask_opsjobs/lifeline/*.py",
    "flask_opsjobs/lifeline/detectors/*.py",
    "flask_opsjobs/loops/*.py",
    "flask_opsjobs/install/*.py",
    "flask_opsjobs/doctor/*.py",
    # Creates and drops a database for a host's tests.
    "flask_opsjobs/testing/postgres.py",
)
SQL_TEXT = re.compile(r"\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|COPY|LOCK TABLE)\s+\S+\s")
# Sentences of SQL without a table: the clock, a lock, a setting of the session.
SPEAKS_SQL = (
    "flask_opsjobs/host.py",
    "flask_opsjobs/install/*.py",
    "flask_opsjobs/engine/**/*.py",
    "flask_opsjobs/loops/*.py",
)


def _name(path: Path) -> str:
    return str(path.relative_to(sources.ROOT))


def _check(places: list[str], allowed: tuple[str, ...]) -> None:
    """Fail on places outside the files that are `allowed` by glob, and on globs that allow nothing."""
    used = {place.partition(":")[0] for place in places}
    files = {glob: {_name(path) for path in sources.ROOT.glob(glob)} for glob in allowed}
    known = set().union(*files.values())
    outside = [place for place in places if place.partition(":")[0] not in known]
    assert not outside, "\n".join(outside)
    needless = [glob for glob, names in files.items() if not names & used]
    assert not needless, f"nothing needs to be allowed in {needless}"


def _calls(path: Path, *methods: str) -> Iterator[str]:
    """Where methods of these names are called in a module."""
    text = path.read_text()
    if not any(f".{method}(" in text for method in methods):
        return
    for node in ast.walk(sources.tree(path)):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in methods
            # An operator executes a preview.
            and "operator" not in ast.unparse(node.func.value).lower()
        ):
            yield sources.place(path, node.lineno)


def _strings(path: Path) -> Iterator[ast.Constant]:
    """The string literals of a module, without its docstrings."""
    tree = sources.tree(path)
    docstrings = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if node in docstrings or not isinstance(node, ast.Constant):
            continue
        if isinstance(node.value, str):
            yield node


def test_sql_is_sent_from_its_places_only() -> None:
    sent = [
        place
        for path in sources.python("flask_opsjobs")
        for place in _calls(path, "execute", "executemany", "exec_driver_sql", "copy")
    ]
    _check(sent, SENDS_SQL)


def test_sql_is_written_in_sql_files() -> None:
    written = [
        f"{sources.place(path, string.lineno)} {string.value.strip()[:60]!r}"
        for path in sources.python("flask_opsjobs")
        for string in _strings(path)
        if SQL_TEXT.match(str(string.value))
    ]
    _check(written, SPEAKS_SQL)


def _sets_state(node: ast.AST) -> bool:
    """Whether a node is `x.state = …` or `….values(state=…)`."""
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(isinstance(t, ast.Attribute) and t.attr == "state" for t in targets)
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "values"
        and any(keyword.arg == "state" for keyword in node.keywords)
    )


def test_no_python_sets_a_state() -> None:
    """Statements do, each named by an arrow: `tests/test_sql.py` asks Postgres which."""
    found = [
        sources.place(path, node.lineno)  # type: ignore[attr-defined]
        for path in sources.python("flask_opsjobs")
        for node in ast.walk(sources.tree(path))
        if _sets_state(node)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("what", "pattern"),
    [
        ("the filter safe", r"\|\s*safe\b"),
        ("autoescape switched off", r"autoescape\s+false"),
        ("an inline style", r"\sstyle\s*=|<style"),
        ("an inline script", r"<script(?![^>]*\ssrc=)"),
        ("an event attribute", r"\son[a-z]+\s*=|hx-on"),
        ("a javascript: address", r"javascript:"),
        ("another site", r"(src|href)=[\"']?(https?:)?//"),
    ],
)
def test_templates_stand_under_a_strict_csp(what: str, pattern: str) -> None:
    found = [
        place
        for path in sources.files("templates", "*.html")
        for place, line in sources.lines(path)
        if re.search(pattern, line)
    ]
    assert not found, f"{what}:\n" + "\n".join(found)


def test_rq_keys_are_never_written_out() -> None:
    """RQ's prefix may be changed by `RQ_KEY_PREFIX`; RQ's own constants and methods know it."""
    found = [
        place
        for path in sources.python("flask_opsjobs")
        for place, line in sources.lines(path)
        if re.search(r"""["']rq:""", line)
    ]
    assert not found, "\n".join(found)


def test_no_test_sleeps() -> None:
    """`tests/support/waiting.py` waits for conditions; time that passes is passed in."""
    found = [
        place
        for path in sources.python("tests")
        if path != sources.ROOT / "tests/support/waiting.py"
        for place in _calls(path, "sleep", "wait_for_timeout")
    ]
    assert not found, "\n".join(found)


def test_every_module_opens_with_one_sentence() -> None:
    found = [
        _name(path)
        for path in sources.python("flask_opsjobs", "migrations", "tests/support", "tools")
        if not first_sentence(path).endswith((".", "!", "?"))
    ]
    assert not found, "\n".join(found)


def test_no_module_opens_with_a_question() -> None:
    """It opens with what it does: "Decides …", "Writes …", "Lists …"."""
    question = re.compile(r"(What|Which|Where|When|How|Who|Whose|Whether|Why)\b")
    found = [
        _name(path)
        for path in sources.python("flask_opsjobs", "migrations", "tests/support", "tools")
        if question.match(first_sentence(path))
    ]
    assert not found, "\n".join(found)


def test_the_contract_of_queries_names_each_of_them() -> None:
    """`**.queries` stands for those of that name; the contract lists the others."""
    contracts = ConfigParser()
    contracts.read(sources.ROOT / "setup.cfg")
    listed = contracts["importlinter:contract:queries"]["source_modules"].split()
    others = [_name(path) for path in sources.files("flask_opsjobs", "*_queries.py")]
    assert {each.removesuffix(".py").replace("/", ".") for each in others} == {*listed[1:]}


def test_files_that_become_the_hosts_import_nothing_relatively() -> None:
    found = [
        sources.place(path, node.lineno)
        for path in sources.python("flask_opsjobs/install/starters")
        for node in ast.walk(sources.tree(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not found, "\n".join(found)


def test_modules_are_named_after_things() -> None:
    vague = re.compile(r"(.*_)?(utils?|helpers?|common|base|misc|manager|service|handler)s?")
    found = [_name(path) for path in sources.python("flask_opsjobs") if vague.fullmatch(path.stem)]
    assert not found, "\n".join(found)


def test_every_sql_statement_says_what_it_is() -> None:
    found = [
        _name(path)
        for path in sources.files("flask_opsjobs", "*.sql")
        if not path.read_text().startswith("--")
    ]
    assert not found, "\n".join(found)


# Ruff knows the same width for Python.
WIDTH = 110


@pytest.mark.parametrize(
    ("folder", "pattern"),
    [
        ("flask_opsjobs", "*.sql"),
        ("templates", "*.html"),
        ("static", "*.css"),
        ("static", "*.js"),
    ],
)
def test_no_line_is_too_wide(folder: str, pattern: str) -> None:
    found = [
        place
        for path in sources.files(folder, pattern)
        if "vendor" not in path.parts
        for place, line in sources.lines(path)
        if len(line) > WIDTH
    ]
    assert not found, "\n".join(found)


def test_what_ruff_shall_not_see_exists() -> None:
    ruff = tomllib.loads((sources.ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert [glob for glob in ruff["per-file-ignores"] if not any(sources.ROOT.glob(glob))] == []


@pytest.mark.skipif(not (sources.ROOT / ".ci").exists(), reason="an sdist has no CI")
def test_ci_leaves_out_no_test() -> None:
    """`make check` leaves out slow tests, unless `SLOW=yes` is said."""
    assert (sources.ROOT / ".ci/run").read_text().endswith("\nmake check SLOW=yes\n")
    chosen = {
        slow: subprocess.run(
            ["make", "--dry-run", "check", f"SLOW={slow}"],
            cwd=sources.ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for slow in ("yes", "no")
    }
    assert "CHECKED=" in chosen["yes"]
    assert "not slow" not in chosen["yes"]
    assert "not slow" in chosen["no"]


def test_nothing_is_kept_from_the_formatter() -> None:
    found = [
        place
        for path in sources.python(
            "flask_opsjobs", "migrations", "tests", "tools", "docs", "examples"
        )
        for place, line in sources.lines(path)
        if re.search(r"# (fmt): (skip|off)", line)
    ]
    assert not found, "\n".join(found)


# A function of these files is always read together with its module, its page or its command, never alone:
# `job_transitions.lock`, the view `cron.page`, the filter `| moment`, `queue pause`, the pass `watch.run`,
# one lifecycle beside another, the contract that each `actions.py` fills, the two directions of each
# schema step, which the installer calls by the same names, and `testing.perform` in a host's tests.
READ_WITH_ITS_MODULE = (
    "flask_opsjobs/*/transitions.py",
    "flask_opsjobs/*/lifecycle.py",
    "flask_opsjobs/*/actions.py",
    "flask_opsjobs/web/*/view.py",
    "flask_opsjobs/web/*/exports.py",
    "flask_opsjobs/web/*/simulate.py",
    "flask_opsjobs/web/*/saved_views.py",
    "flask_opsjobs/web/app/filters.py",
    "flask_opsjobs/web/app/pages.py",
    "flask_opsjobs/cli/[a-z]*.py",
    "flask_opsjobs/loops/[a-z]*.py",
    "flask_opsjobs/install/steps.py",
    "flask_opsjobs/testing/__init__.py",
    "migrations/*.py",
)


def _public(kind: type[ast.stmt]) -> dict[str, list[str]]:
    """The places of each public name that is defined at the top of a module of ours."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sources.python("flask_opsjobs", "migrations"):
        for node in sources.tree(path).body:
            if isinstance(node, kind) and not node.name.startswith("_"):  # type: ignore[attr-defined]
                found[node.name].append(sources.place(path, node.lineno))  # type: ignore[attr-defined]
    return found


def test_one_class_name_is_one_thing() -> None:
    assert {name: places for name, places in _public(ast.ClassDef).items() if len(places) > 1} == {}


def test_one_function_name_is_one_thing() -> None:
    """Among those that are read by their name alone."""
    files = {_name(path) for glob in READ_WITH_ITS_MODULE for path in sources.ROOT.glob(glob)}
    several = []
    for name, places in _public(ast.FunctionDef).items():
        alone = [place for place in places if place.partition(":")[0] not in files]
        assert len(alone) < 2, f"{name}: {alone}"
        several += places if len(places) > 1 else []
    _check([place for place in several if place.partition(":")[0] in files], READ_WITH_ITS_MODULE)


def _domain(path: Path) -> str:
    return path.relative_to(sources.ROOT / "flask_opsjobs").parts[0]


def test_a_statement_stands_beside_its_only_user() -> None:
    """Its name is one in the whole package;
    used by several domains, it stands with one of them, or in the core.
    """
    statements = sources.files("flask_opsjobs", "*.sql")
    assert len({path.stem for path in statements}) == len(statements)
    texts = [(path, path.read_text()) for path in (*sources.python("flask_opsjobs"), *statements)]
    found = []
    for path in statements:
        names = (f'"{path.stem}"', f"{{{path.stem}.sql}}")
        users = {_domain(user) for user, text in texts if any(name in text for name in names)}
        if not users or _domain(path) not in users | {"core"}:
            found.append(f"{_name(path)}: used by {', '.join(sorted(users)) or 'nobody'}")
    assert not found, "\n".join(found)


def _imports() -> dict[str, set[str]]:
    """The modules of ours that each module imports anywhere: at its top, in a function, or for types only."""
    modules = {}
    for path in sources.python("flask_opsjobs"):
        name = ".".join(path.relative_to(sources.ROOT).with_suffix("").parts)
        modules[name.removesuffix(".__init__")] = path
    graph: dict[str, set[str]] = {name: set() for name in modules}
    for name, path in modules.items():
        # Level 1 of a package is the package itself.
        above = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
        for node in ast.walk(sources.tree(path)):
            if isinstance(node, ast.ImportFrom):
                start = above[: len(above) - node.level + 1] if node.level else []
                source = ".".join([*start, *([node.module] if node.module else [])])
                of_names = {f"{source}.{alias.name}" for alias in node.names}
                # A name that is no module is defined in `source`.
                found = {each if each in modules else source for each in of_names}
            elif isinstance(node, ast.Import):
                found = {alias.name for alias in node.names}
            else:
                continue
            graph[name] |= found & modules.keys() - {name}
    return graph


def test_imports_make_no_circle() -> None:
    """Also none that only types need. `prepare` raises `CycleError` with the modules of a circle."""
    graph = _imports()
    # At the top, in a function, and under TYPE_CHECKING.
    assert "flask_opsjobs.jobs.record.declaration" in graph["flask_opsjobs.host"]
    assert "flask_opsjobs.core.db" in graph["flask_opsjobs.testing"]
    assert "flask_opsjobs.actions.shapes" in graph["flask_opsjobs.errors"]
    TopologicalSorter(graph).prepare()
    with pytest.raises(CycleError):
        TopologicalSorter({**graph, "flask_opsjobs.errors": {"flask_opsjobs.host"}}).prepare()
