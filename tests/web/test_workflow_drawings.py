"""The graph and the timeline of a run as SVG: states have word, shape and colour, and each node is a link."""

from __future__ import annotations

import doctest
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from operator import attrgetter
from xml.etree import ElementTree

import pytest
from markupsafe import Markup

from flask_opsjobs._folders import folder
from flask_opsjobs.jobs.lifecycle import STATES
from flask_opsjobs.web.workflows import short_text
from flask_opsjobs.web.workflows.graph_svg import draw_graph
from flask_opsjobs.web.workflows.short_text import cut, width_of
from flask_opsjobs.web.workflows.timeline_svg import (
    RanFor,
    TimelineRow,
    draw_run_timeline,
    most_telling,
)
from flask_opsjobs.workflows.graph import GraphEdge, GraphStep, lay_out
from tools.bench_graph import random_graph

Element = ElementTree.Element
EMOJI = "\N{PACKAGE}" * 200


def parsed(svg: Markup) -> Element:
    """The drawing, after what every drawing of ours keeps to."""
    assert isinstance(svg, Markup)
    assert not re.search(r"\sstyle=|<style|<script|\son[a-z]+=|url\(|javascript:", svg)
    root = ElementTree.fromstring(svg)
    assert root.attrib["role"] == "group"
    assert root.attrib["aria-label"]
    sprite = (folder("templates") / "opsjobs/_sprite.html").read_text()
    for use in root.iter("use"):
        assert f'id="{use.attrib["href"].removeprefix("#")}"' in sprite
    return root


def with_class(root: Element, name: str) -> list[Element]:
    return [each for each in root.iter() if name in each.attrib.get("class", "").split()]


def words(element: Element, tag: str = "text") -> list[str]:
    return [each.text or "" for each in element.iter(tag)]


# --- the graph


def graph(
    steps: Sequence[GraphStep],
    edges: Sequence[GraphEdge] = (),
    details: dict[int, str] | None = None,
    current: int | None = None,
) -> Element:
    drawing = lay_out(steps, edges)
    svg = draw_graph(drawing, lambda node: f"?step={node.id}&panel=1", details or {}, current)
    return parsed(svg)


@pytest.mark.parametrize("state", STATES)
def test_a_node_says_its_state_by_word_shape_and_colour(state: str) -> None:
    (node,) = with_class(graph([GraphStep(1, "fetch", state)]), "node")
    assert words(node) == ["fetch", state]
    assert words(node, "title") == [f"fetch: {state}"]
    assert node.find("use").attrib["href"] == f"#g-{state}"
    assert node.attrib["data-is"] == state


def test_each_node_is_a_link_and_the_shown_step_is_marked() -> None:
    root = graph([GraphStep(1, "fetch", "finished"), GraphStep(2, "send", "started")], current=2)
    links = with_class(root, "node")
    assert [link.tag for link in links] == ["a", "a"]
    assert [link.attrib["href"] for link in links] == ["?step=1&panel=1", "?step=2&panel=1"]
    assert [link.attrib.get("aria-current") for link in links] == [None, "true"]


def test_the_line_below_a_name_says_what_the_page_knows() -> None:
    steps = [GraphStep(1, "fetch", "finished"), GraphStep(2, "send", "deferred")]
    root = graph(steps, details={1: "finished, 3 s", 2: "waits for fetch"})
    assert words(root) == ["fetch", "finished, 3 s", "send", "waits for fetch"]
    assert words(root, "title") == ["fetch: finished, 3 s", "send: deferred, waits for fetch"]


def test_an_open_wait_is_an_envelope() -> None:
    root = graph(
        [GraphStep(1, "paid", "deferred", "wait"), GraphStep(2, "left", "finished", "wait")]
    )
    assert [use.attrib["href"] for use in root.iter("use")] == ["#g-signal", "#g-finished"]


def test_the_lines_tell_the_critical_path_failures_and_what_goes_on_anyway() -> None:
    steps = [
        GraphStep(1, "a", "failed", seconds=9),
        GraphStep(2, "b", "canceled"),
        GraphStep(3, "c", "finished", seconds=4),
    ]
    root = graph(steps, [GraphEdge(1, 2), GraphEdge(1, 3, "continue")])
    assert [e.attrib["class"] for e in with_class(root, "edge")] == ["edge hit", "edge on crit"]
    (lines,) = (each for each in root if each.tag == "g")
    assert lines.attrib["aria-hidden"] == "true"


