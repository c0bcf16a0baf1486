"""The policies to start from: they satisfy the protocols, deny everyone and hide what looks secret."""

from __future__ import annotations

import pytest

from flask_opsjobs import policy
from flask_opsjobs.install.starters.opsjobs_access import HostAccess
from flask_opsjobs.install.starters.opsjobs_display import HostDisplay
from flask_opsjobs.install.starters.opsjobs_escalation import HostEscalation


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
