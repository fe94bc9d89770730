"""Home Assistant's MQTT device discovery: one device for the gateway, one for each stream.

The payloads are retained at ``<prefix>/device/<id>/config``. What this gateway has retained is
remembered, so that devices and entities which are gone from the configuration are cleared: a broker
keeps ghosts for ever.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

from edge_tsad import __version__
from edge_tsad.config import GatewayConfig
from edge_tsad.runtime.payload import StreamFacts
from edge_tsad.runtime.topics import Topics

__all__ = ["config_topic", "discovery"]

Components = dict[str, dict[str, Any]]
NOT_IN_AN_ID = re.compile(r"[^A-Za-z0-9_-]")
HOUR_S = 3600
MISSED_SCORES = 10
LEAST_EXPIRY_S = 60
STATES = ("WARMING_UP", "OK", "PENDING", "FIRING", "ACKED")


def discovery(config: GatewayConfig, streams: Iterable[StreamFacts]) -> dict[str, dict[str, Any]]:
    """Discovery payloads by topic; nothing where the configuration does not want them."""
    if not config.home_assistant.discovery:
        return {}
    topics = Topics(config.site, config.device)
    gateway = object_id("edge-tsad", config.site, config.device)
    prefix = config.home_assistant.prefix
    shared = {"origin": {"name": "edge-tsad", "sw_version": __version__}, "qos": 1}
    online = {
        "availability": [
            {
                "topic": topics.status,
                "value_template": "{{ 'online' if value_json.online else 'offline' }}",
            }
        ]
    }
    made = {
        config_topic(prefix, gateway): {
            "device": {
                "identifiers": [gateway],
                "name": f"{config.site}/{config.device}",
                "manufacturer": "edge-tsad",
                "model": "gateway",
                "sw_version": __version__,
            },
            **shared,
            "components": gateway_components(gateway, topics, online),
        }
    }
    for facts in streams:
        name = object_id(gateway, facts.stream)
        made[config_topic(prefix, name)] = {
            "device": {
                "identifiers": [name],
                "name": f"{facts.stream} ({config.site}/{config.device})",
                "manufacturer": "edge-tsad",
                "model": facts.bundle,
                "sw_version": facts.bundle.rpartition("-")[2],
                "via_device": gateway,
            },
            **shared,
            **online,
            "components": stream_components(name, facts, topics, config),
        }
    return made


def config_topic(prefix: str, name: str) -> str:
    """Where the payload of a device is retained."""
    return f"{prefix}/device/{name}/config"


def object_id(*parts: str) -> str:
    """A name of letters, digits, ``_`` and ``-``; different parts have different names."""
    plain = "-".join(NOT_IN_AN_ID.sub("_", part) for part in parts)
    if all(part == NOT_IN_AN_ID.sub("_", part) and "-" not in part for part in parts[1:]):
        return plain
    return f"{plain}-{hashlib.sha256('/'.join(parts).encode()).hexdigest()[:6]}"


def gateway_components(gateway: str, topics: Topics, online: dict[str, Any]) -> Components:
    """The gateway's own entities."""
    return {
        "online": {
            "platform": "binary_sensor",
            "unique_id": f"{gateway}-online",
            "name": "Online",
            "device_class": "connectivity",
            "entity_category": "diagnostic",
            "state_topic": topics.status,
            "value_template": "{{ 'ON' if value_json.online else 'OFF' }}",
        },
        "pending": {
            "platform": "sensor",
            "unique_id": f"{gateway}-pending",
            "name": "Alerts not delivered",
            "entity_category": "diagnostic",
            "state_class": "measurement",
            "state_topic": topics.status,
            "value_template": "{{ value_json.outbox.pending if value_json.online else None }}",
            **online,
        },
    }


def stream_components(
    name: str, facts: StreamFacts, topics: Topics, config: GatewayConfig
) -> Components:
    """The entities of one stream."""
    state = {"state_topic": topics.state(facts.stream)}
    diagnostic = {"entity_category": "diagnostic"}
    made: Components = {
        "anomaly": {
            "platform": "binary_sensor",
            "name": "Anomaly",
            "device_class": "problem",
            "value_template": "{{ 'ON' if value_json.process in ('FIRING', 'ACKED') else 'OFF' }}",
            "json_attributes_topic": topics.state(facts.stream),
            **state,
        },
        "health": {
            "platform": "binary_sensor",
            "name": "Data problem",
            "device_class": "problem",
            "value_template": "{{ 'ON' if value_json.health else 'OFF' }}",
            **diagnostic,
            **state,
        },
        "process": {
            "platform": "sensor",
            "name": "State",
            "device_class": "enum",
            "options": list(STATES),
            "value_template": "{{ value_json.process }}",
            **state,
        },
        "threshold": {
            "platform": "sensor",
            "name": "Threshold",
            "value_template": "{{ value_json.threshold }}",
            **diagnostic,
            **state,
        },
        "silenced_until": {
            "platform": "sensor",
            "name": "Silenced until",
            "device_class": "timestamp",
            "value_template": "{{ value_json.silenced_until }}",
            **diagnostic,
            **state,
        },
    }
    interval_s = config.broker.score_interval_s
    if interval_s:
        step_s = facts.timing.step_ns / 1e9
        made["score"] = {
            "platform": "sensor",
            "name": "Score",
            "state_class": "measurement",
            "state_topic": topics.score(facts.stream),
            "value_template": "{{ value_json.score }}",
            "expire_after": round(max(LEAST_EXPIRY_S, MISSED_SCORES * max(interval_s, step_s))),
        }
    made |= command_components(facts.stream, topics, config, state)
    return {key: {"unique_id": f"{name}-{key}", **each} for key, each in made.items()}


def command_components(
    stream: str, topics: Topics, config: GatewayConfig, state: dict[str, str]
) -> Components:
    """Buttons for those commands that are allowed."""
    least, most = config.commands.sensitivity
    quoted = json.dumps(stream)
    every: Components = {
        "ack": {
            "platform": "button",
            "name": "Acknowledge",
            "payload_press": json.dumps({"stream": stream}),
        },
        "silence": {
            "platform": "switch",
            "name": "Silence for an hour",
            "payload_on": json.dumps({"stream": stream, "for_s": HOUR_S}),
            "payload_off": json.dumps({"stream": stream, "for_s": 0}),
            "state_on": "ON",
            "state_off": "OFF",
            "value_template": "{{ 'ON' if value_json.silenced_until else 'OFF' }}",
            **state,
        },
        "sensitivity": {
            "platform": "number",
            "name": "Sensitivity",
            "entity_category": "config",
            "min": least,
            "max": most,
            "step": 0.1,
            "mode": "box",
            "command_template": f'{{"stream": {quoted}, "value": {{{{ value }}}}}}',
            "value_template": "{{ value_json.sensitivity }}",
            **state,
        },
    }
    return {
        name: {"command_topic": topics.command(name), **each}
        for name, each in every.items()
        if name in config.commands.allow
    }
