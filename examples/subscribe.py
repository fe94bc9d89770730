"""Subscribe to the alerts of all gateways, without this project's code.

python examples/subscribe.py localhost 1883
"""

import json
import sys

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


def on_connect(client, userdata, flags, reason, properties):
    client.subscribe("edge-tsad/+/+/alert/#", qos=1)


def on_message(client, userdata, message):
    alert = json.loads(message.payload)  # `id` and `seq` tell a repetition from a new one
    print(alert["type"], alert["id"], alert["reason"], flush=True)


client = mqtt.Client(CallbackAPIVersion.VERSION2, "my-alerts", protocol=mqtt.MQTTv5)
client.on_connect, client.on_message = on_connect, on_message
kept = Properties(PacketTypes.CONNECT)
kept.SessionExpiryInterval = 86_400  # the broker keeps what comes while we are away, for a day
client.connect(sys.argv[1], int(sys.argv[2]), clean_start=False, properties=kept)
client.loop_forever()
