"""A Flask app answering on a loopback port, in a thread of the test's process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from flask import Flask
from werkzeug.serving import make_server


@contextmanager
def served(app: Flask) -> Iterator[str]:
    """The URL of `app`'s root, which answers until the block ends.

    By then each request has ended, also one whose client went away: what it holds, such as a connection to
    Postgres, is closed with the app.
    """
    server = make_server("127.0.0.1", 0, app, threaded=True)
    # So that `server_close` waits for the threads of requests.
    server.daemon_threads = False  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, name="test server", daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join(timeout=10)
        server.server_close()
