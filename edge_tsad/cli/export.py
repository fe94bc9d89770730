"""``edge-tsad export``: a trained model becomes verified files and a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edge_tsad.bundle.manifest import NAME, VERSION
from edge_tsad.cli.tables import number, table
from edge_tsad.cli.workstation import needs, progress_bar
from edge_tsad.errors import ConfigError

if TYPE_CHECKING:
    from edge_tsad.bundle.manifest import Manifest

__all__ = ["command"]


@click.command(
    name="export",
    help="""Turn a trained model into a bundle for gateways.

Each file is run through the runtime of the gateway and compared with the trained model before
anything is written; one that computes something else is refused.

\b
Examples:
  edge-tsad export pump.safetensors
  edge-tsad export pump.safetensors --format tflite --quantize dynamic --out pump-2.tsad
  edge-tsad export pump.safetensors --name pump --version 1.1.0 --counter 7 --files exported
""",
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--format", "formats", default="tflite,onnx", show_default=True, help="Formats.")
@click.option(
    "--quantize", default="none,dynamic", show_default=True, help="Schemes: none is float32."
)
@click.option("--name", help="Name of the bundle.  [MODEL's name]")
@click.option("--version", default="1.0.0", show_default=True, help="Version of the bundle.")
@click.option("--counter", default=1, show_default=True, help="Grows with each bundle of a place.")
@click.option("--minimum-counter", default=0, show_default=True, help="Least counter after it.")
@click.option("--budget", help='Alarm budget to verify with, such as "1/7d" or "1/10000pt".')
@click.option("--seed", default=0, show_default=True, help="Of golden windows and distortions.")
@click.option("--files", type=click.Path(path_type=Path), help="Folder for the model files too.")
@click.option("--out", type=click.Path(path_type=Path), help="Bundle file.  [NAME-VERSION.tsad]")
def command(
    *,
    model: Path,
    formats: str,
    quantize: str,
    name: str | None,
    version: str,
    counter: int,
    minimum_counter: int,
    budget: str | None,
    seed: int,
    files: Path | None,
    out: Path | None,
) -> None:
    """Export, verify and write."""
    with needs("export"):
        from edge_tsad.runtime.threshold import Budget
        from edge_tsad.training.model import TrainedModel
        from export.build import export_bundle
    name = name or model.stem
    if not NAME.fullmatch(name):
        raise ConfigError(f"--name: {name!r} is no plain name of letters, digits, '.', '_' and '-'")
    if not VERSION.fullmatch(version):
        raise ConfigError(f"--version: {version!r} is no version such as 1.0.0")
    target = out or Path(f"{name}-{version}.tsad")
    if target.is_dir():
        target /= f"{name}-{version}.tsad"
    if not target.parent.is_dir():
        raise ConfigError(f"--out: the folder {target.parent} does not exist; make it first")
    trained = TrainedModel.load(model)
    with progress_bar() as bar:
        task = bar.add_task("export", total=1, note="")

        def tell(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        manifest = export_bundle(
            trained,
            target,
            name=name,
            version=version,
            counter=counter,
            minimum_counter=minimum_counter,
            formats=_names(formats),
            schemes=_names(quantize),
            budget=None if budget is None else Budget.parse(budget, trained.timing),
            seed=seed,
            files_folder=files,
            progress=tell,
        )
    click.echo("\n".join(_summary(manifest)))
    click.echo(f"\nwrote {target} ({number(target.stat().st_size)} bytes)")


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _summary(manifest: Manifest) -> list[str]:
    rows = [
        [
            entry.path,
            number(entry.size),
            f"{entry.parity['max']:.2g}",
            f"{entry.parity['p999']:.2g}",
            f"{entry.parity['latency_ms']:.3g}",
            ", ".join(f"{name} ≥ {least}" for name, least in entry.runtimes.items()),
        ]
        for entry in manifest.files
    ]
    return table(["file", "bytes", "error max", "99.9 %", "ms/window", "runs on"], rows)
