"""From a history to a trained model: plan, fit, calibrate."""

from __future__ import annotations

import functools
import importlib.metadata
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_tsad.detectors.base import Detector, Progress
from edge_tsad.errors import ConfigError
from edge_tsad.registry import DETECTORS
from edge_tsad.training.calibrate import CrossFit, fit_tail, lacking
from edge_tsad.training.held_out import reserve
from edge_tsad.training.model import TrainedModel
from edge_tsad.training.plan import history_period
from edge_tsad.training.series import Series
from edge_tsad.training.spans import excluding
from edge_tsad.training.suspicious import suspicious_spans
from edge_tsad.training.threads import one_thread
from edge_tsad.training.windows import WindowSampler
from edge_tsad.types import FloatArray, PolicySettings, Timing

__all__ = ["check_options", "policy_for", "train"]

PLAN_OPTIONS = ("window", "max_delay")

BLOCKS = 2
BLOCK_EFFORT = 0.5
"""Nets of the cross-fit, and the work spent on each as a share of the shipped net's: together they
cost as much again, and what they score worse errs towards fewer alarms."""

VALIDATION_WINDOWS = 64
VALIDATION_NUMBERS = 1 << 21
"""Bounds of the validation windows: how many, and how many numbers in all (8 MB). Half as many may
come on top, with the extremes of the channels."""

CURVE_POINTS = 50
"""Points of the loss curve that are kept."""

PERIODS_SEEN = 2
"""Periods that a window should hold; fewer are said."""

MUCH_MISSING = 0.05
"""A share of missing values from which on it is said."""

VERSIONS_OF = ("torch", "numpy", "safetensors")


class _Meter:
    """One progress over several fits; keeps the losses of the first, the shipped net's."""

    def __init__(self, tell: Progress | None, fits: float) -> None:
        self._tell, self._fits = tell, fits
        self._done = 0
        self._total = 0
        self.losses: list[float] = []

    def of_fit(self, first: bool) -> Progress:
        """What is called by one fit."""

        def step(number: int, steps: int, loss: float) -> None:
            if first:
                self.losses.append(loss)
                self._total = round(steps * self._fits)
            self._done += 1
            if self._tell is not None and self._done <= self._total:
                self._tell(self._done, self._total, loss)

        return step


def check_options(
    detector: str, options: Mapping[str, Any] | None
) -> tuple[dict[str, int], dict[str, Any]]:
    """The options of `train` as those of the plan and those of the detector.

    Raises:
        ConfigError: the detector or an option is unknown, of another type or out of range.
    """
    chosen = dict(options or {})
    plan = {name: chosen.pop(name) for name in PLAN_OPTIONS if name in chosen}
    for name, value in plan.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise ConfigError(f"{name}: {value!r} is no whole number of points")
    DETECTORS[detector].check_options(chosen)
    return plan, chosen


@one_thread()
def train(
    history: Series,
    detector: str = "coad",
    *,
    seed: int,
    progress: Progress | None = None,
    options: dict[str, Any] | None = None,
    exclude: Sequence[str] = (),
    processes: int = 1,
) -> TrainedModel:
    """Plan the timing, fit the detector, calibrate by cross-fitting.

    The end of a long enough ``history`` is held out from the fit; see `reserve`.

    Args:
        history: normal operation; labelled anomalies in it are left out, missing values too.
        detector: a name of the registry.
        seed: equal seeds give equal models on one machine.
        progress: told after each step of all fits that this process makes, counted together.
        options: ``window`` and ``max_delay`` in points, and the detector's own; ``effort`` is that
            of the shipped net, and what is spent on calibration follows it.
        exclude: stretches ``FROM..TO`` to leave out as well; see `rows_of`.
        processes: how many more may fit for the calibration meanwhile; 1 = this one, afterwards.

    Raises:
        DataError: the history cannot be used.
        ConfigError: the detector or an option is unknown or out of range, or a stretch to leave out
            holds no row.
    """
    started = time.perf_counter()
    kind: type[Detector] = DETECTORS[detector]
    plan, chosen = check_options(detector, options)
    effort = chosen.get("effort", 1.0)
    normal = excluding(history, exclude).without_anomalies()
    timing = kind.plan(normal, **plan)
    shortfall = lacking(len(history), BLOCKS, timing.window)
    here = processes == 1 and not shortfall
    meter = _Meter(progress, 1 + BLOCKS * BLOCK_EFFORT * here)
    # A function of this process cannot be called from another.
    tell = meter.of_fit(first=False) if here else None
    block = chosen | {"effort": effort * BLOCK_EFFORT}
    fit_part = functools.partial(kind.fit, timing=timing, seed=seed, progress=tell, **block)
    calibrate = CrossFit(normal, timing, fit_part, BLOCKS).start(processes)
    reserved = reserve(normal, timing.window)
    fitted = kind.fit(
        reserved.fitted, timing, seed=seed, progress=meter.of_fit(first=True), **chosen
    )
    fit_seconds = time.perf_counter() - started
    policy = policy_for(timing)
    blocks = calibrate(fitted)
    calibration = [block.score for block in blocks]
    suspicious = suspicious_spans(blocks, history, normal, timing)
    history_facts = _history_facts(history, normal, timing)
    history_facts["warnings"] += _suspicion_warnings(suspicious)
    facts = {
        **history_facts,
        "excluded": list(exclude),
        "suspicious": suspicious,
        "held_out_points": len(reserved.held_out),
        "held_out_unseen": reserved.unseen,
        "seed": seed,
        "parameters": fitted.parameter_count(),
        "options": {**plan, **chosen},
        "loss_curve": _curve(meter.losses),
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS_OF},
        "fit_seconds": round(fit_seconds, 2),
        "seconds": round(time.perf_counter() - started, 2),
    }
    return TrainedModel(
        fitted,
        history.channels,
        policy,
        fit_tail(calibration, policy, seed, shortfall=shortfall),
        calibration,
        _validation(normal, timing),
        reserved.held_out,
        facts,
    )


