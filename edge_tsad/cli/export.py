"""``edge-tsad export``: a trained model becomes verified files and a bundle."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click

from edge_tsad.bundle.manifest import NAME, VERSION
from edge_tsad.cli.file_table import Tell, file_table, processors, run_all
from edge_tsad.cli.tables import number
from edge_tsad.cli.targets import check_target
from edge_tsad.cli.workstation import needs, seed_option
from edge_tsad.errors import ConfigError

__all__ = ["command", "names_in"]


@click.command(
    name="export",
    help="""Turn trained models into bundles for gateways.

Each file is run through the runtime of the gateway and compared with the trained model, in scores
and in alerts, before anything is written; one that computes something else is refused.

\b
Examples:
  edge-tsad export pump.safetensors
  edge-tsad export pump.safetensors --quantize none,fp16,dynamic,static --calibration may.csv
  edge-tsad export pump.safetensors --name pump --version 1.1.0 --counter 7 --files exported
  edge-tsad export pump.safetensors fan.safetensors --out bundles
""",
)
@click.argument(
    "models", nargs=-1, required=True, metavar="MODEL…", type=click.Path(path_type=Path)
)
@click.option("--format", "formats", default="tflite,onnx", show_default=True, help="Formats.")
@click.option(
    "--quantize",
    default="none,dynamic",
    show_default=True,
    help="Schemes of none (float32), fp16, dynamic, static and weights (int8).",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="More data of normal operation, CSV or NPZ, for ranges and for the comparison.",
)
@click.option("--name", help="Name of the bundle.  [MODEL's name]")
@click.option("--version", default="1.0.0", show_default=True, help="Version of the bundle.")
@click.option(
    "--counter",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Grows with each bundle of a place.",
)
@click.option(
    "--minimum-counter",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Least counter that gateways accept after it.",
)
@click.option("--budget", help='Alarm budget to verify with, such as "1/7d" or "1/10000pt".')
@seed_option("Of golden windows and distortions.")
@click.option("--files", type=click.Path(path_type=Path), help="Folder for the model files too.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Bundle, replaced if it exists, or folder.  [NAME-VERSION.tsad]",
)
@click.option("--jobs", type=click.IntRange(1), help="Models at once.  [all processors]")
def command(
    *,
    models: tuple[Path, ...],
    name: str | None,
    version: str,
    out: Path | None,
    jobs: int | None,
    **options: Any,
) -> None:
    """Export, verify and write."""
    with needs("export"):
        import export.build  # noqa: F401 - before anything else, to say what is missing
    if len(models) > 1 and (name is not None or (out is not None and not out.is_dir())):
        raise ConfigError("--name, --out: of several models --out is a folder and --name not given")
    if len(models) > 1 and options["files"] is not None:
        raise ConfigError("--files: is for one model; files of several would have equal names")
    if not VERSION.fullmatch(version):
        raise ConfigError(f"--version: {version!r} is no version such as 1.0.0")
    if options["counter"] < options["minimum_counter"]:
        raise ConfigError(
            f"--counter: {options['counter']} is below --minimum-counter"
            f" {options['minimum_counter']}, so that no gateway would take the bundle"
        )
    if options["files"] is not None and options["files"].exists() and not options["files"].is_dir():
        raise ConfigError(f"--files: {options['files']} is no folder; give one")
    targets = [_target(name or model.stem, version, out) for model in models]
    for target in targets:
        check_target(target, [*models, options["calibration"]])
    if len(set(targets)) < len(targets):
        raise ConfigError("MODEL: two models would become the same bundle; rename one of them")
    work = functools.partial(export_one, version=version, options=options)
    made = [
        (model, name or model.stem, target) for model, target in zip(models, targets, strict=True)
    ]
    run_all(made, work, [str(model) for model in models], _wrote, jobs or processors())


def _wrote(job: tuple[Path, str, Path]) -> str:
    return f"wrote {job[2]} ({number(job[2].stat().st_size)} bytes)"


def _target(name: str, version: str, out: Path | None) -> Path:
    if not NAME.fullmatch(name):
        raise ConfigError(f"--name: {name!r} is no plain name of letters, digits, '.', '_' and '-'")
    target = out or Path(f"{name}-{version}.tsad")
    return target / f"{name}-{version}.tsad" if target.is_dir() else target


def export_one(
    job: tuple[Path, str, Path], tell: Tell | None, *, version: str, options: dict[str, Any]
) -> list[list[str]]:
    """Export one model as the options say; rows of the table."""
    from edge_tsad.runtime.threshold import Budget
    from edge_tsad.training.model import TrainedModel
    from edge_tsad.training.series import load
    from export.build import export_bundle

    path, name, target = job
    trained = TrainedModel.load(path)
    budget, calibration = options["budget"], options["calibration"]
    manifest = export_bundle(
        trained,
        target,
        name=name,
        version=version,
        counter=options["counter"],
        minimum_counter=options["minimum_counter"],
        formats=names_in(options["formats"]),
        schemes=names_in(options["quantize"]),
        budget=None if budget is None else Budget.parse(budget, trained.timing),
        calibration=None if calibration is None else load(calibration),
        seed=options["seed"],
        files_folder=options["files"],
        progress=tell,
    )
    return file_table(manifest.files, f"{name} ")


def names_in(text: str) -> list[str]:
    """Names between commas."""
    return [part.strip() for part in text.split(",") if part.strip()]
