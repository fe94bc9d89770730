"""The command line ``edge-tsad``.

A command is one file in this folder with an attribute ``command``, and one line in
:data:`COMMANDS`. It is imported when it is called, so that a gateway can list and run its own
commands without the workstation's packages.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any, NamedTuple, NoReturn

import click

from edge_tsad import __version__
from edge_tsad.errors import EdgeTsadError

__all__ = ["COMMANDS", "CommandEntry", "main"]

USER_ERROR = 2
INTERRUPTED = 130


class CommandEntry(NamedTuple):
    """Where a command is (``"module:attribute"``) and what the list says of it."""

    target: str
    help: str


COMMANDS = {
    "train": CommandEntry("edge_tsad.cli.train:command", "Train a detector on a normal series."),
    "export": CommandEntry("edge_tsad.cli.export:command", "Turn a trained model into a bundle."),
    "report": CommandEntry("edge_tsad.cli.report:command", "Draw a bundle and its model as HTML."),
    "quantize": CommandEntry(
        "edge_tsad.cli.quantize:command", "Add smaller files to a bundle, offline."
    ),
    "info": CommandEntry("edge_tsad.cli.info:command", "Show what is in a bundle."),
    "bench": CommandEntry("edge_tsad.cli.bench:command", "Measure detectors on labelled series."),
    "keys": CommandEntry("edge_tsad.cli.keys:command", "Make and show signing keys."),
    "sign": CommandEntry("edge_tsad.cli.sign:command", "Sign a bundle."),
    "verify": CommandEntry("edge_tsad.cli.verify:command", "Check a bundle and its signature."),
    "doctor": CommandEntry("edge_tsad.cli.doctor:command", "Say what this machine can run."),
    "check": CommandEntry("edge_tsad.cli.check:command", "Find all mistakes of a configuration."),
    "record": CommandEntry("edge_tsad.cli.record:command", "Record streams to train on."),
    "run": CommandEntry("edge_tsad.cli.run:command", "Score live streams and send alerts to MQTT."),
    "replay": CommandEntry("edge_tsad.cli.replay:command", "Compute an alert's score once more."),
    "alerts": CommandEntry("edge_tsad.cli.alerts:command", "Subscribe to alerts and print them."),
    "labels": CommandEntry("edge_tsad.cli.labels:command", "Print what people said of alerts."),
    "provision": CommandEntry("edge_tsad.cli.provision:command", "Set up gateways over SSH."),
    "flash": CommandEntry("edge_tsad.cli.flash:command", "Bring a bundle to gateways or a stick."),
    "status": CommandEntry("edge_tsad.cli.status:command", "Show which bundle gateways serve."),
    "confirm": CommandEntry("edge_tsad.cli.confirm:command", "Let a bundle on trial stay."),
    "rollback": CommandEntry("edge_tsad.cli.rollback:command", "Return to an earlier bundle."),
    "history": CommandEntry("edge_tsad.cli.history:command", "Show what updates did and why."),
    "fetch": CommandEntry("edge_tsad.cli.fetch:command", "Bring home what gateways recorded."),
    "emit": CommandEntry("edge_tsad.cli.emit:command", "Wrap a bundle for RAUC, Mender, SWUpdate."),
    "demo": CommandEntry("edge_tsad.cli.demo:command", "The whole job once, on real data."),
}


class LazyGroup(click.Group):
    """A group that imports its commands when they are called, and words the errors of users."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the job."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command itself, imported now."""
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.target.partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list, from the table: no command is imported for it."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])

    def main(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Run and exit: 0, 2 with one sentence for an error of the user, 130 after Ctrl-C."""
        kwargs["standalone_mode"] = False
        kwargs.setdefault("prog_name", "edge-tsad")
        try:
            status = super().main(*args, **kwargs)
        except EdgeTsadError as e:
            click.echo(f"edge-tsad: {e}", err=True)
            status = USER_ERROR
        except click.ClickException as e:
            e.show()
            status = USER_ERROR
        except (KeyboardInterrupt, click.Abort):
            status = INTERRUPTED
        except BrokenPipeError:
            # Whoever read the output has left; what is still buffered must not raise again.
            sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
            status = 1
        sys.exit(status if isinstance(status, int) else 0)


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="""Time-series anomaly detection for edge gateways.

\b
Example:
  edge-tsad train history.csv --out model.safetensors
  edge-tsad export model.safetensors
  edge-tsad run --bundle model-1.0.0.tsad --source csv:live.csv --broker mqtt://localhost
  edge-tsad alerts --broker mqtt://localhost
""",
)
@click.version_option(__version__, prog_name="edge-tsad")
def main() -> None:
    """The command line itself."""
