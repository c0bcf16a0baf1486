"""The demo's pages as somebody with a browser has them: a cookie, forms, text."""

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
    """One visitor of the site at `root`. Not reachable: `OSError`, of which `HTTPError` is one."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._opener = urllib.request.build_opener(
            # A proxy of the environment does not know our loopback.
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPCookieProcessor(CookieJar()),
        )

    def get(self, path: str) -> str:
        """The document at this path."""
        with self._opener.open(self.root + path, timeout=_TIMEOUT) as answer:
            return str(answer.read().decode())

    def post(self, path: str, **fields: str) -> str:
        """The path and query to which the form leads, once it was sent."""
        body = urllib.parse.urlencode(fields).encode()
        # As a browser does: a write that does not say where it comes from is refused.
        form = urllib.request.Request(self.root + path, body, {"Origin": self.root})
        with self._opener.open(form, timeout=_TIMEOUT) as answer:
            return str(answer.url).removeprefix(self.root)

    def wait_until_it_answers(self, over: threading.Event) -> bool:
        """True as soon as the front page is there; False when `over` is set before."""
        while not over.wait(0.1):
            try:
                self.get("/")
                return True
            except OSError:
                continue
        return False


def text_of(document: str) -> str:
    """The words of an HTML document, in its order."""
    words = re.sub(r"(?s)<(script|style|svg)\b.*?</\1>|<[^>]*>", " ", document)
    return re.sub(r"\s+", " ", html.unescape(words)).strip()
