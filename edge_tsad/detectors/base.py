"""The contract of a detector: a torch module whose ``forward`` is the detector and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor, nn

from edge_tsad.training.plan import plan_timing
from edge_tsad.training.series import Series
from edge_tsad.types import Timing

__all__ = ["Detector", "Progress"]

Progress = Callable[[int, int, float], None]
"""Called as ``progress(step, steps, loss)`` with ``step`` = 1…``steps`` while a detector fits."""


class Detector(nn.Module, ABC):
    """Scores windows; symbols, dtypes and units are those of the table in ``edge_tsad.types``.

    What every detector keeps to (``tests/detectors/test_contract.py`` walks the registry):

    - engineering units go in and come out, scaling is inside the graph;
    - outputs are finite for every finite input, however large;
    - the value of a point whose ``observed`` is 0 changes nothing;
    - no control flow depends on data, and no layer draws random numbers once fitted, so that the
      module can be exported as it is.
    """

    name: ClassVar[str]
    patch: ClassVar[int] = 1
    """A window is a multiple of this many points."""
    timing: Timing
    channels: int

    @classmethod
    def plan(
        cls, history: Series, *, window: int | None = None, max_delay: int | None = None
    ) -> Timing:
        """Window, hop, delay and smoothing for this history, from the history alone.

        The options are those of `plan_timing`.

        Raises:
            DataError: the history is too short, constant or without values.
            ConfigError: an option is out of range.
        """
        return plan_timing(history, multiple=cls.patch, window=window, max_delay=max_delay)

    @classmethod
    @abstractmethod
    def fit(
        cls,
        history: Series,
        timing: Timing,
        *,
        seed: int,
        progress: Progress | None = None,
        **options: Any,
    ) -> Detector:
        """A detector fitted to ``history``, in ``eval`` mode; equal seeds give equal weights.

        Equal bit for bit on one machine with one number of torch threads. The global random state
        of torch is left as it was. Every detector takes the option ``effort``, the share of the
        usual work to spend: see ``training.effort``; nets that only help to calibrate get less.

        Raises:
            DataError: the history has no stretch of ``timing.window`` points.
            ConfigError: an option is unknown or out of range.
        """

    @classmethod
    @abstractmethod
    def check_options(cls, options: dict[str, Any]) -> None:
        """Whether ``fit`` would take these options, before there is a history.

        Raises:
            ConfigError: one is unknown, of another type or out of range.
        """

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What ``from_settings`` needs besides the weights, as JSON values."""

    @classmethod
    @abstractmethod
    def from_settings(cls, settings: dict[str, Any]) -> Detector:
        """The module that ``load_state_dict`` then fills; ``eval`` mode.

        Raises:
            ConfigError: a setting is missing, unknown or out of range.
        """

    @abstractmethod
    def forward(self, window: Tensor, observed: Tensor) -> dict[str, Tensor]:
        """Score a batch of windows.

        Returns:
            ``score``, ``channel_score`` and, where there is one, ``expected``; besides any details
            f32[B, T], which alerts then carry under the names given here (lower-case words, a few).
        """

    def parameter_count(self) -> int:
        """Numbers that were learned from the history, those of its buffers included."""
        return sum(value.numel() for value in self.state_dict().values())
