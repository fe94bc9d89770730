"""Labelled series and sets of them: what a benchmark is run on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edge_tsad.errors import ConfigError
from edge_tsad.types import NANOSECONDS, FloatArray, IndexArray

__all__ = ["LabelledSeries", "LabelledSet"]


@dataclass(frozen=True, slots=True)
class LabelledSeries:
    """One series and what is known of it; only ``values``, grid and units ever reach a detector.

    ``index`` i64[n] are grid cells, ``values`` f32[n, C] with NaN where missing, ``labels`` u8[n].
    Rows before ``train_end`` are history.
    """

    name: str
    index: IndexArray
    values: FloatArray
    labels: npt.NDArray[np.uint8]
    train_end: int
    contiguous: bool = True
    recording: str = ""
    half: str = ""
    step_ns: int = NANOSECONDS
    has_rate: bool = False
    units: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class LabelledSet:
    """A set's usable series in their order, and why each other one is left out."""

    name: str
    series: tuple[LabelledSeries, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    def choose(self, names: Collection[str] = (), half: str | None = None) -> LabelledSet:
        """The named series (all, where none is named) of one half.

        A set with halves never shows its ``report`` half unasked: without ``half`` it is ``tune``.

        Raises:
            ConfigError: ``half`` is asked of a set that has none, or nothing is left.
        """
        halves = {series.half for series in self.series} - {""}
        if half is not None and half not in halves:
            known = ", ".join(sorted(halves)) or "none"
            raise ConfigError(f"half: {half!r} is no half of {self.name}; its halves are {known}")
        wanted = half or ("tune" if halves else None)
        left_out = {k: why for k, why in self.left_out.items() if not names or k in names}
        known_names = {series.name for series in self.series} | set(self.left_out)
        left_out |= dict.fromkeys(
            sorted(set(names) - known_names), f"{self.name} has no such series"
        )
        chosen = [series for series in self.series if not names or series.name in names]
        kept = [series for series in chosen if wanted is None or series.half == wanted]
        if names:
            other = {series.name: series.half for series in chosen if series not in kept}
            left_out |= {
                name: f"belongs to the half {where!r}; ask for it by --half {where}"
                for name, where in other.items()
            }
        if not kept:
            why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise ConfigError(f"series: nothing of {self.name} is left to run ({why or 'empty'})")
        return replace(self, series=tuple(kept), left_out=left_out)
