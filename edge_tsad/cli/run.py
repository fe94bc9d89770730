"""``edge-tsad run``: the gateway."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from edge_tsad.config import (
    BrokerConfig,
    ConfigDecoder,
    GatewayConfig,
    SourceConfig,
    StreamConfig,
    load_config,
)
from edge_tsad.decode import decode
from edge_tsad.errors import ConfigError, DataError
from edge_tsad.files import write_atomically
from edge_tsad.registry import SOURCES
from edge_tsad.runtime.gateway import Gateway

__all__ = ["command", "config_from_options"]


@click.command(
    name="run",
    help="""Score live streams with a bundle and send alerts to MQTT.

Give one TOML file, or --bundle and --source for a single stream. A broker that is down stops
nothing: alerts are stored and sent when it is back.

\b
Examples:
  edge-tsad run gateway.toml
  edge-tsad run --bundle pump.tsad --source csv:pump.csv --speed 60 --broker mqtt://localhost
  sensor | edge-tsad run --bundle pump.tsad --source stdin --site plant --device gw-1

On SIGHUP the file is read again: streams that did not change go on, new ones begin, missing ones
end. A mistake in it is said and changes nothing.
""",
)
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), help="Bundle of a single stream.")
@click.option("--source", help="csv:FILE, stdin or system.")
@click.option("--broker", help="mqtt://host[:port], or mqtts:// for TLS.")
@click.option("--protocol", type=click.Choice(["5", "3.1.1"]), help="Version of MQTT.  [5]")
@click.option("--insecure", is_flag=True, help="Allow a broker elsewhere without TLS.")
@click.option("--speed", help='Of a CSV replay: a factor of real time, or "max".  [1]')
@click.option("--site", help="First level of the topics.  [home]")
@click.option("--device", help="Second level of the topics.  [the host's name]")
@click.option("--stream", help="Name of the stream.  [the bundle's file name]")
@click.option("--budget", help='Alarm budget, such as "1/7d" or "1/10000pt".')
@click.option("--data-dir", type=click.Path(path_type=Path), help="Folder of outbox and state.")
@click.option("--stats", type=click.Path(path_type=Path), help="Write a JSON summary at the end.")
@click.option("--verbose", "-v", is_flag=True, help="Say more.")
def command(config: Path | None, stats: Path | None, verbose: bool, **options: Any) -> int:
    """Run a gateway until its sources end or a signal comes."""
    logging.basicConfig(
        format="%(levelname).1s %(message)s",
        level=logging.INFO if verbose else logging.WARNING,
    )
    gateway = Gateway(config_of(config, options), load=lambda: config_of(config, options))
    received: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        gateway.stop()

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    if config is not None:
        previous[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: gateway.reload())
    try:
        gateway.run()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if stats is not None:
        text = json.dumps(gateway.stats(), indent=2, allow_nan=False) + "\n"
        write_atomically(stats, text.encode(), DataError)
    if gateway.restart and not received:
        run_anew()
    if gateway.errors:
        raise DataError("; ".join(gateway.errors))
    return 128 + signal.SIGINT if signal.SIGINT in received else 0


def run_anew() -> NoReturn:
    """Become the same command once more, which opens what the slots hold now.

    The process keeps its number: who supervises it sees no end.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])  # noqa: S606 - no shell


def config_of(path: Path | None, options: dict[str, Any]) -> GatewayConfig:
    """The configuration in the file, or the one that the options describe.

    Raises:
        ConfigError: neither, both, or something wrong in it.
    """
    given = sorted(f"--{name.replace('_', '-')}" for name, value in options.items() if value)
    if path is None:
        if not options["bundle"] or not options["source"]:
            raise ConfigError("run: give a CONFIG file, or --bundle and --source")
        return config_from_options(**options)
    if given:
        raise ConfigError(
            f"run: {', '.join(given)} cannot be given beside the file {path}; put it there"
        )
    return load_config(path)


def config_from_options(
    *,
    bundle: Path,
    source: str,
    broker: str | None = None,
    protocol: str | None = None,
    insecure: bool = False,
    speed: str | None = None,
    site: str | None = None,
    device: str | None = None,
    stream: str | None = None,
    budget: str | None = None,
    data_dir: Path | None = None,
) -> GatewayConfig:
    """The same object that a TOML file with one stream would give.

    Raises:
        ConfigError: an option is wrong; the message starts with the key path of the file.
    """
    connection: dict[str, Any] = {"insecure": insecure}
    connection |= {"url": broker} if broker else {}
    connection |= {"protocol": protocol} if protocol else {}
    host = plain(socket.gethostname().split(".")[0])
    return GatewayConfig(
        site=site or "home",
        device=device or host or "gateway",
        streams=(
            StreamConfig(
                name=stream or plain(bundle.stem) or "stream",
                bundle=str(bundle),
                source=source_of(source, speed),
            ),
        ),
        broker=decode(BrokerConfig, connection, "broker", ConfigError),
        budget=budget or "",
        data_dir=str(data_dir or ""),
    )


def source_of(text: str, speed: str | None) -> SourceConfig:
    """``csv:FILE``, ``stdin``, ``system`` …: after the colon stands the first of its options."""
    kind, _, rest = text.partition(":")
    table: dict[str, object] = {"type": kind}
    if kind not in tuple(SOURCES):
        raise ConfigError(f"--source: {text!r} is none of {', '.join(SOURCES)}, such as csv:FILE")
    fields = [field.name for field in dataclasses.fields(SOURCES[kind].Options)]
    if rest:
        table[fields[0]] = rest
    if speed is not None:
        table["speed"] = speed_of(speed)
    if speed is not None and "speed" not in fields:
        raise ConfigError(f"--speed: is only for a replay; the source {kind} has none")
    return ConfigDecoder().source(table, "source")


def speed_of(text: str) -> float | str:
    if text == "max":
        return text
    try:
        return float(text)
    except ValueError as e:
        raise ConfigError(f'--speed: {text!r} is neither a number nor "max"') from e


def plain(name: str) -> str:
    """A file's or host's name as one level of a topic."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-._")[:64]
