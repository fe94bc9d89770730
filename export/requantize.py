"""More files for a bundle that exists, made from its own float32 files.

The trained model is not needed: its float32 file, which passed the gate when the bundle was made
and passes the golden windows here, takes its place. What a bundle lacks is data; that of normal
operation has to be given, for the ranges of activations and for the gate.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from edge_tsad.bundle.archive import Bundle, open_bundle, write_bundle
from edge_tsad.bundle.golden import GoldenWindows, self_test
from edge_tsad.bundle.manifest import Listed, Manifest, ModelFile
from edge_tsad.errors import BackendError, BundleError, ExportError
from edge_tsad.registry import BACKENDS
from edge_tsad.runtime.backends.base import Backend
from edge_tsad.runtime.threshold import Budget, Tail
from edge_tsad.training.series import Series
from export.base import Exporter
from export.bench import Bench, Exported
from export.build import Progress, exporters_named, schemes_named
from export.calibration import calibration_of
from export.card import added_files
from export.gate import Gate
from export.subject import Subject
from export.tail import ScoreMap, mapped_tail
from export.windows import calibration_windows

__all__ = ["next_version", "quantize_bundle"]

LAST_NUMBER = re.compile(r"(.*?)(\d+)$")


def quantize_bundle(
    path: Path,
    out: Path,
    *,
    data: Series,
    formats: Sequence[str] | None = None,
    schemes: Sequence[str],
    version: str | None = None,
    counter: int | None = None,
    budget: Budget | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Manifest:
    """Write ``path``'s bundle with more files to ``out``, unsigned, or nothing at all.

    Files of the same format and scheme are replaced, all others stay.

    Args:
        path: a bundle with a float32 file of each of ``formats``.
        out: the new bundle's file; replaced whole if it exists.
        data: normal operation, at least two windows of it in one piece.
        formats: names of exporters; None takes those of the bundle's float32 files.
        schemes: names of quantization schemes; ``none`` is what the bundle has.
        version: of the new bundle; None counts the old one's last number up.
        counter: None takes one more than the old bundle's.
        budget: whose threshold sets the unit of errors.
        seed: of distortions and injected anomalies.
        progress: told before each step.

    Raises:
        BundleError: the bundle cannot be read, or has no float32 file of a format.
        DataError: the data do not suit.
        ExportError: a file was refused, or could not be made.
    """
    bundle = open_bundle(path)
    chosen = [scheme for scheme in schemes_named(schemes) if scheme.name != "none"]
    if not chosen:
        raise ExportError("quantize: the float32 files are in the bundle; name another scheme")
    exporters = exporters_named(_formats(bundle) if formats is None else formats)
    sources = {exporter.format: _source(bundle, exporter) for exporter in exporters}
    bench = _bench(bundle, sources[exporters[0].format], data, budget, seed)
    made: list[Exported] = []
    step, total = itertools.count(), len(exporters) * len(chosen)
    for exporter in exporters:
        original = bundle.read(sources[exporter.format][0].path)
        for scheme in chosen:
            label = bench.label(exporter, scheme)
            if progress is not None:
                progress(f"verifying {label}", next(step), total)
            made.append(bench.quantized(label, original, exporter, scheme))
    manifest, members = _joined(bundle, made, version, counter)
    write_bundle(out, manifest, members)
    return manifest


def _formats(bundle: Bundle) -> list[str]:
    found = [file.format for file in bundle.manifest.files if file.scheme == "none"]
    if not found:
        raise BundleError(
            f"{bundle.where}: has no float32 file, from which the others are made; export the"
            " model with `--quantize none`"
        )
    return found


def _source(bundle: Bundle, exporter: Exporter) -> tuple[ModelFile, Backend]:
    """The bundle's float32 file of a format, and the backend that it passes its self-test on."""
    if (exporter.format, "none") not in {(f.format, f.scheme) for f in bundle.manifest.files}:
        raise BundleError(
            f"{bundle.where}: has no float32 {exporter.format} file, from which the others are"
            f" made; export the model with `--format {exporter.format} --quantize none`, or leave"
            f" {exporter.format} out of --format"
        )
    entry = bundle.model(exporter.format, "none")
    kind = BACKENDS[next(iter(exporter.runtimes))]
    manifest = bundle.manifest
    shape = (manifest.timing.window, len(manifest.channels))
    try:
        backend: Backend = kind(bundle.read(entry.path), shape=shape)
        problem = self_test(bundle, entry, backend).problem
    except BackendError as error:
        raise ExportError(f"{bundle.where}: {entry.path} does not run here: {error}") from error
    if problem:
        raise BundleError(f"{bundle.where}: {entry.path} fails its golden windows: {problem}")
    return entry, backend


def _bench(
    bundle: Bundle,
    source: tuple[ModelFile, Backend],
    data: Series,
    budget: Budget | None,
    seed: int,
) -> Bench:
    manifest, (entry, backend) = bundle.manifest, source
    windows, held_out = calibration_of(data, manifest.channels, manifest.timing)

    def retail(change: ScoreMap) -> Tail:
        return mapped_tail(entry.tail, change)

    subject = Subject(
        manifest.detector.name,
        manifest.timing,
        manifest.channels,
        manifest.policy,
        backend,
        windows,
        held_out,
        entry.tail,
        retail,
    )
    golden = GoldenWindows.from_bytes(bundle.read(manifest.golden.path), manifest)
    level = manifest.golden.bounds[entry.path].level
    ranges = calibration_windows(windows, manifest.timing.period, seed + 1)
    return Bench(subject, Gate.of(subject, budget, seed), golden, level, ranges)


def _joined(
    bundle: Bundle, made: list[Exported], version: str | None, counter: int | None
) -> tuple[Manifest, dict[str, bytes]]:
    """The manifest with ``made`` in it, and all members."""
    old = bundle.manifest
    new = {file.entry.path for file in made}
    kept = tuple(file for file in old.files if file.path not in new)
    card = bundle.read(old.card.path) + added_files([file.entry for file in made])
    bounds = {file.path: old.golden.bounds[file.path] for file in kept}
    manifest = dataclasses.replace(
        old,
        version=version or next_version(old.version),
        counter=old.counter + 1 if counter is None else counter,
        files=(*kept, *(file.entry for file in made)),
        golden=dataclasses.replace(
            old.golden, bounds=bounds | {file.entry.path: file.bounds for file in made}
        ),
        card=Listed.of(old.card.path, card),
    )
    members = {entry.path: bundle.read(entry.path) for entry in (*kept, old.golden)}
    members |= {file.entry.path: file.data for file in made}
    return manifest, members | {old.card.path: card}


def next_version(version: str) -> str:
    """``version`` with its last number counted up, or with ``.1`` after it."""
    match = LAST_NUMBER.match(version)
    return f"{match[1]}{int(match[2]) + 1}" if match else f"{version}.1"
