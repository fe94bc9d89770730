"""Signed bundles of a few kilobytes with a real graph, and gateways in temporary folders."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from oracles import tiny_bundle

from edge_tsad.bundle import (
    Bounds,
    Bundle,
    GoldenWindows,
    Listed,
    Manifest,
    open_bundle,
    parse_bundle,
)
from edge_tsad.bundle.container import pack
from edge_tsad.keys import SigningKey
from edge_tsad.runtime.threshold import Tail
from edge_tsad.runtime.trial_report import REPORT, StreamTrial, TrialReport
from edge_tsad.signing import KeySet, sign_keys, sign_manifest
from edge_tsad.types import Channel, Now
from firmware_bridge.device import Device
from firmware_bridge.points import unwatched

KEY = SigningKey.new()
FOREIGN = SigningKey.new()
TRUSTED = sign_keys(KeySet(1, (KEY.public("release"),)), KEY)


@dataclasses.dataclass(frozen=True)
class Made:
    """A bundle file."""

    data: bytes

    @property
    def transfer(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def bundle(self) -> Bundle:
        return parse_bundle(self.data, "made")

    @property
    def digest(self) -> str:
        return self.bundle.digest

    def write(self, path: Path) -> Path:
        path.write_bytes(self.data)
        return path


@functools.cache
def base() -> Bundle:
    with tempfile.TemporaryDirectory() as folder:
        return open_bundle(tiny_bundle.make(Path(folder)))


def shifted_tails(manifest: Manifest, shift: float) -> Manifest:
    def move(tail: Tail) -> Tail:
        peaks = tuple(peak + shift for peak in tail.peaks)
        median = min(tail.median, tail.level + shift - 0.1)
        return dataclasses.replace(tail, median=median, level=tail.level + shift, peaks=peaks)

    files = tuple(dataclasses.replace(f, tail=move(f.tail)) for f in manifest.files)
    return dataclasses.replace(manifest, files=files)


@functools.cache
def release(
    counter: int,
    minimum: int = 0,
    *,
    name: str = "tiny",
    key: SigningKey | None = KEY,
    channels: tuple[Channel, ...] = tiny_bundle.CHANNELS,
    golden_shift: float = 0.0,
    bounds: Bounds | None = None,
    padding: int = 0,
    threshold_shift: float = 0.0,
) -> Made:
    """Version 1.<counter> of a bundle.

    ``golden_shift`` makes its self-test fail unless ``bounds`` allow it; ``threshold_shift`` moves
    its threshold from about 5.
    """
    manifest = shifted_tails(base().manifest, threshold_shift)
    files = {entry.path: base().read(entry.path) for entry in manifest.listed()}
    golden = GoldenWindows.from_bytes(files["golden.npz"], manifest)
    shifted = GoldenWindows(golden.window, golden.observed, golden.score + np.float32(golden_shift))
    files["golden.npz"] = shifted.to_bytes()
    files["card.md"] = b"# Tiny\n" + bytes(range(256)) * (padding // 256)
    changed = dataclasses.replace(
        manifest,
        name=name,
        version=f"1.{counter}",
        counter=counter,
        minimum_counter=minimum,
        channels=channels,
        golden=dataclasses.replace(
            manifest.golden,
            **dataclasses.asdict(Listed.of("golden.npz", files["golden.npz"])),
            bounds={"model.onnx": bounds} if bounds else manifest.golden.bounds,
        ),
        card=Listed.of("card.md", files["card.md"]),
    )
    members = {**files, "manifest.json": changed.to_json()}
    if key is not None:
        members["manifest.sig"] = sign_manifest(members["manifest.json"], key)
    return Made(pack(members))


class HandClock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.monotonic_s, self.boot = 100.0, 1
        self.wall_ns = 1_800_000_000 * 10**9

    def now(self) -> Now:
        return Now(self.monotonic_s, self.wall_ns, f"boot-{self.boot}", synchronised=False)

    def reboot(self) -> None:
        self.boot += 1
        self.monotonic_s = 1.0


def passes(path: Path) -> str:
    """A self-test that only looks whether there is a bundle."""
    return f"{open_bundle(path).manifest.golden.count} golden windows passed"


def prepare(root: Path, settings: str = "reserve_mb = 0\n") -> Path:
    """The folder of an agent whose owner trusts KEY."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "trusted.json").write_bytes(TRUSTED)
    (root / "agent.toml").write_text(settings)
    return root


def device(
    root: Path,
    clock: HandClock | None = None,
    tester: Callable[[Path], str] = passes,
    witness: Callable[[str], None] = unwatched,
) -> Device:
    return Device(root, clock or HandClock(), tester, witness)


def bring(to: Device, made: Made, trial_s: float | None = None) -> None:
    """Upload in one piece and install."""
    offset = to.offset(made.transfer, len(made.data))
    if offset < len(made.data):
        to.receive(made.transfer, offset, made.data[offset:])
    to.install(made.transfer, trial_s)


def serves(root: Path, link: str = "active.tsad") -> str:
    """Digest of the bundle that a runtime would open now, read without any of the agent's code.

    Empty where there is none; a link to nothing or a damaged bundle is an error.
    """
    slot = root / link
    return open_bundle(slot).digest if slot.is_symlink() else ""


def tries(root: Path) -> str:
    """Digest of the bundle that a runtime would score beside the active one."""
    return serves(root, "trial.tsad")


def stand_trial(root: Path, clock: HandClock, **changes: object) -> None:
    """What a runtime reports of the candidate now, all well but ``changes``."""
    stream = {
        "stream": "pump", "points": 500, "alarms": 0, "active_alarms": 0, "over": 0,
        "active_over": 0, "expected": 0.1, "windows": 500, "p99_ms": 1.0, "active_p99_ms": 1.0,
        "between_ms": 1000.0,
    }  # fmt: skip
    own = {name: changes.pop(name) for name in list(changes) if name in stream}
    values = {
        "candidate": tries(root), "boot_id": clock.now().boot_id, "process": 1,
        "since_s": clock.monotonic_s, "at_s": clock.monotonic_s, "memory_mb": 2.0, "problem": "",
        "streams": (StreamTrial(**{**stream, **own}),), **changes,
    }  # fmt: skip
    (root / REPORT).write_bytes(TrialReport(**values).pack())


def last(gateway: Device) -> tuple[str, str]:
    """Event and reason of the newest line of its history."""
    entry = gateway.look()[0].history[-1]
    return entry.event, entry.reason
