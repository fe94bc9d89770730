"""One MQTT client made from the configuration of a broker: paho-mqtt 2, MQTT 5 and 3.1.1."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable, Sequence
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from edge_tsad.broker import BrokerConfig, credential, secret_file
from edge_tsad.errors import ConfigError
from edge_tsad.runtime.sinks.base import Incoming, Reply

__all__ = [
    "CONNECT_TIMEOUT_S",
    "Client",
    "guarded",
    "incoming",
    "make_client",
    "reply_properties",
    "session",
    "subscribe",
]

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0


class Client(paho.Client):
    """A paho client that tells when its network thread has ended, for whatever reason.

    ``answered`` is set when the broker accepted or refused the connection, ``ended`` when the
    thread is gone; ``accepted`` and ``reason`` hold the outcome; ``connecting`` is for the owner.
    It never reconnects: a new connection is a new object, so nothing that paho queued for the old
    one is sent out of order.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(CallbackAPIVersion.VERSION2, reconnect_on_failure=False, **arguments)
        self.answered = threading.Event()
        self.ended = threading.Event()
        self.accepted = False
        self.connecting = False
        self.encrypted = False
        self.reason = ""
        self._trouble = ""
        self.on_log = self._keep_trouble

    def _keep_trouble(self, client: paho.Client, data: Any, level: int, text: str) -> None:
        """Keep what paho says of its socket, and of TLS, in its log alone."""
        if level == LogLevel.MQTT_LOG_ERR and "socket" in text:
            self._trouble = text.partition(": ")[2]

    def lost(self, reason: ReasonCode) -> str:
        """Why the connection was lost, in words."""
        words = f"the connection was lost: {self._trouble or reason}"
        if self.encrypted and not self.accepted:
            words += "; perhaps the broker does not accept this client's certificate"
        return words

    def loop_forever(
        self, timeout: float = 1.0, retry_first_connection: bool = False
    ) -> MQTTErrorCode:
        """As paho's, which runs this in its thread."""
        try:
            return super().loop_forever(timeout, retry_first_connection)
        finally:
            self.accepted = False
            self.ended.set()
            self.answered.set()


def guarded(callback: Callable[..., None]) -> Callable[..., None]:
    """A callback whose failure is logged: an exception in it would end paho's thread unnoticed."""

    def call(*arguments: Any) -> None:
        try:
            callback(*arguments)
        except Exception:
            log.exception("a defect of this program: an MQTT callback failed")

    return call


def make_client(broker: BrokerConfig, client_id: str, *, persistent: bool = False) -> Client:
    """A client that is not connected yet.

    A ``persistent`` one keeps its session at the broker (see :func:`session` for MQTT 5) and
    acknowledges messages when it is told to, not before they have been handled.

    Raises:
        ConfigError: the password or a certificate cannot be read.
    """
    version = paho.MQTTv5 if broker.protocol == "5" else paho.MQTTv311
    clean = None if version == paho.MQTTv5 else not persistent
    client = Client(
        client_id=client_id, protocol=version, clean_session=clean, manual_ack=persistent
    )
    client.connect_timeout = CONNECT_TIMEOUT_S
    if broker.username:
        client.username_pw_set(broker.username, broker.password())
    if broker.tls:
        client.tls_set_context(tls_context(broker))
        client.encrypted = True
    return client


def tls_context(broker: BrokerConfig) -> ssl.SSLContext:
    """Certificates are always verified, against ``ca_file`` or else the system's authorities.

    Raises:
        ConfigError: a file cannot be read, holds no certificate, or is a key that others can read.
    """
    try:
        authority = broker.ca_file and credential(broker.ca_file, "broker.ca_file")
        context = ssl.create_default_context(cafile=authority or None)
        if broker.certificate_file:
            certificate = credential(broker.certificate_file, "broker.certificate_file")
            key = secret_file(broker.key_file or broker.certificate_file, "broker.key_file")
            # An empty password: an encrypted key is an error and not a question on the terminal.
            context.load_cert_chain(certificate, key, password="")
    except OSError as e:  # ssl.SSLError is one
        raise ConfigError(
            f"broker: ca_file, certificate_file or key_file cannot be used: {e.strerror or e}"
        ) from e
    return context


def session(client: Client, expiry_s: int) -> dict[str, Any]:
    """Arguments of ``connect`` for a session kept ``expiry_s`` after the connection (MQTT 5)."""
    if client.protocol != paho.MQTTv5:
        return {}
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = expiry_s
    return {"clean_start": False, "properties": properties}


def subscribe(client: Client, filters: Sequence[str]) -> None:
    """Subscribe with QoS 1; under MQTT 5 a message that was published as retained stays marked."""
    if client.protocol != paho.MQTTv5:
        client.subscribe([(where, 1) for where in filters])
        return
    options = SubscribeOptions(qos=1, retainAsPublished=True)
    client.subscribe([(where, options) for where in filters])


def incoming(message: paho.MQTTMessage) -> Incoming:
    """A message with what MQTT 5 says of the answer.

    Raises:
        UnicodeDecodeError: its topic is no UTF-8 text.
    """
    properties = message.properties
    return Incoming(
        message.topic,
        bytes(message.payload),
        bool(message.retain),
        getattr(properties, "ResponseTopic", ""),
        getattr(properties, "CorrelationData", b""),
    )


def reply_properties(client: Client, reply: Reply) -> Properties | None:
    """The correlation data of an answer (MQTT 5)."""
    if client.protocol != paho.MQTTv5 or not reply.correlation:
        return None
    properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    properties.CorrelationData = reply.correlation
    return properties
