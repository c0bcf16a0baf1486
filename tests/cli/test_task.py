"""`flask opsjobs task …`: the same door for tasks."""

from __future__ import annotations

from collections.abc import Callable

from flask import Flask

from tests.support.engine import Bench

REASON = ("--reason", "because it is a test")


def test_a_task_is_paused_and_resumed(
    app: Flask, bench: Bench, record_job: Callable[..., int]
) -> None:
    record_job()
    run = app.test_cli_runner().invoke
    looked = run(args=["opsjobs", "task", "pause", "note", "nobody", "--dry-run"])
    assert (looked.exit_code, "state: open → paused" in looked.output) == (3, True)
    assert "no job names the task nobody, and the code declares none" in looked.output
    assert bench.rows("SELECT 1 FROM opsjobs.task_pauses") == []
    for action in ("pause", "resume"):
        done = run(args=["opsjobs", "task", action, "note", *REASON])
        assert done.exit_code == 0, done.output
        assert done.output.startswith(f"{action.capitalize()} task note: done\n")
    found = bench.rows("SELECT action, via FROM opsjobs.audit_events ORDER BY sequence")
    assert [(row["action"], row["via"]) for row in found] == [
        ("task.pause", "cli"),
        ("task.resume", "cli"),
    ]
