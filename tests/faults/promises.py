"""What must hold of a story, however often it was cut off: its journal against what arrived."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from faults.story import START, VALUES, read_journal

__all__ = ["broken"]


def broken(folder: Path) -> list[str]:
    """Every promise that was broken in the story that was played to its end in ``folder``."""
    journal, received = read_journal(folder / "journal"), read_journal(folder / "broker")
    if not journal or not journal[-1].get("ended"):
        return ["the last run did not come to its end"]
    problems = [f"the run had errors: {e}" for e in journal[-1]["errors"]]
    problems += ["the outbox was set aside"] if journal[-1]["set_aside"] else []
    left = [path.name for path in (folder / "data").rglob("*.part")]
    problems += [f"what a killed writer has left is not swept: {left}"] if left else []
    return problems + outbox(journal, received) + alerts(received) + state(journal)


def outbox(journal: list[dict[str, Any]], received: list[dict[str, Any]]) -> list[str]:
    """Nothing is lost, no number is missing or given twice."""
    problems = []
    by_number: dict[int, dict[str, Any]] = {}
    for message in received:
        same = {**message, "late": False}
        if by_number.setdefault(message["seq"], same) != same:
            problems.append(f"number {message['seq']} was given to two messages")
    if sorted(by_number) != list(range(1, len(by_number) + 1)):
        problems.append(f"the numbers have a hole: {sorted(by_number)}")
    for entry in journal:
        if "committed" in entry:
            got = by_number.get(entry["committed"])
            if got is None or (got["id"], got["type"]) != (entry["id"], entry["type"]):
                problems.append(f"the committed alert {entry['committed']} was lost")
    if len({message["epoch"] for message in received}) > 1:
        problems.append("the numbers began anew")
    return problems


def alerts(received: list[dict[str, Any]]) -> list[str]:
    """An alert has one id from its new to its end, whatever happens between them."""
    problems = []
    seen: set[str] = set()
    current = ""
    once = {message["seq"]: message for message in received if "kind" not in message}
    for number, message in sorted(once.items()):
        where = f"number {number} ({message['type']} {message['id']})"
        if message["type"] == "new":
            problems += [f"{where} comes while {current} is open"] if current else []
            problems += [f"{where}: its id was used before"] if message["id"] in seen else []
            current = message["id"]
            seen.add(current)
        elif message["id"] != current:
            problems.append(f"{where}: {current or 'no alert'} is open")
        if message["type"] == "end":
            current = ""
            if "cannot be followed" in message["reason"]:
                problems.append(f"{where}: the alert was lost sight of")
    return problems + ([f"{current} never ended"] if current else [])


def state(journal: list[dict[str, Any]]) -> list[str]:
    """What was saved and what was recorded is there at the next start."""
    problems = []
    saved: int | None = None
    recorded: set[int] = set()
    for entry in journal:
        if "begun" in entry:
            if saved is not None and (entry["loaded"] or 0) < saved:
                problems.append(f"the snapshot of {saved} was lost; found {entry['loaded']}")
            problems += recording(entry["recording"], recorded)
        saved = entry.get("snapshot", saved)
        recorded.update(entry.get("recorded", ()))
    return problems


def recording(found: list[list[float]], recorded: set[int]) -> list[str]:
    """All rows that were synced, but for the oldest, which had to give way."""
    indices = [int(index) for index, _ in found]
    wrong = [i for i, value in found if abs(value - (i - START) * 1e-3) > 1e-4]
    problems = [f"rows {wrong[:3]} of the recording are wrong"] if wrong else []
    if not recorded:
        return problems
    first = min(indices, default=START + len(VALUES))
    lost = sorted(i for i in recorded if i >= first and i not in set(indices))
    if lost or not indices:
        problems.append(f"{len(lost) or len(recorded)} synced rows of the recording were lost")
    elif max(recorded) > indices[-1] or len(indices) < min(len(recorded), 30):
        problems.append(f"the recording of {len(recorded)} rows is {len(indices)} rows long")
    return problems
