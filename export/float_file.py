"""A model's float32 file alone, for whoever measures the detector and flashes nothing."""

from __future__ import annotations

from edge_tsad.registry import EXPORTERS
from edge_tsad.training.model import TrainedModel
from export.base import Exporter
from export.quantize import SCHEMES
from export.subject import subject_of
from export.verify import verify

__all__ = ["float_file"]


def float_file(model: TrainedModel, file_format: str, seed: int) -> bytes:
    """The file of ``file_format``, whose scores of normal and distorted windows are the model's.

    That is the first of what `Gate` asks of a file.

    Args:
        model: what training left.
        file_format: a name of ``EXPORTERS``.
        seed: of distortions.

    Raises:
        ExportError: a converter is missing or failed, or the file's scores are others.
    """
    subject, exporter = subject_of(model, seed), _exporter(file_format)
    reference = subject.reference(subject.threshold(None), seed)
    scheme = SCHEMES["none"]
    data = exporter.quantize(exporter.convert(model.detector), scheme.name, subject.windows)
    verify(f"{subject.name}.{exporter.format}", data, exporter, scheme, reference)
    return data


def _exporter(file_format: str) -> Exporter:
    exporter: Exporter = EXPORTERS[file_format]()
    return exporter
