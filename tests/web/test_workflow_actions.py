"""Actions on workflows, and on the jobs of their steps, as pages start, preview and execute them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from flask_opsjobs.actions.registry import actions_of
from flask_opsjobs.endings.advance import advance
from tests.support.engine import Bench
from tests.support.graphs import Graph
from tests.web.conftest import Access
from tests.web.every import soup
from tests.workflows.test_actions import send_before

REASON = "the vendor answers again, OPS-2291"
HEADERS = {"Sec-Fetch-Site": "same-origin"}
PAYMENT = ("payment", "order-1")


@pytest.fixture
def graph(bench: Bench) -> Graph:
    """A running workflow whose step `a` failed, and whose wait `paid` is open."""
    graph = Graph.make(bench.connection, "a b paid", ["a b"], waits={"paid": PAYMENT})
    graph.end("a", "failed")
    for _ in range(3):
        advance(bench.connection, graph.run, 1_000_000)
    return graph


@pytest.fixture
def post(client: FlaskClient) -> Callable[..., Any]:
    def post(path: str, status: int, **form: Any) -> Any:
        response = client.post(path, data=form, headers=HEADERS)
        assert response.status_code == status, response.text
        return response

    return post


def _words(response: Any) -> str:
    return " ".join(soup(response.text).find(id="dialog-page").text.split())


def _form(response: Any) -> tuple[str, dict[str, str]]:
    form = soup(response.text).find(id="dialog-page").form
    return str(form["action"]), {
        str(field["name"]): str(field.get("value", "")) for field in form.select("[name]")
    }


@pytest.mark.parametrize("action", [action.short_name for action in actions_of("workflow")])
def test_an_action_is_previewed_and_executed(
    client: FlaskClient, post: Any, bench: Bench, graph: Graph, action: str
) -> None:
    values: dict[str, dict[str, Any]] = {
        "skip": {"step": "a", "result": '{"amount": 9}'},
        "signal": {"wait": "paid", "payload": '{"amount": 9}'},
        "give_signal": {"wait": "paid", "signal": send_before(bench)},
    }
    fields = values.get(action, {})
    path = f"/ops/jobs/workflows/{graph.run}/{action}"
    page = client.get(post(path, 303, **fields).location)
    assert page.status_code == 200
    words = _words(page)
    assert f"workflow {graph.run}" in words
    if fields:
        assert "its result" in words
        assert ("990" if action == "give_signal" else "amount") in words
    place, form = _form(page)
    done = client.get(post(place, 303, **form | {"reason": REASON}).location)
    assert soup(done.text).find(id="dialog-page").has_attr("data-done")
    states = graph.states()
    expected = {
        "cancel": {"paid": "canceled"},
        "retry": {"a": "available", "b": "deferred"},
        "skip": {"a": "finished", "b": "available"},
        "signal": {"paid": "finished"},
        "give_signal": {"paid": "finished"},
    }
    assert expected[action].items() <= states.items()
    assert client.get("/ops/jobs/audit").status_code == 200


def test_a_result_is_hidden_from_who_may_not_see_payload(
    client: FlaskClient, post: Any, access: Access, graph: Graph
) -> None:
    path = f"/ops/jobs/workflows/{graph.run}/skip"
    preview = post(path, 303, step="a", result='{"iban": "GB33BUKB20201555555555"}').location
    assert "GB33BUKB" in client.get(preview).text
    access.held = {"workflow.skip", "audit.view"}
    page = client.get(preview)
    assert page.status_code == 200
    assert "GB33BUKB" not in page.text


def test_a_policy_is_asked_with_the_workflow_as_subject(
    post: Any, access: Access, graph: Graph
) -> None:
    post(f"/ops/jobs/workflows/00{graph.run}/cancel", 303)
    assert ("workflow.cancel", f"workflow/{graph.run}") in access.asked
    assert not [subject for _, subject in access.asked if str(subject).startswith("workflow/0")]


@pytest.mark.parametrize("name", ["x", "1" * 30, "7;"])
def test_what_is_no_id_is_told(post: Any, graph: Graph, name: str) -> None:
    said = post(f"/ops/jobs/workflows/{name}/cancel", 404)
    assert "There is no workflow" in said.text


def test_bad_json_is_told_before_a_preview(post: Any, graph: Graph) -> None:
    path = f"/ops/jobs/workflows/{graph.run}/skip"
    assert "result is JSON such as" in post(path, 422, step="a", result="{").text
    for result in ("1" * 5_000, "[" * 20_000):
        said = post(path, 422, step="a", result=result)
        assert "is nested too deep, or has a number that cannot be read back." in said.text
    said = post(path, 413, step="a", result='"' + "x" * 64_000 + '"')
    assert "A longer result or payload is sent by flask opsjobs workflow" in said.text


def test_a_refused_preview_names_the_legal_moves(
    client: FlaskClient, post: Any, graph: Graph
) -> None:
    page = client.get(
        post(f"/ops/jobs/workflows/{graph.run}/signal", 303, wait="a", payload="").location
    )
    assert f"Cannot signal workflow {graph.run}: it has no wait a" in _words(page)


def _forms(tree: Any) -> list[str]:
    """The actions that a page offers for its step."""
    return [str(one["form"]).removeprefix("step-") for one in tree.select("button[form^='step-']")]


def _fields(tree: Any, action: str) -> tuple[str, dict[str, str]]:
    """The address of the form of an action on the step, and what it sends."""
    form = tree.find(id=f"step-{action}")
    fields = [*form.select("[name]"), *tree.select(f"[form=step-{action}][name]")]
    return str(form["action"]), {str(one["name"]): str(one.get("value", "")) for one in fields}


def test_the_page_of_a_step_has_the_forms_that_are_legal(
    client: FlaskClient, access: Access, graph: Graph
) -> None:
    def forms(name: str) -> list[str]:
        return _forms(soup(client.get(f"/ops/jobs/jobs/{graph.ids[name]}").text))

    assert forms("a") == ["skip"]
    assert forms("paid") == ["signal", "skip"]
    graph.end("paid")
    assert forms("paid") == []
    access.held = {"jobs.view"}
    tree = soup(client.get(f"/ops/jobs/jobs/{graph.ids['a']}").text)
    button = tree.find(id="skip-title").find_parent("section").button
    assert button.has_attr("disabled")
    assert "needs workflow.skip" in button.text


def test_the_page_of_a_run_gives_an_ambiguous_signal_to_the_wait_that_one_chooses(
    client: FlaskClient, post: Any, access: Access, bench: Bench, graph: Graph
) -> None:
    page = f"/ops/jobs/workflows/{graph.run}"
    assert not soup(client.get(page).text).find(id="give_signal-title")
    signal = send_before(bench)
    send_before(bench, key="order-2")
    tree = soup(client.get(page).text)
    (said,) = [say for say in tree.select(".say") if "Ambiguous signal" in say.text]
    (link,) = said.select("a")
    assert link.text == "See paid"
    tree = soup(client.get(str(link["href"]).partition("#")[0]).text)
    fields = {
        str(field["name"]): str(field.get("value", ""))
        for field in tree.select("[form='step-give_signal'][name]")
    }
    (option,) = tree.select("#step-signal option")
    assert option["value"] == str(signal)
    assert re.fullmatch(r"1, [0-9:]{8} by host, ambiguous", " ".join(option.text.split()))
    action = str(tree.select_one("form#step-give_signal")["action"])
    place, form = _form(client.get(post(action, 303, **fields | {"signal": signal}).location))
    post(place, 303, **form | {"reason": REASON})
    assert graph.states()["paid"] == "finished"
    access.held = {"workflows.view", "payload.view"}
    send_before(bench)
    run = Graph.make(bench.connection, "paid", [], waits={"paid": PAYMENT})
    advance(bench.connection, run.run, 1_000_000)
    tree = soup(client.get(f"/ops/jobs/workflows/{run.run}").text)
    panel = tree.find(id="give_signal-title").find_parent("section")
    assert "needs workflow.give_signal" in panel.button.text


def test_the_page_of_a_run_offers_a_late_signal_to_an_open_wait(
    client: FlaskClient, bench: Bench, graph: Graph
) -> None:
    late = send_before(bench, "late")
    send_before(bench, "late", run=graph.run + 1)
    page = f"/ops/jobs/workflows/{graph.run}?step={graph.ids['paid']}"
    (option,) = soup(client.get(page).text).select("#step-signal option")
    assert option["value"] == str(late)
    assert " ".join(option.text.split()).endswith("by host, late")


def test_the_form_of_a_step_sends_what_the_action_reads(
    client: FlaskClient, post: Any, graph: Graph
) -> None:
    tree = soup(client.get(f"/ops/jobs/jobs/{graph.ids['a']}").text)
    path, fields = _fields(tree, "skip")
    assert set(fields) >= {"step", "result"}
    page = client.get(post(path, 303, **fields).location)
    assert "step a" in _words(page)


def test_a_step_whose_name_begins_with_a_space_is_skipped(
    client: FlaskClient, post: Any, bench: Bench, graph: Graph
) -> None:
    bench.connection.execute("UPDATE opsjobs.steps SET name = ' a ' WHERE name = 'a'")
    tree = soup(client.get(f"/ops/jobs/workflows/{graph.run}?step={graph.ids['a']}").text)
    path, fields = _fields(tree, "skip")
    assert "step a failed finished" in _words(client.get(post(path, 303, **fields).location))


def test_a_refresh_keeps_what_was_typed_for_a_step(client: FlaskClient, graph: Graph) -> None:
    paid = graph.ids["paid"]
    for path in (f"workflows/{graph.run}/live?step={paid}", f"jobs/{paid}/live"):
        tree = soup(client.get(f"/ops/jobs/{path}").text)
        assert [field["id"] for field in tree.select("textarea[hx-preserve]")] == [
            "step-payload",
            "step-result",
        ], path
        assert not tree.select("form")


def test_the_table_of_urls_has_every_action_on_workflows(client: FlaskClient, graph: Graph) -> None:
    for action in actions_of("workflow"):
        assert client.get(f"/ops/jobs/workflows/{graph.run}/{action.short_name}").status_code in (
            404,
            405,
        )


def test_the_page_of_a_workflow_has_its_legal_actions(
    client: FlaskClient, post: Any, access: Access, graph: Graph
) -> None:
    def buttons() -> list[str]:
        tree = soup(client.get(f"/ops/jobs/workflows/{graph.run}").text)
        found = tree.select(f"[formaction^='/ops/jobs/workflows/{graph.run}/']")
        return [str(button["formaction"]).rpartition("/")[2] for button in found]

    assert buttons() == ["cancel", "retry"]
    post(f"/ops/jobs/workflows/{graph.run}/retry", 303)
    access.held = {"workflows.view"}
    assert buttons() == []
    text = soup(client.get(f"/ops/jobs/workflows/{graph.run}").text).text
    assert "needs workflow.cancel" in text


def test_the_page_of_a_workflow_has_the_forms_of_the_chosen_step(
    client: FlaskClient, post: Any, graph: Graph
) -> None:
    def tree_of(name: str) -> Any:
        path = f"/ops/jobs/workflows/{graph.run}?step={graph.ids[name]}"
        return soup(client.get(path).text)

    tree = tree_of("a")
    path, fields = _fields(tree, "skip")
    assert "step a" in _words(client.get(post(path, 303, **fields).location))
    (button,) = tree.select(f"[formaction='/ops/jobs/jobs/{graph.ids['a']}/retry']")
    assert button.text == "Retry this step…"
    assert _forms(tree_of("paid")) == ["signal", "skip"]
