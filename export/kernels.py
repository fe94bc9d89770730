"""What runtimes that cannot be had here compute, as near as that can be told here.

tflite-runtime 2.14 needs a numpy of its own. But it computes integer layers by kernels that LiteRT
has as well and uses where XNNPACK is left out. XNNPACK rounds an int8 output otherwise: on static
int8 files of CoAD streamed scores then differed by .001 to .09 units, the more the fewer layers
were left in float.
"""

from __future__ import annotations

import functools
import importlib
from typing import Any

import numpy as np

from edge_tsad.runtime.backends.litert import LiteRTBackend
from export.base import Exporter
from export.verify import Outputs, Reference, run

__all__ = ["OwnKernels", "disagreement"]


class OwnKernels(LiteRTBackend):
    """LiteRT without XNNPACK."""

    name = "litert-own-kernels"

    @classmethod
    def _interpreter_class(cls) -> Any:
        module = importlib.import_module(f"{cls.package}.interpreter")
        own = module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        return functools.partial(super()._interpreter_class(), experimental_op_resolver_type=own)


def disagreement(model: bytes, exporter: Exporter, outputs: Outputs, reference: Reference) -> float:
    """How much the scores of a file differ between kernels, as a stream uses them.

    Args:
        model: the file.
        exporter: its format.
        outputs: of the file on the reference's windows, by the backend it was verified with.
        reference: the windows.

    Returns:
        The largest difference on normal windows in units of threshold − median; 0 for a format
        without other kernels.
    """
    windows, normal = reference.windows, reference.normal
    here = reference.as_streamed(outputs["score"][:normal])
    worst = 0.0
    for kind in exporter.kernels:
        score = run(kind(model, shape=windows.window.shape[1:]), windows.first(normal))["score"]
        error = np.abs(reference.as_streamed(score) - here).max() / reference.unit
        worst = max(worst, float(error) if np.isfinite(error) else np.inf)
    return worst
