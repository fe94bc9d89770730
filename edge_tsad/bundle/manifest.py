"""The manifest: everything that a gateway must know about a bundle before it opens a model file.

::

    Manifest
    ├── format_version, name, version, counter, minimum_counter
    ├── detector  Detector(name, settings)
    ├── timing  Timing · channels  Channel… · policy  PolicySettings
    ├── inputs, outputs  Tensor(name, dtype, axes)…
    ├── files  ModelFile(path, size, sha256, format, scheme, runtimes, tail, parity)…
    ├── golden  Golden(path, size, sha256, seed, count, bounds {model path: Bounds})
    ├── card  Listed(path, size, sha256)
    └── training  facts
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from edge_tsad.decode import Json, canonical_json, decode, encode, parse_json, shorten
from edge_tsad.errors import BundleError
from edge_tsad.runtime.backends.checks import DETAIL, MOST_DETAILS, detail_names
from edge_tsad.runtime.threshold import Tail
from edge_tsad.types import Channel, PolicySettings, Timing

__all__ = [
    "FORMAT_VERSION",
    "INPUTS",
    "MANIFEST",
    "SIGNATURE",
    "Bounds",
    "DetectorInfo",
    "Golden",
    "Listed",
    "Manifest",
    "ModelFile",
    "Tensor",
    "output_tensors",
]

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+-]{0,30}")
MINIMUM_VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){0,3}")
SHA256 = re.compile(r"[0-9a-f]{64}")
MOST_CHANNELS = 1024
MOST_VALUES = 1 << 24  # T · C, and the points of every other span: a gateway allocates by them


@dataclass(frozen=True, slots=True)
class Listed:
    """A member of the bundle: its path, size in bytes and SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        if self.size < 0 or not SHA256.fullmatch(self.sha256):
            raise BundleError(f"size or sha256 of {shorten(self.path)} is no size or no SHA-256")

    @classmethod
    def of(cls, path: str, data: bytes) -> Listed:
        """The entry for ``data`` under ``path``."""
        return cls(path, len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True)
