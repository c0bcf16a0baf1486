"""Lets things go wrong in the shop, as they do: each ends as an incident, or makes jobs fail."""

from __future__ import annotations

from collections.abc import Callable

from . import exports, happenings, prices, vendors
from .extensions import db

_PICTURES, _LETTERS = 3, 4


def receiver_goes_down() -> str:
    """The server goes down that receives most webhooks."""
    vendors.go_down(happenings.RECEIVER)
    return f"{happenings.RECEIVER} is down"


def price_list_has_mistakes() -> str:
    """A supplier sends a price list of which some rows are wrong."""
    return f"a price list has come: batch {prices.import_list()}"


def bug_comes_back() -> str:
    """Pictures are uploaded that the deployed version cannot read, although its predecessor could."""
    jobs = [happenings.picture() for _ in range(_PICTURES)]
    return f"pictures in HEIC: jobs {jobs}"


def job_kills_its_process() -> str:
    """A job takes too much memory at each attempt."""
    return f"the year is archived: job {happenings.archive()}"


def nobody_serves_a_queue() -> str:
    """Jobs are enqueued on a queue that no worker serves."""
    jobs = [happenings.letter() for _ in range(_LETTERS)]
    return f"letters: jobs {jobs}"


def chain_is_stuck() -> str:
    """The file store goes down, and the first of three plain RQ jobs fails: the others wait for ever."""
    vendors.go_down(exports.FILES)
    db.session.commit()
    return f"{exports.FILES} is down, and an export begins: RQ job {exports.export()}"


# In the order in which they happen.
TROUBLES: tuple[Callable[[], str], ...] = (
    receiver_goes_down,
    price_list_has_mistakes,
    bug_comes_back,
    job_kills_its_process,
    nobody_serves_a_queue,
    chain_is_stuck,
)
