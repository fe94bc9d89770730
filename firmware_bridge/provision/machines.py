"""The gateways that can be set up, and what each of them can have."""

from __future__ import annotations

from dataclasses import dataclass

from edge_tsad.errors import ConfigError

__all__ = ["MACHINES", "Machine", "machine_of"]


@dataclass(frozen=True, slots=True)
class Machine:
    """A Debian release on a processor.

    ``runtime`` is the inference runtime and ``pins`` the file of versions that goes with it.
    ``platforms`` are the tags of the wheels that it loads. ``debian`` are packages without wheels:
    the virtual environment sees the system's, and ``left_out`` is not asked of pip.
    """

    name: str
    python: str
    runtime: str
    pins: str
    platforms: tuple[str, ...]
    debian: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def sees_system(self) -> bool:
        """Whether its environment uses the system's packages."""
        return bool(self.debian)


def tags(processor: str, glibc: int) -> tuple[str, ...]:
    """The platform tags of a processor, the newest C library first."""
    newest = [f"manylinux_2_{minor}_{processor}" for minor in range(glibc, 16, -1)]
    return (*newest, f"manylinux2014_{processor}", f"linux_{processor}")


# None for 32-bit ARM; cryptography needs the backend of cffi, which Debian has too.
NO_WHEEL = ("numpy", "psutil", "cffi", "pycparser")

MACHINES = {
    ("bookworm", "arm64"): Machine(
        "64-bit bookworm", "3.11", "ai-edge-litert", "litert", tags("aarch64", 36)
    ),
    ("trixie", "arm64"): Machine(
        "64-bit trixie", "3.13", "ai-edge-litert", "litert", tags("aarch64", 41)
    ),
    ("bookworm", "armhf"): Machine(
        "32-bit bookworm",
        "3.11",
        "tflite-runtime",
        "tflite",
        tags("armv7l", 36),
        ("python3-numpy", "python3-cffi-backend", "python3-psutil"),
        NO_WHEEL,
    ),
    ("trixie", "armhf"): Machine(
        "32-bit trixie",
        "3.13",
        "onnxruntime (Debian's)",
        "ort",
        tags("armv7l", 41),
        ("python3-numpy", "python3-cffi-backend", "python3-psutil", "python3-onnxruntime"),
        (*NO_WHEEL, "onnxruntime", "flatbuffers", "packaging", "protobuf"),
    ),
    ("bookworm", "amd64"): Machine(
        "PC with bookworm", "3.11", "ai-edge-litert", "litert", tags("x86_64", 36)
    ),
    ("trixie", "amd64"): Machine(
        "PC with trixie", "3.13", "ai-edge-litert", "litert", tags("x86_64", 41)
    ),
}


def machine_of(codename: str, architecture: str) -> Machine:
    """The machine with Debian's names of its release and architecture.

    Raises:
        ConfigError: it is none that can be set up.
    """
    found = MACHINES.get((codename, architecture))
    if found is None:
        known = ", ".join(f"{release} on {processor}" for release, processor in MACHINES)
        raise ConfigError(
            f"the gateway runs {codename or 'an unknown system'} on {architecture or 'an unknown '}"
            f"{'' if architecture else 'processor'}; known are {known}"
        )
    return found
