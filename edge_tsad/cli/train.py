"""``edge-tsad train``: a series goes in, a trained model comes out."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge_tsad.cli.listed import lines_of
from edge_tsad.cli.tables import duration, number, pairs
from edge_tsad.cli.workstation import (
    data_options,
    duration_ns,
    needs,
    progress_bar,
    seed_option,
    units_of,
)
from edge_tsad.errors import ConfigError, DataError
from edge_tsad.training.effort import FAST, THOROUGH

if TYPE_CHECKING:
    from edge_tsad.training.model import TrainedModel
    from edge_tsad.training.series import Series

__all__ = ["command"]


@click.command(
    name="train",
    help="""Train a detector on a stretch of normal operation.

DATA is a CSV file with a line of column names, or an NPZ file; a time column gives the rate.

\b
Examples:
  edge-tsad train last-month.csv
  edge-tsad train pump.csv --columns pressure,flow --unit pressure=bar --out pump.safetensors
  edge-tsad train pump.csv --exclude 2026-03-01T08:00..2026-03-01T09:30 --exclude @repairs.txt
  edge-tsad train archive.npz --key machine-1 --max-delay 10m --seed 7
  edge-tsad train pump.csv --thorough
""",
)
@click.argument("data", type=click.Path(path_type=Path))
@data_options
@click.option("--key", help="Array of an NPZ file of several series.")
@click.option("--detector", default="coad", show_default=True, help="Which detector to train.")
@click.option("--fast", is_flag=True, help=f"A first look: {FAST:g} times the work.")
@click.option("--thorough", is_flag=True, help=f"{THOROUGH:g} times the work.")
@click.option("--max-delay", help='Longest delay of a score, such as "10m" or "50pt".')
@click.option(
    "--exclude",
    multiple=True,
    metavar="FROM..TO",
    help="Leave out this stretch, both ends included: ISO times (UTC), or row numbers from 0; "
    "@FILE has one a line; may be repeated.",
)
@click.option("--set", "settings", multiple=True, help="NAME=VALUE of the detector: steps=200, …")
@seed_option("Of everything drawn at random.")
@click.option("--out", type=click.Path(path_type=Path), help="Model file.  [DATA's name]")
def command(
    *,
    data: Path,
    detector: str,
    fast: bool,
    thorough: bool,
    max_delay: str | None,
    exclude: tuple[str, ...],
    settings: tuple[str, ...],
    seed: int,
    out: Path | None,
    **reading: Any,
) -> None:
    """Train and save."""
    with needs("train"):
        import edge_tsad.training.fit  # noqa: F401 - fails here if a package is missing
    options = _options(settings)
    if fast or thorough:
        if "effort" in options or (fast and thorough):
            raise ConfigError("--fast, --thorough, --set effort=…: give one of them")
        options["effort"] = FAST if fast else THOROUGH
    spans = [line for value in exclude for line in lines_of(value, "--exclude")]
    history = read_history(data, **reading)
    if max_delay is not None:
        options["max_delay"] = _points(max_delay, history)
    target = out or Path(data.stem).with_suffix(".safetensors")
    if not target.parent.is_dir():
        raise ConfigError(f"--out: the folder {target.parent} does not exist; make it first")
    model = fit(history, detector, options, seed, spans)
    model.save(target)
    click.echo("\n".join(pairs(_summary(model, target))))
    for warning in model.facts.get("warnings", []):
        click.echo(f"note: {warning}", err=True)


def read_history(
    path: Path,
    *,
    time: str | None = None,
    columns: str | None = None,
    label: str | None = None,
    step: str | None = None,
    unit: tuple[str, ...] = (),
    key: str | None = None,
) -> Series:
    """The series in ``path`` as the options describe it.

    Raises:
        DataError: it cannot be used.
        ConfigError: an option is wrong.
    """
    from edge_tsad.training.series import load

    options: dict[str, Any] = {"time": time, "label": label}
    options |= {"step_ns": duration_ns(step, "--step")}
    options |= {"columns": [name.strip() for name in columns.split(",")]} if columns else {}
    if key is not None:
        if path.suffix.lower() != ".npz":
            raise ConfigError(f"--key: {path} is no NPZ file")
        options["key"] = key
    series = load(path, **options)
    return _with_units(series, units_of(unit))


def _with_units(series: Series, units: dict[str, str]) -> Series:
    names = [channel.name for channel in series.channels]
    unknown = sorted(units.keys() - set(names))
    if unknown:
        raise DataError(
            f"--unit: {series.name} has no channel {unknown[0]!r}; its channels are "
            f"{', '.join(names)}"
        )
    channels = tuple(
        dataclasses.replace(channel, unit=units.get(channel.name, channel.unit))
        for channel in series.channels
    )
    return dataclasses.replace(series, channels=channels)


def fit(
    history: Series, detector: str, options: dict[str, Any], seed: int, exclude: list[str]
) -> TrainedModel:
    """Train with a bar on standard error."""
    from edge_tsad.training.fit import train

    with progress_bar() as bar:
        task = bar.add_task("training", total=1, note="")

        def tell(step: int, steps: int, loss: float) -> None:
            bar.update(task, completed=step, total=steps, note=f"loss {loss:.3f}")

        return train(
            history,
            detector,
            seed=seed,
            progress=tell,
            options=options,
            exclude=exclude,
            processes=os.cpu_count() or 1,
        )


def _options(pairs: tuple[str, ...]) -> dict[str, Any]:
    """``NAME=VALUE`` options as a table; a value that is no JSON is taken as text."""
    table: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise ConfigError(f"--set: {pair!r} is not NAME=VALUE, such as steps=200")
        try:
            table[name] = json.loads(text)
        except ValueError:
            table[name] = text
    return table


def _points(text: str, history: Series) -> int:
    if text.endswith("pt") and text[:-2].isdigit():
        return int(text[:-2])
    if not history.has_rate:
        raise ConfigError(
            f'--max-delay: {history.name} has no time stamps; give points, such as "50pt"'
        )
    nanoseconds = duration_ns(text, "--max-delay")
    assert nanoseconds is not None
    return nanoseconds // history.step_ns


def _summary(model: TrainedModel, path: Path) -> dict[str, str]:
    timing, facts = model.timing, model.facts
    missing = float(facts["missing_share"])
    second = timing.step_ns / 1e9 if timing.has_rate else None

    def span(points: int) -> str:
        return number(points) + " points" + (f" ({duration(points * second)})" if second else "")

    return {
        "model": str(path),
        "detector": f"{model.detector.name}, {number(model.detector.parameter_count())} parameters",
        "period": span(int(facts["period"])) if facts["period_found"] else "none found",
        "missing": f"{missing:.2%} of the values" if missing else "nothing",
        "left out": _left_out(facts),
        "window": span(timing.window),
        "delay": span(timing.delay),
        "fitted in": duration(float(facts["seconds"])),
    }


def _left_out(facts: dict[str, Any]) -> str:
    labelled = int(facts["labelled_points_left_out"])
    parts = [f"{number(labelled)} labelled points"] if labelled else []
    return ", ".join([*parts, *facts["excluded"]]) or "nothing"