def policy_for(timing: Timing) -> PolicySettings:
    """An alert closes after a quiet period and is updated once a period."""
    return PolicySettings(resolve_after=timing.period, update_every=timing.period)


def _validation(history: Series, timing: Timing) -> tuple[FloatArray, FloatArray]:
    """Evenly spread windows of the history, and those that hold the extremes of its channels."""
    numbers = timing.window * len(history.channels)
    count = int(np.clip(VALIDATION_NUMBERS // numbers, 1, VALIDATION_WINDOWS))
    sampler = WindowSampler(history.segments(timing.window), timing.window)
    (values, observed), (extreme, seen) = sampler.spread(count), sampler.extremes(count // 2)
    return np.concatenate([values, extreme]), np.concatenate([observed, seen])


def _curve(losses: list[float]) -> list[float]:
    """The mean losses of at most ``CURVE_POINTS`` stretches of the fit."""
    parts = np.array_split(np.array(losses), min(CURVE_POINTS, max(1, len(losses))))
    return [round(float(part.mean()), 5) for part in parts if len(part)]


def _window_warnings(period: int, window: int) -> list[str]:
    if PERIODS_SEEN * period <= window:
        return []
    return [
        f"the dominant period of {period} points is long for the window of {window}: what repeats "
        "is seen in part only; a coarser grid step would show it whole"
    ]


def _history_facts(history: Series, normal: Series, timing: Timing) -> dict[str, Any]:
    period = history_period(normal)
    missing = float(np.isnan(history.values).mean())
    labelled = 0 if history.labels is None else int(history.labels.sum())
    return {
        # Not the whole path: facts travel in bundles.
        "history": Path(history.name).name,
        "points": len(history),
        "missing_share": round(missing, 6),
        "labelled_points_left_out": labelled,
        "period": period.points,
        "period_found": period.found,
        "period_strength": round(period.strength, 4),
        "warnings": [
            *_warnings(history, period.found, missing, labelled),
            *_window_warnings(period.points, timing.window),
        ],
    }


def _suspicion_warnings(spans: list[str]) -> list[str]:
    if not spans:
        return []
    options = " ".join(f"--exclude {span}" for span in spans)
    return [
        f"{len(spans)} stretches of the history look unlike the rest to a net that never saw them; "
        f"nothing was dropped. If they were no normal operation, train again with {options}"
    ]


def _warnings(history: Series, found: bool, missing: float, labelled: int) -> list[str]:
    warnings = []
    if not found:
        warnings.append("no dominant period was found; a stand-in sets the window")
    for channel, column in zip(history.channels, history.values.T, strict=True):
        known = column[~np.isnan(column)]
        if not len(known):
            warnings.append(f"channel {channel.name!r} has no values in the history")
        elif known.min() == known.max():
            warnings.append(f"channel {channel.name!r} is constant ({known[0]:g}) in the history")
    if missing >= MUCH_MISSING:
        warnings.append(f"{missing:.0%} of the history's values are missing; they are masked")
    if labelled:
        warnings.append(f"{labelled} labelled points were left out")
    return warnings
