"""Thin artefacts for fleets that have an update service already.

Each of them puts the bundle, unchanged, into an inbox of the gateway's agent, which verifies, tests
and tries it as if it had come on a stick. The fleet's tool carries; it decides nothing.
"""

from firmware_bridge.emit.base import Artefact, Signer
from firmware_bridge.emit.mender import emit_mender
from firmware_bridge.emit.rauc import emit_rauc
from firmware_bridge.emit.swupdate import emit_swupdate

__all__ = ["EMITTERS", "Artefact", "Signer"]

EMITTERS = {"rauc": emit_rauc, "mender": emit_mender, "swupdate": emit_swupdate}
