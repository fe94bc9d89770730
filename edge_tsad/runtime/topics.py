"""The MQTT topics of a gateway, all under ``edge-tsad/<site>/<device>/``."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Topics", "alert_filter", "gateway_of", "response_filter", "shared", "unshared"]

ROOT = "edge-tsad"


@dataclass(frozen=True, slots=True)
class Topics:
    """The topics of one device."""

    site: str
    device: str

    @property
    def status(self) -> str:
        """Whether the gateway is online (retained, last will)."""
        return f"{ROOT}/{self.site}/{self.device}/status"

    def state(self, stream: str) -> str:
        """The state of a stream (retained)."""
        return f"{ROOT}/{self.site}/{self.device}/state/{stream}"

    def update(self, stream: str) -> str:
        """What became of the last update of a stream's bundle, and why (retained)."""
        return f"{ROOT}/{self.site}/{self.device}/update/{stream}"

    def alert(self, stream: str) -> str:
        """The alerts of a stream (QoS 1)."""
        return f"{ROOT}/{self.site}/{self.device}/alert/{stream}"

    def score(self, stream: str) -> str:
        """The scores of a stream (QoS 0, rate-capped)."""
        return f"{ROOT}/{self.site}/{self.device}/score/{stream}"

    def command(self, name: str) -> str:
        """Where the command ``name`` is given; ``+`` stands for all."""
        return f"{ROOT}/{self.site}/{self.device}/cmd/{name}"

    def response(self, name: str) -> str:
        """Where the command ``name`` is answered unless the request names another topic."""
        return f"{ROOT}/{self.site}/{self.device}/response/{name}"

    @property
    def probe(self) -> str:
        """What the gateway says to itself under MQTT 3.1.1, to see that it may publish."""
        return f"{ROOT}/{self.site}/{self.device}/probe"


def alert_filter(site: str = "", device: str = "") -> str:
    """The subscription to all alerts of a device; an empty name stands for any."""
    return f"{ROOT}/{site or '+'}/{device or '+'}/alert/#"


def response_filter(name: str, site: str = "", device: str = "") -> str:
    """The subscription to the answers to a command; an empty name stands for any."""
    return f"{ROOT}/{site or '+'}/{device or '+'}/response/{name}"


def gateway_of(topic: str) -> str:
    """``site/device`` of a topic of a gateway."""
    return "/".join(topic.split("/")[1:3])


def shared(topic_filter: str, group: str) -> str:
    """The filter as a subscription that the consumers of ``group`` share."""
    return f"$share/{group}/{topic_filter}"


def unshared(topic_filter: str) -> str:
    """The filter that topics match."""
    return topic_filter.split("/", 2)[2] if topic_filter.startswith("$share/") else topic_filter
