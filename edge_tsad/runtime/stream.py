"""One stream from readings to alert events."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from edge_tsad.errors import DataError
from edge_tsad.runtime.alerting import AlertEvent, AlertPolicy
from edge_tsad.runtime.resampler import Resampler
from edge_tsad.runtime.scorer import StreamScorer
from edge_tsad.types import Cells, FloatArray, IndexArray, Now, Reading, Scores

__all__ = ["StreamPipeline"]


class StreamPipeline:
    """Resampler → StreamScorer → AlertPolicy (which has its value from a Threshold), owned as one.

    What comes out does not depend on how the readings are cut into calls, nor on a snapshot and
    restore between any two of them. ``tap``, where set, is shown every closed cell.
    """

    def __init__(self, resampler: Resampler, scorer: StreamScorer, policy: AlertPolicy) -> None:
        self.resampler = resampler
        self.scorer = scorer
        self.policy = policy
        self.tap: Callable[[Cells], None] | None = None

    def extend(self, times_ns: IndexArray, values: FloatArray) -> tuple[Scores, list[AlertEvent]]:
        """Rows of readings in their order of arrival: i64[n], f32[n, C] with NaN = no reading.

        Returns:
            The points whose scores became final, and what the policy made of them.

        Raises:
            DataError: the arrays have other types or shapes.
            BackendError: the model could not be run.
        """
        return self._score(self.resampler.extend(times_ns, values))

    def push(self, reading: Reading) -> tuple[Scores, list[AlertEvent]]:
        """One reading of one channel; the same as `extend` of a row that has only this value."""
        return self._score(self.resampler.push(reading))

    def advance(self, now: Now) -> tuple[Scores, list[AlertEvent]]:
        """Close what the wall clock has left behind; see `Resampler.advance`."""
        return self._score(self.resampler.advance(now))

    def finish(self) -> tuple[Scores, list[AlertEvent]]:
        """Close every cell up to the newest reading's. The last D points stay without a score."""
        return self._score(self.resampler.finish())

    def snapshot(self) -> dict[str, npt.NDArray[Any]]:
        """The whole state as flat arrays without objects, fit for ``np.savez``."""
        return {
            f"{part}.{name}": array
            for part, owner in self._parts().items()
            for name, array in owner.snapshot().items()
        }

    def restore(self, state: Mapping[str, npt.NDArray[Any]]) -> None:
        """Continue where the snapshot was taken.

        Raises:
            DataError: the snapshot is incomplete or of another stream. The pipeline is then in
                neither state: build it anew.
        """
        for part, owner in self._parts().items():
            prefix = f"{part}."
            own = {
                name.removeprefix(prefix): array
                for name, array in state.items()
                if name.startswith(prefix)
            }
            try:
                owner.restore(own)
            except KeyError as error:
                raise DataError(
                    f"the saved state has no {prefix}{error.args[0]}; remove it to start afresh"
                ) from error

    def _parts(self) -> dict[str, Resampler | StreamScorer | AlertPolicy]:
        return {"resampler": self.resampler, "scorer": self.scorer, "policy": self.policy}

    def _score(self, cells: Cells) -> tuple[Scores, list[AlertEvent]]:
        if self.tap is not None:
            self.tap(cells)
        scores = self.scorer.extend(cells)
        return scores, self.policy.extend(scores) if len(scores) else []
