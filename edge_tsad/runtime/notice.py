"""The agent's last note on an update, as a message for ``update/<stream>``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge_tsad.errors import BundleError
from edge_tsad.files import read_limited

__all__ = ["read_notice"]

STATE_BYTES = 4 << 20


def read_notice(folder: Path) -> dict[str, Any] | None:
    """Phase and last entry of the history in ``state.json`` of the agent's folder.

    None where there is nothing to tell, or the file cannot be understood: telling is not worth a
    runtime that stops.
    """
    try:
        state = json.loads(read_limited(folder / "state.json", STATE_BYTES, BundleError))
        entry = state["history"][-1]
        moment = datetime.fromtimestamp(int(entry["wall_ns"]) // 10**9, UTC)
        return {
            "phase": str(state["phase"]),
            "event": str(entry["event"]),
            "number": int(entry["number"]),
            "bundle": str(entry["label"]),
            "digest": str(entry["digest"]),
            "reason": str(entry["reason"]),
            "time": moment.isoformat().replace("+00:00", "Z"),
            "synchronised": bool(entry["synchronised"]),
        }
    except (BundleError, ValueError, KeyError, IndexError, TypeError, OverflowError, OSError):
        return None
