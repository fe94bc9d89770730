"""What every backend checks about a model file and about the package it needs."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from collections.abc import Collection, Mapping, Sequence

from edge_tsad.errors import BackendError
from edge_tsad.types import FloatArray

__all__ = [
    "DETAIL",
    "INPUTS",
    "MOST_DETAILS",
    "OUTPUTS",
    "check_arrays",
    "check_names",
    "check_shape",
    "detail_names",
    "first_line",
    "installed_version",
    "missing_package",
    "version_key",
]

INPUTS = ("window", "observed")
OUTPUTS = ("score", "channel_score", "expected")
REQUIRED_OUTPUTS = OUTPUTS[:2]
DETAIL = re.compile(r"[a-z][a-z0-9_]{0,19}")
MOST_DETAILS = 8


def installed_version(package: str, distribution: str) -> str | None:
    """Version of an installed package without importing it; None where it is not installed."""
    if importlib.util.find_spec(package) is None:
        return None
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        # Installed under another distribution name: a Debian package, or a GPU build.
        return str(getattr(importlib.import_module(package), "__version__", "unknown"))


def missing_package(name: str, extra: str) -> BackendError:
    """The error for a runtime that is not installed."""
    return BackendError(f'{name} is not installed here; pip install "edge-tsad[{extra}]"')


def version_key(version: str) -> tuple[int, ...]:
    """Leading numbers of a version, to compare: ``"2.14.0rc1"`` gives ``(2, 14, 0)``."""
    numbers: list[int] = []
    for part in version.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        numbers.append(int(digits))
        if digits != part:
            break
    return tuple(numbers)


def detail_names(outputs: Collection[str]) -> tuple[str, ...]:
    """The outputs that are details, sorted."""
    return tuple(sorted(set(outputs) - set(OUTPUTS)))


def check_names(backend: str, inputs: Collection[str], outputs: Collection[str]) -> None:
    """Inputs are those of the contract, outputs the required ones, ``expected`` and a few details.

    Raises:
        BackendError: they are not.
    """
    if set(inputs) != set(INPUTS):
        raise BackendError(
            f"{backend}: the model's inputs are {_list(inputs)}, not {_list(INPUTS)};"
            " it was not exported by this program"
        )
    details = detail_names(outputs)
    named = all(DETAIL.fullmatch(name) for name in details) and not set(details) & set(INPUTS)
    if not set(REQUIRED_OUTPUTS) <= set(outputs) or len(details) > MOST_DETAILS or not named:
        raise BackendError(
            f"{backend}: the model's outputs are {_list(outputs)}, not {_list(OUTPUTS)} and at"
            f" most {MOST_DETAILS} details; it was not exported by this program"
        )


def check_shape(
    backend: str, shapes: Mapping[str, Sequence[object]], expected: tuple[int, int] | None
) -> tuple[int, int]:
    """(T, C) of a model whose tensors have ``shapes``, batch axis included.

    Raises:
        BackendError: the shapes contradict each other, are not fixed, or are not ``expected``.
    """
    window = tuple(shapes[INPUTS[0]])
    if len(window) != 3 or not all(isinstance(size, int) for size in window[1:]):
        raise BackendError(f"{backend}: the model's window is {_shape(window)}, not [B, T, C]")
    tail = window[1:]
    one_a_point = {"score", *detail_names(shapes)} - set(INPUTS)
    for name, shape in shapes.items():
        wanted = tail[:1] if name in one_a_point else tail
        if tuple(shape[1:]) != wanted:
            raise BackendError(
                f"{backend}: the model's {name} is {_shape(shape)}, which does not fit its window"
                f" {_shape(window)}"
            )
    points, channels = int(str(tail[0])), int(str(tail[1]))
    if expected is not None and (points, channels) != expected:
        raise BackendError(
            f"{backend}: the model takes {points} points of {channels} channel(s), the bundle says"
            f" {expected[0]} of {expected[1]}"
        )
    return points, channels


def check_arrays(
    backend: str, windows: FloatArray, observed: FloatArray, shape: tuple[int, int]
) -> None:
    """Both are [B, T, C] with the model's (T, C).

    Raises:
        BackendError: they are not.
    """
    if windows.shape[1:] != shape or observed.shape != windows.shape:
        raise BackendError(
            f"{backend}: windows {_shape(windows.shape)} and observed {_shape(observed.shape)} do"
            f" not fit the model's [B, {shape[0]}, {shape[1]}]"
        )


def first_line(error: Exception) -> str:
    """The first line of a runtime's message, to quote in a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def _list(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _shape(shape: Sequence[object]) -> str:
    return "[" + ", ".join(str(size) for size in shape) + "]"
