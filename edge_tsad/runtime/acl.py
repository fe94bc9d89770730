"""What a broker must allow to the three who meet there, as a mosquitto ``acl_file``."""

from __future__ import annotations

from edge_tsad.config import GatewayConfig
from edge_tsad.runtime.topics import ROOT

__all__ = ["mosquitto_acl"]


def mosquitto_acl(config: GatewayConfig) -> str:
    """Rights of the device (the gateway), an operator and a consumer; patterns are its own topics.

    The device may read its own topics too: under MQTT 3.1.1 only what is read back proves that it
    was allowed. The consumer may ask for what it has missed, where the gateway answers that.
    """
    own = f"{ROOT}/{config.site}/{config.device}"
    device = config.broker.username or f"{config.site}-{config.device}"
    prefix = config.home_assistant.prefix
    birth = [f"topic write {prefix}/device/+/config", f"topic read {prefix}/status"]
    asks = [f"topic write {own}/cmd/replay", f"topic read {own}/response/replay"]
    lines = [
        "# the gateway",
        f"user {device}",
        f"topic readwrite {own}/#",
        *(birth if config.home_assistant.discovery else ()),
        *(f"topic read {topic}" for topic in sorted(read_topics(config))),
        "",
        "# who sees everything and may command",
        "user operator",
        f"topic read {own}/#",
        f"topic write {own}/cmd/#",
        "",
        "# who handles alerts",
        "user consumer",
        f"topic read {own}/alert/#",
        f"topic read {own}/state/+",
        f"topic read {own}/status",
        *(asks if "replay" in config.commands.allow else ()),
        "",
    ]
    return "\n".join(lines)


def read_topics(config: GatewayConfig) -> set[str]:
    """Topics that sources of the gateway read from this same broker."""
    found: set[str] = set()
    for stream in config.streams:
        filters = getattr(stream.source.options, "filters", ())
        broker = getattr(stream.source.options, "broker", None)
        if broker is not None and broker.url == config.broker.url:
            found.update(filters)
    return found
