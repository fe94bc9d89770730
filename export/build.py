"""From a trained model to verified files and a bundle; nothing is written before all passed."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from edge_tsad.bundle.archive import write_bundle
from edge_tsad.bundle.manifest import DetectorInfo, Golden, Listed, Manifest, output_tensors
from edge_tsad.detectors.base import Detector
from edge_tsad.errors import ExportError
from edge_tsad.files import read_limited, write_atomically
from edge_tsad.registry import EXPORTERS
from edge_tsad.runtime.backends.checks import detail_names
from edge_tsad.runtime.threshold import Budget
from edge_tsad.training.model import TrainedModel
from edge_tsad.training.series import Series
from export.base import Exporter
from export.bench import Bench, Exported
from export.card import write_card
from export.quantize import Scheme, scheme_named
from export.subject import subject_of

__all__ = [
    "DEFAULT_FORMATS",
    "DEFAULT_SCHEMES",
    "export_bundle",
    "export_files",
    "exporters_named",
    "schemes_named",
]

DEFAULT_FORMATS = ("tflite", "onnx")
DEFAULT_SCHEMES = ("none", "dynamic")

LARGEST_FILE = 1 << 30
"""Bytes of a file in the way that are kept until the new ones are complete."""

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)`` before each step."""


def export_files(
    model: TrainedModel,
    *,
    formats: Sequence[str] = DEFAULT_FORMATS,
    schemes: Sequence[str] = DEFAULT_SCHEMES,
    budget: Budget | None = None,
    calibration: Series | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Exported]:
    """Convert, quantize, verify and calibrate; nothing is written.

    Args:
        model: what training left.
        formats: names of exporters.
        schemes: names of quantization schemes.
        budget: whose threshold sets the unit of errors; None takes one opening a week, or one per
            10,000 points where data has no rate.
        calibration: more normal operation: its first half joins the windows that set ranges, its
            second half takes the place of the history's end in trying the files.
        seed: of distortions, golden windows and the tails' bootstrap.
        progress: told before each step.

    Raises:
        DataError: the calibration data do not suit the model.
        ExportError: a scheme is unknown, a converter is missing or failed, or a file was refused.
        ConfigError: a format is unknown.
    """
    chosen, exporters = schemes_named(schemes), exporters_named(formats)
    bench = Bench.of(subject_of(model, seed, calibration), budget, seed)
    return _make(bench, model.detector, exporters, chosen, progress)


def _make(
    bench: Bench,
    detector: Detector,
    exporters: list[Exporter],
    schemes: list[Scheme],
    progress: Progress | None,
) -> list[Exported]:
    made: list[Exported] = []
    total = len(exporters) * (1 + len(schemes))
    step = itertools.count()

    def tell(what: str) -> None:
        if progress is not None:
            progress(what, next(step), total)

    for exporter in exporters:
        tell(f"converting to {exporter.format}")
        original = exporter.convert(detector)
        for scheme in schemes:
            tell(f"verifying {bench.label(exporter, scheme)}")
            made.append(bench.quantized(bench.label(exporter, scheme), original, exporter, scheme))
    return made


def export_bundle(
    model: TrainedModel,
    out: Path,
    *,
    name: str | None = None,
    version: str = "1",
    counter: int = 1,
    minimum_counter: int = 0,
    formats: Sequence[str] = DEFAULT_FORMATS,
    schemes: Sequence[str] = DEFAULT_SCHEMES,
    budget: Budget | None = None,
    calibration: Series | None = None,
    seed: int = 0,
    files_folder: Path | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Export ``model`` and write its bundle to ``out``, or nothing at all.

    Args:
        model: what training left.
        out: the bundle's file; replaced whole if it exists.
        name: of the bundle; None takes the detector's.
        version: of the bundle.
        counter: grows with every bundle made for a place.
        minimum_counter: what gateways accept at least once this bundle is committed.
        formats: as of `export_files`.
        schemes: likewise; on a gateway the first that runs is preferred.
        budget: as of `export_files`.
        calibration: likewise.
        seed: likewise.
        files_folder: a folder for the model files on their own, besides.
        progress: as of `export_files`.

    Raises:
        ExportError: a converter is missing or failed, a file was refused, or could not be written.
        ConfigError: a format is unknown.
        BundleError: the bundle could not be written, or its name or version is unfit.
    """
    chosen, exporters = schemes_named(schemes), exporters_named(formats)
    if not out.parent.is_dir():
        raise ExportError(f"{out.parent}: is no folder; make it first")
    bench = Bench.of(subject_of(model, seed, calibration), budget, seed)
    made = _make(bench, model.detector, exporters, chosen, progress)
    golden, card = (
        bench.golden.to_bytes(),
        write_card(model, [file.entry for file in made], bench.gate.threshold),
    )
    manifest = Manifest(
        name=name or model.detector.name,
        version=version,
        counter=counter,
        minimum_counter=minimum_counter,
        detector=DetectorInfo(model.detector.name, model.detector.settings()),
        timing=model.timing,
        channels=model.channels,
        policy=model.policy,
        files=tuple(file.entry for file in made),
        golden=Golden(
            **dataclasses.asdict(Listed.of("golden.npz", golden)),
            seed=seed,
            count=len(bench.golden.window),
            bounds={file.entry.path: file.bounds for file in made},
        ),
        card=Listed.of("card.md", card),
        training=model.facts,
        outputs=output_tensors(
            expected="expected" in bench.gate.reference.outputs,
            details=detail_names(bench.gate.reference.outputs),
        ),
    )
    members = {file.entry.path: file.data for file in made}
    members |= {"golden.npz": golden, "card.md": card}
    if files_folder is None:
        write_bundle(out, manifest, members)
        return manifest
    # The files first, so that a folder that cannot be written to leaves no bundle behind.
    with undoing() as undo:
        write_files(made, files_folder, undo)
        write_bundle(out, manifest, members)
    return manifest


@contextlib.contextmanager
def undoing() -> Iterator[contextlib.ExitStack]:
    """What undoes the body's work, the last step first; done if the body does not end."""
    with contextlib.ExitStack() as undo:
        yield undo
        undo.pop_all()


def write_files(made: Sequence[Exported], folder: Path, undo: contextlib.ExitStack) -> None:
    """Write verified files into ``folder``, each whole; ``undo`` brings back what was there.

    Raises:
        ExportError: the folder cannot be made or written to.
    """
    try:
        for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
            missing.mkdir()
            undo.callback(missing.rmdir)
        folder.mkdir(exist_ok=True)  # fails if it is something else
    except OSError as error:
        raise ExportError(f"{folder}: cannot be made: {error.strerror}") from error
    for file in made:
        path = folder / file.name
        if path.exists():
            old = read_limited(path, LARGEST_FILE, ExportError)
            undo.callback(write_atomically, path, old, ExportError)
        else:
            undo.callback(path.unlink, missing_ok=True)
        write_atomically(path, file.data, ExportError)


def schemes_named(names: Sequence[str]) -> list[Scheme]:
    """The schemes by name, each once.

    Raises:
        ExportError: one is unknown, or there is none.
    """
    if not names:
        raise ExportError("export: no quantization was asked for; 'none' is one")
    return [scheme_named(name) for name in dict.fromkeys(names)]


def exporters_named(names: Sequence[str]) -> list[Exporter]:
    """The exporters by format, each once.

    Raises:
        ConfigError: one is unknown.
        ExportError: there is none.
    """
    if not names:
        raise ExportError(f"export: no format was asked for; known are {', '.join(EXPORTERS)}")
    return [EXPORTERS[name]() for name in dict.fromkeys(names)]
