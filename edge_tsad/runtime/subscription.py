"""A consumer of alerts: a persistent session that misses nothing and shows nothing twice."""

from __future__ import annotations

import json
import logging
import math
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from paho.mqtt.client import MQTTMessage, topic_matches_sub
from paho.mqtt.reasoncodes import ReasonCode

from edge_tsad.broker import BrokerConfig
from edge_tsad.errors import TransportError
from edge_tsad.runtime.gaps import Gaps
from edge_tsad.runtime.sinks.connection import Client, guarded, make_client, session
from edge_tsad.runtime.topics import ROOT, Topics, gateway_of, response_filter, unshared

__all__ = ["AlertSubscription", "Seen"]

log = logging.getLogger(__name__)

POLL_S = 0.5
RETRY_S = 2.0
PART_S = 0.2
SESSION_EXPIRY_S = 30 * 86_400
TAKEN_OVER = 142
SHORT_S = 10.0
MANY_SHORT = 3


class Seen:
    """Which alerts were shown: the newest ``limit`` of them, by ``id`` and ``seq``."""

    def __init__(self, limit: int = 10_000) -> None:
        self._keys: OrderedDict[tuple[str, int], None] = OrderedDict()
        self._limit = limit

    def first_time(self, alert: dict[str, Any]) -> bool:
        """Whether this alert's ``id`` and ``seq`` come for the first time."""
        key = (str(alert.get("id")), int(alert.get("seq") or 0))
        if key in self._keys:
            return False
        self._keys[key] = None
        if len(self._keys) > self._limit:
            self._keys.popitem(last=False)
        return True


