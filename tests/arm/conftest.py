"""Emulated gateways for the tests of this folder, and what they computed as a table at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "scripts" / "arm"))

from emulation import Emulated, emulated

from firmware_bridge.provision.apt import AptMissingError

LINES = pytest.StashKey[list[str]]()


@pytest.fixture
def system(request: pytest.FixtureRequest) -> Callable[[str, str], Emulated]:
    """The emulated system of a name with one runtime, built where the cache does not hold it."""

    def get(name: str, runtime: str) -> Emulated:
        try:
            return emulated(name, [runtime])
        except AptMissingError as error:
            if os.environ.get("CI") or request.node.get_closest_marker("arm"):
                pytest.fail(str(error))
            pytest.skip(f"NO EMULATED ARM: {error}")

    return get


@pytest.fixture
def report(request: pytest.FixtureRequest) -> list[str]:
    """Lines that are shown below the results."""
    return request.config.stash.setdefault(LINES, [])


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    lines = config.stash.get(LINES, [])
    if lines:
        terminalreporter.section("replayed on emulated ARM")
        for line in lines:
            terminalreporter.line(line)
