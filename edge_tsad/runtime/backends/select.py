"""Which model file of a bundle is run by which runtime on this machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from edge_tsad.errors import BackendError
from edge_tsad.registry import BACKENDS
from edge_tsad.runtime.backends.base import Backend
from edge_tsad.runtime.backends.checks import version_key

__all__ = ["Choice", "ModelEntry", "available", "open_best"]


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


@dataclass(frozen=True, slots=True)
class Choice:
    """A file, the open backend that runs it, and why the ones preferred to it did not."""

    path: str
    backend: Backend
    version: str
    passed_over: tuple[str, ...]


def available() -> dict[str, str]:
    """Version of each backend that can be used here, in the order of preference."""
    versions: dict[str, str] = {}
    for name, backend in BACKENDS.items():
        version = backend.version()
        if version is not None and backend.unfit() is None:
            versions[name] = version
    return versions


def open_best(
    files: Iterable[ModelEntry],
    read: Callable[[str], bytes],
    *,
    shape: tuple[int, int] | None = None,
    threads: int = 1,
    backend: str | None = None,
) -> Choice:
    """Open the first file that runs here.

    Backends are tried in their order (LiteRT, tflite-runtime, ONNX Runtime), and for each of them
    its files in the order of ``files``.

    Args:
        files: model files of a bundle.
        read: returns the bytes of a path.
        shape: ``(T, C)`` that the file must have.
        threads: threads one inference may use.
        backend: the only backend to use; None tries all.

    Raises:
        BackendError: no file can be opened here; the sentence says why for each backend.
        ConfigError: ``backend`` is unknown.
    """
    entries = list(files)
    reasons: list[str] = []
    for name in [backend] if backend else list(BACKENDS):
        wanted = [entry for entry in entries if entry.format in BACKENDS[name].formats]
        for entry in wanted:
            try:
                opened, version = _open(name, entry, read, shape, threads)
            except BackendError as error:
                if str(error) not in reasons:
                    reasons.append(str(error))
            else:
                return Choice(entry.path, opened, version, tuple(reasons))
        if not wanted:
            reasons.append(f"{name}: the bundle has no {' or '.join(BACKENDS[name].formats)} file")
    raise BackendError(f"no model file of the bundle runs here: {'. '.join(reasons)}")


def _open(
    name: str,
    entry: ModelEntry,
    read: Callable[[str], bytes],
    shape: tuple[int, int] | None,
    threads: int,
) -> tuple[Backend, str]:
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
    return opened, str(version)
