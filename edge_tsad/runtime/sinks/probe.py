"""Whether this connection may publish, where acknowledgements do not tell.

Under MQTT 3.1.1 a broker acknowledges a message that its rules forbid, and drops it. So the gateway
publishes a message to itself on each connection: what is read back was taken.
"""

from __future__ import annotations

import logging
import time
import uuid

from paho.mqtt.client import MQTTMessage

from edge_tsad.runtime.sinks.base import Proof
from edge_tsad.runtime.sinks.connection import Client

__all__ = ["PATIENCE_S", "Probe"]

log = logging.getLogger(__name__)

PATIENCE_S = 5.0


class Probe:
    """The probe of the newest connection on ``topic``; without a topic nothing is ever proven.

    Its methods but :attr:`proof` are called in paho's thread.
    """

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._nonce = b""
        self._until_s = 0.0
        self._mid: int | None = None
        self._proven = False
        self._said = False

    @property
    def proof(self) -> Proof:
        """Proven, unproven, or waiting for at most 5 s."""
        if self._proven:
            return "proven"
        if self.topic and time.monotonic() < self._until_s:
            return "waiting"
        if self.topic and self._nonce and not self._said:
            self._said = True
            log.warning(
                "nothing proves that the broker takes what it acknowledges: under MQTT 3.1.1 the "
                "gateway must be allowed to read and write %s; use protocol 5 if the broker can",
                self.topic,
            )
        return "unproven"

    def begin(self, client: Client) -> None:
        """A new connection: listen to the topic."""
        self._proven = False
        if self.topic:
            self._nonce = uuid.uuid4().bytes
            self._until_s = time.monotonic() + PATIENCE_S
            self._mid = client.subscribe(self.topic, qos=1)[1]

    def subscribed(self, client: Client, mid: int) -> None:
        """The broker answered a subscription: publish, if it was this one."""
        if self.topic and mid == self._mid:
            client.publish(self.topic, self._nonce, qos=1)

    def takes(self, message: MQTTMessage) -> bool:
        """Whether a message was on the probe's topic; one of this connection is the proof."""
        if not self.topic or message.topic != self.topic:
            return False
        self._proven |= message.payload == self._nonce
        return True
