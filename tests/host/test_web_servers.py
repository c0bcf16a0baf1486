"""gunicorn, with sync workers and with threads, behind an nginx that serves the app below a path."""

from __future__ import annotations

import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

import psycopg
import pytest
from sqlalchemy import make_url

from flask_opsjobs.testing.valkey import free_port
from tests.docs.contract import blocks
from tests.support.processes import Children
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.lane, pytest.mark.web_servers, pytest.mark.processes]

PRODUCTION = Path(__file__).parents[2] / "docs" / "production.md"
SHOP = """
import gc

from werkzeug.middleware.proxy_fix import ProxyFix
from tests.support.host import create_app

app = create_app()
app.add_url_rule("/frozen", view_func=lambda: str(gc.get_freeze_count()))
app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_prefix=1)
"""
# As docs/production.md says, below a path.
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{port};
        location /shop/ {{
            proxy_pass http://127.0.0.1:{app_port}/;
            proxy_set_header Host $host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Prefix /shop;
        }}
    }}
}}
"""


@pytest.fixture(params=[("sync", "1"), ("gthread", "8")], ids=["sync", "threads"])
def shop(request: pytest.FixtureRequest, children: Children, tmp_path: Path) -> str:
    """The address of the app's path at nginx."""
    (tmp_path / "shop.py").write_text(SHOP)
    port, app_port = free_port(), free_port()
    kind, threads = request.param
    gunicorn = [sys.executable, "-m", "gunicorn", "--workers", "2", "--worker-class", kind]
    config = tmp_path / "gunicorn.conf.py"
    (text,) = (block for block in blocks(PRODUCTION.read_text(), "python") if "freeze" in block)
    config.write_text(text)
    gunicorn += ["--threads", threads, "--bind", f"127.0.0.1:{app_port}"]
    gunicorn += ["--config", str(config), "shop:app"]
    children.start(*gunicorn, env={"PYTHONPATH": f"{tmp_path}:."})
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert nginx is not None, "nginx is not installed: apt-get install nginx"
    config = tmp_path / "nginx.conf"
    config.write_text(NGINX.format(folder=tmp_path, port=port, app_port=app_port))
    children.start(nginx, "-c", str(config), "-p", str(tmp_path))
    url = f"http://127.0.0.1:{port}/shop"
    wait_until(lambda: ask(f"{url}/ops/jobs")[0] == 200, 60, what="the app behind nginx")
    return url


def ask(url: str, form: bytes | None = None) -> tuple[int, str, str]:
    """The status, the address after redirects, and the text; 0 while nothing answers."""
    try:
        headers = {"Sec-Fetch-Site": "same-origin"}
        with urlopen(Request(url, form, headers), timeout=30) as answer:
            return answer.status, answer.url, answer.read().decode()
    except OSError as error:
        return getattr(error, "code", 0), url, ""


def test_pages_and_actions_work_below_the_path(shop: str, database_url: str) -> None:
    dsn = make_url(database_url).set(drivername="postgresql")
    with psycopg.connect(dsn.render_as_string(hide_password=False), autocommit=True) as session:
        session.execute("INSERT INTO opsjobs.queues (name, created_at) VALUES ('mail', now())")
        status, _, page = ask(f"{shop}/ops/jobs/queues/mail")
        assert status == 200
        links = [part.partition('"')[0] for part in page.split('href="/')[1:]]
        assert len(links) > 10
        assert [link for link in links if not link.startswith("shop/")] == []
        status, preview, page = ask(f"{shop}/ops/jobs/queues/mail/pause", b"")
        assert status == 200
        assert preview.startswith(f"{shop}/ops/jobs/previews/")
        token = page.split('name="token" value="')[1].partition('"')[0]
        form = f"token={token}&reason=the+vendor+is+down".encode()
        status, _, _ = ask(f"{preview.partition('?')[0]}/execute", form)
        assert status == 200
        paused = "SELECT is_paused FROM opsjobs.queues WHERE name = 'mail'"
        assert session.execute(paused).fetchone() == (True,)


def test_many_ask_at_once(shop: str) -> None:
    pages = [f"{shop}/ops/jobs{path}" for path in ("", "/jobs", "/queues", "/workers", "/cron")] * 8
    with ThreadPoolExecutor(12) as people:
        assert [status for status, _, _ in people.map(ask, pages)] == [200] * len(pages)


def test_the_collector_leaves_alone_what_each_process_has_loaded(shop: str) -> None:
    assert int(ask(f"{shop}/frozen")[2]) > 10_000