def map_of(counts: dict[str, int]) -> list[GraphStep]:
    states = [state for state, number in counts.items() for _ in range(number)]
    members = [
        GraphStep(2 + at, f"resize[{at}]", state, "member", 1) for at, state in enumerate(states)
    ]
    return [GraphStep(1, "resize", "finished", "map"), *members]


def test_a_stack_says_its_counts_in_words_and_as_a_bar() -> None:
    root = graph(map_of({"failed": 1, "started": 2, "finished": 45}))
    (node,) = with_class(root, "node")
    assert words(node) == ["resize × 48", "45 finished, 2 started", "1 failed"]
    assert words(node, "title") == ["resize × 48: 45 finished, 2 started, 1 failed"]
    assert len(with_class(node, "under")) == 2
    bar = with_class(node, "mapbar")
    assert [part.attrib["data-is"] for part in bar] == ["finished", "started", "failed"]
    assert sum(float(part.attrib["width"]) for part in bar) == pytest.approx(130, abs=0.2)


def test_one_failed_step_of_ten_thousand_is_seen() -> None:
    root = graph(map_of({"finished": 9_999, "failed": 1}))
    assert words(root) == ["resize × 10,000", "9,999 finished", "1 failed"]
    assert float(with_class(root, "mapbar")[-1].attrib["width"]) > 2.5


def test_a_long_name_is_cut_and_whole_in_the_title() -> None:
    steps = [GraphStep(1, EMOJI, "finished"), GraphStep(2, "x" * 200, "finished")]
    root = graph(steps, [GraphEdge(1, 2)])
    assert words(root, "title") == [f"{EMOJI}: finished", f"{'x' * 200}: finished"]
    assert words(root)[::2] == ["\N{PACKAGE}" * 8 + "…", "x" * 16 + "…"]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ('<script>"&', '<script>"&'),
        ("a\u202eb", "a\\u202eb"),
        ("../../x", "../../x"),
        ("a\nb", "a\\nb"),
    ],
)
def test_a_name_stays_a_text(name: str, shown: str) -> None:
    assert words(graph([GraphStep(1, name, "finished")]))[0] == shown


def test_a_big_run_is_drawn_with_150_links() -> None:
    """Case 31."""
    root = graph(*random_graph(10_000, 100, seed=1))
    assert 100 <= len(with_class(root, "node")) <= 150
    assert "10,000 steps" in root.attrib["aria-label"]
    # Its text has the size of all text: who cannot see the whole width scrolls.
    assert root.attrib["viewBox"].split()[2:] == [root.attrib["width"], root.attrib["height"]]


def test_a_curve_leads_from_its_node_to_its_target_and_is_level_between() -> None:
    steps = [GraphStep(id, f"s{id}", "finished") for id in (1, 2, 3)]
    root = graph(steps, [GraphEdge(1, 2), GraphEdge(2, 3), GraphEdge(1, 3)])
    assert sorted(re.sub(r"[\d. ]+", "", e.attrib["d"]) for e in with_class(root, "edge")) == [
        "MC",
        "MC",
        "MCHC",
    ]


# --- the timeline

