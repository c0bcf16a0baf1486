"""The drawing of episodes: an open one reaches until now and not into the future."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from flask_opsjobs.lifeline.queries import EpisodeRow
from flask_opsjobs.web.lifeline.episodes_svg import draw_episodes

BEGAN = datetime(2026, 11, 25, 14, 0, 3, tzinfo=UTC)
LEFT, RIGHT = 20.0, 780.0
# A bar is so narrow at least.
NARROWEST = 3.0


def end_of_bar(drawn: str) -> float:
    ((x, width),) = re.findall(r'class="ep" x="([\d.]+)" y="28" width="([\d.]+)"', drawn)
    return float(x) + float(width)


@pytest.mark.parametrize("seconds", [0, 9, 63, 300, 517, 7200, 86_400 * 3])
def test_the_bar_of_an_open_episode_ends_now(seconds: int) -> None:
    """The mark of a decision that is made now is where now is."""
    now = BEGAN + timedelta(seconds=seconds)
    drawn = draw_episodes([EpisodeRow(1, BEGAN, None, None, 3)], [now], now)
    (at,) = re.findall(r'class="decision" d="M([\d.]+)', drawn)
    step = (RIGHT - LEFT) * (8 / 60 if seconds < 128 else 1 / 16)
    assert float(at) - step <= end_of_bar(drawn) <= float(at) + NARROWEST
    assert end_of_bar(drawn) < RIGHT


def test_the_bar_of_one_that_has_ended_keeps_its_end() -> None:
    ended = BEGAN + timedelta(seconds=100)
    now = BEGAN + timedelta(seconds=400)
    first = EpisodeRow(1, BEGAN, ended, "cleared", 3)
    second = EpisodeRow(2, BEGAN + timedelta(seconds=200), None, None, 3)
    drawn = draw_episodes([first, second], [ended, now], now)
    ((x, width),) = re.findall(r'class="ep ended" x="([\d.]+)" y="28" width="([\d.]+)"', drawn)
    at_end, at_now = re.findall(r'class="decision" d="M([\d.]+)', drawn)
    assert float(x) + float(width) == pytest.approx(float(at_end), abs=0.2)
    assert end_of_bar(drawn) <= float(at_now)
