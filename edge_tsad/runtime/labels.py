"""What people said of alerts, kept by alert id for the next training."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edge_tsad.decode import decode
from edge_tsad.errors import DataError
from edge_tsad.runtime.outbox import Outbox
from edge_tsad.types import Now

__all__ = ["AlertLabel", "keep_label", "labels_key", "read_labels"]

log = logging.getLogger(__name__)

MOST_LABELS = 2000


@dataclass(frozen=True, slots=True)
class AlertLabel:
    """One alert and what it was: ``anomaly`` or ``normal``.

    ``from_index`` … ``to_index`` are its points on the grid of ``step_ns`` and ``begin`` … ``end``
    their times (null without a rate), as far as it was known then; ``labelled`` is the wall clock's
    time of the label.
    """

    id: str
    label: str
    note: str
    from_index: int
    to_index: int
    step_ns: int
    begin: str | None
    end: str | None
    digest: str
    labelled: str | None


def label_of(
    messages: Sequence[bytes], alert_id: str, label: str, note: str, *, step_ns: int,
    labelled: str | None,
) -> AlertLabel | None:  # fmt: skip
    """The label of an alert, from its messages; None where none of them is of it."""
    of_it = [m for m in map(json.loads, messages) if m.get("id") == alert_id and "onset" in m]
    if not of_it:
        return None
    last: dict[str, Any] = of_it[-1]
    return AlertLabel(
        alert_id, label, note, last["onset_index"], last["index"], step_ns,
        last["onset"], last["time"], last["digest"], labelled,
    )  # fmt: skip


def labels_key(stream: str) -> str:
    """Under which key the outbox keeps the labels of a stream."""
    return f"{stream}/labels"


def keep_label(outbox: Outbox, stream: str, label: AlertLabel, now: Now) -> None:
    """Store a label durably; an older one of the same alert is replaced.

    Raises:
        sqlite3.Error: it could not be stored.
    """
    others = [
        each for each in read_labels(outbox.state(labels_key(stream)), stream)
        if each.id != label.id
    ]  # fmt: skip
    kept = [*others, label][-MOST_LABELS:]
    outbox.keep(labels_key(stream), json.dumps([asdict(each) for each in kept]).encode(), now)


def read_labels(data: bytes | None, stream: str) -> list[AlertLabel]:
    """The labels in a state of the outbox, oldest first."""
    try:
        return [decode(AlertLabel, each, "", DataError) for each in json.loads(data or b"[]")]
    except (ValueError, DataError) as e:
        log.warning("%s: its labels are not used: %s", stream, e)
        return []
