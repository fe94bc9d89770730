"""A gateway without a clock of its own: it wakes in 1970, and the network sets it right later."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from service.gateways import (
    SECOND,
    START,
    HandClock,
    HandSource,
    make,
    never_wait,
    rows,
    write_config,
)

from edge_tsad.runtime import gathering
from edge_tsad.types import Now

HIGH, QUIET = [20.0] * 4, [0.5] * 20


class WakesIn1970(HandClock):
    """Nothing keeps it right until ``set_right``."""

    right = False

    @property
    def wall_s(self) -> float:
        return (START if self.right else 100) + self.passed_s

    def now(self) -> Now:
        return Now(1000.0 + self.passed_s, int(self.wall_s * SECOND), "boot", self.right)


def test_an_alert_goes_on_over_the_step_and_the_clock_is_said(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "LONGEST_S", 0.0)  # time stands still while a sample waits
    clock = WakesIn1970()
    gateway, sink = make(write_config(folder, ["pump"]), clock)
    values = [*QUIET, *HIGH, *HIGH, *QUIET, *([0.5, 0.6] * 400)]
    given = 0

    def idle() -> None:
        nonlocal given
        if gateway.workers[0].samples < given:
            time.sleep(0.001)
            return  # one is under way
        clock.passed_s += 1
        if given == len(values):
            gateway.stop()
            return
        if given == len(QUIET + HIGH):
            clock.right = True
        HandSource.wires["pump"].put(rows([values[given]], int(clock.wall_s)))
        given += 1

    never_wait(gateway, idle)
    gateway.run()
    found = [json.loads(payload) for _, payload in sink.delivered]
    assert [message["seq"] for message in found] == list(range(1, len(found) + 1))
    alerts = [message for message in found if "kind" not in message]
    assert [message["type"] for message in alerts] == ["new", "update", "end"]
    assert len({message["id"] for message in alerts}) == 1 and not gateway.errors
    assert alerts[0]["onset"].startswith("1970-") and alerts[2]["time"].startswith("2027-")
    said = [message for message in found if message.get("condition") == "CLOCK"]
    assert [message["type"] for message in said] == ["new", "end"]
    assert "never set" in said[0]["reason"] and not said[0]["clock_synchronised"]
    assert said[1]["clock_synchronised"]