class AlertSubscription:
    """Alerts under ``topic`` (a filter), received with QoS 1 in the session of ``client_id``.

    The broker keeps the session for 30 days (under MQTT 3.1.1 as long as it likes), so what comes
    while nobody listens arrives with the next connection. What the broker has lost shows as a gap
    in the numbers, and is asked for at the gateway; with ``gaps_path`` also between two runs. One
    of several consumers that share a subscription (``$share/…``) sees only some numbers and asks
    for nothing.

    Raises:
        ConfigError: the password or a certificate cannot be read.
    """

    def __init__(
        self, broker: BrokerConfig, client_id: str, topic: str, gaps_path: Path | None = None
    ) -> None:
        self.broker = broker
        self.client_id = client_id
        self.topic = topic
        self._matched = unshared(topic)
        self._gaps = None
        if topic.startswith(f"{ROOT}/"):
            self._gaps = Gaps(client_id, self._ask, gaps_path)
        self._received: deque[MQTTMessage] = deque()
        self._answers: deque[MQTTMessage] = deque(maxlen=1000)
        self._failure = ""
        self._responses_mid: int | None = None
        self._down = ""
        self._said_down = False
        self._connected_s = -math.inf
        self._short_lived = 0
        self._seen = Seen()
        self._client = self._make()

    def alerts(
        self, timeout_s: float | None = None, count: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Alerts as they come, until ``timeout_s`` have passed in all or there were ``count``.

        An alert is acknowledged to the broker when the next one is asked for: one that was being
        handled when this process died comes again.

        Raises:
            TransportError: another client took the session over, or the subscription was refused.
        """
        end_s = math.inf if timeout_s is None else time.monotonic() + timeout_s
        left = math.inf if count is None else count
        try:
            while time.monotonic() < end_s:
                if not self._connect(end_s):
                    continue
                self._client.loop(min(POLL_S, max(0.0, end_s - time.monotonic())))
                if self._failure:
                    raise TransportError(self._failure)
                self._look_for_gaps()
                while self._received:
                    message = self._received.popleft()
                    alert = parse(message)
                    fresh = alert is not None and self._seen.first_time(alert)
                    if alert is not None and fresh:
                        yield alert
                        left -= 1
                        self._note(alert)
                    self._client.ack(message.mid, message.qos)
                    if not left:
                        return
        finally:
            self._part()
            if self._gaps is not None:
                self._gaps.save()

    def _note(self, alert: dict[str, Any]) -> None:
        if self._gaps is not None:
            self._gaps.note(alert, time.monotonic())
            if not self._received:
                self._gaps.save()

    def _look_for_gaps(self) -> None:
        """Take in the answers of gateways, and ask for what is missing."""
        if self._gaps is None or self._received or not self._client.is_connected():
            return
        while self._answers:
            message = self._answers.popleft()
            try:
                answer = json.loads(message.payload)
                self._gaps.answered(gateway_of(message.topic), dict(answer), time.monotonic())
            except (ValueError, TypeError, RecursionError) as e:
                log.warning("an answer on %s is left out: %s", message.topic, e)
        self._gaps.tick(time.monotonic())

    def _ask(self, gateway: str, request: dict[str, Any]) -> None:
        site, _, device = gateway.partition("/")
        data = json.dumps(request).encode()
        self._client.publish(Topics(site, device).command("replay"), data, qos=1)

    def _part(self) -> None:
        """Disconnect, after a moment in which all that is under way is read.

        A socket that is closed with unread bytes is reset, and a reset may overtake the last
        acknowledgements.
        """
        end_s = time.monotonic() + PART_S
        while self._client.is_connected() and time.monotonic() < end_s:
            self._client.loop(PART_S / 4)
        self._client.disconnect()

    def _connect(self, end_s: float) -> bool:
        """Whether there is a connection; without one, one is attempted, at most every 2 s."""
        if self._client.is_connected() or self._client.connecting:
            return True
        if self._down:
            self._say_down(self._down)
            time.sleep(min(RETRY_S, max(0.0, end_s - time.monotonic())))
        self._client = self._make()
        self._received.clear()  # not acknowledged, so the broker sends it again
        self._down = "the connection ended without an answer"
        try:
            self._client.connect(
                self.broker.host,
                self.broker.port,
                self.broker.keepalive_s,
                **session(self._client, SESSION_EXPIRY_S),
            )
        except (OSError, ValueError) as e:
            self._down = str(getattr(e, "strerror", None) or e)
            return False
        self._client.connecting = True
        return True

    def _make(self) -> Client:
        client = make_client(self.broker, self.client_id, persistent=True)
        client.on_connect = guarded(self._on_connect)
        client.on_subscribe = guarded(self._on_subscribe)
        client.on_message = guarded(self._on_message)
        client.on_disconnect = guarded(self._on_disconnect)
        return client

    def _on_connect(
        self, client: Client, userdata: Any, flags: Any, reason: ReasonCode, rest: Any
    ) -> None:
        client.connecting = False
        if reason.is_failure:
            self._down = f"it refuses the connection: {reason}"
            return
        if self._said_down:
            log.warning("connected to the broker %s", self.broker.url)
        self._said_down = False
        self._connected_s = time.monotonic()
        client.subscribe(self.topic, qos=1)
        if self._gaps is not None:
            # QoS 0: an answer is of no use to a later connection.
            self._responses_mid = client.subscribe(response_filter("replay"), qos=0)[1]
            self._gaps.reconnected()

    def _on_subscribe(
        self, client: Client, userdata: Any, mid: int, reasons: list[ReasonCode], rest: Any
    ) -> None:
        if mid != self._responses_mid and any(reason.is_failure for reason in reasons):
            self._failure = f"the broker refuses the subscription to {self.topic}: {reasons[0]}"

    def _on_message(self, client: Client, userdata: Any, message: MQTTMessage) -> None:
        if topic_matches_sub(self._matched, message.topic):
            self._received.append(message)
        elif topic_matches_sub(response_filter("replay"), message.topic):
            self._answers.append(message)
        else:  # the session was used with a wider filter before
            client.ack(message.mid, message.qos)

    def _on_disconnect(
        self, client: Client, userdata: Any, flags: Any, reason: ReasonCode, rest: Any
    ) -> None:
        client.connecting = False
        culprit = f"another client uses the session {self.client_id}; give this one its own id"
        if reason.value == TAKEN_OVER:
            self._failure = culprit
        # Not every broker says so, and then the two throw each other out for ever.
        short = time.monotonic() - self._connected_s < SHORT_S
        self._short_lived = self._short_lived + 1 if short else 0
        if self._short_lived == MANY_SHORT:
            log.warning("the connection is lost again and again: perhaps %s", culprit)
        if reason.is_failure and not self._down.startswith("it refuses"):
            self._down = f"the connection was lost: {reason}"

    def _say_down(self, reason: str) -> None:
        if not self._said_down:
            log.warning("the broker %s is not there (%s); waiting for it", self.broker.url, reason)
        self._said_down = True


def parse(message: MQTTMessage) -> dict[str, Any] | None:
    """The alert in a message; None, said in the log, for one that is none."""
    try:
        alert = json.loads(message.payload)
        if not isinstance(alert, dict) or not isinstance(alert["id"], str):
            raise ValueError("it is no alert")
        int(alert["seq"])
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        log.warning("a message on %s is left out: %s", message.topic, e)
        return None
    return alert
