"""``edge-tsad report``: a bundle and its model as one HTML page with plots."""

from __future__ import annotations

from pathlib import Path

import click

from edge_tsad.bundle import open_bundle
from edge_tsad.cli.tables import number
from edge_tsad.cli.targets import check_target
from edge_tsad.cli.workstation import needs
from edge_tsad.errors import DataError
from edge_tsad.files import write_atomically

__all__ = ["command"]


@click.command(
    name="report",
    help="""Draw what is known of BUNDLE and of the MODEL that it was exported from.

One HTML page that opens without a network: the training, scores and threshold with its confidence,
expected against seen values, and each file's scores beside the model's. Of the training data it
holds two windows, and says so.

\b
Example:
  edge-tsad report pump-1.0.0.tsad pump.safetensors
""",
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--budget", help='Alarm budget to show, such as "1/7d" or "1/10000pt".')
@click.option(
    "--out", type=click.Path(path_type=Path), help="HTML file or folder.  [BUNDLE.report.html]"
)
def command(*, bundle: Path, model: Path, budget: str | None, out: Path | None) -> None:
    """Draw and write."""
    with needs("export"):
        from edge_tsad.runtime.threshold import Budget
        from edge_tsad.training.model import TrainedModel
        from export.report import gather, report_html
    target = out or bundle.with_suffix(".report.html")
    if target.is_dir():
        target /= bundle.with_suffix(".report.html").name
    check_target(target, [bundle, model])
    opened, trained = open_bundle(bundle), TrainedModel.load(model)
    wanted = None if budget is None else Budget.parse(budget, trained.timing)
    page = report_html(gather(opened, trained, wanted))
    write_atomically(target, page, DataError)
    click.echo(f"wrote {target} ({number(len(page))} bytes)")
