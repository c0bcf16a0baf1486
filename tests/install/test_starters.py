"""The policies to start from: they satisfy the protocols, deny everyone and hide what looks secret."""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path

import pytest
from flask import Flask

from flask_opsjobs import policy
from flask_opsjobs.install import plan, starters
from flask_opsjobs.install.starters.opsjobs_access import HostAccess
from flask_opsjobs.install.starters.opsjobs_display import HostDisplay
from flask_opsjobs.install.starters.opsjobs_escalation import HostEscalation

from .conftest import move_in

NOWHERE = "postgresql+psycopg://nobody@127.0.0.1:1/nothing"
THIRD = '"opsjobs_access": {3: "refuses people who are locked",'


def test_they_are_policies() -> None:
    assert policy.find_policy_fault(HostAccess(), policy.AccessPolicy) is None
    assert policy.find_policy_fault(HostDisplay(), policy.DisplayPolicy) is None
    assert policy.find_policy_fault(HostEscalation(), policy.EscalationPolicy) is None


def test_access_denies_everyone() -> None:
    assert HostAccess().current_actor() is None
    assert not HostAccess().can("root", "jobs.view")


def test_display_hides_secrets_and_masks_whom_a_job_is_about() -> None:
    display = HostDisplay()
    assert display.is_hidden_key("customerApiKey")
    assert not display.is_hidden_key("customer_id")
    said = display.clean_text("to bob.miller@example.com by redis://:hunter2@cache:6379/0")
    assert said == "to b…@example.com by redis://[hidden]@cache:6379/0"


def test_escalation_sends_nothing_and_says_so() -> None:
    with pytest.raises(NotImplementedError, match="sends nothing yet"):
        HostEscalation().escalate({"event": "opened"})


def test_a_host_names_its_own_secrets() -> None:
    class Display(HostDisplay):
        hidden_keys = frozenset({"diagnosis"})

    assert Display().is_hidden_key("diagnosis")


def test_each_says_in_its_first_line_what_it_is_and_has_its_newest_number() -> None:
    for name, changes in starters.CHANGES.items():
        source = inspect.getsource(getattr(starters, name))
        assert source.splitlines()[0].endswith("a place to start, and no policy for production.")
        assert starters.find_number(source) == max(changes) == len(changes)


@pytest.mark.slow
def test_a_later_install_says_what_its_starter_changed_and_leaves_the_copy_alone(
    tmp_path: Path, site: Path, written: Path
) -> None:
    """The copy is of starter 2, as this release writes it; a later release has a third one."""
    later = tmp_path / "later"
    shutil.copytree(site, later)
    folder = later / "flask_opsjobs/install/starters"
    for name, before, after in (
        ("__init__.py", '"opsjobs_access": {', THIRD),
        ("opsjobs_access.py", "starter 2;", "starter 3;"),
    ):
        text = (folder / name).read_text()
        assert text.count(before) == 1
        (folder / name).write_text(text.replace(before, after))
    shutil.copytree(written, tmp_path / "shop")
    copy = tmp_path / "shop/opsjobs_access.py"
    first = copy.read_text()
    newcomer = move_in(tmp_path / "shop", later, NOWHERE, "redis://127.0.0.1:1")
    newcomer.is_warm = False
    said = newcomer.does("opsjobs", "install")
    assert "opsjobs_access.py: yours, left alone" in said
    assert "its starter has changed: refuses people who are locked. Take over what you want" in said
    assert "opsjobs_display.py is left alone" not in said
    assert copy.read_text() == first
    copy.write_text(first.replace("starter 2", "starter 3"))
    assert "its starter has changed" not in newcomer.does("opsjobs", "install")


def test_a_copy_is_told_what_its_starter_has_changed_since(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With made changes: no starter has changed since its first release."""
    app = Flask("shop", root_path=str(tmp_path))
    changes = {1: "the first", 2: "denies a locked person too", 3: "has most_targets"}
    monkeypatch.setattr(plan, "CHANGES", {"opsjobs_access": changes, "opsjobs_display": {1: ""}})
    assert plan.list_starter_changes(app) == []
    copy = tmp_path / "opsjobs_access.py"
    for line, said in (
        ("from starter 1", ": denies a locked person too; has most_targets. "),
        ("from starter 2", ": has most_targets. "),
    ):
        copy.write_text(f'"""Ours.\n\nWritten {line}; edit it.\n"""\n')
        (sentence,) = plan.list_starter_changes(app)
        assert said in sentence
        assert "write `starter 3` into its first lines" in sentence
    for text in ("Written from starter 3", "a file of our own"):
        copy.write_text(text)
        assert plan.list_starter_changes(app) == []
