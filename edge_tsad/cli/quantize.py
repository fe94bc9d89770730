"""``edge-tsad quantize``: more files for bundles that exist, without the trained model."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click

from edge_tsad.bundle.manifest import VERSION
from edge_tsad.cli.export import names_in
from edge_tsad.cli.file_table import Tell, file_table, processors, run_all
from edge_tsad.cli.tables import number
from edge_tsad.cli.targets import check_target
from edge_tsad.cli.workstation import needs, seed_option
from edge_tsad.errors import ConfigError

__all__ = ["command"]


@click.command(
    name="quantize",
    help="""Add smaller files to bundles, made from their own float32 files.

The trained model is not needed, but data of normal operation is: a bundle holds none, and each file
is compared with the float32 one on it, in scores and in alerts, before anything is written. The new
bundle has a higher version and counter and no signature; sign it before it goes to a gateway.

\b
Examples:
  edge-tsad quantize pump-1.0.0.tsad --calibration may.csv --quantize fp16,static
  edge-tsad quantize pump-1.0.0.tsad --calibration may.csv --format tflite --out pump-2.0.0.tsad
  edge-tsad quantize *.tsad --calibration may.csv --out bundles
""",
)
@click.argument(
    "bundles", nargs=-1, required=True, metavar="BUNDLE…", type=click.Path(path_type=Path)
)
@click.option(
    "--calibration",
    required=True,
    type=click.Path(path_type=Path),
    help="Data of normal operation, CSV or NPZ: two windows at least.",
)
@click.option("--format", "formats", help="Formats.  [those of the bundle's float32 files]")
@click.option(
    "--quantize",
    default="fp16,dynamic,static",
    show_default=True,
    help="Schemes of fp16, dynamic, static and weights.",
)
@click.option("--version", help="Version of the new bundle.  [the old one, counted up]")
@click.option("--counter", type=click.IntRange(0), help="Of the new bundle.  [one more]")
@click.option("--budget", help='Alarm budget to verify with, such as "1/7d" or "1/10000pt".')
@seed_option("Of distortions.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Bundle, replaced if it exists, or folder.  [NAME-VERSION.tsad]",
)
@click.option("--jobs", type=click.IntRange(1), help="Bundles at once.  [all processors]")
def command(
    *, bundles: tuple[Path, ...], out: Path | None, jobs: int | None, **options: Any
) -> None:
    """Quantize, verify and write."""
    with needs("export"):
        from export.requantize import next_version
    version = options["version"]
    if version is not None and not VERSION.fullmatch(version):
        raise ConfigError(f"--version: {version!r} is no version such as 1.0.1")
    if len(bundles) > 1 and out is not None and not out.is_dir():
        raise ConfigError(f"--out: {out} is no folder, and there are several bundles")
    targets = [_target(path, version, out, next_version) for path in bundles]
    for target in targets:
        check_target(target, [*bundles, options["calibration"]])
    if len(set(targets)) < len(targets):
        raise ConfigError("BUNDLE: two bundles would become the same file; give them folders")
    work = functools.partial(quantize_one, options=options)
    made = list(zip(bundles, targets, strict=True))
    run_all(made, work, [str(path) for path in bundles], _wrote, jobs or processors())


def _wrote(job: tuple[Path, Path]) -> str:
    size = number(job[1].stat().st_size)
    return f"wrote {job[1]} ({size} bytes) without a signature; sign it before it is used"


def _target(path: Path, version: str | None, out: Path | None, next_version: Any) -> Path:
    """Where the new bundle goes."""
    from edge_tsad.bundle.archive import open_bundle

    old = open_bundle(path).manifest
    name = f"{old.name}-{version or next_version(old.version)}.tsad"
    target = out or Path(name)
    return target / name if target.is_dir() else target


def quantize_one(
    job: tuple[Path, Path], tell: Tell | None, *, options: dict[str, Any]
) -> list[list[str]]:
    """Quantize one bundle as the options say; rows of the table."""
    from edge_tsad.bundle.archive import open_bundle
    from edge_tsad.runtime.threshold import Budget
    from edge_tsad.training.series import load
    from export.requantize import quantize_bundle

    path, target = job
    timing, budget = open_bundle(path).manifest.timing, options["budget"]
    formats = options["formats"]
    manifest = quantize_bundle(
        path,
        target,
        data=load(options["calibration"]),
        formats=None if formats is None else names_in(formats),
        schemes=names_in(options["quantize"]),
        version=options["version"],
        counter=options["counter"],
        budget=None if budget is None else Budget.parse(budget, timing),
        seed=options["seed"],
        progress=tell,
    )
    return file_table(manifest.files, f"{manifest.name} ")
