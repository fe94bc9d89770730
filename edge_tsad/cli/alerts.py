"""``edge-tsad alerts``: what a subscriber sees."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import click

from edge_tsad.broker import BrokerConfig
from edge_tsad.decode import decode
from edge_tsad.errors import ConfigError
from edge_tsad.runtime.subscription import AlertSubscription
from edge_tsad.runtime.topics import alert_filter, shared

__all__ = ["command", "human_line"]

GROUP = re.compile(r"[A-Za-z0-9_.-]{1,64}")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@click.command(
    name="alerts",
    help="""Subscribe to alerts and print one line for each.

What came while nobody listened is printed first: the broker keeps it for this client id. A broker
that is down is waited for. Where the numbers of a gateway's alerts have a gap, the missing ones are
asked for at the gateway (which must allow the command replay); what cannot be had is said.

With --group, several consumers share the alerts: each comes to one of them. No gap is seen then.

\b
Examples:
  edge-tsad alerts --broker mqtt://localhost
  edge-tsad alerts --broker mqtt://localhost --json --count 1 --timeout 60
  edge-tsad alerts --broker mqtt://localhost --group desk --client-id desk-1
""",
)
@click.option("--broker", default="mqtt://localhost:1883", show_default=True, help="URL.")
@click.option("--site", default="", help="Only of this site.")
@click.option("--device", default="", help="Only of this device.")
@click.option("--json", "as_json", is_flag=True, help="Print the messages as JSON, one a line.")
@click.option("--count", type=click.IntRange(min=1), help="End after so many alerts.")
@click.option("--timeout", type=click.FloatRange(min=0), help="End after so many seconds.")
@click.option("--group", default="", help="Share the alerts with others of this group.")
@click.option("--client-id", help="Name of the session at the broker.  [one for each filter]")
@click.option("--protocol", type=click.Choice(["5", "3.1.1"]), default="5", show_default=True)
@click.option("--username", default="", help="User at the broker.")
@click.option("--password-file", default="", help="File whose first line is the password.")
@click.option("--ca-file", default="", help="Certificate authority of the broker (mqtts://).")
@click.option("--certificate-file", default="", help="Client certificate (mqtts://).")
@click.option("--key-file", default="", help="Key of the client certificate.")
@click.option("--insecure", is_flag=True, help="Allow a broker elsewhere without TLS.")
def command(
    *,
    broker: str,
    site: str,
    device: str,
    as_json: bool,
    count: int | None,
    timeout: float | None,
    group: str,
    client_id: str | None,
    **connection: Any,
) -> int:
    """Print alerts until ``count``, ``timeout`` or Ctrl-C; 1 if ``count`` were not seen in time."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    settings = decode(BrokerConfig, {"url": broker, **connection}, "broker", ConfigError)
    topic = alert_filter(site, device)
    if group:
        if not GROUP.fullmatch(group):
            raise ConfigError(f"--group: {group!r} is not of letters, digits, '_', '.' and '-'")
        topic = shared(topic, group)
    if group and not client_id:
        raise ConfigError("--client-id: is missing; each consumer of a group needs its own")
    # A session keeps every filter it was ever used with, so each filter has its own.
    default = f"{socket.gethostname()}-{hashlib.sha256(topic.encode()).hexdigest()[:8]}"
    name = client_id or f"edge-tsad-alerts-{default}"
    subscription = AlertSubscription(settings, name, topic, gaps_path(name))
    shown = 0
    for alert in subscription.alerts(timeout, count):
        click.echo(json.dumps(alert, ensure_ascii=False) if as_json else human_line(alert))
        sys.stdout.flush()
        shown += 1
    if count is not None and shown < count:
        click.echo(f"edge-tsad: {shown} of {count} alerts came in {timeout:g} s", err=True)
        return 1
    return 0


def gaps_path(client_id: str) -> Path:
    """Where the numbers that this client has seen are kept."""
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    file = re.sub(r"[^A-Za-z0-9_.-]", "_", client_id)
    return Path(base) / "edge-tsad" / "alerts" / f"{file}.json"


def human_line(alert: dict[str, Any]) -> str:
    """One line; whatever could command a terminal is taken out, for anyone may publish."""
    when = alert.get("time") or f"point {alert.get('index')}"
    late = " (late)" if alert.get("late") else ""
    where = f"{alert.get('site')}/{alert.get('device')}"
    kind = str(alert.get("type", "")).upper()
    return CONTROL.sub(" ", f"{when} {kind:6} {where}{late} {alert.get('reason', '')}")
