"""Which runtimes are here, and opening one model file of a bundle in one of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from edge_tsad.errors import BackendError
from edge_tsad.registry import BACKENDS
from edge_tsad.runtime.backends.base import Backend
from edge_tsad.runtime.backends.checks import version_key

__all__ = ["ModelEntry", "available", "open_file"]


class ModelEntry(Protocol):
    """What is asked of a model file's entry in the manifest."""

    @property
    def path(self) -> str:
        """Member of the bundle."""

    @property
    def format(self) -> str:
        """``onnx`` or ``tflite``."""

    @property
    def runtimes(self) -> Mapping[str, str]:
        """Least version of each backend that the file is meant for."""


def available() -> dict[str, str]:
    """Version of each backend that can be used here, in the order of preference."""
    versions: dict[str, str] = {}
    for name, backend in BACKENDS.items():
        version = backend.version()
        if version is not None and backend.unfit() is None:
            versions[name] = version
    return versions


def open_file(
    name: str,
    entry: ModelEntry,
    read: Callable[[str], bytes],
    *,
    shape: tuple[int, int] | None = None,
    threads: int = 1,
) -> Backend:
    """Open a model file in the backend ``name``.

    Args:
        name: of the registry.
        entry: the file.
        read: returns the bytes of a path.
        shape: ``(T, C)`` that the file must have.
        threads: threads one inference may use.

    Raises:
        BackendError: the runtime is missing or too old, the file is not meant for it, or it cannot
            be opened; the sentence starts with ``name``.
        ConfigError: ``name`` is unknown.
    """
    kind = BACKENDS[name]
    version = kind.version()
    if version is not None:
        least = entry.runtimes.get(name)
        if least is None:
            raise BackendError(f"{name}: {entry.path} is not meant for it")
        if version_key(version) < version_key(least):
            raise BackendError(
                f"{name}: {entry.path} needs version {least} or newer and here is {version};"
                f' pip install --upgrade "edge-tsad[{kind.extra}]"'
            )
    # The constructor says what is wrong with a package that is missing or unfit.
    opened: Backend = kind(read(entry.path), threads=threads, shape=shape)
    return opened