class DetectorInfo:
    """Which detector it was and the settings it was trained with."""

    name: str
    settings: dict[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or output of the graphs; T and C are the manifest's, B is free up to a backend."""

    name: str
    axes: tuple[Literal["B", "T", "C"], ...]
    dtype: Literal["float32"] = "float32"


INPUTS = (Tensor("window", ("B", "T", "C")), Tensor("observed", ("B", "T", "C")))
SCORE = Tensor("score", ("B", "T"))
CHANNEL_SCORE = Tensor("channel_score", ("B", "T", "C"))
EXPECTED = Tensor("expected", ("B", "T", "C"))


def output_tensors(*, expected: bool, details: tuple[str, ...] = ()) -> tuple[Tensor, ...]:
    """The outputs of a detector that has, or has no, ``expected``, and its ``details``, sorted."""
    known = (SCORE, CHANNEL_SCORE, EXPECTED) if expected else (SCORE, CHANNEL_SCORE)
    return known + tuple(Tensor(name, ("B", "T")) for name in details)


@dataclass(frozen=True, slots=True)
class ModelFile(Listed):
    """One graph file and what belongs to it alone.

    ``runtimes`` maps a backend's name to the least version that runs the file; ``tail`` is the
    calibration of this file's own scores; ``parity`` says how near it came to the float model.
    """

    format: str
    scheme: str
    runtimes: dict[str, str]
    tail: Tail
    parity: dict[str, Json] = field(default_factory=dict)

    def __post_init__(self) -> None:
        Listed.__post_init__(self)
        for label in ("format", "scheme"):
            if not NAME.fullmatch(getattr(self, label)):
                raise BundleError(f"file.{label}: {shorten(getattr(self, label))} is no plain name")
        for backend, least in self.runtimes.items():
            if not NAME.fullmatch(backend) or not MINIMUM_VERSION.fullmatch(least):
                pair = f"{shorten(backend)} = {shorten(least)}"
                raise BundleError(f"file.runtimes: {pair} is no backend and version")


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a file may be from the float model on a golden window, and where decisions fall.

    A score x fits the reference r where ``|x − r| ≤ absolute + relative · r``; a window counts as
    anomalous where its largest score reaches ``level``.
    """

    absolute: float
    relative: float
    level: float

    def __post_init__(self) -> None:
        for label in ("absolute", "relative", "level"):
            if getattr(self, label) < 0:
                raise BundleError(f"bounds.{label}: {getattr(self, label)} is negative")


@dataclass(frozen=True, slots=True)
class Golden(Listed):
    """``count`` golden windows, made from ``seed``; ``bounds`` by the path of a model file."""

    seed: int
    count: int
    bounds: dict[str, Bounds]

    def __post_init__(self) -> None:
        Listed.__post_init__(self)
        if not 1 <= self.count <= 100_000:
            raise BundleError(f"golden.count: {self.count} is not in 1…100000")


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of ``manifest.json``; the sha256 of its exact bytes is the bundle's digest.

    ``counter`` grows with every bundle made for a place; a gateway that committed this bundle
    accepts none whose counter is below ``minimum_counter`` any more.
    """

    name: str
    version: str
    counter: int
    minimum_counter: int
    detector: DetectorInfo
    timing: Timing
    channels: tuple[Channel, ...]
    policy: PolicySettings
    files: tuple[ModelFile, ...]
    golden: Golden
    card: Listed
    training: dict[str, Json] = field(default_factory=dict)
    inputs: tuple[Tensor, ...] = INPUTS
    outputs: tuple[Tensor, ...] = output_tensors(expected=True)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise BundleError(f"manifest.name: {shorten(self.name)} is no plain name")
        if not VERSION.fullmatch(self.version):
            raise BundleError(f"manifest.version: {shorten(self.version)} is no version")
        if not 0 <= self.minimum_counter <= self.counter:
            raise BundleError(
                f"manifest.minimum_counter: {self.minimum_counter} is not in 0…{self.counter}"
            )
        check_spans(self.timing, self.policy, len(self.channels))
        check_channels(self.channels)
        if self.inputs != INPUTS:
            raise BundleError("manifest.inputs: are not window and observed of axes B, T, C")
        check_outputs(self.outputs)
        check_files(self.files, self.golden, self.listed())

    @property
    def filename(self) -> str:
        """What the bundle's file is called by custom."""
        return f"{self.name}-{self.version}.tsad"

    def listed(self) -> tuple[Listed, ...]:
        """Every member but the manifest and its signature."""
        return (*self.files, self.golden, self.card)

    def to_json(self) -> bytes:
        """The canonical spelling; equal manifests give equal bytes.

        Raises:
            BundleError: a fact holds a number that is not finite, or something that is no JSON.
        """
        table = {f.name: encode(getattr(self, f.name)) for f in dataclasses.fields(self)}
        try:
            return canonical_json(table)
        except (TypeError, ValueError) as e:
            raise BundleError(f"{MANIFEST}: could not be written: {e}") from e

    @classmethod
    def from_json(cls, data: bytes) -> Manifest:
        """The manifest in ``data``; unknown keys, wrong types and odd numbers are refused.

        Raises:
            BundleError: the message names the key path.
        """
        table = parse_json(data, MANIFEST, BundleError)
        if not isinstance(table, dict) or "format_version" not in table:
            raise BundleError(f"{MANIFEST}: has no format_version; it is no manifest of a bundle")
        given = table["format_version"]
        if type(given) is not int or given != FORMAT_VERSION:
            raise BundleError(
                f"{MANIFEST}: format_version {shorten(given)} is unknown; this program reads "
                f"{FORMAT_VERSION}, a newer one may read it"
            )
        try:
            return decode(cls, table, "", BundleError)
        except BundleError as e:
            raise BundleError(f"{MANIFEST}: {e}") from e


def check_outputs(outputs: tuple[Tensor, ...]) -> None:
    """Refuse other outputs than score, channel_score, maybe expected, and a few sorted details."""
    details = detail_names([tensor.name for tensor in outputs])
    allowed = [output_tensors(expected=expected, details=details) for expected in (False, True)]
    if outputs not in allowed:
        raise BundleError(
            "manifest.outputs: are not score, channel_score, maybe expected and details by name"
        )
    if len(details) > MOST_DETAILS or not all(DETAIL.fullmatch(name) for name in details):
        raise BundleError(
            f"manifest.outputs: more than {MOST_DETAILS} details, or one without a plain name"
        )


def check_spans(timing: Timing, policy: PolicySettings, channels: int) -> None:
    """Refuse spans by which a gateway could not allocate."""
    if timing.window * max(channels, 1) > MOST_VALUES:
        raise BundleError(
            f"manifest.timing.window: {timing.window} points are more than can be held"
        )
    for label in ("delay", "smoothing", "period"):
        if getattr(timing, label) > MOST_VALUES:
            raise BundleError(
                f"manifest.timing.{label}: {getattr(timing, label)} is more than {MOST_VALUES}"
            )
    for label in ("minimum_duration", "resolve_after", "cooldown", "update_every"):
        if getattr(policy, label) > MOST_VALUES:
            raise BundleError(
                f"manifest.policy.{label}: {getattr(policy, label)} is more than {MOST_VALUES}"
            )


def check_channels(channels: tuple[Channel, ...]) -> None:
    """Refuse none, too many, equal and unprintable channels."""
    if not 1 <= len(channels) <= MOST_CHANNELS:
        raise BundleError(f"manifest.channels: {len(channels)} are not in 1…{MOST_CHANNELS}")
    for i, channel in enumerate(channels):
        if not (channel.name + channel.unit).isprintable() or len(channel.name) > 200:
            raise BundleError(
                f"manifest.channels[{i}].name: {shorten(channel.name)} cannot be printed"
            )
    name = first_twice(channel.name for channel in channels)
    if name is not None:
        raise BundleError(f"manifest.channels: {shorten(name)} is there twice")


def check_files(files: tuple[ModelFile, ...], golden: Golden, listed: tuple[Listed, ...]) -> None:
    """Refuse no model file, paths that clash, and bounds of other files than there are."""
    if not files:
        raise BundleError("manifest.files: is empty; a bundle has at least one model file")
    paths = [MANIFEST, SIGNATURE, *(entry.path for entry in listed)]
    path = first_twice(path.casefold() for path in paths)
    if path is not None:
        raise BundleError(f"manifest.files: the path {shorten(path)} is there twice")
    if set(golden.bounds) != {file.path for file in files}:
        raise BundleError("manifest.golden.bounds: does not name exactly the model files")


def first_twice(names: Iterable[str]) -> str | None:
    """The first name that occurred before, or None."""
    seen = set[str]()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
