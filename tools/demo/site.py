"""Visits the demo's pages like a browser: keeps cookies, sends forms, reads text."""

from __future__ import annotations

import html
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from http.cookiejar import CookieJar

_TIMEOUT = 10


class Site:
    """One visitor of the site at `root`. Requests raise `OSError`, of which `HTTPError` is a subclass."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._opener = urllib.request.build_opener(
            # A proxy from the environment cannot reach our loopback address.
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPCookieProcessor(CookieJar()),
        )

    def get(self, path: str) -> str:
        """The document at this path."""
        with self._opener.open(self.root + path, timeout=_TIMEOUT) as answer:
            return str(answer.read().decode())

    def post(self, path: str, **fields: str) -> str:
        """Send a form, and return the path and query to which it redirects."""
        body = urllib.parse.urlencode(fields).encode()
        # Send `Origin` like a browser: writes without it are refused.
        form = urllib.request.Request(self.root + path, body, {"Origin": self.root})
        with self._opener.open(form, timeout=_TIMEOUT) as answer:
            return str(answer.url).removeprefix(self.root)

    def wait_until_it_answers(self, over: threading.Event) -> bool:
        """Wait until the front page answers, and return True; False when `over` is set before."""
        while not over.wait(0.1):
            try:
                self.get("/")
                return True
            except OSError:
                continue
        return False


def text_of(document: str) -> str:
    """The text of an HTML document."""
    words = re.sub(r"(?s)<(script|style|svg)\b.*?</\1>|<[^>]*>", " ", document)
    return re.sub(r"\s+", " ", html.unescape(words)).strip()
