"""Why a step of a workflow is not running: what it waits for, and the steps that all others wait for."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient
from flask_sqlalchemy import SQLAlchemy

from flask_opsjobs import OpsJobs, UnknownWorkflow
from flask_opsjobs.endings.advance import advance
from flask_opsjobs.explain.reason_kinds import Explanation, Reason
from flask_opsjobs.testing import perform_due
from flask_opsjobs.workflows.lifecycle import HOLDS_UP
from tests.explain.conftest import Look, codes
from tests.support.engine import Bench
from tests.support.graphs import Graph
from tests.support.plans import explain as explain_plan

MOST_BYTES = 65_536


@pytest.fixture
def diamond(bench: Bench) -> Graph:
    """Two steps in front, one behind both, and one behind that."""
    return Graph.make(
        bench.connection, "left right join notify", ["left join", "right join", "join notify"]
    )


def first(found: Explanation) -> Reason:
    return found.reasons[0]


def test_a_step_names_the_steps_before_it_and_the_frontier(diamond: Graph, look: Look) -> None:
    found = look(diamond.ids["notify"])
    assert codes(found) == ["step_behind"]
    reason = first(found)
    assert reason.says.startswith("It waits for step join. Step left: ")
    assert "Step right: " in reason.says
    assert "Step join" not in reason.says
    left, right = diamond.ids["left"], diamond.ids["right"]
    assert reason.read["frontier"] == (
        f"left is job/{left}, available, right is job/{right}, available"
    )
    assert first(look(diamond.ids["join"])).says.startswith("It waits for steps left and right. ")


def test_the_frontier_says_the_first_reason_of_each_of_its_steps(bench: Bench, look: Look) -> None:
    graph = Graph.make(bench.connection, "billing notify", ["billing notify"])
    bench.connection.execute(
        "UPDATE opsjobs.jobs SET state = 'retryable', attempt = 3, max_attempts = 5,"
        " due_at = '2100-01-01 02:20+00' WHERE id = %s",
        [graph.ids["billing"]],
    )
    assert first(look(graph.ids["notify"])).says == (
        "It waits for step billing. Step billing: Attempt 3 of 5 failed, and the next attempt is due later. "
        "It ends at 2100-01-01 02:20:00 UTC."
    )


def test_at_most_five_steps_are_named(bench: Bench, look: Look) -> None:
    names = [f"s{number}" for number in range(8)]
    graph = Graph.make(
        bench.connection, " ".join([*names, "end"]), [f"{name} end" for name in names]
    )
    reason = first(look(graph.ids["end"]))
    assert reason.says.startswith("It waits for steps s0, s1, s2, s3, s4 and others.")
    assert reason.says.count("Step s") == 5
    assert reason.read["pending"] == "8"


def test_an_end_that_was_not_passed_on_needs_the_advance_loop(diamond: Graph, look: Look) -> None:
    diamond.end("left")
    assert codes(look(diamond.ids["join"], "advance")) == ["step_behind"]
    diamond.end("right")
    found = look(diamond.ids["join"], "advance")
    assert codes(found) == ["step_not_advanced", "loop_silent"]
    assert "The advance loop has never run" in found.reasons[1].says
    assert codes(look(diamond.ids["join"])) == ["step_not_advanced"]
    behind = first(look(diamond.ids["notify"]))
    assert behind.says.startswith(
        "It waits for step join. Step join: All steps before it have ended"
    )
    advance(diamond.connection, diamond.run, MOST_BYTES)
    assert codes(look(diamond.ids["join"])) == []


def test_the_error_of_the_last_advance_is_quoted(diamond: Graph, look: Look) -> None:
    diamond.end("left")
    diamond.end("right")
    diamond.connection.execute("UPDATE opsjobs.workflows SET trouble = 'no space left'")
    assert first(look(diamond.ids["join"])).quote == "no space left"


def test_a_pause_of_its_queue_counts_for_a_step_but_not_for_a_wait(
    bench: Bench, look: Look
) -> None:
    graph = Graph.make(bench.connection, "paid ship", ["paid ship"], waits={"paid": ("paid", "7")})
    bench.connection.execute(
        "INSERT INTO opsjobs.queues (name, created_at, is_paused, paused_at, paused_by, paused_reason)"
        " VALUES ('default', now(), true, now(), 'anna', 'hold')"
    )
    assert codes(look(graph.ids["ship"])) == ["step_behind", "queue_paused"]
    assert codes(look(graph.ids["paid"])) == ["step_not_advanced"]


class TestWaits:
    @pytest.fixture
    def paid(self, bench: Bench) -> Graph:
        """An open wait, and a step behind it."""
        graph = Graph.make(
            bench.connection, "paid ship", ["paid ship"], waits={"paid": ("payment", "order-7")}
        )
        advance(graph.connection, graph.run, MOST_BYTES)
        return graph

    def test_an_open_wait_names_its_signal_and_its_time(self, paid: Graph, look: Look) -> None:
        paid.connection.execute(
            "UPDATE opsjobs.jobs SET deadline_at = '2100-01-01 00:00Z' WHERE id = %s",
            [paid.ids["paid"]],
        )
        found = look(paid.ids["paid"])
        assert codes(found) == ["wait_open"]
        reason = first(found)
        assert reason.says == "It waits for the signal payment with the key order-7."
        assert reason.todo == "Send the signal with `opsjobs.signal` or `flask opsjobs signal`."
        assert (reason.read["signals_seen"], str(reason.until)[:10]) == ("0", "2100-01-01")
        assert first(look(paid.ids["ship"])).says == (
            "It waits for step paid. Step paid: It waits for the signal payment with the key order-7. "
            "It ends at 2100-01-01 00:00:00 UTC."
        )

    def test_a_signal_that_came_needs_the_advance_loop(self, paid: Graph, look: Look) -> None:
        send(paid, "early")
        found = look(paid.ids["paid"], "advance")
        assert codes(found) == ["wait_open", "loop_silent"]
        assert "Its signal has come" in first(found).says

    def test_signals_that_nobody_took_are_counted(self, paid: Graph, look: Look) -> None:
        for _ in range(2):
            send(paid, "ambiguous")
        reason = first(look(paid.ids["paid"]))
        assert reason.says.endswith(
            "2 signals came, but several waits could take it, so none of them did."
        )
        assert reason.read["signals_seen"] == "2"

    def test_a_late_signal_is_counted_and_can_be_given(self, paid: Graph, look: Look) -> None:
        send(paid, "late")
        send(paid, "late", run=paid.run + 1)
        reason = first(look(paid.ids["paid"]))
        assert reason.says.endswith(
            " 1 signal came late for an earlier wait, and this wait does not take it."
        )
        assert "choose it on the page of the workflow" in str(reason.todo)
        assert reason.read["signals_seen"] == "1"

    def test_a_signal_for_another_run_does_not_count(self, paid: Graph, look: Look) -> None:
        send(paid, "early", run=paid.run + 1)
        assert first(look(paid.ids["paid"])).read["signals_seen"] == "0"

    def test_after_its_time_it_needs_the_expire_loop(self, paid: Graph, look: Look) -> None:
        paid.connection.execute(
            "UPDATE opsjobs.jobs SET deadline_at = now() - interval '1 s' WHERE id = %s",
            [paid.ids["paid"]],
        )
        assert codes(look(paid.ids["paid"], "expire")) == ["deadline_passed", "loop_silent"]


def send(graph: Graph, outcome: str, run: int | None = None) -> None:
    graph.connection.execute(
        "INSERT INTO opsjobs.signals (name, key, at, by, outcome, run)"
        " VALUES ('payment', 'order-7', now(), 'host', %s, %s)",
        [outcome, run],
    )


def test_a_step_of_a_canceled_run_says_who_canceled_it(diamond: Graph, look: Look) -> None:
    diamond.connection.execute(
        "UPDATE opsjobs.workflows SET state = 'canceling', cancel_requested_at = now(),"
        " cancel_requested_by = 'anna', cancel_reason = 'wrong day'"
    )
    for name in ("left", "notify"):
        found = look(diamond.ids[name], "advance")
        assert codes(found) == ["run_canceling", "loop_silent"]
        assert (first(found).by, first(found).quote) == ("anna", "wrong day")


def test_a_map_that_a_worker_runs(
    db: SQLAlchemy, opsjobs: OpsJobs, bench: Bench, look: Look
) -> None:
    @opsjobs.task(record_output=True)
    def give() -> list[int]:
        return [1]

    @opsjobs.task
    def take(number: int) -> None: ...

    flow = opsjobs.workflow("map")
    flow.map("each", take, over=flow.step("give", give).result, as_="number")
    run = flow.start()
    db.session.commit()
    perform_due(limit=1)
    advance(bench.connection, run.id, MOST_BYTES)
    (row,) = bench.rows("SELECT id FROM opsjobs.jobs WHERE task = 'opsjobs.map'")
    bench.dispatch_all()
    bench.claim(row["id"])
    found = look(row["id"])
    assert codes(found) == ["map_expanding"]
    assert first(found).read["worker"] == bench.name
    assert codes(look(row["id"], minutes=3, heartbeats=False)) == ["worker_silent"]


def test_a_step_whose_job_was_deleted_is_named(
    diamond: Graph, look: Look, opsjobs: OpsJobs, db: SQLAlchemy
) -> None:
    """A deletion by SQL: the run says it, until the loop counts the step as failed."""
    diamond.end("left")
    diamond.connection.execute("DELETE FROM opsjobs.jobs WHERE id = %s", [diamond.ids["right"]])
    advance(diamond.connection, diamond.run, MOST_BYTES)
    found = look(diamond.ids["join"])
    assert codes(found) == ["step_removed"]
    assert first(found).says == "It waits for step right, but its job was deleted."
    assert first(found).passes
    run = opsjobs.explain(f"workflow/{diamond.run}")
    assert run.removed == ("right",)
    assert list(run.frontier) == ["join"]
    assert [reason.code for reason in run.frontier["join"].reasons] == ["step_removed"]


def test_the_page_links_to_the_workflow_of_a_step(diamond: Graph, client: FlaskClient) -> None:
    page = client.get(f"/ops/jobs/jobs/{diamond.ids['notify']}").text
    assert "It waits for step join." in page
    assert f'<a href="/ops/jobs/workflows/{diamond.run}">Its workflow</a>' in page
    diamond.connection.execute("DELETE FROM opsjobs.jobs WHERE id = %s", [diamond.ids["join"]])
    page = client.get(f"/ops/jobs/jobs/{diamond.ids['notify']}").text
    assert "It waits for step join, but its job was deleted." in page
    assert f'<a href="/ops/jobs/workflows/{diamond.run}">Its workflow</a>' in page


class TestRun:
    def test_its_frontier(self, diamond: Graph, opsjobs: OpsJobs, db: SQLAlchemy) -> None:
        found = opsjobs.explain(f"workflow/{diamond.run}")
        assert list(found.frontier) == ["left", "right"]
        first, _, left = found.says.partition(". ")
        assert first.startswith("join waits for left, which has been due since 20")
        assert left == "4 steps of 4 left; 2 of them wait for no other step."
        diamond.end("left")
        diamond.end("right")
        assert list(opsjobs.explain(f"workflow/{diamond.run}").frontier) == ["join"]

    def test_its_only_released_step(self, bench: Bench, opsjobs: OpsJobs, db: SQLAlchemy) -> None:
        graph = Graph.make(bench.connection, "only", [])
        says = opsjobs.explain(f"workflow/{graph.run}").says
        assert says.endswith("1 step of 1 left; 1 of them waits for no other step.")

    def test_one_that_has_ended(self, bench: Bench, opsjobs: OpsJobs, db: SQLAlchemy) -> None:
        graph = Graph.make(bench.connection, "only", [])
        graph.end("only")
        advance(graph.connection, graph.run, MOST_BYTES)
        found = opsjobs.explain(f"workflow/{graph.run}")
        says = "It has ended: all steps that must finish have finished."
        assert (found.state, found.says, found.frontier) == ("finished", says, {})

    @pytest.mark.parametrize(
        ("state", "says"), [("failed", "failed"), ("canceled", "was canceled")]
    )
    def test_one_that_a_step_ended(
        self, bench: Bench, opsjobs: OpsJobs, db: SQLAlchemy, state: str, says: str
    ) -> None:
        graph = Graph.make(bench.connection, "a b c", ["a b", "b c"])
        graph.end("a", state)
        for _ in range(3):
            advance(graph.connection, graph.run, MOST_BYTES)
        found = opsjobs.explain(f"workflow/{graph.run}")
        assert found.says == f"It has ended: the step a {says}, so 2 steps were canceled."

    def test_one_that_was_canceled(self, bench: Bench, opsjobs: OpsJobs, db: SQLAlchemy) -> None:
        graph = Graph.make(bench.connection, "a", [])
        opsjobs.operator.cancel_workflow(graph.run, actor="eva", reason="withdrawn")
        advance(graph.connection, graph.run, MOST_BYTES)
        assert opsjobs.explain(f"workflow/{graph.run}").says == (
            "It has ended: it was canceled before all steps had ended. eva canceled it: “withdrawn”"
        )

    @pytest.mark.parametrize("name", ["workflow/42", "workflow/x", "42", "job/42"])
    def test_one_that_is_not_there(self, opsjobs: OpsJobs, db: SQLAlchemy, name: str) -> None:
        with pytest.raises(UnknownWorkflow):
            opsjobs.explain(name)


@pytest.mark.slow
def test_a_large_run_is_explained_by_indexes(bench: Bench) -> None:
    """A chain of 1,000 steps behind one, among 30 runs like it."""
    connection = bench.connection
    graphs = [Graph.make(connection, "root", []) for _ in range(30)]
    for graph in graphs:
        connection.execute(
            """
            WITH job AS (
                INSERT INTO opsjobs.jobs (task, queue, lane, state, args, max_attempts, created_at, due_at,
                    workflow_id)
                SELECT 'call', 'default', 'default', 'deferred', '{}', 1, now(), now(), %(run)s
                FROM generate_series(1, 1000) RETURNING id
            ), step AS (
                INSERT INTO opsjobs.steps (job_id, workflow_id, name, position, kind, pending)
                SELECT id, %(run)s, id::text, 1, 'job', 1 FROM job
            )
            INSERT INTO opsjobs.edges
            SELECT lag(id, 1, %(root)s) OVER (ORDER BY id), id, 'cancel' FROM job
            """,
            {"run": graph.run, "root": graph.ids["root"]},
        )
    for table in ("jobs", "steps", "edges", "workflows"):
        connection.execute(f"ANALYZE opsjobs.{table}")
    graph = graphs[15]
    (last,) = connection.execute(
        "SELECT max(id) FROM opsjobs.jobs WHERE workflow_id = %s", [graph.run]
    ).fetchone() or (0,)
    of_step = {"id": last, "ids": [last], "most": 5}
    of_run = {"run": graph.run, "most": 5, "states": list(HOLDS_UP)}
    expected = {
        "find_steps": (of_step, {"steps_pkey"}),
        "list_steps_before": (of_step, {"edges_by_target", "steps_pkey", "jobs_pkey"}),
        "list_frontier_of_step": (of_step, {"edges_by_target", "steps_pkey", "jobs_pkey"}),
        "list_frontier_of_run": (
            of_run,
            {"jobs_of_run", "steps_pkey", "edges_by_target", "jobs_pkey"},
        ),
        "list_removed_steps": (of_run, {"steps_name_key", "jobs_pkey"}),
    }
    for statement, (parameters, indexes) in expected.items():
        nodes = explain_plan(connection, statement, parameters)
        scans = [node for node in nodes if node["Node Type"] == "Seq Scan"]
        assert all(node["Relation Name"] == "workflows" for node in scans), statement
        assert {node["Index Name"] for node in nodes if "Index Name" in node} >= indexes, statement
