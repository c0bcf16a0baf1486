"""Prints the metrics for Prometheus, or serves them on an address of its own: `flask opsjobs metrics`."""

from __future__ import annotations

import signal
import sys

import click
from flask.cli import with_appcontext

from ..telemetry.metrics import require_prometheus
from . import current_host

_ADDRESS = "127.0.0.1:9726"


@click.command("metrics")
@click.option(
    "--serve",
    metavar="ADDRESS:PORT",
    is_flag=False,
    flag_value=_ADDRESS,
    help=f"Serve them until SIGTERM instead, at {_ADDRESS} when no address is given.",
)
@with_appcontext
def metrics(serve: str | None) -> None:
    """Print the metrics once, as Prometheus reads them. Needs `pip install "flask-opsjobs[prometheus]"`.

    Reads only. Exits 0 with all metrics, 1 when the database does not answer: then opsjobs_up is 0.
    """
    host = current_host()
    require_prometheus("flask opsjobs metrics")
    from ..telemetry.prometheus import PrometheusCollector, exposition

    collector = PrometheusCollector(host)
    if serve is None:
        text = exposition(collector).decode()
        click.echo(text, nl=False)
        sys.exit(0 if "\nopsjobs_up 1.0\n" in text else 1)
    from ..telemetry.prometheus_server import PrometheusServer

    address, port = _read_address(serve)
    try:
        server = PrometheusServer(collector, address, port)
    except OSError as error:
        raise click.UsageError(f"cannot serve at {serve}: {error.strerror}") from error
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    click.echo(f"metrics at http://{serve}/metrics", err=True)
    with server:
        server.serve_forever()


def _read_address(text: str) -> tuple[str, int]:
    address, _, port = text.rpartition(":")
    if not address or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise click.UsageError(f"{text!r} is no address and port, such as {_ADDRESS}")
    return address.strip("[]"), int(port)