BEGIN = datetime(2026, 11, 25, 13, 51, 2, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def timeline(*rows: TimelineRow, seconds: float = 668) -> Element:
    return parsed(
        draw_run_timeline(most_telling(rows, attrgetter("state")), len(rows), BEGIN, at(seconds))
    )


def span_of(rect: Element) -> tuple[float, float]:
    left = float(rect.attrib["x"])
    return left, left + float(rect.attrib["width"])


def test_a_step_waits_in_a_thin_bar_and_runs_in_a_thick_one() -> None:
    ran = RanFor(at(30), at(60), "finished")
    root = timeline(TimelineRow("fetch", "finished", "?step=1", at(0), at(60), [ran]), seconds=60)
    (wait,), (run,) = with_class(root, "wait"), with_class(root, "run")
    assert span_of(wait) == (124, 713)
    assert span_of(run) == pytest.approx((418.5, 713))
    assert [g.attrib["data-is"] for g in root.iter("g")] == ["finished"]
    (link,) = root.iter("a")
    assert (link.attrib["href"], words(link, "title")) == ("?step=1", ["fetch: finished"])
    assert not with_class(root, "tick")


def test_attempts_are_ticks_with_numbers_and_the_last_says_what_comes() -> None:
    attempts = [RanFor(at(4), at(9), "retryable"), RanFor(at(320), at(327), "retryable")]
    row = TimelineRow("billing", "retryable", "#", at(3), None, attempts, "next at 14:05")
    root = timeline(row)
    assert len(with_class(root, "tick")) == 2
    assert words(root)[-3:] == ["billing", "1", "2, next at 14:05"]
    assert span_of(with_class(root, "wait")[0])[1] == 713


def test_numbers_leave_each_other_room() -> None:
    attempts = [RanFor(at(n), at(n + 0.5), "retryable") for n in range(100)]
    root = timeline(TimelineRow("flaky", "retryable", "#", at(0), None, attempts))
    numbers = [text for text in root.iter("text") if (text.text or "").isdigit()]
    places = [float(text.attrib["x"]) for text in numbers]
    assert len(with_class(root, "tick")) == 100
    assert 2 < len(numbers) < 10
    assert all(b - a >= 16 for a, b in pairwise(places))


def test_a_step_that_waits_for_others_is_not_released() -> None:
    root = timeline(TimelineRow("notify", "deferred", "#"))
    assert words(root)[-2:] == ["notify", "not released"]
    assert not with_class(root, "wait")


def test_a_running_attempt_lasts_until_now() -> None:
    row = TimelineRow("resize", "started", "#", at(0), None, [RanFor(at(10), None, "started")])
    assert span_of(with_class(timeline(row), "run")[0])[1] == 713


def test_of_many_steps_the_failed_ones_are_always_shown() -> None:
    rows = [TimelineRow(f"s{n}", "finished", "#", at(n), at(n + 1)) for n in range(9_999)]
    root = timeline(*rows, TimelineRow("last", "failed", "#", at(0), at(9)))
    names = [text for link in root.iter("a") for text in words(link)]
    assert (len(names), names[-2:]) == (200, ["s198", "last"])
    assert words(root)[-1] == "9,800 more steps are in the table only"


@pytest.mark.parametrize(
    ("seconds", "labels"),
    [
        (0, ["start", "+1 s"]),
        (100, ["start", "+30 s", "+1 min", "+1 min 30 s"]),
        (12, ["start", "+2 s", "+4 s", "+6 s", "+8 s", "+10 s", "+12 s"]),
        (668, ["13:52", "13:54", "13:56", "13:58", "14:00", "14:02"]),
        (6 * 3600, ["14:00", "15:00", "16:00", "17:00", "18:00", "19:00"]),
        (10 * 86400, ["start", "+2 d", "+4 d", "+6 d", "+8 d", "+10 d"]),
        (3000 * 86400, ["start", "+100 d", "+200 d", "+300 d", "+400 d", "+500 d", "+600 d"]),
    ],
)
def test_the_axis_has_round_times(seconds: float, labels: list[str]) -> None:
    root = timeline(seconds=seconds)
    assert words(root) == labels
    clocks = [text for text in root.iter("text") if ":" in (text.text or "")]
    # The script of the page writes these in the reader's zone.
    assert all(text.attrib["data-at"][11:16] == text.text for text in clocks)
    assert all(124 <= float(text.attrib["x"]) <= 716 for text in root.iter("text"))


def test_times_outside_of_the_run_stay_inside_of_the_drawing() -> None:
    early = RanFor(at(-50), at(-20), "finished")
    root = timeline(TimelineRow(EMOJI, "finished", "#", at(-60), at(9e9), [early]))
    for rect in root.iter("rect"):
        assert 124 <= span_of(rect)[0] <= span_of(rect)[1] <= 716
    assert width_of(words(root)[-1]) <= 18


# --- texts


def test_a_text_is_cut_where_nothing_is_left_to_join() -> None:
    family = "\N{MAN}\u200d\N{WOMAN}\u200d\N{GIRL}"
    assert cut(family, 6) == family
    assert cut(family, 5) == "\N{MAN}\u200d\N{WOMAN}…"
    assert [width_of(text) for text in ("abc", EMOJI, "e\u0301")] == [3, 400, 1]
    assert doctest.testmod(short_text).failed == 0
