"""What commands of the workstation share: the missing-extra sentence, DATA options, progress."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edge_tsad.cli.durations import duration_ns
from edge_tsad.errors import ConfigError

if TYPE_CHECKING:
    from rich.progress import Progress

__all__ = ["data_options", "duration_ns", "needs", "progress_bar", "seed_option", "units_of"]

Function = TypeVar("Function", bound=Callable[..., Any])


@contextlib.contextmanager
def needs(extra: str) -> Iterator[None]:
    """Imports inside turn a missing package into a sentence that names the extra.

    Raises:
        ConfigError: a package from outside this project is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("edge_tsad", "export", "firmware_bridge"):
            raise
        raise ConfigError(
            f"this command needs {missing}, which is not installed; "
            f'pip install "edge-tsad[{extra}]" on a workstation'
        ) from error


def data_options(function: Function) -> Function:
    """The options that say how DATA is read."""
    options = [
        click.option("--time", help="Column with the time stamps.  [time, timestamp, date, …]"),
        click.option("--columns", help="Columns that are channels, with commas.  [all others]"),
        click.option(
            "--label-column",
            "--label",
            "label",
            help="Column that is not 0 where anomalous; those rows are left out.  [label, …]",
        ),
        click.option("--step", help='Grid step Δ, such as "1s".  [the median distance]'),
        click.option("--unit", multiple=True, help="CHANNEL=UNIT; may be repeated."),
    ]
    return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), function)


def seed_option(what: str) -> Callable[[Function], Function]:
    """The option ``--seed``, 0 by default; ``what`` says what it is of."""
    return click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help=what)


def units_of(pairs: tuple[str, ...]) -> dict[str, str]:
    """``CHANNEL=UNIT`` options as a table.

    Raises:
        ConfigError: one has no name or no ``=``.
    """
    table = {}
    for pair in pairs:
        name, equals, unit = pair.partition("=")
        if not (name and equals):
            raise ConfigError(f"--unit: {pair!r} is not CHANNEL=UNIT, such as pressure=bar")
        table[name] = unit
    return table


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar on standard error while the block runs; a screen of a person or nothing at all."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=False) as progress:
        yield progress
