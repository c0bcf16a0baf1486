"""Searches all that we serve by GET, and what is logged meanwhile, for given texts."""

from __future__ import annotations

import html
import json
import logging
import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import TYPE_CHECKING
from urllib.parse import unquote, unquote_plus, urljoin, urlsplit

from typing_extensions import override
from werkzeug.exceptions import HTTPException

if TYPE_CHECKING:
    from flask.testing import FlaskClient
    from werkzeug.routing import Rule

# Of the addresses of a rule, a subject or list has at most a fourth.
_SUBJECTS = 4
# From this length on, half a canary is unlikely to be there by chance.
_LEAST_HALF = 6
_AROUND = 40
# What JSON and Markdown write with a backslash.
_ESCAPED = re.compile(r"(?:\\u[0-9a-fA-F]{4})+|\\[^\w\s]")


@dataclass(frozen=True)
class Leak:
    """Where a canary was found. `address` is what was asked for, `place` where it is in the answer."""

    canary: str
    address: str
    place: str

    def __str__(self) -> str:
        return f"{self.canary!r} in {self.address}, {self.place}"


@dataclass(frozen=True)
class Crawl:
    """What a search found: `leaks`, and in `near_misses` the places that hold half a canary.

    `addresses` are those that were asked for, and `shown` the pages among them that answered 200;
    `unreached` are our rules to which no link led.
    """

    leaks: Sequence[Leak]
    near_misses: Sequence[Leak]
    addresses: Sequence[str]
    shown: Sequence[str]
    unreached: Sequence[str]


def crawl(
    client: FlaskClient,
    canaries: Sequence[str],
    paths: Sequence[str] = (),
    texts: Mapping[str, str] | None = None,
    most: int = 60,
) -> Crawl:
    """Ask for everything that our URLs serve to this client, and search the answers for the canaries.

    Of each of our rules at most `most` addresses are asked for, besides `paths`. Raises `AssertionError` when
    an answer is an error of the server.
    """
    search = _Search(canaries)
    visits = _Visits(client, paths, most)
    shown = []
    with _captured_log() as log:
        for address in visits:
            response = client.get(address, headers=visits.headers(address))
            if response.status_code >= 500:
                raise AssertionError(f"GET {address} answered {response.status}")
            text = response.get_data().decode(errors="replace")
            search.look(address, "body", text)
            for name, value in response.headers.items():
                search.look(address, f"header {name}", value)
            search.look(address, "log", log.take())
            if response.mimetype == "text/html":
                visits.follow(address, text)
                # Everybody who is signed in may read the help.
                if response.status_code == 200 and not urlsplit(address).path.endswith("/help"):
                    shown.append(address)
    for name, text in (texts or {}).items():
        search.look(name, "text", text)
    return Crawl(search.leaks, search.near_misses, visits.asked, shown, visits.unreached())


