"""The guide of metrics, the board and the alert rules name each metric as the code does, and no other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from flask_opsjobs.telemetry.metrics import METRICS
from tests.support.sources import ROOT
from tests.telemetry.boards import RQ_BOARD, expressions_of

GUIDE = (ROOT / "docs/prometheus.md").read_text()
SLO = (ROOT / "docs/slo.md").read_text()
ALERTS = (ROOT / "examples/prometheus/alerts.yml").read_text()
BOARD = json.loads((ROOT / "examples/grafana/opsjobs.json").read_text())
# What Prometheus makes of a metric of this kind.
PARTS = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


def test_the_guide_lists_each_metric_with_its_labels_and_meaning() -> None:
    row = re.compile(r"^\| `(\w+)` \| (\w+) \| (.*?) \| (.*) \|$", re.MULTILINE)
    listed = [(name, kind, labels, meaning) for name, kind, labels, meaning in row.findall(GUIDE)]
    known = [
        (
            metric.name,
            metric.kind,
            ", ".join(f"`{each}`" for each in metric.labels) or "–",
            metric.meaning,
        )
        for metric in METRICS
    ]
    assert sorted(listed) == sorted(known)


def _series() -> dict[str, tuple[str, ...]]:
    """The labels of each series of ours by its name."""
    found: dict[str, tuple[str, ...]] = {}
    for metric in METRICS:
        for part in PARTS.get(metric.kind, ("",)):
            found[metric.name + part] = (*metric.labels, *(("le",) if part == "_bucket" else ()))
    return found


# Prometheus adds the first two to each series.
ADDED = {"job", "instance"}


def _named(expression: str) -> Iterator[tuple[str, set[str]]]:
    """Each series that an expression names, with the labels by which it chooses."""
    for name, chosen in re.findall(r"\b((?:opsjobs|rq)_\w+)(?:\{([^}]*)\})?", expression):
        yield name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"[^"]*"', '""', chosen)))


@pytest.mark.parametrize(
    "expression",
    [
        *expressions_of(BOARD),
        *RQ_BOARD,
        *re.findall(r"expr: (?:\|\n)?((?:.+\n)(?:^ {10,}.+\n)*)", ALERTS, re.MULTILINE),
        *re.findall(r"```promql\n(.*?)```", SLO, re.DOTALL),
    ],
)
def test_an_expression_names_series_and_labels_that_exist(expression: str) -> None:
    series = _series()
    named = list(_named(expression))
    assert named
    for name, labels in named:
        assert name in series, expression
        assert labels <= {*series[name], *ADDED}, expression
    grouped = re.findall(r"\b(?:by|on|ignoring) \(([^)]*)\)", expression)
    known = {label for labels in series.values() for label in labels} | ADDED
    assert {label.strip() for labels in grouped for label in labels.split(",")} <= known


def test_each_alert_has_a_line_that_says_what_to_do() -> None:
    alerts = re.findall(r"- alert: (\w+)", ALERTS)
    assert alerts
    assert re.findall(r"^\| `(OpsJobs\w+)` \|", SLO, re.MULTILINE) == alerts


def _panels(board: Any) -> list[Any]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_the_board_is_whole() -> None:
    """Grafana shows it as it is: each panel has its place, its own id, a title, and a meaning."""
    panels = BOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & places, panel["title"]
        places |= cells
    for panel in _panels(BOARD):
        assert panel["title"]
        assert panel["description"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references) > 0
    shown = {name for expression in expressions_of(BOARD) for name, _ in _named(expression)}
    ours = {metric.name for metric in METRICS if metric.name.startswith("opsjobs")}
    assert {name for name in ours if not any(each.startswith(name) for each in shown)} == set()
