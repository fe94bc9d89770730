"""The gateways that are emulated, and the inference runtimes that each of them can have."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RUNTIMES", "SYSTEMS", "Runtime", "System"]


@dataclass(frozen=True, slots=True)
class Runtime:
    """An inference runtime: what is installed and what is imported.

    ``pins`` is the file under ``constraints/`` that holds the versions.
    """

    distribution: str
    module: str
    pins: str


@dataclass(frozen=True, slots=True)
class System:
    """A Debian system for one processor.

    ``glibc`` is its minor version, which bounds the wheels it can load. ``cpu`` is a processor that
    gateways have: QEMU's ``max`` would hide instructions that a board does not know. ``debian`` are
    Python packages that must be Debian's own because there are no wheels; the rest is pinned.
    """

    suite: str
    architecture: str
    machine: str
    emulator: str
    cpu: str
    python: str
    glibc: int
    runtimes: tuple[str, ...]
    debian: tuple[str, ...] = ()

    @property
    def packages(self) -> tuple[str, ...]:
        """Debian packages to start from."""
        base = (f"python{self.python}-minimal", f"libpython{self.python}-stdlib", "libstdc++6")
        return (*base, *self.debian)


# Keys are the names of `edge_tsad.registry.BACKENDS`.
RUNTIMES = {
    "litert": Runtime("ai-edge-litert", "ai_edge_litert.interpreter", "litert.txt"),
    "tflite-runtime": Runtime("tflite-runtime", "tflite_runtime.interpreter", "tflite.txt"),
    "onnxruntime": Runtime("onnxruntime", "onnxruntime", "ort.txt"),
}

SYSTEMS = {
    "bookworm-aarch64": System(
        suite="bookworm",
        architecture="arm64",
        machine="aarch64",
        emulator="qemu-aarch64",
        cpu="cortex-a72",
        python="3.11",
        glibc=36,
        runtimes=("litert", "tflite-runtime", "onnxruntime"),
    ),
    "trixie-aarch64": System(
        suite="trixie",
        architecture="arm64",
        machine="aarch64",
        emulator="qemu-aarch64",
        cpu="cortex-a72",
        python="3.13",
        glibc=41,
        runtimes=("litert", "onnxruntime"),
    ),
    "bookworm-armv7l": System(
        suite="bookworm",
        architecture="armhf",
        machine="armv7l",
        emulator="qemu-arm",
        cpu="cortex-a15",
        python="3.11",
        glibc=36,
        runtimes=("tflite-runtime",),
        debian=("python3-numpy",),
    ),
    "trixie-armv7l": System(
        suite="trixie",
        architecture="armhf",
        machine="armv7l",
        emulator="qemu-arm",
        cpu="cortex-a15",
        python="3.13",
        glibc=41,
        runtimes=("onnxruntime",),
        debian=("python3-numpy", "python3-onnxruntime"),
    ),
}