class _Search:
    def __init__(self, canaries: Sequence[str]) -> None:
        if not canaries or "" in canaries:
            raise ValueError("canaries must be texts that are not empty")
        self.leaks: list[Leak] = []
        self.near_misses: list[Leak] = []
        self._whole = {canary.casefold(): canary for canary in canaries}
        self._halves = {
            half.casefold(): canary
            for canary in canaries
            for half in (canary[: len(canary) // 2], canary[-(len(canary) // 2) :])
            if len(half) >= _LEAST_HALF
        }
        self._seen: set[tuple[str, str, str]] = set()

    def look(self, address: str, part: str, text: str) -> None:
        """Note each canary in a text, however it is written there: each once."""
        readings = [(way, written, written.casefold()) for way, written in _readings(text)]
        # The whole ones first, in all readings: half of one may be readable in a text that hides the rest.
        for known, kept in ((self._whole, self.leaks), (self._halves, self.near_misses)):
            for sought, canary in known.items():
                for way, written, folded in readings:
                    at = folded.find(sought)
                    if at >= 0 and (canary, address, part) not in self._seen:
                        self._seen.add((canary, address, part))
                        around = written[max(0, at - _AROUND) : at + len(sought) + _AROUND]
                        kept.append(
                            Leak(canary, address, f"{part}{way}: {' '.join(around.split())}")
                        )


def _readings(text: str) -> Iterator[tuple[str, str]]:
    """The text, and what it says with its markup, entities, percent signs, backslashes and quotes read."""
    yield "", text
    if "<" in text or "&" in text:
        yield " without markup", html.unescape(re.sub(r"<[^>]*>", "", text))
    if "%" in text or "+" in text:
        yield " with %XX read", unquote_plus(text)
    if "\\" in text:
        yield " with backslashes read", _ESCAPED.sub(_read_escape, text)
    if '""' in text:
        yield " with doubled quotes read", text.replace('""', '"')


def _read_escape(found: re.Match[str]) -> str:
    if not found[0].startswith("\\u"):
        return found[0][1:]
    read: str = json.loads(f'"{found[0]}"')
    return read


class _Visits:
    """The addresses to ask for, each once: our rules without parameters, and where their pages lead to."""

    def __init__(self, client: FlaskClient, paths: Sequence[str], most: int) -> None:
        app = client.application
        self.asked: list[str] = []
        self._token = app.config.get("OPSJOBS_METRICS_TOKEN")
        self._most = most
        self._map = app.url_map.bind(app.config["SERVER_NAME"] or "localhost")
        self._rules = [rule for rule in app.url_map.iter_rules() if _is_ours(rule)]
        self._metrics = {rule.rule for rule in self._rules if _blueprint(rule) == "opsjobs_metrics"}
        self._met: set[str] = set()
        self._reached: Counter[str] = Counter()
        self._of_subject: Counter[tuple[str, str]] = Counter()
        self._waiting: deque[str] = deque()
        if not self._rules:
            raise AssertionError("OpsJobs serves no pages in this app")
        for path in paths:
            self._add(path, is_chosen=True)
        for rule in self._rules:
            if not rule.arguments:
                self._add(rule.rule)

    def __iter__(self) -> Iterator[str]:
        while self._waiting:
            self.asked.append(self._waiting.popleft())
            yield self.asked[-1]

    def headers(self, address: str) -> dict[str, str]:
        """What to send with a request: to that for metrics the token of the app."""
        return {"Authorization": f"Bearer {self._token}"} if address in self._metrics else {}

    def follow(self, address: str, text: str) -> None:
        """Add what a page links to."""
        links = _Links()
        links.feed(text)
        for link in links.found:
            target = urlsplit(urljoin(address, link))
            if not target.netloc:
                self._add(f"{target.path}?{target.query}" if target.query else target.path)

    def unreached(self) -> list[str]:
        """The rules to which no address belongs that was asked for."""
        return sorted({rule.rule for rule in self._rules if not self._reached[rule.endpoint]})

    def _add(self, address: str, *, is_chosen: bool = False) -> None:
        if address in self._met:
            return
        self._met.add(address)
        path = urlsplit(address).path
        try:
            rule, _ = self._map.match(unquote(path), method="GET", return_rule=True)
        except HTTPException:
            return
        subject = (rule.endpoint, path)
        has_room = self._reached[rule.endpoint] < self._most and self._of_subject[subject] < max(
            1, self._most // _SUBJECTS
        )
        if _is_ours(rule) and (has_room or is_chosen):
            self._reached[rule.endpoint] += 1
            self._of_subject[subject] += 1
            self._waiting.append(address)


def _is_ours(rule: Rule) -> bool:
    is_ours = _blueprint(rule) in ("opsjobs", "opsjobs_bridge", "opsjobs_metrics")
    return is_ours and "GET" in (rule.methods or ())


def _blueprint(rule: Rule) -> str:
    return str(rule.endpoint).partition(".")[0]


class _Links(HTMLParser):
    """Finds where a page leads to by GET."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        names = ["href", "src", "hx-get"]
        if tag == "form" and (given.get("method") or "get").lower() == "get":
            names.append("action")
        self.found += [value for name in names if (value := given.get(name))]


class _Log(logging.Handler):
    """Keeps what is logged until it is taken."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: list[str] = []

    @override
    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))

    def take(self) -> str:
        """What was logged since the last call."""
        lines, self._lines = self._lines, []
        return "\n".join(lines)


@contextmanager
def _captured_log() -> Iterator[_Log]:
    """Keep what all loggers of this process write, and all that ours would write at any level."""
    root, own = logging.getLogger(), logging.getLogger("flask_opsjobs")
    level, log = own.level, _Log()
    root.addHandler(log)
    own.setLevel(logging.DEBUG)
    try:
        yield log
    finally:
        own.setLevel(level)
        root.removeHandler(log)
