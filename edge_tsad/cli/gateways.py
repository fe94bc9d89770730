"""Options and output shared by the commands that speak with gateways."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from edge_tsad.cli.tables import printable
from edge_tsad.errors import EdgeTsadError
from firmware_bridge.agent import DEFAULT_ROOT
from firmware_bridge.flash import Connection
from firmware_bridge.records import Entry
from firmware_bridge.report import StatusReport
from firmware_bridge.transports.ssh import DEFAULT_AGENT, SshTransport

__all__ = ["Way", "ask_all", "gateway_options", "status_lines", "when"]

MOST_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Way:
    """How gateways are reached over SSH."""

    root: str
    agent: str
    ssh_config: Path | None

    def to(self, gateways: Sequence[str]) -> list[SshTransport]:
        """The gateways; of several at once none may ask for a password.

        Raises:
            TransportError: one of them is no name of a host.
        """
        names = list(dict.fromkeys(gateways))
        ask = len(names) == 1
        return [SshTransport(n, self.root, self.agent, self.ssh_config, ask) for n in names]


def gateway_options(function: Callable[..., int]) -> Callable[..., int]:
    """The options of a way over SSH, given to ``function`` as ``way``."""

    @click.option("--root", default="", help=f"Folder of the gateway's agent.  [{DEFAULT_ROOT}]")
    @click.option("--agent", default=DEFAULT_AGENT, help="Command that starts the agent there.")
    @click.option(
        "--ssh-config", type=click.Path(path_type=Path), help="Instead of your ~/.ssh/config."
    )
    @functools.wraps(function)
    def folded(*, root: str, agent: str, ssh_config: Path | None, **options: Any) -> int:
        return function(way=Way(root, agent, ssh_config), **options)

    return folded


def ask_all(
    transports: Sequence[SshTransport],
    request: str,
    show: Callable[[str, dict[str, Any]], Sequence[str]],
    **fields: Any,
) -> int:
    """Put one request to all gateways at once and print what ``show`` makes of each answer.

    Returns:
        The exit status: 2 if a gateway could not be reached or refused, else 0.
    """

    def one(transport: SshTransport) -> tuple[list[str], bool]:
        connection = Connection(transport)
        try:
            return list(show(transport.name, connection.request(request, **fields))), True
        except EdgeTsadError as e:
            return [f"edge-tsad: {e}"], False
        finally:
            connection.close()

    with ThreadPoolExecutor(min(len(transports), MOST_AT_ONCE)) as pool:
        answers = list(pool.map(one, transports))
    for lines, good in answers:
        for line in lines:
            click.echo(printable(line), err=not good)
    return 0 if all(good for _, good in answers) else 2


def status_lines(gateway: str, status: StatusReport) -> list[str]:
    """What serves at a gateway, for people."""
    active = status.active
    serves = f"{active.label} ({active.digest[:12]})" if active else "no bundle"
    lines = [f"{gateway}: {serves} is active, {status.phase}"]
    if status.candidate:
        left = status.trial_remaining_s or 0.0
        lines.append(f"  on trial beside it: {status.candidate.label}, for {left:.0f} s more")
        if status.so_far:
            lines.append(f"    so far: {status.so_far}")
    if status.problem:
        lines.append(f"  PROBLEM: {status.problem}")
    if status.last:
        last = status.last
        reason = f": {last.reason}" if last.reason else ""
        lines.append(f"  last: {last.label or 'a bundle'} {last.event}{reason} ({when(last)})")
    if status.previous:
        labels = ", ".join(release.label for release in reversed(status.previous))
        lines.append(f"  may be rolled back to: {labels}")
    lines.append(f"  least counter accepted: {status.floor}; agent {status.version}")
    return lines


def when(entry: Entry) -> str:
    """The time of an entry; a clock that nothing kept right is said to be so."""
    try:
        time = datetime.datetime.fromtimestamp(entry.wall_ns // 10**9, datetime.UTC)
    except (OverflowError, OSError, ValueError):
        return "at no known time"
    text = time.strftime("%Y-%m-%d %H:%M:%S UTC")
    return text if entry.synchronised else f"{text}, clock not synchronised"
